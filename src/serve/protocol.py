"""What clients send and get: the dialects of the server, without a network.

``POST /predict`` is that of Hugging Face text-embeddings-inference, ``POST /`` that of Hugging
Face's inference API, ``/v2`` the Open Inference Protocol with its binary tensors.
"""

import csv
import io
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from src.core.errors import closest
from src.predict.classifier import Logits, softmax
from src.serve.errors import invalid, too_large
from src.serve.request import Limits, rows_of

Scores = npt.NDArray[np.float64]

# An ideogram or kana stands for a word of its own, where no spaces part them.
WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|[^\W_]+(?:['\u2019][^\W_]+)*"
)
V2_INPUT = "text"
V2_VERSION = "1"  # of each model: the folder has one
V2_MODEL = ("/v2/models/{name}", f"/v2/models/{{name}}/versions/{V2_VERSION}")
V2_OUTPUTS = ("label", "score", "probabilities")
LENGTH_DIGITS = 9  # of the length of the JSON before tensors in binary


@dataclass(frozen=True)
class Request:
    """Texts to be classified, and how the answer is to look."""

    texts: list[str]
    model: str | None = None  # None is the default model
    single: bool = False
    truncate: bool = True
    raw_scores: bool = False
    function: str | None = None
    top_k: int | None = None


@dataclass(frozen=True)
class Tensors:
    """A request of the Open Inference Protocol; ``outputs`` maps a name to whether it is binary."""

    texts: list[str]
    id: str | None
    outputs: dict[str, bool]


def stacked(parts: Sequence[Scores], classes: int) -> Scores:
    """The rows of all parts, [texts, classes], also of none."""
    return np.concatenate([np.empty((0, classes)), *parts])


def ranked(labels: Sequence[str], scores: Scores) -> list[dict[str, Any]]:
    """The labels of one text with their scores, the highest first."""
    order = np.argsort(-scores, kind="stable")
    return [{"score": float(scores[k]), "label": labels[k]} for k in order]


def predict_request(content: bytes, limits: Limits) -> Request:
    """``/predict``: a text, a list of one text, or a list of such lists.

    Fields that it does not know are left alone, as in text-embeddings-inference.
    """
    found = _object(content)
    if found.get("truncation_direction", "Right") not in ("Right", "right"):
        invalid("truncation_direction must be 'Right': the model reads the start of a text.")
    inputs = _required(found, "inputs")
    batch = isinstance(inputs, list) and bool(inputs) and isinstance(inputs[0], list)
    rows = inputs if batch else [inputs]
    texts = [_single(row, f"inputs[{k}]" if batch else "inputs") for k, row in enumerate(rows)]
    limits.check(texts, "inputs")
    truncate = _value(found, "truncate", bool)
    return Request(
        texts,
        _value(found, "model", str),
        not batch,
        limits.auto_truncate if truncate is None else truncate,
        _value(found, "raw_scores", bool) or False,
    )


def _single(value: object, name: str) -> str:
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else []
    if len(parts) == 1 and isinstance(parts[0], str):
        return parts[0]
    if len(parts) == 2 and all(isinstance(part, str) for part in parts):
        invalid(
            f"{name} is a pair of texts, which this model does not take: a batch of two is "
            '[["a text"], ["another"]].'
        )
    return invalid(
        f'{name} must be a text, or a list of one text; a batch is [["a text"], ["another"]].'
    )


def hub_request(content: bytes, limits: Limits) -> Request:
    """``/``: a text or a list of texts, with ``parameters`` as ``huggingface_hub`` sends them."""
    found = _object(content, "inputs", "parameters", "options")
    inputs = _required(found, "inputs")
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        invalid("inputs must be a text or a list of texts.")
    limits.check(texts, "inputs")
    _value(found, "options", dict)
    parameters = _value(found, "parameters", dict) or {}
    refuse_unknown(parameters, ("function_to_apply", "top_k"), "parameters.")
    function = _value(parameters, "function_to_apply", str, "parameters.")
    if function not in (None, "softmax", "sigmoid", "none"):
        invalid("parameters.function_to_apply must be 'softmax', 'sigmoid' or 'none'.")
    top_k = _value(parameters, "top_k", int, "parameters.")
    if top_k is not None and top_k < 1:
        invalid("parameters.top_k must be at least 1.")
    return Request(texts, function=function, top_k=top_k, truncate=limits.auto_truncate)


def explain_request(content: bytes, limits: Limits) -> Request:
    """``/explain``: one text."""
    found = _object(content, "inputs", "model")
    text = _single(_required(found, "inputs"), "inputs")
    limits.check([text], "inputs")
    return Request([text], _value(found, "model", str), True)


def answer(request: Request, labels: Sequence[str], logits: Logits) -> list[Any]:
    """What ``/predict`` and ``/`` answer."""
    if request.raw_scores or request.function == "none":
        scores = logits.astype(np.float64)
    elif request.function == "sigmoid":
        with np.errstate(over="ignore"):
            scores = 1 / (1 + np.exp(-logits.astype(np.float64)))
    else:
        scores = softmax(logits)
    rows = [ranked(labels, row)[: request.top_k] for row in scores]
    return rows[0] if request.single else rows


def words_of(text: str, most: int) -> tuple[list[tuple[int, int]], int]:
    """Where the first ``most`` words of a text start and end, and how many more there are."""
    found = [match.span() for match in WORD.finditer(text)]
    return found[:most], max(0, len(found) - most)


def infer_request(content: bytes, header_length: str | None, limits: Limits) -> Tensors:
    """``/v2/models/NAME/infer``: JSON, or JSON of ``header_length`` bytes and tensors after it."""
    tail = b""
    if header_length is not None:
        # Python refuses to read numbers of thousands of digits; no body is a gigabyte long.
        short = header_length.isdecimal() and len(header_length) <= LENGTH_DIGITS
        if not short or (size := int(header_length)) > len(content):
            invalid("Inference-Header-Content-Length must be the length of the JSON in the body.")
        content, tail = content[:size], content[size:]
    found = _object(content)
    inputs = _value(found, "inputs", list)
    if not inputs or len(inputs) != 1 or not isinstance(inputs[0], dict):
        invalid(f"inputs must be a list of one tensor, {V2_INPUT!r}.")
    texts = _texts_of_tensor(inputs[0], tail, limits)
    parameters = _value(found, "parameters", dict) or {}
    binary = _value(parameters, "binary_data_output", bool, "parameters.") or False
    wanted: dict[str, bool] = {}
    for k, output in enumerate(_value(found, "outputs", list) or []):
        name = output.get("name") if isinstance(output, dict) else None
        if name not in V2_OUTPUTS:
            invalid(f"outputs[{k}].name must be one of {', '.join(V2_OUTPUTS)}.")
        own = _value(output, "parameters", dict, f"outputs[{k}].") or {}
        asked = _value(own, "binary_data", bool, f"outputs[{k}].parameters.")
        wanted[name] = binary if asked is None else asked
    outputs = wanted or dict.fromkeys(V2_OUTPUTS, binary)
    return Tensors(texts, _value(found, "id", str), outputs)


def _texts_of_tensor(tensor: dict[str, Any], tail: bytes, limits: Limits) -> list[str]:
    if tensor.get("name") != V2_INPUT:
        invalid(f"inputs[0].name must be {V2_INPUT!r}.")
    if tensor.get("datatype") != "BYTES":
        invalid("inputs[0].datatype must be 'BYTES'.")
    shape = _value(tensor, "shape", list, "inputs[0].")
    if not shape or not all(type(n) is int and n >= 0 for n in shape) or shape[1:] not in ([], [1]):
        invalid("inputs[0].shape must be [n] or [n, 1].")
    if shape[0] > limits.max_items:
        too_large(f"inputs[0] holds {shape[0]} texts: send at most {limits.max_items} at once.")
    parameters = _value(tensor, "parameters", dict, "inputs[0].") or {}
    size = _value(parameters, "binary_data_size", int, "inputs[0].parameters.")
    if size is not None:
        if size != len(tail):
            invalid(f"inputs[0] says it has {size} bytes, but {len(tail)} came after the JSON.")
        texts: list[Any] = list(_unpacked(tail))
    else:
        data = _value(tensor, "data", list, "inputs[0].")
        if data is None:
            invalid("inputs[0].data is missing.")
        texts = [one for row in data for one in (row if isinstance(row, list) else [row])]
    if not all(isinstance(text, str) for text in texts):
        invalid("inputs[0].data must hold texts.")
    if len(texts) != shape[0]:
        invalid(f"inputs[0].shape says {shape[0]} texts, but its data holds {len(texts)}.")
    limits.check(texts, "inputs[0]")
    return texts


def _unpacked(tail: bytes) -> Iterator[str]:
    """The elements of a BYTES tensor: a length of four bytes, little-endian, before each."""
    place = 0
    while place < len(tail):
        end = place + 4 + int.from_bytes(tail[place : place + 4], "little")
        if end > len(tail):
            invalid("inputs[0] ends in the middle of a text.")
        try:
            yield tail[place + 4 : end].decode()
        except UnicodeDecodeError:
            invalid("inputs[0] must be in UTF-8.")
        place = end


def infer_answer(
    model: str, request: Tensors, labels: Sequence[str], logits: Logits, cut: Sequence[bool]
) -> tuple[bytes, int | None]:
    """The body, and the length of its JSON if tensors in binary follow it."""
    scores = softmax(logits).astype(np.float32)
    best = scores.argmax(axis=1)
    names = [labels[k] for k in best]
    values = {
        "label": ("BYTES", names, [len(names)], _packed(names)),
        **{
            name: ("FP32", array.ravel().tolist(), list(array.shape), array.tobytes())
            for name, array in (("score", scores.max(axis=1)), ("probabilities", scores))
        },
    }
    outputs, tail = [], b""
    for name, binary in request.outputs.items():
        kind, data, shape, packed = values[name]
        output: dict[str, Any] = {"name": name, "datatype": kind, "shape": shape}
        if binary:
            output["parameters"] = {"binary_data_size": len(packed)}
            tail += packed
        else:
            output["data"] = data
        outputs.append(output)
    body: dict[str, Any] = {"model_name": model, "model_version": V2_VERSION, "outputs": outputs}
    if request.id is not None:
        body["id"] = request.id
    if True in cut:
        # Parameters of this protocol are no lists, so it is the JSON of one.
        body["parameters"] = {"truncated": f"[{rows_of(cut)}]"}
    head = orjson.dumps(body)
    return head + tail, len(head) if any(request.outputs.values()) else None


def _packed(texts: Iterable[str]) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in map(str.encode, texts))


