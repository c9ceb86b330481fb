"""From an object of another maker's form to conversations in ours, which are checked there."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from src.chat.toolbox import UnusableError
from src.tables.json_rows import TYPED

Found = dict[str, Any]
REFUSAL = "None of the tools that I have can do that."  # where BFCL has no call that fits
SHAREGPT = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "function_call": "call",
    "tool_call": "call",
    "observation": "answer",
    "function_response": "answer",
    "tool": "answer",
}


def _messages(found: Found, _: Any) -> Iterator[Found]:
    """OpenAI's: calls, whose answers are the messages that follow, by id or in their order."""
    turns: list[Found] = []
    waiting: dict[str, Found] = {}  # calls of the last message, by id
    given = found["messages"]
    if not isinstance(given, list):
        raise UnusableError("malformed", "messages is no list")
    for place, message in enumerate(given, 1):
        if not isinstance(message, dict):
            raise UnusableError("malformed", f"message {place} is no object")
        role, content = message.get("role"), _plain(message.get("content"), place)
        if role == "tool":
            named = str(message.get("tool_call_id"))
            call = waiting.pop(named if named in waiting else next(iter(waiting), ""), None)
            if call is None:
                raise UnusableError(
                    "misordered", f"message {place} answers a call that nobody made"
                )
            call["observation"] = content
            continue
        waiting = {}
        learnt = {"loss": False} if message.get("weight") == 0 else {}
        calls = message.get("tool_calls") or []
        if content or not calls:
            turns.append({"role": "system" if role == "developer" else role, "content": content})
            turns[-1] |= learnt if role == "assistant" else {}
        for number, one in enumerate(calls):
            if not isinstance(one, dict) or not isinstance(one.get("function"), dict):
                raise UnusableError("malformed", f"message {place} has a call without a function")
            turns.append(_call_of(one["function"]) | learnt | {"parallel": number > 0})
            waiting[str(one.get("id") or f"{place}-{number}")] = turns[-1]
    yield {"id": found.get("id"), "conversations": turns, "tools": found.get("tools")}


