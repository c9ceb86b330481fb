"""The manifest of a folder of a reader: how it reads, and the sha256 of each of its files.

It is read as carefully as that of a classifier: anybody may have made the folder.
"""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from src.core.errors import InputError
from src.core.files import sha256, write_json
from src.predict.foreign import LARGEST, json_object, read_file
from src.predict.manifest import FILES, MANIFEST

KIND = "reader"
NEEDED = ("model.onnx", "tokenizer.json")


class ReaderManifest(NamedTuple):
    """The content of ``manifest.json``.

    Attributes:
        max_length: the tokens of a window.
        stride: the tokens that a window shares with the one before.
        max_question: the tokens of a question that are read.
        max_answer: the tokens of an answer at most.
        pad_token_id: the id of padding.
        slope: of the logistic curve from scores to probabilities.
        intercept: likewise.
        threshold: the least score of an answer; below it there is none.
        files: the sha256 of each file by its name.
    """

    max_length: int
    stride: int
    max_question: int
    max_answer: int
    pad_token_id: int
    slope: float
    intercept: float
    threshold: float
    files: dict[str, str]


def is_reader(folder: Path) -> bool:
    """Tell whether a folder says that it is that of a reader."""
    path = folder / MANIFEST
    with contextlib.suppress(OSError, InputError):  # what else it is says who reads it
        return json_object(read_file(path), path).get("kind") == KIND
    return False


def refuse(folder: Path) -> None:
    """Refuse the folder of a reader where a classifier is asked for.

    Raises:
        InputError: it is one.
    """
    if is_reader(folder):
        raise InputError(
            f"{folder} is a reader, which answers questions: use `python -m src.predict.ask`, or "
            "name a model of texts or tables."
        )


def write_reader_manifest(folder: Path, values: Mapping[str, Any]) -> None:
    """Describe a folder that is otherwise complete, with the sha256 of each of its files.

    Args:
        folder: of the reader.
        values: those of ``ReaderManifest``; its files are listed anew.
    """
    files = sorted(file for file in folder.iterdir() if file.name != MANIFEST)
    hashes = {file.name: sha256(file) for file in files}
    write_json(folder / MANIFEST, {"kind": KIND, **values, "files": hashes})


def read_reader_manifest(folder: Path) -> ReaderManifest:
    """Read the manifest of a reader.

    Raises:
        InputError: there is none, it is of another model, or has values that no reader can have.
    """
    path = folder / MANIFEST
    if not is_reader(folder):
        fault = "is not that of a reader" if path.exists() else "is not there"
        raise InputError(
            f"{path} {fault}: name a folder such as models/qa/shipped, which `dvc repro "
            "qa/dvc.yaml` makes and `dvc pull` brings."
        )
    found = json_object(read_file(path), path)
    for name in ReaderManifest._fields:
        value = found.get(name)
        if name == "files":
            fits, expected = FILES[0](value), FILES[1]
        elif name in ("slope", "intercept", "threshold"):
            fits = isinstance(value, int | float) and math.isfinite(value)
            fits &= type(value) is not bool
            expected = "a number"
        else:
            least = 0 if name in ("stride", "pad_token_id") else 1
            fits = type(value) is int and least <= value <= LARGEST
            expected = f"a whole number from {least} to {LARGEST}"
        if not fits:
            raise InputError(
                f"{path} has no {name!r} as it was exported, {expected}: get the model again."
            )
    if absent := {*NEEDED} - found["files"].keys():
        raise InputError(f"{path} does not list {min(absent)}: get the model again.")
    return ReaderManifest(**{name: found[name] for name in ReaderManifest._fields})
