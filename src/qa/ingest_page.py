"""Figures of sets of questions, and the page that shows them."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from src.core.markdown import code, table
from src.metrics import spans
from src.qa.reading import Found
from src.qa.squad import Questions

WHAT = {  # of each set
    "train": "learnt from",
    "validation": "chooses the epoch and the threshold",
    "adapt": "of the target, for adapting",
    "test": "of the target, for judging",
    "documents": "without questions",
}
DONE = {  # to answers that did not stand where they were said to
    "moved": "stood elsewhere in the paragraph, and were moved",
    "respelt": "stood there in other case or spaces, and were respelt",
    "mapped": "were in other words, and became the span that is most like them",
    "dropped": "had nothing like them in the paragraph, and were dropped",
}


def figures(
    sets: Mapping[str, Questions], found: Mapping[str, Found], shared: Mapping[str, int]
) -> dict[str, Any]:
    """Return what ``page`` shows, and DVC compares."""
    return {
        "sets": {name: _figures(one) for name, one in sets.items()},
        "sources": {
            setting: {
                "questions": one.read,
                "repaired": {how: n for how, n in sorted(one.repaired.items()) if n},
                "rejected": dict(sorted(Counter(each.code for each in one.rejected).items())),
            }
            for setting, one in found.items()
        },
        "tested_too": dict(shared),
    }


def _figures(one: Questions) -> dict[str, Any]:
    unit = spans.unit_of(one.texts)
    answers = [answer.text for asked in one.questions for answer in asked.answers]
    return {
        "documents": len(one.documents()),
        "paragraphs": len(one.paragraphs),
        "questions": len(one.questions),
        "without_answer": sum(not asked.answers for asked in one.questions),
        "unit": unit,
        "paragraph": _median([len(spans.words(text, unit)) for text in one.texts]),
        "answer": _median([len(spans.words(text, unit)) for text in answers]),
        "references": round(len(answers) / max(1, len(one.questions)), 2),
    }


def _median(lengths: list[int]) -> float:
    return float(np.median(lengths)) if lengths else 0.0


def page(figures: Mapping[str, Any]) -> str:
    """Write the figures as Markdown for people."""
    head = ["set", "what it is for", "documents", "paragraphs", "questions", "without an answer"]
    head += ["words of a paragraph", "of an answer", "answers to a question"]
    rows = []
    for name, one in figures["sets"].items():
        unit = "" if one["unit"] == "words" else " characters"
        cells = [f"{one[key]:,}" for key in ("documents", "paragraphs", "questions")]
        lengths = [f"{one[key]:g}{unit}" for key in ("paragraph", "answer")]
        rows.append(
            [
                *(code(name), WHAT.get(name, "a further test"), *cells),
                *(f"{one['without_answer']:,}", *lengths, f"{one['references']:g}"),
            ]
        )
    lines = ["# The questions", "", table(head, rows), "", "Lengths are medians.", ""]
    for setting, one in figures["sources"].items():
        rejected = sum(one["rejected"].values())
        lines.append(f"- {code(setting)}: {one['questions']:,} questions, {rejected:,} unusable")
        lines += [f"  - {n:,} answers {DONE[how]}" for how, n in one["repaired"].items()]
        lines += [f"  - {n:,} questions: {code(why)}" for why, n in one["rejected"].items()]
    lines += ["", "Paragraphs that stand in a test as well, or nearly:", ""]
    lines += [f"- {code(name)}: {n:,}" for name, n in figures["tested_too"].items()]
    return "\n".join(lines) + "\n"
