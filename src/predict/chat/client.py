"""Models behind OpenAI's API, in Python: answers and streams, each with the turns before it.

from src.predict.chat.client import Chat, Request, opened

with opened("models/chat/merged") as url:  # or the URL of a server
chat = Chat(url)
first = chat.answer([Request("Who are you?")])[0]
(second,) = chat.answer([Request("Say it again.", first.history)])
"""

import os
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai

from src.core.errors import InputError, closest
from src.predict.chat.models import ChatModel, EngineName, EngineOptions, chat_models, command
from src.predict.chat.process import EngineProcess
from src.predict.foreign import one_line
from src.tables.json_rows import TYPED

KEY = "CHAT_API_KEY"  # the environment variable that may hold the key of a server
ADDRESS = re.compile(r"[\w.-]+:\d+(/|$)")  # of a server, without http://
REFUSALS = (400, 413, 422)  # what a request is answered that nobody could answer
RETRIES = 8  # of a request of a table, over half a minute
PATIENCE = 600.0  # seconds for an answer, which may be long

History = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Request:
    """A question, and what was said before it.

    Attributes:
        query: what the user asks.
        history: questions and their answers, the first ones first.
        system: what the model is told before all; "" for nothing.
    """

    query: str
    history: History = ()
    system: str = ""

    def messages(self) -> list[Any]:
        """Return it as OpenAI's API has it."""
        found = [{"role": "system", "content": self.system}] if self.system else []
        for asked, said in (*self.history, (self.query, None)):
            found.append({"role": "user", "content": asked})
            if said is not None:
                found.append({"role": "assistant", "content": said})
        return found


@dataclass(frozen=True)
class Said:
    """What a model said to messages.

    Attributes:
        text: of it.
        calls: of tools, each with ``name`` and ``arguments``.
        ended: whether the model ended it; else it has as many tokens as it may have.
        tokens: how many it has.
    """

    text: str
    calls: tuple[dict[str, Any], ...]
    ended: bool
    tokens: int


@dataclass(frozen=True)
class Reply:
    """What a model said.

    Attributes:
        text: of it.
        history: that of the request with the question and this answer.
        ended: whether the model ended it; else it has as many tokens as it may have.
        tokens: how many it has.
    """

    text: str
    history: History
    ended: bool
    tokens: int


@dataclass(frozen=True)
class Way:
    """How an answer is drawn; the names are those of vLLM.

    Attributes:
        max_tokens: of an answer at most.
        temperature: 0 takes the likeliest token, whatever follows.
        top_p: only the likeliest tokens that have this probability together are drawn from.
        top_k: only so many of the likeliest are; 0 for all.
        repetition_penalty: what scores of tokens that were there are divided by, if positive.
        seed: of the draws.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 42

    def words(self) -> dict[str, Any]:
        """Return it as arguments of openai's client."""
        more = {"top_k": self.top_k or -1, "repetition_penalty": self.repetition_penalty}
        found = {"max_tokens": self.max_tokens, "temperature": self.temperature}
        return {**found, "top_p": self.top_p, "seed": self.seed, "extra_body": more}


class RefusedError(InputError):
    """The server does not answer this, and may answer something else.

    Attributes:
        reason: what it says of it.
    """

    def __init__(self, url: str, reason: str) -> None:
        """Take who refuses it, and why."""
        super().__init__(url, reason)
        self.reason = reason

    def __str__(self) -> str:
        """Return a sentence."""
        return "{} refuses that: {}".format(*self.args)


Say = Callable[[list[Any], list[Any]], Said]  # of messages and tools


