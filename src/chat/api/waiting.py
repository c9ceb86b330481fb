"""Requests that wait for the thread that computes, whole or as streams."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from src.chat.api.errors import Problem
from src.chat.api.requests import Options
from src.chat.api.speech import Speech, line
from src.chat.engine import Engine
from src.chat.generation import Generation
from src.chat.scheduler import Asked, FullError, Job, ManyError, Scheduler, Token, Told
from src.core.errors import closest

COLDEST = 0.01
BODY = 4 * 2**20  # bytes of a request at most


class Waiting:
    """What the thread tells of the answers of a request, in the event loop."""

    def __init__(self) -> None:
        """Wait in the event loop that runs."""
        self.jobs: list[Job] = []
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Told]] = asyncio.Queue()

    def of(self, place: int) -> Callable[[Told], None]:
        """Return what takes what is told of one of the answers."""

        def tell(told: Told) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: the server has ended
                self._loop.call_soon_threadsafe(self._queue.put_nowait, (place, told))

        return tell

    async def take(self, speeches: Sequence[Speech]) -> AsyncIterator[tuple[int, Speech, str]]:
        """Yield the answer that something new is known of, and what is new, until all have ended.

        Raises:
            Problem: the model failed.
        """
        try:
            while any(one.reason is None for one in speeches):
                place, told = await self._queue.get()
                speech = speeches[place]
                if speech.reason is not None:
                    continue  # a text has ended it, and the thread has not seen it yet
                if not isinstance(told, Asked | Token):
                    raise Problem(500, "The model failed: the server's log says where.")
                new = speech.take(told)
                self.jobs[place].given_up |= speech.reason is not None
                yield place, speech, new
        finally:
            self.give_up()

    def give_up(self) -> None:
        """Wait for none of them any more."""
        for job in self.jobs:
            job.given_up = True


async def gather(request: Request, told: Waiting, speeches: Sequence[Speech]) -> None:
    """Wait for all answers, as long as the client does."""

    async def finish() -> None:
        async for _ in told.take(speeches):
            pass

    work = asyncio.ensure_future(finish())
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        await work
    finally:
        for task in (work, gone):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Problem):
                await task


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def engine_of(scheduler: Scheduler, asked: Options) -> tuple[str, Engine]:
    """Return the model that a request names, the first if it names none; a ``Problem`` if none."""
    return named_engine(scheduler, asked.model or next(iter(scheduler.engines)))


def named_engine(scheduler: Scheduler, name: str) -> tuple[str, Engine]:
    """Return a model by its name; a ``Problem`` if there is none."""
    engines = scheduler.engines
    if name not in engines:
        known = ", ".join(engines)
        raise Problem(
            404, f"There is no model {name[:80]!r}{closest(name, engines)}: {known}.", "model"
        )
    return name, engines[name]


def begin(
    scheduler: Scheduler,
    model: str,
    asked: Options,
    prompts: Sequence[list[int]],
    generation: Generation,
    top: int,
    many: int,
) -> "Waiting":
    """Hand prompts to the thread, each as often as it is to be answered; a ``Problem`` if full."""
    echo = asked.prompt_logprobs is not None
    told = Waiting()
    told.jobs = [
        Job(ids, generation, told.of(place * many + draw), top, echo and not draw, draw)
        for place, ids in enumerate(prompts)
        for draw in range(many)
    ]
    try:
        scheduler.submit(model, told.jobs)
    except ManyError as error:
        raise Problem(400, f"{len(told.jobs)} answers are asked for, more than {error}.") from None
    except FullError:
        raise Problem(429, "Too many requests are waiting: try again later.") from None
    return told


async def body_of(request: Request) -> bytes:
    """Read the body of a request; a ``Problem`` if it is too large or of another kind."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Problem(415, "The body is of another kind: send Content-Type: application/json.")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > BODY:
            raise Problem(413, f"The body has more than {BODY} bytes: send less.")
    return body


def most_of(engine: Engine, ids: Sequence[int], wanted: int, said: bool) -> int:
    """Return how many tokens an answer may have; a ``Problem`` if there is no room for them."""
    left = engine.longest - len(ids)
    if left < (wanted if said else 1):
        raise Problem(
            400,
            f"The prompt has {len(ids)} tokens and the answer may have {wanted}, and the model "
            f"reads at most {engine.longest}: shorten it, or lower max_tokens.",
            "max_tokens" if left > 0 else "messages",
        )
    return min(wanted, left)


def generation_of(asked: Options, most: int) -> Generation:
    """Return how a request is answered."""
    temperature = 1.0 if asked.temperature is None else asked.temperature
    if temperature:  # below that, scores become more than float32 holds
        temperature = max(temperature, COLDEST)
    seed = asked.seed
    if seed is None:
        seed = int.from_bytes(os.urandom(4))
    return Generation(
        most,
        temperature,
        1.0 if asked.top_p is None else asked.top_p,
        max(0, asked.top_k or 0),
        1.0 if asked.repetition_penalty is None else asked.repetition_penalty,
        seed % 2**32 if temperature else 0,
    )


def stream(events: AsyncIterator[dict[str, Any]], told: Waiting) -> Response:
    """Send objects as events, as they come, and give the answers up when nobody takes them."""

    async def written() -> AsyncIterator[bytes]:
        try:
            async for event in events:
                yield line(event)
        except Problem as problem:  # the head has been sent
            yield line(problem.body())
        finally:
            told.give_up()
        yield b"data: [DONE]\n\n"

    return StreamingResponse(written(), media_type="text/event-stream")
