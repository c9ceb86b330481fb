"""Rows of parquet, a batch at a time."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from src.core.errors import InputError
from src.tables.places import Place
from src.tables.streams import Stream

CELL = 1 << 24  # characters of one value; what is longer is no text


class Rows:
    """The rows of a parquet file."""

    def __init__(self, stream: Stream, place: Place, longest: int = CELL) -> None:
        """Read the schema; InputError if it isn't a parquet file.

        Args:
            stream: its bytes, in which it is sought.
            place: what messages call it.
            longest: characters that a string may have.
        """
        self._place = place
        self._longest = longest
        with self._reading():
            # A buffer, or else the whole of a column of a row group is read at once.
            self._file = pq.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)
            stored = self._file.schema_arrow
            self.count: int = self._file.metadata.num_rows
        # The columns' names and types.
        self.schema = pa.schema(
            [one.with_type(_usual(one.type)) for one in stored], stored.metadata
        )
        self.classes = _classes(stored)  # the names that numbers stand for, by column

    def batches(self, size: int) -> Iterator[pa.RecordBatch]:
        """Yield batches of ``size`` rows at most.

        Raises:
            InputError: the file breaks off, or a string in it is too long.
        """
        batches = self._file.iter_batches(size)
        start = 1
        while True:
            with self._reading():
                batch = next(batches, None)
                if batch is None:
                    return
                # Arrow can't filter views, nor measure them.
                batch = batch if batch.schema.equals(self.schema) else batch.cast(self.schema)
            for name, column in zip(self.schema.names, batch.columns, strict=True):
                self._refuse_long(name, column, start)
            start += len(batch)
            yield batch

    def texts(self, name: str, column: pa.Array, wanted: bool) -> list[str | None]:
        """Return the values of a column of any type as strings, None for those that are absent.

        Args:
            name: of the column.
            column: from a batch.
            wanted: bytes are text, of which each may be broken by itself; see ``strings``.

        Raises:
            pyarrow.ArrowException: they have no form as text.
            InputError: a number stands for a class that has no name.
        """
        if pa.types.is_floating(column.type):  # pandas writes what is absent as NaN
            column = pc.if_else(pc.is_nan(column), None, column)
        if name in self.classes:
            column = self._named(name, column)
        return strings(column if wanted and is_text(column.type) else _cast(column))

    def _named(self, name: str, column: pa.Array) -> pa.Array:
        names = self.classes[name]
        known = pc.if_else(pc.equal(column, -1), None, column)  # which says that there is none
        for number in pc.unique(known).to_pylist():
            if number is not None and not 0 <= number < len(names):
                raise InputError(
                    f"{self._place} has {number} in column {name!r}, and its metadata names "
                    f"{len(names)} classes, from 0 on: correct it, or save the names as strings."
                )
        return pa.array(names, pa.string()).take(known)

    def _refuse_long(self, name: str, column: pa.Array, start: int) -> None:
        values = column.dictionary if pa.types.is_dictionary(column.type) else column
        if not _is_string(values.type) or values.nbytes <= self._longest:
            return
        if (pc.max(pc.utf8_length(values)).as_py() or 0) > self._longest:
            lengths = pc.utf8_length(_cast(column))
            row = start + pc.index(pc.greater(lengths, self._longest), True).as_py()
            raise InputError(
                f"{self._place}, row {row} can't be read: a value of more than {self._longest} "
                f"characters in column {name!r}; cut it, or leave the row out."
            )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self._place} can't be read as parquet: {reason}; get it again."
            ) from error


def _usual(kind: pa.DataType) -> pa.DataType:
    """Return the type that holds the same values, for one that hardly any function takes."""
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_usual(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([one.with_type(_usual(one.type)) for one in kind])
    return kind


def _classes(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of numbered classes, as Hugging Face writes them into the metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {one.name: features[one.name] for one in schema if one.name in features}
    except (KeyError, TypeError, ValueError):  # none, or of another form
        return {}
    return {
        name: feature["names"]
        for name, feature in found.items()
        if isinstance(feature, dict)
        and feature.get("_type") == "ClassLabel"
        and pa.types.is_integer(schema.field(name).type)
        and isinstance(feature.get("names"), list)
        and all(isinstance(one, str) for one in feature["names"])
    }


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds strings or bytes, maybe by a dictionary."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return _is_string(plain) or bool(
        pa.types.is_string_view(plain)
        or pa.types.is_binary_view(plain)
        or pa.types.is_binary(plain)
        or pa.types.is_large_binary(plain)
        or pa.types.is_fixed_size_binary(plain)
    )


def _cast(column: pa.Array) -> pa.Array:
    plain = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return plain if _is_string(plain.type) else plain.cast(pa.string())


def strings(column: Any) -> list[str | None]:
    """Return the strings of a column of text.

    Parquet does not check that they are UTF-8; a byte that is not becomes half of a surrogate
    pair.
    """
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    if _is_string(plain.type):
        try:
            values: list[str | None] = plain.to_pylist()
            return values
        except UnicodeDecodeError:
            large = pa.types.is_large_string(plain.type)
            plain = plain.view(pa.large_binary() if large else pa.binary())
    return [v if v is None else v.decode("utf-8", "surrogateescape") for v in plain.to_pylist()]
