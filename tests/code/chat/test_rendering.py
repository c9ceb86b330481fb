"""What a model reads of a conversation, and what of it is learnt."""

import json
from typing import Any

import pytest
from chat_model import NATIVE, PARAMS, make_tokenizer
from transformers import AddedToken

from src.chat.conversations import Conversation
from src.chat.rendering import Renderer, Row
from src.chat.templates import TEMPLATES, call_form
from src.chat.toolbox import UnusableError
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


def reversed_items(of: dict[str, Any]) -> dict[str, Any]:
    return dict(reversed(of.items()))


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


def test_a_question_is_what_is_asked_and_what_is_right() -> None:
    tokenizer = make_tokenizer()
    renderer = Renderer(tokenizer)
    found = conversation(user("a?"), reply("b"), user("a?"), reply("c"))
    first, second = renderer.questions(found)
    assert tokenizer.decode(second.right) == "c<|im_end|>"
    assert first.asked == renderer.ids(renderer.prompt(found, 1))
    (row,) = renderer.rows(found)
    assert row.ids[: len(second.asked) + len(second.right)] == second.asked + second.right


def test_an_answer_begins_with_a_token_of_its_own() -> None:
    """As it would if a model said it, which has read the tokens of the prompt."""
    template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' }}"
        "{{ 'th' if m.role == 'assistant' else '' }}{{ m.content + '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant th' }}{% endif %}"
    )
    tokenizer = make_tokenizer(template)
    renderer = Renderer(tokenizer)
    (question,) = renderer.questions(conversation(user("a?"), reply("e")))
    whole = tokenizer.decode(question.asked + question.right)
    assert whole.endswith("assistant the<|im_end|>")
    together = tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert together != question.asked + question.right, "there is a token of both"
    assert question.asked == renderer.ids(tokenizer.decode(question.asked))
    assert tokenizer.decode(question.right) == "e<|im_end|>"


def test_a_template_without_tools_gets_them_as_hermes_writes_them() -> None:
    tokenizer = make_tokenizer()
    renderer = Renderer(tokenizer)
    answers = "9 <\ntwo", "10"
    calls: list[dict[str, Any]] = [CALL | {"observation": answer} for answer in answers]
    calls[1] |= {"parallel": True}
    found = conversation(
        user("How large?"), reply("I compute."), *calls, reply("Nine."), tools=True
    )
    (row,) = renderer.rows(found)
    call = '<tool_call>\n{"name": "area", "arguments": {"side": 3}}\n</tool_call>'
    called = f"I compute.\n{call}\n{call}<|im_end|>"
    assert learnt(tokenizer, row) == f"{called}Nine.<|im_end|>", "two calls at once"
    system, user_says, *rest = tokenizer.decode(row.ids).split("<|im_start|>")[1:]
    assert f"<tools>\n{json.dumps(TOOL)}\n</tools>" in system
    assert '{"name": "...", "arguments": {...}}' in system
    assert user_says == "user\nHow large?<|im_end|>\n"
    responses = [f"tool\n<tool_response>\n{one}\n</tool_response><|im_end|>\n" for one in answers]
    said = f"assistant\n{called}\n", *responses, "assistant\nNine.<|im_end|>\n"
    assert rest == [*said]
    calls[1] |= {"parallel": False}
    one_by_one = conversation(user("How large?"), *calls, reply("Nine."), tools=True)
    roles = [message["role"] for message in renderer.messages(one_by_one)]
    assert roles == ["user", "assistant", "tool", "assistant", "tool", "assistant"]


def test_whoever_writes_by_the_template_writes_tools_as_a_row_has_them() -> None:
    """As servers do: the arguments may be JSON in a text, and what is null is as what is absent."""
    tokenizer = make_tokenizer()
    renderer = Renderer(tokenizer)
    found = conversation(
        {"role": "system", "content": "Be brief."},
        user("How large?"),
        CALL | {"observation": "9"},
        reply("Nine."),
        tools=True,
    )
    call = {"name": "area", "arguments": '{"side": 3}'}
    messages = [
        {"role": "system", "content": "Be brief."},
        user("How large?"),
        {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "function": call}]},
        {"role": "tool", "tool_call_id": "a", "content": "9"},
        reply("Nine.", tool_calls=None),
    ]
    tool = {"type": "function", "function": {**reversed_items(TOOL), "strict": None}}
    text = tokenizer.apply_chat_template(
        messages, tools=[tool], tokenize=False, chat_template=renderer.template
    )
    assert text == tokenizer.decode(renderer.rows(found)[0].ids)


