"""Write tables of predictions and of rejected rows: CSV, TSV, JSON lines and parquet."""

import io
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from src.core.errors import InputError
from src.predict.files import fresh
from src.predict.formats import Format
from src.tables.delimited import writer
from src.tables.lines import Broken
from src.tables.places import Place
from src.tables.streams import packed

GROUP = 1 << 16  # rows of a row group of parquet, at most
GROUP_BYTES = 1 << 26  # likewise
NAMED = 20  # rejected rows that the log names where no file takes them
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet runs begins so

log = logging.getLogger("src.predict.output")


class NoTextError(InputError):
    """All rows are rejected."""


@dataclass
class Output:
    """A table that is being written; ``close`` ends it."""

    stream: Any
    schema: pa.Schema | None
    added: pa.Schema

    def write(self, rows: Any, added: Mapping[str, Sequence[Any]]) -> None:
        """Write rows, with further columns."""
        raise NotImplementedError

    def close(self) -> None:
        """Write what is still held."""

    def drop(self) -> None:
        """Leave it unfinished."""


@dataclass
class Delimited(Output):
    """CSV or TSV; ``excel_safe`` has no cell run as a formula."""

    delimiter: str = ","
    excel_safe: bool = False

    def __post_init__(self) -> None:
        """Write the header."""
        self._text = io.TextIOWrapper(self.stream, "utf-8", newline="", write_through=False)
        self._writer = writer(self._text, self.delimiter)
        schema = self.schema or pa.schema([])
        for one in schema:
            _refuse_binary(one, "csv and tsv")
        self._writer.writerow(map(self._safe, [*schema.names, *self.added.names]))

    def write(self, rows: Any, added: Mapping[str, Sequence[Any]]) -> None:
        """Write rows, with further columns."""
        columns = [_cells(column) for column in rows.columns]
        self._writer.writerows(zip(*map(self._column, [*columns, *added.values()]), strict=True))

    def close(self) -> None:
        """Write what is still held."""
        self._text.flush()
        self._text.detach()

    def _column(self, values: Sequence[Any]) -> Sequence[Any]:
        return list(map(self._safe, values)) if self.excel_safe else values

    def _safe(self, cell: Any) -> Any:
        runs = self.excel_safe and isinstance(cell, str) and cell.startswith(FORMULA)
        return f"'{cell}" if runs else cell


class JsonLines(Output):
    """An object a line; lines that come as such keep their form, and get further keys."""

    def write(self, rows: Any, added: Mapping[str, Sequence[Any]]) -> None:
        """Write rows, with further columns."""
        if isinstance(rows, pa.Table):
            names = rows.column_names
            columns = [_values(column) for column in rows.columns]
            found = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
            rows = [_dump(row) for row in found]
        further = [dict(zip(added, row, strict=True)) for row in zip(*added.values(), strict=True)]
        lines = (
            f"{row[:-1].rstrip()}, {_dump(more)[1:]}\n"
            for row, more in zip(rows, further, strict=True)
        )
        self.stream.write("".join(lines).encode())


