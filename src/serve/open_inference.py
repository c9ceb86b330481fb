"""The Open Inference Protocol, with its binary tensors, below ``/v2``."""

import struct
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct
from starlette.requests import Request
from starlette.responses import Response

from src.predict.classifier import Classifier, Field
from src.predict.engines import package_of
from src.serve.errors import invalid, too_large
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
from src.serve.service import Scored, Service

VERSION = "1"  # of each model: the folder has one
KINDS = (JSON, "application/octet-stream", "")  # many clients name none
LENGTH_DIGITS = 9  # of the length of the JSON before tensors in binary
OutputName = Literal[Field, "probabilities"]
TEXTS: tuple[Field, ...] = ("label", "guess")  # of the outputs


class TensorParameters(Struct):
    """The number of bytes of a binary tensor."""

    binary_data_size: int | None = None


class InputTensor(Struct):
    """The texts; without ``data``, they follow the JSON in binary."""

    name: Literal["text"]
    datatype: Literal["BYTES"]
    shape: Annotated[
        list[Annotated[int, Meta(ge=0)]],
        Meta(min_length=1, max_length=2, title="[n] or [n, 1]"),
    ]
    data: list[Text | list[Text]] | None = None
    parameters: TensorParameters | None = None


class OutputParameters(Struct):
    """The choice of a binary output, and of the best classes, which are not for choice here."""

    binary_data: bool | None = None
    classification: Annotated[
        Literal[0] | None, Meta(title="left out, with class_count: all probabilities are given")
    ] = None


class WantedOutput(Struct):
    """An output to answer with; of a text without answer, label is empty and guess is not."""

    name: OutputName
    parameters: OutputParameters | None = None


class InferParameters(Struct):
    """The choice of binary outputs, for those that don't choose themselves."""

    binary_data_output: bool | None = None


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


class OutputTensor(Struct, omit_defaults=True):
    """An output; without ``data``, it follows the JSON in binary."""

    name: str
    datatype: str
    shape: list[int]
    parameters: TensorParameters | None = None
    data: list[str | float] | None = None


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


class TensorMetadata(Struct):
    """The name, type and shape of a tensor; -1 is any number."""

    name: str
    datatype: str
    shape: list[int]


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
    """Classify a tensor of texts."""
    until = time.monotonic() + service.deadline
    limits = service.limits
    model = service.model(request.path_params["name"])
    content = await body_of(request, limits.max_body, until, KINDS)
    head, tail = _parted(content, request.headers.get("inference-header-content-length"))
    asked = decoded(head, INFER)
    texts = _texts(asked.inputs[0], tail, limits)
    work = service.scored(model, texts, until, limits.auto_truncate)
    found = await while_wanted(request, work, until)
    outputs, tail = _outputs(_wanted(asked, _given(model.classifier)), found)
    # Parameters of this protocol are no lists, so it is the JSON of one.
    parameters = {"truncated": f"[{rows_of(found.cut)}]"} if True in found.cut else None
    answer = ENCODER.encode(Inferred(model.name, VERSION, outputs, asked.id, parameters))
    headers = told(found.cut, found.answers)
    if all(output.parameters is None for output in outputs):
        return Response(answer, media_type=JSON, headers=headers)
    headers |= {"Inference-Header-Content-Length": str(len(answer))}
    return Response(answer + tail, media_type="application/octet-stream", headers=headers)


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
        texts = list(_unpacked(tail))
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


def _unpacked(tail: bytes) -> Iterator[str]:
    """Read the elements of a BYTES tensor: a length of four bytes, little-endian, before each."""
    place = 0
    while place < len(tail):
        end = place + 4 + int.from_bytes(tail[place : place + 4], "little")
        if end > len(tail):
            invalid(
                "inputs[0] ends in the middle of a text: send four bytes of length before each."
            )
        try:
            yield tail[place + 4 : end].decode()
        except UnicodeDecodeError:
            invalid("inputs[0] has bytes that are not UTF-8: send texts in UTF-8.")
        place = end


def _outputs(wanted: dict[OutputName, bool], found: Scored) -> tuple[list[OutputTensor], bytes]:
    """Make the outputs that are wanted, and the bytes of those in binary."""
    outputs, tail = [], b""
    for name, binary in wanted.items():
        output = OutputTensor(name, "FP32", [len(found.answers)])
        if name in TEXTS:
            texts = [getattr(answer, name) or "" for answer in found.answers]  # there is no null
            output.datatype, packed = "BYTES", _packed(texts)
            data: list[str] | list[float] = texts
        else:
            figures = found.probabilities
            array = (figures if name == "probabilities" else figures.max(axis=1)).astype(np.float32)
            output.shape = list(array.shape)
            data, packed = array.ravel().tolist(), array.tobytes()
        if binary:
            output.parameters = TensorParameters(len(packed))
            tail += packed
        else:
            output.data = [*data]
        outputs.append(output)
    return outputs, tail


def _given(classifier: Classifier) -> tuple[OutputName, ...]:
    """Name the outputs that a model gives where none is asked for."""
    return *classifier.fields, "probabilities"


def _wanted(asked: Infer, default: Sequence[OutputName]) -> dict[OutputName, bool]:
    """Find the names of the outputs that were asked for, and whether they are binary."""
    binary = bool(asked.parameters and asked.parameters.binary_data_output)
    wanted = {}
    for output in asked.outputs or []:
        own = output.parameters.binary_data if output.parameters else None
        wanted[output.name] = binary if own is None else own
    return wanted or dict.fromkeys(default, binary)


def _packed(texts: Iterable[str]) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in map(str.encode, texts))


async def server(service: Service, request: Request) -> Response:  # noqa: ARG001
    """Say the server's name and extensions."""
    return json_answer(ServerMetadata("pedigree", "1", ["binary_tensor_data"]))


async def model(service: Service, request: Request) -> Response:
    """Describe the tensors of a model."""
    found = service.model(request.path_params["name"])
    classes = [len(found.classifier.labels)]
    outputs = [
        TensorMetadata(
            name,
            "BYTES" if name in TEXTS else "FP32",
            [-1, *(classes if name == "probabilities" else [])],
        )
        for name in _given(found.classifier)
    ]
    inputs = [TensorMetadata("text", "BYTES", [-1])]
    platform = f"{package_of(found.classifier.engine)}_onnx"
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
            "Classify a tensor of texts; binary tensors too, by the header "
            "Inference-Header-Content-Length.",
            infer,
            body=Infer,
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
