"""Objects of JSON lines and JSON lists, by one strict decoder; the standard library alone.

A row that is broken is told apart, with its line and the reason. The rows after it are read on in
JSON lines; a list ends there.
"""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

from src.tables.encodings import why_not_text
from src.tables.lines import Broken, Lines, TooLongError

SAMPLE = 1 << 16  # characters that are read at a time


class Item(NamedTuple):
    """An object: the physical line that it starts on, its values, and in JSON lines the line."""

    line: int
    value: dict[str, Any]
    source: str


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {max(keys, key=keys.count)!r} twice in one object")
    return found


def _constant(word: str) -> Any:
    raise ValueError(f"{word}, which is not JSON (null is)")


TYPED = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)
AS_WRITTEN = json.JSONDecoder(  # numbers are strings, in the form that they are written in
    object_pairs_hook=_object, parse_constant=_constant, parse_int=str, parse_float=str
)


def as_text(value: object) -> str | None:
    """Return a value as text; other than strings, as JSON."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def json_lines(lines: Lines, decoder: json.JSONDecoder) -> Iterator[Item | Broken]:
    """Yield the object of each line that is not blank."""
    while True:
        lines.taken = []
        line = ""
        try:
            line = next(lines).strip()
            if line:
                if reason := why_not_text(line):
                    raise ValueError(reason)
                value = decoder.decode(line)
                if not isinstance(value, dict):
                    raise ValueError("not a JSON object")
                yield Item(lines.number, value, line)
        except StopIteration:
            return
        except UnicodeError:  # which is no fault of one row: the encoding is another one
            raise
        except (TooLongError, ValueError, RecursionError) as error:
            yield Broken.of(lines.number, _reason(error), line or lines.taken[0])


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "values nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg}, column {error.colno}"
    return str(error)


class _BrokenError(Exception):
    def __init__(self, line: int, reason: str, row: str = "") -> None:
        self.broken = Broken.of(line, reason, row)


def json_list(text: TextIO, decoder: json.JSONDecoder, longest: int) -> Iterator[Item | Broken]:
    """Yield the objects of a list, none of which has more than ``longest`` characters."""
    try:
        yield from _items(_Values(text, decoder, longest))
    except _BrokenError as error:
        yield error.broken


def _items(values: "_Values") -> Iterator[Item]:
    if (first := values.next()) != "[":
        found = "an object" if first == "{" else repr(first)
        reason = f"{found} in place of a list of objects (one object a line is the format jsonl)"
        raise _BrokenError(values.line, reason)
    values.take()
    following = values.next()
    while following != "]":
        values.next()
        line, value = values.line, values.value()
        if not isinstance(value, dict):
            raise _BrokenError(line, "not a JSON object", json.dumps(value))
        yield Item(line, value, "")
        if (following := values.next()) not in ("]", ","):
            found = repr(following) if following else "the end of the file"
            raise _BrokenError(values.line, f"{found} in place of ',' or ']' after an item")
        if following == ",":
            values.take()
    values.take()
    if after := values.next():
        raise _BrokenError(values.line, f"{after!r} after the end of the list")


class _Values:
    """The values of a JSON text, with no more of it in memory than one value takes.

    Attributes:
        line: the physical line of the next value, from 1.
    """

    def __init__(self, text: TextIO, decoder: json.JSONDecoder, longest: int) -> None:
        self._text = text
        self._decoder = decoder
        self._longest = longest
        self._buffer = ""
        self.line = 1

    def next(self) -> str:
        """Return the next character that is not a space, "" at the end."""
        while True:
            self._advance(len(self._buffer) - len(self._buffer.lstrip()))
            if self._buffer or not self._more(SAMPLE):
                return self._buffer[:1]

    def take(self) -> None:
        """Go past the next character."""
        self._advance(1)

    def value(self) -> Any:
        """Parse the value that begins here."""
        step = SAMPLE
        while True:
            end, failure = 0, None
            try:
                value, end = self._decoder.raw_decode(self._buffer)
            except json.JSONDecodeError as error:
                failure = error
            except (ValueError, RecursionError) as error:
                raise _BrokenError(self.line, _reason(error), self._buffer) from None
            # A value that ends with the buffer may go on after it, as a number does.
            if failure is None and end < len(self._buffer):
                break
            if len(self._buffer) > self._longest or not self._more(step):
                if failure:
                    line = self.line + failure.lineno - 1
                    raise _BrokenError(line, _reason(failure), self._buffer) from None
                break
            step *= 2
        self._advance(end)
        return value

    def _more(self, characters: int) -> bool:
        more = self._text.read(characters)
        self._buffer += more
        return bool(more)

    def _advance(self, end: int) -> None:
        self.line += self._buffer.count("\n", 0, end)
        self._buffer = self._buffer[end:]
