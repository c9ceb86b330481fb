"""The Open Inference Protocol, with its binary tensors, below ``/v2``."""

import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from src.predict.classifier import Classifier, Field
from src.predict.engines import package_of
from src.serve import table_tensors
from src.serve.errors import Problem, invalid, too_large
from src.serve.models import Loaded, TableModel, TextModel
from src.serve.openapi import Route
from src.serve.request import (
    ENCODER,
    JSON,
    Limits,
    Text,
    body_of,
    decoded,
    json_answer,
    rows_of,
    told,
    while_wanted,
)
from src.serve.service import Scored, Service, other_kind
from src.serve.tensors import (
    InferParameters,
    Output,
    OutputParameters,
    OutputTensor,
    Shape,
    TensorMetadata,
    TensorParameters,
    tensors_of,
    unpacked,
)

VERSION = "1"  # of each model: the folder has one
KINDS = (JSON, "application/octet-stream", "")  # many clients name none
LENGTH_DIGITS = 9  # of the length of the JSON before tensors in binary
OutputName = Literal[Field, "probabilities"]
TEXTS: tuple[Field, ...] = ("label", "guess")  # of the outputs


class InputTensor(Struct):
    """The texts; without ``data``, they follow the JSON in binary."""

    name: Literal["text"]
    datatype: Literal["BYTES"]
    shape: Shape
    data: list[Text | list[Text]] | None = None
    parameters: TensorParameters | None = None


class WantedOutput(Struct):
    """An output to answer with; of a text without answer, label is empty and guess is not."""

    name: OutputName
    parameters: OutputParameters | None = None


class Infer(Struct):
    """The body of ``/infer``."""

    inputs: Annotated[
        list[InputTensor], Meta(min_length=1, max_length=1, title="a list of one tensor")
    ]
    id: str | None = None
    parameters: InferParameters | None = None
    outputs: Annotated[
        list[WantedOutput] | None,
        Meta(description="Null: all, but for guess only where the model's min_score is above 0."),
    ] = None


class Inferred(Struct, omit_defaults=True):
    """The answer of ``/infer``."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None
    parameters: dict[str, str] | None = None


class ServerMetadata(Struct):
    """The server's name and extensions."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(Struct):
    """The tensors that a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(Struct):
    """The readiness of a model."""

    name: str
    ready: bool


INFER = msgspec.json.Decoder(Infer)


async def infer(service: Service, request: Request) -> Response:
    """Classify a tensor of texts, or of each column of a table."""
    until = time.monotonic() + service.deadline
    limits = service.limits
    model = service.model(request.path_params["name"])
    content = await body_of(request, limits.max_body, until, KINDS)
    head, tail = _parted(content, request.headers.get("inference-header-content-length"))
    if isinstance(model, TableModel):
        table = decoded(head, table_tensors.INFER)
        items = table_tensors.items_of(model, table, tail, limits)
        shares, answers = await while_wanted(request, service.decided(model, items, until), until)
        outputs = [
            (table_tensors.output_of(name, answers, shares), binary)
            for name, binary in _wanted(table, table_tensors.GIVEN).items()
        ]
        return _answer(model, table.id, outputs)
    if not isinstance(model, TextModel):
        raise other_kind(model, "a model of texts or tables")
    asked = decoded(head, INFER)
    texts = _texts(asked.inputs[0], tail, limits)
    work = service.scored(model, texts, until, limits.auto_truncate)
    found = await while_wanted(request, work, until)
    wanted = _wanted(asked, _given(model.classifier))
    outputs = [(_output(name, found), binary) for name, binary in wanted.items()]
    # Parameters of this protocol are no lists, so it is the JSON of one.
    parameters = {"truncated": f"[{rows_of(found.cut)}]"} if True in found.cut else None
    return _answer(model, asked.id, outputs, parameters, told(found.cut, found.answers))


def _answer(
    model: Loaded,
    id: str | None,
    outputs: list[tuple[Output, bool]],
    parameters: dict[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    tensors, tail = tensors_of(outputs)
    answer = ENCODER.encode(Inferred(model.name, VERSION, tensors, id, parameters))
    if all(tensor.parameters is None for tensor in tensors):
        return Response(answer, media_type=JSON, headers=headers)
    length = {"Inference-Header-Content-Length": str(len(answer))}
    return Response(
        answer + tail, media_type="application/octet-stream", headers={**(headers or {}), **length}
    )


def _output(name: OutputName, found: Scored) -> Output:
    if name == "probabilities":
        return Output(name, "FP32", found.probabilities)
    if name in TEXTS:
        texts = [getattr(answer, name) or "" for answer in found.answers]  # there is no null
        return Output(name, "BYTES", texts)
    return Output(name, "FP32", [answer.score for answer in found.answers])


def _parted(content: bytes, header_length: str | None) -> tuple[bytes, bytes]:
    """Split a body into the JSON and the binary tensors after it."""
    if header_length is None:
        return content, b""
    # Python refuses to read numbers of thousands of digits; no body is a gigabyte long.
    short = header_length.isdecimal() and len(header_length) <= LENGTH_DIGITS
    if not short or (size := int(header_length)) > len(content):
        invalid("Inference-Header-Content-Length must be the length of the JSON in the body.")
    return content[:size], content[size:]


def _texts(tensor: InputTensor, tail: bytes, limits: Limits) -> list[str]:
    shape = tensor.shape
    if shape[1:] not in ([], [1]):
        invalid("inputs[0].shape must be [n] or [n, 1].")
    if shape[0] > limits.max_items:
        too_large(f"inputs[0].shape has too many texts: send at most {limits.max_items} at once.")
    size = tensor.parameters.binary_data_size if tensor.parameters else None
    if size is not None:
        if size != len(tail):
            invalid(
                f"inputs[0] has {len(tail)} bytes after the JSON, but its binary_data_size says "
                f"{size}: make them agree."
            )
        texts = list(unpacked(tail, "inputs[0]"))
    elif tensor.data is None:
        invalid("inputs[0].data is missing: send it.")
    else:
        rows = ([row] if isinstance(row, str) else row for row in tensor.data)
        texts = [text for row in rows for text in row]
    if len(texts) != shape[0]:
        invalid(
            f"inputs[0] has {len(texts)} texts, but its shape says {shape[0]}: make them agree."
        )
    limits.check(texts, "inputs[0]")
    return texts


def _given(classifier: Classifier) -> tuple[OutputName, ...]:
    """Name the outputs that a model gives where none is asked for."""
    return *classifier.fields, "probabilities"


def _wanted(asked: Infer | table_tensors.InferTable, default: Sequence[Any]) -> dict[Any, bool]:
    """Find the names of the outputs that were asked for, and whether they are binary."""
    binary = bool(asked.parameters and asked.parameters.binary_data_output)
    wanted = {}
    for output in asked.outputs or []:
        own = output.parameters.binary_data if output.parameters else None
        wanted[output.name] = binary if own is None else own
    return wanted or dict.fromkeys(default, binary)


async def server(service: Service, request: Request) -> Response:  # noqa: ARG001
    """Say the server's name and extensions."""
    return json_answer(ServerMetadata("pedigree", "1", ["binary_tensor_data"]))


