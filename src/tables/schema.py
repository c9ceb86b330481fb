"""The columns of a table of features: what each holds, and how what is written there is read.

A schema is settled once, from the rows that a model may be trained on. Whatever is read later,
to be scored, is read by it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from src.core.errors import InputError
from src.core.files import write_json

Kind = Literal["number", "category", "boolean", "date"]
ID = "#"  # the column of the rows' names, beside those of the source
KINDS: tuple[Kind, ...] = ("number", "category", "boolean", "date")
STORED: dict[Kind, pa.DataType] = {
    "number": pa.float64(),
    "category": pa.string(),
    "boolean": pa.bool_(),
    "date": pa.timestamp("us"),
}
# The word that means false, and the one that means true; case does not count.
WORDS = (("false", "true"), ("no", "yes"), ("f", "t"), ("n", "y"), ("off", "on"))
# What a model reads of a date, after the name of its column.
PARTS = ("days", "month", "weekday", "hour")
WORDS_AT_MOST = 1000  # that mean missing, and forms of dates
LARGEST = float(np.finfo(np.float32).max)
EXPONENT = r"([eE][+-]?\d+)?$"

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Writing:
    """The way in which values are written."""

    missing: tuple[str, ...]  # what stands for a value that is missing, beside nothing at all
    decimal: Literal[".", ","]  # before the digits of a fraction; the other one parts thousands
    date_formats: tuple[str, ...]  # of dates that are not in the form of ISO 8601, as of strptime

    def check(self) -> None:
        """Stop if a form of dates is none."""
        for form in self.date_formats:
            try:
                datetime.strptime(datetime(2001, 2, 3, 4, 5, 6).strftime(form), form)
            except (ValueError, re.error):
                raise InputError(
                    f"load.date_formats has {form!r}, which is no form of a date: write it as "
                    "Python's strptime does, such as '%d.%m.%Y'."
                ) from None

    def filled(self, texts: pa.Array) -> pa.Array:
        """Return texts without spaces around them, null where the value is missing."""
        trimmed = pc.utf8_trim_whitespace(texts)
        missing = pc.is_in(trimmed, pa.array(["", *self.missing], pa.string()))
        return pc.if_else(missing, pa.scalar(None, pa.string()), trimmed)

    def read(self, texts: pa.Array, kind: Kind) -> pa.Array:
        """Read filled texts as values of a kind, as ``STORED``; null where they are none."""
        if kind == "number":
            return self.numbers(texts)
        if kind == "date":
            return self._each(texts, self._date, STORED["date"])
        if kind == "boolean":
            return self._each(texts, _truth, STORED["boolean"])
        return texts

    def numbers(self, texts: pa.Array) -> pa.Array:
        """Read numbers; null for what is none, and for what is not finite."""
        if self.decimal == ".":
            try:
                return finite(texts.cast(pa.float64()))
            except pa.ArrowInvalid:  # one is written in another way, or is no number
                pass
        point, comma = re.escape(self.decimal), "," if self.decimal == "." else r"\."
        whole = rf"(\d{{1,3}}({comma}\d{{3}})+|\d+)"
        form = rf"^[+-]?({whole}({point}\d*)?|{point}\d+){EXPONENT}"
        known = pc.if_else(
            pc.match_substring_regex(texts, form), texts, pa.scalar(None, texts.type)
        )
        bare = pc.replace_substring_regex(known, rf"{comma}|^\+", "")
        return finite(pc.replace_substring(bare, self.decimal, ".").cast(pa.float64()))

    def _date(self, text: str) -> datetime | None:
        try:
            found = datetime.fromisoformat(text)
        except ValueError:
            for form in self.date_formats:
                try:
                    return _without_zone(datetime.strptime(text, form))
                except ValueError:
                    continue
            return None
        return _without_zone(found) if "-" in text[1:] else None  # 20240131 is a number

    @staticmethod
    def _each(texts: pa.Array, read: Any, kind: pa.DataType) -> pa.Array:
        """Read each value that there is once."""
        encoded = texts.dictionary_encode()
        known = pa.array([read(text) for text in encoded.dictionary.to_pylist()], kind)
        return known.take(encoded.indices)


def _truth(text: str) -> bool | None:
    """Return what a word of ``WORDS``, 0 or 1 means; None for any other."""
    word = text.casefold()
    return next((word == pair[1] for pair in (("0", "1"), *WORDS) if word in pair), None)


def finite(numbers: pa.Array) -> pa.Array:
    """Return numbers, null for those that models, which compute in float32, can't hold."""
    held = pc.less_equal(pc.abs(numbers), LARGEST)  # false of infinity and NaN
    return pc.if_else(held, numbers, pa.scalar(None, pa.float64()))


