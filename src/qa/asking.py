"""Questions that are made of sentences with an answer: by templates, or by a model of sequences.

A template asks with the words that stand around the answer, those after it first: "wh + B + A" of
"A answer B", in which a reader can't just look for the question. Where another sentence of the
documents has the answer too, the question is made of that one.

Source: Fabbri et al., Template-Based Question Generation from Retrieved Sentences, 2020.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from src.metrics import spans
from src.predict.reader.documents import SENTENCE
from src.predict.reader.index import Index
from src.predict.reader.spans import Span

FOUND = 8  # sentences that are looked at for one that has an answer too
FEWEST = 3  # words that a clause must have to be asked with; else the whole sentence is
CLAUSE = re.compile(r"[,;:()—–]")
MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
DATE = re.compile(rf"(?:{MONTH}\b.*|\d{{1,2}} {MONTH}\b.*|(?:1[0-9]|20)\d\d(?:s|-\d\d)?)")
MONEY = re.compile(r"[$€£¥]\s?\d|\d.*\b(?:dollars|euros|pounds|percent)\b|\d\s?%")
NUMBER = re.compile(
    r"(?:about |at least |at most |more than |over )?\d[\d,.]*\b|(?:one|two|three)$"
)
PERSON = re.compile(r"(?:[A-Z][\w.'-]+ ){1,3}[A-Z][\w'-]+")
BEFORE_TIME = re.compile(r"\b(?:in|on|at|since|by|until|during|from)$", re.IGNORECASE)
BEFORE_PLACE = re.compile(r"\b(?:in|at|near|from|to)$", re.IGNORECASE)
CHINESE_TIME = re.compile(r"\d+\s?[年月日]")


class Clause(NamedTuple):
    """What stands before an answer, and after it."""

    before: str
    answer: str
    after: str


def by_template(passages: Sequence[str], answers: Sequence[tuple[int, Span]]) -> list[str]:
    """Make a question for each answer.

    Args:
        passages: paragraphs.
        answers: for each question the row of a paragraph, and the span that is to be the answer.
    """
    sentences = [(row, text[a:b]) for row, text in enumerate(passages) for a, b in bounds_of(text)]
    index = Index([text for _, text in sentences])
    made = []
    for row, span in answers:
        text = passages[row]
        answer = text[span.start : span.end]
        start, end = next(one for one in bounds_of(text) if span.start < one[1])
        end = max(end, span.end)
        other = _other(index, sentences, row, answer, text[start:end])
        if other is None:
            clause = Clause(text[start : span.start], answer, text[span.end : end])
        else:
            clause = Clause(*_parted(other, answer))
        chinese = spans.unit_of([text]) == "characters"
        made.append(_in_chinese(clause) if chinese else _in_english(clause))
    return made


def bounds_of(text: str) -> list[tuple[int, int]]:
    """Return the first character of each sentence, and the one after its last."""
    starts = [one.start() for one in SENTENCE.finditer(text) if 0 < one.start() < len(text)]
    return list(pairwise([0, *starts, len(text)]))


def _other(
    index: Index, sentences: Sequence[tuple[int, str]], own: int, answer: str, sentence: str
) -> str | None:
    """Find a sentence of another paragraph that has an answer, the likest one; None for none."""
    if len(answer) < 4 or not any(map(str.isalpha, answer)):  # a number is of something else there
        return None
    for found in index.best(f"{answer} {sentence}", FOUND):
        row, text = sentences[int(found)]
        if row != own and re.search(rf"\b{re.escape(answer)}\b", text):
            return text
    return None


def _parted(sentence: str, answer: str) -> tuple[str, str, str]:
    before, _, after = sentence.partition(answer)
    return before, answer, after


def _in_english(clause: Clause) -> str:
    near = Clause(CLAUSE.split(clause.before)[-1], clause.answer, CLAUSE.split(clause.after)[0])
    if len(f"{near.before} {near.after}".split()) < FEWEST:
        near = clause
    before, answer = near.before.strip(" ,;:"), near.answer.strip()
    after = near.after.strip(" .!?;:,\"'")
    asks = "What"
    if DATE.fullmatch(answer):
        asks, before = "When", BEFORE_TIME.sub("", before).strip()
    elif MONEY.search(answer):
        asks = "How much"
    elif NUMBER.match(answer):
        asks = "How many"
    elif PERSON.fullmatch(answer) and BEFORE_PLACE.search(before):
        asks, before = "Where", BEFORE_PLACE.sub("", before)
    elif PERSON.fullmatch(answer):
        asks = "Who"
    return " ".join(f"{asks} {after} {before}".split()) + "?"


def _in_chinese(clause: Clause) -> str:
    """Ask in place of the answer, as Chinese does."""
    asks = "什么"
    if CHINESE_TIME.search(clause.answer):
        asks = "什么时候"
    elif clause.answer[:1].isdigit():
        asks = "多少"
    after = clause.after.rstrip("。！？.!? ")
    return f"{clause.before.strip()}{asks}{after}？"
