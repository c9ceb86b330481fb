"""Batches of texts from many requests, scored by one thread, the oldest text always among them."""

import asyncio
import logging
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from src.core.errors import InputError

RECENT = 0.2  # the weight of the last batch in the measure of how fast a model is
UNLIKE = 1.25  # by which a text may be longer than another of its batch: padding costs more
SHARE = 0.5  # of the time to its deadline, what a new request may find waiting before it
SHORT = 4000  # characters that are tokenized sooner than another thread has begun
END = 1.0  # seconds that what nobody waits for any more has to finish

Outputs = npt.NDArray[np.floating[Any]]

log = logging.getLogger("src.serve")


class Scorer(Protocol):
    """What a model does with the items of a request: texts, records, or windows of a reader.

    Attributes:
        labels: the name of each class.
        fields: what an answer of it has, such as label and score.
        outputs_type: of what it gives: float32 or float64, or object for an array.
    """

    labels: list[str]
    fields: Sequence[str]
    outputs_type: str

    def work_of(self, item: Any, /) -> float:
        """Estimate the tokens or values of an item."""

    def encode(self, items: Sequence[Any], /) -> tuple[Sequence[Sequence[Any]], list[bool]]:
        """Return what is scored of each item, and whether it was cut."""

    def score(self, rows: Sequence[Any], batch_tokens: int, /) -> Outputs:
        """Score what ``encode`` gave: [items, classes]."""


class OverloadError(Exception):
    """Too many texts are waiting; ``retry_after`` is the seconds until there are fewer."""

    def __init__(self, retry_after: int) -> None:
        """Take whole seconds, which the header Retry-After holds."""
        super().__init__(f"Too many texts are waiting: try again in {retry_after} s.")
        self.retry_after = retry_after


class ScoringError(Exception):
    """The model failed on a text or a batch; the log says how."""


class TooLongError(Exception):
    """A text that must not be truncated is longer than the model reads; ``row`` is the first."""

    def __init__(self, row: int) -> None:
        """Name the text by its place in the request."""
        super().__init__(row)
        self.row = row


@dataclass(eq=False)
class _Waiting:
    """The texts of one request, until each of them has its outputs."""

    scorer: Scorer
    ids: Sequence[Sequence[Any]]
    work: list[float]
    outputs: Outputs
    answer: asyncio.Future[None]
    until: float
    given_up: bool = False
    scored: int = 0
    left: list[int] = field(init=False)  # the rows that no batch has taken yet

    def __post_init__(self) -> None:
        self.left = list(range(len(self.ids)))

    def wanted(self) -> bool:
        return not self.given_up and time.monotonic() < self.until


@dataclass
class _Speed:
    """The seconds that a model takes for a unit of work, about a token; 0 until it is known."""

    seconds: float = 0.0

    def measured(self, seconds: float, work: float) -> None:
        """Update the mean with another batch."""
        latest = seconds / work
        self.seconds += (latest - self.seconds) * (RECENT if self.seconds else 1.0)


