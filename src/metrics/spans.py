"""Exact match and F1 of answers that are spans of a text.

Source: Rajpurkar et al., SQuAD, 2016 (evaluate-v1.1.py) and Rajpurkar et al., Know What You Don't
Know, 2018 (evaluate-v2.0.py): case, punctuation, articles and spaces don't count, and of several
references the best counts. Where words are written without spaces between them, each such character
is a word, as in Lewis et al., MLQA, 2020 (mlqa_evaluation_v1.py, Chinese).
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from src.core import scripts
from src.metrics.classification import Floats

Unit = Literal["words", "characters"]  # what F1 counts
FIGURES = ("exact_match", "token_f1")

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")
UNSPACED = re.compile(f"[{scripts.UNSPACED}]")


def unit_of(texts: Iterable[str]) -> Unit:
    """Return what texts are counted in: characters, if most of their letters have no spaces."""
    letters = unspaced = 0
    for text in texts:
        unspaced += len(UNSPACED.findall(text))
        letters += sum(map(str.isalpha, text))
    return "characters" if 2 * unspaced > letters else "words"


def words(answer: str, unit: Unit = "words") -> list[str]:
    """Return what counts of an answer, word by word."""
    lower = answer.lower()
    if unit == "words":
        return ARTICLES.sub(" ", lower.translate(PUNCTUATION)).split()
    plain = "".join(one for one in lower if not unicodedata.category(one).startswith("P"))
    return UNSPACED.sub(r" \g<0> ", plain).split()


def exact_match(answer: str, references: Sequence[str], unit: Unit = "words") -> float:
    """Return 1 if the answer is one of the references, else 0; none at all is the answer ""."""
    found = words(answer, unit)
    return float(any(found == words(one, unit) for one in references or [""]))


def f1(answer: str, references: Sequence[str], unit: Unit = "words") -> float:
    """Return the best F1 of the words of the answer with those of a reference."""
    return max(_f1(words(answer, unit), words(one, unit)) for one in references or [""])


def figures(frame: pd.DataFrame) -> dict[str, float]:
    """Return the share of exact answers, and the mean F1 of their words.

    Args:
        frame: a row a question: ``exact_match`` and ``token_f1``.
    """
    return {name: float(frame[name].mean()) for name in FIGURES}


def drawn(frame: pd.DataFrame, resamples: int, seed: int) -> dict[str, Floats]:
    """Return each figure, each time that the questions are drawn anew: [resamples].

    Equal seeds draw the same questions, so that two frames of them can be compared in pairs.
    """
    random = np.random.default_rng(seed)
    values = frame[list(FIGURES)].to_numpy(float)
    found = np.empty((resamples, len(FIGURES)))
    for k in range(resamples):
        found[k] = values[random.integers(len(values), size=len(values))].mean(axis=0)
    return dict(zip(FIGURES, found.T, strict=True))


def _f1(answer: list[str], reference: list[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    same = (Counter(answer) & Counter(reference)).total()
    return 2 * same / (len(answer) + len(reference))
