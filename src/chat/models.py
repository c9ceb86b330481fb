"""Load the model that ``base`` wrote, its tokenizer, and adapters that were trained on it."""

import io
import json
import shutil
import warnings
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from src.chat import attention, low_rank, norms
from src.core.errors import InputError
from src.core.files import sha256, write_json
from src.predict.foreign import refusing

RECORD = "base.json"  # in the folder: where the model comes from, and how its answers end
ADAPTER = "adapter_config.json"  # in the folder of an adapter, which PEFT wrote
WEIGHTS = "adapter_model.safetensors"
SANITY = "sanity.txt"  # which a training leaves there: what of its first row is learnt


def record(folder: Path) -> dict[str, Any]:
    """Read what ``base`` found of the model; InputError if it is not there."""
    path = folder / RECORD
    if not path.exists():
        raise InputError(_absent(folder, RECORD))
    with refusing(f"{path} can't be read"):
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        hashes: dict[str, str] = found["sha256"]
        if not all(isinstance(digest, str) for digest in hashes.values()):
            raise ValueError("sha256 has no hashes")
    return found


def _absent(folder: Path, file: str) -> str:
    """Say that a folder is none of a model, and which ones in it are."""
    inside = sorted(str(path.parent) for path in folder.glob(f"*/{file}"))
    name = f"name one of those in it, {', '.join(inside)}" if inside else "name another folder"
    gone = "" if folder.is_dir() else ", which is no folder"
    return (
        f"There is no {file} in {folder}{gone}: {name}, or bring back what the pipeline has made "
        "(`dvc checkout chat/dvc.yaml`, `dvc pull`) or make it (`dvc repro chat/dvc.yaml`)."
    )


def is_adapter(folder: Path) -> bool:
    """Tell whether a folder has an adapter, and no whole model."""
    return (folder / ADAPTER).exists()


def tokenizer(folder: Path) -> Any:
    """Load the tokenizer of the model; InputError if it is not there."""
    record(folder)
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def load(folder: Path, dtype: torch.dtype | None = None, **how: Any) -> Any:
    """Load the weights of a model.

    Args:
        folder: that of ``base``, or one of the same kind.
        dtype: what the weights become; None for what they are.
        how: further words for transformers, such as a quantization.

    Raises:
        InputError: it is not there.
    """
    record(folder)
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    kind: Any = AutoModelForCausalLM
    with redirect_stderr(io.StringIO()):  # where compressed-tensors draws bars, terminal or not
        model = kind.from_pretrained(
            folder,
            dtype=dtype or "auto",
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            **how,
        )
        packer = getattr(getattr(model, "hf_quantizer", None), "compressor", None)
        if packer:  # which unpacks what it has packed, else as the first answer is made
            packer.decompress_model(model)
    if not torch.cuda.is_available():
        attention.choose(model)
        norms.choose(model)
    return model


def ends(folder: Path) -> list[int]:
    """Return the ids of the tokens that end an answer; InputError if there is no model."""
    record(folder)
    kept = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    found = kept["eos_token_id"]
    return found if isinstance(found, list) else [found]


def with_adapter(model: Any, base: Path, adapter: Path) -> Any:
    """Put an adapter on the model that it was trained on.

    Args:
        model: of the folder ``base``.
        base: that folder.
        adapter: the folder that PEFT wrote, with the record of its base.

    Raises:
        InputError: there is no adapter, it is of another base, or it can't be loaded.
    """
    if not is_adapter(adapter):
        raise InputError(_absent(adapter, ADAPTER))
    expected, found = record(adapter)["sha256"], record(base)["sha256"]
    if expected != found:
        raise InputError(
            f"{adapter} was trained on another model than {base}: the sha256 of its weights was "
            f"{_hashes(expected)}, and is {_hashes(found)}; get the model that it belongs to, or "
            "train it again."
        )
    if record(adapter).get("template_sha256") != record(base).get("template_sha256"):
        raise InputError(
            f"{adapter} was trained with another chat template than {base} has: set "
            "base.chat_template to what it was, or train it again."
        )
    if not (adapter / WEIGHTS).exists():
        raise InputError(f"{adapter} has no {WEIGHTS}: get the adapter again.")
    with (
        refusing(f"{adapter} can't be put on {base}", "get the adapter again"),
        warnings.catch_warnings(action="ignore"),
    ):
        _refuse_others(json.loads((adapter / ADAPTER).read_text(encoding="utf-8")))
        found = PeftModel.from_pretrained(
            model, str(adapter), use_safetensors=True, autocast_adapter_dtype=False
        )
        with safe_open(adapter / WEIGHTS, "pt") as weights:
            stored = {*weights.keys()}
        # Embeddings are in no adapter of these kinds; PEFT would ask the hub about them.
        own = get_peft_model_state_dict(found, save_embedding_layers=False)
        if odd := stored ^ {*own}:
            raise ValueError(f"{len(odd)} weights are absent or of no layer, such as {min(odd)}")
        low_rank.quicken(found)
        return found.to(model.dtype)  # as servers compute it


def _refuse_others(config: dict[str, Any]) -> None:
    """Raise a ValueError if an adapter is of a kind that no stage here makes."""
    kind, start = config.get("peft_type"), config.get("init_lora_weights", True)
    if kind not in ("LORA", "PREFIX_TUNING"):
        raise ValueError(f"peft_type is {kind!r}, and LORA and PREFIX_TUNING are known")
    if start not in (True, False, "gaussian"):  # others change the model as they are loaded
        raise ValueError(f"init_lora_weights is {start!r}, and true, false and gaussian are known")


def _hashes(of: dict[str, str]) -> str:
    return ", ".join(digest[:12] for digest in of.values())


def copy_tokenizer(base: Path, folder: Path) -> None:
    """Copy all that is beside the weights of a model, but its config, which is saved with them."""
    for path in sorted(base.iterdir()):
        weights = path.suffix == ".safetensors" or path.name.endswith(".safetensors.index.json")
        if not weights and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)


def make_readable(folder: Path) -> None:
    """Let everybody read the files of a model; safetensors are written for their owner alone."""
    for path in folder.rglob("*.*"):
        path.chmod(0o644)


def write_record(base: Path, folder: Path, method: str, learnt: int) -> None:
    """Write of what a whole model was made, and the hashes of its own weights.

    Args:
        base: the folder of the model that it started from.
        folder: its own.
        method: how it was made.
        learnt: how many of its weights were.
    """
    of = record(base) | {"learnt": learnt}
    weights = {path.name: sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    made = {"sha256": weights, "base_sha256": of["sha256"], "method": method}
    write_json(folder / RECORD, of | made)


def learnt(base: Path, model: Path) -> int:
    """Count the weights that were learnt: those of an adapter, none of the base."""
    if model == base:
        return 0
    if not is_adapter(model):
        return int(record(model)["learnt"])
    with safe_open(model / WEIGHTS, "pt") as weights:
        return sum(weights.get_tensor(name).numel() for name in weights.keys())  # noqa: SIM118


def longest(model: Any) -> int:
    """Return the tokens that a model reads at most, beside those of a prefix."""
    config = model.config.get_text_config()
    before = getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", 0) or 0
    return int(getattr(config, "max_position_embeddings", 0) or 2**31) - before
