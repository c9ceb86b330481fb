"""Questions that are made of sentences."""

import pytest
from qa_model import PARAMS

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

if PARAMS:
    from src.predict.reader.spans import Span
    from src.qa import asking
    from src.qa.answers import unasked
    from src.qa.squad import Answer, Paragraph, Question, Questions


def asked(text: str, answer: str, *others: str) -> str:
    """The question that a template makes for an answer of a text, beside other texts."""
    start = text.index(answer)
    span = Span(start, start + len(answer), 0.0, 0.0, 0.0)
    return asking.by_template([text, *others], [(0, span)])[0]


@pytest.mark.parametrize(
    ("text", "answer", "question"),
    [
        (
            "The wall was built in 1883, and fell. It was rebuilt.",
            "1883",
            "When The wall was built?",
        ),
        (
            "It answers at most 64 texts at once.",
            "at most 64",
            "How many texts at once It answers?",
        ),
        (
            "The tickets of the museum cost $12 a day.",
            "$12",
            "How much a day The tickets of the museum cost?",
        ),
        (
            "Ada Lovelace wrote the first program for a machine.",
            "Ada Lovelace",
            "Who wrote the first program for a machine?",
        ),
        (
            "The treaty was signed in New York by both sides.",
            "New York",
            "Where by both sides The treaty was signed?",
        ),
        (
            "Wheels are kept by their sha256 in the cache.",
            "their sha256",
            "What in the cache Wheels are kept by?",
        ),
        ("清华大学成立于1911年。", "1911年", "清华大学成立于什么时候？"),
        ("北京是中国的首都。", "北京", "什么是中国的首都？"),
        ("这座城市有300座桥。", "300", "这座城市有多少座桥？"),
    ],
)
def test_a_question_asks_with_what_stands_around_the_answer(
    text: str, answer: str, question: str
) -> None:
    assert asked(text, answer) == question


def test_another_sentence_that_has_the_answer_is_asked_with() -> None:
    other = "Nobody knows the mother of Grendel by name."
    own = "Beowulf fought Grendel in the hall of the king."
    assert asked(own, "Grendel", other) == "What by name Nobody knows the mother of?"
    assert asked(own, "Grendel", "Grendels are many.").startswith("What in the hall of the king")
    # A number is of something else there.
    assert "Rome" not in asked("There are 12 bridges in town.", "12", "Rome has 12 hills.")


def test_what_proposes_answers_is_asked_nothing_and_learns_all_answers() -> None:
    first, second = (Answer("v1", 0), Answer("v2", 3))
    questions = Questions(
        [Paragraph("a", "v1 v2", ""), Paragraph("a", "v3", "")],
        [
            Question("1", "which ?", 0, (first,)),
            Question("2", "what ?", 0, (second, first)),
            Question("3", "none ?", 1, ()),
        ],
    )
    made = unasked(questions)
    assert [(one.text, one.paragraph, one.answers) for one in made.questions] == [
        ("", 0, (first, second, first))
    ]