@dataclass(frozen=True)
class Table:
    """A CSV file that was sent: its header, its rows, and the texts of those that have one."""

    header: list[str]
    rows: list[list[str]]
    given: list[bool]
    texts: list[str]

    def answer(self, labels: Sequence[str], scores: Scores, prefix: str) -> bytes:
        """The table with the columns ``label`` and ``score`` after its own, empty without text."""
        file = io.StringIO(newline="")
        writer = csv.writer(file)
        writer.writerow([*self.header, f"{prefix}label", f"{prefix}score"])
        values = iter(scores)
        for row, given in zip(self.rows, self.given, strict=True):
            if given:
                best = int((found := next(values)).argmax())
                writer.writerow([*row, labels[best], repr(float(found[best]))])
            else:
                writer.writerow([*row, "", ""])
        return file.getvalue().encode()


def table(content: bytes, column: str, prefix: str, limits: Limits) -> Table:
    """Read a CSV file with a header, in UTF-8.

    Raises:
        Problem: it is not one, has too many rows, or names that the answer needs.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        invalid(f"The file must be in UTF-8, but byte {error.start} is not.")
    csv.field_size_limit(limits.max_upload)  # the limits of the server hold, not that of csv
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = next(reader, [])
        _check_header(header, column, prefix)
        rows = list(_rows(reader, len(header), limits.max_rows))
    except csv.Error as error:
        invalid(f"Line {reader.line_num} is no CSV: {error}.")
    index = header.index(column)
    texts = [row[index] for row in rows]
    given = [bool(text.strip()) for text in texts]
    for number, one in enumerate(texts, 1):
        if len(one) > limits.max_characters:
            too_large(
                f"Row {number} has a text of {len(one)} characters: send at most "
                f"{limits.max_characters}."
            )
    return Table(header, rows, given, list(compress(texts, given)))


def _check_header(header: list[str], column: str, prefix: str) -> None:
    if column not in header:
        hint = closest(column, header)
        invalid(f"text_column must be one of the file's columns{hint}.")
    for name in (f"{prefix}label", f"{prefix}score"):
        if name in header:
            invalid(f"The file has a column {name!r} already: set prefix, as in prefix=my_.")


def _rows(reader: Any, fields: int, most: int) -> Iterator[list[str]]:
    for count, row in enumerate(filter(None, reader), 1):
        if len(row) != fields:
            invalid(f"Line {reader.line_num} has {len(row)} fields, but the header {fields}.")
        if count > most:
            too_large(f"The file has more than {most} rows: send it in parts.")
        yield row


def _object(content: bytes, *known: str) -> dict[str, Any]:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        invalid(f"The body must be JSON: {error}.")
    if not isinstance(found, dict):
        invalid("The body must be a JSON object.")
    if known:
        refuse_unknown(found, known)
    return found


def refuse_unknown(found: Iterable[str], known: Sequence[str], prefix: str = "") -> None:
    """Refuse names that mean nothing here: most are mistyped.

    Raises:
        Problem: names the first, and what is known.
    """
    for name in found:
        if name not in known:
            hint = closest(name, known)
            invalid(f"{prefix}{name[:40]} is not known{hint}: send {', '.join(known)}.")


def _required(found: dict[str, Any], name: str) -> Any:
    if name not in found:
        invalid(f"{name} is missing.")
    return found[name]


def _value(found: dict[str, Any], name: str, kind: type, prefix: str = "") -> Any:
    """The value of a field that may be left out or null, if it is of the kind."""
    value = found.get(name)
    if value is not None and type(value) is not kind:
        names = {bool: "true or false", str: "a text", int: "a whole number", list: "a list"}
        invalid(f"{prefix}{name} must be {names.get(kind, 'an object')}.")
    return value
