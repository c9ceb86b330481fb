"""The body of a request, its limits and its deadline."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from src.serve.errors import Problem, too_large

LINGER = 8 * 2**20  # bytes of a body too large that are read and dropped, so that its client hears

Result = TypeVar("Result")


@dataclass(frozen=True)
class Limits:
    """What a request may have: bytes, texts, characters a text, words to explain, rows of a CSV."""

    max_body: int
    max_items: int
    max_characters: int
    max_words: int
    max_rows: int
    max_upload: int
    auto_truncate: bool

    def check(self, texts: Sequence[str], name: str) -> None:
        """Refuse too many texts, and a text of too many characters."""
        if len(texts) > self.max_items:
            too_large(f"{name} holds {len(texts)} texts: send at most {self.max_items} at once.")
        for row, text in enumerate(texts):
            if len(text) > self.max_characters:
                too_large(
                    f"{name}[{row}] has {len(text)} characters: send at most {self.max_characters}."
                )


def json_answer(value: Any, **headers: str) -> Response:
    """Make an answer of JSON, with headers by their names in Python."""
    content = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(content, headers=named, media_type="application/json")


def told(cut: Sequence[bool]) -> dict[str, str]:
    """The header that says which texts were cut; the body is that of the dialect."""
    return {"X-Truncated": rows_of(cut)} if True in cut else {}


async def body_of(
    request: Request, most: int, until: float, kind: str = "application/json"
) -> bytes:
    """The body of a request, of a kind and of at most so many bytes."""
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and found != kind:
        raise Problem(415, "Validation", f"Send the header Content-Type: {kind}.")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "Validation", "Send the body without Content-Encoding.")
    too_large = Problem(413, "Validation", f"The body may have at most {most} bytes.")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > most + LINGER:
        raise too_large
    content, size = bytearray(), 0
    try:
        async with asyncio.timeout(until - time.monotonic()):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most + LINGER:
                    raise too_large
                if size <= most:
                    content += chunk
    except TimeoutError:
        raise Problem(408, "Deadline", "The body took too long to come.") from None
    if size > most:
        raise too_large
    return bytes(content)


async def while_wanted(request: Request, work: Awaitable[Result], until: float) -> Result:
    """Wait for ``work``, but neither past the deadline nor for a client that has gone."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # after the body, there is only this to come
    try:
        await asyncio.wait(
            {task, gone},
            timeout=until - time.monotonic(),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise Problem(504, "Deadline", "There was no time to answer this before its deadline.")
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def rows_of(cut: Sequence[bool]) -> str:
    """The numbers of the texts that were cut, as "0,3"."""
    return ",".join(str(row) for row, short in enumerate(cut) if short)
