"""Questions to a reader: answers out of a text, or out of the server's documents."""

import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from src.predict.reader import answers
from src.predict.reader.answers import Piece
from src.serve.errors import Problem, invalid, too_large
from src.serve.models import ReaderModel
from src.serve.openapi import Route
from src.serve.request import ModelName, Text, body_of, decoded, json_answer, while_wanted
from src.serve.service import Service

MOST = 20  # answers to a question
BEST = 3  # of them, where none says how many


class Ask(Struct, forbid_unknown_fields=True):
    """The body of ``/answer``."""

    question: Text
    context: Annotated[
        Text | None, Meta(description="The text to look in; null: the server's documents.")
    ] = None
    top_k: Annotated[int, Meta(ge=1, le=MOST, title=f"a whole number from 1 to {MOST}")] = BEST
    threshold: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(
            title="a number from 0 to 1",
            description="The least probability of an answer; null: that of the model.",
        ),
    ] = None
    model: Annotated[ModelName | None, Meta(description="Null: the first reader.")] = None


class Passage(Struct):
    """A part of a document, and where it stands there."""

    document: str
    place: str
    text: str


class Answer(Struct, omit_defaults=True, kw_only=True):
    """An answer: a part of the context, or of a passage of the documents."""

    text: str
    score: Annotated[
        float, Meta(description="Its logits minus those of there being no answer in the text.")
    ]
    probability: Annotated[float, Meta(description="That it is exactly right.")]
    document: str
    place: str
    start: Annotated[
        int, Meta(description="Its first character in the context, or in the passage.")
    ]
    end: int
    sentence: str
    passage: Annotated[
        str | UnsetType, Meta(description="Of the documents: the text that it stands in.")
    ] = UNSET


class Answers(Struct, omit_defaults=True, kw_only=True):
    """The answer of ``/answer``."""

    model: str
    answers: list[Answer]
    no_answer: Annotated[bool, Meta(description="True where no answer is probable enough.")]
    nearest: Annotated[
        Passage | UnsetType,
        Meta(description="Without an answer: the passage that fits the question best."),
    ] = UNSET
    question_cut: Annotated[
        bool, Meta(description="True where only the start of the question was read.")
    ] = False
    milliseconds: float


class Predictions(Struct):
    """What ``/predict`` answers to a question: the best answers, none where there is none."""

    success: bool
    predictions: list[str]


class Known(Struct, omit_defaults=True):
    """The documents that questions are asked about."""

    documents: list[str]
    passages: int
    left_out: Annotated[
        dict[str, str] | UnsetType, Meta(description="Why a document could not be read.")
    ] = UNSET


class Opinion(Struct, forbid_unknown_fields=True):
    """The body of ``/feedback``: an answer, and whether it was right."""

    question: Text
    context: Annotated[Text, Meta(description="The text, or the passage of the documents.")]
    answer: Annotated[Text, Meta(description="'' where the answer was that there is none.")]
    rating: Literal["up", "down"]
    start: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="Its first character; null without.")
    ] = None
    document: Text = ""
    model: Annotated[ModelName | None, Meta(description="Null: the first reader.")] = None


class Open(Struct):
    """Whether feedback is taken."""

    open: bool


class Written(Struct):
    """The feedback is in the file."""

    written: Literal[True]


ASK = msgspec.json.Decoder(Ask)
OPINION = msgspec.json.Decoder(Opinion)


async def answer(service: Service, request: Request) -> Response:
    """Answer a question."""
    start = time.monotonic()
    until = start + service.deadline
    asked = decoded(await body_of(request, service.limits.max_body, until), ASK)
    model = service.reader(asked.model or None)
    threshold: answers.Threshold = "model" if asked.threshold is None else asked.threshold
    pieces = _pieces(service, asked.question, asked.context)
    found, cut = await _found(service, request, model, asked, pieces, threshold, until)
    nearest: Passage | UnsetType = UNSET
    if not found and asked.context is None and pieces:
        nearest = Passage(*pieces[0])
    return json_answer(
        Answers(
            model=model.name,
            answers=[_described(one, asked.context is None) for one in found],
            no_answer=not found,
            nearest=nearest,
            question_cut=cut,
            milliseconds=round(1000 * (time.monotonic() - start), 1),
        )
    )


async def predictions(
    service: Service,
    request: Request,
    question: str,
    context: str | None,
    name: str | None,
    until: float,
) -> Response:
    """Answer a question of ``/predict``."""
    model = service.reader(name)
    asked = Ask(question, context)
    pieces = _pieces(service, question, context)
    found, _ = await _found(service, request, model, asked, pieces, "model", until)
    return json_answer(Predictions(True, [one.text for one in found]))


