"""What a model reads of a conversation, and what of it is learnt."""

import json
from typing import Any

import pytest
from chat_model import NATIVE, PARAMS, make_tokenizer

from src.chat.conversations import Conversation
from src.chat.rendering import TEMPLATES, Renderer, Row
from src.core.errors import InputError

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

TOOL = {"name": "area", "description": "", "parameters": {"type": "object", "properties": {}}}
CALL = {"role": "tool", "name": "area", "parameters": {"side": 3}}


def conversation(*turns: dict[str, Any], tools: bool = False) -> Conversation:
    return Conversation.parse({"conversations": [*turns], "tools": [TOOL] * tools})


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def reply(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def learnt(tokenizer: Any, row: Row) -> str:
    kept = [id for id, is_learnt in zip(row.ids, row.learnt, strict=True) if is_learnt]
    return str(tokenizer.decode(kept))


def test_answers_are_learnt_with_what_ends_them_and_nothing_else() -> None:
    tokenizer = make_tokenizer()
    renderer = Renderer(tokenizer)
    assert renderer.ends == ["<|im_end|>", "<|endoftext|>"]
    system = {"role": "system", "content": "Be brief."}
    found = conversation(
        system, user("a?"), reply("b", loss=False), user("小?"), reply("\n\nc 谱 <|im_end|> d")
    )
    (row,) = renderer.rows(found)
    whole = tokenizer.decode(row.ids)
    assert whole.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na?")
    assert learnt(tokenizer, row) == "\n\nc 谱 <|im_end|> d<|im_end|>"
    prompt = renderer.prompt(found, 2)
    assert whole.startswith(prompt)
    assert prompt.endswith("<|im_start|>assistant\n")


def test_a_template_without_tools_gets_them_as_hermes_writes_them() -> None:
    tokenizer = make_tokenizer()
    renderer = Renderer(tokenizer)
    assert not renderer.knows_tools
    answer = "9 <\ntwo"
    found = conversation(
        *(user("How large?"), reply("I compute."), CALL, CALL | {"observation": answer}),
        *(reply("Nine."),),
        tools=True,
    )
    system, _, called, told, said = renderer.messages(found)
    assert json.dumps(TOOL) in system["content"]
    call = '<tool_call>\n{"name": "area", "arguments": {"side": 3}}\n</tool_call>'
    assert called["content"] == f"I compute.\n{call}\n{call}", "two calls at once"
    assert told["role"] == "tool"
    assert told["content"] == f"<tool_response>\n{answer}\n</tool_response>"
    assert said["content"] == "Nine."
    (row,) = renderer.rows(found)
    assert learnt(tokenizer, row) == f"{called['content']}<|im_end|>Nine.<|im_end|>"


def test_a_template_that_knows_tools_writes_them_itself() -> None:
    tokenizer = make_tokenizer(NATIVE)
    renderer = Renderer(tokenizer)
    assert renderer.knows_tools
    found = conversation(
        user("How large?"), CALL | {"observation": "9"}, reply("Nine."), tools=True
    )
    _, called, told, _ = renderer.messages(found)
    assert called["tool_calls"][0]["function"] == {"name": "area", "arguments": {"side": 3}}
    assert told == {"role": "tool", "name": "area", "content": "9"}
    (row,) = renderer.rows(found)
    assert "<call>" in learnt(tokenizer, row)
    assert '"area"' in tokenizer.decode(row.ids).split("user")[0]


def test_answers_that_a_template_writes_anew_are_rows_of_their_own() -> None:
    tokenizer = make_tokenizer(NATIVE)
    found = conversation(
        user("a"), reply("<think>x</think>b"), user("c"), reply("<think>y</think>d")
    )
    first, second = Renderer(tokenizer).rows(found)
    assert learnt(tokenizer, first) == "<think>x</think>b<|im_end|>"
    assert learnt(tokenizer, second) == "<think>y</think>d<|im_end|>"
    assert "<think>x" not in tokenizer.decode(second.ids)


def test_a_template_without_a_role_gets_it_in_what_the_user_says() -> None:
    tokenizer = make_tokenizer(TEMPLATES["gemma"])
    renderer = Renderer(tokenizer)
    system = {"role": "system", "content": "Be brief."}
    found = conversation(system, user("How large?"), CALL | {"observation": "9"}, tools=True)
    asked, called, told = renderer.messages(found)
    assert asked["role"] == "user"
    assert asked["content"].startswith("Be brief.\n\nYou can call these tools")
    assert asked["content"].endswith("\n\nHow large?")
    assert told == {"role": "user", "content": "<tool_response>\n9\n</tool_response>"}
    (row,) = renderer.rows(found)
    assert learnt(tokenizer, row) == f"{called['content']}<end_of_turn>"


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (
            None,
            "The model has no chat template: set base.chat_template to chatml, gemma or a file.",
        ),
        ("{{ messages[0]['nothing']['more'] }}", "can't write a question and its answer"),
        ("{% for", "can't write a question and its answer"),
        ("{{ messages[-1].content }}", "does not write an answer after its prompt for one"),
    ],
)
def test_a_template_that_is_none_is_refused(template: str | None, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Renderer(make_tokenizer(template))
    assert sentence in str(caught.value)
