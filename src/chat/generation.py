"""Answers in the making: how each is drawn, and a batch of them, a token of each at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from src.chat import prefill
from src.chat.prefill import Reading


@dataclass(frozen=True)
class Generation:
    """How an answer is drawn from what the model says of the next token.

    Attributes:
        max_new_tokens: of an answer at most.
        temperature: the scores are divided by it; 0 takes the likeliest token, whatever follows.
        top_p: only the likeliest tokens that have this probability together are drawn from.
        top_k: only so many of the likeliest are; 0 for all.
        repetition_penalty: what scores of tokens that were there are divided by, if positive.
        seed: of the draws; each prompt has draws of its own.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0

    def draws(self, place: int) -> torch.Generator:
        """Return what the prompt of a place draws by."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + place)

    def chooser(self) -> LogitsProcessorList:
        """Return what changes the scores before a token is drawn."""
        found = LogitsProcessorList()
        if self.repetition_penalty != 1:
            found.append(RepetitionPenaltyLogitsProcessor(self.repetition_penalty))
        if self.temperature:
            if self.temperature != 1:
                found.append(TemperatureLogitsWarper(self.temperature))
            if self.top_k:
                found.append(TopKLogitsWarper(self.top_k))
            if self.top_p < 1:
                found.append(TopPLogitsWarper(self.top_p))
        return found


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: without the token that ends it.
        ids: of the tokens that were made, with that one.
        ended: whether the model ended it; else ``max_new_tokens`` did.
    """

    text: str
    ids: tuple[int, ...]
    ended: bool

    @property
    def tokens(self) -> int:
        """Return how many tokens were made."""
        return len(self.ids)


@dataclass(eq=False)
class Going:
    """An answer in the making."""

    generation: Generation
    draws: torch.Generator
    made: list[int] = field(default_factory=list)  # its tokens


class Batch:
    """Answers that a model makes together; others may join them at any time, and each may end.

    Attributes:
        going: the answers.
    """

    def __init__(self, score: Callable[[torch.Tensor, torch.Tensor, Any], torch.Tensor]) -> None:
        """Begin without any.

        Args:
            score: reads on, by tokens, the mask of all and the cache, and returns the scores of
                what follows, [answers, words].
        """
        self.going: list[Going] = []
        self._score = score
        self._readings: list[Reading] = []  # one, of all answers, or none

    @property
    def scores(self) -> torch.Tensor:
        """Return what the model says of the next token of each, [answers, words]."""
        return self._readings[0].scores

    def add(self, readings: Sequence[Reading], going: Sequence[Going]) -> None:
        """Let answers join, whose prompts were read."""
        self._readings = [prefill.together([*self._readings, *readings])]
        self.going += going

    @torch.inference_mode()
    def draw(self) -> list[int]:
        """Draw the next token of each."""
        seen, scores = self._readings[0].ids, self.scores.float()
        alike: dict[Generation, list[int]] = {}
        for row, one in enumerate(self.going):
            alike.setdefault(one.generation, []).append(row)
        found = [0] * len(self.going)
        for generation, rows in alike.items():
            # A penalty is for what was there, which padding repeats.
            chosen = generation.chooser()(seen[rows], scores[rows])  # type: ignore[arg-type]
            if generation.temperature:
                shares = torch.softmax(chosen, dim=-1).cpu()
                drawn = [
                    int(torch.multinomial(share, 1, generator=self.going[row].draws))
                    for row, share in zip(rows, shares, strict=True)
                ]
            else:
                drawn = chosen.argmax(-1).tolist()
            for row, token in zip(rows, drawn, strict=True):
                found[row] = token
                self.going[row].made.append(token)
        return found

    @torch.inference_mode()
    def go_on(self, keep: Sequence[int]) -> None:
        """Read what was drawn for the answers at these places; the others have ended."""
        (reading,) = self._readings
        everyone = len(keep) == len(self.going)
        self.going = [self.going[row] for row in keep]
        if not keep:
            self._readings = []
            return
        seen, mask, cache = reading.ids, reading.mask, reading.cache
        if not everyone:
            chosen = torch.tensor(keep, device=seen.device)
            cache.batch_select_indices(chosen)
            seen, mask = seen[chosen], mask[chosen]
        given = torch.tensor([[one.made[-1]] for one in self.going], device=seen.device)
        seen = torch.cat([seen, given], dim=1)
        mask = torch.cat([mask, torch.ones_like(given)], dim=1)
        self._readings = [Reading(seen, mask, cache, self._score(given, mask, cache))]

    def narrow(self, least: int) -> int:
        """Cut what pads all answers since longer ones have ended; return how many tokens that is.

        Args:
            least: how many it has to be, as what is left is copied.
        """
        if not self._readings:
            return 0
        (reading,) = self._readings
        kept = reading.mask.any(0)
        cut = len(kept) - int(kept.sum())
        if cut < least or not prefill.narrow(reading.cache, kept):
            return 0
        # What pads tokens is at their left, though a prefix may be read before what pads the mask.
        ids, mask = reading.ids[:, cut:], reading.mask[:, kept]
        self._readings = [Reading(ids, mask, reading.cache, reading.scores)]
        return cut
