"""Judge a reader: on each question's own paragraph, and out of all paragraphs of the documents."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from dvclive.live import Live

from src.core import stage
from src.core.command_line import Count, Seed, Share, Threads
from src.core.errors import InputError
from src.core.files import replacing, write_json
from src.metrics import bootstrap
from src.metrics import spans as judging
from src.predict.reader.calibration import Calibration
from src.predict.reader.manifest import is_reader
from src.predict.reader.model import Reader
from src.predict.reader.reading import Asked
from src.predict.reader.spans import Span
from src.qa import attention, retrieval
from src.qa import model as models
from src.qa.retrieval import SCORES, Read, Reads
from src.qa.squad import SETS, Question, Questions
from src.qa.wording import FILE, Wording
from src.tables import examples

MISTAKES = 20  # wrong answers that are listed
WATCHED = 5  # paragraphs at most that a validation question is asked of

log = logging.getLogger("src.qa.evaluate")


def main(
    sets: Path,
    model: Path,
    predictions: Path,
    live: Path,
    *,
    ks: list[Count],
    questions: Count,
    stop: Share,
    resamples: Count,
    confidence: Share,
    batch_tokens: Count,
    precision: Literal["auto", "no", "bf16"],
    threads: Threads,
    seed: Seed,
) -> None:
    """Answer the questions of each test, and write answers and figures.

    Args:
        sets: the folder of the sets.
        model: the folder of a reader.
        predictions: the folder that gets ``predictions.parquet``, a row a question of the test.
        live: the folder that gets ``metrics.json``, ``details.json`` and plots.
    """
    if not ks:
        raise InputError("evaluate.ks is []: name at least one number of paragraphs, such as [1].")
    reader = _reader(model, precision, threads)
    validation, test = (Questions.read(sets / f"{name}.json") for name in ("validation", "test"))
    asked = _answerable(validation, questions)
    watched = retrieval.read(reader, validation, asked, min(max(ks), WATCHED), batch_tokens)
    unit = judging.unit_of(validation.texts)
    calibration = retrieval.fitted(validation, watched, unit)
    judge = Judge(reader, calibration, retrieval.threshold(watched), batch_tokens)

    frames = {"test": judge.own(test)}
    for path in sorted(sets.glob("*.json")):
        if path.stem not in SETS:
            frames[path.stem] = judge.own(Questions.read(path))
    book = test.with_(Questions.read(sets / "adapt.json"))
    reads = retrieval.read(reader, book, _answerable(test, questions), max(ks), batch_tokens)
    found = [one.best(max(ks), "minus_null") for one in reads]
    best = judge.frame([one.question for one in reads], found, book)
    figures: dict[str, Mapping[str, float]] = {name: _own(of) for name, of in frames.items()}
    figures["paragraphs"] = _of_paragraphs(book, reads, ks)
    figures["answerable"] = retrieval.answerability(reads, judge.limit)
    figures["early_stop"] = _stopped(book, reads, calibration.score(stop))
    figures["calibration"] = calibrated(best)

    with replacing(predictions) as folder:
        folder.mkdir()
        for name, frame in frames.items():
            file = "predictions" if name == "test" else name
            examples.write(frame, folder / f"{file}.parquet")
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        for kind, of in figures.items():
            for name, figure in of.items():
                log.info("%s/%s: %.4g", kind, name, figure)
                record.log_metric(f"{kind}/{name}", figure, plot=False)
        _plot(record, figures["paragraphs"], ks, best)
    spread = judging.drawn(frames["test"], resamples, seed)
    details: dict[str, Any] = {
        "threshold": judge.limit,
        "calibration": asdict(calibration),
        "intervals": {
            name: bootstrap.interval(values, confidence) for name, values in spread.items()
        },
        "asked_of_all": len(reads),
        "paragraphs": len(book.paragraphs),
        "sure_and_wrong": _sure_and_wrong(best),
    }
    write_json(live / "details.json", details)


def _reader(model: Path, precision: str, threads: int) -> Reads:
    if (model / FILE).exists():
        return Wording.read(model)
    if is_reader(model):
        return Reader(model, threads)
    torch.set_num_threads(threads)
    reader = models.load(str(model))
    attention.shorten(reader.model)  # which computes the same in less time
    return replace(reader, half=models.precision_of(precision) == "bf16")


def _answerable(questions: Questions, most: int) -> list[Question]:
    """Return at most ``most`` questions that have an answer, evenly over all."""
    every = [one for one in questions.questions if one.answers]
    return every[:: max(1, len(every) // most)][:most]


@dataclass(frozen=True)
class Judge:
    """Judges answers.

    Attributes:
        reader: what answers.
        calibration: tells their probability.
        limit: the least score of an answer, where a set has questions without one.
        batch_tokens: of windows that are read at once, padding included.
    """

    reader: Reads
    calibration: Calibration
    limit: float
    batch_tokens: int

    def own(self, questions: Questions) -> pd.DataFrame:
        """Answer each question on its own paragraph, and judge that, a row each."""
        asked = [Asked(one.text, one.paragraph) for one in questions.questions]
        start = time.perf_counter()
        spans = self.reader.spans(questions.texts, asked, 1, self.batch_tokens)
        seconds = time.perf_counter() - start
        log.info("%.1f ms a question", 1000 * seconds / max(1, len(asked)))  # no figure: it varies
        # As in SQuAD 2.0, "" is an answer only where some questions have none.
        limit = -np.inf if all(one.answers for one in questions.questions) else self.limit
        found = [
            (one.paragraph, of[0]) if of and of[0].score >= limit else None
            for one, of in zip(questions.questions, spans, strict=True)
        ]
        return self.frame(questions.questions, found, questions)

    def frame(
        self,
        asked: Sequence[Question],
        found: Sequence[tuple[int, Span] | None],
        questions: Questions,
    ) -> pd.DataFrame:
        """Judge what was found, a row and a span of ``questions`` for each that was asked."""
        unit = judging.unit_of(questions.texts)
        rows = []
        for one, best in zip(asked, found, strict=True):
            answer = retrieval.text_of(questions, best)
            score = best[1].score if best else -np.inf
            rows.append(
                {
                    "id": one.id,
                    "text": one.text,
                    "label": json.dumps(one.references, ensure_ascii=False),
                    "predicted": answer,
                    "exact_match": judging.exact_match(answer, one.references, unit),
                    "token_f1": judging.f1(answer, one.references, unit),
                    "score": score,
                    "probability": self.calibration.probability(score) if best else 0.0,
                    "answerable": bool(one.answers),
                }
            )
        return pd.DataFrame(rows)


def _own(frame: pd.DataFrame) -> dict[str, float]:
    """Return the figures of a set; of each kind too, where some questions have no answer."""
    figures = judging.figures(frame)
    if not frame["answerable"].all():
        for name, of in (("answerable", True), ("unanswerable", False)):
            kind = judging.figures(frame[frame["answerable"] == of])
            figures |= {f"{name}_{key}": value for key, value in kind.items()}
    return figures


def calibrated(frame: pd.DataFrame) -> dict[str, float]:
    """Return how far the probabilities are those of exact answers.

    ``ece`` is the expected calibration error over ten bins of as many answers, ``brier`` the mean
    squared difference.
    """
    right, said = (frame[name].to_numpy(float) for name in ("exact_match", "probability"))
    parts = np.array_split(np.argsort(said, kind="stable"), min(10, len(frame)))
    gaps = [abs(right[part].mean() - said[part].mean()) * len(part) for part in parts]
    return {"ece": float(sum(gaps) / len(frame)), "brier": float(((right - said) ** 2).mean())}


def _sure_and_wrong(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the wrong answers that the reader was surest of."""
    wrong = frame[frame["token_f1"] == 0].sort_values("probability", ascending=False)
    return [
        {
            "question": row["text"],
            "answer": row["predicted"],
            "expected": json.loads(row["label"]),
            "probability": row["probability"],
        }
        for row in wrong.head(MISTAKES).to_dict("records")
    ]


