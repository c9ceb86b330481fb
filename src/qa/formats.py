"""The questions of a file as they stand there, in every form that teams have them in.

Forms: SQuAD's JSON, JSON lines or lists and parquet of ``question context answers``, as Hugging
Face's datasets have them, and CSV or TSV of such columns.
"""

import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import pyarrow.parquet as pq

from src.core.errors import InputError, closest
from src.tables import delimited, json_rows
from src.tables.encodings import text_of
from src.tables.lines import Broken, Lines
from src.tables.places import File
from src.tables.streams import UNREADABLE

Code = Literal[
    "no_object",
    "no_question",
    "no_context",
    "wrong_type",
    "not_text",
    "answer_not_found",
    "answer_divided",
    "repeated_id",
    "broken",
]
LONGEST = 1 << 26  # characters of a line or field
COLUMNS = ("question", "context", "answer", "answers", "answer_start", "id", "title")
EXPECTED = "expected SQuAD's JSON (data, paragraphs, qas), or rows of question, context and answers"


class Raw(NamedTuple):
    """A question as it stands in a file, with nothing checked."""

    place: str
    question: object
    context: object
    answers: object
    id: object
    title: object
    impossible: object


class UnusableError(Exception):
    """A question can't be used: why, as a code and in words, and where it stands if it is none."""

    def __init__(self, code: Code, reason: str, place: str = "") -> None:
        """Hold what is told of it."""
        super().__init__(reason)
        self.code, self.place = code, place


def read(file: File) -> Iterator[Raw | UnusableError]:
    """Yield the questions of a file as they stand there."""
    if not file.path.stat().st_size:
        raise InputError(f"{file} is empty (0 bytes): get it again, or correct {file.setting}.")
    match file.format:
        case "json":
            yield from _json(file)
        case "jsonl":
            with file.open() as stream:
                file.refuse_other_kinds(stream.peek(64), "JSON lines")
                text = text_of(stream, "utf-8", "surrogateescape")
                for item in json_rows.json_lines(Lines(text, LONGEST), json_rows.TYPED):
                    yield (
                        _broken(item)
                        if isinstance(item, Broken)
                        else (_flat(item.value, f"line {item.line}"))
                    )
        case "csv" | "tsv":
            yield from _delimited(file, "," if file.format == "csv" else "\t")
        case "parquet":
            try:
                rows = pq.read_table(file.path).to_pylist()
            except (*UNREADABLE, ValueError) as error:
                raise InputError(
                    f"{file} can't be read as parquet: {error}; get it anew."
                ) from None
            yield from (_flat(row, f"row {k}") for k, row in enumerate(rows, 1))
        case _:
            raise InputError(
                f"Can't tell the format of {file} from its name: give it the ending .json, .jsonl, "
                ".csv, .tsv or .parquet."
            )


def _broken(broken: Broken) -> UnusableError:
    return UnusableError("broken", broken.reason, f"line {broken.line}")


def _json(file: File) -> Iterator[Raw | UnusableError]:
    with file.open() as stream:
        file.refuse_other_kinds(stream.peek(64), "JSON")
        content = stream.read()
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except UnicodeError:
        raise InputError(f"{file} is not UTF-8: save it as UTF-8.") from None
    except RecursionError:
        raise InputError(f"{file} has values nested too deep: {EXPECTED}.") from None
    except ValueError as error:
        raise InputError(f"{file} is not JSON ({error}): get it again.") from None
    if isinstance(value, list):
        yield from (_flat(row, f"[{k}]") for k, row in enumerate(value))
    elif isinstance(value, dict) and isinstance(value.get("data"), list):
        first: object = next(iter(value["data"]), None)
        if isinstance(first, dict) and "question" in first:
            yield from (_flat(row, f"data[{k}]") for k, row in enumerate(value["data"]))
        else:
            yield from _squad(value["data"])
    else:
        keys = ", ".join(list(value)[:5]) if isinstance(value, dict) else type(value).__name__
        raise InputError(f"{file} has {keys or 'nothing'}: {EXPECTED}.")


def _squad(data: list[Any]) -> Iterator[Raw | UnusableError]:
    for a, article in enumerate(data):
        for p, paragraph in enumerate(_list_of(article, "paragraphs")):
            title = article.get("title") if isinstance(article, dict) else None
            if isinstance(paragraph, dict) and not title:
                title = paragraph.get("document_id")  # of COVID-QA
                title = None if title is None else str(title)
            for q, asked in enumerate(_list_of(paragraph, "qas")):
                place = f"data[{a}].paragraphs[{p}].qas[{q}]"
                if not isinstance(asked, dict):
                    yield UnusableError("no_object", "not a JSON object", place)
                    continue
                yield Raw(
                    place,
                    asked.get("question"),
                    paragraph.get("context"),
                    asked.get("answers"),
                    asked.get("id"),
                    title,
                    asked.get("is_impossible"),
                )


def _list_of(value: object, key: str) -> list[Any]:
    found = value.get(key) if isinstance(value, dict) else None
    return found if isinstance(found, list) else []


def _flat(row: object, place: str) -> Raw | UnusableError:
    if not isinstance(row, dict):
        return UnusableError("no_object", "not a JSON object", place)
    answers = row.get("answers", row.get("answer"))
    if isinstance(answers, str) and row.get("answer_start") not in (None, ""):
        answers = {"text": answers, "answer_start": row["answer_start"]}
    values = (row.get("question"), row.get("context"), answers, row.get("id"), row.get("title"))
    return Raw(place, *values, row.get("is_impossible"))


def _delimited(file: File, delimiter: str) -> Iterator[Raw | UnusableError]:
    with file.open() as stream:
        file.refuse_other_kinds(stream.peek(64), "a table")
        text = text_of(stream, "utf-8", "surrogateescape")
        records = delimited.Records(Lines(text, LONGEST), delimiter)
        head = next(records, None)
        if head is None or isinstance(head, Broken):
            raise InputError(f"{file} has no header that can be read: {EXPECTED}.")
        names = [name.strip().lower() for name in head.fields]
        for needed in ("question", "context"):
            if needed not in names:
                raise InputError(
                    f"{file} has no column {needed}{closest(needed, names)}: it has "
                    f"{', '.join(names[:8])}; name its columns {', '.join(COLUMNS[:3])}."
                )
        for record in records:
            if isinstance(record, Broken):
                yield _broken(record)
                continue
            place = f"line {record.line}"
            if len(record.fields) != len(names):
                reason = f"{len(record.fields)} fields in place of {len(names)}"
                yield UnusableError("broken", reason, place)
                continue
            row: dict[str, Any] = dict(zip(names, record.fields, strict=True))
            start = row.get("answer_start", "").strip()
            row["answer_start"] = int(start) if start.isdecimal() else (start or None)
            yield _flat(row, place)
