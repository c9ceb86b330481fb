"""Division of questions by document, long paragraphs into shorter ones, and what two sets share."""

from collections.abc import Iterable, Sequence

import numpy as np

from src.core.errors import InputError
from src.metrics import spans
from src.predict.reader.documents import divided
from src.qa.squad import Answer, Paragraph, Question, Questions

SHINGLE = 8  # words that stand beside each other in both texts
SHARED = 0.5  # the share of a paragraph's shingles from which it is the same text


def by_document(
    questions: Questions, share: float, seed: int, setting: str
) -> tuple[Questions, Questions]:
    """Divide by document, so that none is on both sides.

    Args:
        questions: of several documents.
        share: that of the questions that the second side is to have at least, as documents are
            drawn one by one; 0 for none.
        seed: of the draw.
        setting: the param that names the share, for messages.
    """
    if not share:
        return questions, Questions()
    names = questions.documents()
    counts = dict.fromkeys(names, 0)
    for one in questions.questions:
        counts[questions.paragraphs[one.paragraph].document] += 1
    drawn: list[str] = []
    order = np.random.default_rng(seed).permutation(len(names))
    for k in order:
        if sum(counts[name] for name in drawn) >= share * len(questions.questions):
            break
        drawn.append(names[k])
    kept = [name for name in names if name not in set(drawn)]
    if not sum(counts[name] for name in kept):
        raise InputError(
            f"{setting} is {share:g}, and the questions are on {len(names)} documents, which stay "
            "whole: lower it, add documents, or give their paragraphs titles."
        )
    return questions.of(kept), questions.of(drawn)


def shortened(questions: Questions, size: int) -> tuple[Questions, list[Question]]:
    """Divide paragraphs of more than ``size`` characters; 0 divides none.

    A question goes with the part that has most of its answers.

    Returns:
        all that is kept, and the questions whose answers lie in two parts.
    """
    if not size:
        return questions, []
    paragraphs: list[Paragraph] = []
    parts: list[list[tuple[int, int, int]]] = []  # of each paragraph: new row, start, end
    for one in questions.paragraphs:
        parts.append([])
        bounds = divided(one.text, size)
        for number, (start, end) in enumerate(bounds, 1):
            place = f"{one.place}, part {number}" if len(bounds) > 1 else one.place
            parts[-1].append((len(paragraphs), start, end))
            paragraphs.append(Paragraph(one.document, one.text[start:end], place))
    kept, lost = [], []
    for asked in questions.questions:
        best: tuple[int, tuple[Answer, ...]] | None = None
        for row, start, end in parts[asked.paragraph]:
            inside = tuple(
                Answer(answer.text, answer.start - start)
                for answer in asked.answers
                if start <= answer.start and answer.start + len(answer.text) <= end
            )
            if best is None or len(inside) > len(best[1]):
                best = (row, inside)
        if best is None or (asked.answers and not best[1]):
            lost.append(asked)
        else:
            kept.append(Question(asked.id, asked.text, *best))
    return Questions(paragraphs, kept), lost


def leaks(questions: Questions, others: Iterable[Questions]) -> list[int]:
    """Return the rows of the paragraphs that other sets have as well, all or most of them."""
    known: set[int] = set()
    for other in others:
        for text in other.texts:
            known |= _shingles(text)
    rows = []
    for row, text in enumerate(questions.texts):
        own = _shingles(text)
        if own and len(own & known) >= SHARED * len(own):
            rows.append(row)
    return rows


def without(questions: Questions, rows: Sequence[int]) -> Questions:
    """Return all but some paragraphs and the questions on them."""
    dropped = set(rows)
    return questions.at([k for k in range(len(questions.paragraphs)) if k not in dropped])


def _shingles(text: str) -> set[int]:
    words = spans.words(text, spans.unit_of([text]))
    count = max(1, len(words) - SHINGLE + 1)
    return {hash(tuple(words[k : k + SHINGLE])) for k in range(count)} if words else set()
