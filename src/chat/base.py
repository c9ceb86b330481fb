"""Bring the model to start from into one form, with all that its later users must agree on.

That is safetensors, a fast tokenizer, a chat template, and the list of tokens that end an answer:
whoever generates by this folder stops where the others do.
"""

import hashlib
import logging
import struct
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from src.chat.models import RECORD
from src.chat.rendering import TEMPLATES, Renderer
from src.core import stage
from src.core.command_line import Count
from src.core.errors import InputError, closest
from src.core.files import replacing, scratch, sha256, write_json
from src.tables import sources
from src.training import pretrained

GGUF = ".gguf"
# What loading somebody else's file can raise, besides an error of the project.
BROKEN = (OSError, ValueError, KeyError, IndexError, ImportError, RuntimeError, struct.error)

log = logging.getLogger("src.chat.base")


def main(
    watched: Path,
    base: Path,
    *,
    checkpoint: str,
    sha256: str,
    max_bytes: Count,
    dtype: Literal["bfloat16", "float16", "float32"],
    end_tokens: list[str],
    chat_template: str,
) -> None:
    """Write the model's folder.

    Args:
        watched: the folder whose files DVC watches for changes.
        base: the folder that gets the model, its tokenizer, template and ``base.json``.
    """
    sources.warn_of_unwatched([one for one in (checkpoint, chat_template) if one], watched)
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with scratch(base) as folder:
        if checkpoint.lower().endswith(GGUF):
            model, tokenizer = _of_gguf(checkpoint, sha256, max_bytes, dtype, folder)
        else:
            place = pretrained.resolve(checkpoint, sha256, "base")
            model, tokenizer = _load(place, checkpoint, dtype)
    if not tokenizer.is_fast:
        raise InputError(
            f"{checkpoint} has no fast tokenizer (tokenizer.json): choose a model that has one."
        )
    # It would be saved with the model, whose bytes would then depend on HF_HUB_OFFLINE.
    tokenizer.init_kwargs.pop("local_files_only", None)
    if chat_template:
        tokenizer.chat_template = _template(chat_template)
    renderer = Renderer(tokenizer)
    ends = end_tokens or renderer.ends
    model.generation_config.eos_token_id = _ids(tokenizer, ends)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or ends[-1]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    with replacing(base) as made:
        _save(model, tokenizer, made)
        write_json(made / RECORD, _found(model, tokenizer, made, checkpoint, dtype, ends))
        for path in made.rglob("*"):
            path.chmod(0o644)  # safetensors are written for their owner alone
    log.info(
        "%s: %d weights in %s; an answer ends with %s; tools %s",
        *(model.config.architectures[0], model.num_parameters(), dtype, " or ".join(ends)),
        "by the template" if renderer.knows_tools else "as Hermes writes them",
    )


def _of_gguf(
    checkpoint: str, expected: str, max_bytes: int, dtype: str, folder: Path
) -> tuple[Any, Any]:
    """Load a GGUF file, whose weights are unpacked: they are packed for llama.cpp alone."""
    (file,) = sources.find([checkpoint], folder, "", max_bytes, "base.checkpoint")
    with file.path.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise InputError(f"{file} is no GGUF file by its first bytes: get it again.")
    found = sha256(file.path) if expected else ""
    if found != expected:
        raise InputError(
            f"{file} has changed: its sha256 is {found}, not {expected}; set base.sha256 to the "
            "new one if that is meant."
        )
    unpacked = {"gguf_file": file.path.name, "quantization_config": GgufConfig(dequantize=True)}
    return _load(str(file.path.parent), checkpoint, dtype, **unpacked)


def _load(place: str, checkpoint: str, dtype: str, **how: Any) -> tuple[Any, Any]:
    own = {"gguf_file": how["gguf_file"]} if how else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **own)
            kind: Any = AutoModelForCausalLM
            model, loaded = kind.from_pretrained(
                place,
                dtype=getattr(torch, dtype),
                trust_remote_code=False,
                output_loading_info=True,
                **(how or {"use_safetensors": True}),
            )
    except (*BROKEN, SafetensorError) as error:
        reason = " ".join(str(error).split())[:160].rstrip(". ")
        raise InputError(
            f"{checkpoint} can't be loaded as a language model ({reason}): name a folder or a "
            "Hugging Face model with safetensors weights and a tokenizer, or a GGUF file of a kind "
            "that transformers knows."
        ) from error
    bad = {*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])}
    if bad:
        raise InputError(
            f"{checkpoint} has {len(bad)} weights that are absent or don't fit its config, such as "
            f"{min(bad)}: get the model anew."
        )
    return model, tokenizer


def _template(given: str) -> str:
    if given in TEMPLATES:
        return TEMPLATES[given]
    path = Path(given)
    if not path.is_file():
        raise InputError(
            f"base.chat_template is {given!r}, which is no file{closest(given, TEMPLATES)}: write "
            f"one of {', '.join(TEMPLATES)}, the path of a template of Jinja, or '' for the "
            "model's own."
        )
    return path.read_text(encoding="utf-8")


def _ids(tokenizer: Any, ends: list[str]) -> list[int]:
    """Return the ids of tokens that end an answer."""
    known = tokenizer.get_vocab()
    if not ends:
        raise InputError(
            "Nothing ends an answer, for the template writes no token after it and the tokenizer "
            "has none: name them in base.end_tokens."
        )
    for end in ends:
        if end not in known:
            raise InputError(
                f"{end!r} ends an answer, and is no token of the model{closest(end, known)}: set "
                "base.end_tokens, or base.chat_template to one whose tokens it has."
            )
    return [known[end] for end in ends]


def _save(model: Any, tokenizer: Any, folder: Path) -> None:
    folder.mkdir()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _found(
    model: Any, tokenizer: Any, folder: Path, checkpoint: str, dtype: str, ends: list[str]
) -> dict[str, Any]:
    weights = sorted(folder.glob("*.safetensors"))
    return {
        "checkpoint": checkpoint,
        "architecture": model.config.architectures[0],
        "parameters": model.num_parameters(),
        "dtype": dtype,
        "sha256": {path.name: sha256(path) for path in weights},
        "template_sha256": hashlib.sha256(tokenizer.chat_template.encode()).hexdigest(),
        "end_tokens": ends,
    }


if __name__ == "__main__":
    stage.run(main)
