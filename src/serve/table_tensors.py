"""Tensors of tables in the Open Inference Protocol: one for each column that a model reads."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta, Struct

from src.predict.classifier import Probabilities, RecordAnswer
from src.serve.errors import invalid
from src.serve.models import TableModel
from src.serve.records import Value, check_count, features_of
from src.serve.request import Limits, hint
from src.serve.tensors import (
    InferParameters,
    Output,
    OutputParameters,
    Shape,
    TensorMetadata,
    TensorParameters,
    unpacked,
)

Datatype = Literal["BYTES", "BOOL", "INT32", "INT64", "FP32", "FP64"]
TYPES = {"BOOL": "?", "INT32": "<i4", "INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}  # in binary
OF_KIND: dict[str, Datatype] = {
    "number": "FP64",
    "boolean": "BOOL",
    "category": "BYTES",
    "date": "BYTES",
}
OutputName = Literal["label", "probability", "probabilities"]
GIVEN: tuple[OutputName, ...] = ("label", "probability", "probabilities")


class ColumnTensor(Struct):
    """The values of a column; without ``data``, they follow the JSON in binary."""

    name: str
    datatype: Datatype
    shape: Shape
    data: list[Value | list[Value]] | None = None
    parameters: TensorParameters | None = None


class WantedOfTable(Struct):
    """An output to answer with."""

    name: OutputName
    parameters: OutputParameters | None = None


class InferTable(Struct):
    """The body of ``/infer`` for a model of tables."""

    inputs: Annotated[list[ColumnTensor], Meta(min_length=1, title="a list of tensors")]
    id: str | None = None
    parameters: InferParameters | None = None
    outputs: list[WantedOfTable] | None = None


INFER = msgspec.json.Decoder(InferTable)


def items_of(
    model: TableModel, asked: InferTable, tail: bytes, limits: Limits
) -> list[tuple[Any, ...]]:
    """Return the records of tensors, as the queue takes them."""
    rows = asked.inputs[0].shape[0]
    check_count(rows, limits, "inputs[0].shape")
    columns: dict[str, list[Value]] = {}
    for place, tensor in enumerate(asked.inputs):
        name = f"inputs[{place}]"
        if tensor.shape[1:] not in ([], [1]) or tensor.shape[0] != rows:
            invalid(f"{name}.shape must be [{rows}] or [{rows}, 1], as for all columns.")
        if tensor.name in columns:
            invalid(f"{name} is called {tensor.name!r}, as one before it: send each column once.")
        size = tensor.parameters.binary_data_size if tensor.parameters else None
        if size is not None:
            if size > len(tail):
                invalid(f"{name} has a binary_data_size of {size}, and {len(tail)} bytes are left.")
            values, tail = _binary(tensor.datatype, tail[:size], name), tail[size:]
        elif tensor.data is None:
            invalid(f"{name}.data is missing: send it.")
        else:
            nested = (value if isinstance(value, list) else [value] for value in tensor.data)
            values = [value for part in nested for value in part]
        if len(values) != rows:
            invalid(f"{name} has {len(values)} values, but its shape says {rows}: make them agree.")
        columns[tensor.name] = values
    if tail:
        invalid(f"{len(tail)} bytes are left after the tensors: make binary_data_size agree.")
    for column in model.records.columns:
        if column not in columns:
            likely = hint(column, columns)
            invalid(f"inputs has no tensor {column!r}{likely}: send one for every column.")
    return model.scorer.items(features_of(model, columns, rows, "row ", limits))


def _binary(datatype: Datatype, content: bytes, name: str) -> list[Value]:
    if datatype == "BYTES":
        return list(unpacked(content, name))
    kind = np.dtype(TYPES[datatype])
    if len(content) % kind.itemsize:
        invalid(f"{name} has {len(content)} bytes, which are no values of {datatype}.")
    found = np.frombuffer(content, kind)
    # By their shortest text, as tables are read: 0.1 in FP32 is 0.1.
    values: list[Value] = [float(str(v)) for v in found] if datatype == "FP32" else found.tolist()
    return [None if value != value else value for value in values]  # NaN is not known


def output_of(
    name: OutputName, answers: Sequence[RecordAnswer], probabilities: Probabilities
) -> Output:
    """Return the values of an output."""
    if name == "label":
        return Output(name, "BYTES", [answer.label for answer in answers])
    if name == "probability":
        return Output(name, "FP64", np.array([answer.probability for answer in answers]))
    return Output(name, "FP64", probabilities)


def metadata(model: TableModel) -> tuple[list[TensorMetadata], list[TensorMetadata]]:
    """Describe the tensors that a model takes, and those that it gives."""
    columns = model.records.schema.columns
    inputs = [TensorMetadata(c.name, OF_KIND[c.kind], [-1, 1]) for c in columns]
    outputs = [
        TensorMetadata("label", "BYTES", [-1]),
        TensorMetadata("probability", "FP64", [-1]),
        TensorMetadata("probabilities", "FP64", [-1, len(model.labels)]),
    ]
    return inputs, outputs
