"""Physical lines of a text, for the readers of CSV and JSON lines; the standard library alone.

A line ends in LF or CR LF. A CR alone ends one only in a text of an old Mac, which has no LF.
"""

from collections import deque
from dataclasses import dataclass
from typing import TextIO

EXCERPT = 200  # characters of a broken row that are kept
AHEAD = 1 << 20  # characters that have an LF, unless lines end in CR


@dataclass(frozen=True)
class Broken:
    """A row that can't be read."""

    line: int  # the physical line that it starts on, from 1; its number in parquet
    reason: str
    row: str  # how it begins

    @classmethod
    def of(cls, line: int, reason: str, row: str) -> "Broken":
        """Keep the beginning of a row, with bytes that are not UTF-8 as escapes."""
        shown = row[:EXCERPT].rstrip("\r\n").encode("utf-8", "surrogateescape")
        return cls(line, reason, shown.decode("utf-8", "backslashreplace"))


class TooLongError(Exception):
    """A line has too many characters."""


class _Long(str):
    """The beginning of a line that is too long."""


class Lines:
    """The lines of a text; those that were taken for a row can be put back."""

    def __init__(self, text: TextIO, longest: int) -> None:
        """Read from ``text``, which keeps its line ends (``newline=""``)."""
        self.longest = longest  # characters that a line may have
        self.number = 0  # of the last line that was taken, from 1
        self.taken: list[str] = []  # the lines of the present row, set anew by who reads
        self._text = text
        self._back: deque[str] = deque()
        self._ends = ""  # what a line may end in, once an end was seen

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else self._next()
        if not line:
            raise StopIteration
        self.number += 1
        self.taken.append(line)
        if line.__class__ is _Long:
            raise TooLongError(f"a line of more than {self.longest} characters")
        return line

    def _next(self) -> str:
        line = self._text.readline(self.longest)
        if line.endswith("\r") and self._ends != "\r":
            line = self._joined(line)
        elif not self._ends and line.endswith("\n"):
            self._ends = "\n"
        ends = self._ends or "\r\n"
        if len(line) >= self.longest and line[-1] not in ends:
            while (rest := self._text.readline(self.longest)) and rest[-1] not in ends:
                pass
            line = _Long(line[:EXCERPT])
        return line

    def _joined(self, line: str) -> str:
        """Add what follows a CR up to the LF that ends the line, if the text has any."""
        parts, size = [line], len(line)
        most = self.longest if self._ends else min(self.longest, AHEAD)
        while size < most and not parts[-1].endswith("\n"):
            part = self._text.readline(most - size)
            if not part:
                break
            parts.append(part)
            size += len(part)
        if not self._ends and not parts[-1].endswith("\n"):
            self._ends = "\r"
            if not parts[-1].endswith("\r"):
                parts[-1] += self._text.readline(self.longest)
            self._back.extend(parts[1:])
            return line
        self._ends = "\n"
        return "".join(parts)

    def put_back_all_but_one(self) -> None:
        """Give up the first of the lines taken; the others come again."""
        self._back.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1
