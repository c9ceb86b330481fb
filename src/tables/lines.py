"""Physical lines of a text, for the readers of CSV and JSON lines; the standard library alone."""

from collections import deque
from dataclasses import dataclass
from typing import TextIO

EXCERPT = 200  # characters of a broken row that are kept


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

    def __iter__(self) -> "Lines":
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else self._text.readline(self.longest)
        if not line:
            raise StopIteration
        if len(line) == self.longest and line[-1] not in "\r\n":
            while (rest := self._text.readline(self.longest)) and rest[-1] not in "\r\n":
                pass
            line = _Long(line[:EXCERPT])
        self.number += 1
        self.taken.append(line)
        if line.__class__ is _Long:
            raise TooLongError(f"a line of more than {self.longest} characters")
        return line

    def put_back_all_but_one(self) -> None:
        """Give up the first of the lines taken; the others come again."""
        self._back.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1