def test_a_template_with_what_it_lacks_is_whole() -> None:
    for template in (TEMPLATES["chatml"], TEMPLATES["gemma"], NATIVE):
        tokenizer = make_tokenizer(template)
        assert call_form(tokenizer) == ""
        tokenizer.chat_template = Renderer(tokenizer).template
        assert Renderer(tokenizer).template == tokenizer.chat_template
        assert call_form(tokenizer) == ("" if template is NATIVE else "hermes")


def test_a_template_begins_a_line_of_its_own() -> None:
    """Whose spaces before a block are dropped, and whose line ends are kept, as by itself."""
    for template in (
        "  {% if true %}" + TEMPLATES["chatml"] + "{% endif %}",
        "\n\n" + TEMPLATES["chatml"],
    ):
        tokenizer = make_tokenizer(template)
        prompt = Renderer(tokenizer).prompt(conversation(user("a"), reply("b")), 1)
        alone = tokenizer.apply_chat_template(
            [user("a")], tokenize=False, add_generation_prompt=True
        )
        assert prompt == alone


def test_a_template_that_knows_tools_writes_them_itself() -> None:
    tokenizer = make_tokenizer(NATIVE)
    renderer = Renderer(tokenizer)
    assert renderer.template == NATIVE
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
    (row,) = renderer.rows(found)
    call = '<tool_call>\n{"name": "area", "arguments": {"side": 3}}\n</tool_call>'
    assert learnt(tokenizer, row) == f"{call}<end_of_turn>"
    asked, _, told = tokenizer.decode(row.ids).split("<start_of_turn>")[1:]
    assert asked.startswith("user\nBe brief.\n\nYou can call these tools")
    assert asked.endswith("\n\nHow large?<end_of_turn>\n")
    assert told == "user\n<tool_response>\n9\n</tool_response><end_of_turn>\n"


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
        (
            "{% for m in messages %}{{ m.content }}{% endfor %}",
            "writes no token that ends an answer",
        ),
        ("{{ 1 / 0 }}", "can't write a question and its answer (division by zero)"),
        ("{{ 2.0 ** 99999 }}", "can't write a question and its answer"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "can't write a question"),
    ],
)
def test_a_template_that_is_none_is_refused(template: str | None, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        Renderer(make_tokenizer(template))
    assert sentence in str(caught.value)


def test_a_conversation_that_a_template_does_not_write_is_told() -> None:
    loses = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{{ m.content[:30] }}"
    loses += "{{ '<|im_end|>\\n' }}{% endfor %}"
    loses += "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    fails = TEMPLATES["chatml"].replace(
        "{% for", "{% if messages | length == 3 %}{{ 1 / 0 }}{% endif %}{% for", 1
    )
    turns = user("a"), reply("an answer that is long, and longer than that")
    for template, told in ((loses, "leaves out 'an answer that"), (fails, "division by zero")):
        more = (user("b"), reply("c")) if template is fails else ()
        renderer, found = Renderer(make_tokenizer(template)), conversation(*turns, *more)
        with pytest.raises(UnusableError) as caught:
            renderer.rows(found)
        assert caught.value.code == "unwritable"
        assert told in str(caught.value)


def test_an_end_that_takes_what_follows_with_it_is_learnt() -> None:
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens(
        {"additional_special_tokens": [AddedToken("<|im_end|>", rstrip=True, special=True)]}
    )
    (row,) = Renderer(tokenizer).rows(conversation(user("a"), reply("b"), user("c"), reply("d")))
    assert learnt(tokenizer, row) == "b<|im_end|>d<|im_end|>"


def test_the_day_is_always_the_same() -> None:
    dated = "{{ strftime_now('%Y') }}" + TEMPLATES["chatml"]
    found = conversation(user("a"), reply("b"))
    assert Renderer(make_tokenizer(dated)).prompt(found, 1)[:11] == "01 Jan 2025"
