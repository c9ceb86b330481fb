"""The manifest of a model folder: what the model is, and the sha256 of each of its files.

Anybody may have made a folder. So no other file is read than the manifest and those it lists, these
are regular files that lie in the folder, and whatever they hold that can't be used is one sentence.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from src.core.errors import InputError, closest
from src.core.files import sha256, write_json
from src.predict.foreign import LARGEST, json_object, read_file

MANIFEST = "manifest.json"
PLAIN = re.compile(r"(?!\.+$)[\w.+ -]+")  # a name that leads nowhere else, on any system

Kind = Literal["text", "table"]  # what a model reads
# For each value of a manifest, what tells whether it can be one, and the words for that.
Shape = Mapping[str, tuple[Callable[[Any], bool], str]]


class Manifest(TypedDict):
    """The content of ``manifest.json`` of a model of texts.

    Attributes:
        min_score: the least probability with which a label is given; 0 in a file that names none.
        files: the sha256 of each file by its name.
    """

    labels: list[str]
    max_length: int
    max_characters: int
    pad_token_id: int
    min_score: float
    files: dict[str, str]


class TableManifest(TypedDict):
    """The content of ``manifest.json`` of a model of tables.

    Attributes:
        positive: the label that is looked for; "" where there are more than two.
        threshold: its least probability for that label to be given; 0 without one.
        files: the sha256 of each file by its name.
    """

    labels: list[str]
    positive: str
    threshold: float
    files: dict[str, str]


def write_table_manifest(
    folder: Path, *, labels: list[str], positive: str, threshold: float
) -> None:
    """Describe a folder of a model of tables, with the sha256 of each of its files."""
    manifest: TableManifest = {
        "labels": labels,
        "positive": positive,
        "threshold": threshold,
        "files": {file.name: sha256(file) for file in sorted(folder.iterdir())},
    }
    write_json(folder / MANIFEST, manifest)


def write_manifest(
    folder: Path, *, labels: list[str], max_length: int, max_characters: int, pad_token_id: int
) -> None:
    """Describe a model folder that is otherwise complete, with the sha256 of each of its files."""
    files = sorted(folder.iterdir())
    manifest: Manifest = {
        "labels": labels,
        "max_length": max_length,
        "max_characters": max_characters,
        "pad_token_id": pad_token_id,
        "min_score": 0.0,
        "files": {file.name: sha256(file) for file in files},
    }
    write_json(folder / MANIFEST, manifest)


def list_too(folder: Path, name: str, min_score: float | None = None) -> None:
    """Add a file of a model folder to its manifest, or its new sha256.

    ``min_score`` is written too, if there is one; it is of models of texts.

    Raises:
        InputError: as for ``read_manifest``.
    """
    manifest = manifest_of(folder)
    files = manifest["files"] | {name: sha256(folder / name)}
    said = {} if min_score is None else {"min_score": min_score}
    write_json(folder / MANIFEST, {**manifest, **said, "files": dict(sorted(files.items()))})


def manifest_of(folder: Path) -> Manifest | TableManifest:
    """Read the manifest of either kind; it raises as ``read_manifest`` does."""
    return read_manifest(folder) if kind_of(folder) == "text" else read_table_manifest(folder)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the folder of a model of texts.

    Raises:
        InputError: there is none, or it has another shape, or values that no model can have.
    """
    found = {"min_score": 0.0} | _found(folder)
    if _is_of_tables(found):
        raise InputError(
            f"{folder} is a model of tables, which reads no texts: pass --input with a table of "
            "its columns, or name a model of texts."
        )
    _expect(folder, found, SHAPE, ("model.onnx", "tokenizer.json"))
    return Manifest(
        labels=found["labels"],
        max_length=found["max_length"],
        max_characters=found["max_characters"],
        pad_token_id=found["pad_token_id"],
        min_score=found["min_score"],
        files=found["files"],
    )