class Batcher:
    """A queue of requests, and the thread that scores them.

    One thread computes for all models, so that they do not contend for the cores; another turns
    texts into tokens. Both work outside Python's lock, so that the event loop goes on meanwhile.

    Attributes:
        texts: how many texts were let in and have no answer yet.
    """

    def __init__(
        self, batch_tokens: int, max_texts: int, observe: Callable[[int, int], None]
    ) -> None:
        """Start the threads.

        Args:
            batch_tokens: the tokens that are scored at once; a longer text is scored alone.
            max_texts: how many texts may be let in before others are refused; a request of more
                is always refused.
            observe: is told the texts and tokens of each batch, in the thread that scores.
        """
        self.texts = 0
        self._seconds = 0.0  # that what was let in will take
        self._batch_tokens = batch_tokens
        self._max_texts = max_texts
        self._observe = observe
        self._speeds: WeakKeyDictionary[Scorer, _Speed] = WeakKeyDictionary()
        self._waiting: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._tokenizing = ThreadPoolExecutor(1, "tokenize")
        self._thread = threading.Thread(target=self._work, name="score", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Tell whether the scoring thread still runs."""
        return self._thread.is_alive()

    async def outputs(
        self, scorer: Scorer, items: Sequence[Any], until: float, truncate: bool = True
    ) -> tuple[Outputs, list[bool]]:
        """Score items: outputs of shape [items, classes], and whether each was cut.

        What is cancelled, or waits past ``until`` (of ``time.monotonic``), is not computed.

        Raises:
            TooLongError: a text is cut and ``truncate`` is false.
            OverloadError: it would wait for so long that its deadline is in danger.
            ScoringError: the model failed on a text or a batch.
        """
        work = list(map(scorer.work_of, items))
        seconds = self._let_in(scorer, work, until)
        waiting = None
        try:
            ids, cut = await self._encoded(scorer, items)
            if not truncate and True in cut:
                raise TooLongError(cut.index(True))
            outputs = np.empty((len(ids), len(scorer.labels)), dtype=scorer.outputs_type)
            if ids:
                answer = asyncio.get_running_loop().create_future()
                waiting = _Waiting(scorer, ids, work, outputs, answer, until)
                with self._changed:
                    self._waiting.append(waiting)
                    self._changed.notify()
                await waiting.answer
            return outputs, cut
        finally:
            if waiting:
                waiting.given_up = True
            self.texts -= len(items)
            self._seconds -= seconds

    async def _encoded(
        self, scorer: Scorer, items: Sequence[Any]
    ) -> tuple[Sequence[Sequence[Any]], list[bool]]:
        try:
            if sum(map(len, items)) <= SHORT:
                return scorer.encode(items)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._tokenizing, scorer.encode, items)
        except InputError as error:
            log_place("a tokenizer broke by %s\n%s", error)
            raise ScoringError from None

    def _let_in(self, scorer: Scorer, work: list[float], until: float) -> float:
        """Count a request in, and return the seconds that the model will take for it.

        On an idle server a request may take as long as it likes; it may not have more texts than
        may wait, so what lets requests in must allow them fewer.
        """
        seconds = self._speeds.setdefault(scorer, _Speed()).seconds * sum(work)
        left = until - time.monotonic()
        crowded = self.texts and self._seconds + seconds > SHARE * left
        if crowded or self.texts + len(work) > self._max_texts:
            raise OverloadError(max(1, math.ceil(self._seconds)))
        self.texts += len(work)
        self._seconds += seconds
        return seconds

    def close(self) -> None:
        """Stop the threads, after what they are at, unless that takes longer than ``END``."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(END)
        self._tokenizing.shutdown(wait=False, cancel_futures=True)

    def _work(self) -> None:
        while rows := self._next():
            requests = list(dict.fromkeys(request for request, _ in rows))
            try:
                self._score(requests[0].scorer, rows)
            except Exception as error:  # whatever it is, the next batch is scored
                log_place("a batch of %d texts broke by %s\n%s", error, len(rows))
                for request in requests:
                    request.given_up = True
                    _call(request, lambda answer: answer.set_exception(ScoringError()))
                continue
            for request in requests:
                if request.scored == len(request.ids):
                    _call(request, lambda answer: answer.set_result(None))

    def _score(self, scorer: Scorer, rows: list[tuple[_Waiting, int]]) -> None:
        """Score a batch, and hand its outputs to the requests that its rows are of."""
        ids = [request.ids[row] for request, row in rows]
        start = time.perf_counter()
        found = scorer.score(ids, self._batch_tokens)
        work = sum(request.work[row] for request, row in rows)
        self._speeds[scorer].measured(time.perf_counter() - start, work)
        self._observe(len(ids), sum(map(len, ids)))
        for (request, row), scores in zip(rows, found, strict=True):
            request.outputs[row] = scores
            request.scored += 1

    def _next(self) -> list[tuple[_Waiting, int]]:
        """Wait for texts and return those of a batch, the oldest among them; [] at the end."""
        with self._changed:
            while True:
                self._waiting = deque(r for r in self._waiting if r.wanted())
                if self._waiting or self._closed:
                    break
                self._changed.wait()
            rows = self._take(self._waiting[0]) if self._waiting else []
            self._waiting = deque(r for r in self._waiting if r.left)
            return rows

    def _take(self, oldest: _Waiting) -> list[tuple[_Waiting, int]]:
        """Take the oldest text and those closest to it in length, for little padding."""
        alike = len(oldest.ids[oldest.left[0]])
        rows = [
            (abs(len(request.ids[row]) - alike), request, row)
            for request in self._waiting
            if request.scorer is oldest.scorer
            for row in request.left
        ]
        taken: list[tuple[_Waiting, int]] = []
        shortest = longest = alike
        for _, request, row in sorted(rows, key=lambda one: one[0]):  # the older first of equals
            length = len(request.ids[row])
            shortest, longest = min(shortest, length), max(longest, length)
            full = (len(taken) + 1) * longest > self._batch_tokens
            if taken and (full or longest > UNLIKE * shortest):
                break
            taken.append((request, row))
            request.left.remove(row)
        return taken


def log_place(message: str, error: Exception, *values: object) -> None:
    """Log the kind of an error and where it was raised; its message may hold a part of a text."""
    place = "".join(traceback.format_tb(error.__traceback__))
    log.error(message, *values, type(error.__cause__ or error).__name__, place)


def _call(request: _Waiting, answer: Callable[[asyncio.Future[None]], None]) -> None:
    """Answer a request in the event loop, unless its client has left."""

    def unless_done() -> None:
        if not request.answer.done():
            answer(request.answer)

    try:
        request.answer.get_loop().call_soon_threadsafe(unless_done)
    except RuntimeError:  # the loop is closed: the server has ended
        log.info("an answer came after the server had ended")
