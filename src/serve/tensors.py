"""Tensors of the Open Inference Protocol, in JSON or in binary after it."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from msgspec import Meta, Struct

from src.serve.errors import invalid

# Of an input: a value a row.
Shape = Annotated[
    list[Annotated[int, Meta(ge=0)]],
    Meta(min_length=1, max_length=2, title="[n] or [n, 1]"),
]


class TensorParameters(Struct):
    """The number of bytes of a binary tensor."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None


class OutputParameters(Struct):
    """The choice of a binary output, and of the best classes, which are not for choice here."""

    binary_data: bool | None = None
    classification: Annotated[
        Literal[0] | None, Meta(title="left out, with class_count: all probabilities are given")
    ] = None


class InferParameters(Struct):
    """The choice of binary outputs, for those that don't choose themselves."""

    binary_data_output: bool | None = None


class OutputTensor(Struct, omit_defaults=True):
    """An output; without ``data``, it follows the JSON in binary."""

    name: str
    datatype: str
    shape: list[int]
    parameters: TensorParameters | None = None
    data: list[str | float] | None = None


class TensorMetadata(Struct):
    """The name, type and shape of a tensor; -1 is any number."""

    name: str
    datatype: str
    shape: list[int]


class Output(NamedTuple):
    """The values of an output: texts, or an array of numbers."""

    name: str
    datatype: str
    values: Any


def tensors_of(outputs: Iterable[tuple[Output, bool]]) -> tuple[list[OutputTensor], bytes]:
    """Make the tensors of outputs, and the bytes of those that are wanted in binary."""
    made, tail = [], b""
    for (name, datatype, values), binary in outputs:
        if datatype == "BYTES":
            shape, data, content = [len(values)], list(values), packed(values)
        else:
            array = np.asarray(values, "<f4" if datatype == "FP32" else "<f8")
            shape, data, content = list(array.shape), array.ravel().tolist(), array.tobytes()
        tensor = OutputTensor(name, datatype, shape)
        if binary:
            tensor.parameters = TensorParameters(len(content))
            tail += content
        else:
            tensor.data = data
        made.append(tensor)
    return made, tail


def packed(texts: Sequence[str]) -> bytes:
    """Write the elements of a BYTES tensor."""
    return b"".join(struct.pack("<I", len(text)) + text for text in map(str.encode, texts))


def unpacked(content: bytes, name: str) -> Iterator[str]:
    """Read the elements of a BYTES tensor: a length of four bytes, little-endian, before each."""
    place = 0
    while place < len(content):
        end = place + 4 + int.from_bytes(content[place : place + 4], "little")
        if end > len(content):
            invalid(f"{name} ends in the middle of a text: send four bytes of length before each.")
        try:
            yield content[place + 4 : end].decode()
        except UnicodeDecodeError:
            invalid(f"{name} has bytes that are not UTF-8: send texts in UTF-8.")
        place = end
