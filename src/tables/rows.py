"""How the files of a source become rows of strings, a batch at a time, whatever their format.

Tables are read by Python's strict csv reader, which knows the physical line that each row stands
on; nothing holds more of a file than one batch.
"""

import codecs
import csv
import io
import itertools
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from charset_normalizer import from_bytes

from src.core.errors import InputError, closest
from src.tables import examples
from src.tables.sources import File

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
ROWS = 10_000  # of a batch at most
CHARACTERS = 1 << 24  # of a batch, beyond which it is handed on
FIELD = (
    1 << 26
)  # characters of one field; a quote that is never closed would take in the whole file
MARKS = {  # that of utf-32 begins with that of utf-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
COLUMNS = 1000  # of a file at most; a row of JSON has a place for each
GUESSED = 32  # bytes from which an encoding can be guessed
SAMPLE = 1 << 16  # bytes around a wrong one that its encoding is guessed from
EXCERPT = 30  # bytes before and after a wrong one that are shown
WESTERN = "cp1252"  # the likeliest where little is known

log = logging.getLogger("src.tables.rows")


@dataclass
class Batch:
    """Rows of one file.

    Attributes:
        columns: the values of each column, None where a row has none.
        lines: the physical line that each row starts on, from 1; its number where there are none.
        reasons: why a row can't be kept, "" for one that can.
        names: the file of each row, where they are not all from one.
    """

    columns: dict[str, list[str | None]]
    lines: list[int]
    reasons: list[str]
    names: list[str] | None = None


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
        ids: the column of the ids, if there is one.
    """

    format: Format
    text: str
    label: str
    encodings: Sequence[str]
    delimiter: str
    quote: str
    columns: Sequence[str]
    ids: str
    _headers: dict[str, list[str]] = field(default_factory=dict)  # of the tables read so far

    def read(self, files: Sequence[File]) -> Iterator[tuple[str, Batch]]:
        """Yield the name of a file and a batch of its rows; roles are columns ``id text label``.

        Raises:
            InputError: a file can't be read, or is not what it should be.
        """
        self._check()
        formats = [_format_of(file) if self.format == "auto" else self.format for file in files]
        if set(formats) == {"folder"}:
            yield from self._folder(files)
            return
        if "folder" in formats:
            raise InputError(
                "Expected files of one kind in load.source, found .txt files among others: "
                "point it at one kind, as in '*.csv'."
            )
        for file, kind in zip(files, formats, strict=True):
            rows = 0
            for batch in self._batches(kind, file):
                rows += len(batch.lines)
                yield file.name, batch
            if not rows:
                raise InputError(f"Expected rows in {file.name}, found none: add labelled texts.")

    def _check(self) -> None:
        if not self.encodings:
            raise InputError("load.encoding is []: expected one at least, such as [utf-8].")
        for encoding in self.encodings:
            try:
                "".encode(encoding)
            except LookupError:  # unknown, or not an encoding of text
                raise InputError(
                    f"load.encoding has {encoding!r}: expected a name that Python knows, "
                    "such as utf-8, cp1252 or utf-16."
                ) from None
        named = [name for name in (self.text, self.label, self.ids) if name]
        if len(set(named)) < len(named):
            raise InputError(
                f"load.text_column, label_column and id_column are {named}: expected a column of "
                "its own for each; correct one of them."
            )
        if len(self.delimiter.encode()) != 1:
            raise InputError(
                f"load.delimiter is {self.delimiter!r}: expected one ASCII character, such as ','."
            )
        if len(self.quote.encode()) > 1:
            raise InputError(
                f"load.quote is {self.quote!r}: expected one ASCII character, or '' for none."
            )

    def _batches(self, kind: str, file: File) -> Iterator[Batch]:
        if not file.path.stat().st_size:
            raise InputError(
                f"Expected labelled texts in {file.name}, found an empty file (0 bytes): "
                "bring it anew, or correct load.source."
            )
        with file.open() as stream:
            if kind == "parquet":
                yield from self._parquet(stream, file)
                return
            encoding = self.encodings[0]
            _refuse_other_kinds(stream, kind, encoding, file)
            name = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
            try:
                # Line ends stay as they are, for some stand inside of texts.
                text = io.TextIOWrapper(stream, name, newline="")
                if kind == "json":
                    yield from self._records(_json_list(text, file), file)
                elif kind == "jsonl":
                    yield from self._records(_json_lines(text, file), file)
                else:
                    yield from self._delimited(
                        text, "\t" if kind == "tsv" else self.delimiter, file
                    )
            except UnicodeError:  # not only what can't be decoded, also utf-16 without its mark
                _refuse_encoding(file, [encoding])

    def _roles(self, found: Sequence[str], file: File) -> dict[str, str]:
        """The column of each role in this file: as named, or else the one that is nearly so."""
        roles = {}
        wanted = {"text": self.text, "label": self.label}
        if self.ids or "id" in found:
            wanted["id"] = self.ids or "id"
        for role, column in wanted.items():
            alike = [name for name in found if examples.fold(name) == examples.fold(column)]
            if column not in found and len(alike) == 1:
                log.warning("%s: column %r is taken for %r", file.name, alike[0], column)
                roles[role] = alike[0]
            elif column in found:
                roles[role] = column
            else:
                self._refuse_column(role, column, found, file)
        return roles

    def _refuse_column(self, role: str, column: str, found: Sequence[str], file: File) -> None:
        if len(found) == 1:
            others = {"tab" if d == "\t" else repr(d): found[0].count(d) for d in ",;\t|"}
            seen = max(others, key=others.__getitem__)
            if others[seen]:
                raise InputError(
                    f"Expected column {column!r} in {file.name}, found one column only, "
                    f"{found[0]!r}, with {seen} in it {others[seen]} times: set load.delimiter "
                    f"to it{', or load.format to tsv' if seen == 'tab' else ''}."
                )
        raise InputError(
            f"Expected column {column!r} in {file.name}, found {', '.join(map(repr, found))}"
            f"{closest(column, found)}: set load.{role}_column to the right one."
        )

    def _named(
        self, columns: dict[str, list[str | None]], roles: dict[str, str], rows: int
    ) -> dict[str, Any]:
        """Columns ``id text label`` by their roles, and the others, none of them under these."""
        named = {role: columns.get(column, [None] * rows) for role, column in roles.items()}
        for column, values in columns.items():
            if column not in roles.values():
                free = column
                while free in examples.COLUMNS or (free != column and free in columns):
                    free = f"source_{free}"
                named[free] = values
        return named

    def _folder(self, files: Sequence[File]) -> Iterator[tuple[str, Batch]]:
        """Texts from ``<label>/<id>.txt``; the id is ``<label>/<id>``."""
        paths = [PurePosixPath(file.name) for file in files]
        root, _ = Counter(path.parent.parent for path in paths).most_common(1)[0]
        for path in paths:
            if path.parent.parent != root:
                raise InputError(
                    f"Expected texts as <label>/<id>.txt in one folder, found {path} outside "
                    "it: move the file, or point load.source at the folder of the labels."
                )
        rows: list[tuple[str, str, str, str]] = []
        size = 0
        for file, path in zip(files, paths, strict=True):
            with file.open() as stream:
                _refuse_other_kinds(stream, "txt", self.encodings[0], file)
                text = _decode(stream.read(), file, self.encodings)
            name = f"{path.parent.name}/{path.name.removesuffix('.txt')}"
            rows.append((name, text, path.parent.name, file.name))
            size += len(text)
            if len(rows) == ROWS or size > CHARACTERS or file is files[-1]:
                ids, texts, labels, names = map(list, zip(*rows, strict=True))
                columns: dict[str, Any] = {"id": ids, "text": texts, "label": labels}
                yield f"{root}/", Batch(columns, [1] * len(rows), [""] * len(rows), names)
                rows, size = [], 0

    def _delimited(self, text: io.TextIOWrapper, delimiter: str, file: File) -> Iterator[Batch]:
        csv.field_size_limit(FIELD)
        if self.quote:
            reader = csv.reader(text, delimiter=delimiter, quotechar=self.quote, strict=True)
        else:
            reader = csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        records = self._numbered(reader, delimiter, file)
        header = list(self.columns) or next((record for _, record in records), [])
        self._check_header(header, file)
        roles = self._roles(header, file)
        rows: list[list[str]] = []
        lines: list[int] = []
        reasons: list[str] = []
        size = spanning = 0

        def batch() -> Batch:
            columns = map(list, zip(*rows, strict=True))
            values: dict[str, Any] = dict(zip(header, columns, strict=True))
            return Batch(self._named(values, roles, len(rows)), list(lines), list(reasons))

        merged = delimiter == "\t" and bool(self.quote)
        width = len(header)
        last = 0
        for line, record in records:
            reason = ""
            if len(record) != width:
                reason = f"expected {width} fields, found {len(record)}"
                whole = delimiter.join(record)
                record = [whole if name == roles["text"] else "" for name in header]
            elif reader.line_num > line:
                spanning += 1
                if merged and (field := next((f for f in record if "\t" in f), None)):
                    # A tab and a line end in one field are two stray quotes and rows between them.
                    raise InputError(
                        f"Expected one row a line in {file.name}, line {line}, found several "
                        f"inside {self.quote}: {field[:60]!r}; make load.quote '' if quotes mean "
                        "nothing there."
                    )
            rows.append(record)
            lines.append(line)
            reasons.append(reason)
            size += sum(map(len, record))
            last = line
            if len(rows) == ROWS or size > CHARACTERS:
                yield batch()
                rows, lines, reasons, size = [], [], [], 0
        if rows:
            yield batch()
        if not last:
            raise InputError(
                f"Expected rows in {file.name}, found only its header: add labelled texts."
            )
        if spanning:
            log.info("%s: %d quoted rows span several lines", file.name, spanning)

    def _numbered(self, reader: Any, delimiter: str, file: File) -> Iterator[tuple[int, list[str]]]:
        """The physical line on which each record starts, and its fields; blank lines are none."""
        start = 1
        try:
            for record in reader:
                if record:
                    yield start, record
                start = reader.line_num + 1
        except csv.Error as error:
            found = str(error)
            if "end of data" in found or "field larger" in found:
                opened = self._opening(file, start)
                if "field larger" in found and not opened:
                    raise InputError(
                        f"Expected at most {FIELD} characters in a field of {file.name}, found "
                        f"more on line {start}: shorten it, or split the text into several."
                    ) from None
                start = opened or start
                found = "a quote that opens there and is never closed"
            raise InputError(
                f"Expected well-formed quotes in {file.name}, line {start}, found: {found}; double "
                "a quote inside a quoted text, or make load.quote '' if quotes mean nothing there."
            ) from None

    def _opening(self, file: File, start: int) -> int:
        """The line of the last quote that opens a field from line ``start`` on, 0 for none."""
        opened, inside = 0, False
        with file.open() as stream:
            text = io.TextIOWrapper(stream, self.encodings[0], newline="")
            for number, line in enumerate(text, 1):
                if number >= start and line.count(self.quote) % 2:
                    inside = not inside
                    opened = number if inside else opened
        return opened if inside else 0

    def _check_header(self, header: Sequence[str], file: File) -> None:
        if not header:
            raise InputError(
                f"Expected a header in {file.name}, found blank lines: add labelled texts."
            )
        doubled = sorted({column for column in header if header.count(column) > 1})
        if doubled:
            places = [str(k) for k, name in enumerate(header, 1) if name == doubled[0]]
            raise InputError(
                f"Expected columns of different names in {file.name}, found {doubled[0]!r} "
                f"in places {' and '.join(places)}: rename one of them."
            )
        for other, columns in self._headers.items():
            if set(columns) != set(header):
                odd = min(set(columns) ^ set(header))
                has, lacks = (other, file.name) if odd in columns else (file.name, other)
                raise InputError(
                    f"Expected the same columns in every file, found {odd!r} in {has} but not in "
                    f"{lacks}: rename or remove it."
                )
        self._headers[file.name] = list(header)

    def _records(self, records: Iterator[tuple[int, Any]], file: File) -> Iterator[Batch]:
        rows: list[dict[str, Any]] = []
        lines: list[int] = []
        roles: dict[str, str] = {}
        keys: dict[str, None] = {}
        size = 0
        for line, record in records:
            if not isinstance(record, dict):
                raise InputError(
                    f"Expected an object such as {{{self.text!r}: ..., {self.label!r}: ...}} in "
                    f"{file.name}, line {line}, found {record!r:.60}: mend the line."
                )
            rows.append(record)
            lines.append(line)
            keys |= dict.fromkeys(record)
            size += sum(len(value) for value in record.values() if isinstance(value, str))
            if len(rows) == ROWS or size > CHARACTERS:
                roles = roles or self._roles(list(dict.fromkeys(itertools.chain(*rows))), file)
                yield self._of_records(rows, lines, roles, file)
                rows, lines, size = [], [], 0
        if rows:
            roles = roles or self._roles(list(dict.fromkeys(itertools.chain(*rows))), file)
            yield self._of_records(rows, lines, roles, file)
        for other, found in self._headers.items():
            if odd := sorted(set(found) ^ set(keys)):
                log.warning(
                    "%s and %s do not have the same keys: %s", other, file.name, ", ".join(odd)
                )
        self._headers[file.name] = list(keys)

    def _of_records(
        self, rows: list[dict[str, Any]], lines: list[int], roles: dict[str, str], file: File
    ) -> Batch:
        columns = list(dict.fromkeys(itertools.chain(*rows)))
        if len(columns) > COLUMNS:
            raise InputError(
                f"Expected at most {COLUMNS} different keys in {file.name}, found {len(columns)} "
                f"up to line {lines[-1]}: give every row the same keys."
            )
        for role in ("text", "label"):
            for line, row in zip(lines, rows, strict=True):
                if isinstance(row.get(roles[role]), list | dict):
                    raise InputError(
                        f"Expected text in {roles[role]!r} of {file.name}, line {line}, found a "
                        f"{type(row[roles[role]]).__name__}: give each row one value."
                    )
        values = {name: [_as_text(row.get(name)) for row in rows] for name in columns}
        reasons = [""] * len(rows)
        for name, column in values.items():
            for k, value in enumerate(column):
                if value is not None and not _encodes(value):
                    reasons[k] = f"half of a surrogate pair in {name!r}"
                    column[k] = value.encode("utf-8", "backslashreplace").decode()
        for name in [name for name in values if not _encodes(name)]:
            values[name.encode("utf-8", "backslashreplace").decode()] = values.pop(name)
        return Batch(self._named(values, roles, len(rows)), lines, reasons)

    def _parquet(self, stream: Any, file: File) -> Iterator[Batch]:
        row = 0
        try:
            table = pq.ParquetFile(stream)
            schema = table.schema_arrow
            self._check_header(schema.names, file)
            roles = self._roles(schema.names, file)
            left_out: set[str] = set()
            for part in table.iter_batches(ROWS):
                columns = {}
                for name, column in zip(schema.names, part.columns, strict=True):
                    if pa.types.is_floating(column.type):  # pandas writes what is absent as NaN
                        column = pc.if_else(pc.is_nan(column), None, column)
                    try:
                        columns[name] = column.cast(pa.string()).to_pylist()
                    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                        if name in roles.values():
                            raise InputError(
                                f"Expected text in column {name!r} of {file.name}, found "
                                f"{column.type}: {error}; save it as strings."
                            ) from error
                        left_out.add(name)
                lines = list(range(row + 1, row + len(part) + 1))
                row += len(part)
                yield Batch(self._named(columns, roles, len(part)), lines, [""] * len(part))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
            raise InputError(
                f"Expected a parquet file in {file.name}: {error}; bring it anew."
            ) from error
        if left_out:
            log.warning(
                "%s: columns that are not text are left out: %s", file.name, sorted(left_out)
            )


def _format_of(file: File) -> Format:
    suffixes = PurePosixPath(file.name).suffixes
    suffix = suffixes[-2] if file.compression and len(suffixes) > 1 else (suffixes or [""])[-1]
    if suffix.lower() not in ENDINGS:
        raise InputError(
            f"Expected a file ending in {', '.join(ENDINGS)}, found {file.name}: "
            "set load.format to what it is."
        )
    return ENDINGS[suffix.lower()]


def _refuse_other_kinds(stream: io.BufferedReader, kind: str, encoding: str, file: File) -> None:
    """Stop if a file of text begins with what is none, or is of another encoding."""
    if not (start := stream.peek(64)):
        raise InputError(
            f"Expected labelled texts in {file.name}, found 0 bytes once decompressed: bring it "
            "anew, or correct load.source."
        )
    file.refuse_other_kinds(start, f"a {kind} file")
    for mark, name in MARKS.items():
        if start.startswith(mark):
            if not codecs.lookup(encoding).name.startswith(name):
                raise InputError(
                    f"Expected {encoding} in {file.name}, found the byte-order mark of {name}: "
                    f"make load.encoding [{name}]."
                )
            return


def _decode(data: bytes, file: File, encodings: Sequence[str]) -> str:
    """The text of a file, by the first of the encodings that all of it fits."""
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeError:
            continue
        if encoding != encodings[0]:
            log.warning("%s is not %s, read as %s", file.name, encodings[0], encoding)
        return text.removeprefix("\ufeff")
    return _refuse_encoding(file, encodings)


def _refuse_encoding(file: File, encodings: Sequence[str]) -> NoReturn:
    """Name the line and the offset of the first byte that does not fit the first encoding."""
    decoder = codecs.getincrementaldecoder(encodings[0])()
    offset = lines = 0
    with file.open() as stream:
        while chunk := stream.read(SAMPLE):
            pending = decoder.getstate()[0]
            try:
                lines += decoder.decode(chunk).count("\n")
            except UnicodeError as error:
                whole = pending + chunk
                start = getattr(error, "start", 0)
                line = lines + whole.count(b"\n", 0, start) + 1
                around = whole[start:] + stream.read(SAMPLE)
                raise InputError(
                    f"Expected {' or '.join(encodings)} in {file.name}, found byte "
                    f"0x{whole[start]:02x} on line {line}, at offset "
                    f"{offset - len(pending) + start}"
                    f"{_likely(whole[:start], around, encodings[0])}"
                ) from None
            offset += len(chunk)
        raise InputError(
            f"Expected {' or '.join(encodings)} in {file.name}, found that it ends inside of a "
            "character: bring it anew."
        )


def _likely(before: bytes, wrong: bytes, encoding: str) -> str:
    """The end of a sentence about bytes that are not of an encoding: what they may be of."""
    tail = before.rsplit(b"\n")[-1][-EXCERPT:]
    excerpt = tail + wrong[:EXCERPT].split(b"\n")[0]
    guesses = [WESTERN] if len(wrong) + len(before) < GUESSED else []
    guesses = guesses or [guess.encoding for guess in from_bytes(before[-SAMPLE:] + wrong)]
    if WESTERN in guesses or "latin_1" in guesses:  # which read most bytes alike
        guesses = [WESTERN, *guesses]
    shown = ""
    for guess in guesses[:1]:
        shown = f", which {guess} reads as {excerpt.decode(guess, 'replace')!r}"
    # Bytes that are not ASCII and still of the encoding show that the rest of the file is.
    rest = (before + wrong).decode(encoding, "ignore")
    valid = sum(not character.isascii() for character in rest)
    invalid = (before + wrong).decode(encoding, "replace").count("\ufffd")
    if codecs.lookup(encoding).name == "utf-8" and valid > invalid:
        return (
            f"{shown}, while other places are {encoding}: mend these places and save the file as "
            f"{encoding}."
        )
    return f"{shown}: put the right encoding first in load.encoding."


def _encodes(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _NotStrictError(ValueError):
    """What JSON does not allow, or allows and no two readers agree on."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _NotStrictError(f"key {max(keys, key=keys.count)!r} twice in one object")
    return found


def _constant(word: str) -> Any:
    raise _NotStrictError(f"{word}, which is no JSON (null is)")


# Numbers keep the form that they are written in.
DECODER = json.JSONDecoder(
    parse_int=str, parse_float=str, parse_constant=_constant, object_pairs_hook=_object
)


def _refuse_json(error: Exception, file: File, line: int) -> NoReturn:
    """One sentence about a JSON value that starts on ``line``."""
    if isinstance(error, RecursionError):
        raise InputError(
            f"Expected one object a row in {file.name}, line {line}, found values nested too "
            "deep: correct the file."
        ) from None
    if isinstance(error, json.JSONDecodeError):
        raise InputError(
            f"Expected JSON in {file.name}, line {line + error.lineno - 1}, column "
            f"{error.colno}: {error.msg}; mend the line."
        ) from None
    raise InputError(
        f"Expected JSON in {file.name}, line {line}, found {error}; mend the line."
    ) from None


def _json_lines(text: io.TextIOWrapper, file: File) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text, 1):
        if line.strip():
            try:
                yield number, DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                _refuse_json(error, file, number)


