"""Load the model that ``base`` wrote, and its tokenizer."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from src.core.errors import InputError

RECORD = "base.json"  # in the folder: where the model comes from, and how its answers end


def record(folder: Path) -> dict[str, Any]:
    """Read what ``base`` found of the model; InputError if it is not there."""
    path = folder / RECORD
    if not path.exists():
        raise InputError(f"There is no model in {folder}: run `dvc repro chat/dvc.yaml`.")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def tokenizer(folder: Path) -> Any:
    """Load the tokenizer of the model; InputError if it is not there."""
    record(folder)
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
