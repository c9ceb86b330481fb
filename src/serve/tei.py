"""The dialects of Hugging Face: text-embeddings-inference, and the inference API of its hub."""

import time
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from src.predict.engines import Engine
from src.serve import answers, records
from src.serve.answers import Predictions
from src.serve.errors import invalid
from src.serve.openapi import Route
from src.serve.records import Decided, Record
from src.serve.request import ModelName, Text, body_of, decoded, json_answer, told, while_wanted
from src.serve.service import Scored, Service

Figures = npt.NDArray[np.float64]
Function = Literal["softmax", "sigmoid", "none"]


class Predict(Struct):
    """The body of ``/predict``; it may have other fields, as in text-embeddings-inference."""

    inputs: (
        Annotated[
            Text | list[Text | list[Text]],
            Meta(title='a text, a list of one text, or a batch as [["a text"], ["another"]]'),
        ]
        | UnsetType
    ) = UNSET
    records: Annotated[
        list[Record] | UnsetType,
        Meta(description="In place of inputs, for a model of tables: values by column."),
    ] = UNSET
    question: Annotated[
        Text | UnsetType,
        Meta(description="In place of inputs, for a reader; /answer tells more."),
    ] = UNSET
    context: Annotated[
        Text | None, Meta(description="The text to look in; null: the server's documents.")
    ] = None
    explain: Annotated[
        bool | None, Meta(description="True: what each column of the one record changes.")
    ] = None
    raw_scores: Annotated[
        bool | None, Meta(description="True: logits in place of probabilities.")
    ] = None
    truncate: Annotated[
        bool | None, Meta(description="False: a text longer than the model reads gets 413.")
    ] = None
    truncation_direction: Annotated[
        Literal["Right", "right"], Meta(title="'Right', since the model reads the start of a text")
    ] = "Right"
    model: Annotated[ModelName | None, Meta(description="Null: the first model.")] = None


class HubParameters(Struct, forbid_unknown_fields=True):
    """The options of the hub's inference API that shape the scores."""

    function_to_apply: Function | None = None
    top_k: Annotated[int, Meta(ge=1)] | None = None


class Hub(Struct, forbid_unknown_fields=True):
    """The body of the hub's inference API, as ``huggingface_hub`` sends it."""

    inputs: Annotated[Text | list[Text], Meta(title="a text or a list of texts")]
    parameters: HubParameters | None = None
    options: dict[str, msgspec.Raw] | None = None


class Prediction(Struct):
    """A label and its score."""

    score: float
    label: str


class Labels(Struct):
    """The labels by number, and the other way round."""

    id2label: dict[str, str]
    label2id: dict[str, int]


class ModelType(Struct):
    """The kind of a model."""

    classifier: Labels


class Info(Struct):
    """The description of a server by text-embeddings-inference, and what computes here."""

    model_id: str
    model_sha: str
    model_dtype: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    engine: Engine


FIELDS = ("inputs", "records", "question")  # one of which is sent

PREDICT = msgspec.json.Decoder(Predict)
HUB = msgspec.json.Decoder(Hub)


def ranked(labels: Sequence[str], scores: Figures, top_k: int | None = None) -> list[Prediction]:
    """List the labels of one text with their scores, the highest first."""
    order = np.argsort(-scores, kind="stable")[:top_k]
    return [Prediction(float(scores[k]), labels[k]) for k in order]


async def predict(service: Service, request: Request) -> Response:
    """Answer as text-embeddings-inference."""
    until = time.monotonic() + service.deadline
    content = await body_of(request, service.limits.max_body, until)
    asked = decoded(content, PREDICT)
    given = [name for name in FIELDS if getattr(asked, name) is not UNSET]
    if len(given) > 1:
        invalid(f"There are both {given[0]} and {given[1]}: send one of them.")
    if asked.question is not UNSET:
        place = asked.question, asked.context, asked.model or None
        return await answers.predictions(service, request, *place, until)
    if asked.records is not UNSET:
        words = asked.model or None, bool(asked.explain), until
        return await records.answer(service, request, asked.records, *words)
    if asked.inputs is UNSET:
        invalid(
            "inputs is missing: send it, or records to a model of tables, or a question to "
            "a reader."
        )
    texts, single = _texts(asked.inputs)
    service.limits.check(texts, "inputs")
    model = service.text_model(asked.model or None)
    truncate = service.limits.auto_truncate if asked.truncate is None else asked.truncate
    work = service.scored(model, texts, until, truncate)
    found = await while_wanted(request, work, until)
    scores = _scores(found, "none" if asked.raw_scores else "softmax")
    rows = [ranked(model.classifier.labels, row) for row in scores]
    return json_answer(rows[0] if single else rows, told(found.cut, found.answers))


