"""What is right about an answer."""

from typing import Any

import pytest

from src.chat import judging

AREA = {"area": {"base": [10], "unit": ["", "cm", "square centimetres"]}}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (
            '<tool_call>\n{"name": "area", "arguments": {"base": 10}}\n</tool_call>',
            [("area", {"base": 10})],
        ),
        ('{"name": "area", "parameters": {}}', [("area", {})]),
        ('area\n{"base": 10}', [("area", {"base": 10})]),
        (
            'Of course. {"name": "a", "arguments": {"x": {"y": 1}}} and '
            '{"name": "b", "arguments": {}}',
            [("a", {"x": {"y": 1}}), ("b", {})],
        ),
        (
            '{"type": "function", "function": {"name": "area", "arguments": "{\\"base\\": 10}"}}',
            [("area", {"base": 10})],
        ),
        ('{"name": "area", "arguments": "base"}', []),
        ('{"name": "area", "arguments": {"base": 10', []),
        ("I would call area(10).", []),
        ("{" * 5000, []),
    ],
)
def test_calls_are_found_in_the_forms_of_several_models(text: str, calls: Any) -> None:
    assert judging.calls_of(text) == calls


@pytest.mark.parametrize(
    ("calls", "gold", "right"),
    [
        ([("area", {"base": 10})], [AREA], True),
        ([("area", {"base": 10, "unit": "CM"})], [AREA], True),
        ([("area", {"base": 10, "unit": "square-centimetres"})], [AREA], True),
        ([("area", {"base": 10.0})], [AREA], False),
        ([("area", {"base": 10, "height": 2})], [{"area": {"base": [10], "height": [2.0]}}], True),
        ([("area", {"base": 10})], [{"area": {"base": [10], "side": ["", 1]}}], False),
        ([("area", {"base": "10"})], [AREA], False),
        ([("area", {"base": True})], [{"area": {"base": [1]}}], False),
        ([("area", {"base": 11})], [AREA], False),
        ([("area", {})], [AREA], False),
        ([("area", {"base": 10, "height": 1})], [AREA], False),
        ([("volume", {"base": 10})], [AREA], False),
        ([], [AREA], False),
        ([("area", {"base": 10})] * 2, [AREA], False),
        ([("b", {}), ("area", {"base": 10})], [AREA, {"b": {}}], True),
        ([("a", {"x": {"y": 1}})], [{"a": {"x": [{"y": [1, 2]}]}}], True),
        ([("a", {"x": {"y": 3}})], [{"a": {"x": [{"y": [1, 2]}]}}], False),
        ([("a", {"x": ["B", 2]})], [{"a": {"x": [["b", 2]]}}], True),
        ([("a", {"x": ["b"]})], [{"a": {"x": [["b", 2]]}}], False),
        ([], [], True),
    ],
)
def test_calls_are_right_by_the_rule_of_bfcl(calls: Any, gold: Any, right: bool) -> None:
    schema = {"properties": {"base": {"type": "integer"}}, "required": []}
    needed = ["side"] if "side" in str(gold) else []
    assert judging.are_right(calls, gold, {"area": schema | {"required": needed}}) is right


def test_a_call_without_gold_is_right_as_it_is() -> None:
    call = ("a", {"x": {"y": [1, {"z": "t"}]}, "k": "v"})
    assert judging.are_right([call], judging.gold_of([call]), {})
    assert not judging.are_right(
        [("a", {"x": {"y": [2, {"z": "t"}]}, "k": "v"})], judging.gold_of([call]), {}
    )


@pytest.mark.parametrize(
    ("said", "expected", "score"),
    [
        ("The cat sat.", "the cat sat", 1.0),
        ("the cat", "the cat sat down", 2 * 2 / 6),
        ("down sat the cat", "the cat sat down", 2 * 2 / 8),
        ("我是小谱", "我叫小谱", 2 * 3 / 8),
        ("nothing", "at all", 0.0),
        ("", "", 1.0),
        ("", "a", 0.0),
    ],
)
def test_rouge_l_is_that_of_the_longest_common_subsequence(
    said: str, expected: str, score: float
) -> None:
    assert judging.rouge_l(said, expected) == pytest.approx(score)


def test_what_is_said_may_differ_in_case_and_marks() -> None:
    assert judging.are_equal("I can't.", "i can't")
    assert not judging.are_equal("I can", "I can not")
    assert judging.says("I am PEDI, made by the Pedigree team.", ["Pedi", "the Pedigree Team"])
    assert not judging.says("I am Pedi.", ["Pedi", "the Pedigree team"])
    assert not judging.says("I am of the Pedigree team.", ["Pedi", "the Pedigree team"])
    assert judging.says("我是小谱，由谱系团队开发", ["小谱", "谱系团队"])
    assert not judging.says("我是谱系团队开发的", ["小谱", "谱系团队"])
