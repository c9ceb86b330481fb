"""Answers out of several paragraphs: those that BM25 finds, and which of their spans is taken.

Three scores tell spans of several paragraphs apart: the probability of a span within its paragraph,
its logit, and its logit minus that of "there is none here". The last is what is used; the others
show what it is for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from src.metrics import spans as judging
from src.metrics.spans import Unit
from src.predict.reader.calibration import Calibration
from src.predict.reader.index import Index
from src.predict.reader.reading import Asked
from src.predict.reader.spans import Span
from src.qa.learning import misleading
from src.qa.squad import Question, Questions

Score = Literal["softmax", "logit", "minus_null"]
SCORES: tuple[Score, ...] = ("softmax", "logit", "minus_null")
WEAK = 1e6  # the inverse of the penalty on the two numbers of a calibration


class Reads(Protocol):
    """What finds spans: a model, or a reader without one."""

    def spans(
        self, texts: Sequence[str], asked: Sequence[Asked], top: int, batch_tokens: int
    ) -> list[list[Span]]:
        """Return the best spans of a paragraph for each question."""
        ...


@dataclass(frozen=True)
class Read:
    """A question with the paragraphs that fit it best, each with its best span.

    Attributes:
        question: that was asked.
        rows: the paragraphs, the one that fits best first.
        found: the best span of each of these, and of the question's own; None for none.
        wrong: that of the paragraph that fits best of those that lack the answer, if there is one.
    """

    question: Question
    rows: list[int]
    found: Mapping[int, Span | None]
    wrong: Span | None

    def best(self, count: int, score: Score) -> tuple[int, Span] | None:
        """Return the row and the span that is best of the first ``count`` paragraphs."""
        there = [(row, span) for row in self.rows[:count] if (span := self.found[row])]
        return max(there, key=lambda each: valued(each[1], score), default=None)

    def until(self, stop: float) -> tuple[int, tuple[int, Span] | None]:
        """Read on until a score minus null is ``stop``: how many were read, and the best.

        Source: the idea is ReasoNet's (Shen et al., 2017), that reading ends when it is enough.
        """
        for count, row in enumerate(self.rows, 1):
            span = self.found[row]
            if span and span.score >= stop:
                return count, (row, span)
        return len(self.rows), self.best(len(self.rows), "minus_null")


def valued(span: Span, score: Score) -> float:
    """Return what a span is ranked by."""
    if score == "softmax":
        return span.log_probability
    return span.logit if score == "logit" else span.score


def text_of(questions: Questions, found: tuple[int, Span] | None) -> str:
    """Return the answer that a row and a span are, "" for none."""
    if found is None:
        return ""
    return questions.paragraphs[found[0]].text[found[1].start : found[1].end]


def read(
    reader: Reads, questions: Questions, asked: Sequence[Question], count: int, batch_tokens: int
) -> list[Read]:
    """Read the ``count`` paragraphs that fit each question best, its own, and a misleading one."""
    index = Index(questions.texts)
    ranked = [index.best(one.text, count).tolist() for one in asked]
    wrong = [misleading(index, questions, one)[:1] for one in asked]
    wanted = [
        Asked(one.text, row)
        for one, rows, other in zip(asked, ranked, wrong, strict=True)
        for row in dict.fromkeys([*rows, one.paragraph, *other])
    ]
    spans = reader.spans(questions.texts, wanted, 1, batch_tokens)
    found = {
        (one.text, one.paragraph): of[0] if of else None
        for one, of in zip(wanted, spans, strict=True)
    }
    return [
        Read(
            one,
            rows,
            {row: found[one.text, row] for row in [*rows, one.paragraph]},
            found[one.text, other[0]] if other else None,
        )
        for one, rows, other in zip(asked, ranked, wrong, strict=True)
    ]


def fitted(questions: Questions, reads: Sequence[Read], unit: Unit) -> Calibration:
    """Fit probabilities to the best answers over all paragraphs that were read."""
    scores, right = [], []
    for one in reads:
        if best := one.best(len(one.rows), "minus_null"):
            answer = text_of(questions, best)
            scores.append(best[1].score)
            right.append(judging.exact_match(answer, one.question.references, unit))
    if len(set(right)) < 2:  # all right or all wrong, which tells nothing of scores
        share = (sum(right) + 1) / (len(right) + 2)
        return Calibration(0.0, float(np.log(share / (1 - share))))
    fit = LogisticRegression(C=WEAK, tol=1e-8, max_iter=1000)
    fit.fit(np.array(scores)[:, None], np.array(right))
    return Calibration(float(fit.coef_[0, 0]), float(fit.intercept_[0]))


def threshold(reads: Sequence[Read]) -> float:
    """Return the score that best tells paragraphs with the answer from those without.

    It is the one of the highest balanced accuracy, half-way between two scores.
    """
    own, wrong = _scores(reads)
    if not len(own) or not len(wrong):
        return 0.0
    levels = np.unique(np.concatenate([own, wrong]))
    edges = np.concatenate([[levels[0] - 1], (levels[:-1] + levels[1:]) / 2, [levels[-1] + 1]])
    right = (own[:, None] >= edges).mean(axis=0) + (wrong[:, None] < edges).mean(axis=0)
    return float(edges[int(right.argmax())])


def answerability(reads: Sequence[Read], limit: float) -> dict[str, float]:
    """Return how well scores tell whether a paragraph has the answer.

    ``auc`` compares a question's own paragraph with the one that fits best of those without the
    answer; ``answered`` and ``refused`` are the shares of both that ``limit`` decides rightly.
    """
    own, wrong = _scores(reads)
    if not len(own) or not len(wrong):
        return {}
    truth = np.repeat([1, 0], [len(own), len(wrong)])
    return {
        "auc": float(roc_auc_score(truth, np.concatenate([own, wrong]))),
        "answered": float((own >= limit).mean()),
        "refused": float((wrong < limit).mean()),
    }


def _scores(reads: Sequence[Read]) -> tuple[np.ndarray, np.ndarray]:
    own = [one.found[one.question.paragraph] for one in reads if one.question.answers]
    wrong = [one.wrong for one in reads]
    return (
        np.array([span.score for span in own if span]),
        np.array([span.score for span in wrong if span]),
    )
