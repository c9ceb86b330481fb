"""Answers to a question out of passages, each with its place and how sure the reader is."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from src.predict.reader.documents import SENTENCE
from src.predict.reader.model import Reader
from src.predict.reader.reading import Asked, Prepared, prepare
from src.predict.reader.spans import Logits
from src.predict.reader.windows import Window

Threshold = float | Literal["model"]


class Piece(NamedTuple):
    """A passage of a document.

    Attributes:
        document: its path in the folder of documents; "" for a text of a user's own.
        place: where it stands there, as a person would look for it.
        text: what it says.
    """

    document: str
    place: str
    text: str


class Answer(NamedTuple):
    """An answer.

    Attributes:
        text: as it stands in its passage.
        score: the logits of its start and end minus those of there being none.
        probability: that it is exactly right, by the questions that the reader was calibrated on.
        piece: its passage.
        start: its first character there.
        end: the character after its last.
    """

    text: str
    score: float
    probability: float
    piece: Piece
    start: int
    end: int

    @property
    def sentence(self) -> tuple[int, int]:
        """The first character of the sentences that it stands in, and the one after their last."""
        text = self.piece.text
        inner = (one.start() for one in SENTENCE.finditer(text) if 0 < one.start() < len(text))
        bounds = [0, *inner, len(text)]
        around = [(a, b) for a, b in pairwise(bounds) if a < self.end and self.start < b]
        start, end = around[0][0], around[-1][1]
        inside = text[start:end]
        return start + len(inside) - len(inside.lstrip()), start + len(inside.rstrip())


@dataclass(frozen=True)
class Asking:
    """A question on passages, until a reader has read these.

    Attributes:
        is_cut: whether only the start of the question is read.
    """

    is_cut: bool
    _reader: Reader
    _pieces: Sequence[Piece]
    _prepared: Prepared

    @property
    def windows(self) -> list[Window]:
        """Return what is to be read."""
        return self._prepared.windows

    def answers(self, logits: Sequence[Logits], top: int, threshold: Threshold) -> list[Answer]:
        """Return the best answers of all passages, the best first; none below the threshold.

        Args:
            logits: of each window, [tokens, 2].
            top: how many answers.
            threshold: the least probability of an answer, ``model`` for the score in the manifest.
        """
        manifest, calibration = self._reader.manifest, self._reader.calibration
        least = manifest.threshold if threshold == "model" else calibration.score(threshold)
        spans = self._prepared.spans(logits, manifest.max_answer, top)
        found = [
            Answer(
                piece.text[span.start : span.end],
                span.score,
                calibration.probability(span.score),
                piece,
                span.start,
                span.end,
            )
            for piece, of_piece in zip(self._pieces, spans, strict=True)
            for span in of_piece
            if span.score >= least
        ]
        return sorted(found, key=lambda one: -one.score)[:top]


def ask(reader: Reader, question: str, pieces: Sequence[Piece]) -> Asking:
    """Prepare a question for the passages that it may be answered in."""
    asked = [Asked(question, row) for row in range(len(pieces))]
    prepared = prepare(reader.pairs, [piece.text for piece in pieces], asked)
    (tokens,) = reader.pairs.texts([question])
    return Asking(reader.pairs.is_cut(tokens), reader, pieces, prepared)