async def model(service: Service, request: Request) -> Response:
    """Describe the tensors of a model."""
    found = service.model(request.path_params["name"])
    platform = f"{package_of(found.engine)}_onnx"
    if isinstance(found, TableModel):
        inputs, outputs = table_tensors.metadata(found)
        return json_answer(ModelMetadata(found.name, [VERSION], platform, inputs, outputs))
    if not isinstance(found, TextModel):
        raise Problem(404, "NotFound", f"{found.name} is {found.takes}, not by this protocol.")
    outputs = [
        TensorMetadata(
            name,
            "BYTES" if name in TEXTS else "FP32",
            [-1, *([len(found.labels)] if name == "probabilities" else [])],
        )
        for name in _given(found.classifier)
    ]
    inputs = [TensorMetadata("text", "BYTES", [-1])]
    return json_answer(ModelMetadata(found.name, [VERSION], platform, inputs, outputs))


async def ready(service: Service, request: Request) -> Response:
    """Say that a model is served."""
    return json_answer(ModelReady(service.model(request.path_params["name"]).name, True))


def _model_routes(path: str, ending: str) -> list[Route]:
    return [
        Route(
            "GET", path, f"v2_model{ending}", "The tensors of a model.", model, answer=ModelMetadata
        ),
        Route(
            "GET",
            f"{path}/ready",
            f"v2_ready{ending}",
            "Whether a model is served.",
            ready,
            answer=ModelReady,
        ),
        Route(
            "POST",
            f"{path}/infer",
            f"v2_infer{ending}",
            "Classify a tensor of texts, or records by a tensor for each column; binary tensors "
            "too, by the header Inference-Header-Content-Length.",
            infer,
            body=(Infer, table_tensors.InferTable),
            answer=Inferred,
        ),
    ]


ROUTES = [
    Route(
        "GET", "/v2", "v2", "Open Inference Protocol: the server.", server, answer=ServerMetadata
    ),
    *_model_routes("/v2/models/{name}", ""),
    *_model_routes(f"/v2/models/{{name}}/versions/{VERSION}", "_version"),
]
