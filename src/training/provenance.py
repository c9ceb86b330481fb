"""The record beside a model: the versions and the processor that trained it.

DVC records what goes into a model, but not what computed it: its hashes are the same on every
machine. So a stage that trains leaves a file of its own beside the model, which is in git and not
among the outs in dvc.yaml. ``python -m src.tools.pedigree`` reads it.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.core.files import replacing, sha256, write_json


def record_of(model: Path) -> Path:
    """Return the path of a model's record, such as ``models/transformer.json``."""
    return model.with_name(f"{model.name}.json")


def record(model: Path, *packages: str, params: Mapping[str, Any], **settings: str | int) -> None:
    """Write the environment of this process beside a model, once the model is in its place.

    Nothing in it but a param names a machine, a user or a time: equal environments write equal
    records.

    Args:
        model: the folder that has been trained.
        packages: the distributions that computed it, by their names on the package index.
        params: those that it was trained with, which dvc.lock must have too.
        settings: other values that decide the last bits, such as threads, precision and seed.

    Raises:
        OSError: the record can't be written.
    """
    files = {path.relative_to(model).as_posix(): path for path in model.rglob("*")}
    files = {name: path for name, path in sorted(files.items()) if path.is_file()}
    content: dict[str, Any] = {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "processor": _processor(),
        "params": dict(params),
        "settings": settings,
        "md5": _md5_of_folder(files),
        "sha256": {name: sha256(path) for name, path in files.items()},
    }
    if "torch" in packages:
        content["torch"] = _torch()
    with replacing(record_of(model)) as file:
        write_json(file, content)


def _md5_of_folder(files: dict[str, Path]) -> str:
    """Compute the hash that dvc.lock will hold for the folder, which tells whose record it is.

    Source: ``dvc_data.hashfile.tree.Tree.as_bytes``; a test compares both.
    """
    listing = []
    for name, path in files.items():
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
        listing.append({"md5": digest.hexdigest(), "relpath": name})
    text = json.dumps(listing, sort_keys=True).encode()
    return hashlib.md5(text, usedforsecurity=False).hexdigest() + ".dir"


def _processor() -> list[str]:
    """List the instruction sets that numpy finds; another one changes the last bits of sums."""
    import numpy as np

    shown: Any = np.show_config(mode="dicts")
    return [*map(str, shown["SIMD Extensions"].get("found", []))]


def _torch() -> dict[str, str]:
    """Describe the build of torch, how it was compiled, and the device it computes on."""
    import torch

    compiled = torch.__config__.show().encode()
    gpu = torch.cuda.is_available()
    return {
        "build": torch.__version__,
        "config_sha256": hashlib.sha256(compiled).hexdigest(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name() if gpu else "cpu",
    }
