"""Tables of texts that are scored a batch at a time: CSV, TSV, JSON lines and parquet.

This is what prediction makes of the readers of each format: a row that can't be scored is told
apart, with its line and the reason, the rows after it are read on, and values keep their types.
"""

import codecs
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import pyarrow as pa

from src.core.errors import InputError
from src.predict.formats import Dialect, Format
from src.predict.judging import judged
from src.predict.plain import Text, plain_batches
from src.predict.scoring import Batch, Input, Reading, Values
from src.tables.delimited import Record, Records, width_reason
from src.tables.encodings import mark_of, text_of, why_not_text
from src.tables.json_rows import TYPED, Item, as_text, json_lines
from src.tables.lines import Broken, Lines
from src.tables.parquet_rows import Rows, strings
from src.tables.places import Place

CHARACTERS = 1 << 22  # of a batch, beyond which it is handed on
FIELD = 1 << 24  # characters of one field or line; what is longer is no text


@contextmanager
def reading(
    place: Place,
    format: Format,
    dialect: Dialect,
    wanted: Reading,
    batch_rows: int,
    verbatim: bool,
    added: Collection[str],
) -> Iterator[Input]:
    """Open a table to be read.

    Args:
        place: where it is.
        format: what it is.
        dialect: its form, where it is text.
        wanted: what is scored of rows; a row that has none of it is rejected.
        batch_rows: the rows of each batch but the last; fewer where they are very long.
        verbatim: JSON lines are handed on as they are.
        added: the names of the columns to come, which none of the table's may have.

    Raises:
        InputError: it can't be read, has no such column, or one of those to come.
    """
    try:
        with place.open(seek=format == "parquet") as stream:
            if format == "parquet":
                found = _parquet(Rows(stream, place), place, wanted, batch_rows)
            else:
                start = stream.peek(64)
                place.refuse_other_kinds(start, f"a {format} file")
                encoding = dialect.encoding
                mark = mark_of(start)
                if mark and not codecs.lookup(encoding).name.startswith(mark):
                    raise InputError(
                        f"{place} has the byte-order mark of {mark}, not of {encoding}: pass "
                        f"--encoding {mark}."
                    )
                text = Text(text_of(stream, encoding, "surrogateescape"), FIELD)
                lines = Lines(text, FIELD)  # type: ignore[arg-type]
                if format == "jsonl":
                    found = _json_lines(lines, place, wanted, batch_rows, verbatim, added)
                else:
                    found = _delimited(text, lines, format, dialect, place, wanted, batch_rows)
                found.share = stream.share
            if taken := [name for name in added if name in found.columns]:
                raise InputError(
                    f"{place} has a column {taken[0]!r}, as the predictions have: set --prefix, "
                    "for example to 'predicted_'."
                )
            yield found
    # Of an encoding whose characters have several bytes, also while rows are read on.
    except UnicodeError as error:
        raise InputError(
            f"{place} is not {dialect.encoding} ({error}): pass the right --encoding."
        ) from None


def _refuse_columns(
    wanted: Reading, found: Sequence[str], place: Place, types: pa.Schema | None = None
) -> None:
    """Stop if a column that is scored is not there, or two columns have one name."""
    try:
        wanted.refuse_columns(found, place, types)
    except InputError:
        if len(found) == 1 and (marks := [mark for mark in ",;\t|" if mark in found[0]]):
            raise InputError(
                f"{place} has one column, {found[0]!r}, by its format: pass --delimiter "
                f"{marks[0]!r}, or --format tsv for tabs."
            ) from None
        raise
    if doubled := sorted({name for name in found if found.count(name) > 1}):
        raise InputError(
            f"{place} has {found.count(doubled[0])} columns {doubled[0]!r}: rename all but one of "
            "them."
        )


def _collected(
    records: Iterable[tuple[Any | Broken, int]], batch_rows: int
) -> Iterator[tuple[list[Any], list[Broken], int]]:
    """Yield batches of rows, the broken ones between them, and how many both are.

    The second of each record is its size.
    """
    rows: list[Any] = []
    rejected: list[Broken] = []
    total = read = 0
    for record, size in records:
        read += 1
        if isinstance(record, Broken):
            rejected.append(record)
        else:
            rows.append(record)
            total += size
        if len(rows) == batch_rows or len(rejected) == batch_rows or total > CHARACTERS:
            yield rows, rejected, read
            rows, rejected, total, read = [], [], 0, 0
    if read:
        yield rows, rejected, read


def _merged(some: list[Broken], others: list[Broken]) -> list[Broken]:
    return sorted([*some, *others], key=lambda one: one.line)


