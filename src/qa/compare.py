"""Compare the readers on the same questions, and say which differences are real."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dvclive.live import Live

from src.core import stage
from src.core.command_line import Count, Seed, Share
from src.core.errors import InputError
from src.core.files import replacing
from src.core.markdown import aligned
from src.metrics import bootstrap, significance
from src.metrics import spans as judging
from src.metrics.classification import Floats
from src.qa.published import PUBLISHED
from src.qa.squad import RESERVED
from src.tables.predictions import read

LEGEND = """
EM is the share of answers that are exactly right and F1 that of their words, by the rules of SQuAD,
in percent, when each question has its paragraph; the interval is that of F1. "of 3" is F1 when the
answer is looked for in the 3 of all paragraphs that BM25 finds, by the score of a span minus that
of none, "by softmax" the last of these by the probability in its paragraph, and "until sure" when
they are read one by one until a probability is that of evaluate.stop. AUC tells how well that score
knows a paragraph with the answer from the likeliest one without. p is how often chance alone would
make so large a difference of F1 on these questions (paired bootstrap, two sides); from about 0.05
up, none is shown to be real.
"""
CITED = """
Published systems, trained on the 87,599 questions of SQuAD 1.1, each question with its paragraph.
Those on XQuAD are judged here, from their answers to SQuAD's development set, of which its English
questions are a part; they are all of its questions, and the rows above are of the documents that
were not set apart. Those on SQuADShifts are as its authors give them.
"""
Figures = Mapping[str, Any]

FIGURE = "token_f1"  # what readers are compared by

log = logging.getLogger("src.qa.compare")


def main(
    judged: Path,
    live: Path,
    *predictions: Path,
    references: list[str],
    resamples: Count,
    confidence: Share,
    seed: Seed,
) -> None:
    """Write the comparison table, and the paired bootstrap of each reader against some.

    Args:
        judged: the folder with a folder of each reader's ``metrics.json`` and ``details.json``.
        live: the folder that gets ``metrics.json``, ``comparison.md`` and a plot.
        predictions: a folder of predictions for each reader.
    """
    frames = read(predictions, "questions", "dvc repro qa/dvc.yaml")
    if not references or not frames.keys() >= {*references}:
        raise InputError(
            f"compare.references is {references}: name readers among {', '.join(frames)}."
        )
    figures = {
        name: json.loads((judged / name / "metrics.json").read_text(encoding="utf-8"))
        for name in frames
    }
    drawn = {name: judging.drawn(frame, resamples, seed)[FIGURE] for name, frame in frames.items()}
    ks = sorted(
        int(name.removeprefix("minus_null@"))
        for name in figures[references[0]]["paragraphs"]
        if name.startswith("minus_null@")
    )
    rows, bars = [], []
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        for name in frames:
            low, high = bootstrap.interval(drawn[name], confidence)
            verdicts = []
            for reference in references:
                point = figures[name]["test"][FIGURE] - figures[reference]["test"][FIGURE]
                difference = drawn[name] - drawn[reference]
                if name != reference:
                    p_value = bootstrap.p_value(difference)
                    of = f"{name}/{reference}"
                    record.log_metric(f"{of}/{FIGURE}_difference", point, plot=False)
                    record.log_metric(f"{of}/{FIGURE}_p_value", p_value, plot=False)
                verdicts.append(_verdict(point, difference) if name != reference else "")
            rows.append([*_row(name, figures[name], (low, high), ks), *verdicts])
            bars.append({"reader": name, "f1": figures[name]["test"][FIGURE]})
            bars[-1] |= {"low": low, "high": high}
        best = max(figures, key=lambda name: figures[name]["test"][FIGURE])
        record.log_metric("best", best, plot=False)
        record.log_plot("f1", bars, x="f1", y="reader", template="bar_horizontal")
    head = ["reader", "EM", "F1", "interval", *(f"of {k}" for k in ks), "by softmax", "until sure"]
    further = sorted(figures[references[0]].keys() - RESERVED)
    head += ["AUC", *further, *(f"F1 against {reference}" for reference in references)]
    count = len(next(iter(frames.values())))
    text = (
        f"{count} questions of the test\n\n{aligned([head, *rows])}{LEGEND}{CITED}\n{published()}"
    )
    log.info("%s", text)
    with replacing(live / "comparison.md") as file:
        file.write_text(text, encoding="utf-8", newline="\n")


def _row(
    name: str,
    figures: Figures,
    interval: tuple[float, float],
    ks: Sequence[int],
) -> list[str]:
    test, of_paragraphs = figures["test"], figures["paragraphs"]
    cells = [name, _percent(test["exact_match"]), _percent(test["token_f1"])]
    cells.append(" to ".join(map(_percent, interval)))
    cells += [_percent(of_paragraphs[f"minus_null@{k}"]) for k in ks]
    cells.append(_percent(of_paragraphs[f"softmax@{ks[-1]}"]))
    stopped = figures["early_stop"]
    cells.append(f"{_percent(stopped['token_f1'])} ({stopped['paragraphs']:.1f} read)")
    cells.append(f"{figures['answerable'].get('auc', float('nan')):.3f}")
    cells += [_percent(figures[key]["token_f1"]) for key in sorted(figures.keys() - RESERVED)]
    return cells


def published() -> str:
    """Write the table of published systems."""
    head = ["system", "set", "EM", "F1", "from"]
    return aligned([head, *([*map(str, one)] for one in PUBLISHED)])


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _verdict(point: float, difference: Floats) -> str:
    p_value = bootstrap.p_value(difference)
    word = "better" if point > 0 else "worse"
    if p_value >= significance.REAL:
        word = "no real difference"
    return f"{word}: {100 * point:+.1f}, {significance.said(p_value)}"


if __name__ == "__main__":
    stage.run(main)
