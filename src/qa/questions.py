"""Make questions for documents that have none, and keep those that a reader answers as meant."""

import csv
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from dvclive.live import Live

from src.core import stage
from src.core.command_line import Count, Interval, Natural, Seed, Threads
from src.core.errors import InputError
from src.core.files import replacing
from src.metrics import spans as judging
from src.predict.reader.reading import Asked
from src.predict.reader.spans import Span
from src.qa import asking
from src.qa import model as models
from src.qa.generator import Generator
from src.qa.squad import Answer, Question, Questions
from src.training import pretrained

TEMPLATE = "template"  # in place of a model of sequences

log = logging.getLogger("src.qa.questions")


class Made(NamedTuple):
    """A question that was made.

    Attributes:
        paragraph: the row of its paragraph.
        span: what is to be its answer.
        question: its text.
        found: what the reader answers.
        score: how sure the reader is, minus null.
        f1: of that answer.
    """

    paragraph: int
    span: Span
    question: str
    found: str
    score: float
    f1: float


def main(
    sets: Path,
    answers: Path,
    reader: Path,
    made: Path,
    live: Path,
    *,
    of: list[Literal["adapt", "documents", "test"]],
    max_paragraphs: Natural,
    per_paragraph: Count,
    generator: str,
    sha256: str,
    prompt: str,
    round_trip: Annotated[float, Interval(ge=0, le=1)],
    batch_tokens: Count,
    precision: Literal["auto", "no", "bf16"],
    threads: Threads,
    seed: Seed,
) -> None:
    """Propose answers, ask for them, and keep the questions to which the reader gives them.

    Args:
        sets: the folder of the sets, of which paragraphs alone are looked at.
        answers: the folder of the reader that proposes answers.
        reader: the folder of the one that answers the questions.
        made: the folder that gets ``questions.json`` as SQuAD has it, of what is kept, and
            ``questions.tsv`` of all, the surest first.
        live: the folder that gets ``metrics.json``: how many were made and kept.

    Source: Alberti et al., Synthetic QA Corpora Generation with Roundtrip Consistency, 2019.
    """
    torch.set_num_threads(threads)
    half = models.precision_of(precision) == "bf16"
    paragraphs = _paragraphs(sets, of, max_paragraphs, seed)
    asked = [Asked("", row) for row in range(len(paragraphs.paragraphs))]
    proposer = replace(models.load(str(answers)), half=half)
    proposed = proposer.spans(paragraphs.texts, asked, per_paragraph, batch_tokens)
    pairs = _apart(paragraphs, proposed)
    log.info("%d answers in %d paragraphs", len(pairs), len(asked))
    if generator == TEMPLATE:
        texts = asking.by_template(paragraphs.texts, pairs)
    else:
        model = Generator(pretrained.resolve(generator, sha256, "questions"), prompt)
        texts = model.ask(
            [(_text(paragraphs, row, span), paragraphs.texts[row]) for row, span in pairs],
            batch_tokens,
        )
    answering = replace(models.load(str(reader)), half=half)
    rows = _answered(answering, paragraphs, pairs, texts, batch_tokens)
    kept = [one for one in rows if one.question and one.f1 >= round_trip]
    with replacing(made) as folder:
        folder.mkdir()
        _squad(paragraphs, kept).write(folder / "questions.json")
        _write(paragraphs, rows, round_trip, folder / "questions.tsv")
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        f1 = float(np.mean([one.f1 for one in rows])) if rows else 0.0
        counts = {"paragraphs": len(asked), "made": len(rows), "kept": len(kept)}
        figures: dict[str, float] = {**counts, "token_f1": f1}
        for name, figure in figures.items():
            log.info("%s: %.4g", name, figure)
            record.log_metric(name, figure, plot=False)
    if not kept:
        raise InputError(
            "None of the questions that were made is answered as meant: lower "
            "questions.round_trip, or name other documents in ingest.documents."
        )


def _paragraphs(sets: Path, of: Sequence[str], most: int, seed: int) -> Questions:
    """Return the paragraphs that questions are made for."""
    found = Questions()
    for name in of:
        found = found.with_(Questions.read(sets / f"{name}.json"))
    if not found.paragraphs:
        raise InputError(
            f"questions.of is {list(of)}, and there is no paragraph to ask about: name documents "
            "in ingest.documents, set ingest.adapt_size above 0, or add test."
        )
    order = np.random.default_rng(seed).permutation(len(found.paragraphs))
    rows = sorted(order[: most or None].tolist())
    return Questions([found.paragraphs[row] for row in rows], [])


def _apart(paragraphs: Questions, proposed: Sequence[Sequence[Span]]) -> list[tuple[int, Span]]:
    """Return the row and span of each answer, each text of a paragraph once."""
    pairs: dict[tuple[int, str], Span] = {}
    for row, found in enumerate(proposed):
        for span in found:
            pairs.setdefault((row, _text(paragraphs, row, span).casefold()), span)
    return [(row, span) for (row, _), span in pairs.items()]


def _text(paragraphs: Questions, row: int, span: Span) -> str:
    return paragraphs.paragraphs[row].text[span.start : span.end]


def _answered(
    reader: models.TorchReader,
    paragraphs: Questions,
    pairs: Sequence[tuple[int, Span]],
    texts: Sequence[str],
    batch_tokens: int,
) -> list[Made]:
    """Ask each question, the surest answers first."""
    asked = [Asked(text, row) for text, (row, _) in zip(texts, pairs, strict=True)]
    unit = judging.unit_of(paragraphs.texts)
    rows = []
    found = reader.spans(paragraphs.texts, asked, 1, batch_tokens)
    for (row, span), text, best in zip(pairs, texts, found, strict=True):
        answer = _text(paragraphs, row, best[0]) if best else ""
        f1 = judging.f1(answer, [_text(paragraphs, row, span)], unit)
        rows.append(Made(row, span, text, answer, best[0].score if best else -np.inf, f1))
    return sorted(rows, key=lambda one: -one.score)


def _squad(paragraphs: Questions, kept: Sequence[Made]) -> Questions:
    return Questions(
        paragraphs.paragraphs,
        [
            Question(
                *(f"made-{number}", one.question, one.paragraph),
                (Answer(_text(paragraphs, one.paragraph, one.span), one.span.start),),
            )
            for number, one in enumerate(kept, 1)
        ],
    )


def _write(paragraphs: Questions, rows: Sequence[Made], round_trip: float, path: Path) -> None:
    """Write a row for each question: what it is, its answer, and how the reader answers it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(
            file, delimiter="\t", lineterminator="\n", quotechar=None, quoting=csv.QUOTE_NONE
        )
        writer.writerow(["question", "answer", "score", "found", "f1", "kept", "document", "place"])
        for one in rows:
            paragraph = paragraphs.paragraphs[one.paragraph]
            answer = _text(paragraphs, one.paragraph, one.span)
            cells = [one.question, answer, f"{one.score:.3f}", one.found, f"{one.f1:.3f}"]
            cells += [str(bool(one.question and one.f1 >= round_trip)).lower()]
            cells += [paragraph.document, paragraph.place]
            # A field holds neither tabs nor lines, so nothing has to be quoted.
            writer.writerow([" ".join(cell.split()) for cell in cells])


if __name__ == "__main__":
    stage.run(main)