class _Json:
    """The JSON values of a stream, with no more of it in memory than one value takes."""

    def __init__(self, text: io.TextIOWrapper, file: File) -> None:
        self._text = text
        self._file = file
        self._buffer = ""
        self.line = 1

    def next(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            self._advance(len(self._buffer) - len(self._buffer.lstrip()))
            if self._buffer or not self._more(SAMPLE):
                return self._buffer[:1]

    def take(self) -> None:
        """Leave the next character behind."""
        self._advance(1)

    def value(self) -> Any:
        """Parse the value that begins here."""
        step = SAMPLE
        while True:
            end, failure = 0, None
            try:
                value, end = DECODER.raw_decode(self._buffer)
            except json.JSONDecodeError as error:
                failure = error
            except (ValueError, RecursionError) as error:
                _refuse_json(error, self._file, self.line)
            # A value that ends with the buffer may go on after it, as a number does.
            if failure is None and end < len(self._buffer):
                break
            if len(self._buffer) > FIELD or not self._more(step):
                if failure:
                    _refuse_json(failure, self._file, self.line)
                break
            step *= 2
        self._advance(end)
        return value

    def _more(self, characters: int) -> bool:
        more = self._text.read(characters)
        self._buffer += more
        return bool(more)

    def _advance(self, end: int) -> None:
        self.line += self._buffer.count("\n", 0, end)
        self._buffer = self._buffer[end:]


def _json_list(text: io.TextIOWrapper, file: File) -> Iterator[tuple[int, Any]]:
    """The items of a list, and the line that each begins on."""
    values = _Json(text, file)
    if (first := values.next()) != "[":
        found = "an object" if first == "{" else repr(first)
        raise InputError(
            f"Expected a list of objects in {file.name}, found {found}: "
            "set load.format to jsonl if it has one object a line."
        )
    values.take()
    following = values.next()
    while following != "]":
        values.next()
        line = values.line
        yield line, values.value()
        if (following := values.next()) not in ("]", ","):
            raise InputError(
                f"Expected ',' or ']' after an item in {file.name}, line {values.line}, found "
                f"{repr(following) if following else 'the end of the file'}; mend the line."
            )
        if following == ",":
            values.take()
    values.take()
    if after := values.next():
        raise InputError(
            f"Expected one list in {file.name}, found {after!r} after it on line {values.line}: "
            "join the lists."
        )


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