def _plain(content: Any, place: int) -> Any:
    """Join the parts of a message; one that is no text can't be learnt from."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            raise UnusableError("malformed", f"message {place} has a part that is no text")
        texts.append(text)
    return "".join(texts)


def _call_of(found: Found) -> Found:
    """Turn a name and arguments, which may be a text of JSON, into a turn."""
    arguments = found.get("arguments", found.get("parameters", {}))
    if isinstance(arguments, str):
        arguments = _json(arguments or "{}", f"the arguments of {str(found.get('name'))!r}")
    return {"role": "tool", "name": found.get("name"), "parameters": arguments}


def _json(text: str, what: str) -> Any:
    try:
        return TYPED.decode(text.strip())
    except ValueError as error:
        raise UnusableError("bad_arguments", f"{what} are not JSON: {str(error)[:80]}") from None


def _sharegpt(found: Found, _: Any) -> Iterator[Found]:
    turns: list[Found] = []
    waiting: list[Found] = []  # calls of the last turn
    if found.get("system"):
        turns.append({"role": "system", "content": found["system"]})
    for place, turn in enumerate(found["conversations"], 1):
        who = turn.get("from") if isinstance(turn, dict) else None
        role, value = SHAREGPT.get(str(who)), turn.get("value") if isinstance(turn, dict) else None
        if role is None:
            raise UnusableError("unknown_role", f"turn {place} is from {str(who)[:40]!r}")
        if role == "answer":
            if not waiting:
                raise UnusableError("misordered", f"turn {place} answers a call that nobody made")
            waiting.pop(0)["observation"] = value
            continue
        waiting = []
        if role == "call":
            called = _json(str(value), f"turn {place}: the call")
            for number, one in enumerate(called if isinstance(called, list) else [called]):
                if not isinstance(one, dict):
                    raise UnusableError("malformed", f"turn {place} calls what is no object")
                turns.append(_call_of(one) | {"parallel": number > 0})
                waiting.append(turns[-1])
        else:
            turns.append({"role": role, "content": value})
    yield {"id": found.get("id"), "conversations": turns, "tools": _tools(found.get("tools"))}


def _tools(given: Any) -> Any:
    if isinstance(given, str):
        try:
            given = TYPED.decode(given.strip() or "[]")
        except ValueError as error:
            raise UnusableError("broken_tools", f"tools are not JSON: {str(error)[:80]}") from None
    return given


def _alpaca(found: Found, _: Any) -> Iterator[Found]:
    """One of instruction, input and output, with earlier pairs as ``history``."""
    turns: list[Found] = []
    if found.get("system"):
        turns.append({"role": "system", "content": found["system"]})
    history = found.get("history") or []
    if not isinstance(history, list) or not all(
        isinstance(h, list) and len(h) == 2 for h in history
    ):
        raise UnusableError("malformed", "history is no list of pairs")
    for question, answer in history:
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    asked, more = found.get("instruction", found.get("prompt")), found.get("input")
    if not isinstance(asked, str) or not isinstance(more, str | None):
        raise UnusableError("malformed", "instruction or input is no text")
    answer = next(
        (found[key] for key in ("output", "response", "completion") if key in found), None
    )
    content = f"{asked}\n{more}" if more else asked
    turns += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
    yield {"id": found.get("id"), "conversations": turns}


def _toolalpaca(found: Found, _: Any) -> Iterator[Found | UnusableError]:
    """An API with its functions, and conversations in which these are called."""
    described, instances = found["Function_Description"], found["Instances"]
    if not isinstance(described, dict):
        raise UnusableError("broken_tools", "Function_Description is no object")
    if not isinstance(instances, list) or not instances:
        raise UnusableError("malformed", "Instances is no list of conversations")
    tools = [_described(name, text) for name, text in described.items() if name != "components"]
    for number, instance in enumerate(instances, 1):
        try:
            yield _instance(instance) | {"tools": tools}
        except UnusableError as error:
            yield error
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            reason = f"instance {number} is not of its form ({type(error).__name__})"
            yield UnusableError("malformed", reason)


def _instance(found: Found) -> Found:
    turns: list[Found] = [{"role": "user", "content": found.get("input")}]
    for step in found.get("intermediate_steps") or []:
        (name, arguments, *thought), answer = step[0], step[1]
        said = _thought(thought[0]) if thought else ""
        turns += [{"role": "assistant", "content": said}] if said else []
        turns.append(_call_of({"name": name, "arguments": arguments}) | {"observation": answer})
    final = [found.get("Final Thought"), found.get("output")]
    if text := "\n".join(part for part in final if part):
        turns.append({"role": "assistant", "content": text})
    return {"conversations": turns}


def _thought(log: Any) -> str:
    """Return what was thought before an action, of the log of an agent."""
    before = re.split(r"\n\s*(?:ASSISTANT )?Action:", str(log))[0]
    return before.strip().removeprefix("Thought:").strip()


def _described(name: str, text: str) -> Found:
    """Read "what it does / Parameters: {"year": "Required. integer. The year."}"."""
    about, _, rest = str(text).partition("\nParameters: ")
    properties, required = {}, []
    try:
        given = TYPED.raw_decode(rest.strip() or "{}")[0]
    except ValueError as error:
        raise UnusableError(
            "broken_tools", f"the parameters of {name!r} are not JSON: {error}"
        ) from None
    for key, value in given.items() if isinstance(given, dict) else ():
        words = re.match(r"(Required\. )?(?:(\w+)(?:\[.*?\])?\. )?(.*)", str(value), re.DOTALL)
        kind = words[2].lower() if words and words[2] else ""
        properties[key] = {"description": words[3] if words else ""}
        if kind in ("string", "integer", "number", "boolean", "array", "object"):
            properties[key]["type"] = kind
        if words and words[1]:
            required.append(key)
    schema = {"type": "object", "properties": properties, "required": required}
    return {"name": name, "description": about, "parameters": schema}


def _bfcl(found: Found, answers: Mapping[str, Any]) -> Iterator[Found]:
    """A question of the Berkeley Function Calling Leaderboard, with the right calls."""
    if "ground_truth" in found:  # which ``answers_of`` has read
        return
    name = str(found.get("id"))
    question = found["question"]
    turns = question[0] if isinstance(question, list) and question else []
    turns = [dict(turn) for turn in turns if isinstance(turn, dict)]
    gold = answers.get(name)
    if gold is None and "irrelevance" not in name:
        raise UnusableError(
            "nothing_to_learn", f"{name} has no answer: add its file of possible_answer"
        )
    needed = {
        tool.get("name"): (tool.get("parameters") or {}).get("required") or []
        for tool in found["function"]
    }
    calls = [(tool, allowed) for call in gold or [] for tool, allowed in call.items()]
    for number, (tool, allowed) in enumerate(calls):
        arguments = _first(allowed, needed.get(tool, []))
        turns.append({"role": "tool", "name": tool, "parameters": arguments})
        turns[-1] |= {"parallel": True} if number else {}
    if not gold:
        turns.append({"role": "assistant", "content": REFUSAL})
    yield {"id": name, "conversations": turns, "tools": found["function"], "gold": gold or []}


def _first(allowed: Any, needed: Sequence[str] = ()) -> Any:
    """Return the first of the allowed values of each argument; "" allows it to be left out."""
    found = {}
    for key, values in allowed.items():
        options = values if isinstance(values, list) else [values]
        options = [one for one in options if one != ""] if key in needed else options
        if options and options[0] != "":
            found[key] = _plain_value(options[0])
    return found


def _plain_value(value: Any) -> Any:
    if isinstance(value, dict):
        return _first(value)
    return [_plain_value(one) for one in value] if isinstance(value, list) else value


Convert = Callable[[Found, Mapping[str, Any]], Iterator[Found | UnusableError]]
CONVERTERS: dict[str, Convert] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "alpaca": _alpaca,
    "prompt": _alpaca,
    "toolalpaca": _toolalpaca,
    "bfcl": _bfcl,
    "answers": _bfcl,
}
