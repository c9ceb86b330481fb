"""Answers of a language model, with an adapter or without, to many prompts at once.

Prompts of like length are read together, and more of them answered together; one that has ended
leaves the others alone.
"""

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from transformers import DynamicCache

from src.chat import models, prefill, scoring
from src.chat.generation import Answer, Batch, Generation, Going
from src.chat.prefill import Reading
from src.chat.rendering import Question, Renderer, Row
from src.core.errors import InputError
from src.predict.padding import batches

# Tokens that a processor reads at once: more of them are slower, as they leave its caches.
READ_AT_ONCE = 2048

log = logging.getLogger("src.chat.engine")


class Engine:
    """A model at work.

    Attributes:
        model: of transformers, or of PEFT.
        tokenizer: its tokenizer.
        renderer: writes conversations as prompts.
        ends: the tokens that end an answer.
        longest: how many tokens the model reads at most, with those of its answer.
        joins: whether answers may be made together.
        at_once: how many tokens are best read at once.
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
        self.ends = set(models.ends(base))
        self.longest = models.longest(self.model)
        self.joins = prefill.joins(self._cache(1))
        self.at_once = READ_AT_ONCE if device == "cpu" else 2**31

    @classmethod
    def of(cls, base: Path, model: Path, threads: int) -> Self:
        """Load the model in a folder, or the adapter in it and the base that it was trained on."""
        if models.is_adapter(model):
            return cls(base, model, threads=threads)
        return cls(model, threads=threads)

    def has_room(self, question: Question, max_new_tokens: int) -> bool:
        """Tell whether the model reads a question with its right answer, and with one so long."""
        return len(question.asked) + max(len(question.right), max_new_tokens) <= self.longest

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
            batch_tokens: how many tokens, of prompts and answers, are kept in memory at most.
            done: is told how many prompts have been answered, each time that some have.

        Raises:
            InputError: a prompt leaves no room for an answer.
        """
        asked = [self.renderer.ids(prompt) for prompt in prompts]
        return self._answers(asked, [[]] * len(asked), generation, batch_tokens, done)[0]

    def judge(
        self,
        questions: Sequence[Question],
        generation: Generation,
        batch_tokens: int,
        done: Callable[[int], None] = lambda _: None,
    ) -> tuple[list[Answer], list[torch.Tensor]]:
        """Answer questions, and tell how likely their right answers are; each is read once.

        The arguments are those of ``answers``.

        Returns:
            the answers; the log-probability of each token of each right answer, in float32.

        Raises:
            InputError: a question leaves no room for an answer.
        """
        asked, right = ([q.asked for q in questions], [q.right for q in questions])
        return self._answers(asked, right, generation, batch_tokens, done)

    def _answers(
        self,
        asked: Sequence[list[int]],
        right: Sequence[list[int]],
        generation: Generation,
        batch_tokens: int,
        done: Callable[[int], None],
    ) -> tuple[list[Answer], list[torch.Tensor]]:
        going = [Going(generation, generation.draws(place)) for place in range(len(asked))]
        likely = [torch.empty(0)] * len(asked)
        self._refuse_longer(asked, generation)
        lengths = [len(ids) + generation.max_new_tokens for ids in asked]
        count = 0
        for places in batches(lengths, batch_tokens if self.joins else 1):
            readings, order = [], list[int]()
            sizes = [len(asked[place]) + len(right[place]) for place in places]
            for rows in batches(sizes, min(batch_tokens, self.at_once)):
                part = [places[row] for row in rows]
                reading = self.read([asked[place] for place in part])
                found = self._likely(reading, [right[place] for place in part])
                for place, one in zip(part, found, strict=True):
                    likely[place] = one
                readings.append(reading)
                order += part
            self._finish(readings, [going[place] for place in order])
            count += len(places)
            done(count)
        return [self._answer(one.made) for one in going], likely

    def _answer(self, tokens: list[int]) -> Answer:
        ended = bool(tokens) and tokens[-1] in self.ends
        text = self.tokenizer.decode(tokens[: len(tokens) - ended], skip_special_tokens=True)
        return Answer(text, tuple(tokens), ended)

    def _refuse_longer(self, asked: Sequence[list[int]], generation: Generation) -> None:
        longest = max(map(len, asked), default=0)
        if longest + generation.max_new_tokens > self.longest:
            raise InputError(
                f"A prompt has {longest} tokens, and the model reads at most {self.longest}, of "
                f"which {generation.max_new_tokens} are for the answer: shorten it, or lower "
                "max_new_tokens."
            )

    def batch(self) -> Batch:
        """Return a batch without answers."""
        return Batch(self._scores)

    def likely(self, ids: list[int]) -> torch.Tensor:
        """Return the log-probability of each token of a text but its first, in float32."""
        row = Row(ids, [False] + [True] * (len(ids) - 1))
        pad = self.tokenizer.pad_token_id
        return scoring.log_probabilities(self.model, [row], pad, len(ids))[0]

    @torch.inference_mode()
    def read(self, asked: Sequence[list[int]]) -> Reading:
        """Read prompts, each as its tokens, of about the same length."""
        device = self.model.device
        # Prompts end together, so that their answers begin together.
        length = max(map(len, asked))
        ids = torch.tensor([ids[-1:] * (length - len(ids)) + ids for ids in asked], device=device)
        mask = torch.tensor(
            [[0] * (length - len(ids)) + [1] * len(ids) for ids in asked], device=device
        )
        cache = self._cache(len(asked))
        # What an adapter has put before the prompts is read by all of them.
        before = torch.ones((len(asked), cache.get_seq_length()), dtype=mask.dtype, device=device)
        mask = torch.cat([before, mask], dim=1)
        return Reading(ids, mask, cache, self._scores(ids, mask, cache))

    def _scores(
        self,
        given: torch.Tensor,
        mask: torch.Tensor,
        cache: Any,
        choose: Callable[[torch.Tensor], torch.Tensor] = lambda hidden: hidden[:, -1],
    ) -> torch.Tensor:
        """Read on, and return the scores of what follows the last token, or those that are chosen.

        Args:
            given: the tokens that come next, [rows, tokens].
            mask: 0 for padding, of all that is read up to them.
            cache: what was read, to which they are added.
            choose: of [rows, tokens, width].
        """
        model = self.model
        core = model.get_base_model() if hasattr(model, "get_base_model") else model
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -given.shape[1] :]
        how = {"position_ids": positions, "past_key_values": cache, "use_cache": True}
        with scoring.head_of(core, choose):
            found: torch.Tensor = core(input_ids=given, attention_mask=mask, **how).logits
        return found

    @torch.inference_mode()
    def _likely(self, reading: Reading, right: Sequence[list[int]]) -> list[torch.Tensor]:
        """Return the log-probability of each token of an answer to each prompt, if it has one."""
        device = self.model.device
        longest = max(map(len, right))
        if not longest:
            return [torch.empty(0)] * len(right)
        # The padding is read by none.
        ids = torch.tensor([ids + [0] * (longest - len(ids)) for ids in right], device=device)
        there = torch.tensor(
            [[1] * len(ids) + [0] * (longest - len(ids)) for ids in right], device=device
        )
        first = scoring.likely(reading.scores, ids[:, 0])
        rest = torch.empty(0)
        further = there[:, 1:] == 1
        if further.any():
            mask = torch.cat([reading.mask, there[:, :-1]], dim=1)
            cache = copy.deepcopy(reading.cache)
            scores = self._scores(ids[:, :-1], mask, cache, lambda hidden: hidden[further])
            rest = scoring.likely(scores, ids[:, 1:][further])
        parts = torch.split(rest, [max(0, len(ids) - 1) for ids in right])
        return [
            torch.cat([first[row : row + bool(ids)], part])
            for row, (ids, part) in enumerate(zip(right, parts, strict=True))
        ]

    def _finish(self, readings: Sequence[Reading], going: Sequence[Going]) -> None:
        """Make answers to prompts that were read."""
        batch = self.batch()
        batch.add(readings, going)
        while batch.going:
            new = batch.draw()
            batch.go_on(
                [
                    row
                    for row, (one, token) in enumerate(zip(batch.going, new, strict=True))
                    if token not in self.ends and len(one.made) < one.generation.max_new_tokens
                ]
            )

    def _cache(self, rows: int) -> Any:
        config = getattr(self.model, "active_peft_config", None)
        if config is not None and config.is_prompt_learning:
            return self.model.get_prompt(rows)
        return DynamicCache(config=self.model.config)
