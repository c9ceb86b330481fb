"""OpenAI's API over transformers, asked by its own client."""

import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from chat_model import PARAMS
from chat_served import Served, expected, script, serving
from tokenizers.processors import TemplateProcessing

from src.chat.api.speech import Speech, _Spelling
from src.chat.conversations import Conversation, Turn
from src.chat.generation import Generation
from src.chat.scheduler import Job, Token

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

QUESTIONS = ["where is 1?", "where is 12 of the xxxx?", "who?", "what is this, and where, and why?"]
TOOL = {"type": "function", "function": {"name": "area", "description": "", "parameters": {}}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found


def test_each_model_answers_as_its_engine_does_however_many_ask_at_once(served: Served) -> None:
    wanted = {(m, q): expected(e, q) for m, e in served.engines.items() for q in QUESTIONS}
    assert len({wanted[model, QUESTIONS[1]] for model in served.engines}) == 3
    with ThreadPoolExecutor(8) as pool:
        asked = {key: pool.submit(served.say, key[1], model=key[0]) for key in [*wanted] * 2}
        for key, answer in asked.items():
            choice = answer.result().choices[0]
            assert choice.message.content == wanted[key]
            assert choice.finish_reason in ("stop", "length")
    listed = [model.id for model in served.client.models.list()]
    assert listed == ["base", "lora", "ptuning"]
    assert served.client.models.retrieve("lora").id == "lora"
    with pytest.raises(openai.NotFoundError, match=r"no model 'lor' \(did you mean 'lora'\?\)"):
        served.client.models.retrieve("lor")


def test_a_stream_is_the_answer_piece_by_piece(served: Served) -> None:
    whole = served.say(QUESTIONS[1])
    events = list(served.say(QUESTIONS[1], stream=True, stream_options={"include_usage": True}))
    text = "".join(one.choices[0].delta.content or "" for one in events[:-1])
    assert text == whole.choices[0].message.content
    assert len(events) > 6
    assert events[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert events[-1].usage == whole.usage
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens


def test_a_seed_draws_the_same_and_another_does_not(served: Served) -> None:
    hot = {"temperature": 1.3, "max_tokens": 20}
    first, again, other = (
        served.say("who?", seed=seed, **hot).choices[0].message.content for seed in (3, 3, 4)
    )
    assert first == again != other
    several = served.say("who?", seed=3, n=3, **hot)
    texts = [choice.message.content for choice in several.choices]
    assert texts[0] == first
    assert len(set(texts)) == 3


def test_a_text_that_ends_an_answer_is_not_said(served: Served) -> None:
    whole = served.say(QUESTIONS[1]).choices[0].message.content
    stop = whole[3:5]
    cut = served.say(QUESTIONS[1], stop=["never said", stop]).choices[0]
    assert cut.message.content == whole[: whole.index(stop)]
    assert cut.finish_reason == "stop"
    pieces = served.say(QUESTIONS[1], stop=[stop], stream=True)
    text = "".join(one.choices[0].delta.content or "" for one in pieces)
    assert text == cut.message.content


def test_a_character_of_several_tokens_comes_whole(served: Served) -> None:
    speech = Speech(served.engines["base"], [], tools=False)
    ids = served.engines["base"].tokenizer("小a谱", add_special_tokens=False)["input_ids"]
    assert len(ids) == 7, "a byte each, but for a"
    pieces = [speech.take(Token(id)) for id in ids]
    assert pieces == ["", "", "小", "a", "", "", "谱"]


def test_a_space_behind_a_token_that_says_nothing_stays() -> None:
    class Spaced:
        """As Llama 2 decodes: the space at the beginning is taken off."""

        def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
            assert skip_special_tokens
            return "".join({1: " Hello", 2: "", 3: " world"}[id] for id in ids).removeprefix(" ")

    spelling = _Spelling(Spaced())
    assert [spelling.add(id) for id in (1, 2, 3)] == ["Hello", "Hello", "Hello world"]


def test_what_was_said_is_not_read_again_for_each_token(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = served.engines["base"].tokenizer
    ids = tokenizer("the answers, and 小谱? " * 40, add_special_tokens=False)["input_ids"]
    sizes = []
    decode = tokenizer.decode

    def counted(given: list[int], **how: Any) -> Any:
        sizes.append(len(given))
        return decode(given, **how)

    monkeypatch.setattr(tokenizer, "decode", counted)
    speech = Speech(served.engines["base"], ["never said"], tools=True)
    said = "".join(speech.take(Token(id)) for id in ids[:-1])
    said += speech.take(Token(ids[-1], reason="length"))
    assert said == speech.text == decode(ids)
    assert len(ids) > 400
    assert max(sizes) < 10


def test_tokens_are_told_who_asks_for_them(served: Served) -> None:
    engine = served.engines["base"]
    prompt = engine.renderer.prompt(Conversation((Turn("user", "who?", False),)), 1)
    asked = engine.renderer.ids(prompt)
    (wanted,) = engine.answers([prompt], Generation(12), 1000)
    chat = served.say("who?", extra_body={"return_token_ids": True})
    assert (chat.prompt_token_ids, chat.choices[0].token_ids) == (asked, [*wanted.ids])
    more = {"return_token_ids": True}
    texts: Any = served.client.completions.create(
        model="base", prompt=[asked, asked], max_tokens=12, temperature=0, extra_body=more
    )
    for choice in texts.choices:
        assert (choice.prompt_token_ids, choice.token_ids) == (asked, [*wanted.ids])
    plain = served.say("who?")
    assert not hasattr(plain, "prompt_token_ids")
    with pytest.raises(openai.BadRequestError, match="return_token_ids is not of a stream"):
        served.say("who?", stream=True, extra_body={"return_token_ids": True})


def test_log_probabilities_are_those_of_the_model(served: Served) -> None:
    answer = served.say(QUESTIONS[1], logprobs=True, top_logprobs=2)
    content = answer.choices[0].logprobs.content
    assert len(content) == answer.usage.completion_tokens
    for one in content:
        assert one.top_logprobs[0].token == one.token, "the likeliest was taken"
        assert one.top_logprobs[0].logprob == pytest.approx(one.logprob)
        assert one.top_logprobs[1].logprob <= one.logprob <= 0


def test_an_answer_of_somebody_else_is_judged(served: Served) -> None:
    """As that of another model is, by the tokens behind those of the question."""
    engine, text = served.engines["lora"], "the user asks"
    asked = served.say(QUESTIONS[1], model="lora").usage.prompt_tokens
    messages: Any = [{"role": "user", "content": QUESTIONS[1]}]
    found: Any = served.client.chat.completions.create(
        model="lora",
        messages=[*messages, {"role": "assistant", "content": text}],
        max_tokens=1,
        extra_body={
            "prompt_logprobs": 0,
            "add_generation_prompt": False,
            "continue_final_message": True,
        },
    )
    told = found.prompt_logprobs[asked:]
    turn = Turn("user", QUESTIONS[1], False)
    whole = engine.renderer.prompt(Conversation((turn,)), 1) + text
    wanted = engine.likely(engine.renderer.ids(whole))[asked - 1 :].tolist()
    assert [next(iter(one.values()))["logprob"] for one in told] == pytest.approx(wanted, abs=1e-4)
    assert "".join(next(iter(one.values()))["decoded_token"] for one in told) == text


def test_texts_go_on(served: Served) -> None:
    engine = served.engines["base"]
    given = ["where", "the user asks and"]
    answer = served.client.completions.create(
        model="base", prompt=given, temperature=0, max_tokens=8, logprobs=1
    )
    wanted = [one.text for one in engine.answers(given, Generation(8), 1000)]
    assert [choice.text for choice in answer.choices] == wanted
    likely: Any = answer.choices[0].logprobs
    assert len(likely.tokens) == len(likely.token_logprobs) == len(likely.text_offset)
    ids = engine.renderer.ids(given[0])
    by_ids = served.client.completions.create(
        model="base", prompt=ids, temperature=0, max_tokens=8, stream=True
    )
    assert "".join(one.choices[0].text for one in by_ids) == wanted[0]


def test_texts_begin_as_the_model_has_learnt_them(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma and Llama read a token before a text, which a chat template writes by itself."""
    tokenizer = served.engines["base"].tokenizer
    begin = TemplateProcessing(single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)])
    monkeypatch.setattr(tokenizer._tokenizer, "post_processor", begin)
    ids = tokenizer("who", add_special_tokens=False)["input_ids"]

    def asked(prompt: Any, **more: Any) -> Any:
        extra = {"return_token_ids": True} | more
        made: Any = served.client.completions.create(
            model="base", prompt=prompt, max_tokens=1, extra_body=extra
        )
        return made.choices[0].prompt_token_ids

    assert asked("who") == [0, *ids]
    assert asked("who", add_special_tokens=False) == asked(ids) == ids
    prompt = served.say("who", extra_body={"return_token_ids": True}).prompt_token_ids
    assert 0 not in prompt


def test_calls_of_tools_are_found(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    said = 'Wait.\n<tool_call>\n{"name": "area", "arguments": {"side": 3}}\n</tool_call>'
    script(served, monkeypatch, said)
    whole = served.say("How large?", tools=[TOOL], max_tokens=150).choices[0]
    assert whole.finish_reason == "tool_calls"
    assert whole.message.content == "Wait.\n"
    (call,) = whole.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("area", {"side": 3})
    events = list(served.say("How large?", tools=[TOOL], max_tokens=150, stream=True))
    text = "".join(one.choices[0].delta.content or "" for one in events)
    assert text == "Wait.\n"
    (last,) = events[-1].choices[0].delta.tool_calls
    assert last.function.arguments == call.function.arguments
    plain = served.say("How large?", max_tokens=150).choices[0]
    assert plain.message.content == said, "without tools it is a text"


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"model": "lorra"}, 404, "There is no model 'lorra' (did you mean 'lora'?)"),
        ({"temperature": -1}, 400, "temperature is -1.0: it may be from 0 to 2"),
        ({"max_tokens": 0}, 400, "max_tokens is 0"),
        ({"max_tokens": 600}, 400, "the model reads at most 512: shorten it"),
        ({"max_tokens": "many"}, 400, "Expected `int | null`, got `str` - at `$.max_tokens`"),
        ({"temprature": 1}, 400, "unknown field `temprature` (did you mean 'temperature'?)"),
        ({"messages": []}, 400, "There are no messages"),
        ({"messages": [{"role": "bot", "content": "a"}]}, 400, "messages[0] has role 'bot'"),
        ({"messages": [{"role": "user", "content": 3}]}, 400, "no content that is a text"),
        ({"messages": [{"role": "user", "content": "?" * 3000}]}, 400, "the model reads at most"),
        ({"seed": 10**400}, 400, "seed is 1000"),
        ({"messages": [{"role": "user", "content": "a"}] * 5000}, 400, "There are 5000 messages"),
        ({"stop": "x" * 300}, 400, "stop is up to 4 texts of 1 to 256 characters"),
        ({"stream": True, "prompt_logprobs": 0}, 400, "prompt_logprobs are not of a stream"),
        ({"n": 17}, 400, "n is 17: it may be from 1 to 16"),
        ({"logit_bias": {"3": 1}}, 400, "This server takes no logit_bias"),
        ({"stop": [""]}, 400, "stop is up to 4 texts"),
        ({"top_logprobs": 3}, 400, "top_logprobs are of logprobs"),
        ({"tool_choice": "required"}, 400, "Invalid enum value 'required'"),
    ],
)
def test_what_cant_be_answered_is_told_as_openai_tells_it(
    change: dict[str, Any], status: int, told: str, served: Served
) -> None:
    body = {"model": "base", "messages": [{"role": "user", "content": "a"}]} | change
    with pytest.raises(openai.APIStatusError) as caught:
        served.client.post("/chat/completions", body=body, cast_to=object)
    assert caught.value.status_code == status
    error: Any = caught.value.body
    assert told in error["message"]
    assert error["type"] == ("not_found_error" if status == 404 else "invalid_request_error")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": []}, "prompt is a text, texts, tokens, or lists of tokens, none empty"),
        ({"prompt": ""}, "none empty"),
        ({"prompt": ["a", [3]]}, "none empty"),
        ({"prompt": [[]]}, "none empty"),
        ({"prompt": [3, 90000]}, "90000 is no token of the model"),
        ({"prompt": [-1]}, "-1 is no token"),
        ({"echo": True}, "This server takes no echo"),
        ({"logprobs": 30}, "logprobs is 30: this server takes from 0 to 20"),
        ({"prompt": ["a"] * 65}, "65 answers are asked for, more than 64"),
        ({"prompt": "?" * 600}, "the model reads at most 512"),
    ],
)
def test_texts_that_cant_go_on_are_told(change: dict[str, Any], told: str, served: Served) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        served.client.post("/completions", body={"prompt": "a"} | change, cast_to=object)
    error: Any = caught.value.body
    assert told in error["message"]


def curl(*words: str) -> tuple[int, Any]:
    made = subprocess.run(
        ["curl", "-s", "-w", "\n%{http_code}", *words], capture_output=True, text=True, check=True
    )
    body, _, status = made.stdout.rpartition("\n")
    return int(status), json.loads(body)


def test_curl_is_answered(served: Served) -> None:
    url, header = f"{served.url}/v1/chat/completions", "Content-Type: application/json"
    body: dict[str, Any] = {"messages": [{"role": "user", "content": QUESTIONS[1]}]}
    body |= {"max_tokens": 12, "temperature": 0}
    status, found = curl(url, "-H", header, "-d", json.dumps(body))
    assert status == 200
    assert found["model"] == "base", "the first"
    said = found["choices"][0]["message"]["content"]
    assert said == expected(served.engines["base"], QUESTIONS[1])
    assert curl(f"{served.url}/health") == (200, {"status": "ok"})
    for words, status in (
        ((url, "-H", header, "-d", '{"messages": [}'), 400),
        ((url, "-H", header, "-d", "[" * 100_000), 400),
        ((url, "-H", header, "-d", "\xff"), 400),
        ((url, "-d", json.dumps(body)), 415),
        ((url,), 405),
        ((f"{served.url}/v1/nothing",), 404),
    ):
        code, found = curl(*words)
        assert code == status
        assert found["error"]["code"] == status


def test_who_leaves_frees_the_place(served: Served) -> None:
    desk = served.scheduler._desks["base"]
    pieces = served.say("where?", stream=True, max_tokens=480, temperature=1, seed=1)
    next(one for one in pieces if one.choices[0].delta.content)
    assert len(desk._jobs) == 1
    pieces.close()
    with pytest.raises(openai.APITimeoutError):
        served.say("where?", max_tokens=480, temperature=1, seed=1, timeout=0.05)
    until = time.monotonic() + 10
    while desk.is_busy and time.monotonic() < until:
        time.sleep(0.01)
    assert not desk.is_busy


def test_answers_take_no_more_memory_than_they_may_however_long_the_server_is_asked(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All take as much as the longest, and one that comes later is padded to it."""
    desk = served.scheduler._desks["base"]
    monkeypatch.setattr(desk, "_batch_tokens", 300)
    sizes: list[int] = []
    step = desk._step

    def watched() -> None:
        step()
        sizes.append(sum(reading.mask.numel() for reading in desk._batch._readings))

    monkeypatch.setattr(desk, "_step", watched)
    with ThreadPoolExecutor(3) as pool:
        asked = [
            pool.submit(served.say, "who?", max_tokens=40, temperature=1, seed=k) for k in range(9)
        ]
        for one in asked:
            assert one.result().usage.completion_tokens > 0
    assert 150 < max(sizes) <= 300


def test_one_that_is_very_cold_breaks_nobody(served: Served) -> None:
    assert served.say("who?", temperature=1e-40).choices[0].message.content is not None


def test_who_waits_no_longer_takes_no_place(served: Served) -> None:
    desk = served.scheduler._desks["base"]
    jobs = [Job([1, 2], Generation(1), lambda _: None, given_up=True) for _ in range(64)]
    with served.scheduler._changed:
        desk.waiting.extend(jobs)
    assert served.say("who?").usage.completion_tokens > 0


def test_a_model_that_fails_fails_those_that_wait_and_nobody_else(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = expected(served.engines["lora"], "who?")
    with monkeypatch.context() as spoilt:
        spoilt.setattr(served.engines["lora"], "read", lambda _: 1 / 0)
        with pytest.raises(openai.InternalServerError, match="the server's log says where"):
            served.say("who?", model="lora")
        pieces = served.say("who?", model="lora", stream=True)
        with pytest.raises(openai.APIError, match="the server's log says where"):
            list(pieces)
    assert "a step broke by ZeroDivisionError" in caplog.text
    assert served.say("who?", model="lora").choices[0].message.content == wanted
