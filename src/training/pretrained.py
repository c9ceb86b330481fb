"""Checkpoints to start from: find one, hold it against its sha256, load it with its tokenizer."""

import logging
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from src.core import files
from src.core.errors import InputError, closest
from src.core.packages import package_path

log = logging.getLogger("src.training.pretrained")


def resolve(checkpoint: str, sha256: str, section: str) -> str:
    """Find where to load a checkpoint from: a folder, or a Hugging Face name as it is.

    Args:
        checkpoint: a folder, ``pkg://package/path``, or the name of a model on the hub.
        sha256: what ``model.safetensors`` must hash to; "" to accept any.
        section: the section of params.yaml whose ``checkpoint`` and ``sha256`` these are.

    Raises:
        InputError: the weights can't be found, or hash to something else.
    """
    place = package_path(checkpoint)
    _refuse_other_folders(place, checkpoint, section)
    if not sha256:
        if Path(place).is_dir():
            log.warning("DVC can't see when %s changes: pin %s.sha256", checkpoint, section)
        return place
    try:
        weights = Path(str(cached_file(place, "model.safetensors")))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{place} has no model.safetensors for {section}.sha256 to pin ({_brief(error)}): "
            f"correct {section}.checkpoint, or make {section}.sha256 ''."
        ) from error
    if (found := files.sha256(weights)) != sha256:
        raise InputError(
            f"Expected sha256 {sha256} of {weights}, found {found}: get the weights that were "
            f"pinned, or change {section}.sha256."
        )
    return place


def _refuse_other_folders(place: str, checkpoint: str, section: str) -> None:
    """Stop if a path leads nowhere, or to a folder that holds an adapter alone."""
    folder = Path(place)
    # A name of the hub looks like a relative path; below a folder that is here it is one.
    named = re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", place)
    if not folder.is_dir() and (not named or ("/" in place and folder.parent.is_dir())):
        near = closest(folder.name, (other.name for other in folder.parent.glob("*/")))
        raise InputError(
            f"There is no folder at {checkpoint}, seen from {Path.cwd()}{near}: correct "
            f"{section}.checkpoint."
        )
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise InputError(
            f"{checkpoint} holds an adapter and not the model that it changes: merge it into its "
            f"base model (merge_and_unload of PEFT), save that with its tokenizer, and name its "
            f"folder in {section}.checkpoint."
        )


def from_pretrained(
    place: str, kind: Any, *, new_head: bool, **config: Any
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load a model, in float32, and its fast tokenizer.

    Args:
        place: a folder or a Hugging Face name.
        kind: the auto class of the task, such as ``AutoModelForSequenceClassification``.
        new_head: whether the head may be absent, or be for other classes, and then starts at
            random; the rest of the model may never be of another shape.
        config: overrides the model's own config.

    Raises:
        InputError: there is no readable checkpoint, it lacks weights, or has no fast tokenizer.
    """
    # The library's own report on missing weights can't tell a new head from a broken encoder.
    transformers_logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        # It would be saved with the model, whose bytes would then depend on HF_HUB_OFFLINE.
        tokenizer.init_kwargs.pop("local_files_only", None)
        model, loaded = kind.from_pretrained(
            place,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # _expect_all_weights looks at them
            output_loading_info=True,
            **config,
        )
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise InputError(
            f"{place} can't be loaded as a checkpoint ({_brief(error)}): name a folder or a "
            "Hugging Face model that has safetensors weights and a tokenizer."
        ) from error
    if not tokenizer.is_fast:
        raise InputError(
            f"{place} has no fast tokenizer (tokenizer.json): choose a checkpoint that has one."
        )
    _expect_all_weights(model, loaded, place, new_head)
    return model, tokenizer


def _expect_all_weights(model: Any, loaded: Any, place: str, new_head: bool) -> None:
    """Refuse weights that are absent or of another shape; a new head may be either."""
    missing = set(loaded["missing_keys"])
    bad = {name for name, *_ in loaded["mismatched_keys"]}
    if new_head:
        prefix = f"{model.base_model_prefix}."
        whole = not hasattr(model, model.base_model_prefix)  # an encoder without a head

        def is_head(name: str) -> bool:
            return name.startswith("pooler.") if whole else not name.startswith(prefix)

        bad = {name for name in bad if not is_head(name)}
        if new := sorted(name for name in missing if not is_head(name)):
            log.warning("%s has no weights for %s: they start at random", place, ", ".join(new[:5]))
    else:
        bad |= missing
    if bad:
        raise InputError(
            f"{place} has {len(bad)} weights that are absent or don't fit its config.json, such as "
            f"{min(bad)}: get the model anew."
        )


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(". ")
