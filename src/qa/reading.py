"""Questions of any form brought into one; what can't be used is told."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from src.core.errors import InputError
from src.qa import answering, formats
from src.qa.formats import EXPECTED, Code, Raw, UnusableError
from src.qa.squad import Answer, Paragraph, Question, Questions
from src.tables.encodings import why_not_text
from src.tables.places import File


class Rejected(NamedTuple):
    """A question that can't be used, by its place."""

    file: str
    place: str  # the path in JSON, or the line
    code: Code
    reason: str


@dataclass
class Found:
    """What the files of a source held.

    Attributes:
        questions: what can be used.
        rejected: what can't.
        repaired: answers that did not stand where they were said to, by what was done.
        read: how many questions there were.
    """

    questions: Questions = field(default_factory=Questions)
    rejected: list[Rejected] = field(default_factory=list)
    repaired: Counter[str] = field(default_factory=Counter)
    read: int = 0


def read(files: Sequence[File], min_overlap: float) -> Found:
    """Read the questions of files.

    Args:
        files: of any form.
        min_overlap: the least F1 of a span that an answer which does not stand in its paragraph is
            replaced by.

    Raises:
        InputError: a file is of another form, or has no questions.
    """
    found = Found()
    rows: dict[tuple[str, str], int] = {}  # of each document and text
    ids: set[str] = set()
    for number, file in enumerate(files):
        before = found.read
        for raw in formats.read(file):
            found.read += 1
            try:
                if isinstance(raw, UnusableError):
                    raise raw
                where = f"{number}:{raw.place}" if len(files) > 1 else raw.place
                _keep(raw, where, found, rows, ids, min_overlap)
            except UnusableError as error:
                rejected = Rejected(str(file), raw.place, error.code, str(error))
                found.rejected.append(rejected)
        if found.read == before:
            raise InputError(f"{file} has no questions: {EXPECTED}.")
    found.questions = _grouped(found.questions)
    return found


def _grouped(questions: Questions) -> Questions:
    """Put the paragraphs of a document beside each other."""
    order = {name: k for k, name in enumerate(questions.documents())}
    rows = range(len(questions.paragraphs))
    grouped = questions.at(sorted(rows, key=lambda row: order[questions.paragraphs[row].document]))
    numbers: Counter[str] = Counter()
    for k, one in enumerate(grouped.paragraphs):
        numbers[one.document] += 1
        grouped.paragraphs[k] = Paragraph(
            one.document, one.text, f"paragraph {numbers[one.document]}"
        )
    return grouped


def _keep(
    raw: Raw,
    where: str,
    found: Found,
    rows: dict[tuple[str, str], int],
    ids: set[str],
    min_overlap: float,
) -> None:
    """Check a question, and keep it with its paragraph."""
    question, context = _text(raw.question, "question"), _text(raw.context, "context")
    identity = where if raw.id is None or raw.id == "" else str(raw.id)
    if identity in ids:
        raise UnusableError("repeated_id", f"the id {identity!r} is of another question as well")
    answers: list[Answer] = []
    wanted = [] if raw.impossible is True else _answers(raw.answers)
    repaired: Counter[str] = Counter()
    for text, start in wanted:
        span, how = answering.located(context, text, start, min_overlap)
        if how != "right":
            repaired[how] += 1
        if span:
            answers.append(span)
    found.repaired += repaired
    if wanted and not answers:
        raise UnusableError(
            "answer_not_found",
            f"nothing in the context is like the answer {wanted[0][0]!r:.100}",
        )
    ids.add(identity)
    title = raw.title if isinstance(raw.title, str) else ""
    key = (title, context)
    if key not in rows:
        rows[key] = len(found.questions.paragraphs)
        # Without a title each text is a document of its own.
        document = title or f"document {rows[key] + 1}"
        found.questions.paragraphs.append(Paragraph(document, context, ""))
    found.questions.questions.append(Question(identity, question, rows[key], tuple(answers)))


def _text(value: object, name: Literal["question", "context"]) -> str:
    if value is not None and not isinstance(value, str):
        raise UnusableError("wrong_type", f"{name} is {type(value).__name__}, not text")
    if not value or not value.strip():
        code: Code = "no_question" if name == "question" else "no_context"
        raise UnusableError(code, f"{name} is empty or absent")
    if reason := why_not_text(value):
        raise UnusableError("not_text", f"{name} has {reason}")
    return value.strip() if name == "question" else value


def _answers(value: object) -> list[tuple[str, int | None]]:
    """Read answers in any of their forms: none, a text, texts, or texts with their starts."""
    if value is None or value == "" or value == []:
        return []
    if isinstance(value, str):
        return [(value, None)]
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):  # as datasets have them
        starts = value.get("answer_start")
        if starts is None:
            starts = [None] * len(value["text"])
        if not isinstance(starts, list) or len(starts) != len(value["text"]):
            raise UnusableError("wrong_type", "answers.text and answer_start differ in length")
        value = [
            {"text": text, "answer_start": start}
            for text, start in zip(value["text"], starts, strict=True)
        ]
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise UnusableError("wrong_type", f"answers are {type(value).__name__}, not a list")
    return [_answer(one) for one in value]


def _answer(value: object) -> tuple[str, int | None]:
    text, start = value, None
    if isinstance(value, Mapping):
        text, start = value.get("text"), value.get("answer_start")
    if not isinstance(text, str) or not text.strip():
        raise UnusableError("wrong_type", "an answer has no text")
    if reason := why_not_text(text):
        raise UnusableError("not_text", f"an answer has {reason}")
    if start is not None and (type(start) is not int or not 0 <= start < 2**31):
        raise UnusableError("wrong_type", f"answer_start is {start!r:.50}, not a whole number")
    return text, start