def _delimited(
    text: Text,
    lines: Lines,
    format: Format,
    dialect: Dialect,
    place: Place,
    wanted: Reading,
    batch_rows: int,
) -> Input:
    delimiter = "\t" if format == "tsv" else dialect.delimiter
    records = Records(lines, delimiter, dialect.quote)
    first = next(records, None)
    if first is None:
        raise InputError(f"{place} has no header: name the columns in the first line.")
    header = [] if isinstance(first, Broken) else first.fields
    if header:  # which utf-16-le leaves there, in contrast to utf-16
        header[0] = header[0].removeprefix("\ufeff")
    if header and (mark := re.fullmatch("sep=(.?)", dialect.delimiter.join(header))):
        raise InputError(
            f"{place} begins with {mark[0]!r}, which only Excel understands: take this line out, "
            f"and pass --delimiter {mark[1]!r} if that is no comma."
        )
    broken = first.reason if isinstance(first, Broken) else ""
    reason = broken or why_not_text("".join(header), dialect.encoding)
    if reason:
        raise InputError(f"{place} has a broken header, {reason}: correct the first line.")
    _refuse_columns(wanted, header, place)
    width = len(header)
    schema = pa.schema([(name, pa.string()) for name in header])

    def checked(record: Record | Broken) -> tuple[Record | Broken, int]:
        if isinstance(record, Broken):
            return record, 0
        start, fields, source = record
        if (
            format == "tsv"
            and len(source) > 1
            and all(line.count("\t") == width - 1 for line in source)
        ):
            # Each line would be a row: the quotes are stray ones, of two rows.
            return records.give_up("a quote that opens here takes in further rows"), 0
        if reason := (
            width_reason(fields, width) or why_not_text("".join(fields), dialect.encoding)
        ):
            return Broken.of(start, reason, "".join(source)), 0
        return record, sum(map(len, fields))

    def batches() -> Iterator[Batch]:
        if wanted.columnar and not isinstance(first, Broken):
            yield from plain_batches(
                text, lines, header, delimiter, dialect.quote, wanted, batch_rows
            )
        for rows, rejected, read in _collected(map(checked, records), batch_rows):
            columns = list(zip(*(row.fields for row in rows), strict=True)) or [()] * width
            table = pa.table([pa.array(c, pa.string()) for c in columns], schema=schema)
            inputs, good, odd = judged(
                wanted,
                dict(zip(header, columns, strict=True)),
                len(rows),
                partial(_place, rows),
            )
            table = table.filter(pa.array(good)) if odd else table
            starts = [row.line for row in itertools.compress(rows, good)]
            yield Batch(inputs, len(table), table, _merged(rejected, odd), read, starts)

    return Input(header, schema, batches(), None, lambda: None)


def _json_lines(
    lines: Lines,
    place: Place,
    wanted: Reading,
    batch_rows: int,
    verbatim: bool,
    added: Collection[str],
) -> Input:
    items = json_lines(lines, TYPED)
    sized = ((one, len(one.source) if isinstance(one, Item) else 0) for one in items)
    collected = _collected(sized, batch_rows)
    first = next(collected, ([], [], 0))
    columns = list(dict.fromkeys(itertools.chain(*(item.value for item in first[0]))))
    if first[0]:
        _refuse_columns(wanted, columns, place)
    settled = bool(first[0])
    columns = columns or [*wanted.columns]
    # A column has one type for all rows, and what comes is not known: text holds everything.
    schema = None if verbatim else pa.schema([(name, pa.string()) for name in columns])
    known = set(columns)

    def why_not(row: dict[str, Any]) -> str:
        if verbatim:
            if taken := [name for name in added if name in row]:
                return f"a key {taken[0]!r}, as the predictions have: set --prefix"
            return ""
        if odd := sorted(row.keys() - known):
            return f"a key {odd[0]!r} that the first {batch_rows} rows do not have"
        return next(filter(None, (why_not_text(v) for v in row.values() if isinstance(v, str))), "")

    def batches() -> Iterator[Batch]:
        nonlocal settled
        for found, rejected, read in itertools.chain([first], collected):
            if found and not settled:  # no row before could be read
                _refuse_columns(wanted, [*dict.fromkeys(k for i in found for k in i.value)], place)
                settled = True
            good = []
            for item in found:
                if reason := why_not(item.value):
                    rejected.append(Broken.of(item.line, reason, item.source))
                else:
                    good.append(item)
            inputs, keep, odd = judged(
                wanted,
                {name: [item.value.get(name) for item in good] for name in wanted.columns},
                len(good),
                partial(_place, good),
            )
            rejected = _merged(rejected, odd)
            good = list(itertools.compress(good, keep))
            starts = [item.line for item in good]
            if schema is None:
                sources = [item.source for item in good]
                yield Batch(inputs, len(good), sources, rejected, read, starts)
                continue
            values = [[as_text(item.value.get(name)) for item in good] for name in columns]
            table = pa.table([pa.array(v, pa.string()) for v in values], schema=schema)
            yield Batch(inputs, len(good), table, rejected, read, starts)

    return Input(columns, schema, batches(), None, lambda: None)


def _parquet(table: Rows, place: Place, wanted: Reading, batch_rows: int) -> Input:
    schema = table.schema
    _refuse_columns(wanted, schema.names, place, schema)
    position = 0

    def batches() -> Iterator[Batch]:
        nonlocal position
        for part in table.batches(batch_rows):
            columns = {
                name: table.texts(name, column, wanted=True) if name in table.classes else column
                for name, column in zip(schema.names, part.columns, strict=True)
            }
            inputs, good, rejected = judged(
                wanted, columns, len(part), partial(_shown, wanted, columns, position + 1)
            )
            numbers = range(position + 1, position + 1 + len(part))
            position += len(part)
            whole = pa.Table.from_batches([part])
            kept = whole.filter(pa.array(good)) if rejected else whole
            starts = [*itertools.compress(numbers, good)]
            yield Batch(inputs, len(kept), kept, rejected, part.num_rows, starts)

    count = table.count
    return Input(
        schema.names, schema, batches(), count, lambda: position / count if count else None
    )


def _place(rows: Sequence[Record] | Sequence[Item], row: int) -> tuple[int, str]:
    """Return the line of a row, and the row as it stands there."""
    return rows[row].line, "".join(rows[row].source)


def _shown(wanted: Reading, columns: Mapping[str, Values], first: int, row: int) -> tuple[int, str]:
    """Return the number of a row of parquet, from ``first`` on, and what it can be known by."""
    if not wanted.shown:
        return first + row, ""
    (text,) = strings(columns[wanted.shown][row : row + 1])
    return first + row, text or ""