@dataclass
class Parquet(Output):
    """Parquet, in row groups of ``GROUP`` rows, fewer where they are long."""

    _held: list[pa.Table] = field(default_factory=list)
    _rows: int = 0
    _bytes: int = 0

    def __post_init__(self) -> None:
        """Begin the file."""
        own = self.schema or pa.schema([])
        self._whole = pa.schema([*own, *self.added], metadata=own.metadata)
        self._writer = pq.ParquetWriter(self.stream, self._whole, compression="zstd")

    def write(self, rows: Any, added: Mapping[str, Sequence[Any]]) -> None:
        """Write rows, with further columns."""
        more = [pa.array(added[one.name], one.type) for one in self.added]
        self._held.append(pa.table([*rows.columns, *more], schema=self._whole))
        self._rows += len(rows)
        self._bytes += rows.nbytes
        if self._rows >= GROUP or self._bytes >= GROUP_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is still held."""
        self._flush()
        self._writer.close()

    def drop(self) -> None:
        """Leave it unfinished; a writer that is deleted open would write on."""
        self._writer.is_open = False

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.concat_tables(self._held), row_group_size=GROUP)
        self._held, self._rows, self._bytes = [], 0, 0


@contextmanager
def writing(
    stream: IO[bytes],
    place: Place,
    format: Format,
    schema: pa.Schema | None,
    added: pa.Schema,
    excel_safe: bool,
) -> Iterator[Output]:
    """Write a table to ``stream``, compressed as the ending of ``place`` says.

    Args:
        stream: gets the bytes, and stays open.
        place: where the table will be.
        format: what it becomes.
        schema: of the rows; none for JSON lines that keep their form.
        added: the further columns.
        excel_safe: cells of CSV and TSV that a spreadsheet would run get a ``'`` before them.

    Raises:
        InputError: the format can't hold a column, or can't be compressed so.
    """
    packing = packed(stream, place.packing, str(place), "wb")
    if format == "parquet":
        output: Output = Parquet(packing, schema, added)
    elif format == "jsonl":
        for one in schema or ():
            _refuse_binary(one, "jsonl")
        output = JsonLines(packing, schema, added)
    else:
        delimiter = "\t" if format == "tsv" else ","
        output = Delimited(packing, schema, added, delimiter, excel_safe)
    try:
        yield output
    except BaseException:
        output.drop()
        raise
    output.close()
    if packing is not stream:
        packing.close()


@contextmanager
def rejections(place: Place | None, excel_safe: bool) -> Iterator[Callable[[Broken], None]]:
    """Give what takes the rows that can't be scored: a file, or the log if there is none."""
    if place:
        with fresh(place) as stream:
            schema = pa.schema([(name, pa.string()) for name in ("line", "reason", "row")])
            with writing(stream, place, "csv", schema, pa.schema([]), excel_safe) as output:

                def write(one: Broken) -> None:
                    row = {"line": [str(one.line)], "reason": [one.reason], "row": [one.row]}
                    output.write(pa.table(row, schema=schema), {})

                failed = None
                try:
                    yield write
                except NoTextError as error:  # for which this file is the place to look
                    failed = error
        if failed:
            raise failed
        return
    told = 0

    def tell(one: Broken) -> None:
        nonlocal told
        told += 1
        if told <= NAMED:
            log.warning("line %d is rejected: %s: %.60r", one.line, one.reason, one.row)
        if told == NAMED:
            log.warning("further rows that are rejected are counted; --rejected PATH lists them")

    yield tell


def _refuse_binary(one: pa.Field, formats: str) -> None:
    """Stop if a column holds bytes."""
    kinds = [one.type]
    for kind in kinds:  # and those inside of it, as they are found
        kinds += [kind.field(k).type for k in range(kind.num_fields)]
        if (
            pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
            or pa.types.is_fixed_size_binary(kind)
        ):
            raise InputError(
                f"Column {one.name!r} of {one.type} has no form in {formats}: write parquet."
            )


def _cells(column: Any) -> Sequence[Any]:
    """Return the values of a column as CSV has them, "" for none."""
    kind = column.type
    if pa.types.is_nested(kind):
        return [None if v is None else _dump(v) for v in map(_plain, column.to_pylist())]
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        values: list[Any] = column.to_pylist()
        return values
    if pa.types.is_floating(kind):
        return [None if v is None or math.isnan(v) else v for v in column.to_pylist()]
    if pa.types.is_dictionary(kind):
        return _cells(column.cast(kind.value_type))
    try:
        cells: list[Any] = pc.cast(column, pa.string()).to_pylist()
    except pa.ArrowNotImplementedError:
        cells = [None if value is None else str(value) for value in column.to_pylist()]
    return cells


def _values(column: Any) -> Sequence[Any]:
    """Return the values of a column as JSON has them."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        values: list[Any] = column.to_pylist()
        return values
    if pa.types.is_floating(kind) or pa.types.is_nested(kind) or pa.types.is_dictionary(kind):
        return list(map(_plain, column.to_pylist()))
    return _cells(column)


def _plain(value: Any) -> Any:
    """Turn a value of parquet into one of JSON, which has no NaN and no dates."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_plain, value))
    return value if isinstance(value, str | int | None) else str(value)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
