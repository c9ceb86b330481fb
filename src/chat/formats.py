"""Conversations of other makers, told apart by their keys and turned into ours.

Each form has a function from one object to any number of objects in the form of
``conversations``, which is checked there; what an object can't be turned into is told here.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from src.chat.converters import CONVERTERS, Found
from src.chat.toolbox import UnusableError
from src.core.errors import InputError
from src.tables.encodings import mark_of, text_of
from src.tables.json_rows import TYPED, Item, json_lines, json_list
from src.tables.lines import Broken, Lines
from src.tables.places import File

Format = Literal[
    "auto",
    "conversations",
    "messages",
    "sharegpt",
    "alpaca",
    "prompt",
    "toolalpaca",
    "bfcl",
    "yaml",
]
FIELD = 1 << 26  # characters of one line at most
ASKING = {"question", "prompt", "instruction", "messages", "conversations"}
KEYS = {
    "messages": ("messages",),
    "toolalpaca": ("Instances", "Function_Description"),
    "bfcl": ("question", "function"),
    "answers": ("ground_truth",),
    "alpaca": ("instruction",),
    "prompt": ("prompt",),
}


@dataclass(frozen=True)
class Raw:
    """An object of a file: the physical line that it begins on, and what it became or why not."""

    line: int
    found: Found | UnusableError


def read(file: File, kind: Format, answers: Mapping[str, Any]) -> Iterator[Raw]:
    """Yield what a file has, in our form.

    Args:
        file: JSON lines, a list of JSON, or YAML as ChatterBot's corpus has it.
        kind: its form; auto to tell it by the keys of each object.
        answers: of ``answers_of``, for the questions of BFCL.

    Raises:
        InputError: the file is none of these, or has nothing.
    """
    if kind == "yaml" or (kind == "auto" and file.suffix in (".yml", ".yaml")):
        yield from _yaml(file)
        return
    for item in _objects(file):
        if isinstance(item, Broken):
            yield Raw(item.line, UnusableError("malformed", item.reason))
            continue
        try:
            for found in _converted(item.value, kind, answers):
                yield Raw(item.line, found)
        except UnusableError as error:
            yield Raw(item.line, error)
        except RecursionError:
            yield Raw(item.line, UnusableError("malformed", "values nested too deep"))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
            reason = f"not of its form ({type(error).__name__}: {str(error)[:60]})"
            yield Raw(item.line, UnusableError("malformed", reason))


def answers_of(file: File) -> dict[str, Any] | None:
    """Read the right calls of BFCL by the ids of their questions; None if the file has others."""
    if file.suffix in (".yml", ".yaml"):
        return None
    found: dict[str, Any] = {}
    for item in _objects(file):
        answers = (
            isinstance(item, Item)
            and "ground_truth" in item.value
            and not item.value.keys() & ASKING
        )
        if not found and not answers:
            return None
        if isinstance(item, Broken) or not answers:
            raise InputError(
                f"{file}, line {item.line} is no answer to a question, as those before it are: "
                "correct it, or move it to another file."
            )
        name = str(item.value.get("id"))
        if name in found:
            raise InputError(
                f"{file}, line {item.line} has a second answer to {name}: take one out."
            )
        found[name] = item.value["ground_truth"]
    return found or None


def _objects(file: File) -> Iterator[Item | Broken]:
    if not file.path.stat().st_size:
        raise InputError(f"{file} is empty (0 bytes): get it again, or correct {file.setting}.")
    with file.open() as stream:
        start = stream.peek(1024)
        _refuse_other_files(start, file, "JSON")
        is_list = start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
        text = text_of(stream, "utf-8")
        found = json_list(text, TYPED, FIELD) if is_list else json_lines(Lines(text, FIELD), TYPED)
        try:
            for item in found:
                if is_list and isinstance(item, Broken):  # what follows can't be read
                    raise InputError(
                        f"{file}, line {item.line} can't be read ({item.reason}): correct it, or "
                        "write an object a line."
                    )
                yield item
        except UnicodeError:
            raise InputError(f"{file} is not UTF-8{_where(file)}: save it as UTF-8.") from None


def _refuse_other_files(start: bytes, file: File, kind: str) -> None:
    file.refuse_other_kinds(start, f"a {kind} file")
    if mark := mark_of(start):
        raise InputError(f"{file} has the byte-order mark of {mark}: save it as UTF-8.")


def _where(file: File) -> str:
    """Name the first line that is not UTF-8."""
    with file.open() as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return f", by byte 0x{line[error.start]:02x} on line {number}"
    return ""


def _converted(
    found: Found, kind: Format, answers: Mapping[str, Any]
) -> Iterator[Found | UnusableError]:
    form = kind if kind != "auto" else _form(found)
    if form == "conversations":
        yield found
    else:
        yield from CONVERTERS[form](found, answers)


def _form(found: Found) -> str:
    turns = found.get("conversations")
    if isinstance(turns, list) and turns:
        first = turns[0]
        return "sharegpt" if isinstance(first, dict) and "from" in first else "conversations"
    for form, keys in KEYS.items():
        if all(key in found for key in keys):
            return form
    listed = ", ".join(repr(key)[1:-1] for key in sorted(found)[:8])
    raise UnusableError("malformed", f"an object of no form that is known, with the keys {listed}")


def _yaml(file: File) -> Iterator[Raw]:
    """Yield the dialogs of ChatterBot's corpus: lists of texts that two say in turn.

    The nodes are read and no values made of them, so that yes stays a text, and an alias, by which
    a few lines become gigabytes, is refused.
    """
    with file.open() as stream:
        _refuse_other_files(stream.peek(64), file, "YAML")
        content = stream.read()
    try:
        text = content.decode("utf-8-sig")
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise InputError(f"{file} has an alias, *, which is not read: write it out.")
        root = yaml.compose(text, yaml.SafeLoader)
    except UnicodeDecodeError:
        raise InputError(f"{file} is not UTF-8{_where(file)}: save it as UTF-8.") from None
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{file} is not valid YAML ({reason}): correct it.") from None
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    dialogs = next((value for key, value in pairs if key.value == "conversations"), None)
    if not isinstance(dialogs, yaml.SequenceNode):
        raise InputError(f"{file} has no list of conversations, as ChatterBot's corpus has.")
    for node in dialogs.value:
        line = node.start_mark.line + 1
        said = node.value if isinstance(node, yaml.SequenceNode) else []
        if not said or not all(isinstance(one, yaml.ScalarNode) for one in said):
            yield Raw(line, UnusableError("malformed", "a dialog is no list of texts"))
            continue
        roles = ("user", "assistant")
        turns = [{"role": roles[k % 2], "content": one.value} for k, one in enumerate(said)]
        yield Raw(line, {"conversations": turns})
