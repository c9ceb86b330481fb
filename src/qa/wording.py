"""A reader without a model: the cheap thing that another has to be better than.

It takes the sentence that shares most words with the question, the rare ones first, and what in it
has the form of an answer.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from src.core.files import write_json
from src.predict.reader.documents import SENTENCE
from src.predict.reader.index import words
from src.predict.reader.reading import Asked
from src.predict.reader.spans import Span
from src.qa.squad import Questions

FILE = "words.json"
NUMBER = r"[\d][\d,.]*(?:\s?%)?"
NAME = r"[A-Z][\w.'-]*(?:\s+(?:(?:of|the|de|von|and)\s+)?[A-Z][\w.'-]*)*"
MONTH = r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
DATE = rf"(?:{MONTH}(?:\s+\d{{1,2}})?(?:,?\s+\d{{4}})?|\d{{1,2}}\s+{MONTH}(?:\s+\d{{4}})?|\d{{4}})"
# What the answer looks like, by how the question begins or what it holds.
FORMS = (
    (re.compile(r"\bhow (?:many|much|old|long|far|tall|big)\b", re.IGNORECASE), re.compile(NUMBER)),
    (re.compile(r"\b(?:when|what year|which year|what date)\b", re.IGNORECASE), re.compile(DATE)),
    (re.compile(r"\b(?:who|whom|whose|where)\b", re.IGNORECASE), re.compile(NAME)),
    (re.compile(""), re.compile(rf"{NAME}|{NUMBER}|\w+(?:\s+\w+){{0,3}}")),
)


@dataclass(frozen=True)
class Wording:
    """A reader by words.

    Attributes:
        rarity: how much a word says, by how few paragraphs have it.
        usual: that of a word that no paragraph had.
    """

    rarity: dict[str, float]
    usual: float

    @classmethod
    def of(cls, questions: Questions) -> "Wording":
        """Count in how many paragraphs each word stands."""
        counts: Counter[str] = Counter()
        for text in questions.texts:
            counts.update(set(words(text)))
        total = len(questions.paragraphs) + 1
        rarity = {word: float(np.log(total / n)) for word, n in sorted(counts.items())}
        return cls(rarity, float(np.log(total)))

    def write(self, folder: Path) -> None:
        """Write the one file of the model."""
        folder.mkdir()
        write_json(folder / FILE, {"usual": self.usual, "rarity": self.rarity})

    @classmethod
    def read(cls, folder: Path) -> "Wording":
        """Read what ``write`` wrote."""
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(found["rarity"], found["usual"])

    def spans(
        self, texts: Sequence[str], asked: Sequence[Asked], top: int, batch_tokens: int
    ) -> list[list[Span]]:
        """Return the best spans of a paragraph for each question, as ``Reader.spans`` does."""
        return [self._spans(texts[one.paragraph], one.text)[:top] for one in asked]

    def _spans(self, text: str, question: str) -> list[Span]:
        wanted = set(words(question))
        weight = {word: self.rarity.get(word, self.usual) for word in wanted}
        whole = sum(weight.values()) or 1.0
        form = next(answer for asks, answer in FORMS if asks.search(question))
        found: list[Span] = []
        bounds = [0, *(one.start() for one in SENTENCE.finditer(text)), len(text)]
        for start, end in pairwise(bounds):
            sentence = text[start:end]
            shared = sum(weight[word] for word in wanted & set(words(sentence))) / whole
            candidates: list[re.Match[str] | None] = [
                one for one in form.finditer(sentence) if not wanted.issuperset(words(one[0]))
            ] or [re.compile(r"\S.*", re.DOTALL).search(sentence)]
            places = [
                one.start() for one in re.finditer(r"\w+", sentence) if set(words(one[0])) & wanted
            ]
            for one in filter(None, candidates):
                near = min((abs(one.start() - place) for place in places), default=len(sentence))
                score = shared + 0.1 / (1 + near)
                score += 0.05 * (form is not FORMS[-1][1])
                found.append(Span(start + one.start(), start + one.end(), score, 0.0, score - 2))
        return sorted(found, key=lambda span: (-span.score, span.start))
