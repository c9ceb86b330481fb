"""Whether a graph in ONNX names other files, told from its bytes alone.

The values of a tensor may lie in another file, and whoever asks such a model could be answered with
them. The runtimes open these files wherever the process may, so no such graph is given to them.
"""

from collections.abc import Iterator

# The messages of ONNX in which a tensor can stand, and the fields that lead to it by their numbers.
LEADING: dict[str, dict[int, str]] = {
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
EXTERNAL_DATA, DATA_LOCATION = 13, 14  # the fields of a tensor that say where its values lie
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
    left = [("ModelProto", 0, len(model))]
    while left:
        message, start, end = left.pop()
        for field, wire, at, after in _fields(model, start, end):
            elsewhere = field == DATA_LOCATION and model[at:after] != b"\0"  # which is: here
            if message == "TensorProto" and (elsewhere or field == EXTERNAL_DATA):
                return True
            if field in LEADING[message] and wire == BYTES:
                left.append((LEADING[message][field], at, after))
    return False


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
