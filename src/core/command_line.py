"""The command line of a stage or command: the signature of ``main`` is its schema.

Positional parameters are arguments. Keyword-only parameters are options: of a stage, the params of
its section of ``params.yaml``, and none has a default. DVC expands a section to ``--key value``, so
a missing key, a stray key, a wrong type or a value out of range stops the stage before any work is
done.
"""

import argparse
import inspect
import math
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from src.core.errors import InputError, closest


@dataclass(frozen=True)
class Interval:
    """The numbers a param may be, as in ``Annotated[float, Interval(gt=0, le=1)]``."""

    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf
    lt: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.ge <= value <= self.le and self.gt < value < self.lt

    def __str__(self) -> str:
        bounds = {"at least": self.ge, "above": self.gt, "at most": self.le, "below": self.lt}
        finite = [f"{words} {bound:.12g}" for words, bound in bounds.items() if abs(bound) < 1e300]
        return " and ".join(finite)


Natural = Annotated[int, Interval(ge=0)]
Count = Annotated[int, Interval(ge=1)]
Threads = Annotated[int, Interval(ge=1, le=1024)]
Share = Annotated[float, Interval(gt=0, lt=1)]
Seed = Annotated[int, Interval(ge=0, lt=2**32)]


def program() -> str:
    """Name the module that this process runs, such as ``src.text.load`` or ``src.predict``."""
    words = Path(sys.argv[0]).with_suffix("").parts
    start = len(words) - 1 - words[::-1].index("src") if "src" in words else len(words) - 1
    return ".".join(words[start:]).removesuffix(".__main__")


def options() -> list[str]:
    """Return the options of this command line as they came, for processes that a stage starts."""
    first = next((k for k, word in enumerate(sys.argv) if word.startswith("--")), len(sys.argv))
    return sys.argv[first:]


class Parser(argparse.ArgumentParser):
    """Parse a command line; a mistake in it is an ``InputError``."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where to look."""
        raise InputError(f"{message}; `{self.prog} --help` lists what it takes.")


def bind(
    main: Callable[..., None], name: str, section: bool, arguments: Sequence[str], file: str = ""
) -> tuple[list[Any], dict[str, Any]]:
    """Parse ``arguments`` by the signature of ``main``: positional values, then options by name.

    Args:
        main: as of ``core.stage.run``.
        name: of the section or command, for messages.
        section: whether the options are a section of a params.yaml.
        arguments: the words of the command line.
        file: that params.yaml, for messages; "" for that of the stage's pipeline.

    Raises:
        InputError: they don't fit.
    """
    description = inspect.getdoc(main)
    parser = Parser(prog=f"python -m {program()}", description=description, allow_abbrev=False)
    parameters = inspect.signature(main, eval_str=True).parameters.values()
    options = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    arguments_of_main = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    for p in arguments_of_main:
        if p.kind is p.VAR_POSITIONAL:
            parser.add_argument(p.name, type=p.annotation, nargs="*", default=[])
        else:
            parser.add_argument(p.name, type=p.annotation)
    for p in options.values():
        # DVC writes lists as many words; on a command of our own, words after a value are texts.
        words: dict[str, Any] = {"nargs": "*" if section else 1}
        if p.annotation is bool and not section:
            words = {"action": "store_const", "const": []}
        elif bool in get_args(p.annotation) and not section:  # --remote, or --remote storage
            words = {"nargs": "?", "const": [], "type": lambda word: [word]}
        # On a command of our own, --text-column is --text_column; params have the one name only.
        names = [p.name] if section else list(dict.fromkeys([p.name, p.name.replace("_", "-")]))
        flags = [f"--{name}" for name in names]
        parser.add_argument(*flags, dest=p.name, help=_describe(p.annotation), **words)
        if p.annotation is bool:
            flags = [f"--no-{name}" for name in names]
            parser.add_argument(*flags, dest=p.name, action="store_const", const=["no"])
    # argparse takes -1 for a value but -1e-5 for an option; here only two dashes start an option.
    parser._negative_number_matcher = re.compile("-[^-]")
    parse = parser.parse_known_args if section else parser.parse_known_intermixed_args
    given, unknown = parse(arguments)
    where = (
        (f"{name}.", f"in {file or params_of(main)}") if section else ("--", "on the command line")
    )
    if unknown:
        key = unknown[0].removeprefix("--no-").removeprefix("--")
        dashes = "" if section else "--"
        known = [f"{dashes}{option}" for option in options]
        hint = closest(f"{dashes}{key}", known)
        raise InputError(
            f"{where[0]}{key} is not known{hint}: {name} takes {', '.join(known) or 'none'}; "
            f"rename or remove it {where[1]}{'' if section else ', or put -- before texts'}."
        )
    positional: list[Any] = []
    for p in arguments_of_main:
        value = getattr(given, p.name)
        positional.extend(value if isinstance(value, list) else [value])
    params = {p.name: value_of(p, getattr(given, p.name), *where) for p in options.values()}
    return positional, params


def params_of(main: Callable[..., None]) -> str:
    """Name the params.yaml of a stage: that of the folder named as its package, or of the root."""
    module = program() if main.__module__ == "__main__" else main.__module__
    own = Path(*module.split(".")[1:2], "params.yaml")
    return own.as_posix() if own.exists() else "params.yaml"


def value_of(p: inspect.Parameter, words: list[str] | None, prefix: str, place: str) -> Any:
    """Turn the words of one option into its typed value; InputError if they are none."""
    if words is None and p.default is not p.empty:
        return p.default
    kind = get_args(p.annotation)[0] if get_origin(p.annotation) is Annotated else p.annotation
    if words is None and get_origin(kind) is list:
        return []  # DVC leaves an empty list out of the command line
    expected = f"expected {_describe(p.annotation)}"
    if words is None:
        raise InputError(f"{prefix}{p.name} is missing: {expected}; set it {place}.")
    try:
        return _parse(p.annotation, words)
    except ValueError:
        # An option without words is what DVC makes of `key: true`.
        found = " ".join(words) if words else "true"
        raise InputError(f"{prefix}{p.name} is {found!r}: {expected}; change it {place}.") from None


def _parse(kind: Any, words: Sequence[str]) -> Any:
    """Turn words into a value of ``kind``; ValueError if they are none."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value = _parse(parts[0], words)
        numbers = value if isinstance(value, list) else [value]
        if any(number not in parts[1] for number in numbers):
            raise ValueError(words)
        return value
    if origin is list:
        return [_parse(parts[0], [word]) for word in words]
    if origin in (Union, UnionType):
        for part in parts:
            try:
                return _parse(part, words)
            except ValueError:
                continue
        raise ValueError(words)
    if kind is bool and words in ([], ["no"]):
        return words == []
    if kind is bool or len(words) != 1:
        raise ValueError(words)
    if origin is Literal:
        return parts[parts.index(words[0])]
    value = kind(words[0])
    if kind is float and not math.isfinite(value):
        raise ValueError(words)
    return value


def _describe(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{_describe(parts[0])} {parts[1]}"
    if origin is list:
        return f"a list, each {_describe(parts[0])}"
    if origin in (Union, UnionType):
        return " or ".join(map(_describe, parts))
    if origin is Literal:
        return "one of " + ", ".join(parts) if len(parts) > 1 else str(parts[0])
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names[kind]
