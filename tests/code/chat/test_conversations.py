"""Conversations that can be used, and the reasons of those that can't."""

from pathlib import Path
from typing import Any

import pytest
from chat_model import PARAMS

from src.chat import conversations
from src.chat.conversations import Conversation
from src.chat.toolbox import UnusableError

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

USER = {"role": "user", "content": "Where is it?"}
REPLY = {"role": "assistant", "content": "Here."}
YEAR = {"type": "dict", "properties": {"year": {"type": "integer"}}, "required": ["year"]}
TOOL = {"name": "holidays", "description": "Lists them.", "parameters": YEAR}
CALL = {"role": "tool", "name": "holidays", "parameters": {"year": 2024}}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        USER,
        {"role": "assistant", "content": "I look."},
        CALL | {"observation": "[]"},
        CALL | {"observation": "[1]", "parallel": True},
        REPLY | {"loss": False},
    ]
    found = Conversation.parse({"id": "a", "conversations": turns, "tools": [TOOL]})
    conversations.write([found], tmp_path / "a.jsonl")
    (again,) = conversations.read(tmp_path / "a.jsonl")
    assert again == found
    assert [turn.learnt for turn in found.turns] == [False, False, True, True, True, False]
    assert found.written()["conversations"] == turns
    assert found.tools[0]["parameters"]["type"] == "object", "as JSON Schema calls a dict"
    openai = {"type": "function", "function": TOOL}
    assert Conversation.parse({"conversations": [USER, CALL], "tools": [openai]}).turns[1].learnt


@pytest.mark.parametrize(
    ("turns", "code", "reason"),
    [
        ([], "malformed", "conversations is no list of turns"),
        ("hello", "malformed", "conversations is no list of turns"),
        ([USER, "hello"], "malformed", "turn 2 is no object"),
        ([{"role": "User", "content": "a"}, REPLY], "unknown_role", "did you mean 'user'"),
        ([{"role": "narrator", "content": "a"}], "unknown_role", "'narrator': one of system, user"),
        ([{"role": "Human", "content": "a"}, REPLY], "unknown_role", r"'Human' (call it 'user')"),
        ([USER, {"role": "bot", "content": "a"}], "unknown_role", r"'bot' (call it 'assistant')"),
        ([USER, {"role": "assistant"}], "malformed", "turn 2 has no content that is a text"),
        ([USER, {"role": "assistant", "content": 3}], "malformed", "no content that is a text"),
        (
            [USER, {"role": "assistant", "content": " \n"}],
            "empty_turn",
            "of the assistant, is empty",
        ),
        (
            [USER, REPLY | {"loss": "no"}],
            "malformed",
            "turn 2 has a loss or parallel that is not true",
        ),
        ([USER, REPLY | {"loss": False}], "nothing_to_learn", "no turn of an assistant or tool"),
        ([USER], "misordered", "the last turn is of the user, and nobody answers it"),
        ([REPLY, USER], "misordered", "turn 1 is of the assistant and the first, where one of"),
        (
            [USER, USER, REPLY],
            "misordered",
            "user after one of the user, where one of the assistant or tool",
        ),
        (
            [USER, REPLY, REPLY],
            "misordered",
            "turn 3 is of the assistant after one of the assistant",
        ),
        (
            [USER, {"role": "system", "content": "a"}, REPLY],
            "misordered",
            "turn 2 is of the system",
        ),
        ([USER, CALL, REPLY], "misordered", "and turn 2 calls a tool that does not answer"),
        ([USER, CALL | {"parallel": True}], "misordered", "is parallel to no call before it"),
        (
            [USER, CALL, CALL | {"parallel": True, "observation": "a"}, REPLY],
            *("misordered", "of calls 2 and 3 one has no answer"),
        ),
        ([USER, REPLY | {"loss": False}, CALL], "malformed", "turns 2 and 3 are one message"),
        ([USER, REPLY] * 201, "malformed", "402 turns, more than 400"),
        ([USER, CALL | {"parameters": {"year": 1e999}}], "malformed", "a number that JSON"),
        ([USER, CALL | {"name": ""}], "malformed", "turn 2 calls a tool without a name"),
        ([USER, CALL | {"name": "holiday"}], "unknown_tool", "(did you mean 'holidays'?)"),
        ([USER, CALL | {"parameters": [1]}], "bad_arguments", "'holidays' are no object"),
        ([USER, CALL | {"parameters": {}}], "bad_arguments", "'year' is a required property"),
        (
            [USER, CALL | {"parameters": {"year": "x"}}],
            "bad_arguments",
            " 'year' 'x' is not of type",
        ),
        ([USER, REPLY | {"content": "a\ud800"}], "not_text", "half of a surrogate pair"),
        ([USER, REPLY | {"content": "a\0"}], "not_text", "a zero byte"),
    ],
)
def test_a_conversation_that_can_not_be_used_says_why(turns: Any, code: str, reason: str) -> None:
    with pytest.raises(UnusableError) as caught:
        Conversation.parse({"conversations": turns, "tools": [TOOL]})
    assert caught.value.code == code
    assert reason in str(caught.value)


