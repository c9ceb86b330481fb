"""Rows of the files of a source as strings, a batch at a time, whatever the format.

This is what ``load`` makes of the readers of each format: every value is a string, columns are
named by their roles, and a row that its reader can't read is a reason to stop.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import pyarrow as pa

from src.core.errors import InputError
from src.tables import places
from src.tables.columns import Columns, Roles, refuse_one_column
from src.tables.delimited import Record, Records, width_reason
from src.tables.encodings import refuse_encoding, refuse_other_files, text_of, why_not_text
from src.tables.folders import LabelledText, root_of, texts_of
from src.tables.json_rows import AS_WRITTEN, Item, as_text, json_lines, json_list
from src.tables.lines import Broken, Lines
from src.tables.parquet_rows import Rows
from src.tables.places import File

Format = Literal["auto", places.Format, "folder"]
ENDINGS: dict[str, Format] = {**places.ENDINGS, ".txt": "folder"}
ROWS = 10_000  # of a batch at most
CHARACTERS = 1 << 24  # of a batch, beyond which it is handed on
FIELD = 1 << 26  # characters of one line or field at most
NAMED = 5  # classes that the log names
COLUMNS = 1000  # of a file at most; a row of JSON has a place for each
Row = TypeVar("Row", Record, Item)
STRAY = "double a quote inside a quoted text, or set load.quote to '' if quotes mean nothing there"

log = logging.getLogger("src.tables.rows")


@dataclass
class Batch:
    """Rows of one file."""

    columns: Columns  # the values of each, None where a row has none
    other_ids: frozenset[str]  # those that are called an id but are not the ids
    lines: list[int]  # that rows start on, from 1; their numbers where there are no lines
    reasons: list[str]  # why a row can't be kept, "" for one that can
    names: list[str] | None = None  # the file of each row, where they are not all from one


@dataclass(frozen=True)
class Reader:
    """A way to read the files of a source."""

    format: Format  # "auto" to take it from their endings
    text: str  # the column of the texts; "" to read all columns under their own names
    label: str  # that of the labels, likewise
    encodings: Sequence[str]  # the first is the files'; in a folder the others are tried, too
    delimiter: str  # between the fields of a csv file
    quote: str  # around a field of a csv or tsv file that holds the delimiter or a line end
    columns: Sequence[str]  # their names in csv and tsv files that have no header line
    ids: str  # that of the ids, "" for ``id`` where there is one, ``NUMBERED`` for none
    nested: set[str] = field(default_factory=set)  # columns that held a list or an object

    def read(self, files: Sequence[File]) -> Iterator[tuple[str, Batch]]:
        """Yield the name of a file and a batch of its rows; roles are columns ``id text label``.

        Raises:
            InputError: a file can't be read, or is not what it should be.
        """
        self.check()
        roles = Roles(self.text, self.label, self.ids)
        formats = [_format_of(file) if self.format == "auto" else self.format for file in files]
        if set(formats) == {"folder"}:
            yield from _folder(files, self.encodings)
            return
        if "folder" in formats:
            raise InputError(
                f"{files[0].setting} has .txt files among others: point it at one kind, as in "
                "'*.csv'."
            )
        for file, kind in zip(files, formats, strict=True):
            rows = 0
            for batch in self._batches(kind, file, roles):
                rows += len(batch.lines)
                yield file.name, batch
            if not rows:
                raise InputError(f"{file} has no rows: add some.")

    def check(self) -> None:
        """Stop if the params are none by which files can be read."""
        Roles(self.text, self.label, self.ids).check()
        if not self.encodings:
            raise InputError("load.encoding is []: name at least one, such as [utf-8].")
        for encoding in self.encodings:
            try:
                "".encode(encoding)
            except LookupError:  # unknown, or not an encoding of text
                raise InputError(
                    f"load.encoding has {encoding!r}: expected a name that Python knows, "
                    "such as utf-8, cp1252 or utf-16."
                ) from None
        if len(self.delimiter.encode()) != 1:
            raise InputError(
                f"load.delimiter is {self.delimiter!r}: expected one ASCII character, such as ','."
            )
        if len(self.quote.encode()) > 1:
            raise InputError(
                f"load.quote is {self.quote!r}: expected one ASCII character, or '' for none."
            )

    def _batches(self, kind: str, file: File, roles: Roles) -> Iterator[Batch]:
        if not file.path.stat().st_size:
            raise InputError(f"{file} is empty (0 bytes): get it again, or correct {file.setting}.")
        with file.open() as stream:
            if kind == "parquet":
                yield from _parquet(Rows(stream, file, FIELD), file, roles, self.nested)
                return
            refuse_other_files(stream, kind, self.encodings[0], file)
            try:
                text = text_of(stream, self.encodings[0])
                if kind == "json":
                    yield from self._objects(json_list(text, AS_WRITTEN, FIELD), file, roles)
                elif kind == "jsonl":
                    items = json_lines(Lines(text, FIELD), AS_WRITTEN)
                    yield from self._objects(items, file, roles)
                else:
                    delimiter = "\t" if kind == "tsv" else self.delimiter
                    yield from self._delimited(Lines(text, FIELD), delimiter, file, roles)
            except UnicodeError:  # not only what can't be decoded, also utf-16 without its mark
                refuse_encoding(file, [self.encodings[0]])

    def _delimited(self, lines: Lines, delimiter: str, file: File, roles: Roles) -> Iterator[Batch]:
        records = _whole(Records(lines, delimiter, self.quote), file, STRAY)
        header = list(self.columns) or next((record.fields for record in records), [])
        outside = {name: value for name, value in file.columns.items() if name not in header}
        roles.check_header([*header, *outside] if header else [], file)
        found = roles.find([*header, *outside], file)
        rows: list[tuple[int, str, list[str]]] = []
        size = spanning = wide = count = 0

        def batch() -> Batch:
            if wide == count > 1:
                refuse_one_column("", header, str(file))
                raise InputError(
                    f"{file} has one field more in each row than in its header, as R writes names "
                    "of rows: save it with row.names = FALSE, or name every field in the header."
                )
            numbers, reasons, fields = map(list, zip(*rows, strict=True))
            columns = map(list, zip(*fields, strict=True))
            values: dict[str, Any] = dict(zip(header, columns, strict=True))
            values |= {name: [value] * len(rows) for name, value in outside.items()}
            return Batch(*roles.name(values, found, len(rows)), numbers, reasons)

        merged = delimiter == "\t" and bool(self.quote)
        last = 0
        for last, record, source in records:
            count, wide = count + 1, wide + (len(record) == len(header) + 1)
            if reason := width_reason(record, len(header)):
                whole = delimiter.join(record)
                record = [whole if name == found.get("text") else "" for name in header]
            elif len(source) > 1:
                spanning += 1
                if merged and (odd := next((one for one in record if "\t" in one), None)):
                    # A tab and a line end in one field are two stray quotes and rows between them.
                    raise InputError(
                        f"{file} has several rows inside {self.quote} on line {last}, {odd[:60]!r}:"
                        " set load.quote to '' if quotes mean nothing there."
                    )
            rows.append((last, reason, record))
            size += sum(map(len, record))
            if len(rows) == ROWS or size > CHARACTERS:
                yield batch()
                rows, size = [], 0
        if rows:
            yield batch()
        if not last:
            raise InputError(f"{file} has a header and no rows: add some.")
        if spanning:
            log.info("%s: %d quoted rows span several lines", file, spanning)

    def _objects(self, items: Iterable[Item | Broken], file: File, roles: Roles) -> Iterator[Batch]:
        rows: list[Item] = []
        found: dict[str, str] = {}
        outside = file.columns
        keys = dict.fromkeys(outside)
        size = 0
        example = dict.fromkeys((self.text or "text", self.label or "label"), "...")
        remedy = f"make each row an object such as {example}"
        # One more makes the last batch whole.
        for item in itertools.chain(_whole(items, file, remedy), [None]):
            if item:
                rows.append(item)
                keys |= dict.fromkeys(item.value)
                size += sum(len(value) for value in item.value.values() if isinstance(value, str))
            if rows and (len(rows) == ROWS or size > CHARACTERS or not item):
                names = list(dict.fromkeys([*itertools.chain(*(r.value for r in rows)), *outside]))
                found = found or roles.find(names, file)
                columns, reasons = self._values(rows, names, found, file)
                lines = [row.line for row in rows]
                yield Batch(*roles.name(columns, found, len(rows)), lines, reasons)
                rows, size = [], 0
        roles.compare_keys(list(keys), file)

    def _values(
        self, rows: list[Item], names: list[str], found: dict[str, str], file: File
    ) -> tuple[dict[str, list[str | None]], list[str]]:
        """Return the columns of some objects, and why each of them can't be kept."""
        if len(names) > COLUMNS:
            raise InputError(
                f"{file} has {len(names)} different keys up to line {rows[-1].line}, which are "
                f"more than {COLUMNS}: give every row the same keys."
            )
        columns: dict[str, list[str | None]] = {}
        reasons = [""] * len(rows)
        for name in names:
            values = [row.value.get(name, file.columns.get(name)) for row in rows]
            if {list, dict} & set(map(type, values)):
                self.nested.add(name)
                if name in (found.get("text"), found.get("label")):
                    kind, line = next(
                        (type(value).__name__, row.line)
                        for row, value in zip(rows, values, strict=True)
                        if isinstance(value, list | dict)
                    )
                    raise InputError(
                        f"{file}, line {line} has a {kind} in {name!r}, which is not text: give "
                        "each row one value."
                    )
            columns[name] = list(map(as_text, values))
            _mend(name, columns[name], reasons)
        for name in [name for name in columns if why_not_text(name)]:
            columns[name.encode("utf-8", "backslashreplace").decode()] = columns.pop(name)
        return columns, reasons


