"""Questions with their paragraphs, in memory and as SQuAD 2.0 has them in JSON.

Source: Rajpurkar et al., Know What You Don't Know: Unanswerable Questions for SQuAD, 2018.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from src.core.files import write_json

SETS = ("train", "validation", "adapt", "test", "documents")
# Names that no further set may have: those, and what stands beside its figures and its answers.
RESERVED = (*SETS, "paragraphs", "answerable", "early_stop", "calibration", "predictions")


class Answer(NamedTuple):
    """A span of a paragraph: its text, and its first character."""

    text: str
    start: int


@dataclass(frozen=True)
class Paragraph:
    """A paragraph, and where it stands.

    Attributes:
        document: the title or file that it is of.
        text: as it stands there.
        place: where it stands there, as a person would look for it.
    """

    document: str
    text: str
    place: str


@dataclass(frozen=True)
class Question:
    """A question on a paragraph.

    Attributes:
        id: what tells it from others.
        text: what is asked.
        paragraph: the row of its paragraph.
        answers: what several people said; none where the paragraph does not tell.
    """

    id: str
    text: str
    paragraph: int
    answers: tuple[Answer, ...]

    @property
    def references(self) -> list[str]:
        """Return the texts of its answers."""
        return [answer.text for answer in self.answers]


@dataclass
class Questions:
    """Paragraphs, those of a document beside each other, and questions on them."""

    paragraphs: list[Paragraph] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """Return the texts of the paragraphs."""
        return [paragraph.text for paragraph in self.paragraphs]

    def documents(self) -> list[str]:
        """Return the names of the documents, in their order."""
        return list(dict.fromkeys(paragraph.document for paragraph in self.paragraphs))

    def of(self, documents: Iterable[str]) -> "Questions":
        """Return what is of some documents."""
        wanted = set(documents)
        rows = [k for k, one in enumerate(self.paragraphs) if one.document in wanted]
        return self.at(rows)

    def at(self, rows: Sequence[int]) -> "Questions":
        """Return some paragraphs with the questions on them."""
        places = {row: place for place, row in enumerate(rows)}
        return Questions(
            [self.paragraphs[row] for row in rows],
            [
                Question(one.id, one.text, places[one.paragraph], one.answers)
                for one in self.questions
                if one.paragraph in places
            ],
        )

    def with_(self, other: "Questions") -> "Questions":
        """Return both, one after the other."""
        shift = len(self.paragraphs)
        moved = [
            Question(one.id, one.text, one.paragraph + shift, one.answers)
            for one in other.questions
        ]
        return Questions([*self.paragraphs, *other.paragraphs], [*self.questions, *moved])

    def write(self, path: Path) -> None:
        """Write SQuAD 2.0's JSON."""
        asked: list[list[dict[str, Any]]] = [[] for _ in self.paragraphs]
        for one in self.questions:
            asked[one.paragraph].append(
                {
                    "id": one.id,
                    "question": one.text,
                    "is_impossible": not one.answers,
                    "answers": [
                        {"text": answer.text, "answer_start": answer.start}
                        for answer in one.answers
                    ],
                }
            )
        rows = zip(self.paragraphs, asked, strict=True)
        data = [
            {
                "title": title,
                "paragraphs": [
                    {"context": paragraph.text, "place": paragraph.place, "qas": qas}
                    for paragraph, qas in of_one
                ],
            }
            for title, of_one in groupby(rows, lambda row: row[0].document)
        ]
        write_json(path, {"version": "v2.0", "data": data})

    @classmethod
    def read(cls, path: Path) -> "Questions":
        """Read what ``write`` wrote."""
        made = cls()
        for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
            for one in article["paragraphs"]:
                row = len(made.paragraphs)
                made.paragraphs.append(Paragraph(article["title"], one["context"], one["place"]))
                for asked in one["qas"]:
                    answers = (Answer(a["text"], a["answer_start"]) for a in asked["answers"])
                    question = Question(asked["id"], asked["question"], row, tuple(answers))
                    made.questions.append(question)
        return made
