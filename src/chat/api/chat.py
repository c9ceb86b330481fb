"""/v1/chat/completions: parse, answer, stream."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from src.chat import templates
from src.chat.api.errors import Problem, json_answer
from src.chat.api.requests import ChatRequest, parsed
from src.chat.api.speech import Speech, chat_logprobs, head, prompt_logprobs, usage
from src.chat.api.waiting import (
    Waiting,
    begin,
    body_of,
    engine_of,
    gather,
    generation_of,
    most_of,
    stream,
)
from src.chat.engine import Engine
from src.chat.scheduler import Scheduler

MOST = 1024  # tokens of an answer, if a request does not say
MARK = "\u2402end\u2403"  # where a message that is continued ends


async def chat(scheduler: Scheduler, request: Request) -> Response:
    """Answer a conversation."""
    asked = parsed(await body_of(request), ChatRequest)
    name, engine = engine_of(scheduler, asked)
    tools = asked.schemas()
    # In another thread, since others are answered meanwhile.
    ids = await run_in_threadpool(_ids, engine, asked, tools)
    if not ids:
        raise Problem(400, "The messages have no tokens: send more.", "messages")
    most = most_of(engine, ids, asked.most or MOST, asked.most is not None)
    generation = generation_of(asked, most)
    speeches = [Speech(engine, asked.stops, bool(tools)) for _ in range(asked.n or 1)]
    told = begin(scheduler, name, asked, [ids], generation, asked.top, len(speeches))
    if asked.stream:
        return stream(_chat_events(name, asked, ids, speeches, told), told)
    await gather(request, told, speeches)
    choices = [
        {
            "index": place,
            "message": {"role": "assistant", "content": one.text or (None if one.calls else "")}
            | ({"tool_calls": one.calls} if one.calls else {}),
            "logprobs": chat_logprobs(engine, one.tokens) if asked.logprobs else None,
            "finish_reason": one.reason,
        }
        | ({"token_ids": one.ids} if asked.return_token_ids else {})
        for place, one in enumerate(speeches)
    ]
    found = head("chat.completion", "chatcmpl", name) | {"choices": choices}
    found["usage"] = usage(len(ids), speeches)
    if asked.prompt_logprobs is not None:
        found["prompt_logprobs"] = prompt_logprobs(engine, ids, speeches[0])
    if asked.return_token_ids:
        found["prompt_token_ids"] = ids
    return json_answer(found)


def _ids(engine: Engine, asked: ChatRequest, tools: list[dict[str, Any]]) -> list[int]:
    return engine.renderer.ids(_prompt(engine, asked, asked.turns(), tools))


def _prompt(
    engine: Engine, asked: ChatRequest, messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> str:
    goes_on = asked.continue_final_message
    if goes_on:
        messages[-1]["content"] += MARK
    try:
        text = templates.render(
            engine.tokenizer,
            engine.renderer.template,
            messages,
            tools,
            prompt=asked.add_generation_prompt,
        )
    except Exception as error:  # whatever a template of somebody else's comes to
        raise Problem(
            400, f"The model's chat template refuses these messages: {error}.", "messages"
        ) from None
    if goes_on and MARK not in text:
        raise Problem(400, "The model's chat template leaves the last message out.", "messages")
    return text.rpartition(MARK)[0] if goes_on else text


async def _chat_events(
    name: str, asked: ChatRequest, ids: Sequence[int], speeches: Sequence[Speech], told: Waiting
) -> AsyncIterator[dict[str, Any]]:
    start = head("chat.completion.chunk", "chatcmpl", name)

    def event(place: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
        choice = {"index": place, "delta": delta, "logprobs": None, "finish_reason": None}
        return start | {"choices": [choice | more]}

    for place in range(len(speeches)):
        yield event(place, {"role": "assistant", "content": ""})
    told_of = [0] * len(speeches)  # tokens whose log-probability was sent
    async for place, speech, new in told.take(speeches):
        if not (new or speech.reason):
            continue
        likely = None
        if asked.logprobs:
            likely = chat_logprobs(speech.engine, speech.tokens[told_of[place] :])
            told_of[place] = len(speech.tokens)
        if new or likely:
            yield event(place, {"content": new}, logprobs=likely)
        if speech.reason:
            calls = [{"index": number} | call for number, call in enumerate(speech.calls)]
            delta = {"tool_calls": calls} if calls else {}
            yield event(place, delta, finish_reason=speech.reason)
    if asked.stream_options and asked.stream_options.include_usage:
        yield start | {"choices": [], "usage": usage(len(ids), speeches)}
