"""Requests to models, answered together: one thread computes, and those that come later join in.

Every step makes one token for each answer in the making, so that a long answer holds up nobody.
"""

import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from src.chat.engine import Engine
from src.chat.generation import Generation, Going
from src.predict.padding import batches

NARROW = 64  # tokens of padding that are worth to be cut
END = 5.0  # seconds that the thread has to finish its step

Reason = Literal["stop", "length"]

log = logging.getLogger("src.chat.scheduler")


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Attributes:
        id: of the token.
        log_probability: by what the model says before anything is drawn; 0 if nobody asked.
        top: the likeliest tokens and their log-probabilities, as many as were asked for.
        reason: why it is the last of its answer, or None.
    """

    id: int
    log_probability: float = 0.0
    top: tuple[tuple[int, float], ...] = ()
    reason: Reason | None = None


@dataclass(frozen=True)
class Asked:
    """How likely each token of a prompt is but its first, to whom asked for it."""

    log_probabilities: list[float]


@dataclass(eq=False)
class Job:
    """An answer that somebody waits for.

    Attributes:
        ids: the tokens of the prompt.
        generation: how it is answered.
        tell: gets each token, or what broke, in the thread that computes; first, if that was
            asked for, how likely the prompt is.
        top: how many of the likeliest tokens to tell, -1 for no log-probability at all.
        echo: whether to tell how likely the prompt is.
        draw: which of several draws by one seed it is.
        given_up: whether nobody waits for it any more.
    """

    ids: list[int]
    generation: Generation
    tell: Callable[["Told"], None]
    top: int = -1
    echo: bool = False
    draw: int = 0
    given_up: bool = False
    going: Going = field(init=False)

    def __post_init__(self) -> None:
        """Begin without a token."""
        self.going = Going(self.generation, self.generation.draws(self.draw))

    @property
    def left(self) -> int:
        """Return how many tokens its answer may still get."""
        return self.generation.max_new_tokens - len(self.going.made)

    @property
    def room(self) -> int:
        """Return how many tokens it may come to have, with those of its prompt."""
        return len(self.ids) + self.generation.max_new_tokens


Told = Asked | Token | Exception


class FullError(Exception):
    """So many requests wait that another would wait for too long."""


class ManyError(Exception):
    """A request asks for more answers than may wait at all."""


class BrokenError(Exception):
    """The model failed; the log says how."""


class _Desk:
    """A model, and the answers that it makes."""

    def __init__(self, engine: Engine, batch_tokens: int) -> None:
        self.engine = engine
        self.waiting: deque[Job] = deque()
        self._batch_tokens = batch_tokens
        self._begin()

    def _begin(self) -> None:
        self._batch = self.engine.batch()
        self._jobs: list[Job] = []  # in the order of the batch
        self._width = 0  # tokens that each of them takes in memory, with what pads it

    @property
    def is_busy(self) -> bool:
        return bool(self.waiting or self._jobs)

    def admitted(self) -> list[Job]:
        """Take those who wait and for whom there is room, the first always if there is nobody."""
        self.forget()
        taken: list[Job] = []
        rows, left = len(self._jobs), [job.left for job in self._jobs]
        width = self._width + max(left, default=0)
        while self.waiting:
            job = self.waiting[0]
            rows, width = rows + 1, max(width, job.room)
            # All take as much as the longest.
            if rows > 1 and (not self.engine.joins or rows * width > self._batch_tokens):
                break
            taken.append(self.waiting.popleft())
        return taken

    def forget(self) -> None:
        """Let those go who wait no longer."""
        self.waiting = deque(job for job in self.waiting if not job.given_up)

    def turn(self, admitted: list[Job]) -> None:
        """Let some join, and make a token for each answer."""
        try:
            self._join(admitted)
            if self._jobs:
                self._step()
        except Exception as error:  # whatever it is, the next requests are answered
            place = "".join(traceback.format_tb(error.__traceback__))
            log.error("a step broke by %s: %s\n%s", type(error).__name__, error, place)
            for job in {*admitted, *self._jobs}:
                job.tell(BrokenError())
            self._begin()

    def _join(self, jobs: list[Job]) -> None:
        for places in batches([len(job.ids) for job in jobs], self.engine.at_once):
            part = [jobs[place] for place in places]
            for job in part:
                if job.echo:
                    job.tell(Asked(self.engine.likely(job.ids).tolist()))
            self._batch.add([self.engine.read([job.ids for job in part])], [j.going for j in part])
            self._jobs += part
            self._width = max(self._width, *(len(job.ids) for job in part))

    def _step(self) -> None:
        scores = self._batch.scores
        new = self._batch.draw()
        keep = []
        for row, (job, token) in enumerate(zip(self._jobs, new, strict=True)):
            made = len(job.going.made)
            reason: Reason | None = None
            if token in self.engine.ends:
                reason = "stop"
            elif made >= job.generation.max_new_tokens:
                reason = "length"
            if not job.given_up:
                job.tell(_token(token, scores[row], job.top, reason))
                keep += [row] * (reason is None)
        self._jobs = [self._jobs[row] for row in keep]
        self._width = self._width + 1 if keep else 0
        self._batch.go_on(keep)
        self._width -= self._batch.narrow(NARROW)


def _token(id: int, scores: torch.Tensor, top: int, reason: Reason | None) -> Token:
    if top < 0:
        return Token(id, reason=reason)
    likely = torch.log_softmax(scores.float(), -1)
    found = torch.topk(likely, top)
    pairs = zip(found.indices.tolist(), found.values.tolist(), strict=True)
    return Token(id, float(likely[id]), tuple(pairs), reason)


class Scheduler:
    """Models at work for many at once.

    Attributes:
        engines: by the name of their model.
    """

    def __init__(self, engines: Mapping[str, Engine], batch_tokens: int, max_waiting: int) -> None:
        """Start the thread.

        Args:
            engines: by name.
            batch_tokens: how many tokens of prompts and answers each keeps in memory at most; a
                longer one is answered alone.
            max_waiting: how many requests may wait for each.
        """
        self.engines = engines
        self._desks = {name: _Desk(engine, batch_tokens) for name, engine in engines.items()}
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="answer", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Tell whether the thread still runs."""
        return self._thread.is_alive()

    def submit(self, model: str, jobs: Iterable[Job]) -> None:
        """Have all of these answered.

        Raises:
            FullError: too many wait.
            ManyError: these alone are too many.
        """
        desk, added = self._desks[model], list(jobs)
        if len(added) > self._max_waiting:
            raise ManyError(self._max_waiting)
        with self._changed:
            desk.forget()
            if len(desk.waiting) + len(added) > self._max_waiting:
                raise FullError
            desk.waiting.extend(added)
            self._changed.notify()

    def close(self) -> None:
        """Stop after the step that is being made."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(END)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._closed or any(desk.is_busy for desk in self._desks.values())
                )
                if self._closed:
                    return
                admitted = {name: desk.admitted() for name, desk in self._desks.items()}
            for name, desk in self._desks.items():
                desk.turn(admitted[name])
