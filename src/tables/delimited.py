"""Rows of CSV and TSV, with the physical line that each starts on; the standard library alone.

A CR within a line is part of a field, whether quoted or not, and is quoted where we write it.

A row that is broken is told apart, with its line and the reason, and the rows after it are read
on. Who can't go on without it stops at the first.
"""

import csv
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from src.tables.lines import Broken, Lines, TooLongError

CR = "\ud800"  # stands for one that ends no line, for csv; no text that was decoded has it


class Record(NamedTuple):
    """The fields of a row.

    ``line`` is the physical line that it starts on, from 1; ``source`` are its lines.
    """

    line: int
    fields: list[str]
    source: list[str]


class Records:
    """The rows of a table, the header among them; blank lines are none.

    Args:
        delimiter: between the fields.
        quote: around a field that holds the delimiter or a line end; "" for none.
    """

    def __init__(self, lines: Lines, delimiter: str, quote: str = '"') -> None:
        """Read rows from ``lines``."""
        csv.field_size_limit(lines.longest)
        self._lines = lines
        self._hidden = False  # whether a line of the present row has a CR within
        shown = map(self._hide, lines)
        if quote:
            self._reader = csv.reader(shown, delimiter=delimiter, quotechar=quote, strict=True)
        else:
            self._reader = csv.reader(shown, delimiter=delimiter, quoting=csv.QUOTE_NONE)

    def __iter__(self) -> Iterator[Record | Broken]:
        return self

    def __next__(self) -> Record | Broken:
        lines = self._lines
        while True:
            taken: list[str] = []
            lines.taken = taken
            self._hidden = False
            try:
                fields = next(self._reader)
            except (csv.Error, TooLongError) as error:
                return self.give_up(self._reason(error))
            if self._hidden:
                fields = [field.replace(CR, "\r") for field in fields]
            if fields:
                return Record(lines.number - len(taken) + 1, fields, taken)

    def give_up(self, reason: str) -> Broken:
        """Give up the line that the last row starts on; those after it are read as rows anew."""
        first = self._lines.taken[0]
        self._lines.put_back_all_but_one()
        return Broken.of(self._lines.number, reason, first)

    def _hide(self, line: str) -> str:
        if "\r" not in line:
            return line
        body = line.rstrip("\r\n")
        if "\r" not in body:
            return line
        self._hidden = True
        return body.replace("\r", CR) + line[len(body) :]

    def _reason(self, error: Exception) -> str:
        reason = str(error)
        if "end of data" in reason or "field larger" in reason:
            return "a quote that opens here and is never closed"
        if len(self._lines.taken) > 1:
            return f"a quote that opens here and is followed by: {reason}"
        return reason


def width_reason(fields: list[str], width: int) -> str:
    """Return why a row does not fit a header of ``width`` fields, "" if it does."""
    return "" if len(fields) == width else f"expected {width} fields, found {len(fields)}"


class _Ends:
    """Rows that end in CR LF, which has csv quote fields with either, end in LF here."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text

    def write(self, row: str) -> None:
        """Take a row."""
        self._text.write(f"{row[:-2]}\n")


def writer(text: IO[str], delimiter: str = ",") -> Any:
    """Return what csv.writer does, for rows that end in LF and fields that may hold a CR."""
    return csv.writer(_Ends(text), delimiter=delimiter, lineterminator="\r\n")
