"""/v1/completions: parse, answer, stream."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from src.chat.api.errors import Problem, json_answer
from src.chat.api.requests import CompletionRequest, parsed
from src.chat.api.speech import Speech, completion_logprobs, head, prompt_logprobs, usage
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


async def completions(scheduler: Scheduler, request: Request) -> Response:
    """Go on with texts."""
    asked = parsed(await body_of(request), CompletionRequest)
    name, engine = engine_of(scheduler, asked)
    # In another thread, since others are answered meanwhile.
    prompts = await run_in_threadpool(_ids, engine, asked)
    if not all(prompts):
        raise Problem(400, "A prompt has no tokens: send more of it.", "prompt")
    most = min(
        most_of(engine, ids, asked.most or 1, asked.max_tokens is not None) for ids in prompts
    )
    many = asked.n or 1
    speeches = [Speech(engine, asked.stops, tools=False) for _ in range(len(prompts) * many)]
    told = begin(scheduler, name, asked, prompts, generation_of(asked, most), asked.top, many)
    counted = sum(map(len, prompts))
    if asked.stream:
        return stream(_text_events(name, asked, counted, speeches, told), told)
    await gather(request, told, speeches)
    choices = []
    for place, one in enumerate(speeches):
        likely = None
        if asked.logprobs is not None:
            likely = completion_logprobs(engine, one.tokens, 0)
        choice: dict[str, Any] = {"index": place, "text": one.text, "logprobs": likely}
        choice["finish_reason"] = one.reason
        if asked.prompt_logprobs is not None:
            ids, first = prompts[place // many], speeches[place - place % many]
            choice["prompt_logprobs"] = prompt_logprobs(engine, ids, first)
        if asked.return_token_ids:
            choice |= {"prompt_token_ids": prompts[place // many], "token_ids": one.ids}
        choices.append(choice)
    found = head("text_completion", "cmpl", name) | {"choices": choices}
    return json_answer(found | {"usage": usage(counted, speeches)})


def _ids(engine: Engine, asked: CompletionRequest) -> list[list[int]]:
    special = asked.add_special_tokens
    return [
        engine.tokenizer(one, add_special_tokens=special)["input_ids"]
        if isinstance(one, str)
        else _known(engine, one)
        for one in asked.prompts
    ]


def _known(engine: Engine, ids: Sequence[int]) -> list[int]:
    words = len(engine.tokenizer)
    if odd := next((id for id in ids if not 0 <= id < words), None):
        raise Problem(400, f"{odd} is no token of the model, which has {words}.", "prompt")
    return [*ids]


async def _text_events(
    name: str, asked: CompletionRequest, counted: int, speeches: Sequence[Speech], told: Waiting
) -> AsyncIterator[dict[str, Any]]:
    start = head("text_completion", "cmpl", name)
    told_of = [0] * len(speeches)
    async for place, speech, new in told.take(speeches):
        if not (new or speech.reason):
            continue
        likely = None
        if asked.logprobs is not None:
            tokens = speech.tokens[told_of[place] :]
            likely = completion_logprobs(speech.engine, tokens, len(speech.text) - len(new))
            told_of[place] = len(speech.tokens)
        choice = {"index": place, "text": new, "logprobs": likely, "finish_reason": speech.reason}
        yield start | {"choices": [choice]}
    if asked.stream_options and asked.stream_options.include_usage:
        yield start | {"choices": [], "usage": usage(counted, speeches)}
