"""The transformer in torch: find a checkpoint, turn texts into tokens, score texts.

A model folder is what ``save_pretrained`` writes: ``model.safetensors``, ``config.json`` with the
labels and ``max_characters``, and a tokenizer whose ``model_max_length`` is the length in tokens.
"""

from collections.abc import Sequence
from contextlib import suppress
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging
from transformers.utils.hub import cached_file

from src.core import files
from src.core.errors import InputError
from src.core.packages import package_path
from src.predict.padding import batches

Tokens = npt.NDArray[np.int32]

CHUNK = 10_000  # texts that are tokenized at once: what comes back is large

log = getLogger("src.text.encoder")


def resolve(checkpoint: str, sha256: str) -> str:
    """Where to load a checkpoint from: a folder, or a Hugging Face name as it is.

    Args:
        checkpoint: a folder, ``pkg://package/path``, or the name of a model on the hub.
        sha256: what ``model.safetensors`` must hash to; "" to accept any.

    Raises:
        InputError: the weights can't be found, or hash to something else.
    """
    place = package_path(checkpoint)
    if not sha256:
        if Path(place).is_dir():
            log.warning("DVC can't see when %s changes: pin train.sha256", checkpoint)
        return place
    try:
        weights = Path(str(cached_file(place, "model.safetensors")))
    except (OSError, ValueError) as error:
        raise InputError(
            f"Expected model.safetensors at {place}, with the sha256 that train.sha256 "
            f"pins, found none ({_brief(error)}): correct train.checkpoint, or make "
            "train.sha256 ''."
        ) from error
    if (found := files.sha256(weights)) != sha256:
        raise InputError(
            f"Expected sha256 {sha256} of {weights}, found {found}: the weights are not those that "
            "were pinned; get the right ones, or change train.sha256."
        )
    return place


def files_of(place: str) -> list[Path]:
    """The files of what ``resolve`` found: weights, config and tokenizer."""
    if Path(place).is_dir():
        return sorted(path for path in Path(place).iterdir() if path.is_file())
    found = []
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        with suppress(OSError, ValueError):  # what is missed from_pretrained will say
            found.append(Path(str(cached_file(place, name))))
    return found


def from_pretrained(
    place: str, *, new_head: bool, **config: Any
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load the model, in float32, and its fast tokenizer.

    Args:
        place: a folder or a Hugging Face name.
        new_head: whether the classification head may be absent, or be for other classes, and then
            starts at random; the rest of the model may never be of another shape.
        config: overrides the model's own config.

    Raises:
        InputError: there is no readable checkpoint, it lacks weights, or has no fast tokenizer.
    """
    # The library's own report on missing weights can't tell a new head from a broken encoder.
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        model, loaded = AutoModelForSequenceClassification.from_pretrained(
            place,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are looked at below
            output_loading_info=True,
            **config,
        )
    except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
        raise InputError(
            f"Expected a checkpoint with safetensors weights and a tokenizer at {place}, found: "
            f"{_brief(error)}; name a folder or a Hugging Face model that has both."
        ) from error
    if not tokenizer.is_fast:
        raise InputError(
            f"Expected a fast tokenizer (tokenizer.json) at {place}, found a slow one: "
            "choose a checkpoint that has one."
        )
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"Expected a tokenizer with a padding token at {place}, found none: choose a "
            "checkpoint of an encoder, such as BERT's or XLM-R's."
        )
    missing = set(loaded["missing_keys"])
    bad = {name for name, *_ in loaded["mismatched_keys"]}
    if new_head:
        encoder = f"{model.base_model_prefix}."
        bad = {name for name in bad if name.startswith(encoder)}
        if new := sorted(name for name in missing if name.startswith(encoder)):
            log.warning("%s has no weights for %s: they start at random", place, ", ".join(new[:5]))
    else:
        bad |= missing
    if bad:
        raise InputError(
            f"Expected weights at {place} that fit its config.json, found {len(bad)} that are "
            f"absent or of another shape, such as {min(bad)}: get the model anew."
        )
    return model, tokenizer


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(". ")


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, max_characters: int
) -> list[Tokens]:
    """The token ids of each text, special tokens included, at most ``max_length`` a text.

    A text is cut to ``max_characters`` first, since a tokenizer reads all it is given.
    """
    backend = tokenizer.backend_tokenizer  # on all cores, and without what only readers need
    backend.enable_truncation(max_length)
    backend.no_padding()
    ids: list[Tokens] = []
    for start in range(0, len(texts), CHUNK):
        short = [text[:max_characters] for text in texts[start : start + CHUNK]]
        encoded = backend.encode_batch_fast(short)
        ids += [np.array(encoding.ids, dtype=np.int32) for encoding in encoded]
    return ids


def collate(ids: Sequence[Tokens], pad_token_id: int) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask``, [texts, tokens], of texts padded to the longest."""
    rows = [torch.from_numpy(row) for row in ids]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_token_id)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(padded.shape[1]) < lengths[:, None]
    return {"input_ids": padded.long(), "attention_mask": mask.long()}


class Classifier:
    """A trained model folder.

    Attributes:
        labels: the name of each class, in the order of the logits.
    """

    def __init__(self, folder: Path, threads: int) -> None:
        """Load ``folder``, on the GPU if there is one and else on ``threads`` CPU threads."""
        torch.set_num_threads(threads)
        model, self.tokenizer = from_pretrained(str(folder), new_head=False)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any = model.to(device).eval()
        by_id: dict[int, str] = self.model.config.id2label
        self.labels = [by_id[k] for k in sorted(by_id)]

    def logits(self, texts: Sequence[str], batch_tokens: int) -> npt.NDArray[np.float32]:
        """Score texts: logits of shape [texts, classes], in the order of ``texts``.

        Texts of like length are scored together, as many as ``batch_tokens`` tokens hold, padding
        included; a text of more tokens is scored alone.
        """
        limits = (self.tokenizer.model_max_length, self.model.config.max_characters)
        ids = tokenize(self.tokenizer, texts, *limits)
        scores = np.empty((len(ids), len(self.labels)), dtype=np.float32)
        for rows in batches([len(row) for row in ids], batch_tokens):
            batch = collate([ids[i] for i in rows], self.tokenizer.pad_token_id)
            with torch.inference_mode():
                output = self.model(**{k: v.to(self.model.device) for k, v in batch.items()})
            scores[rows] = output.logits.float().cpu().numpy()
        return scores