def _without_zone(moment: datetime) -> datetime | None:
    try:
        return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
    except OverflowError:  # in the first or the last year there is
        return None


@dataclass(frozen=True)
class Column:
    """A column of features."""

    name: str
    kind: Kind
    missing: int = 0  # rows without a value
    minimum: float | None = None  # of a number
    maximum: float | None = None
    values: int = 0  # that differ, of a category; as many as were counted

    @property
    def features(self) -> list[str]:
        """Name what a model reads of it."""
        if self.kind == "date":
            return [f"{self.name} ({part})" for part in PARTS]
        return [self.name]


@dataclass(frozen=True)
class Schema:
    """What the columns of a table hold."""

    target: str  # the column of the labels
    positive: str  # the label that is looked for, "" where there are more than two
    writing: Writing
    columns: tuple[Column, ...]
    left_out: Mapping[str, str]  # the other columns, and why no model reads them

    def positive_of(self, labels: Sequence[str]) -> int | None:
        """Return the place of the label that is looked for; None where there are more than two."""
        return labels.index(self.positive) if self.positive else None

    def write(self, path: Path) -> None:
        """Write it as JSON; equal schemas give equal bytes."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Schema":
        """Read what ``write`` wrote.

        Raises:
            InputError: there is no such file.
        """
        if not path.exists():
            raise InputError(f"There is no schema in {path}: run `dvc repro tabular/dvc.yaml`.")
        return cls.parse(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def parse(cls, found: Any) -> "Schema":
        """Make a schema of what its JSON holds.

        Raises:
            ValueError: it can be none.
        """
        try:
            written = found["writing"]
            missing, formats = tuple(written["missing"]), tuple(written["date_formats"])
            columns = tuple(Column(**column) for column in found["columns"])
            texts = [*missing, *formats, found["target"], found["positive"], *found["left_out"]]
            texts += [column.name for column in columns]
        except (KeyError, TypeError) as error:
            raise ValueError(f"it lacks {error}") from error
        if not all(isinstance(text, str) and _is_unicode(text) for text in texts):
            raise ValueError("a name in it is no text")
        if len(missing) + len(formats) > WORDS_AT_MOST:
            raise ValueError("it has too many words that mean missing, or forms of dates")
        if written["decimal"] not in (".", ","):
            raise ValueError("its decimal sign is neither . nor ,")
        if not columns or any(column.kind not in KINDS for column in columns):
            raise ValueError("it has no columns, or one of another kind")
        names = [name for column in columns for name in column.features]
        if len({*names}) < len(names):
            raise ValueError("two of its features have one name")
        writing = Writing(missing, written["decimal"], formats)
        writing.check()
        return cls(found["target"], found["positive"], writing, columns, found["left_out"])

    def features(self, *kinds: Kind) -> list[str]:
        """Name what models read of the columns of these kinds, in their order."""
        return [name for column in self.columns if column.kind in kinds for name in column.features]


def _is_unicode(text: str) -> bool:
    """Tell whether a text has no half of a surrogate pair, which JSON can hold and UTF-8 not."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def features_of(column: Column, values: pa.Array) -> dict[str, npt.NDArray[Any]]:
    """Turn the values of a column into what models read, by name.

    Args:
        column: of the schema.
        values: of the type that its kind is stored as.

    Returns:
        Arrays of shape [rows]: float64, NaN where the value is missing; of a category strings, ""
        where it is missing.
    """
    if column.kind == "category":
        return {column.name: values.fill_null("").to_numpy(zero_copy_only=False)}
    if column.kind == "date":
        parts = (
            pc.divide(values.cast(pa.int64()).cast(pa.float64(), safe=False), 86_400e6),
            *(part(values) for part in (pc.month, pc.day_of_week, pc.hour)),
        )
        return dict(zip(column.features, map(_floats, parts), strict=True))
    return {column.name: _floats(values)}


def _floats(values: pa.Array) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = values.cast(pa.float64()).to_numpy(zero_copy_only=False)
    return found


def fixed(types: Sequence[str], setting: str) -> dict[str, Kind]:
    """Read a param that fixes the kinds of columns, each as ``zip code category``.

    Raises:
        InputError: one is of another form.
    """
    found: dict[str, Kind] = {}
    for entry in types:
        name, _, word = entry.rpartition(" ")
        kind = next((kind for kind in KINDS if kind == word), None)
        if not name or kind is None:
            raise InputError(
                f"{setting} has {entry!r}: write a column and one of {', '.join(KINDS)}, such as "
                "'zip category'."
            )
        found[name] = kind
    return found
