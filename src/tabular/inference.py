"""Find what a column holds from its values, a batch at a time."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from src.core.errors import InputError
from src.tables.schema import WORDS, Column, Kind, Writing

COUNTED = 10_000  # values that differ, beyond which a column's are no longer counted
LIKELY = 0.9  # of the values, from which a column is of a kind though some can't be read as it
TELLING = 100  # values that differ, up to which a category may have another one in most rows
PADDED = r"^0\d"  # of a code, such as 01234
SAMPLE = 1000  # values by which a column without a kind is looked at again
# Forms of dates to look for where load.date_formats has none of them.
DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%Y/%m/%d", "%d.%m.%y", "%m/%d/%y")
TIMES = ("", " %H:%M", " %H:%M:%S")

Where = Callable[[int], str]  # names the place of a row of a batch


@dataclass
class Found:
    """What is known of a column so far."""

    name: str
    writing: Writing
    fixed: Kind | None  # its kind by the user
    rows: int = 0
    filled: int = 0
    values: Counter[str] | None = field(default_factory=Counter)  # None once there are too many
    seen: list[str] = field(default_factory=list)  # the first values
    differing: float = 0.0  # the share of the filled rows with a value of their own, of so many
    readable: Counter[Kind] = field(default_factory=Counter)
    unreadable: dict[Kind, tuple[str, str]] = field(default_factory=dict)  # the first: place, value
    padded: bool = False
    running: bool = True  # each number is one more than that of the row before
    last: float = np.nan
    minimum: float = np.inf
    maximum: float = -np.inf

    def add(self, texts: pa.Array, where: Where) -> None:
        """Take in a batch of values, as ``Writing.filled`` leaves them."""
        self.rows += len(texts)
        self.filled += len(texts) - texts.null_count
        if len(self.seen) < SAMPLE:
            self.seen += texts.drop_null().unique()[: SAMPLE - len(self.seen)].to_pylist()
        if self.values is not None:
            for value, count in zip(*pc.value_counts(texts.drop_null()).flatten(), strict=True):
                self.values[value.as_py()] += count.as_py()
            if len(self.values) > COUNTED:
                self.differing, self.values = len(self.values) / self.filled, None
        # A kind that half of the values have contradicted is given up.
        for kind in ("number", "date"):
            wanted = self.fixed == kind or (
                self.fixed is None and 2 * self.readable[kind] >= self.filled - len(texts)
            )
            if wanted and not (kind == "date" and 2 * self.readable["number"] > self.filled):
                self._try(kind, texts, where)
        if self.fixed == "boolean":
            self._try("boolean", texts, where)

    def _try(self, kind: Kind, texts: pa.Array, where: Where) -> None:
        found = self.writing.read(texts, kind)
        self.readable[kind] += len(found) - found.null_count
        bad = pc.and_(pc.is_valid(texts), pc.is_null(found))
        if kind not in self.unreadable and pc.any(bad).as_py():
            row = pc.index(bad, True).as_py()
            self.unreadable[kind] = (where(row), texts[row].as_py())
        if kind == "number" and len(found) > found.null_count:
            self.padded |= pc.any(pc.match_substring_regex(texts, PADDED)).as_py()
            numbers = found.to_numpy(zero_copy_only=False)
            steps = np.diff(numbers, prepend=self.last)[self.rows == len(texts) :]
            self.running &= bool((steps == 1).all())
            self.last = numbers[-1]
            self.minimum = min(self.minimum, float(np.nanmin(numbers)))
            self.maximum = max(self.maximum, float(np.nanmax(numbers)))

    def column(self) -> Column | str:
        """Return what the column holds, or why no model should read it."""
        if not self.filled:
            return "it has no value in any row"
        if self.values is not None and len(self.values) == 1 and self.filled == self.rows:
            return f"it has one value in all rows, {next(iter(self.values))[:60]!r}"
        kind = self.fixed or self._kind()
        missing = self.rows - self.filled
        if kind == "number":
            if self.running and self.fixed is None and self.filled == self.rows > 1:
                return "it numbers the rows"
            return Column(self.name, kind, missing, self.minimum, self.maximum)
        if kind == "category":
            if self.fixed is None:
                self._refuse_other_writing()
                if self._tells_rows_apart():
                    return (
                        "most rows have a value of their own; if they mean something to a model, "
                        f"add '{self.name} category' to load.types"
                    )
            values = COUNTED if self.values is None else len(self.values)
            return Column(self.name, kind, missing, values=values)
        return Column(self.name, kind, missing)

    def refuse_unreadable(self, column: Column) -> None:
        """Stop if a value can't be read as the kind that the column has."""
        if column.kind in self.unreadable:
            place, value = self.unreadable[column.kind]
            raise InputError(
                f"{place} has {value[:60]!r} in column {self.name!r}, which holds a {column.kind} "
                f"in {self.readable[column.kind]:,} of {self.filled:,} rows: correct it, add it to "
                f"load.missing, or add '{self.name} category' to load.types; load.unreadable can "
                "be drop, to leave such rows out."
            )

    def _kind(self) -> Kind:
        words = {value.casefold() for value in self.values or ()}
        if any(words <= {*pair} for pair in WORDS) and words:
            return "boolean"
        if self.readable["number"] >= LIKELY * self.filled and not self.padded:
            return "number"
        if self.readable["date"] >= LIKELY * self.filled:
            return "date"
        return "category"

    def _refuse_other_writing(self) -> None:
        """Stop if the values are numbers or dates that are written in another way."""
        texts = pa.array(self.seen, pa.string())
        if not self.seen:
            return
        example = f"Column {self.name!r} has {self.seen[0][:60]!r}: "
        otherwise = f"or add '{self.name} category' to load.types, or the column to load.drop."
        other = replace(self.writing, decimal="," if self.writing.decimal == "." else ".")
        if share(other.read(texts, "number")) >= LIKELY and not self.padded:
            raise InputError(
                f"{example}if these are numbers, set load.decimal to {other.decimal!r}, {otherwise}"
            )
        if form := form_of(texts, self.writing):
            raise InputError(
                f"{example}if these are dates, add their form to load.date_formats, such as "
                f"{form!r}, {otherwise}"
            )

    def _tells_rows_apart(self) -> bool:
        if self.values is None:
            return self.differing > 0.5
        return len(self.values) > max(TELLING, self.filled / 2)


def share(values: pa.Array) -> float:
    """Return the share of values that could be read; 0 of none."""
    return (len(values) - int(values.null_count)) / max(1, len(values))


def form_of(texts: pa.Array, writing: Writing) -> str:
    """Return the form of most texts as dates, of those that ISO 8601 does not have; "" if none.

    Texts that are numbers by ``writing`` have none.
    """
    if share(writing.numbers(texts)) >= LIKELY:
        return ""
    for form in [f"{day}{time}" for day in DAYS for time in TIMES]:
        if share(replace(writing, date_formats=(form,)).read(texts, "date")) >= LIKELY:
            plain = replace(writing, date_formats=()).read(texts, "date")
            return form if share(plain) < LIKELY else ""
    return ""