def _format_of(file: File) -> Format:
    if file.suffix not in ENDINGS:
        raise InputError(
            f"Can't tell the format of {file} from its name: set load.format, or let it end in one "
            f"of {', '.join(ENDINGS)}."
        )
    return ENDINGS[file.suffix]


def _whole(rows: Iterable[Row | Broken], file: File, remedy: str) -> Iterator[Row]:
    """Yield rows, and stop at the first one that is broken."""
    for row in rows:
        if isinstance(row, Broken):
            shown = f" ({row.row[:60]!r})" if row.row else ""
            raise InputError(
                f"{file}, line {row.line} can't be read: {row.reason}{shown}; {remedy}."
            )
        yield row


def _mend(name: str, values: list[str | None], reasons: list[str]) -> None:
    """Write what is not text in a column in escapes, and note why such rows can't be kept."""
    if not why_not_text("".join(filter(None, values))):  # much sooner seen than by each value
        return
    for k, value in enumerate(values):
        if value is not None and (reason := why_not_text(value)):
            reasons[k] = f"{reason} in {name!r}"
            values[k] = value.encode("utf-8", "backslashreplace").decode()


def _folder(files: Sequence[File], encodings: Sequence[str]) -> Iterator[tuple[str, Batch]]:
    name = f"{root_of(files)}/"
    rows: list[LabelledText] = []
    size = 0
    for number, row in enumerate(texts_of(files, encodings), 1):
        rows.append(row)
        size += len(row.text)
        if len(rows) == ROWS or size > CHARACTERS or number == len(files):
            ids, texts, labels, names = map(list, zip(*rows, strict=True))
            columns: dict[str, Any] = {"id": ids, "text": texts, "label": labels}
            yield name, Batch(columns, frozenset(), [1] * len(rows), [""] * len(rows), names)
            rows, size = [], 0