def _of_paragraphs(book: Questions, reads: Sequence[Read], ks: Sequence[int]) -> dict[str, float]:
    """Return recall and F1 by how many paragraphs are read, and F1 by each score."""
    figures: dict[str, float] = {}
    for k in ks:
        holds = [one.question.paragraph in one.rows[:k] for one in reads]
        figures[f"recall@{k}"] = float(np.mean(holds))
        for score in SCORES:
            found = [one.best(k, score) for one in reads]
            figures[f"{score}@{k}"] = _mean_f1(book, reads, found)
    return figures


def _stopped(book: Questions, reads: Sequence[Read], stop: float) -> dict[str, float]:
    """Return what comes of reading until an answer is sure enough."""
    ended = [one.until(stop) for one in reads]
    return {
        "token_f1": _mean_f1(book, reads, [found for _, found in ended]),
        "paragraphs": float(np.mean([count for count, _ in ended])),
    }


def _mean_f1(
    book: Questions, reads: Sequence[Read], found: Sequence[tuple[int, Span] | None]
) -> float:
    unit = judging.unit_of(book.texts)
    pairs = zip(reads, found, strict=True)
    each = [
        judging.f1(retrieval.text_of(book, best), one.question.references, unit)
        for one, best in pairs
    ]
    return float(np.mean(each))


def _plot(
    record: Live, figures: Mapping[str, float], ks: Sequence[int], best: pd.DataFrame
) -> None:
    """Draw F1 against paragraphs by score, and how far probabilities hold."""
    for score in SCORES:
        points = [{"paragraphs": k, "f1": figures[f"{score}@{k}"]} for k in sorted(ks)]
        record.log_plot(score, points, x="paragraphs", y="f1", template="linear")
    right = best["exact_match"].astype(int)
    if right.nunique() > 1:
        record.log_sklearn_plot(
            "calibration",
            right.to_numpy(),
            best["probability"].to_numpy(float),
            "calibration",
            strategy="quantile",
        )


if __name__ == "__main__":
    stage.run(main)
