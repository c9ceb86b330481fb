"""The manifest of a model folder: what the model is, and the sha256 of each of its files.

Anybody may have made a folder. So no other file is read than the manifest and those it lists, these
are regular files that lie in the folder, and whatever they hold that can't be used is one sentence.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from src.core.errors import InputError, closest
from src.core.files import sha256, write_json

MANIFEST = "manifest.json"
LARGEST = 2**31 - 1  # bytes of a file, tokens, characters: what protobuf and an int32 can hold
SMALL = 4 * 2**20  # bytes of a file that only describes
DESCRIBING = (MANIFEST, "README.md", "config.json", "tokenizer_config.json")
PLAIN = re.compile(r"(?!\.+$)[\w.+ -]+")  # a name that leads nowhere else, on any system
IN_CACHE = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")  # of DVC, which may link to it
SAID = 300  # characters of what a library says


class Manifest(TypedDict):
    """The content of ``manifest.json``.

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
    """Add a file of a model folder to its manifest, or its new sha256, and maybe ``min_score``.

    Raises:
        InputError: as for ``read_manifest``.
    """
    manifest = read_manifest(folder)
    files = manifest["files"] | {name: sha256(folder / name)}
    least = manifest["min_score"] if min_score is None else min_score
    said = {"min_score": least, "files": dict(sorted(files.items()))}
    write_json(folder / MANIFEST, manifest | said)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a model folder.

    Raises:
        InputError: there is none, or it has another shape, or values that no model can have.
    """
    path = folder / MANIFEST
    try:
        found = {"min_score": 0.0} | json_object(_read(path), path)
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
    for name, (fits, expected) in SHAPE.items():
        if not fits(found.get(name)):
            raise InputError(
                f"{path} has no {name!r} as it was exported, {expected}: get the model again."
            )
    if absent := {"model.onnx", "tokenizer.json"} - found["files"].keys():
        raise InputError(f"{path} does not list {min(absent)}: get the model again.")
    return Manifest(
        labels=found["labels"],
        max_length=found["max_length"],
        max_characters=found["max_characters"],
        pad_token_id=found["pad_token_id"],
        min_score=found["min_score"],
        files=found["files"],
    )


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


# For each value of a manifest, what tells whether it can be one, and the words for that.
SHAPE: dict[str, tuple[Callable[[Any], bool], str]] = {
    "labels": (_are_labels, "at least two texts that differ"),
    "max_length": _whole_from(1),
    "max_characters": _whole_from(1),
    "pad_token_id": _whole_from(0),
    "min_score": (
        lambda value: type(value) in (int, float) and 0 <= value < 1,
        "a number from 0 on and below 1",
    ),
    "files": (
        _are_files,
        "the sha256 of each file by its name, of letters, digits, spaces and any of . _ + -",
    ),
}


def verified(path: Path, expected: str) -> bytes:
    """Read a file of a model folder.

    Raises:
        InputError: it is missing, or its sha256 is not the expected one, or it is no regular file
            that lies in its folder.
    """
    try:
        content = _read(path)
    except FileNotFoundError:
        raise InputError(f"{path} is missing: get the model again.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise InputError(
            f"{path} is not the file that was exported: its sha256 is {found}, not {expected}; get "
            "the model again with `dvc checkout` or `dvc pull`."
        )
    return content


def _read(path: Path) -> bytes:
    """Read a regular file that lies in the folder of ``path``, or in DVC's cache by a link.

    Raises:
        FileNotFoundError, NotADirectoryError: it is not there.
        InputError: it is of another kind, lies elsewhere, is too large, or can't be read.
    """
    limit = SMALL if path.name in DESCRIBING else LARGEST
    try:
        target = os.path.realpath(path, strict=True)
        inside = Path(target).is_relative_to(os.path.realpath(path.parent))
        if not inside and not IN_CACHE.search(Path(target).as_posix()):
            raise InputError(
                f"{path} is a link out of its folder: put the file itself "
                "there, as `hf download --local-dir` does."
            )
        if not Path(target).is_file():
            raise InputError(f"{path} is a folder, pipe or device: get the model again.")
        with Path(target).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(size + 1) if size <= limit else b""
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise InputError(f"{path} can't be read, {error.strerror}: get the model again.") from None
    if size > limit:
        raise InputError(f"{path} has more than {limit} bytes: get the model again.")
    if len(content) != size:
        raise InputError(f"{path} changed while it was read: try again.")
    return content


def json_object(content: bytes, path: Path) -> dict[str, Any]:
    """Decode the JSON object that a file holds.

    Raises:
        InputError: it is no JSON, or another value than an object.
    """
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {one_line(error)}; get the model again.") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is not a JSON object: get the model again.")
    return found


@contextmanager
def refusing(what: str, remedy: str = "get the model again") -> Iterator[None]:
    """Turn whatever a library raises over foreign content into one sentence.

    Args:
        what: the start of the sentence: what can't be used, and for what.
        remedy: its end.

    Raises:
        InputError: the library raised something.
    """
    try:
        yield
    except BaseException as error:
        # Rust's panics are no Exception. Ctrl+C and the like are none either, and go on.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise InputError(f"{what} ({one_line(error)}): {remedy}.") from error


def one_line(error: BaseException | str) -> str:
    """Return what an error says, short, on one line and without what moves a terminal's cursor."""
    text = " ".join(str(error).split()) or type(error).__name__
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[:SAID])
    return shown.rstrip(".") + ("..." if len(text) > SAID else "")
