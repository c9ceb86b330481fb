"""What the routes of OpenAI's API are sent, checked, and the form of their errors."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from src.chat.api.errors import Problem
from src.core.errors import closest

ROLES = ("system", "developer", "user", "assistant", "tool")
STOPS = 4  # texts at most, as in OpenAI's API
LONG_STOP = 256  # characters of each
MESSAGES = 4096
CHOICES = 16  # answers to one prompt
TOP = 20  # of the likeliest tokens


class Function(Struct):
    """What a tool is called by and takes."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Struct):
    """A tool that the model may call."""

    function: Function
    type: Literal["function"] = "function"


class StreamOptions(Struct):
    """What a stream has beside the answer."""

    include_usage: bool = False


class Form(Struct):
    """The form of an answer, of which there is one."""

    type: Literal["text"] = "text"


class Options(Struct, kw_only=True, forbid_unknown_fields=True):
    """What both routes take; what is beside OpenAI's own is as vLLM names it."""

    model: str = ""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    prompt_logprobs: int | None = None
    return_token_ids: bool | None = None
    user: str | None = None
    # Of OpenAI's, only what changes nothing.
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None

    def checked(self) -> None:
        """Raise a ``Problem`` if a value is none that is known here."""
        bounds: Sequence[tuple[str, float, float]] = (
            ("max_tokens", 1, 2**31),
            ("temperature", 0, 2),
            ("top_p", 1e-9, 1),
            ("top_k", -1, 2**31),
            ("repetition_penalty", 1e-3, 1e3),
            ("seed", -(2**63), 2**63),
            ("n", 1, CHOICES),
            ("prompt_logprobs", 0, 0),
            ("frequency_penalty", 0, 0),
            ("presence_penalty", 0, 0),
        )
        for name, low, high in bounds:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                span = f"{low:g} alone" if low == high else f"from {low:g} to {high:g}"
                span = f"{low:g} or more" if high >= 2**31 > low >= -1 else span
                raise Problem(400, f"{name} is {str(value)[:40]}: it may be {span}.", name)
        if self.logit_bias:
            raise Problem(400, "This server takes no logit_bias: leave it out.", "logit_bias")
        if len(self.stops) > STOPS or not all(0 < len(one) <= LONG_STOP for one in self.stops):
            told = f"stop is up to {STOPS} texts of 1 to {LONG_STOP} characters."
            raise Problem(400, told, "stop")
        if self.stream and self.prompt_logprobs is not None:
            told = "prompt_logprobs are not of a stream: leave one of them out."
            raise Problem(400, told, "prompt_logprobs")
        if self.stream and self.return_token_ids:
            told = "return_token_ids is not of a stream: leave one of them out."
            raise Problem(400, told, "return_token_ids")
        if self.stream_options and not self.stream:
            raise Problem(400, "stream_options are of a stream: set stream.", "stream_options")

    @property
    def stops(self) -> list[str]:
        """Return the texts that end an answer."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


class ChatRequest(Options, kw_only=True, forbid_unknown_fields=True):
    """The body of /v1/chat/completions."""

    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["auto", "none"] | None = None
    parallel_tool_calls: bool | None = None
    response_format: Form | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False

    @property
    def most(self) -> int | None:
        """Return how many tokens an answer may have."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def top(self) -> int:
        """Return how many of the likeliest tokens are told, -1 for none and no log-probability."""
        return (self.top_logprobs or 0) if self.logprobs else -1

    def checked(self) -> None:
        """Raise a ``Problem`` if a value is none that is known here."""
        super().checked()
        if self.max_completion_tokens is not None and self.max_completion_tokens < 1:
            raise Problem(400, "max_completion_tokens is less than 1.", "max_completion_tokens")
        _expect_top("top_logprobs", self.top_logprobs)
        if self.top_logprobs and not self.logprobs:
            raise Problem(400, "top_logprobs are of logprobs: set them.", "top_logprobs")
        if self.continue_final_message and self.add_generation_prompt:
            raise Problem(
                400,
                "An answer is either continued or begun: set add_generation_prompt to false.",
                "continue_final_message",
            )
        if not 0 < len(self.messages) <= MESSAGES:
            told = f"There are {len(self.messages) or 'no'} messages: send 1 to {MESSAGES}."
            raise Problem(400, told, "messages")

    def turns(self) -> list[dict[str, Any]]:
        """Return the messages as a template takes them: texts, and arguments as objects."""
        return [_message(place, message) for place, message in enumerate(self.messages)]

    def schemas(self) -> list[dict[str, Any]]:
        """Return the tools that may be called."""
        empty = {"type": "object", "properties": {}}
        return [
            {
                "name": tool.function.name,
                "description": tool.function.description or "",
                "parameters": tool.function.parameters or empty,
            }
            for tool in (self.tools or [])
            if self.tool_choice != "none"
        ]