def _parquet(rows: Rows, file: File, roles: Roles, nested: set[str]) -> Iterator[Batch]:
    own = rows.schema.names
    outside = {name: value for name, value in file.columns.items() if name not in own}
    names = [*own, *outside]
    roles.check_header(names, file)
    found = roles.find(names, file)
    for name, classes in rows.classes.items():
        shown = ", ".join(classes[:NAMED]) + ", ..." * (len(classes) > NAMED)
        log.info("%s: the numbers in column %r are read as their names: %s", file, name, shown)
    left_out: set[str] = set()
    row = 0
    for part in rows.batches(ROWS):
        columns: Columns = {name: [value] * len(part) for name, value in outside.items()}
        reasons = [""] * len(part)
        for name, column in zip(own, part.columns, strict=True):
            try:
                columns[name] = rows.texts(name, column, wanted=name in found.values())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                if name in found.values():
                    raise InputError(
                        f"{file} has {column.type} in column {name!r}, which is not text: save it "
                        f"as strings, one a row ({error})."
                    ) from error
                left_out.add(name)
                nested.add(name)
                continue
            _mend(name, columns[name], reasons)
        lines = list(range(row + 1, row + len(part) + 1))
        row += len(part)
        yield Batch(*roles.name(columns, found, len(part)), lines, reasons)
    if left_out:
        log.warning("%s: columns that are not text are left out: %s", file, sorted(left_out))
