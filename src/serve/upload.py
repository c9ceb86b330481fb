"""``/score``: a CSV file comes back with a label and a score in each row."""

import asyncio
import codecs
import csv
import io
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from src.predict.classifier import Answer, RecordAnswer
from src.serve.connections import PIECE
from src.serve.errors import Problem, invalid, too_large
from src.serve.models import Loaded, ReaderModel, TableModel, TextModel
from src.serve.openapi import Route
from src.serve.request import NAME, Limits, ModelName, body_of, hint, sentence, while_wanted
from src.serve.service import Service, other_kind
from src.tables.delimited import Records
from src.tables.lines import Broken, Lines

SLICE = 16  # texts of a file that are scored between those of other clients
UPLOADS = 2  # files at once
COLUMNS = 1000  # of a file
MARKS = 400_000  # commas and line ends of a file: a field in memory takes 20 times its bytes
LINE = 2**20  # characters of a line, and of a field
NAMED = 10  # columns that an error lists

Row = tuple[int, list[str]]


class Score(Struct, forbid_unknown_fields=True):
    """The query of ``/score``."""

    model: ModelName | UnsetType = UNSET
    text_column: str = "text"
    prefix: str = ""


@dataclass(frozen=True)
class Table:
    """A CSV file that was sent, which rows of it can be scored, and what of them is scored.

    Its rows are read anew for the answer: as Python's lists they take many times its bytes.
    """

    content: bytes
    given: list[bool]
    items: list[Any]

    def answer(
        self, answers: Iterable[Answer | RecordAnswer], fields: Sequence[str], prefix: str
    ) -> Iterator[bytes]:
        """Write the table with ``fields`` as further columns.

        These are empty in rows that can't be scored. It comes in pieces, so that it is never in
        memory beside the file.
        """
        piece = io.StringIO(newline="")
        writer = csv.writer(piece)
        rows = _rows(self.content)
        writer.writerow([*next(rows)[1], *_added(fields, prefix)])
        values = iter(answers)
        for (_, row), given in zip(rows, self.given, strict=True):
            found = next(values) if given else None
            # No text and no label are both None, which is written as nothing.
            writer.writerow([*row, *(getattr(found, name, None) for name in fields)])
            if piece.tell() >= PIECE:
                yield piece.getvalue().encode()
                piece.seek(0)
                piece.truncate()
        yield piece.getvalue().encode()


async def score(service: Service, request: Request) -> Response:
    """Score a file."""
    until = time.monotonic() + service.upload_deadline
    _check_uploads(service)  # before much is sent in vain
    content = await body_of(request, service.limits.max_upload, until, ("text/csv",))
    _check_uploads(service)  # who sends slowly keeps no others out
    service.uploads += 1
    try:
        return await _score(service, request, content, until)
    finally:
        service.uploads -= 1


def _check_uploads(service: Service) -> None:
    if service.uploads >= UPLOADS:
        message = f"{UPLOADS} files are being scored: try again in 5 s."
        raise Problem(429, "Overloaded", message, Retry_After="5")


async def _score(service: Service, request: Request, content: bytes, until: float) -> Response:
    try:
        asked = msgspec.convert(dict(request.query_params), Score)
    except msgspec.ValidationError as error:
        invalid(sentence(error, Score))
    model = service.model(None if asked.model is UNSET else asked.model)
    if isinstance(model, ReaderModel):
        raise other_kind(model, "a model of texts or tables")
    fields = model.scorer.fields
    reading = _read(service, content, model, asked.text_column, _added(fields, asked.prefix))
    table = await while_wanted(request, reading, until)
    answers, cut = await while_wanted(request, _in_slices(service, model, table, until), until)
    return StreamingResponse(
        table.answer(answers, fields, asked.prefix),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": 'attachment; filename="scored.csv"',
            "X-Truncated-Rows": str(cut),
            "X-Unscored-Rows": str(len(table.given) - len(table.items)),
        },
    )


def _added(fields: Sequence[str], prefix: str) -> list[str]:
    """Name the columns that a file gets."""
    return [f"{prefix}{name}" for name in fields]


async def _read(
    service: Service, content: bytes, model: Loaded, column: str, added: Sequence[str]
) -> Table:
    async with service.reading:
        if isinstance(model, TableModel):
            work = asyncio.to_thread(read_records, content, model, added, service.limits)
        else:
            work = asyncio.to_thread(read_table, content, column, added, service.limits)
        reading = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            # A thread can't be stopped, and holds its memory.
            await asyncio.gather(reading, return_exceptions=True)
            raise