class Chat:
    """A model of a server.

    Attributes:
        models: the names of those that the server has.
        model: the name of the one that answers.
    """

    def __init__(
        self, url: str, model: str = "", key: str = "", way: Way | None = None, retries: int = 0
    ) -> None:
        """Ask a server for its models.

        Args:
            url: of the server, with or without /v1.
            model: the name of the one to ask; "" for the first.
            key: what the server wants; "" for the variable CHAT_API_KEY, or nothing.
            way: how answers are drawn.
            retries: how often a request is sent again, after a while, where the server is gone or
                has too much to do.

        Raises:
            InputError: there is no server, it has no such model, or it wants another key.
        """
        place = url.rstrip("/").removesuffix("/v1")
        sent = key or os.environ.get(KEY, "") or "none"
        self._client = openai.OpenAI(
            base_url=f"{place}/v1", api_key=sent, max_retries=retries, timeout=PATIENCE
        )
        self._way = way or Way()
        self._url = place
        with self._told():
            self.models = [one.id for one in self._client.models.list()]
        self.model = model or next(iter(self.models), "")
        self.choose(self.model)

    def choose(self, model: str) -> None:
        """Have another model answer; InputError if the server has none of that name."""
        if model not in self.models:
            raise InputError(
                f"{self._url} has no model {model!r}{closest(model, self.models)}: name one of "
                f"{', '.join(self.models)}."
            )
        self.model = model

    def answer(self, requests: Sequence[Request], at_once: int = 8) -> list[Reply]:
        """Answer requests, in their order, so many at once.

        Raises:
            InputError: the server is gone, or refuses one.
        """
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(self._answer, requests))

    def _answer(self, request: Request) -> Reply:
        said = self.say(request.messages(), [])
        history = (*request.history, (request.query, said.text))
        return Reply(said.text, history, said.ended, said.tokens)

    def say(self, messages: list[Any], tools: list[Any]) -> Said:
        """Answer messages, as OpenAI's API has them and tools.

        Raises:
            RefusedError: the server does not answer these.
            InputError: it is gone.
        """
        given = self._way.words() | ({"tools": tools} if tools else {})
        with self._told():
            found = self._client.chat.completions.create(
                model=self.model, messages=messages, **given
            )
            (choice,) = found.choices
            calls = tuple(
                {"name": one.function.name, "arguments": _read(one.function.arguments)}
                for one in choice.message.tool_calls or ()
                if one.type == "function"
            )
            tokens = found.usage.completion_tokens if found.usage else 0
            ended = choice.finish_reason != "length"
            return Said(_text(choice.message.content or ""), calls, ended, tokens)

    def stream(self, request: Request) -> Iterator[str]:
        """Answer one request, and give the text piece by piece as it comes.

        Raises:
            InputError: the server is gone, or refuses it.
        """
        with self._told():
            pieces = self._client.chat.completions.create(
                model=self.model, messages=request.messages(), stream=True, **self._way.words()
            )
            for piece in pieces:
                if piece.choices and (text := piece.choices[0].delta.content):
                    yield text

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn what goes wrong at the server into a sentence."""
        try:
            yield
        except openai.APITimeoutError:
            raise InputError(
                f"{self._url} has not answered within {PATIENCE:.0f} s: ask for fewer tokens."
            ) from None
        except openai.APIConnectionError as error:
            raise InputError(
                f"There is no server at {self._url} ({error.__cause__ or error}): start one by "
                "`python -m src.serve.chat`, or correct the URL."
            ) from None
        except openai.AuthenticationError:
            raise InputError(
                f"{self._url} wants a key, or another one: put it into the variable {KEY}."
            ) from None
        except openai.APIError as error:
            body: Any = error.body
            said = str((body.get("message") if isinstance(body, dict) else None) or error)
            if getattr(error, "status_code", 0) in REFUSALS:
                raise RefusedError(self._url, said) from None
            raise InputError(f"{self._url} does not answer ({said}): try again later.") from None
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._url} answers in another form than OpenAI's API ({one_line(error)}): name "
                "the URL of such a server."
            ) from None


def _text(said: str) -> str:
    """Return what can be written: halves of surrogate pairs, which JSON may hold, are replaced."""
    return said.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _read(arguments: Any) -> Any:
    """Return arguments of a call as an object; as the text that they are if they are none."""
    if not isinstance(arguments, str):
        return arguments or {}
    try:
        return TYPED.decode(_text(arguments))
    except (ValueError, RecursionError):
        return _text(arguments)


@contextmanager
def opened(
    place: str,
    base: str = "models/chat/base",
    engine: EngineName | None = None,
    threads: int = 2,
    tell: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[str, str, str]]:
    """Start an engine for a folder, as long as the block runs; a URL is a server already.

    Args:
        place: the URL of a server, or the folder of a model or an adapter.
        base: the folder of the model that an adapter was trained on.
        engine: transformers unless it is said, which starts sooner.
        threads: of the processor.
        tell: gets a line now and then while it loads.

    Yields:
        the URL, the key that it wants, and the name of the model; "" for what is not known.

    Raises:
        InputError: the folder has no model that can be served.
    """
    if "://" in place:
        yield place, "", ""
        return
    if ADDRESS.match(place) and not Path(place).exists():
        raise InputError(f"{place} is an address: write it as a URL, http://{place}.")
    found = chat_models([Path(place)], Path(base))
    with started(found, engine or "transformers", threads, tell) as (url, key):
        yield url, key, found[-1].name


@contextmanager
def started(
    models: Sequence[ChatModel], engine: EngineName, threads: int, tell: Callable[[str], None]
) -> Iterator[tuple[str, str]]:
    """Start an engine that others on this machine can't ask, as long as the block runs.

    Args:
        models: of ``chat_models``.
        engine: which.
        threads: of the processor.
        tell: gets a line now and then while it loads.

    Yields:
        the URL, and the key that it wants.

    Raises:
        InputError: it can't serve one of the models.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    key = secrets.token_urlsafe(32)
    options = EngineOptions("127.0.0.1", port, threads, ("127.0.0.1",), key)
    words, variables = command(models, engine, options)
    url = f"http://127.0.0.1:{port}"
    with EngineProcess(words, variables, Path("logs") / f"engine-{os.getpid()}.log") as process:
        process.wait_until_ready(f"{url}/health", tell, lambda: False)
        try:
            yield url, key
        except InputError:
            if process.has_ended():
                raise InputError(f"The engine has ended ({process.why()}") from None
            raise