def _texts(inputs: str | list[str | list[str]]) -> tuple[list[str], bool]:
    """Return the texts of ``inputs``, and whether it is a single text rather than a batch."""
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], list):
        return [_text(row, f"inputs[{k}]") for k, row in enumerate(inputs)], False
    return [_text(inputs, "inputs")], True


def _text(value: str | Sequence[str | list[str]], name: str) -> str:
    if isinstance(value, str):
        return value
    parts = [part for part in value if isinstance(part, str)]
    if len(parts) == len(value) == 1:
        return parts[0]
    if len(parts) == len(value) == 2:
        invalid(
            f"{name} is a pair of texts, which this model does not take: send a batch of two as "
            '[["a text"], ["another"]].'
        )
    return invalid(
        f'{name} must be a text or a list of one text: send a batch as [["a text"], ["another"]].'
    )


def _scores(found: Scored, function: Function) -> Figures:
    if function == "softmax":
        return found.probabilities
    logits = found.logits.astype(np.float64)
    if function == "none":
        return logits
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-logits))


async def hub(service: Service, request: Request) -> Response:
    """Answer as the hub's inference API, as ``huggingface_hub.InferenceClient`` speaks it."""
    until = time.monotonic() + service.deadline
    content = await body_of(request, service.limits.max_body, until)
    asked = decoded(content, HUB)
    texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
    service.limits.check(texts, "inputs")
    model = service.text_model(request.path_params.get("name"))
    truncate = service.limits.auto_truncate
    work = service.scored(model, texts, until, truncate)
    found = await while_wanted(request, work, until)
    wanted = asked.parameters or HubParameters()
    scores = _scores(found, wanted.function_to_apply or "softmax")
    rows = [ranked(model.classifier.labels, row, wanted.top_k) for row in scores]
    return json_answer(rows, told(found.cut, found.answers))


async def info(service: Service, request: Request) -> Response:  # noqa: ARG001
    """Say what text-embeddings-inference says of itself."""
    model = service.model(None)
    labels = model.labels
    names = Labels(
        {str(k): label for k, label in enumerate(labels)},
        {label: k for k, label in enumerate(labels)},
    )
    return json_answer(
        Info(
            model_id=model.name,
            model_sha=model.sha256,
            model_dtype="onnx",
            model_type=ModelType(names),
            max_concurrent_requests=service.max_texts,
            max_input_length=model.manifest.get("max_length", 0),  # of tables, none
            max_batch_tokens=service.batch_tokens,
            max_client_batch_size=service.limits.max_items,
            auto_truncate=service.limits.auto_truncate,
            tokenization_workers=1,
            version="1",
            engine=model.engine,
        )
    )


ROUTES = [
    Route(
        "POST",
        "/predict",
        "predict",
        "Classify a text, or a batch of texts, as text-embeddings-inference does, or records of a "
        "table, for which a model of tables gives label and probability, or answer a question by a "
        "reader. The header "
        "X-Truncated names the texts of which only the start was read, and X-No-Answer those whose "
        "highest probability is below the model's min_score, so that none of the labels is given.",
        predict,
        body=Predict,
        answer=(list[Prediction | list[Prediction]], list[Decided], Predictions),
    ),
    Route(
        "POST",
        "/",
        "hub",
        "Classify texts as Hugging Face's inference API does. The headers are those of /predict.",
        hub,
        body=Hub,
        answer=list[list[Prediction]],
    ),
    Route(
        "POST",
        "/models/{name}",
        "hub_model",
        "The same with a model by name.",
        hub,
        body=Hub,
        answer=list[list[Prediction]],
    ),
    Route(
        "GET", "/info", "info", "What text-embeddings-inference says of itself.", info, answer=Info
    ),
]
