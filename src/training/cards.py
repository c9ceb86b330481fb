"""Sections of a model card that are alike for every kind of model, in Markdown."""

import platform
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from src.core.errors import InputError
from src.core.files import sha256
from src.core.markdown import code, table

UNSAID = "Not stated."


def expect_license(license: str, place: str) -> None:
    """Stop if a license is no identifier.

    Args:
        license: "" for none.
        place: the params.yaml that has it, for the message.
    """
    if license and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise InputError(
            f"card.license is {license!r}: expected an identifier of Hugging Face's, such as "
            f"apache-2.0, mit or other, or ''; change it in {place}."
        )


def on_hub(checkpoint: str) -> str | None:
    """Return a checkpoint that is named as Hugging Face's hub has it, None for others."""
    try:
        validate_repo_id(checkpoint)
    except HFValidationError:
        return None
    return None if Path(checkpoint).exists() else checkpoint


def intended_use(said: str, **further: str) -> list[str]:
    """Say what the owners of the model say of it: its use, and a row for each further entry."""
    rows = [[name, " ".join(value.split()) or UNSAID] for name, value in further.items()]
    return ["## Intended use", said.strip() or UNSAID, table(["", ""], rows)]


def params(values: Mapping[str, Any]) -> str:
    """Show params as a table."""
    return table(["param", "value"], [[code(key), code(value)] for key, value in values.items()])


def files(folder: Path, packages: Sequence[str], saved: str = "") -> list[str]:
    """List the files of a folder with their hashes, and the versions of packages.

    The manifest is not among them: it has the hash of this card. ``saved`` ends the sentence about
    versions.
    """
    manifest = (folder / "manifest.json").exists()
    found = sorted(path for path in folder.iterdir() if path.name != "manifest.json")
    rows = [[path.name, f"{path.stat().st_size:,}", code(sha256(path))] for path in found]
    versions = [["Python", platform.python_version()]]
    for package in packages:
        try:
            versions.append([package, version(package)])
        except PackageNotFoundError:  # such as onnxruntime where onnxruntime-gpu is in its place
            continue
    return [
        "## Files",
        *["`manifest.json` has the same hashes, and that of this card."] * manifest,
        table(["file", "bytes", "sha256"], rows),
        "## Versions",
        f"Installed when this card was written{saved}.",
        table(["package", "version"], versions),
    ]
