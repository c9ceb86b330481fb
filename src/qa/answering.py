"""Where an answer stands in its paragraph, if it was said to stand elsewhere or in other words."""

import re
import string
from collections import Counter
from typing import Literal

from src.metrics import spans
from src.qa.squad import Answer

How = Literal["right", "moved", "respelt", "mapped", "dropped"]

WORD = re.compile(r"\S+")
LONGER = 2.0  # times as many words as the answer a span may have that stands for it


def located(
    context: str, text: str, start: int | None, min_overlap: float
) -> tuple[Answer | None, How]:
    """Find an answer in its paragraph.

    Args:
        context: the paragraph.
        text: the answer.
        start: its first character, None where that is not said.
        min_overlap: the least F1 with which a span stands for an answer in other words.

    Returns:
        the answer as it stands there, None if nothing does, and what was done: ``right`` as it was,
        ``moved`` to the nearest place that has it, ``respelt`` as other case or spaces have it,
        ``mapped`` to the span of the best F1, or ``dropped``.

    Source: that span is what R-NET learns from where answers are free text (Wang et al., 2017).
    """
    wanted = text.strip()
    near = (start or 0) + len(text) - len(text.lstrip())
    if start is not None and context.startswith(wanted, near):
        return Answer(wanted, near), "right"
    if found := _nearest(re.escape(wanted), context, near, 0):
        return found, "right" if start is None else "moved"
    loose = r"\s+".join(map(re.escape, wanted.split()))
    if found := _nearest(loose, context, near, re.IGNORECASE):
        return found, "respelt"
    best = _best(context, wanted, min_overlap)
    return best, "mapped" if best else "dropped"


def _nearest(pattern: str, context: str, near: int, flags: int) -> Answer | None:
    found = min(
        re.finditer(pattern, context, flags),
        key=lambda match: abs(match.start() - near),
        default=None,
    )
    return Answer(found[0], found.start()) if found else None


def _best(context: str, text: str, least: float) -> Answer | None:
    """Return the span whose words are most like those of a text, the shortest of equal ones."""
    unit = spans.unit_of([text])
    wanted = Counter(spans.words(text, unit))
    total = wanted.total()
    if not total:
        return None
    pattern = WORD if unit == "words" else re.compile(r"\S")
    places = [(match.start(), match.end()) for match in pattern.finditer(context)]
    listed = [spans.words(context[start:end], unit) for start, end in places]
    most = round(LONGER * total) + 1
    best, score = None, 0.0
    for first, begin in enumerate(listed):
        if not any(word in wanted for word in begin):
            continue
        counts: Counter[str] = Counter()
        count = same = 0
        for last in range(first, min(len(listed), first + most)):
            for word in listed[last]:
                counts[word] += 1
                count += 1
                same += counts[word] <= wanted[word]
            f1 = 2 * same / (count + total)
            if f1 > score:
                score = f1
                best = (places[first][0], places[last][1])
    if best is None or score < least:
        return None
    span = context[best[0] : best[1]]
    start = best[0] + len(span) - len(span.lstrip(string.punctuation))
    return Answer(span.strip(string.punctuation), start)
