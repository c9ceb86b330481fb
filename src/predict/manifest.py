"""The manifest of a model folder: what the model is, and the sha256 of each of its files."""

import hashlib
import json
from pathlib import Path
from typing import TypedDict, get_origin, get_type_hints

from src.core.errors import InputError
from src.core.files import sha256, write_json


class Manifest(TypedDict):
    """The content of ``manifest.json``; ``files`` maps the name of each file to its sha256."""

    labels: list[str]
    max_length: int
    max_characters: int
    pad_token_id: int
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
        "files": {file.name: sha256(file) for file in files},
    }
    write_json(folder / "manifest.json", manifest)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a model folder.

    Raises:
        InputError: there is none, or it has another shape.
    """
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(
            f"{folder} is not an exported model, it has no manifest.json: name a folder such as "
            "models/onnx, which `dvc repro` makes and `dvc pull` brings."
        )
    try:
        manifest: Manifest = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}; get the model again.") from None
    kinds = {name: get_origin(kind) or kind for name, kind in get_type_hints(Manifest).items()}
    found = manifest if isinstance(manifest, dict) else {}
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind):
            raise InputError(f"{path} has no {name!r} as it was exported: get the model again.")
    if absent := {"model.onnx", "tokenizer.json"} - manifest["files"].keys():
        raise InputError(f"{path} does not list {min(absent)}: get the model again.")
    return manifest


def verified(path: Path, expected: str) -> bytes:
    """Read a file of a model folder.

    Raises:
        InputError: it is missing, or its sha256 is not the expected one.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path} is missing: get the model again.") from None
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise InputError(
            f"{path} is not the file that was exported: its sha256 is {found}, not {expected}; get "
            "the model again with `dvc checkout` or `dvc pull`."
        )
    return content