class CompletionRequest(Options, kw_only=True, forbid_unknown_fields=True):
    """The body of /v1/completions."""

    prompt: str | list[str | int | list[int]]
    add_special_tokens: bool = True  # such as the one that begins a text for some models
    logprobs: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    @property
    def most(self) -> int | None:
        """Return how many tokens an answer may have; 16 as OpenAI's has it."""
        return 16 if self.max_tokens is None else self.max_tokens

    @property
    def top(self) -> int:
        """Return how many of the likeliest tokens are told, -1 for none and no log-probability."""
        return -1 if self.logprobs is None else self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """Return the prompts, one or more, each a text or tokens."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        tokens = [one for one in self.prompt if isinstance(one, int)]
        return [tokens] if tokens else [one for one in self.prompt if not isinstance(one, int)]

    def checked(self) -> None:
        """Raise a ``Problem`` if a value is none that is known here."""
        super().checked()
        _expect_top("logprobs", self.logprobs)
        if self.suffix or (self.best_of or 1) > 1 or self.echo:
            name = "suffix" if self.suffix else "echo" if self.echo else "best_of"
            raise Problem(400, f"This server takes no {name}: leave it out.", name)
        kinds = {type(one) for one in self.prompt}
        if not self.prompts or not all(self.prompts) or len(kinds) > 1:
            raise Problem(
                400, "prompt is a text, texts, tokens, or lists of tokens, none empty.", "prompt"
            )


R = TypeVar("R", bound=Options)


def _expect_top(name: str, value: int | None) -> None:
    if value is not None and not 0 <= value <= TOP:
        raise Problem(400, f"{name} is {value}: this server takes from 0 to {TOP}.", name)


def parsed(body: bytes, kind: type[R]) -> R:
    """Read the body of a request.

    Raises:
        Problem: it is not as the route takes it.
    """
    try:
        found = msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        message = str(error)
        unknown = message.split("`")[1] if "unknown field" in message else ""
        hint = closest(unknown, kind.__struct_fields__) if unknown else ""
        raise Problem(400, f"{message}{hint}.", unknown) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, f"The body is no JSON: {error}.") from None
    found.checked()
    return found


def _message(place: int, message: Mapping[str, Any]) -> dict[str, Any]:
    where = f"messages[{place}]"
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        hint = closest(str(role), ROLES)
        raise Problem(
            400, f"{where} has role {str(role)[:40]!r}{hint}: one of {', '.join(ROLES)}.", where
        )
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not all(isinstance(text, str) for text in texts):
            raise Problem(400, f"{where} has a part that is no text: the model reads texts.", where)
        content = "".join(map(str, texts))
    calls = message.get("tool_calls") or []
    if not isinstance(content, str) and not (content is None and role == "assistant" and calls):
        raise Problem(400, f"{where} has no content that is a text.", where)
    found: dict[str, Any] = {"role": "system" if role == "developer" else role}
    found["content"] = content or ""
    if isinstance(name := message.get("name"), str):
        found["name"] = name
    if calls:
        found["tool_calls"] = [_call(where, call) for call in _list(where, calls)]
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise Problem(400, f"{where} has values nested too deep.", where) from None
    except UnicodeEncodeError:
        raise Problem(
            400, f"{where} has half of a surrogate pair, which is no text.", where
        ) from None
    return found


def _list(where: str, found: Any) -> list[Any]:
    if not isinstance(found, list):
        raise Problem(400, f"{where} has tool_calls that are no list.", where)
    return found


def _call(where: str, call: Any) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(function, dict) or not isinstance(name, str):
        raise Problem(400, f"{where} has a call without the name of a function.", where)
    arguments = function.get("arguments") or "{}"
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise Problem(400, f"{where} has arguments that are no JSON.", where) from None
    if not isinstance(arguments, dict):
        raise Problem(400, f"{where} has arguments that are no object.", where)
    return {"type": "function", "function": {"name": name, "arguments": arguments}}
