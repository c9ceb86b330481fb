"""Answers are judged by the rules of SQuAD."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.metrics import spans

WORDS = st.lists(st.sampled_from(["The", "a", "cat", "sat.", "Cat", "an", "-", "on", "é", "9%"]))


@given(WORDS, WORDS)
def test_f1_is_the_harmonic_mean_of_what_both_say(answer: list[str], reference: list[str]) -> None:
    said, right = spans.words(" ".join(answer)), spans.words(" ".join(reference))
    assert not {*said, *right} & {"a", "an", "the", "The", "Cat", "sat.", "-"}
    f1 = spans.f1(" ".join(answer), [" ".join(reference)])
    same = sum(min(said.count(word), right.count(word)) for word in {*said})
    precision, recall = same / max(1, len(said)), same / max(1, len(right))
    expected = 2 * precision * recall / (precision + recall) if same else float(said == right)
    assert f1 == pytest.approx(expected)
    assert spans.exact_match(" ".join(answer), [" ".join(reference)]) == (said == right)


@pytest.mark.parametrize(
    ("answer", "references", "exact_match", "f1"),
    [
        ("the Cat!", ["cat"], 1, 1),
        ("black cat", ["a cat", "the black cat sat"], 0, 0.8),
        ("", [], 1, 1),
        ("cat", [], 0, 0),
        ("", ["cat"], 0, 0),
        ("cat cat", ["cat"], 0, 2 / 3),
    ],
)
def test_the_best_of_several_references_counts(
    answer: str, references: list[str], exact_match: float, f1: float
) -> None:
    assert spans.exact_match(answer, references) == exact_match
    assert spans.f1(answer, references) == pytest.approx(f1)


def test_characters_count_where_words_have_no_spaces() -> None:
    assert spans.unit_of(["黑豹队 308 分", "丹佛"]) == "characters"
    assert spans.unit_of(["the 黑 cat", ""]) == "words"
    assert spans.words("《卫报》 NFL, 2015年", "characters") == ["卫", "报", "nfl", "2015", "年"]
    assert spans.f1("黑豹队", ["黑豹"], "characters") == pytest.approx(0.8)
    assert spans.f1("黑豹队", ["黑豹"]) == 0


def test_equal_seeds_draw_equal_questions() -> None:
    frame = pd.DataFrame({"exact_match": [1.0, 0, 0, 1], "token_f1": [1.0, 0.5, 0, 1]})
    assert spans.figures(frame) == {"exact_match": 0.5, "token_f1": 0.625}
    first, second = (spans.drawn(frame, 200, 3) for _ in range(2))
    assert (first["token_f1"] == second["token_f1"]).all()
    assert (first["token_f1"] >= first["exact_match"]).all(), "both are of the same questions"
    assert first["token_f1"].mean() == pytest.approx(0.625, abs=0.05)
    assert (spans.drawn(frame, 200, 4)["token_f1"] != first["token_f1"]).any()
