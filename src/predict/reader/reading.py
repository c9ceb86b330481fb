"""Questions on paragraphs: what a reader is given of them, and what comes of what it says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from src.predict.reader.spans import Logits, Span, best
from src.predict.reader.windows import Pairs, Text, Window


class Asked(NamedTuple):
    """A question, and the row of a paragraph."""

    text: str
    paragraph: int


@dataclass(frozen=True)
class Prepared:
    """Questions on paragraphs as windows.

    Attributes:
        windows: of all questions, those of one beside each other.
    """

    windows: list[Window]
    _texts: Sequence[str]
    _asked: Sequence[Asked]
    _paragraphs: dict[int, Text]
    _owners: list[int]  # the question of each window

    def spans(self, logits: Sequence[Logits], max_answer: int, top: int) -> list[list[Span]]:
        """Return the best spans of its paragraph for each question, the best first.

        Args:
            logits: those of each window, [tokens, 2].
            max_answer: the most tokens of a span.
            top: how many spans.
        """
        read: list[list[tuple[Window, Logits]]] = [[] for _ in self._asked]
        for owner, window, found in zip(self._owners, self.windows, logits, strict=True):
            read[owner].append((window, found))
        return [
            best(
                self._texts[one.paragraph], self._paragraphs[one.paragraph], found, max_answer, top
            )
            for one, found in zip(self._asked, read, strict=True)
        ]


def prepare(pairs: Pairs, texts: Sequence[str], asked: Sequence[Asked]) -> Prepared:
    """Make windows of questions, each text in tokens once.

    Args:
        pairs: makes windows.
        texts: paragraphs.
        asked: questions, each with the row of a paragraph.
    """
    wanted = sorted({one.paragraph for one in asked})
    paragraphs = dict(zip(wanted, pairs.texts([texts[row] for row in wanted]), strict=True))
    kinds = list(dict.fromkeys(one.text for one in asked))
    questions = dict(zip(kinds, pairs.texts(kinds), strict=True))
    windows: list[Window] = []
    owners: list[int] = []
    for number, one in enumerate(asked):
        made = pairs.windows(questions[one.text], paragraphs[one.paragraph])
        windows += made
        owners += [number] * len(made)
    return Prepared(windows, texts, asked, paragraphs, owners)
