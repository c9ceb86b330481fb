"""Whether a graph in ONNX names other files, and what kind it is, told from its bytes alone.

The values of a tensor may lie in another file, and whoever asks such a model could be answered with
them. The runtimes open these files wherever the process may, so no such graph is given to them.
"""

from collections.abc import Iterator, Mapping

Leading = Mapping[str, Mapping[int, str]]  # to further messages, by the number of a field

# The messages of ONNX in which a tensor can stand, and the fields that lead to it by their numbers.
LEADING: Leading = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        5: "TensorProto",
        6: "GraphProto",
        10: "TensorProto",
        11: "GraphProto",
        22: "SparseTensorProto",
        23: "SparseTensorProto",
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {},
}
# Those that lead to the nodes and weights of the graph itself, but not into the nodes, since a
# forest's numbers take seconds to go through.
SHALLOW: Leading = {
    "ModelProto": {7: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto"},
    "NodeProto": {},
    "TensorProto": {},
}
OPERATOR = 4  # the field of a node that names it
DATA_TYPE = 2  # the field of a tensor that says what its values are
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # the fields of a tensor that say where its values lie
ATTENTION = (b"Softmax", b"Attention")  # whole, since ONNX 1.18, or of its parts
WIDE = (b"\x01", b"\x06", b"\x07", b"\x09")  # fp32, int32, int64, and bool, which no weight is
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # how a field is written


def names_other_files(model: bytes) -> bool:
    """Tell whether a tensor anywhere in a graph says that its values lie elsewhere.

    Args:
        model: a ``ModelProto`` as protobuf writes it; it is not copied.

    Raises:
        ValueError: these are no messages of protobuf.
    """
    # No place can be named without this key, and a forest's numbers take seconds to go through.
    if b"location" not in model:
        return False
    for message, field, start, end in _walked(model, LEADING):
        elsewhere = field == DATA_LOCATION and model[start:end] != b"\0"  # which is: here
        if message == "TensorProto" and (elsewhere or field == EXTERNAL_DATA):
            return True
    return False


def is_fp32_transformer(model: bytes) -> bool:
    """Tell whether a graph has attention, and no weight of fewer bits than fp32 has.

    Raises:
        ValueError: as for ``names_other_files``.
    """
    attends = False
    for message, field, start, end in _walked(model, SHALLOW):
        if message == "NodeProto" and field == OPERATOR:
            attends = attends or model[start:end] in ATTENTION
        elif message == "TensorProto" and field == DATA_TYPE and model[start:end] not in WIDE:
            return False
    return attends


def _walked(model: bytes, leading: Leading) -> Iterator[tuple[str, int, int, int]]:
    """Yield the fields of messages: the kind of message, the field's number, its start and end."""
    left = [("ModelProto", 0, len(model))]
    while left:
        message, start, end = left.pop()
        for field, wire, at, after in _fields(model, start, end):
            yield message, field, at, after
            if wire == BYTES and field in leading[message]:
                left.append((leading[message][field], at, after))


def _fields(model: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield the number of each field of a message, how it is written, its start and its end."""
    while at < end:
        tag, start = _varint(model, at, end)
        field, wire = tag >> 3, tag & 7
        if wire == VARINT:
            _, at = _varint(model, start, end)
        elif wire == BYTES:
            size, start = _varint(model, start, end)
            at = start + size
        elif wire in (FIXED32, FIXED64):
            at = start + (4 if wire == FIXED32 else 8)
        else:  # groups, which ONNX has none of
            raise ValueError(f"a field is written in the way {wire}")
        if not 0 < field < 2**29 or at > end:
            raise ValueError(f"field {field} is cut off, or none")
        yield field, wire, start, at


def _varint(model: bytes, at: int, end: int) -> tuple[int, int]:
    """Read a number of seven bits a byte, the lowest first; return it and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = model[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError("a number is cut off")
