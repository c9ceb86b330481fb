"""How the files of a source become tables of strings, whatever their format."""

import csv
import io
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from fsspec.core import OpenFile

from src.sources import content, find
from src.stage import InputError

Format = Literal["auto", "csv", "tsv", "json", "jsonl", "parquet", "folder"]
ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "folder",
}

log = logging.getLogger("src.formats")


@dataclass(frozen=True)
class Reader:
    """How to read the files of a source; every field but ``text`` and ``label`` may be empty.

    Attributes:
        format: the files' format, or "auto" to take it from their endings.
        text: the column of the texts; for a folder, the name that the column gets.
        label: the column of the labels, likewise.
        encodings: the first is the files'; in a folder the others are tried on a file that is not.
        delimiter: between the fields of a csv file.
        quote: around a field of a csv or tsv file that holds the delimiter or a line end.
        columns: names of the columns of csv and tsv files that have no header line.
    """

    format: Format
    text: str
    label: str
    encodings: Sequence[str]
    delimiter: str
    quote: str
    columns: Sequence[str]

    def read(self, source: str) -> Iterator[tuple[str, pa.Table]]:
        """Yield the name and the table of each file; all columns are strings, null where absent.

        Raises:
            InputError: nothing is there, it can't be opened, or a file is not what it should be.
        """
        if not self.encodings:
            raise InputError("load.encoding is []: expected one at least, such as [utf-8].")
        files = find(source)
        formats = [_format_of(file) if self.format == "auto" else self.format for file in files]
        if set(formats) == {"folder"}:
            yield source, self._folder(files)
            return
        if "folder" in formats:
            raise InputError(
                f"Expected files of one kind in {source}, found .txt files among others: "
                "point load.source at one kind, as in '*.csv'."
            )
        for file, kind in zip(files, formats, strict=True):
            data = content(file)
            if data.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
                raise InputError(
                    f"Expected labelled texts in {source}, found a web page: "
                    "is the file shared with anyone who has the link?"
                )
            yield file.path, self._table(kind, data, file.path)

    def _table(self, kind: str, data: bytes, name: str) -> pa.Table:
        if not data:
            raise InputError(f"Expected labelled texts in {name}, found an empty file (0 bytes).")
        if kind == "parquet":
            return self._parquet(data, name)
        text = _decode(data, name, self.encodings[:1])
        if kind == "json":
            return self._records(_json_list(text, name), name)
        if kind == "jsonl":
            lines = ((n, line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
            return self._records(((f"line {n}", _json(line, name, n)) for n, line in lines), name)
        return self._delimited(text, "\t" if kind == "tsv" else self.delimiter, name)

    def _folder(self, files: Sequence[OpenFile]) -> pa.Table:
        """Texts from ``<label>/<id>.txt``; the id is ``<label>/<id>``."""
        paths = [PurePosixPath(file.path) for file in files]
        root, _ = Counter(path.parent.parent for path in paths).most_common(1)[0]
        for path in paths:
            if path.parent.parent != root:
                raise InputError(
                    f"Expected texts as <label>/<id>.txt in one folder, found {path} outside "
                    "it: move the file, or point load.source at the folder of the labels."
                )
        rows: dict[str, list[str]] = {"id": [], self.text: [], self.label: []}
        for file, path in zip(files, paths, strict=True):
            rows["id"].append(f"{path.parent.name}/{path.name.removesuffix('.txt')}")
            rows[self.text].append(_decode(content(file), file.path, self.encodings))
            rows[self.label].append(path.parent.name)
        return pa.table(rows)

    def _delimited(self, text: str, delimiter: str, name: str) -> pa.Table:
        if len(delimiter.encode()) != 1:
            raise InputError(
                f"load.delimiter is {delimiter!r}: expected one ASCII character, such as ','."
            )
        if len(self.quote.encode()) > 1:
            raise InputError(
                f"load.quote is {self.quote!r}: expected one ASCII character, or '' for none."
            )
        records = (record for _, record in self._records_of(text, delimiter, name))
        header = list(self.columns) or next(filter(None, records), [])
        doubled = sorted({column for column in header if header.count(column) > 1})
        if doubled:
            raise InputError(
                f"Expected columns of different names in {name}, found {doubled[0]!r} "
                f"{header.count(doubled[0])} times: rename one of them."
            )
        bad_rows = 0

        def skip(_row: pyarrow.csv.InvalidRow) -> str:
            nonlocal bad_rows
            bad_rows += 1
            return "skip"

        data = text.encode("utf-8", "surrogatepass")
        try:
            table = pyarrow.csv.read_csv(
                pa.BufferReader(data),
                pyarrow.csv.ReadOptions(
                    column_names=list(self.columns) or None,
                    block_size=min(max(len(data), 1 << 20), (1 << 31) - 1),
                    use_threads=False,
                ),
                pyarrow.csv.ParseOptions(
                    delimiter=delimiter,
                    quote_char=self.quote or False,
                    newlines_in_values=True,
                    invalid_row_handler=skip,
                ),
                pyarrow.csv.ConvertOptions(
                    column_types=dict.fromkeys(header, pa.string()),
                    null_values=[],
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            self._raise_at_line(text, delimiter, header, name)
            raise InputError(f"Expected a delimited table in {name}, found: {error}.") from error
        if bad_rows:
            self._raise_at_line(text, delimiter, header, name)
            raise InputError(
                f"Expected {len(header)} fields in each row of {name}, found {bad_rows} rows of "
                "another number: quote texts that hold the delimiter."
            )
        if delimiter == "\t" and self.quote:
            _refuse_merged_rows(table, self.quote, name)
        if self.text in table.column_names:
            spanning = pc.sum(pc.match_substring_regex(table[self.text], "[\\r\\n]")).as_py()
            if spanning:
                log.info("%s: %d quoted texts span several lines", name, spanning)
        return table

    def _records_of(self, text: str, delimiter: str, name: str) -> Iterator[tuple[int, list[str]]]:
        """The physical line on which each record starts, and its fields."""
        csv.field_size_limit(len(text) + 1)
        lines = io.StringIO(text, newline="")
        if self.quote:
            reader = csv.reader(lines, delimiter=delimiter, quotechar=self.quote, strict=True)
        else:
            reader = csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        start = 1
        try:
            for record in reader:
                yield start, record
                start = reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                f"Expected well-formed quotes in {name}, line {start}, found: {error}; double a "
                "quote inside a quoted text, or make load.quote '' if quotes mean nothing there."
            ) from None

    def _raise_at_line(self, text: str, delimiter: str, header: list[str], name: str) -> None:
        """Find the first record that the fast reader refused, and name its physical line."""
        for start, record in self._records_of(text, delimiter, name):
            if record and len(record) != len(header):
                raise InputError(
                    f"Expected {len(header)} fields in {name}, line {start}, found {len(record)}: "
                    f"{delimiter.join(record)[:60]!r}; quote a text that holds {delimiter!r}."
                )

    def _records(self, records: Iterable[tuple[str, Any]], name: str) -> pa.Table:
        rows: list[dict[str, str | None]] = []
        for where, record in records:
            if not isinstance(record, dict):
                raise InputError(
                    f"Expected an object such as {{{self.text!r}: ..., {self.label!r}: ...}} in "
                    f"{name}, {where}, found {record!r:.60}."
                )
            for column in (self.text, self.label):
                if isinstance(record.get(column), list | dict):
                    raise InputError(
                        f"Expected text in {column!r} of {name}, {where}, found a "
                        f"{type(record[column]).__name__}: give each row one value."
                    )
            rows.append({key: _as_text(value) for key, value in record.items()})
        if not rows:
            raise InputError(f"Expected rows in {name}, found none: add labelled texts.")
        columns = list(dict.fromkeys(key for row in rows for key in row))
        try:
            return pa.table(
                {c: pa.array([row.get(c) for row in rows], type=pa.string()) for c in columns}
            )
        except UnicodeEncodeError as error:
            raise InputError(
                f"Expected valid Unicode in {name}, found half of a surrogate pair "
                f"({error.object[error.start]!a}): remove it from the file."
            ) from None

    def _parquet(self, data: bytes, name: str) -> pa.Table:
        try:
            table = pq.read_table(pa.BufferReader(data))
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(f"Expected a parquet file in {name}: {error}.") from error
        for i, column in enumerate(table.column_names):
            try:
                table = table.set_column(i, column, table[column].cast(pa.string()))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                if column in (self.text, self.label):
                    raise InputError(
                        f"Expected text in column {column!r} of {name}, found "
                        f"{table[column].type}: {error}."
                    ) from error
        strings = [field.name for field in table.schema if field.type == pa.string()]
        if left_out := sorted(set(table.column_names) - set(strings)):
            log.warning("%s: columns that are not text are left out: %s", name, left_out)
        return table.select(strings)


def _format_of(file: OpenFile) -> Format:
    suffixes = PurePosixPath(file.path).suffixes
    suffix = suffixes[-2] if file.compression and len(suffixes) > 1 else (suffixes or [""])[-1]
    if suffix.lower() not in ENDINGS:
        raise InputError(
            f"Expected a file ending in {', '.join(ENDINGS)}, found {file.path}: "
            "set load.format to what it is."
        )
    return ENDINGS[suffix.lower()]


def _decode(data: bytes, name: str, encodings: Sequence[str]) -> str:
    """The text of a file, by the first of the encodings that all of it fits."""
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            failure = error
        except LookupError:
            raise InputError(
                f"load.encoding has {encoding!r}: expected a name that Python knows, "
                "such as utf-8, cp1252 or utf-16."
            ) from None
        else:
            if encoding != encodings[0]:
                log.warning("%s is not %s, read as %s", name, encodings[0], encoding)
            return text.removeprefix("\ufeff")
    line = data.count(b"\n", 0, failure.start) + 1
    raise InputError(
        f"Expected {' or '.join(encodings)} in {name}, found byte "
        f"0x{data[failure.start]:02x} on line {line}: put the right one first in load.encoding."
    )


def _json(text: str, name: str, line: int) -> Any:
    """Parse JSON, keeping each number as it is written."""
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except RecursionError:
        raise InputError(
            f"Expected one object a row in {name}, line {line}, found values nested too deep: "
            "correct the file."
        ) from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"Expected JSON in {name}, line {line + error.lineno - 1}, column {error.colno}: "
            f"{error.msg}; mend the line."
        ) from None


def _json_list(text: str, name: str) -> list[tuple[str, Any]]:
    value = _json(text, name, 1)
    if not isinstance(value, list):
        raise InputError(
            f"Expected a list of objects in {name}, found a {type(value).__name__}: "
            "set load.format to jsonl if it has one object a line."
        )
    return [(f"item {n}", item) for n, item in enumerate(value, 1)]


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _refuse_merged_rows(table: pa.Table, quote: str, name: str) -> None:
    """A tab and a line end in one field are two stray quotes and the rows between them."""
    for column in table.columns:
        merged = pc.match_substring_regex(column, r"\t(?s:.*)[\r\n]|[\r\n](?s:.*)\t")
        if pc.any(merged).as_py():
            field = column.filter(merged)[0].as_py()
            raise InputError(
                f"Expected one row a line in {name}, found several inside {quote}: {field[:60]!r}; "
                "make load.quote '' if quotes mean nothing there."
            )
