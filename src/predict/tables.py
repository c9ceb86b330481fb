"""Tables of texts in and out, a batch of rows at a time: CSV, TSV, JSON lines and parquet.

A row that can't be read is told apart, with its line and the reason, and the rows after it are read
on. This is what sets these readers apart from those of ``src.tables.rows``, for which a broken line
of training data is a reason to stop, and to which every value is a string.
"""

import bz2
import csv
import gzip
import io
import itertools
import json
import lzma
import math
import os
import shutil
import sys
import tempfile
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, get_args
from urllib.parse import urlsplit

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from src.core.errors import InputError, closest

Format = Literal["csv", "tsv", "jsonl", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
ENDINGS: dict[str, Format] = {f".{kind}": kind for kind in FORMATS} | {".ndjson": "jsonl"}
STANDARD = "-"  # standard input or output
CHARACTERS = 1 << 22  # of a batch, beyond which it is handed on
FIELD = 1 << 24  # characters of one field or line; what is longer is no text
GROUP = 1 << 16  # rows of a row group of parquet, at most
GROUP_BYTES = 1 << 26  # likewise
EXCERPT = 200  # characters of a rejected row that are kept
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet runs begins so

# What reading and decompressing raise, and the packages whose clients raise errors of their own.
UNREADABLE = (OSError, EOFError, ImportError, zlib.error, lzma.LZMAError, pa.ArrowException)
UNKNOWN = (TypeError, ValueError)  # of fsspec, about a URL that lacks a part or is of no system
CLIENTS = {"aiohttp", "backports", "botocore", "compression", "gcsfs", "google", "huggingface_hub"}


@dataclass(frozen=True)
class Rejected:
    """A row that can't be scored.

    Attributes:
        line: the physical line that it starts on, from 1; its number in parquet.
        reason: why.
        row: how it begins.
    """

    line: int
    reason: str
    row: str


@dataclass
class Batch:
    """Rows that can be scored, and those between them that can't.

    Attributes:
        texts: one for each row.
        rows: the columns of the input; of JSON lines that stay such, the lines as they are.
        rejected: what can't be scored.
        read: how many rows were read, before any was judged.
    """

    texts: list[str]
    rows: pa.Table | list[str]
    rejected: list[Rejected]
    read: int


@dataclass
class Input:
    """A table that is being read.

    Attributes:
        columns: the names of its columns; of JSON lines, those of the first batch.
        schema: what ``rows`` of each batch have; none where they are lines.
        batches: all of it, once.
        rows: how many rows it has, where that is known.
        share: how much of it has been read, from 0 to 1, where that is known.
    """

    columns: list[str]
    schema: pa.Schema | None
    batches: Iterator[Batch]
    rows: int | None
    share: Callable[[], float | None]


# Where tables are


def is_local(place: str) -> bool:
    """Whether ``place`` is a path of this machine."""
    return place != STANDARD and "://" not in place and "::" not in place


def ending_of(place: str) -> Format | None:
    """The format that the ending of a table says, before that of a compressed one."""
    return ENDINGS.get(_suffix(place))


def format_of(place: str, format: Format | Literal["auto"], otherwise: Format | None) -> Format:
    """The format of a table by its ending, or as it is told.

    Raises:
        InputError: neither says so.
    """
    # An ending of something else, such as .xlsx, is no name for what it would hold.
    fallback = None if is_local(place) and _suffix(place) else otherwise
    found = ending_of(place) or (None if format == "auto" else format) or fallback
    if found is None:
        what = "standard input" if place == STANDARD else place
        raise InputError(
            f"Expected to know the format of {what}, found no ending that says so: name it with "
            f"--format, one of {', '.join(FORMATS)}."
        )
    if found == "parquet" and (packing := _packing(_name(place))):
        raise InputError(
            f"Expected {place} without {packing}, as parquet is compressed inside: leave "
            "that ending out."
        )
    return found


def _name(place: str) -> str:
    """What of a path or URL bears the ending: ``zip://inner.csv::outer.zip`` has it first."""
    first = next((part for part in place.split("::") if "://" in part), place)
    return urlsplit(first).path or urlsplit(first).netloc if "://" in first else first


def _suffix(place: str) -> str:
    """The ending of a table before that of a compressed one; "" for none."""
    name = _name(place)
    path = PurePosixPath(name)
    return (path.with_suffix("") if _packing(name) else path).suffix.lower()


def _packing(name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    return suffix if suffix in (".gz", ".bz2", ".xz", ".zst") else ""


def _packed(stream: Any, suffix: str, mode: Literal["rb", "wb"]) -> Any:
    """A stream of what is compressed in ``stream``; equal contents are compressed to equal bytes.

    Raises:
        InputError: the package for it is not installed.
    """
    if suffix == ".gz":
        return gzip.GzipFile("", mode, 6, stream, mtime=0)
    if suffix == ".bz2":
        return bz2.BZ2File(stream, mode)
    if suffix == ".xz":
        return lzma.LZMAFile(stream, mode)
    if suffix == ".zst":
        try:
            from backports import zstd
        except ImportError:
            raise InputError(
                "Expected the package backports.zstd for files ending in .zst, found none: "
                "`pip install backports.zstd`."
            ) from None
        return zstd.ZstdFile(stream, mode)
    return stream


@contextmanager
def _reaching(place: str, doing: str, *further: type[Exception]) -> Iterator[None]:
    """Turn what goes wrong between here and ``place`` into one sentence; a defect stays as it is.

    ``further`` are kinds of errors that are no defect there.

    Raises:
        InputError: names the place and what its system said.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        package = type(error).__module__.split(".")[0]
        if not (isinstance(error, (*UNREADABLE, *further)) or package in CLIENTS):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = (
            "install it" if isinstance(error, ImportError) else "see that it is there and whole"
        )
        raise InputError(f"Expected to {doing} {place}, found: {reason}; {remedy}.") from error


@contextmanager
def _opened(place: str, seek: bool) -> Iterator[tuple[Any, Callable[[], float | None]]]:
    """The bytes of a table as they are stored, and how much of them has been read."""
    if is_local(place) and not Path(place).exists():
        folder = Path(place).parent
        near = closest(Path(place).name, (path.name for path in folder.glob("*")))
        raise InputError(
            f"Expected a table at {place} (seen from {Path.cwd()}), found nothing{near}: correct "
            "--input."
        )
    with ExitStack() as stack:
        if place == STANDARD:
            stream: Any = sys.stdin.buffer
        elif is_local(place):
            with _reaching(place, "read"):
                stream = stack.enter_context(Path(place).open("rb"))
        else:
            with _reaching(place, "read", *UNKNOWN):
                stream = stack.enter_context(fsspec.open(place, "rb").open())
        # Standard input may have been read in part by who handed it on.
        begin = stream.tell() if place == STANDARD and stream.seekable() else 0
        if seek and (begin or not stream.seekable()):
            whole = stack.enter_context(tempfile.TemporaryFile())
            with _reaching(place, "read"):
                shutil.copyfileobj(stream, whole)
            whole.seek(0)
            stream, begin = whole, 0
        size = getattr(stream, "size", None)  # of a remote file
        if size is None and stream.seekable():
            size = stream.seek(0, os.SEEK_END)
            stream.seek(begin)
        left = size - begin if size else 0
        yield stream, lambda: (stream.tell() - begin) / left if left else None


# Reading


@contextmanager
def reading(
    place: str,
    format: Format,
    text_column: str,
    batch_rows: int,
    verbatim: bool,
    added: Collection[str],
) -> Iterator[Input]:
    """Open a table to be read.

    Args:
        place: a path, a URL that fsspec opens, or ``-`` for standard input.
        format: what it is.
        text_column: the column of the texts; a row without text in it is rejected.
        batch_rows: the rows of each batch but the last; fewer where they are very long.
        verbatim: JSON lines are handed on as they are.
        added: the names of the columns to come, which none of the table's may have.

    Raises:
        InputError: it can't be read, has no such column, or one of those to come.
    """
    with _opened(place, seek=format == "parquet") as (stream, share):
        with _reaching(place, "read"):
            if format == "parquet":
                found = _parquet(stream, place, text_column, batch_rows)
            else:
                lines = _Lines(_decoded(stream, place))
                if format == "jsonl":
                    found = _json_lines(lines, place, text_column, batch_rows, verbatim, added)
                else:
                    found = _delimited(lines, format, place, text_column, batch_rows)
                found.share = share
        if taken := [name for name in added if name in found.columns]:
            raise InputError(
                f"Expected no column {taken[0]!r} in {place}, found one, and the predictions have "
                "one of that name: set --prefix, for example to 'predicted_'."
            )
        found.batches = _reached(found.batches, place)
        yield found


def _reached(batches: Iterator[Batch], place: str) -> Iterator[Batch]:
    while True:
        with _reaching(place, "read"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _decoded(stream: Any, place: str) -> IO[str]:
    """The text of a stream; what is no UTF-8 becomes half surrogates, by which its row is known."""
    plain = _packed(stream, _packing(_name(place)), "rb")
    buffered = plain if isinstance(plain, io.BufferedReader) else io.BufferedReader(plain)
    if buffered.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(
            f"Expected UTF-8 in {place}, found the byte-order mark of UTF-16: convert it first, "
            "for example with iconv."
        )
    return io.TextIOWrapper(buffered, "utf-8-sig", errors="surrogateescape", newline="")


class _BrokenError(Exception):
    """Why a line can't be a row, or a part of one."""


class _Long(str):
    """The beginning of a line that is too long."""


class _Lines:
    """The lines of a text, some of which can be put back.

    Attributes:
        number: of the last line that was taken, from 1.
        taken: the lines since this was last cleared.
    """

    def __init__(self, text: IO[str]) -> None:
        self.number = 0
        self.taken: list[str] = []
        self._text = text
        self._back: deque[str] = deque()

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else self._text.readline(FIELD)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) == FIELD and line[-1] not in "\r\n":
            while (rest := self._text.readline(FIELD)) and rest[-1] not in "\r\n":
                pass
            line = _Long(line[:EXCERPT])
        self.taken.append(line)
        if isinstance(line, _Long):
            raise _BrokenError(f"a line of more than {FIELD} characters")
        return line

    def put_back_all_but_one(self) -> None:
        """Take the first of the lines taken for gone, and have the others come again."""
        self._back.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1


def _refusal(value: str) -> str:
    """Why a string is no text, "" if it is."""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return f"not UTF-8: byte 0x{code - 0xDC00:02x}"
        return "half of a surrogate pair"
    return ""


def _rejected(line: int, reason: str, row: str) -> Rejected:
    shown = row[:EXCERPT].rstrip("\r\n").encode("utf-8", "surrogateescape")
    return Rejected(line, reason, shown.decode("utf-8", "backslashreplace"))


def _refuse_column(column: str, found: Sequence[str], place: str) -> None:
    if column not in found:
        hint = closest(column, found)
        if len(found) == 1 and (marks := [mark for mark in ",;\t|" if mark in found[0]]):
            raise InputError(
                f"Expected fields that are separated as {place}'s format says, found one column, "
                f"{found[0]!r}: name the format, as --format tsv for tabs, or write the file with "
                f"commas in place of {marks[0]!r}."
            )
        raise InputError(
            f"Expected column {column!r} in {place}, found "
            f"{', '.join(map(repr, found)) or 'none'}{hint}: set --text_column to the right one."
        )


def _delimited(lines: _Lines, format: Format, place: str, column: str, batch_rows: int) -> Input:
    csv.field_size_limit(FIELD)
    reader = csv.reader(lines, delimiter="\t" if format == "tsv" else ",", strict=True)
    header: list[str] = []
    while not header:
        try:
            header = next(reader)
        except StopIteration:
            raise InputError(
                f"Expected a header in {place}, found no line: name the columns in the first one."
            ) from None
        except (csv.Error, _BrokenError) as error:
            raise InputError(
                f"Expected a header in {place}, found {error} in it: mend the first line."
            ) from None
    if reason := _refusal("".join(header)):
        raise InputError(f"Expected a header of UTF-8 in {place}, found it {reason}: convert it.")
    _refuse_column(column, header, place)
    _refuse_doubled(header, place)
    width, at = len(header), header.index(column)
    schema = pa.schema([(name, pa.string()) for name in header])

    def records() -> Iterator[tuple[list[str] | Rejected, int]]:
        while True:
            lines.taken.clear()
            try:
                record = next(reader)
            except StopIteration:
                return
            except (csv.Error, _BrokenError) as error:
                reason = str(error)
                if "end of data" in reason or "field larger" in reason:
                    reason = "a quote that opens here and is never closed"
                elif len(lines.taken) > 1:
                    reason = f"a quote that opens here and is followed by: {reason}"
                yield reject(reason), 0
                continue
            if not record:
                continue
            start = lines.number - len(lines.taken) + 1
            size = sum(map(len, record))
            if (
                format == "tsv"
                and len(lines.taken) > 1
                and all(line.count("\t") == width - 1 for line in lines.taken)
            ):
                # Each line would be a row: the quotes are stray ones, of two rows.
                yield reject("a quote that opens here takes in further rows"), 0
            elif len(record) != width:
                reason = f"expected {width} fields, found {len(record)}"
                yield _rejected(start, reason, "".join(lines.taken)), 0
            elif reason := _refusal("".join(record)):
                yield _rejected(start, reason, "".join(lines.taken)), 0
            elif not record[at].strip():
                yield _rejected(start, "no text", "".join(lines.taken)), 0
            else:
                yield record, size

    def reject(reason: str) -> Rejected:
        """Give up the line that a row starts on, and no other."""
        lines.put_back_all_but_one()
        return _rejected(lines.number, reason, lines.taken[0])

    def batches() -> Iterator[Batch]:
        for rows, rejected, read in _collected(records(), batch_rows):
            columns = list(zip(*rows, strict=True)) or [()] * width
            table = pa.table([pa.array(c, pa.string()) for c in columns], schema=schema)
            yield Batch(list(columns[at]), table, rejected, read)

    return Input(header, schema, batches(), None, lambda: None)


def _refuse_doubled(columns: Sequence[str], place: str) -> None:
    doubled = sorted({name for name in columns if columns.count(name) > 1})
    if doubled:
        raise InputError(
            f"Expected columns of different names in {place}, found {doubled[0]!r} "
            f"{columns.count(doubled[0])} times: rename one of them."
        )


def _collected(
    records: Iterator[tuple[Any | Rejected, int]], batch_rows: int
) -> Iterator[tuple[list[Any], list[Rejected], int]]:
    """Batches of rows, the rejected ones between them, and how many both are.

    The second of each record is its size.
    """
    rows: list[Any] = []
    rejected: list[Rejected] = []
    total = read = 0
    for record, size in records:
        read += 1
        if isinstance(record, Rejected):
            rejected.append(record)
        else:
            rows.append(record)
            total += size
        if len(rows) == batch_rows or len(rejected) == batch_rows or total > CHARACTERS:
            yield rows, rejected, read
            rows, rejected, total, read = [], [], 0, 0
    if read:
        yield rows, rejected, read


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {max(keys, key=keys.count)!r} twice in one object")
    return found


def _constant(word: str) -> Any:
    raise ValueError(f"{word}, which is no JSON (null is)")


JSON = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _json_lines(
    lines: _Lines,
    place: str,
    column: str,
    batch_rows: int,
    verbatim: bool,
    added: Collection[str],
) -> Input:
    def records() -> Iterator[tuple[tuple[int, str, dict[str, Any]] | Rejected, int]]:
        while True:
            lines.taken.clear()
            line = ""
            try:
                line = next(lines).strip()
                if not line:
                    continue
                if reason := _refusal(line):
                    raise _BrokenError(reason)
                row = JSON.decode(line)
                if not isinstance(row, dict):
                    raise _BrokenError("no JSON object")
                yield (lines.number, line, row), len(line)
            except StopIteration:
                return
            except json.JSONDecodeError as error:
                reason = f"no JSON: {error.msg}, column {error.colno}"
                yield _rejected(lines.number, reason, line), 0
            except (_BrokenError, ValueError, RecursionError) as error:
                yield _rejected(lines.number, str(error), line or lines.taken[0]), 0

    collected = _collected(records(), batch_rows)
    first = next(collected, ([], [], 0))
    columns = list(dict.fromkeys(itertools.chain(*(row for _, _, row in first[0]))))
    if first[0]:
        _refuse_column(column, columns, place)
    columns = columns or [column]
    # A column has one type for all rows, and what comes is not known: text holds everything.
    schema = None if verbatim else pa.schema([(name, pa.string()) for name in columns])
    known = set(columns)

    def why_not(row: dict[str, Any]) -> str:
        text = row.get(column)
        if text is None or (isinstance(text, str) and not text.strip()):
            return "no text"
        if not isinstance(text, str):
            return f"expected text in {column!r}, found {json.dumps(text)[:40]}"
        if verbatim:
            if taken := [name for name in added if name in row]:
                return f"a key {taken[0]!r}, as the predictions have: set --prefix"
            return _refusal(text)
        if odd := sorted(row.keys() - known):
            return f"a key {odd[0]!r} that the first {batch_rows} rows do not have"
        return next(filter(None, (_refusal(v) for v in row.values() if isinstance(v, str))), "")

    def batches() -> Iterator[Batch]:
        for found, rejected, read in itertools.chain([first], collected):
            good = []
            for number, line, row in found:
                if reason := why_not(row):
                    rejected.append(_rejected(number, reason, line))
                else:
                    good.append((line, row))
            rejected.sort(key=lambda one: one.line)
            texts = [row[column] for _, row in good]
            if schema is None:
                yield Batch(texts, [line for line, _ in good], rejected, read)
                continue
            values = [[_as_text(row.get(name)) for _, row in good] for name in columns]
            table = pa.table([pa.array(v, pa.string()) for v in values], schema=schema)
            yield Batch(texts, table, rejected, read)

    return Input(columns, schema, batches(), None, lambda: None)


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _parquet(stream: Any, place: str, column: str, batch_rows: int) -> Input:
    # A buffer, or else the whole of a column of a row group is read at once.
    file = pq.ParquetFile(stream, buffer_size=1 << 20, pre_buffer=False)
    schema: pa.Schema = file.schema_arrow
    _refuse_column(column, schema.names, place)
    _refuse_doubled(schema.names, place)
    kind = schema.field(column).type
    value_kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(value_kind) or pa.types.is_large_string(value_kind)):
        raise InputError(
            f"Expected text in column {column!r} of {place}, found {kind}: save it as strings, or "
            "set --text_column to another one."
        )
    position = 0

    def batches() -> Iterator[Batch]:
        nonlocal position
        for part in file.iter_batches(batch_rows):
            texts: list[str] = []
            keep: list[bool] = []
            rejected = []
            for number, text in enumerate(_strings(part.column(column)), position + 1):
                reason = "no text" if text is None or not text.strip() else _refusal(text)
                keep.append(not reason)
                if reason:
                    rejected.append(_rejected(number, reason, text or ""))
                else:
                    texts.append(text or "")
            position += len(keep)
            table = pa.Table.from_batches([part])
            kept = table.filter(pa.array(keep)) if rejected else table
            yield Batch(texts, kept, rejected, part.num_rows)

    rows: int = file.metadata.num_rows
    return Input(schema.names, schema, batches(), rows, lambda: position / rows if rows else None)


