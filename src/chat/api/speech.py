"""Answers in the forms of OpenAI's API, whole and piece by piece."""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from src.chat import judging
from src.chat.engine import Engine
from src.chat.scheduler import Asked, Token

BROKEN = 256  # tokens after which bytes that are no character are not going to be one
CALL = "<tool_call>"  # what a call begins with, as Hermes writes it


@dataclass
class Speech:
    """What a model says to one prompt, as its tokens come.

    Attributes:
        engine: of the model.
        stops: the texts that end it, which are not said.
        tools: whether calls of tools are looked for.
        tokens: those that were made; a text that ends it may cut what they say.
        asked: how likely the prompt is, if that was asked for.
        text: all that is said so far.
        calls: of tools, once it has ended.
        reason: why it has ended, or None.
    """

    engine: Engine
    stops: Sequence[str]
    tools: bool
    _spelt: "_Spelling" = field(init=False)
    tokens: list[Token] = field(default_factory=list)
    asked: list[float] = field(default_factory=list)
    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None

    def __post_init__(self) -> None:
        """Begin without a token."""
        self._spelt = _Spelling(self.engine.tokenizer)

    @property
    def ids(self) -> list[int]:
        """Return the tokens that were made, with that which ends it."""
        return [token.id for token in self.tokens]

    def take(self, told: Asked | Token) -> str:
        """Take what the scheduler told, and return what can be said by now and was not yet."""
        if isinstance(told, Asked):
            self.asked = told.log_probabilities
            return ""
        self.tokens.append(told)
        text = self._spelt.text if told.id in self.engine.ends else self._spelt.add(told.id)
        self.reason = told.reason
        if found := [place for stop in self.stops if (place := text.find(stop)) >= 0]:
            text, self.reason = text[: min(found)], "stop"
        sure = self._end(text) if self.reason else self._sure(text)
        new = text[len(self.text) : sure]
        self.text += new
        return new

    def _end(self, text: str) -> int:
        """Find the calls in all that was made, and return how much of it is said beside them."""
        found = judging.calls_of(text) if self.tools else []
        self.calls = [
            {
                "id": f"call_{uuid.uuid4().hex[:24]}",
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(of, ensure_ascii=False)},
            }
            for name, of in found
        ]
        if not found:
            return len(text)
        self.reason = "tool_calls"
        return max(text.find(CALL), len(self.text))

    def _sure(self, text: str) -> int:
        """Return how much of a text is said, whatever comes next."""
        if self.tools and (text.lstrip()[:1] in ("", "{", "[") or CALL in text):
            return max(text.find(CALL), len(self.text))
        whole = text.rstrip("\ufffd")  # the first bytes of a character
        held = [*self.stops, *[CALL] * self.tools]
        begun = [
            size
            for stop in held
            for size in range(1, min(len(stop), len(whole) + 1))
            if whole.endswith(stop[:size])
        ]
        return max(len(self.text), len(whole) - max(begun, default=0))


class _Spelling:
    """What tokens say, of which the last ones alone are decoded as another comes.

    What a token says depends on the one before it, and a character may have several of them.

    Attributes:
        text: all of it, with U+FFFD for the first bytes of a character.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.text = ""
        self._tokenizer = tokenizer
        self._ids: list[int] = []  # the last ones, of which so many are in what is sure
        self._known = 0
        self._sure = ""

    def add(self, id: int) -> str:
        self._ids.append(id)
        new = self._decoded(self._ids)[len(self._decoded(self._ids[: self._known])) :]
        self.text = self._sure + new
        # What says nothing is no window by itself: the next token would lose its space.
        if new and (not new.endswith("\ufffd") or len(self._ids) > BROKEN):
            self._sure, self._ids = self.text, self._ids[self._known :]
            self._known = len(self._ids)
        return self.text

    def _decoded(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        return text


def head(kind: str, prefix: str, model: str) -> dict[str, Any]:
    """Return what each object of an answer begins with."""
    id = f"{prefix}-{uuid.uuid4().hex}"
    return {"id": id, "object": kind, "created": int(time.time()), "model": model}


def usage(prompt: int, speeches: Sequence[Speech]) -> dict[str, int]:
    """Count tokens."""
    made = sum(len(one.tokens) for one in speeches)
    return {"prompt_tokens": prompt, "completion_tokens": made, "total_tokens": prompt + made}


def chat_logprobs(engine: Engine, tokens: Sequence[Token]) -> dict[str, Any]:
    """Return the log-probabilities of tokens, as chat completions have them."""

    def one(id: int, likely: float) -> dict[str, Any]:
        text = engine.tokenizer.decode([id])
        return {"token": text, "logprob": likely, "bytes": list(text.encode())}

    return {
        "content": [
            one(token.id, token.log_probability)
            | {"top_logprobs": [one(*pair) for pair in token.top]}
            for token in tokens
        ]
    }


def completion_logprobs(engine: Engine, tokens: Sequence[Token], start: int) -> dict[str, Any]:
    """Return the log-probabilities of tokens, as completions have them, from a place of a text."""
    texts = [engine.tokenizer.decode([token.id]) for token in tokens]
    offsets = [start + sum(map(len, texts[:place])) for place in range(len(texts))]
    return {
        "tokens": texts,
        "token_logprobs": [token.log_probability for token in tokens],
        "top_logprobs": [
            {engine.tokenizer.decode([id]): likely for id, likely in token.top} for token in tokens
        ],
        "text_offset": offsets,
    }


def prompt_logprobs(
    engine: Engine, ids: Sequence[int], speech: Speech
) -> list[dict[str, Any] | None]:
    """Return how likely each token of a prompt is, as vLLM has it; the first has nothing before."""
    likely = zip(ids[1:], speech.asked, strict=True)
    found = [
        {str(id): {"logprob": each, "decoded_token": engine.tokenizer.decode([id])}}
        for id, each in likely
    ]
    return [None, *found]


def line(event: dict[str, Any]) -> bytes:
    """Write an object as an event of a stream."""
    return b"data: " + msgspec.json.encode(event) + b"\n\n"
