"""An index of paragraphs by their words, which finds those that a question may be answered in."""

import logging
import re
import unicodedata
from collections.abc import Sequence

import bm25s
import numpy as np
import numpy.typing as npt

from src.core import scripts

WORD = re.compile(r"\w+")
UNSPACED = re.compile(f"([{scripts.UNSPACED}]+)")  # of which pairs of characters are looked for
BEGINNING = 4  # characters by which forms of a word are found: "wins" by "winner"

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells of each index that it makes

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]


def words(text: str) -> list[str]:
    """Return the words of a text in lower case without accents, or pairs of its characters."""
    plain = unicodedata.normalize("NFKD", text.lower())
    plain = "".join(one for one in plain if not unicodedata.combining(one))
    found = []
    for word in WORD.findall(unicodedata.normalize("NFC", plain)):
        for part in filter(None, UNSPACED.split(word)):
            if UNSPACED.match(part):
                found += [part[k : k + 2] for k in range(max(1, len(part) - 1))]
            else:
                found.append(part)
    return found


def terms(text: str) -> list[str]:
    """Return what of a text is looked for: its words, and how longer ones begin."""
    found = words(text)
    return found + [f"{word[:BEGINNING]}-" for word in found if len(word) > BEGINNING]


class Index:
    """Paragraphs by BM25, as the package bm25s computes it (Lucene's form).

    Source: Robertson et al., Okapi at TREC-3, 1994; Lù, BM25S, 2024.
    """

    def __init__(self, paragraphs: Sequence[str]) -> None:
        """Count the words of each paragraph; one that has none is never found first."""
        self._bm25 = bm25s.BM25()
        self._count = len(paragraphs)
        listed = [terms(text) for text in paragraphs]
        self._is_empty = not any(listed)
        if not self._is_empty:
            self._bm25.index(listed, show_progress=False)

    def scores(self, question: str) -> Scores:
        """Return how well each paragraph fits a question, 0 for not at all: [paragraphs]."""
        words = [] if self._is_empty else terms(question)
        known = [word for word in words if word in self._bm25.vocab_dict]
        if not known:
            return np.zeros(self._count, np.float32)
        found: Scores = np.asarray(self._bm25.get_scores(known), np.float32)
        return found

    def best(self, question: str, count: int) -> Rows:
        """Return the rows of the paragraphs that fit best, the best first; of equals the first."""
        scores = self.scores(question)
        return np.argsort(-scores, kind="stable")[:count]
