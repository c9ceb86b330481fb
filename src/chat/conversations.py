"""Conversations, in the one form that the stages of this pipeline hand on.

In a file each is a JSON object on a line of its own:

    {"id": "a:1", "source": "a.jsonl", "tools": [{"name": ..., "description": ..., "parameters":
    ...}], "conversations": [{"role": "user", "content": "..."}, {"role": "tool", "name": ...,
    "parameters": {...}, "observation": "..."}, {"role": "assistant", "content": "..."}]}

A turn of role ``tool`` is the model's call, which it learns, and what the tool answered, which it
does not; without ``observation``, nothing was answered. ``"loss": false`` has a turn not learnt,
and ``"parallel": true`` a call made in one breath with the one before it. Source: the data format
of ChatGLM3's fine-tuning.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from src.chat import toolbox
from src.chat.toolbox import UnusableError
from src.core.errors import InputError, closest
from src.tables.encodings import why_not_text
from src.tables.examples import fold

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)
# What may follow: of the first turn, and of each role.
FOLLOWS: Mapping[str, tuple[Role, ...]] = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant", "tool"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
# What other formats call them.
ALIASES: Mapping[str, Role] = {
    "human": "user",
    "prompter": "user",
    "bot": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatbot": "assistant",
    "function": "tool",
    "function_call": "tool",
    "observation": "tool",
}
TURNS = 400  # of a conversation at most; a template writes all of them anew for each answer


@dataclass(frozen=True)
class Turn:
    """What one side says."""

    role: Role
    content: str  # of a tool, what it answered
    learnt: bool
    name: str = ""  # of the tool that is called
    parameters: Mapping[str, Any] | None = None  # of that call
    answered: bool = True  # whether the tool answered
    parallel: bool = False  # whether it is made in one message with the call before it


@dataclass(frozen=True)
class Conversation:
    """Turns of a system message, a user, an assistant and its tools."""

    turns: tuple[Turn, ...]
    tools: tuple[Mapping[str, Any], ...] = ()  # each with name, description and parameters
    id: str = ""
    source: str = ""
    # What is right: calls, each argument with all its values, or {"said": [what an answer has]}.
    gold: Any = None

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> "Conversation":
        """Read what ``written`` gives, or what a person wrote in that form.

        Raises:
            UnusableError: it can't be used.
        """
        _refuse_no_json(found)
        given = found.get("conversations")
        if not isinstance(given, list) or not given:
            raise UnusableError("malformed", "conversations is no list of turns")
        if len(given) > TURNS:
            raise UnusableError("malformed", f"{len(given)} turns, more than {TURNS}")
        tools = tuple(map(toolbox.tool_of, _list(found.get("tools"), "tools")))
        turns = tuple(_turn(place, one) for place, one in enumerate(given, 1))
        _refuse_order(turns)
        _refuse_calls(turns, tools)
        _refuse_gold(found.get("gold"))
        if not any(turn.learnt for turn in turns):
            raise UnusableError("nothing_to_learn", "no turn of an assistant or tool is learnt")
        id, source = (str(found.get(key) or "") for key in ("id", "source"))
        return cls(turns, tools, id, source, found.get("gold"))

    def written(self) -> dict[str, Any]:
        """Return it as an object of JSON."""
        found: dict[str, Any] = {"id": self.id, "source": self.source}
        if self.tools:
            found["tools"] = [dict(tool) for tool in self.tools]
        found["conversations"] = [_written(turn) for turn in self.turns]
        return found if self.gold is None else found | {"gold": self.gold}

    def with_system(self, text: str) -> "Conversation":
        """Return it with a system message at its head, unless it has one or the text is ''."""
        if not text or self.turns[0].role == "system":
            return self
        return replace(self, turns=(Turn("system", text, False), *self.turns))

    def answers(self) -> Iterator[tuple[int, tuple[Turn, ...]]]:
        """Yield each message of the assistant that is learnt: its first turn's place, and turns."""
        messages: list[tuple[int, list[Turn]]] = []
        before: Turn | None = None
        for place, turn in enumerate(self.turns):
            if turn.role in ("assistant", "tool"):
                joined = before and (turn.parallel or before.role == "assistant")
                if joined and turn.role == "tool":
                    messages[-1][1].append(turn)
                else:
                    messages.append((place, [turn]))
            before = turn
        for place, turns in messages:
            if turns[0].learnt:
                yield place, tuple(turns)

    def asked(self) -> str:
        """Return what its users say, as one text that differs by more than form."""
        return json.dumps([fold(turn.content) for turn in self.turns if turn.role == "user"])


def _turn(place: int, found: Any) -> Turn:
    if not isinstance(found, dict):
        raise UnusableError("malformed", f"turn {place} is no object")
    role, learnt = found.get("role"), found.get("loss", True)
    if role not in ROLES:
        called = ALIASES.get(str(role).lower().strip())
        hint = f" (call it {called!r})" if called else closest(str(role), ROLES)
        raise UnusableError(
            "unknown_role",
            f"turn {place} has role {str(role)[:40]!r}{hint}: one of {', '.join(ROLES)}",
        )
    if not isinstance(learnt, bool) or not isinstance(found.get("parallel", False), bool):
        raise UnusableError(
            "malformed", f"turn {place} has a loss or parallel that is not true or false"
        )
    if role == "tool":
        return _call(place, found, learnt)
    content = found.get("content")
    if not isinstance(content, str):
        raise UnusableError("malformed", f"turn {place} has no content that is a text")
    if not content.strip():
        raise UnusableError("empty_turn", f"turn {place}, of the {role}, is empty")
    return Turn(role, content, learnt and role == "assistant")


