"""Spans of a paragraph as answers: from the logits of a reader to the best ones.

A reader gives each token a logit for where an answer starts and one for where it ends, and its
first token both for "there is none here". So the logit of a span minus that of none tells, on one
scale for all paragraphs, how sure the reader is.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from src.predict.reader.windows import Text, Window

Logits = npt.NDArray[np.float32]


class Span(NamedTuple):
    """A possible answer.

    Attributes:
        start: its first character in the paragraph.
        end: the character after its last.
        logit: the sum of the logits of its start and its end.
        null: the same of "there is none here".
        log_probability: of this span among all starts and all ends of its window.
    """

    start: int
    end: int
    logit: float
    null: float
    log_probability: float

    @property
    def score(self) -> float:
        """How sure the reader is, comparable between paragraphs."""
        return self.logit - self.null


def best(
    text: str,
    tokens: Text,
    windows: Sequence[tuple[Window, Logits]],
    max_answer: int,
    top: int,
) -> list[Span]:
    """Return the best spans of a paragraph, the best first, none of which overlap.

    Args:
        text: the paragraph.
        tokens: its tokens.
        windows: each with its logits, start and end of each token, [tokens, 2].
        max_answer: the most tokens of a span.
        top: how many spans.
    """
    found = [
        span
        for window, logits in windows
        for span in _of_window(text, tokens, window, logits, max_answer, top)
    ]
    return apart(found, top)


def apart(spans: Iterable[Span], top: int) -> list[Span]:
    """Return the best of some spans of one paragraph that don't overlap, the best first."""
    kept: list[Span] = []
    for span in sorted(spans, key=lambda span: (-span.score, span.start, span.end)):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
            if len(kept) == top:
                break
    return kept


def _of_window(
    text: str, tokens: Text, window: Window, logits: Logits, max_answer: int, top: int
) -> list[Span]:
    if not window.length:
        return []
    wide = logits.astype(np.float64)
    inside = wide[window.at : window.at + window.length]
    length = min(max_answer, window.length)
    ends = np.full((window.length + length - 1, 1), -np.inf)
    ends[: window.length] = inside[:, 1:]
    # [tokens, tokens of a span]: the logit of the span that starts here and has so many.
    sums = inside[:, :1] + np.lib.stride_tricks.sliding_window_view(ends[:, 0], length)
    # Of spans that overlap one is kept: each can hide at most as many as share a token with it.
    wanted = min(sums.size, 1 if top == 1 else top * length)
    flat = sums.ravel()
    chosen = np.argpartition(-flat, wanted - 1)[:wanted]
    null = float(wide[0].sum())
    total = float(sum(np.logaddexp.reduce(np.append(inside[:, k], wide[0, k])) for k in (0, 1)))
    found = []
    for place in chosen:
        if not np.isfinite(flat[place]):
            continue
        first, more = divmod(int(place), length)
        start = int(tokens.offsets[window.first + first, 0])
        end = int(tokens.offsets[window.first + first + more, 1])
        inner = text[start:end]
        start += len(inner) - len(inner.lstrip())
        end -= len(inner) - len(inner.rstrip())
        if start < end:
            logit = float(flat[place])
            found.append(Span(start, end, logit, null, logit - total))
    return found
