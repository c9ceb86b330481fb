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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry

from src.core.errors import InputError, closest
from src.tables.encodings import why_not_text
from src.tables.examples import fold

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)
# Why a conversation can't be used.
Code = Literal[
    "malformed",
    "not_text",
    "unknown_role",
    "empty_turn",
    "misordered",
    "broken_tools",
    "unknown_tool",
    "bad_arguments",
    "nothing_to_learn",
    "unwritable",
]
# What may follow: of the first turn, and of each role.
FOLLOWS: Mapping[str, tuple[Role, ...]] = {
    "": ("system", "user"),
    "system": ("user",),
    "user": ("assistant", "tool"),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}
# Kinds of values that other makers of tools write, as JSON Schema names them; "" for any.
KINDS = {"dict": "object", "float": "number", "tuple": "array", "any": "", "int": "integer"}
KINDS |= {
    "str": "string",
    "bool": "boolean",
    "list": "array",
    "double": "number",
    "long": "integer",
}
DEEP = 50  # levels of a schema
REFERENCES = 1000  # that are followed for one call: a few lines of them can stand for any number
TURNS = 400  # of a conversation at most; a template writes all of them anew for each answer
# Schemas that somebody else wrote: a pattern can take for ever, and another dialect has its own.
UNTRIED = ("$schema", "$dynamicRef", "pattern", "patternProperties", "format")
NAMED = ("properties", "$defs", "definitions", "dependentSchemas")  # which hold schemas by name
VALUES = ("enum", "const", "default", "examples")  # which hold none


def _follow(validator: Any, place: Any, instance: Any, schema: Any) -> Iterator[Any]:
    _followed.append(place)
    if len(_followed) > REFERENCES:
        raise RecursionError
    yield from Draft202012Validator.VALIDATORS["$ref"](validator, place, instance, schema) or ()


_followed: list[Any] = []  # references, for one call
_Validator: Any = extend(Draft202012Validator, {"$ref": _follow})  # type: ignore[no-untyped-call]


class UnusableError(Exception):
    """A conversation that can't be used: why, for programs and for people."""

    def __init__(self, code: Code, reason: str) -> None:
        """Keep both."""
        super().__init__(reason)
        self.code = code


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
    gold: Any = None  # the calls that are right, each argument with all values that are

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
        tools = tuple(map(_tool, _list(found.get("tools"), "tools")))
        turns = tuple(_turn(place, one) for place, one in enumerate(given, 1))
        _refuse_order(turns)
        _refuse_calls(turns, tools)
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

    def asked(self) -> str:
        """Return what its users say, as one text that differs by more than form."""
        return json.dumps([fold(turn.content) for turn in self.turns if turn.role == "user"])


def _turn(place: int, found: Any) -> Turn:
    if not isinstance(found, dict):
        raise UnusableError("malformed", f"turn {place} is no object")
    role, learnt = found.get("role"), found.get("loss", True)
    if role not in ROLES:
        hint = closest(str(role), ROLES)
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


def _tool(found: Any) -> Mapping[str, Any]:
    """Read the description of a tool, also as OpenAI writes it."""
    if isinstance(found, dict) and isinstance(found.get("function"), dict):
        found = found["function"]
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        raise UnusableError("broken_tools", f"a tool is no object with a name: {str(found)[:60]}")
    name = found["name"]
    schema = _schema(found.get("parameters") or {"type": "object", "properties": {}}, name)
    try:
        Draft202012Validator.check_schema(_tried(schema))
    except Exception as error:  # whatever a schema of somebody else's comes to
        reason = str(getattr(error, "message", error))[:100]
        raise UnusableError(
            "broken_tools", f"the parameters of tool {name!r} are no JSON Schema: {reason}"
        ) from None
    return {"name": name, "description": str(found.get("description") or ""), "parameters": schema}


def _schema(found: Any, name: str, level: int = 0) -> Any:
    """Write a schema as JSON Schema does; others call an object a dict and a number a float."""
    if level > DEEP:
        raise UnusableError("broken_tools", f"the parameters of tool {name!r} are nested too deep")
    if isinstance(found, list):
        return [_schema(one, name, level + 1) for one in found]
    if not isinstance(found, dict):
        return found
    fixed = {key: _schema(value, name, level + 1) for key, value in found.items()}
    kind = found.get("type")
    if isinstance(kind, str) and kind.lower() in KINDS:
        fixed["type"] = KINDS[kind.lower()]
        if not fixed["type"]:
            del fixed["type"]
    return fixed


def _tried(schema: Any) -> Any:
    """Return what of a schema arguments are held against."""
    if isinstance(schema, list):
        return [_tried(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {}
    for key, value in schema.items():
        if key in NAMED and isinstance(value, dict):
            kept[key] = {name: _tried(one) for name, one in value.items()}
        elif key not in UNTRIED:
            kept[key] = value if key in VALUES else _tried(value)
    return kept


def _refuse_order(turns: Sequence[Turn]) -> None:
    before: Turn | None = None
    for place, turn in enumerate(turns, 1):
        if turn.role not in FOLLOWS[before.role if before else ""]:
            after = f"after the {before.role}" if before else "first"
            raise UnusableError("misordered", f"turn {place} is of the {turn.role}, {after}")
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
        if turn.role != "tool":
            continue
        if turn.name not in known:
            hint = closest(turn.name, known) if known else ", for there are no tools"
            raise UnusableError(
                "unknown_tool", f"turn {place} calls {turn.name!r}, which is no tool{hint}"
            )
        _followed.clear()
        try:
            _Validator(_tried(known[turn.name]), registry=Registry()).validate(turn.parameters)
        except ValidationError as error:
            where = "".join(f" {part!r}" for part in error.path)
            raise UnusableError(
                "bad_arguments",
                f"turn {place} calls {turn.name!r} with what its schema refuses:{where} "
                f"{error.message[:100]}",
            ) from None
        except Exception as error:  # whatever a schema of somebody else's comes to
            raise UnusableError(
                "broken_tools",
                f"nothing can be held against the schema of tool {turn.name!r} "
                f"({type(error).__name__}): it may refer to what is not in it",
            ) from None


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
