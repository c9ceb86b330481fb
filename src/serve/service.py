"""The models that are served, and what they compute."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from src.core.errors import InputError, closest
from src.predict.classifier import Answer, Logits, Probabilities, RecordAnswer, softmax
from src.predict.reader.spans import Logits as ReaderLogits
from src.predict.reader.windows import Window
from src.serve.batching import Batcher, Outputs, OverloadError, ScoringError, TooLongError
from src.serve.errors import Problem
from src.serve.models import Loaded, Model, ReaderModel, TableModel, TextModel
from src.serve.prometheus import Metrics
from src.serve.request import Limits

if TYPE_CHECKING:
    from src.serve.documents import Documents  # which needs more than texts do

T = TypeVar("T")

LONG = 30.0  # seconds after which the log says that a load takes long, and others begin

log = logging.getLogger("src.serve")


class Scored(NamedTuple):
    """What a model makes of texts, in their order.

    Attributes:
        logits: of shape [texts, classes].
        probabilities: likewise.
        answers: label, guess and score of each text.
        cut: whether only the start of each was read.
    """

    logits: Logits
    probabilities: Probabilities
    answers: list[Answer]
    cut: list[bool]


class Service:
    """The models, limits and metrics that all routes share.

    Attributes:
        models: the models by name; the first is that of requests that name none.
        limits: what a request may have.
        metrics: counts for Prometheus.
        batcher: the queue that scores texts.
        deadline: seconds for a request.
        upload_deadline: seconds for a file.
        documents: what questions are asked about, None if each comes with a text of its own.
        feedback: the file that gets what people think of answers, None to take nothing.
        passages: how many of the documents a reader reads for a question.
        uploads: how many files are being scored.
        reading: held while one of them is read, as the fields of two would take twice the memory.
    """

    def __init__(
        self,
        models: Sequence[Model],
        limits: Limits,
        batch_tokens: int,
        max_texts: int,
        deadline: float,
        upload_deadline: float,
        documents: "Documents | None" = None,
        feedback: Path | None = None,
        passages: int = 10,
    ) -> None:
        """Serve ``models``, the first where a request names none."""
        self.models = {model.name: model for model in models}
        self.limits = limits
        self.metrics = Metrics()
        self.batcher = Batcher(batch_tokens, max_texts, self.metrics.batch)
        self.metrics.waiting.set_function(lambda: self.batcher.texts)
        self.batch_tokens = batch_tokens
        self.max_texts = max_texts
        self.deadline = deadline
        self.upload_deadline = upload_deadline
        self.documents = documents
        self.feedback = feedback
        self.passages = passages
        self.uploads = 0
        self.reading = asyncio.Lock()
        self._default = models[0]
        self._turn = asyncio.Lock()
        self._loading: dict[str, asyncio.Task[None]] = {}
        for model in models:
            self.metrics.loaded.labels(*_told(model.now)).set(1)

    def model(self, name: str | None) -> Loaded:
        """Return a model by name, or the first.

        Raises:
            Problem: there is none of that name.
        """
        if name is None:
            return self._default.now
        if name not in self.models:
            names = ", ".join(self.models)
            hint = closest(name, self.models)
            raise Problem(404, "NotFound", f"There is no such model{hint}: send one of {names}.")
        return self.models[name].now

    def text_model(self, name: str | None) -> TextModel:
        """Return a model of texts by name, or the first; it raises as ``_of_kind`` does."""
        return self._of_kind(TextModel, name, "a model of texts")

    def table_model(self, name: str | None) -> TableModel:
        """Return a model of tables by name, or the first; it raises as ``_of_kind`` does."""
        return self._of_kind(TableModel, name, "a model of tables")

    def reader(self, name: str | None) -> ReaderModel:
        """Return a reader by name, or the first one; it raises as ``_of_kind`` does."""
        readers = (one.name for one in self.models.values() if isinstance(one.now, ReaderModel))
        return self._of_kind(ReaderModel, name or next(readers, None), "a reader")

    def _of_kind(self, kind: type[T], name: str | None, other: str) -> T:
        """Return a model by name, or the first.

        Raises:
            Problem: there is none of that name, or it is of another kind.
        """
        found = self.model(name)
        if not isinstance(found, kind):
            raise other_kind(found, other)
        return found

    async def decided(
        self,
        model: TableModel,
        items: Sequence[tuple[object, ...]],
        until: float,
        counted: int | None = None,
    ) -> tuple[Probabilities, list[RecordAnswer]]:
        """Score records, whose values are as ``RecordScorer.items`` gives them.

        Metrics count the first ``counted``, all if it is None.

        Raises:
            Problem: too many are waiting, or the model fails.
        """
        outputs, cut = await self._outputs(model, items, until, truncate=True)
        probabilities = model.records.shares(outputs)
        answers = model.records.answers(probabilities)
        self.metrics.scored(model.name, answers[:counted], cut[:counted])
        return probabilities, answers

    async def scored(
        self,
        model: TextModel,
        texts: Sequence[str],
        until: float,
        truncate: bool = True,
        counted: int | None = None,
    ) -> Scored:
        """Score texts by a model.

        Metrics count the first ``counted`` texts, all if it is None.

        Raises:
            Problem: too many texts are waiting, a text is too long, or the model fails.
        """
        try:
            outputs, cut = await self._outputs(model, texts, until, truncate=truncate)
        except TooLongError as error:
            raise Problem(
                413,
                "Validation",
                f"inputs[{error.row}] has more than the {model.manifest['max_length']} tokens or "
                f"{model.manifest['max_characters']} characters that the model reads: shorten it, "
                "or send truncate: true.",
            ) from None
        logits: Logits = outputs.astype(np.float32, copy=False)
        probabilities = softmax(logits)
        answers = model.classifier.answers(probabilities)
        self.metrics.scored(model.name, answers[:counted], cut[:counted])
        return Scored(logits, probabilities, answers, cut)

    async def read(
        self, model: ReaderModel, windows: Sequence[Window], until: float
    ) -> list[ReaderLogits]:
        """Read windows: the logits of each, [tokens, 2].

        Raises:
            Problem: too many are waiting, or the model fails.
        """
        outputs, _ = await self._outputs(model, windows, until, truncate=True)
        found: list[ReaderLogits] = outputs[:, 0].tolist()
        return found

    async def _outputs(
        self, model: Loaded, items: Sequence[object], until: float, *, truncate: bool
    ) -> tuple[Outputs, list[bool]]:
        try:
            return await self.batcher.outputs(model.scorer, items, until, truncate)
        except OverloadError as error:
            raise Problem(
                429, "Overloaded", str(error), Retry_After=str(error.retry_after)
            ) from None
        except ScoringError:
            message = "The model failed on this: the server's log says where."
            raise Problem(424, "Backend", message) from None

    async def reload(self, *, only_changed: bool) -> None:
        """Load models anew; one that can't be loaded leaves the old one serving.

        One is loaded after the other, as each takes memory twice meanwhile. But a load that takes
        ``LONG`` keeps only its own model from being loaded again.
        """
        watched: dict[str, Model | Documents] = dict(self.models)
        if self.documents:
            watched[self.documents.name] = self.documents
        async with self._turn:
            for name, model in watched.items():
                if name in self._loading:
                    if not only_changed:
                        log.warning("%s is still being loaded, and not loaded once more", name)
                    continue
                loading = asyncio.create_task(self._reload(model, only_changed))
                self._loading[name] = loading
                if not (await asyncio.wait([loading], timeout=LONG))[0]:
                    log.warning(
                        "%s has been loading for %g s and is served as it was until that ends: if "
                        "it never does, mend its folder and restart the server",
                        *(name, LONG),
                    )

    async def _reload(self, model: "Model | Documents", only_changed: bool) -> None:
        old = _told(model.now) if isinstance(model, Model) else ()
        try:
            if only_changed and not await _aside(model.settled_on_another):
                return
            await _aside(model.reload)
        except Exception as error:  # whatever it is, the old one serves
            self.metrics.reloads.labels(model.name, "failed").inc()
            told = "%s is still served as it was, since its folder could not be loaded: %s"
            log.error(told, model.name, error, exc_info=not isinstance(error, InputError))
            return
        finally:
            del self._loading[model.name]
        self.metrics.reloads.labels(model.name, "loaded").inc()
        if isinstance(model, Model):
            self.metrics.loaded.remove(*old)
            self.metrics.loaded.labels(*_told(model.now)).set(1)
            log.info("%s was loaded again: sha256 %s", model.name, model.now.sha256)
        else:
            log.info("%s were read again: %d passages", model.name, len(model.now.pieces))


def other_kind(found: Loaded, other: str) -> Problem:
    """Return the answer to who sends a model what is for another kind of model."""
    return Problem(422, "Validation", f"{found.name} is {found.takes}, or name {other}.")


def _told(model: Loaded) -> tuple[str, str, str]:
    """Return what Prometheus is told of a model."""
    return model.name, model.sha256, model.engine


def _aside(work: Callable[[], T]) -> asyncio.Future[T]:
    """Run what may never end in a thread that the end of the process does not wait for."""
    result: Future[T] = Future()
    result.set_running_or_notify_cancel()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # it is raised where the result is awaited
            result.set_exception(error)

    threading.Thread(target=run, name="load", daemon=True).start()
    return asyncio.wrap_future(result)
