"""What is right about an answer: its calls, by BFCL's rule, what it says, and how like a text."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Call = tuple[str, Mapping[str, Any]]

OPTIONAL = ""  # among the allowed values of an argument: it may be left out
GLM = re.compile(r"\s*([\w.-]+)\s*\n\s*")  # GLM-4 writes the name on a line of its own


def calls_of(text: str) -> list[Call]:
    """Find the calls in what a model says, in the forms of Hermes, Qwen, Llama and GLM.

    A call is an object of JSON with ``name`` and ``arguments`` or ``parameters``, or a name on a
    line and then the object of its arguments.
    """
    found: list[Call] = []
    for before, value in _objects(text):
        inner = value.get("function")
        call = inner if isinstance(inner, dict) else value
        arguments = call.get("arguments", call.get("parameters"))
        if isinstance(arguments, str):  # JSON in a text
            arguments = next((one for _, one in _objects(arguments)), None)
        if isinstance(call.get("name"), str) and isinstance(arguments, dict):
            found.append((call["name"], arguments))
        elif name := GLM.fullmatch(before):
            found.append((name[1], value))
    return found


def _objects(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of JSON in a text that are in no other, each with the text before it."""
    decoder = json.JSONDecoder()
    start = place = 0
    while (place := text.find("{", place)) >= 0:
        try:
            value, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            place += 1
            continue
        yield text[start:place], value
        start = place = end


def are_right(
    calls: Sequence[Call],
    gold: Sequence[Mapping[str, Mapping[str, Any]]],
    schemas: Mapping[str, Mapping[str, Any]],
) -> bool:
    """Tell whether calls are the right ones, in any order.

    Source: the AST check of the Berkeley Function Calling Leaderboard.

    Args:
        calls: each a name and arguments.
        gold: for each call its name, and of each argument the values that are right; "" among
            them lets it be left out.
        schemas: of the arguments of each tool, by its name; what one requires may not be left out,
            and what it says is an integer may be no other number.
    """
    if len(calls) != len(gold):
        return False
    left = [*gold]
    for call in calls:
        fitting = next((one for one in left if _fits(call, one, schemas.get(call[0], {}))), None)
        if fitting is None:
            return False
        left.remove(fitting)
    return True


def gold_of(calls: Sequence[Call]) -> list[dict[str, dict[str, Any]]]:
    """Return calls as those of which no other values are right.

    A value of "" may be left out, too, which would mean the same to most tools.
    """
    return [{name: {key: [_exact(value)] for key, value in of.items()}} for name, of in calls]


def _exact(value: Any) -> Any:
    """Give the values of an object as lists of those that are right."""
    if isinstance(value, dict):
        return {key: [_exact(one)] for key, one in value.items()}
    return [_exact(one) for one in value] if isinstance(value, list) else value


def _fits(call: Call, gold: Mapping[str, Mapping[str, Any]], schema: Mapping[str, Any]) -> bool:
    name, arguments = call
    kinds = schema.get("properties") or {}
    return (
        name in gold
        and _holds(arguments, gold[name])
        and all(key in arguments for key in schema.get("required") or ())
        and not any(
            isinstance(value, float) and _kind(kinds.get(key)) == "integer"
            for key, value in arguments.items()
        )
    )


def _kind(schema: Any) -> Any:
    return schema.get("type") if isinstance(schema, dict) else None


def _holds(given: Mapping[str, Any], allowed: Mapping[str, Any]) -> bool:
    """Tell whether an object has allowed values, and leaves out only what it may."""
    options = {key: of if isinstance(of, list) else [of] for key, of in allowed.items()}
    if any(key not in given and OPTIONAL not in of for key, of in options.items()):
        return False
    return all(
        key in options and any(_same(value, one) for one in options[key])
        for key, value in given.items()
    )


def _same(value: Any, allowed: Any) -> bool:
    if isinstance(value, bool) or isinstance(allowed, bool):
        return value is allowed
    if isinstance(value, str) and isinstance(allowed, str):
        return _plain(value) == _plain(allowed)
    if isinstance(value, list) and isinstance(allowed, list):
        pairs = zip(value, allowed, strict=False)
        return len(value) == len(allowed) and all(_same(one, other) for one, other in pairs)
    if isinstance(value, dict) and isinstance(allowed, dict):
        return _holds(value, allowed)
    return bool(value == allowed)


def _plain(text: str) -> str:
    """Return a text as BFCL compares it: without case, spaces and some signs."""
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')


def words(text: str) -> list[str]:
    """Divide a text into words, without case; of Chinese and Japanese, characters."""
    return re.findall(
        r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+", text.lower()
    )


def rouge_l(said: str, expected: str) -> float:
    """Return the F1 of the longest common subsequence of words, from 0 to 1.

    Source: Lin, ROUGE: A Package for Automatic Evaluation of Summaries, 2004, section 3.
    """
    ours, theirs = words(said), words(expected)
    if not ours or not theirs:
        return float(ours == theirs)
    lengths = [0] * (len(theirs) + 1)
    for word in ours:
        diagonal = 0
        for place, other in enumerate(theirs, 1):
            above = lengths[place]
            lengths[place] = diagonal + 1 if word == other else max(above, lengths[place - 1])
            diagonal = above
    return 2 * lengths[-1] / (len(ours) + len(theirs))


def are_equal(said: str, expected: str) -> bool:
    """Tell whether two texts have the same words in the same order."""
    return words(said) == words(expected)


def says(text: str, parts: Sequence[str]) -> bool:
    """Tell whether a text has the words of each part one after the other, but for case."""
    said = words(text)

    def stands(part: list[str]) -> bool:
        return any(said[k : k + len(part)] == part for k in range(len(said) - len(part) + 1))

    return all(stands(words(part)) for part in parts)
