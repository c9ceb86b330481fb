"""Rows of parquet, a batch at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from src.core.errors import InputError
from src.tables.places import Place
from src.tables.streams import Stream


class Rows:
    """The rows of a parquet file."""

    def __init__(self, stream: Stream, place: Place) -> None:
        """Read the schema; InputError if it isn't a parquet file."""
        self._place = place
        with self._reading():
            # A buffer, or else the whole of a column of a row group is read at once.
            self._file = pq.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)
            self.schema: pa.Schema = self._file.schema_arrow  # the columns' names and types
            self.count: int = self._file.metadata.num_rows

    def batches(self, size: int) -> Iterator[pa.RecordBatch]:
        """Yield batches of ``size`` rows at most; InputError if the file breaks off."""
        batches = self._file.iter_batches(size)
        while True:
            with self._reading():
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise InputError(
                f"{self._place} can't be read as parquet: {reason}; get it again."
            ) from error


def is_text(kind: pa.DataType) -> bool:
    """Tell whether a column of this type holds strings, maybe by a dictionary."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))


def strings(column: Any) -> list[str | None]:
    """Return the strings of a column of text.

    Parquet does not check that they are UTF-8; a byte that is not becomes half of a surrogate
    pair.
    """
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    try:
        values: list[str | None] = plain.to_pylist()
        return values
    except UnicodeDecodeError:
        large = pa.types.is_large_string(plain.type)
        raw = plain.view(pa.large_binary() if large else pa.binary()).to_pylist()
        return [v if v is None else v.decode("utf-8", "surrogateescape") for v in raw]
