"""The body of a request, its limits and its deadline."""

import asyncio
import io
import re
import time
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from src.core.errors import closest
from src.predict.classifier import Answer
from src.serve.errors import Problem, invalid, too_large

LINGER = 8 * 2**20  # bytes of a body too large that are read and dropped, so that its client hears
JSON = "application/json"
SCHEMAS = "#/components/schemas/"  # where the OpenAPI document has its types
ENCODER = msgspec.json.Encoder()
KINDS = {
    "boolean": "true or false",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "object": "a JSON object",
    "array": "a list",
}
NAME, NAMES = 100, 1000  # characters of a name, and names, that a hint is looked for in
Schemas = list[dict[str, Any]]

Result = TypeVar("Result")
# The document of each server says what its limits and models allow.
Text = Annotated[str, msgspec.Meta(extra_json_schema={"$ref": f"{SCHEMAS}Text"})]
ModelName = Annotated[str, msgspec.Meta(extra_json_schema={"$ref": f"{SCHEMAS}ModelName"})]


@dataclass(frozen=True)
class Limits:
    """The limits of a request: bytes, texts, characters a text, words to explain, rows of a CSV."""

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
            too_large(f"{name} has {len(texts)} texts: send at most {self.max_items} at once.")
        for row, text in enumerate(texts):
            if len(text) > self.max_characters:
                too_large(
                    f"{name}[{row}] has {len(text)} characters: send at most {self.max_characters}."
                )


async def body_of(
    request: Request, most: int, until: float, kinds: Sequence[str] = (JSON,)
) -> bytes:
    """Read the body of a request, of one of ``kinds`` and of at most so many bytes.

    Raises:
        Problem: it is of another kind, too large, too slow, or there is no room for it.
    """
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # Pages of other sites may send a body without a kind, but say where they are from.
    if found not in kinds or (not found and "origin" in request.headers):
        message = f"The body must be {' or '.join(filter(None, kinds))}: set the header "
        raise Problem(415, "Validation", f"{message}Content-Type.")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "Validation", "The body has a Content-Encoding: send it without.")
    message = f"The body has more than {most} bytes: send less at once."
    too_many = Problem(413, "Validation", message)
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > most + LINGER:
        raise too_many
    content, size = io.BytesIO(), 0  # whose value is no copy
    try:
        async with asyncio.timeout(until - time.monotonic()):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most + LINGER:
                    raise too_many
                if size <= most:
                    content.write(chunk)
                    await request.scope["share"].fill(size)
    except TimeoutError:
        message = "The body took too long to arrive: send it faster."
        raise Problem(408, "Deadline", message) from None
    if size > most:
        raise too_many
    return content.getvalue()


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
        message = "The deadline passed before the answer: send fewer texts, or try again later."
        raise Problem(504, "Deadline", message)
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


def hint(name: str, found: Collection[str]) -> str:
    """Suggest the likeliest of a client's names, unless they are very many or long."""
    short = [one for one in found if len(one) <= NAME] if len(found) <= NAMES else []
    return closest(name[:NAME], short)


def json_answer(value: Any, headers: dict[str, str] | None = None) -> Response:
    """Make an answer of JSON."""
    return Response(ENCODER.encode(value), headers=headers, media_type=JSON)


def rows_of(marks: Sequence[bool]) -> str:
    """List the texts that are marked by their numbers, as "0,3"."""
    return ",".join(str(row) for row, marked in enumerate(marks) if marked)


def told(cut: Sequence[bool], answers: Sequence[Answer]) -> dict[str, str]:
    """Make the headers that say which texts were cut, and which got no label.

    The body is that of the dialect, which may have no place for either.
    """
    unanswered = [answer.label is None for answer in answers]
    marks = {"X-Truncated": cut, "X-No-Answer": unanswered}
    return {name: rows_of(rows) for name, rows in marks.items() if True in rows}


def decoded(content: bytes, decoder: msgspec.json.Decoder[Result]) -> Result:
    """Decode a body of JSON.

    Raises:
        Problem: it is not JSON, or not of the decoder's type; the message names the field.
    """
    try:
        # The decoder does not look into fields that it skips, so their bytes are checked here.
        return decoder.decode(content.decode())
    except msgspec.ValidationError as error:
        invalid(sentence(error, decoder.type))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        invalid(f"The body is not valid JSON ({error}): send a JSON object in UTF-8.")


def sentence(error: msgspec.ValidationError, kind: Any) -> str:
    """Say which field of a type is wrong and what it takes.

    msgspec has the place of an error only in its message, which ends in "- at `$.inputs[0].name`".
    """
    message = str(error)
    said, at, place = message.rpartition(" - at `$")
    said, place = (said, place.strip(".`")) if at else (message, "")
    (top,), named = msgspec.json.schema_components([kind], ref_template="{name}")
    found: Schemas = [top]
    for step in re.findall(r"\[|[^\W\d]\w*", place):
        inner = [
            one.get("items", one.get("additionalProperties"))
            if step == "["
            else one.get("properties", {}).get(step)
            for one in _options(found, named)
        ]
        found = [schema for schema in inner if isinstance(schema, dict)]
    field = re.match("Object (?:missing required|contains unknown) field `(.*)`$", said, re.DOTALL)
    if not field:
        wanted = " or ".join(dict.fromkeys(map(_described, _options(found, named)))) or said
        titles = [schema["title"] for schema in found if "title" in schema]
        return f"{place or 'The body'} must be {titles[0] if titles else wanted}."
    known = [name for one in _options(found, named) for name in one.get("properties", {})]
    prefix, name = place and f"{place}.", field[1][:40]
    if name in known:
        return f"{prefix}{name} is missing: send it."
    return f"{prefix}{name} is not known{closest(name, known)}: send {', '.join(known)}."


def _options(schemas: Schemas, named: dict[str, Any]) -> Schemas:
    """Replace each schema by those of which its value may be one, without null."""
    found: Schemas = []
    for schema in schemas:
        if "anyOf" in schema:
            found += _options(schema["anyOf"], named)
        elif schema.get("$ref") in named:
            found += _options([named[schema["$ref"]]], named)
        elif schema.get("type") != "null":
            found.append(schema)
    return found


def _described(schema: dict[str, Any]) -> str:
    """Say in words what a value of a schema is."""
    if "enum" in schema:
        options = schema["enum"]
        return repr(options[0]) if len(options) == 1 else f"one of {', '.join(options)}"
    words = KINDS[schema["type"]]
    return f"{words} of at least {schema['minimum']}" if "minimum" in schema else words