def _pieces(service: Service, question: str, context: str | None) -> list[Piece]:
    """Return what a question is asked about."""
    for name, text in (("question", question), ("context", context or "")):
        if len(text) > service.limits.max_characters:
            most = service.limits.max_characters
            too_large(f"{name} has {len(text)} characters: send at most {most}.")
    if not question.strip():
        invalid("question is empty: write one.")
    if context is not None:
        if not context.strip():
            invalid("context is empty: send a text, or leave it out for the server's documents.")
        return [Piece("", "", context)]
    if service.documents is None:
        invalid("context is missing, and the server has no documents: send a text to look in.")
    return service.documents.now.find(question, service.passages)


async def _found(
    service: Service,
    request: Request,
    model: ReaderModel,
    asked: Ask,
    pieces: list[Piece],
    threshold: answers.Threshold,
    until: float,
) -> tuple[list[answers.Answer], bool]:
    """Return the best answers, and whether only the start of the question was read."""
    asking = await run_in_threadpool(answers.ask, model.reader, asked.question, pieces)
    windows = len(asking.windows)
    if windows > service.max_texts:
        too_large(
            f"context has {windows} parts of {model.reader.manifest.max_length} tokens: send a "
            f"text of at most {service.max_texts}."
        )
    logits = await while_wanted(request, service.read(model, asking.windows, until), until)
    found = asking.answers(logits, asked.top_k, threshold)
    service.metrics.answered(model.name, "answered" if found else None)
    return found, asking.is_cut


def _described(one: answers.Answer, with_passage: bool) -> Answer:
    start, end = one.sentence
    return Answer(
        text=one.text,
        score=one.score,
        probability=one.probability,
        document=one.piece.document,
        place=one.piece.place,
        start=one.start,
        end=one.end,
        sentence=one.piece.text[start:end],
        passage=one.piece.text if with_passage else UNSET,
    )


async def documents(service: Service, request: Request) -> Response:  # noqa: ARG001
    """List the documents."""
    if service.documents is None:
        return json_answer(Known([], 0))
    now = service.documents.now
    return json_answer(Known(now.documents, len(now.pieces), dict(now.skipped) or UNSET))


async def is_open(service: Service, request: Request) -> Response:  # noqa: ARG001
    """Tell whether feedback is taken."""
    return json_answer(Open(service.feedback is not None))


async def feedback(service: Service, request: Request) -> Response:
    """Write down what a person thinks of an answer."""
    until = time.monotonic() + service.deadline
    given = decoded(await body_of(request, service.limits.max_body, until), OPINION)
    model = service.reader(given.model or None)
    if service.feedback is None:
        message = "The server takes no feedback: start it with --feedback FILE."
        raise Problem(404, "NotFound", message)
    for name in ("question", "context"):
        if not getattr(given, name).strip():
            invalid(f"{name} is empty: send what was asked, and the text that it was asked about.")
    stands = given.start is not None and given.context.startswith(given.answer, given.start)
    if given.answer and not stands:
        invalid("answer does not stand in context at start: send both as the server gave them.")
    row: dict[str, Any] = {
        "question": given.question,
        "context": given.context,
        "answers": [{"text": given.answer, "answer_start": given.start}] if given.answer else [],
        "is_impossible": not given.answer,
        "title": given.document,
        "model": model.name,
        "time": int(time.time()),
    }
    await run_in_threadpool(_write, service.feedback, row, given.rating)
    return json_answer(Written(True))


def _write(file: Path, row: dict[str, Any], rating: str) -> None:
    """Append a line; what is wrong is not to be learnt, so it has a file of its own."""
    place = file if rating == "up" else file.with_suffix(f".down{file.suffix}")
    try:
        with place.open("ab") as stream:
            stream.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    except OSError as error:
        message = f"The file of feedback can't be written ({error.strerror}): tell who runs this."
        raise Problem(503, "Unhealthy", message) from None


ROUTES = [
    Route(
        "POST",
        "/answer",
        "answer",
        "Answer a question out of a text, or out of the server's documents: parts of it, with how "
        "sure the reader is and where they stand.",
        answer,
        body=Ask,
        answer=Answers,
    ),
    Route(
        "GET", "/documents", "documents", "What questions are asked about.", documents, answer=Known
    ),
    Route("GET", "/feedback", "feedback_open", "Is feedback taken?", is_open, answer=Open),
    Route(
        "POST",
        "/feedback",
        "feedback",
        "Write down whether an answer was right: a line of JSON in SQuAD's terms, in a file that "
        "the pipeline of questions can learn from.",
        feedback,
        body=Opinion,
        answer=Written,
        errors=(503,),
    ),
]
