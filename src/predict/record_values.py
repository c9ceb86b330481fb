"""Values of records, from JSON, text or parquet, as what a model of tables reads of them."""

from collections.abc import Mapping
from contextlib import suppress
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from src.predict.scoring import Values
from src.tables.encodings import why_not_text
from src.tables.json_rows import as_text
from src.tables.parquet_rows import is_text, strings
from src.tables.schema import LARGEST, STORED, Column, Schema, Writing, features_of, finite

SHOWN = 40  # characters of a value
NESTED = (list, dict)  # which no value of a record is
NUMBERS = {int, float, NoneType}  # a bool is of another type

Features = dict[str, npt.NDArray[Any]]  # by name, each [rows]


class RecordReader:
    """Reads the columns of a schema."""

    def __init__(self, schema: Schema) -> None:
        """Read by ``schema``."""
        self._schema = schema
        words = pa.array(schema.writing.missing, pa.string())
        self._absent = Writing((), schema.writing.decimal, ()).numbers(words).drop_null()

    def features(self, columns: Mapping[str, Values], rows: int) -> tuple[Features, list[str]]:
        """Read what the model takes of columns; a column that is not there has no values.

        Returns:
            Each feature by name, [rows], and why a row can't be scored or "".
        """
        features = self._numbers(columns, rows)
        reasons = [""] * rows
        for column in self._schema.columns:
            if column.name in features:
                continue
            found = columns.get(column.name, [None] * rows)
            if (plain := self._plain(column, found)) is not None:
                features[column.name] = plain
                continue
            values, bad = self._read(column, found)
            features |= features_of(column, values)
            for row, reason in bad.items():
                reasons[row] = reasons[row] or f"{reason} in {column.name!r}, a {column.kind}"
        return features, reasons

    def _numbers(self, columns: Mapping[str, Values], rows: int) -> Features:
        """Return the features of all columns of numbers if these are numbers of JSON, else none.

        Arrow takes longer for one record than the whole of its scoring.
        """
        names = [column.name for column in self._schema.columns if column.kind == "number"]
        found = [columns.get(name, [None] * rows) for name in names]
        plain = all(isinstance(v, list) and NUMBERS.issuperset(map(type, v)) for v in found)
        if not plain:
            return {}
        with suppress(OverflowError):  # of a whole number that no float can hold
            numbers = np.array(found, np.float64)
            if np.nanmax(abs(numbers), initial=0) <= LARGEST:
                numbers[np.isin(numbers, self._absent.to_numpy())] = np.nan
                return dict(zip(names, numbers, strict=True))
        return {}

    def _plain(self, column: Column, found: Values) -> npt.NDArray[Any] | None:
        """Return the feature of values of JSON that need no reading, None where some do."""
        if not isinstance(found, list):
            return None
        types = {*map(type, found)}
        if column.kind == "boolean" and types <= {bool, NoneType}:
            return np.array(found, np.float64)
        if column.kind == "category" and types <= {str, NoneType}:
            missing = self._schema.writing.missing
            texts = [(text or "").strip(" ") for text in found]
            if all(text.isascii() and text.isprintable() for text in texts):
                return np.array(["" if text in missing else text for text in texts], object)
        return None

    def _read(self, column: Column, found: Values) -> tuple[pa.Array, dict[int, str]]:
        """Return values as they are stored, and by row what of them can't be read."""
        nested = {}
        if isinstance(found, pa.Array):
            if pa.types.is_floating(found.type):  # pandas writes what is absent as NaN
                found = pc.if_else(pc.is_nan(found), None, found)
            if (stored := _stored(column, found)) is not None:
                lost = _lost(found, stored)
                if column.kind == "number" and len(self._absent):
                    stored = pc.if_else(pc.is_in(stored, self._absent), None, stored)
                return stored, lost
            if not is_text(found.type):
                found = found.cast(pa.string())
            if pa.types.is_string(found.type) and _is_valid(found):
                texts = self._schema.writing.filled(found)
                values = self._schema.writing.read(texts, column.kind)
                return values, _lost(texts, values)
            found = strings(found)
        else:
            nested = {k: "a list or object" for k, v in enumerate(found) if type(v) in NESTED}
        texts = self._schema.writing.filled(pa.array(list(map(self._text, found)), pa.string()))
        values = self._schema.writing.read(texts, column.kind)
        return values, _lost(texts, values) | nested

    def _text(self, value: Any) -> str | None:
        """Write a value of JSON as the table of the training had it."""
        text = as_text(value)
        if text is not None and why_not_text(text):
            return text.encode("utf-8", "backslashreplace").decode()
        if type(value) is float and self._schema.writing.decimal == ",":
            return (text or "").replace(".", ",")
        return text


def _is_valid(texts: pa.Array) -> bool:
    """Tell whether texts are UTF-8, which parquet does not check."""
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _stored(column: Column, found: pa.Array) -> pa.Array | None:
    """Return a column of parquet whose type is that of its kind as it is stored, None for others.

    Others are read by their text, as ``load`` reads all: 0.1 in float32 is 0.1.
    """
    kind = found.type
    if column.kind == "number" and (pa.types.is_integer(kind) or pa.types.is_float64(kind)):
        return finite(found.cast(pa.float64(), safe=False))
    if column.kind == "number" and (pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return Writing((), ".", ()).numbers(found.cast(pa.string()))
    if column.kind == "boolean" and pa.types.is_boolean(kind):
        return found
    if column.kind == "date" and pa.types.is_timestamp(kind):
        return found.cast(STORED["date"], safe=False)
    return None


def _lost(before: pa.Array, after: pa.Array) -> dict[int, str]:
    """Tell which values were there and could not be read, by row."""
    if after.null_count == before.null_count:
        return {}
    there = pc.is_valid(before)
    if pa.types.is_floating(before.type):
        there = pc.and_(there, pc.invert(pc.is_nan(before)))
    rows = np.flatnonzero(pc.and_(there, pc.is_null(after)).to_numpy(zero_copy_only=False))
    return {row: repr(before[row].as_py())[:SHOWN] for row in rows.tolist()}