@pytest.mark.parametrize("gold", [3, {"said": "a"}, {"says": ["a"]}, [{"a": 3}]])
def test_what_is_right_is_calls_or_what_is_said(gold: Any) -> None:
    with pytest.raises(UnusableError) as caught:
        Conversation.parse({"conversations": [USER, REPLY], "gold": gold})
    assert caught.value.code == "malformed"
    assert "gold" in str(caught.value)


@pytest.mark.parametrize(
    ("tools", "code", "reason"),
    [
        ("[]", "broken_tools", "tools is no list"),
        (["holidays"], "broken_tools", "a tool is no object with a name"),
        ([TOOL, TOOL], "broken_tools", "two tools have one name"),
        ([TOOL | {"parameters": {"type": "wrong"}}], "broken_tools", "are no JSON Schema"),
        (
            [TOOL | {"parameters": {"$ref": "http://127.0.0.1:9/a"}}],
            "broken_tools",
            "it may refer to what is not",
        ),
        ([TOOL | {"parameters": {"$ref": "#"}}], "broken_tools", "it may refer to what is not"),
        ([TOOL | {"description": "\ud800"}], "not_text", "half of a surrogate pair"),
        (
            [TOOL | {"parameters": {"type": "object", "$ref": "#/type/x"}}],
            "broken_tools",
            "(ValueError)",
        ),
        ([TOOL | {"name": "\ud800"}], "not_text", "half of a surrogate pair"),
        ([TOOL | {"description": "a\0"}], "not_text", "a zero byte"),
        (None, "unknown_tool", "for there are no tools"),
    ],
)
def test_tools_that_are_broken_are_told(tools: Any, code: str, reason: str) -> None:
    with pytest.raises(UnusableError, match=reason) as caught:
        Conversation.parse({"conversations": [USER, CALL], "tools": tools})
    assert caught.value.code == code


SLOW = "(a+)+$"  # which takes for ever on what follows
LONG = "a" * 40 + "!"


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        ({"properties": {"year": {"type": "string", "pattern": SLOW}}}, {"year": LONG}),
        ({"patternProperties": {SLOW: {}}, "additionalProperties": True}, {LONG: 1}),
        ({"patternProperties": {SLOW: {}}, "unevaluatedProperties": True}, {LONG: 1}),
        (
            {
                "properties": {
                    "year": {"$schema": "http://json-schema.org/draft-07/schema#", "pattern": SLOW}
                }
            },
            {"year": LONG},
        ),
        ({"properties": {"pattern": {"type": "integer"}}}, {"pattern": 3}),
    ],
)
def test_a_pattern_of_somebody_else_runs_not(schema: Any, arguments: Any) -> None:
    tool, call = TOOL | {"parameters": schema}, CALL | {"parameters": arguments}
    found = Conversation.parse({"conversations": [USER, call], "tools": [tool]})
    assert found.tools[0]["parameters"] == schema, "as the model is told"


def test_a_property_that_is_called_as_a_keyword_is_looked_at() -> None:
    tool = TOOL | {"parameters": {"properties": {"pattern": {"type": "integer"}}}}
    call = CALL | {"parameters": {"pattern": "x"}}
    with pytest.raises(UnusableError, match="'pattern' 'x' is not of type 'integer'"):
        Conversation.parse({"conversations": [USER, call], "tools": [tool]})


def test_a_few_lines_of_schema_do_not_stand_for_any_number() -> None:
    steps = {f"a{k}": {"allOf": [{"$ref": f"#/$defs/a{k - 1}"}] * 2} for k in range(1, 40)}
    schema = {"$defs": {"a0": {}} | steps, "$ref": "#/$defs/a39"}
    tool = TOOL | {"parameters": schema}
    with pytest.raises(UnusableError, match="nothing can be held against the schema") as caught:
        Conversation.parse({"conversations": [USER, CALL], "tools": [tool]})
    assert caught.value.code == "broken_tools"
    deep: Any = {}
    for _ in range(60):
        deep = {"properties": {"a": deep}}
    with pytest.raises(UnusableError, match="nested too deep"):
        Conversation.parse({"conversations": [USER, CALL], "tools": [TOOL | {"parameters": deep}]})
