"""Bring the model to start from into one form, with all that its later users must agree on.

That is safetensors, a fast tokenizer, a chat template, and the list of tokens that end an answer:
whoever generates by this folder stops where the others do.
"""

import hashlib
import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from transformers.utils import logging as transformers_logging

from src.chat import templates
from src.chat.models import RECORD, make_readable
from src.chat.rendering import Renderer
from src.chat.templates import TEMPLATES
from src.core import stage
from src.core.command_line import Count
from src.core.errors import InputError, closest
from src.core.files import replacing, scratch, sha256, write_json
from src.predict.foreign import one_line, refusing
from src.tables import sources
from src.training import pretrained

GGUF = ".gguf"
NO_MODEL = "can't be loaded as a language model"
REMEDY = (
    "name a folder or a Hugging Face model with safetensors weights and a tokenizer, or a GGUF "
    "file of a kind that transformers knows"
)

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
            _refuse_elsewhere(Path(place), checkpoint)
            model, tokenizer = _load(place, checkpoint, dtype)
    if not tokenizer.is_fast:
        raise InputError(
            f"{checkpoint} has no fast tokenizer (tokenizer.json): choose a model that has one."
        )
    # It would be saved with the model, whose bytes would then depend on HF_HUB_OFFLINE.
    tokenizer.init_kwargs.pop("local_files_only", None)
    if chat_template:
        tokenizer.chat_template = _template(chat_template)
    elif isinstance(tokenizer.chat_template, dict):  # one of several names
        tokenizer.chat_template = tokenizer.chat_template.get("default")
    renderer = Renderer(tokenizer)
    completed = renderer.template != tokenizer.chat_template
    tokenizer.chat_template = renderer.template  # by which everybody writes the same
    ends = end_tokens or [*dict.fromkeys([*renderer.ends, *_own_ends(model, tokenizer)])]
    model.generation_config.eos_token_id = _ids(tokenizer, ends)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or ends[-1]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    with replacing(base) as made:
        made.mkdir()
        try:
            model.save_pretrained(made)
            tokenizer.save_pretrained(made)
        except (ValueError, TypeError) as error:  # of settings that don't go together
            raise InputError(f"{checkpoint} {NO_MODEL} ({one_line(error)}): {REMEDY}.") from error
        write_json(made / RECORD, _found(model, tokenizer, made, checkpoint, dtype, ends))
        make_readable(made)
    log.info(
        "%s: %d weights in %s; an answer ends with %s; tools %s",
        *(model.config.architectures[0], model.num_parameters(), dtype, " or ".join(ends)),
        "as Hermes writes them" if completed else "by the template",
    )


def _of_gguf(
    checkpoint: str, expected: str, max_bytes: int, dtype: str, folder: Path
) -> tuple[Any, Any]:
    """Load a GGUF file, whose weights are unpacked: they are packed for llama.cpp alone."""
    (folder / "found").mkdir()
    found = sources.find([checkpoint], folder / "found", "", max_bytes, "base.checkpoint")
    if len(found) > 1:
        raise InputError(f"{checkpoint} stands for {len(found)} files: name one.")
    file = replace(found[0], name=checkpoint)
    if file.path.stat().st_size > max_bytes:
        raise InputError(f"{file} has more than {max_bytes} bytes: raise base.max_bytes.")
    with file.path.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise InputError(f"{file} is no GGUF file by its first bytes: get it again.")
    digest = sha256(file.path) if expected else ""
    if digest != expected:
        raise InputError(
            f"{file} has changed: its sha256 is {digest}, not {expected}; set base.sha256 to the "
            "new one if that is meant."
        )
    # By itself, as what lies beside it may be of another model.
    (alone := folder / "alone").mkdir()
    (alone / "model.gguf").symlink_to(file.path.resolve())
    unpacked = {"gguf_file": "model.gguf", "quantization_config": GgufConfig(dequantize=True)}
    return _load(str(alone), checkpoint, dtype, **unpacked)


def _load(place: str, checkpoint: str, dtype: str, **how: Any) -> tuple[Any, Any]:
    own = {"gguf_file": how["gguf_file"]} if how else {}
    with (
        refusing(f"{checkpoint} {NO_MODEL}", REMEDY),
        warnings.catch_warnings(action="ignore"),
    ):
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **own)
        kind: Any = AutoModelForCausalLM
        model, loaded = kind.from_pretrained(
            place,
            dtype=getattr(torch, dtype),
            trust_remote_code=False,
            output_loading_info=True,
            **(how or {"use_safetensors": True}),
        )
    bad = {*loaded["missing_keys"], *(name for name, *_ in loaded["mismatched_keys"])}
    if bad:
        raise InputError(
            f"{checkpoint} has {len(bad)} weights that are absent or don't fit its config, such as "
            f"{min(bad)}: get the model anew."
        )
    return model, tokenizer


def _refuse_elsewhere(folder: Path, checkpoint: str) -> None:
    """Stop if a model's folder names weights that are not the ones in it."""
    if "transformers_weights" in _described(folder / "config.json"):
        raise InputError(f"{checkpoint} names other weights in its config: get it anew.")
    weights = _described(folder / "model.safetensors.index.json").get("weight_map")
    named = weights.values() if isinstance(weights, dict) else []
    if odd := next((one for one in named if Path(str(one)).name != one), None):
        raise InputError(f"{checkpoint} names weights outside its folder, {odd!r}: get it anew.")


def _described(path: Path) -> dict[str, Any]:
    """Read an object of JSON; an empty one where it is none, which loading tells better."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


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
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{given} is not UTF-8: save the template as UTF-8.") from None


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


def _own_ends(model: Any, tokenizer: Any) -> list[str]:
    """Return the tokens that the model's own settings say end an answer."""
    own = model.generation_config.eos_token_id
    ids = own if isinstance(own, list) else [own]
    tokens = tokenizer.convert_ids_to_tokens([id for id in ids if isinstance(id, int)])
    return [token for token in tokens if token]


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
        "tool_calls": templates.call_form(tokenizer),
        "end_tokens": ends,
    }


if __name__ == "__main__":
    stage.run(main)
