"""Answers of a language model, with an adapter or without: of many prompts at once, or piecewise.

Prompts of like length go through together, and one that has ended leaves the others alone.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from transformers import (
    DynamicCache,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from src.chat import models
from src.chat.rendering import Question, Renderer
from src.core.errors import InputError
from src.predict.padding import batches

log = logging.getLogger("src.chat.engine")


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
        tokens: how many were made, with that token.
        ended: whether the model ended it; else ``max_new_tokens`` did.
    """

    text: str
    tokens: int
    ended: bool


class Engine:
    """A model at work.

    Attributes:
        model: of transformers, or of PEFT.
        tokenizer: its tokenizer.
        renderer: writes conversations as prompts.
    """

    def __init__(self, base: Path, adapter: Path | None = None, *, threads: int) -> None:
        """Load a model.

        Args:
            base: the folder of a whole model.
            adapter: the folder of an adapter that was trained on it.
            threads: of the processor; a GPU is used if there is one.

        Raises:
            InputError: either is not there, or they don't belong together.
        """
        torch.set_num_threads(threads)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer = models.tokenizer(base)
        self.renderer = Renderer(self.tokenizer)
        model = models.load(base).to(device)
        if adapter:
            model = models.with_adapter(model, base, adapter)
        self.model = model.eval()
        self._ends = set(models.ends(base))
        self._longest = models.longest(self.model)

    @classmethod
    def of(cls, base: Path, model: Path, threads: int) -> Self:
        """Load the model in a folder, or the adapter in it and the base that it was trained on."""
        if (model / models.ADAPTER).exists():
            return cls(base, model, threads=threads)
        return cls(model, threads=threads)

    def has_room(self, question: Question, max_new_tokens: int) -> bool:
        """Tell whether the model reads a question with its right answer, and with one so long."""
        row = question.row
        asked = len(row.ids) - sum(row.learnt)
        return max(len(row.ids), asked + max_new_tokens) <= self._longest

    def answers(
        self,
        prompts: Sequence[str],
        generation: Generation,
        batch_tokens: int,
        done: Callable[[int], None] = lambda _: None,
    ) -> list[Answer]:
        """Answer prompts, in their order.

        Args:
            prompts: as ``renderer.prompt`` writes them.
            generation: how.
            batch_tokens: how many tokens, of prompts and answers, go through at once at most.
            done: is told how many prompts have been answered, each time that some have.

        Raises:
            InputError: a prompt leaves no room for an answer.
        """
        ids = [self._ids(prompt, generation) for prompt in prompts]
        found: dict[int, list[int]] = {place: [] for place in range(len(ids))}
        lengths = [len(row) + generation.max_new_tokens for row in ids]
        count = 0
        for places in batches(lengths, batch_tokens):
            for new in self._steps([ids[place] for place in places], places, generation):
                for place, token in new:
                    found[place].append(token)
            count += len(places)
            done(count)
        return [self._answer(tokens) for tokens in found.values()]

    def stream(self, prompt: str, generation: Generation) -> Iterator[str]:
        """Answer one prompt, and give the text piece by piece as it comes.

        Raises:
            InputError: the prompt leaves no room for an answer.
        """
        made: list[int] = []
        said = ""
        for [(_, token)] in self._steps([self._ids(prompt, generation)], [0], generation):
            made.append(token)
            text = self._answer(made).text
            if text.endswith("\ufffd"):  # the first bytes of a character
                continue
            yield text[len(said) :]
            said = text
        yield self._answer(made).text[len(said) :]

    def _answer(self, tokens: list[int]) -> Answer:
        ended = bool(tokens) and tokens[-1] in self._ends
        text = self.tokenizer.decode(tokens[: len(tokens) - ended], skip_special_tokens=True)
        return Answer(text, len(tokens), ended)

    def _ids(self, prompt: str, generation: Generation) -> list[int]:
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        if len(ids) + generation.max_new_tokens > self._longest:
            raise InputError(
                f"A prompt has {len(ids)} tokens, and the model reads at most {self._longest}, of "
                f"which {generation.max_new_tokens} are for the answer: shorten it, or lower "
                "max_new_tokens."
            )
        return ids

    @torch.inference_mode()
    def _steps(
        self, prompts: Sequence[list[int]], places: Sequence[int], generation: Generation
    ) -> Iterator[list[tuple[int, int]]]:
        """Yield, step by step, the place of each prompt that goes on and its next token."""
        model, device = self.model, self.model.device
        # Prompts end together, so that their answers begin together.
        length = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (length - len(row)) + row for row in prompts], device=device)
        mask = torch.tensor(
            [[0] * (length - len(row)) + [1] * len(row) for row in prompts], device=device
        )
        # A penalty is for what was there, which padding was not.
        seen = torch.where(mask == 1, ids, ids[:, -1:])
        cache = self._cache(len(prompts))
        # What an adapter has put before the prompts is read by all of them.
        before = torch.ones((len(prompts), cache.get_seq_length()), dtype=mask.dtype, device=device)
        mask = torch.cat([before, mask], dim=1)
        core = model.get_base_model() if hasattr(model, "get_base_model") else model
        chooser = generation.chooser()
        draws = [torch.Generator().manual_seed(generation.seed * 1_000_003 + p) for p in places]
        going = [*places]
        given = ids
        for _ in range(generation.max_new_tokens):
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -given.shape[1] :]
            scores = core(
                input_ids=given,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits[:, -1]
            scores = chooser(seen, scores.float())  # type: ignore[arg-type] # they are whole numbers
            tokens = self._drawn(scores, draws) if generation.temperature else scores.argmax(-1)
            new = tokens.tolist()
            yield list(zip(going, new, strict=True))
            keep = [row for row, token in enumerate(new) if token not in self._ends]
            if not keep:
                return
            if len(keep) < len(going):
                chosen = torch.tensor(keep, device=device)
                cache.batch_select_indices(chosen)
                seen, mask, tokens = seen[chosen], mask[chosen], tokens[chosen]
                going, draws = [going[row] for row in keep], [draws[row] for row in keep]
            given = tokens[:, None]
            seen = torch.cat([seen, given], dim=1)
            mask = torch.cat([mask, torch.ones_like(given)], dim=1)

    def _cache(self, rows: int) -> Any:
        config = getattr(self.model, "active_peft_config", None)
        if config is not None and config.is_prompt_learning:
            return self.model.get_prompt(rows)
        return DynamicCache(config=self.model.config)

    @staticmethod
    def _drawn(scores: torch.Tensor, draws: Sequence[torch.Generator]) -> torch.Tensor:
        shares = torch.softmax(scores, dim=-1).cpu()
        found = [
            torch.multinomial(row, 1, generator=draw)
            for row, draw in zip(shares, draws, strict=True)
        ]
        return torch.cat(found).to(scores.device)