def _call(place: int, found: Mapping[str, Any], learnt: bool) -> Turn:
    name, parameters = found.get("name"), found.get("parameters", {})
    if not isinstance(name, str) or not name.strip():
        raise UnusableError("malformed", f"turn {place} calls a tool without a name")
    if not isinstance(parameters, dict):
        raise UnusableError(
            "bad_arguments", f"turn {place}: the arguments of {name!r} are no object"
        )
    answer = found.get("observation")
    if not isinstance(answer, str | None):
        answer = json.dumps(answer, ensure_ascii=False)
    parallel = bool(found.get("parallel"))
    return Turn("tool", answer or "", learnt, name, parameters, answer is not None, parallel)


def _refuse_no_json(found: Mapping[str, Any]) -> None:
    """Refuse texts that are none, and numbers that JSON does not have."""
    kept = {key: found.get(key) for key in ("id", "source", "conversations", "tools", "gold")}
    try:
        text = json.dumps(kept, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise UnusableError("malformed", "a number that JSON does not have") from None
    except RecursionError:
        raise UnusableError("malformed", "values nested too deep") from None
    if reason := why_not_text(text) or ("a zero byte" if "\\u0000" in text else ""):
        raise UnusableError("not_text", reason)


def _list(found: Any, name: str) -> list[Any]:
    if found is None:
        return []
    if not isinstance(found, list):
        raise UnusableError("broken_tools", f"{name} is no list")
    return found


def _refuse_order(turns: Sequence[Turn]) -> None:
    before: Turn | None = None
    for place, turn in enumerate(turns, 1):
        if turn.role not in FOLLOWS[before.role if before else ""]:
            who = before.role if before else ""
            after = f"after one of the {who}" if before else "and the first"
            raise UnusableError(
                "misordered",
                f"turn {place} is of the {turn.role} {after}, where one of the "
                f"{' or '.join(FOLLOWS[who])} belongs",
            )
        called = before is not None and before.role == "tool"
        if turn.parallel and not called:
            raise UnusableError("misordered", f"turn {place} is parallel to no call before it")
        if before and called and turn.parallel and turn.answered != before.answered:
            raise UnusableError("misordered", f"of calls {place - 1} and {place} one has no answer")
        if before and called and not before.answered and not turn.parallel:
            reason = f"turn {place} is of the {turn.role}, and turn {place - 1} calls a tool that "
            raise UnusableError("misordered", f"{reason}does not answer")
        joined = before and turn.role == "tool" and (turn.parallel or before.role == "assistant")
        if before and joined and turn.learnt != before.learnt:
            reason = f"turns {place - 1} and {place} are one message, of which a part is not learnt"
            raise UnusableError("malformed", reason)
        before = turn
    if before and before.role in ("user", "system"):
        raise UnusableError(
            "misordered", f"the last turn is of the {before.role}, and nobody answers it"
        )


def _refuse_calls(turns: Sequence[Turn], tools: Sequence[Mapping[str, Any]]) -> None:
    known = {tool["name"]: tool["parameters"] for tool in tools}
    if len(known) < len(tools):
        raise UnusableError("broken_tools", "two tools have one name")
    for place, turn in enumerate(turns, 1):
        if turn.role == "tool":
            toolbox.refuse_call(place, turn.name, turn.parameters, known)


def _refuse_gold(gold: Any) -> None:
    """Refuse what is right about an answer in another form than ``Conversation.gold`` has."""
    if isinstance(gold, dict):
        said = gold.get("said")
        fits = isinstance(said, list) and said and all(isinstance(s, str) and s for s in said)
    else:
        calls = gold if isinstance(gold, list) else []
        fits = gold is None or (
            isinstance(gold, list)
            and all(
                isinstance(c, dict) and all(isinstance(a, dict) for a in c.values()) for c in calls
            )
        )
    if not fits:
        raise UnusableError("malformed", "gold is neither calls with their values nor what is said")


def _written(turn: Turn) -> dict[str, Any]:
    found: dict[str, Any] = {"role": turn.role}
    if turn.role == "tool":
        found |= {"name": turn.name, "parameters": turn.parameters}
        found |= {"observation": turn.content} if turn.answered else {}
        found |= {"parallel": True} if turn.parallel else {}
    else:
        found["content"] = turn.content
    if not turn.learnt and turn.role in ("assistant", "tool"):
        found["loss"] = False
    return found


def write(conversations: Sequence[Conversation], path: Path) -> None:
    """Write a conversation a line; equal ones give equal bytes."""
    lines = (json.dumps(one.written(), ensure_ascii=False) for one in conversations)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def read(path: Path) -> Iterator[Conversation]:
    """Read what ``write`` wrote; InputError if it is not there."""
    if not path.exists():
        raise InputError(f"There are no conversations in {path}: run `dvc repro chat/dvc.yaml`.")
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield Conversation.parse(json.loads(line))