async def _in_slices(
    service: Service, model: Loaded, table: Table, until: float
) -> tuple[list[Any], int]:
    """Score a file between the requests of other clients, and wait while those are too many.

    Returns:
        The answers, and of how many texts only the start was read.
    """
    answers: list[Any] = []
    cut = 0
    for start in range(0, len(table.items), SLICE):
        part = table.items[start : start + SLICE]
        while True:
            try:
                if isinstance(model, TableModel):
                    answers += (await service.decided(model, part, until))[1]
                    break
                found = await service.scored(cast("TextModel", model), part, until)
                answers += found.answers
                cut += sum(found.cut)
                break
            except Problem as problem:
                if problem.status != 429:
                    raise
                await asyncio.sleep(0.2)
    return answers, cut


def read_table(content: bytes, column: str, added: Sequence[str], limits: Limits) -> Table:
    """Read a CSV file with a header, in UTF-8, of at most ``COLUMNS`` columns.

    Raises:
        Problem: it is not one, has too many rows, or names that the answer needs.
    """
    header, rows = _opened(content, added)
    if column not in header:
        shown = ", ".join(repr(name[:NAME]) for name in header[:NAMED])
        likely = hint(column, header)
        invalid(f"text_column must be one of the file's columns, {shown}{likely}.")
    index = header.index(column)
    texts = [row[index] for row in _checked(rows, len(header), limits.max_rows)]
    given = [bool(text.strip()) for text in texts]
    for number, one in enumerate(texts, 1):
        if len(one) > limits.max_characters:
            too_large(
                f"Row {number} has a text of {len(one)} characters: send at most "
                f"{limits.max_characters}."
            )
    return Table(content, given, list(compress(texts, given)))


def read_records(content: bytes, model: TableModel, added: Sequence[str], limits: Limits) -> Table:
    """Read a CSV file with the columns that a model of tables reads; it raises as ``read_table``.

    A row with a value that can't be read gets no label.
    """
    header, rows = _opened(content, added)
    names = model.records.columns
    if lacking := [name for name in names if name not in header]:
        likely = hint(lacking[0], header)
        invalid(f"The file has no column {lacking[0][:NAME]!r}{likely}, which the model reads.")
    places = [header.index(name) for name in names]
    found = [[row[k] for k in places] for row in _checked(rows, len(header), limits.max_rows)]
    columns = zip(names, zip(*found, strict=True), strict=True) if found else ()
    features, reasons = model.records.take(dict(columns), len(found))
    return Table(content, [not reason for reason in reasons], model.scorer.items(features))


def _opened(content: bytes, added: Sequence[str]) -> tuple[list[str], Iterator[Row]]:
    """Return the header of a file, and its rows."""
    if content.count(b",") + content.count(b"\n") > MARKS:
        too_large(f"The file has more than {MARKS} commas and line ends: send it in parts.")
    _check_utf8(content)
    rows = _rows(content)
    _, header = next(rows, (1, []))
    _check_header(header, added)
    return header, rows


def _check_utf8(content: bytes) -> None:
    """Refuse other bytes, in parts, since a file that is one text may take four times as much."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(content), LINE):
        waiting = len(decoder.getstate()[0])
        try:
            decoder.decode(content[start : start + LINE], start + LINE >= len(content))
        except UnicodeDecodeError as error:
            place = start - waiting + error.start
            invalid(f"Byte {place} of the file is not UTF-8: save the file in UTF-8.")


def _check_header(header: list[str], added: Sequence[str]) -> None:
    if len(header) > COLUMNS:
        too_large(f"The file has {len(header)} columns: send at most {COLUMNS}.")
    if len(header) == 1 and (marks := [mark for mark in ";\t|" if mark in header[0]]):
        invalid(
            f"The file has one column, {header[0][:NAME]!r}: save it with commas in place of "
            f"{marks[0]!r}."
        )
    if len(set(header)) < len(header):
        name = next(name for name in header if header.count(name) > 1)
        invalid(f"The file has two columns {name[:NAME]!r}: rename one.")
    for name in added:
        if name in header:
            invalid(f"The file has a column {name!r} already: set prefix, as in prefix=my_.")


def _checked(rows: Iterator[Row], width: int, most: int) -> Iterator[list[str]]:
    for count, (line, fields) in enumerate(rows, 1):
        if len(fields) != width:
            invalid(
                f"Line {line} has {len(fields)} fields, but the header has {width}: correct it."
            )
        if count > most:
            too_large(f"The file has more than {most} rows: send it in parts.")
        yield fields


def _rows(content: bytes) -> Iterator[Row]:
    """Read the line of each row, the header among them, and its fields."""
    text = io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="")
    for record in Records(Lines(text, LINE), ","):
        if isinstance(record, Broken):
            invalid(f"Line {record.line} is not valid CSV ({record.reason}): correct it.")
        yield record.line, record.fields


ROUTES = [
    Route(
        "POST",
        "/score",
        "score",
        "Give each row of a CSV file, which is the body, a label and a score, by a model of tables "
        "a label and a probability. Where the model's min_score is above 0, a guess too, and no "
        "label below it.",
        score,
        body=str,
        answer=str,
        query=Score,
        kind="text/csv",
    ),
]