def _strings(column: Any) -> list[str | None]:
    """The texts of a column; parquet does not see to it that they are UTF-8."""
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    try:
        values: list[str | None] = plain.to_pylist()
        return values
    except UnicodeDecodeError:
        large = pa.types.is_large_string(plain.type)
        raw = plain.view(pa.large_binary() if large else pa.binary()).to_pylist()
        return [v if v is None else v.decode("utf-8", "surrogateescape") for v in raw]


# Writing


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


class _Ends:
    """Rows that end in CR LF, which has the writer quote fields with either, end in LF here."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text

    def write(self, row: str) -> None:
        """Take a row."""
        self._text.write(f"{row[:-2]}\n")


@dataclass
class Delimited(Output):
    """CSV or TSV; ``excel_safe`` has no cell run as a formula."""

    delimiter: str = ","
    excel_safe: bool = False

    def __post_init__(self) -> None:
        """Write the header."""
        self._text = io.TextIOWrapper(self.stream, "utf-8", newline="", write_through=False)
        ends = _Ends(self._text)
        self._writer = csv.writer(ends, delimiter=self.delimiter, lineterminator="\r\n")
        schema = self.schema or pa.schema([])
        for one in schema:
            _refuse_binary(one, "csv and tsv have")
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
    place: str,
    format: Format,
    schema: pa.Schema | None,
    added: pa.Schema,
    excel_safe: bool,
) -> Iterator[Output]:
    """Begin a table in ``stream``, compressed as the ending of ``place`` says.

    Args:
        stream: gets the bytes, and stays open.
        place: what the table is called.
        format: what it becomes.
        schema: of the rows; none for JSON lines that keep their form.
        added: the further columns.
        excel_safe: cells of CSV and TSV that a spreadsheet would run get a ``'`` before them.

    Raises:
        InputError: the format can't hold a column.
    """
    packed = _packed(stream, _packing(_name(place)), "wb")
    if format == "parquet":
        output: Output = Parquet(packed, schema, added)
    elif format == "jsonl":
        for one in schema or ():
            _refuse_binary(one, "jsonl has")
        output = JsonLines(packed, schema, added)
    else:
        delimiter = "\t" if format == "tsv" else ","
        output = Delimited(packed, schema, added, delimiter, excel_safe)
    try:
        yield output
    except BaseException:
        output.drop()
        raise
    output.close()
    if packed is not stream:
        packed.close()


def send(file: Path, place: str) -> None:
    """Bring a file that is whole to a URL.

    Raises:
        InputError: it can't be brought there.
    """
    with _reaching(place, "write"):
        fs, path = fsspec.core.url_to_fs(place)
        fs.put_file(str(file), path)


def _refuse_binary(one: pa.Field, has: str) -> None:
    kinds = [one.type]
    for kind in kinds:  # and those inside of it, as they are found
        kinds += [kind.field(k).type for k in range(kind.num_fields)]
        if (
            pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
            or pa.types.is_fixed_size_binary(kind)
        ):
            raise InputError(
                f"Expected columns of values that {has} a form for, found {one.name!r} of "
                f"{one.type}: write parquet."
            )


def _cells(column: Any) -> Sequence[Any]:
    """The values of a column as CSV has them, "" for none."""
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
    """The values of a column as JSON has them."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        values: list[Any] = column.to_pylist()
        return values
    if pa.types.is_floating(kind) or pa.types.is_nested(kind) or pa.types.is_dictionary(kind):
        return list(map(_plain, column.to_pylist()))
    return _cells(column)


def _plain(value: Any) -> Any:
    """A value of parquet as one of JSON, which knows no NaN and no dates."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return list(map(_plain, value))
    return value if isinstance(value, str | int | None) else str(value)


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
