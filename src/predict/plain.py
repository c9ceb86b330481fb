"""Blocks of a CSV file that are plain, split into columns by Arrow.

Python's reader takes a row at a time, many times as long. What it and Arrow might read in two ways
is left to it: quotes other than around a whole field of one line without quotes, blank lines, a CR
within a line, rows of another width, broken characters.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TextIO

import pyarrow as pa
from pyarrow import csv

from src.predict.judging import judged
from src.predict.scoring import Batch, Reading
from src.tables.lines import Lines

BLOCK = 1 << 22  # characters, and the rest of the line


@dataclass(frozen=True)
class Block:
    """Rows of a file.

    Attributes:
        first: the physical line of the first row; each row has one.
        text: the lines.
        table: their fields as strings.
    """

    first: int
    text: str
    table: pa.Table

    @cached_property
    def _lines(self) -> list[str]:
        return self.text.split("\n")

    def place(self, start: int, row: int) -> tuple[int, str]:
        """Return the line of a row, counted from ``start``, and the row as it stands there."""
        return self.first + start + row, self._lines[start + row]


class Text:
    """A text that can be read by lines, and by blocks as long as these are plain."""

    def __init__(self, text: TextIO, longest: int) -> None:
        """Read ``text``, of lines of at most ``longest`` characters."""
        self._text = text
        self._longest = longest
        self._back = io.StringIO()

    def readline(self, size: int = -1) -> str:
        """Return the next line, or a part of it; "" at the end."""
        line = self._back.readline(size)
        if line.endswith(("\n", "\r")) or len(line) == size:
            return line
        return line + self._text.readline(size - len(line) if size >= 0 else -1)

    def blocks(
        self, header: Sequence[str], delimiter: str, quote: str, first: int
    ) -> Iterator[Block]:
        """Yield blocks until one is not plain, which comes again by lines.

        Args:
            header: the names of the columns.
            delimiter: between the fields.
            quote: around fields, "" for none.
            first: the physical line that is next.
        """
        while text := self._text.read(BLOCK):
            if not text.endswith("\n"):
                text += self._text.readline(self._longest)
            table = self._split(text, header, delimiter, quote)
            if table is None:
                self._back = io.StringIO(text, newline="")
                return
            yield Block(first, text, table)
            first += len(table)

    def _split(
        self, text: str, header: Sequence[str], delimiter: str, quote: str
    ) -> pa.Table | None:
        """Return the fields of lines, None if these are not plain."""
        returns = text.count("\r")
        odd = (
            len(text) > self._longest
            or (quote and quote in text and not _well_quoted(text, delimiter, quote))
            or "\0" in text
            or returns != text.count("\r\n")
            or text.startswith(("\n", "\r"))
            or "\n\n" in text
            or (returns and "\n\r" in text)
        )
        if odd:
            return None
        try:
            table = csv.read_csv(
                pa.BufferReader(text.encode()),
                csv.ReadOptions(
                    use_threads=False, block_size=4 * len(text) + 1, column_names=[*header]
                ),
                csv.ParseOptions(delimiter=delimiter, quote_char=quote or False),
                csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
            )
        except (UnicodeEncodeError, pa.ArrowInvalid):
            return None
        whole = text.count("\n") + (not text.endswith("\n"))
        return table.combine_chunks() if len(table) == whole else None


def _well_quoted(text: str, delimiter: str, quote: str) -> bool:
    """Tell whether quotes stand around whole fields alone, which hold none and are of one line."""
    parts = text.split(quote)
    inside, (first, *between) = parts[1::2], parts[::2]
    *between, last = between or [""]
    before, after = (delimiter, "\n"), (delimiter, "\n", "\r\n")
    return (
        len(parts) % 2 == 1
        and not any("\n" in field for field in inside)
        and (not first or first.endswith(before))
        and all(part.endswith(before) and part.startswith(after) for part in between)
        and (not last or last.startswith(after))
    )


def plain_batches(
    text: Text,
    lines: Lines,
    header: Sequence[str],
    delimiter: str,
    quote: str,
    wanted: Reading,
    batch_rows: int,
) -> Iterator[Batch]:
    """Yield batches of the first rows, as long as they need no reader of quotes."""
    for block in text.blocks(header, delimiter, quote, lines.number + 1):
        lines.number = block.first + len(block.table) - 1
        for start in range(0, len(block.table), batch_rows):
            part = block.table.slice(start, batch_rows).combine_chunks()
            columns = dict(zip(header, (c.combine_chunks() for c in part.columns), strict=True))
            place = partial(block.place, start)
            inputs, good, rejected = judged(wanted, columns, len(part), place)
            kept = part.filter(pa.array(good)) if rejected else part
            yield Batch(inputs, len(kept), kept, rejected, len(part))
