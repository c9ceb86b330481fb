"""``/explain``: what the label's probability would be without each word."""

import re
import time
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from src.core.words import JOINED
from src.serve.openapi import Route
from src.serve.request import ModelName, Text, body_of, decoded, json_answer, told, while_wanted
from src.serve.service import Service

# An ideogram or kana stands for a word of its own, where no spaces part them.
WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]"
    rf"|[^\W_](?:[^\W_]|[{JOINED}])*(?:['\u2019](?:[^\W_]|[{JOINED}])+)*"
)


class Explain(Struct, forbid_unknown_fields=True):
    """The body of ``/explain``: one text."""

    inputs: Annotated[
        Text | Annotated[list[Text], Meta(min_length=1, max_length=1)],
        Meta(title="a text or a list of one text"),
    ]
    model: ModelName | None = None


class Word(Struct):
    """A word by its place, and how the label's probability changes without it."""

    word: str
    start: int
    end: int
    change: float


class Explanation(Struct, kw_only=True):
    """The answer of ``/explain``."""

    model: str
    label: Annotated[
        str | None, Meta(description="Null where the score is below the model's min_score.")
    ]
    guess: Annotated[
        str | UnsetType,
        Meta(description="The label of the score, left out where min_score is 0."),
    ] = UNSET
    score: float
    probabilities: dict[str, float]
    words: list[Word]
    words_left: int
    truncated: bool


EXPLAIN = msgspec.json.Decoder(Explain)


async def explain(service: Service, request: Request) -> Response:
    """Score a text, and the text without each of its words."""
    until = time.monotonic() + service.deadline
    limits = service.limits
    asked = decoded(await body_of(request, limits.max_body, until), EXPLAIN)
    text = asked.inputs if isinstance(asked.inputs, str) else asked.inputs[0]
    limits.check([text], "inputs")
    model = service.text_model(asked.model)
    classifier = model.classifier
    words, left = words_of(text[: model.manifest["max_characters"]], limits.max_words)
    texts = [text, *(text[:start] + text[end:] for start, end in words)]
    # Nobody wrote the texts that lack a word, so figures do not count them.
    work = service.scored(model, texts, until, counted=1)
    found = await while_wanted(request, work, until)
    answer, shares = found.answers[0], found.probabilities
    changes = (shares[1:, classifier.labels.index(answer.guess)] - answer.score).tolist()
    explanation = Explanation(
        model=model.name,
        label=answer.label,
        guess=answer.guess if "guess" in classifier.fields else UNSET,
        score=answer.score,
        probabilities=dict(zip(classifier.labels, shares[0].tolist(), strict=True)),
        words=[
            Word(text[start:end], start, end, change)
            for (start, end), change in zip(words, changes, strict=True)
        ],
        words_left=left,
        truncated=found.cut[0],
    )
    return json_answer(explanation, told(found.cut[:1], found.answers[:1]))


def words_of(text: str, most: int) -> tuple[list[tuple[int, int]], int]:
    """Find where the first ``most`` words start and end, and count the further ones."""
    found = [match.span() for match in WORD.finditer(text)]
    return found[:most], max(0, len(found) - most)


ROUTES = [
    Route(
        "POST",
        "/explain",
        "explain",
        "How the probability of the label, or of the guess where no label is given, changes when "
        "each word is left out.",
        explain,
        body=Explain,
        answer=Explanation,
    ),
]
