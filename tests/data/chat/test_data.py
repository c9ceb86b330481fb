"""From files of other makers to divided conversations."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from chat_model import PARAMS, make_language_model

from src.chat import base, conversations, data
from src.chat.conversations import Conversation
from src.core.errors import InputError

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

CALCULATOR = {
    "name": "add",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
}
BFCL = {
    "id": "simple_0",
    "question": [[{"role": "user", "content": "Area of base 10, height 5?"}]],
    "function": [
        {
            "name": "geometry.area",
            "parameters": {
                "type": "dict",
                "properties": {"base": {"type": "integer"}, "unit": {"type": "string"}},
                "required": ["base"],
            },
        }
    ],
}
GOLD = [{"geometry.area": {"base": [10], "unit": ["", "cm"]}}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    made = make_language_model(folder / "made")
    params = PARAMS["base"] | {"checkpoint": str(made), "sha256": ""}
    base.main(folder, folder / "base", **params)
    return folder / "base"


class Made:
    """What the stage made of files."""

    def __init__(self, folder: Path) -> None:
        self.sides = {
            side: list(conversations.read(folder / f"conversations/{side}.jsonl"))
            for side in ("train", "validation", "test")
        }
        self.all = [one for side in self.sides.values() for one in side]
        self.quality = json.loads((folder / "quality.json").read_text())
        self.page = (folder / "quality.md").read_text()
        with (folder / "rejected.csv").open(encoding="utf-8") as file:
            self.rejected = list(csv.DictReader(file))

    def only(self) -> Conversation:
        (found,) = (one for one in self.all if not one.source.startswith("self_cognition"))
        return found


def make(model: Path, folder: Path, *sources: Path | str, **changes: Any) -> Made:
    """Run the stage on files, with enough of its own rows that no side is empty."""
    params = PARAMS["data"] | {"source": [str(one) for one in sources], "test_source": []}
    usual = {"self_cognition_rows": 40, "max_length": 300, "max_rows": 0, "too_long": "keep"}
    params |= usual | changes
    words = folder / "conversations", folder / "rejected.csv", folder / "quality.json"
    data.main(folder, model, *words, folder / "quality.md", **params)
    return Made(folder)


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def said(found: Conversation) -> list[tuple[str, str]]:
    return [(turn.role, turn.content) for turn in found.turns]


ASKED = [("user", "Sum of 1?"), ("assistant", "One.")]
CALLED = [("user", "Sum of 1?"), ("tool", "1"), ("assistant", "One.")]
FORMS: dict[str, tuple[Any, list[tuple[str, str]]]] = {
    "conversations": (
        {
            "conversations": [
                {"role": "user", "content": "Sum of 1?"},
                {"role": "assistant", "content": "One."},
            ]
        },
        ASKED,
    ),
    "messages": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "Sum of 1?"}]},
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {"id": "x", "function": {"name": "add", "arguments": '{"a": 1}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "x", "content": "1"},
                {"role": "assistant", "content": "One."},
            ],
            "tools": [{"type": "function", "function": CALCULATOR}],
        },
        CALLED,
    ),
    "sharegpt": (
        {
            "conversations": [
                {"from": "human", "value": "Sum of 1?"},
                {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
                {"from": "observation", "value": "1"},
                {"from": "gpt", "value": "One."},
            ],
            "tools": json.dumps([CALCULATOR]),
        },
        CALLED,
    ),
    "alpaca": (
        {"instruction": "Sum of", "input": "1?", "output": "One."},
        [("user", "Sum of\n1?"), ASKED[1]],
    ),
    "prompt": ({"prompt": "Sum of 1?", "response": "One."}, ASKED),
    "history": (
        {
            "instruction": "And?",
            "input": "",
            "output": "Two.",
            "history": [["Sum of 1?", "One."]],
            "system": "Sum.",
        },
        [("system", "Sum."), *ASKED, ("user", "And?"), ("assistant", "Two.")],
    ),
    "toolalpaca": (
        {
            "Name": "Calculator",
            "Function_Description": {
                "add": 'Adds.\nParameters: {"a": "Required. integer. What is added."}\nOutput: 1',
                "components": "",
            },
            "Instances": [
                {
                    "input": "Sum of 1?",
                    "intermediate_steps": [[["add", '{"a": 1}', "Thought: \nAction: add"], "1"]],
                    "output": "One.",
                }
            ],
        },
        CALLED,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_told_by_its_keys(form: str, model: Path, tmp_path: Path) -> None:
    row, expected = FORMS[form]
    found = make(model, tmp_path, lines(tmp_path / "a.jsonl", row)).only()
    assert said(found) == expected
    assert (found.id, found.source) == ("a.jsonl:1", "a.jsonl")
    if len(expected) == 3 and expected[1][0] == "tool":
        assert found.turns[1].parameters == {"a": 1}
        assert found.tools[0]["name"] == "add"
    (tmp_path / "b").mkdir()
    listed = tmp_path / "b/a.json"
    listed.write_text(json.dumps([row]))
    assert said(make(model, tmp_path / "b", listed).only()) == expected


def test_calls_at_once_stay_so_and_get_their_answers(model: Path, tmp_path: Path) -> None:
    functions = [{"function": {"name": "add", "arguments": {"a": k}}} for k in (1, 2)]
    asked = {"role": "user", "content": "Sums?"}
    done = {"role": "assistant", "content": "Done."}
    by_id = [function | {"id": f"x{k}"} for k, function in enumerate(functions)]
    answers = [{"role": "tool", "tool_call_id": f"x{k}", "content": f"{k}"} for k in (1, 0)]
    in_order = [{"role": "tool", "content": f"{k}"} for k in (0, 1)]
    rows = [
        {"messages": [asked, {"role": "assistant", "tool_calls": calls}, *told, done]}
        for calls, told in ((by_id, answers), (functions, in_order))
    ]
    rows.append(
        {
            "conversations": [
                {"from": "human", "value": "Sums?"},
                {"from": "function_call", "value": json.dumps([f["function"] for f in functions])},
                *({"from": "observation", "value": f"{k}"} for k in (0, 1)),
                {"from": "gpt", "value": "Done."},
            ]
        }
    )
    path = lines(tmp_path / "a.jsonl", *(row | {"tools": [CALCULATOR]} for row in rows))
    made = make(model, tmp_path, path, duplicates="keep")
    found = [one for one in made.all if one.source == "a.jsonl"]
    assert len(found) == 3
    for one in found:
        _, first, second, _ = one.turns
        assert (first.parameters, first.content, first.parallel) == ({"a": 1}, "0", False)
        assert (second.parameters, second.content, second.parallel) == ({"a": 2}, "1", True)


def test_an_instance_of_toolalpaca_that_is_none_costs_no_other(model: Path, tmp_path: Path) -> None:
    row = FORMS["toolalpaca"][0]
    (good,) = row["Instances"]
    spoilt = row | {"Instances": [good | {"input": "A?"}, 3, good | {"input": "B?"}]}
    made = make(model, tmp_path, lines(tmp_path / "a.jsonl", spoilt), max_dropped_fraction=1)
    assert {one.turns[0].content for one in made.all if one.tools} == {"A?", "B?"}
    assert [one["reason"] for one in made.rejected] == [
        "instance 2 is not of its form (AttributeError)"
    ]


def test_a_tool_of_toolalpaca_gets_a_schema(model: Path, tmp_path: Path) -> None:
    found = make(model, tmp_path, lines(tmp_path / "a.jsonl", FORMS["toolalpaca"][0])).only()
    (tool,) = found.tools
    assert tool["description"] == "Adds."
    assert tool["parameters"]["required"] == ["a"]
    wanted = {"description": "What is added.", "type": "integer"}
    assert tool["parameters"]["properties"] == {"a": wanted}


def test_questions_of_bfcl_get_their_answers(model: Path, tmp_path: Path) -> None:
    questions = lines(tmp_path / "simple.json", BFCL, BFCL | {"id": "irrelevance_0"})
    answers = lines(tmp_path / "answers.json", {"id": "simple_0", "ground_truth": GOLD})
    made = make(model, tmp_path, test_source=[str(questions), str(answers)])
    right, refused = (one for one in made.sides["test"] if one.source == "simple.json")
    assert right.turns[1].parameters == {"base": 10}, "unit may be left out"
    assert right.gold == GOLD
    assert refused.turns[1].content == "None of the tools that I have can do that."
    assert refused.gold == []
    lax = [{"geometry.area": {"base": ["", 10], "unit": [{"name": "cm"}]}}]
    lines(tmp_path / "answers.json", {"id": "simple_0", "ground_truth": lax})
    made = make(model, tmp_path, questions, str(answers), max_dropped_fraction=1)
    (odd,) = made.rejected
    assert "'unit' {'name': 'cm'} is not of type 'string'" in odd["reason"]
    with pytest.raises(
        InputError, match=r"2 conversations of data.source can't be used \(1 nothing_to_learn\)"
    ):
        make(model, tmp_path, questions)


def test_dialogs_of_chatterbot_are_texts_whatever_yaml_makes_of_them(
    model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "talk.yml"
    path.write_text(
        "categories: [a]\nconversations:\n- - Are you there?\n  - yes\n- - 1\n  - no\n  - 2\n"
    )
    made = make(model, tmp_path, path, max_dropped_fraction=0.5)
    assert said(made.only()) == [("user", "Are you there?"), ("assistant", "yes")]
    (odd,) = made.rejected
    assert (odd["file"], odd["line"], odd["code"]) == (os.path.relpath(path), "5", "misordered")


def test_the_name_and_its_maker_are_said_in_both_languages(model: Path, tmp_path: Path) -> None:
    rows = [
        {"instruction": "hi", "output": "I am {{name}} of {{author}}."},
        {"instruction": "你好", "output": "我是{{name}}，来自{{author}}。"},
    ]
    names = {"name": "Ada", "author": "Ours", "name_zh": "小爱", "author_zh": ""}
    made = make(model, tmp_path, lines(tmp_path / "a.jsonl", *rows), **names)
    own = [one.turns[1].content for one in made.all if one.source == "a.jsonl"]
    assert sorted(own) == ["I am Ada of Ours.", "我是小爱，来自Ours。"]
    made_up = [one for one in made.all if one.source.startswith("self_cognition/")]
    assert len(made_up) == 40
    for one in made_up:
        name = "小爱" if one.source.endswith("zh") else "Ada"
        assert name in one.turns[1].content
        assert "Ours" in one.turns[1].content


def test_what_asks_the_same_is_on_one_side_and_repeats_go(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {k // 2}?", "response": f"Answer {k}."} for k in range(60)] + [
        {"prompt": "Question 0?", "response": "Answer 0."}
    ]
    first = lines(tmp_path / "a.jsonl", *rows)
    test = lines(
        tmp_path / "test.jsonl", rows[10], {"prompt": " question  9? ", "response": "Else."}
    )
    made = make(model, tmp_path, first, test_source=[str(test)])
    assert made.quality["dropped"] == {"duplicate": 2}
    where: dict[str, set[str]] = {}
    for side, found in made.sides.items():
        for one in found:
            where.setdefault(one.asked(), set()).add(side)
    assert all(len(sides) == 1 for sides in where.values())
    tested = {one.turns[0].content for one in made.sides["test"]}
    assert {"Question 5?", "Question 9?", " question  9? "} <= tested
    assert 20 < made.quality["sources"]["a.jsonl"]["train"] < 56
    again = make(model, tmp_path, first, test_source=[str(test)])
    assert again.sides == made.sides
    assert again.page == made.page


def test_by_hash_nothing_changes_sides_when_others_are_added(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {k}?", "response": "Yes."} for k in range(80)]
    few = make(model, tmp_path, lines(tmp_path / "a.jsonl", *rows[:40]), strategy="hash")
    more = make(model, tmp_path, lines(tmp_path / "a.jsonl", *rows), strategy="hash")
    for side, found in few.sides.items():
        assert {one.asked() for one in found} <= {one.asked() for one in more.sides[side]}


def test_what_is_too_long_is_counted_or_dropped(model: Path, tmp_path: Path) -> None:
    long = {"prompt": "Go on?", "response": "word " * 400}
    odd = {"prompt": "word " * 400, "response": "Yes."}
    path = lines(tmp_path / "a.jsonl", long, odd)
    made = make(model, tmp_path, path)
    assert made.quality["too_long"] == 2
    assert 100 < made.quality["learnt_tokens_lost"] < made.quality["tokens"]["learnt"]
    assert made.quality["nothing_left_to_learn"] == 1
    assert "2 conversations have more than 300 tokens: " in made.page
    made = make(model, tmp_path, path, too_long="drop")
    assert made.quality["dropped"] == {"too_long": 2}
    assert made.quality["too_long"] == 0


def test_a_conversation_of_100_000_tokens_is_counted(model: Path, tmp_path: Path) -> None:
    made = make(
        model, tmp_path, lines(tmp_path / "a.jsonl", {"prompt": "a", "response": "小" * 100_000})
    )
    assert made.quality["too_long"] == 1
    assert made.quality["tokens"]["sum"] > 100_000


def test_a_system_message_stands_before_those_that_have_none(model: Path, tmp_path: Path) -> None:
    own = {"instruction": "a", "output": "b", "system": "Mine."}
    path = lines(tmp_path / "a.jsonl", own, {"prompt": "c", "response": "d"})
    made = make(model, tmp_path, path, system="Ours.")
    found = [one.turns[0].content for one in made.all]
    assert found.count("Mine.") == 1
    assert found.count("Ours.") == len(found) - 1


def test_a_few_of_each_file_are_drawn(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Question {k}?", "response": "Yes."} for k in range(30)]
    made = make(model, tmp_path, lines(tmp_path / "a.jsonl", *rows), max_rows=7)
    assert sum(made.quality["sources"]["a.jsonl"].values()) == 7
    assert made.quality["dropped"] == {"beyond_max_rows": 23}


@pytest.mark.parametrize(
    ("content", "code", "reason"),
    [
        ('{"conversations": [', "malformed", "not JSON"),
        ("[1]", "malformed", "not a JSON object"),
        ('{"text": "a"}', "malformed", "an object of no form that is known, with the keys text"),
        ('{"instruction": "a"}', "malformed", "turn 2 has no content that is a text"),
        ('{"instruction": ["a"], "output": "b"}', "malformed", "instruction or input is no text"),
        ('{"prompt": "a", "response": ""}', "empty_turn", "turn 2, of the assistant, is empty"),
        ('{"prompt": "a", "response": "\\ud83d"}', "not_text", "half of a surrogate pair"),
        ('{"prompt": "a", "response": NaN}', "malformed", "NaN, which is not JSON"),
        ('{"messages": "a"}', "malformed", "messages is no list"),
        (
            '{"messages": [{"role": "tool", "content": "a"}]}',
            "misordered",
            "a call that nobody made",
        ),
        (
            '{"messages": [{"role": "user", "content": [{"type": "image"}]}]}',
            "malformed",
            "no text",
        ),
        ('{"conversations": [{"from": "bot", "value": "a"}]}', "unknown_role", "is from 'bot'"),
        (
            '{"conversations": [{"from": "function_call", "value": "{"}]}',
            "bad_arguments",
            "not JSON",
        ),
        (
            '{"conversations": [{"from": "human", "value": "a"}], "tools": "["}',
            "broken_tools",
            "JSON",
        ),
        (
            '{"Instances": [{}], "Function_Description": {}}',
            "malformed",
            "no content that is a text",
        ),
        ('{"Instances": [3], "Function_Description": {}}', "malformed", "not of its form"),
        ('{"Instances": [], "Function_Description": []}', "broken_tools", "is no object"),
        ('{"question": 3, "function": [], "id": "irrelevance"}', "misordered", "turn 1 is of"),
    ],
)
def test_a_row_that_can_not_be_used_is_set_apart(
    content: str, code: str, reason: str, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"prompt": "a", "response": "b"}}\n\n{content}\n')
    made = make(model, tmp_path, path, max_dropped_fraction=1)
    (found,) = made.rejected
    assert (found["line"], found["code"]) == ("3", code)
    assert reason in found["reason"]
    assert len([one for one in made.all if one.source == "a.jsonl"]) == 1
    # Whatever others are tested by.
    many = ({"prompt": f"{k}?", "response": "b"} for k in range(50))
    good = str(lines(tmp_path / "b.jsonl", *many))
    with pytest.raises(InputError, match=f"1 of 2 conversations of data.source .* .1 {code}."):
        make(model, tmp_path, path, test_source=[good])


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.jsonl", b"", "is empty (0 bytes)"),
        ("a.jsonl", b"\n\n", "has no conversations: add some"),
        ("a.jsonl", b"\xff\xfe{\x00", "has the byte-order mark of utf-16"),
        (
            "a.jsonl",
            b'{"prompt": "\xff", "response": "b"}',
            "is not UTF-8, by byte 0xff on line 1: save",
        ),
        ("a.jsonl", b"<!DOCTYPE html>", "is a web page, not a JSON file"),
        ("a.json", b"PK\x03\x04", "is a zip archive"),
        ("a.json", b'[{"prompt": "a", "response": NaN}, {}]', "line 1 can't be read (NaN"),
        (
            "a.jsonl",
            b'{"id": 1, "ground_truth": []}\n{"id": 1, "ground_truth": []}',
            "a second answer",
        ),
        ("a.jsonl", b'{"id": 1, "ground_truth": []}\n{"prompt": "a"}', "line 2 is no answer to a"),
        ("a.yml", b"conversations: [", "is not valid YAML"),
        ("a.yml", b'conversations: [["a", "\\UFFFFFFFF"]]', "is not valid YAML"),
        ("a.yml", b"a: &x [1]\nconversations: *x", "has an alias"),
        ("a.yml", b"dialogs: []", "has no list of conversations"),
        ("a.yml", b"[" * 5000, "is not valid YAML"),
    ],
)
def test_a_file_that_is_none_is_refused(
    name: str, content: bytes, sentence: str, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        make(model, tmp_path, path)
    assert str(caught.value).startswith(os.path.relpath(path))
    assert sentence in str(caught.value)


def test_places_and_params_that_do_not_fit_are_refused(model: Path, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", {"prompt": "a", "response": "b"})
    for places, changes, told in (
        ([path, path], {}, "a.jsonl is in data.source twice"),
        ([tmp_path / "b.jsonl"], {}, "There is no file at"),
        ([path], {"validation_size": 0.5, "test_size": 0.5}, "leave nothing to train on"),
        ([], {"self_cognition_rows": 0}, "There are no conversations left: add"),
        ([path], {"self_cognition_rows": 900}, "there are 600 pairs of a question and an answer"),
        ([path], {"self_cognition_rows": 0}, "The division leaves no conversations for"),
    ):
        with pytest.raises(InputError, match=told):
            make(model, tmp_path, *places, **changes)
    with pytest.raises(
        InputError, match=r"There is no base.json in .*\(`dvc repro chat/dvc.yaml`\)"
    ):
        make(tmp_path, tmp_path, path)