def read_table_manifest(folder: Path) -> TableManifest:
    """Read the manifest of the folder of a model of tables; it raises as ``read_manifest`` does."""
    found = _found(folder)
    _expect(folder, found, TABLE_SHAPE, ("model.onnx", "schema.json", "usual.json"))
    two = len(found["labels"]) == 2
    if found["positive"] not in (found["labels"] if two else [""]):
        raise InputError(
            f"{folder / MANIFEST} has the positive label {found['positive']!r}, and the labels "
            f"{', '.join(found['labels'])}: get the model again."
        )
    return TableManifest(
        labels=found["labels"],
        positive=found["positive"],
        threshold=found["threshold"],
        files=found["files"],
    )


def kind_of(folder: Path) -> Kind:
    """Tell what a model reads; it raises as ``read_manifest`` does."""
    return "table" if _is_of_tables(_found(folder)) else "text"


def _is_of_tables(found: Mapping[str, Any]) -> bool:
    files = found.get("files")
    return isinstance(files, dict) and "schema.json" in files


def _found(folder: Path) -> dict[str, Any]:
    """Read what a folder has as its manifest, whatever its values are."""
    path = folder / MANIFEST
    try:
        return json_object(read_file(path), path)
    except (FileNotFoundError, NotADirectoryError):
        fault = "has no manifest.json, so it is not an exported model"
        if not folder.exists():
            inside = folder.parent
            near = [*inside.glob(f"*/{MANIFEST}"), *inside.glob(f"*/*/{MANIFEST}")]
            others = [path.parent.relative_to(inside).as_posix() for path in near]
            fault = f"does not exist, seen from {Path.cwd()}{closest(folder.name, others)}"
        raise InputError(
            f"{folder} {fault}: name a folder such as models/shipped, which `dvc repro` makes and "
            "`dvc pull` brings."
        ) from None


def _expect(folder: Path, found: dict[str, Any], shape: Shape, files: Sequence[str]) -> None:
    path = folder / MANIFEST
    for name, (fits, expected) in shape.items():
        if not fits(found.get(name)):
            raise InputError(
                f"{path} has no {name!r} as it was exported, {expected}: get the model again."
            )
    if absent := {*files} - found["files"].keys():
        raise InputError(f"{path} does not list {min(absent)}: get the model again.")


def _are_labels(value: Any) -> bool:
    return (
        isinstance(value, list)
        and all(isinstance(label, str) and label and _is_unicode(label) for label in value)
        and len(set(value)) == len(value) > 1
    )


def _is_unicode(text: str) -> bool:
    """Tell whether a text has no half of a surrogate pair, which JSON can hold and UTF-8 not."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _are_files(value: Any) -> bool:
    return isinstance(value, dict) and all(
        PLAIN.fullmatch(name)
        and len(name.encode()) <= 255
        and isinstance(digest, str)
        and re.fullmatch("[0-9a-f]{64}", digest)
        for name, digest in value.items()
    )


def _whole_from(least: int) -> tuple[Callable[[Any], bool], str]:
    return (
        lambda value: type(value) is int and least <= value <= LARGEST,  # a bool is an int as well
        f"a whole number from {least} to {LARGEST}",
    )


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


LABELS = (_are_labels, "at least two texts that differ")
FILES = (
    _are_files,
    "the sha256 of each file by its name, of letters, digits, spaces and any of . _ + -",
)
SHAPE: Shape = {
    "labels": LABELS,
    "max_length": _whole_from(1),
    "max_characters": _whole_from(1),
    "pad_token_id": _whole_from(0),
    "min_score": (
        lambda value: _is_number(value) and 0 <= value < 1,
        "a number from 0 on and below 1",
    ),
    "files": FILES,
}
TABLE_SHAPE: Shape = {
    "labels": LABELS,
    "positive": (lambda value: isinstance(value, str), "a text"),
    "threshold": (
        lambda value: _is_number(value) and 0 <= value <= 2,
        "a number from 0 to 2",
    ),
    "files": FILES,
}
