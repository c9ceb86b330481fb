"""The reader in torch: an encoder with a head that points at the start and the end of an answer.

A model folder is what ``save_pretrained`` writes of ``AutoModelForQuestionAnswering``; its
``config.json`` has ``reader``, how questions and paragraphs become windows.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForQuestionAnswering, PreTrainedTokenizerBase

from src.core.errors import InputError
from src.predict.padding import batches
from src.predict.reader.reading import Asked, prepare
from src.predict.reader.spans import Logits, Span
from src.predict.reader.windows import Ids, Pairs, Window
from src.training import pretrained


@dataclass(frozen=True)
class Reading:
    """How questions and paragraphs become windows, in tokens.

    Attributes:
        max_length: of a window, special tokens included.
        stride: that a window shares with the one before.
        max_question: of a question.
        max_answer: of an answer.
    """

    max_length: int
    stride: int
    max_question: int
    max_answer: int


@dataclass(frozen=True)
class TorchReader:
    """A model with its tokenizer, and how it reads.

    Attributes:
        half: whether it reads in bfloat16.
    """

    model: Any
    tokenizer: PreTrainedTokenizerBase
    reading: Reading
    half: bool = False

    @property
    def pairs(self) -> Pairs:
        """Return what makes windows."""
        reading = self.reading
        return Pairs(
            self.tokenizer.backend_tokenizer,
            *(reading.max_length, reading.stride, reading.max_question),
        )

    def logits(self, windows: Sequence[Window], batch_tokens: int) -> list[Logits]:
        """Return the start and end of each token of each window, [tokens, 2]."""
        self.model.eval()
        found: list[Logits] = [np.empty((0, 2), np.float32)] * len(windows)
        device = self.model.device
        half = torch.autocast(device.type, torch.bfloat16, enabled=self.half)
        with torch.inference_mode(), half:
            for rows in batches([len(one.ids) for one in windows], batch_tokens):
                inputs = collate([windows[row] for row in rows], self.pad, self.has_types)
                inputs = {name: value.to(device) for name, value in inputs.items()}
                both = stacked(self.model(**inputs)).float().cpu().numpy()
                for row, logits in zip(rows, both, strict=True):
                    found[row] = logits[: len(windows[row].ids)]
        return found

    def spans(
        self,
        texts: Sequence[str],
        asked: Sequence[Asked],
        top: int,
        batch_tokens: int,
    ) -> list[list[Span]]:
        """Return the best spans of a paragraph for each question on it.

        Args:
            texts: paragraphs.
            asked: questions, each with the row of a paragraph.
            top: how many spans.
            batch_tokens: of the windows that are read at once, padding included.
        """
        prepared = prepare(self.pairs, texts, asked)
        logits = self.logits(prepared.windows, batch_tokens)
        return prepared.spans(logits, self.reading.max_answer, top)

    @property
    def pad(self) -> int:
        """Return the id of padding."""
        return int(self.tokenizer.pad_token_id)

    @property
    def has_types(self) -> bool:
        """Tell whether the model is told which tokens are of the paragraph."""
        return getattr(self.model.config, "type_vocab_size", 0) > 1

    def save(self, folder: Path) -> None:
        """Write the folder of the model."""
        self.model.config.reader = asdict(self.reading)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        (folder / "model.safetensors").chmod(0o644)  # else another user can't read what is pulled


def load(place: str, reading: Reading | None = None) -> TorchReader:
    """Load a reader, or with ``reading`` a checkpoint that becomes one.

    Raises:
        InputError: it can't be loaded, or is no reader, or can't read windows of such a length.
    """
    kind: Any = AutoModelForQuestionAnswering
    model, tokenizer = pretrained.from_pretrained(place, kind, new_head=reading is not None)
    if reading is None:
        reading = Reading(**model.config.reader)
    if tokenizer.pad_token_id is None or tokenizer.padding_side != "right":
        raise InputError(
            f"The tokenizer of {place} has no padding token, or pads on the left: choose a "
            "checkpoint of an encoder, such as BERT's or XLM-R's."
        )
    if getattr(model.config, "num_labels", 2) != 2:
        raise InputError(f"{place} has a head of another kind: choose a checkpoint of an encoder.")
    most = _readable(model, tokenizer)
    if reading.max_length > most:
        raise InputError(
            f"reader.max_length is {reading.max_length}, and {place} reads at most {most} tokens: "
            "lower it."
        )
    tokenizer.model_max_length = most
    reader = TorchReader(model, tokenizer, reading)
    _ = reader.pairs  # which refuses what leaves no room
    return reader


def _readable(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the length of the longest window that a checkpoint reads, in tokens."""
    positions = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    embeddings = getattr(model.base_model, "embeddings", None)
    # RoBERTa's positions begin after that of padding.
    positions -= getattr(embeddings, "padding_idx", -1) + 1
    return int(positions)


def collate(windows: Sequence[Window], pad: int, has_types: bool) -> dict[str, torch.Tensor]:
    """Pad windows to the longest: what a model takes, each [windows, tokens]."""
    inputs = {
        "input_ids": padded([one.ids for one in windows], pad),
        "attention_mask": padded([np.ones(len(one.ids), np.int32) for one in windows], 0),
    }
    if has_types:
        inputs["token_type_ids"] = padded([one.types for one in windows], 0)
    return inputs


def padded(rows: Sequence[Ids], value: int) -> torch.Tensor:
    """Pad rows of numbers to the longest, [rows, longest]."""
    made: npt.NDArray[np.int64] = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for place, row in zip(made, rows, strict=True):
        place[: len(row)] = row
    return torch.from_numpy(made)


def stacked(outputs: Any) -> torch.Tensor:
    """Return the logits of starts and ends, [windows, tokens, 2]."""
    return torch.stack([outputs["start_logits"], outputs["end_logits"]], dim=-1)


def precision_of(wanted: str) -> str:
    """Return what auto stands for here: bf16 where the processor or the GPU computes in it."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    return "bf16" if torch.backends.cpu.get_cpu_capability() == "AVX512" and _has_bf16() else "no"


def _has_bf16() -> bool:
    mkldnn: Any = torch.ops.mkldnn
    return bool(mkldnn._is_mkldnn_bf16_supported()) and bool(torch.cpu._is_avx512_bf16_supported())
