"""Questions by a model of sequences that was trained to ask, such as a T5."""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerBase

from src.core.errors import InputError
from src.predict.padding import batches
from src.training import pretrained

LONGEST = 512  # tokens of what it reads
MADE = 48  # tokens of a question at most

log = logging.getLogger("src.qa.generator")


class Generator:
    """A model that turns an answer and its paragraph into a question.

    Args:
        place: its folder or its name on the hub.
        prompt: what it reads, with ``{answer}`` and ``{context}``.

    Raises:
        InputError: it can't be loaded, or ``prompt`` lacks one of both.
    """

    def __init__(self, place: str, prompt: str) -> None:
        """Load it."""
        for name in ("{answer}", "{context}"):
            if name not in prompt:
                raise InputError(
                    f"questions.prompt is {prompt!r}, which has no {name}: write where it stands."
                )
        self._prompt = prompt
        kind: Any = AutoModelForSeq2SeqLM
        self._model, self._tokenizer = pretrained.from_pretrained(place, kind, new_head=False)
        self._model.eval()

    def ask(self, answers: Sequence[tuple[str, str]], batch_tokens: int) -> list[str]:
        """Make the likeliest question for each answer and its paragraph, token by token."""
        tokenizer: PreTrainedTokenizerBase = self._tokenizer
        texts = [
            self._prompt.replace("{answer}", answer).replace("{context}", context)
            for answer, context in answers
        ]
        ids = tokenizer(texts, truncation=True, max_length=LONGEST)["input_ids"]
        made = [""] * len(texts)
        done = 0
        with torch.inference_mode():
            for rows in batches([len(one) for one in ids], batch_tokens):
                inputs = tokenizer.pad({"input_ids": [ids[row] for row in rows]})
                given = {name: torch.tensor(values) for name, values in inputs.items()}
                found = self._model.generate(**given, max_new_tokens=MADE, do_sample=False)
                asked = tokenizer.batch_decode(found, skip_special_tokens=True)
                for row, text in zip(rows, asked, strict=True):
                    made[row] = " ".join(text.split())
                done += len(rows)
                log.info("%d of %d questions", done, len(texts))
        return made
