"""Compare the models on the same questions, and say which differences are real."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from dvclive.live import Live

from src.core import stage
from src.core.command_line import Count, Seed
from src.core.errors import InputError
from src.core.files import replacing
from src.core.markdown import aligned
from src.metrics import answers, bootstrap, significance
from src.metrics.classification import Floats
from src.tables.predictions import read

KINDS = {  # what questions are judged by, and what a column says of them
    "identity": "who it is",
    "calls": "calls",
    "no_call": "no call",
}
LEGEND = """
Loss is that of a token of the right answers, and its perplexity exp(loss); who it is, calls and no
call are the shares of such questions that were answered right, and ROUGE-L is of the others.
Retention is by how much the log-probability of a token of the first model's own answers to general
questions changed: below 0, it forgets. p is how often chance alone would make so large a difference
on these questions (paired bootstrap, two sides); from about 0.05 up, none is shown to be real.
"""

Figures = Mapping[str, Any]

log = logging.getLogger("src.chat.compare")


def main(
    judged: Path,
    live: Path,
    *predictions: Path,
    reference: str,
    resamples: Count,
    seed: Seed,
) -> None:
    """Write the comparison table, and the paired bootstrap of each model against the reference.

    Args:
        judged: the folder with a folder of each model's ``metrics.json``.
        live: the folder that gets ``metrics.json`` and ``comparison.md``.
        predictions: a folder of predictions for each model, the one that all started from first.
    """
    frames = read(predictions, "questions", "dvc repro chat/dvc.yaml")
    if reference not in frames:
        raise InputError(
            f"compare.reference is {reference!r}, which is no model: choose among "
            f"{', '.join(frames)}."
        )
    figures = {
        name: json.loads((judged / name / "metrics.json").read_text(encoding="utf-8"))
        for name in frames
    }
    start = next(iter(frames))
    rows = []
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        for name, frame in frames.items():
            retention = figures[start]["general"]["loss"] - figures[name]["general"]["loss"]
            record.log_metric(f"{name}/retention", retention, plot=False)
            verdicts = ["", ""]
            if name != reference:
                drawn = answers.differences(frames[reference], frame, resamples, seed)
                for key, (point, spread) in drawn.items():
                    p_value = bootstrap.p_value(spread)
                    record.log_metric(f"{name}/{key}_difference", point, plot=False)
                    record.log_metric(f"{name}/{key}_p_value", p_value, plot=False)
                verdicts = [_verdict(key, *drawn[key]) for key in ("loss", "right")]
            rows.append(_row(name, frame, figures[name], retention, verdicts))
        best = min(figures, key=lambda name: figures[name]["test"]["loss"])
        record.log_metric("best", best, plot=False)
    count = len(frames[start])
    head = ["model", "MB", "weights learnt", "loss", "perplexity", *KINDS.values(), "ROUGE-L"]
    head += ["retention", f"loss against {reference}", f"right answers against {reference}"]
    text = f"{count} questions of the test side\n\n{aligned([head, *rows])}{LEGEND}"
    log.info("%s", text)
    with replacing(live / "comparison.md") as file:
        file.write_text(text, encoding="utf-8", newline="\n")


def _row(
    name: str, frame: pd.DataFrame, figures: Figures, retention: float, verdicts: list[str]
) -> list[str]:
    test = figures["test"]
    cells = [name, f"{figures['bytes'] / 1e6:.3g}", f"{figures['parameters']:,}"]
    cells += [f"{test['loss']:.3f}", f"{test['perplexity']:.2f}"]
    for kind in KINDS:
        of = frame[frame["kind"] == kind]
        cells.append(f"{of['right'].sum()} of {len(of)}" if len(of) else "")
    text = figures.get("text", {})
    cells.append(f"{text['rouge_l']:.3f}" if text else "")
    return [*cells, f"{retention:+.3f}", *verdicts]


def _verdict(key: str, point: float, spread: Floats) -> str:
    p_value = bootstrap.p_value(spread)
    word = "better" if (point < 0) == (key in answers.LOWER) else "worse"
    if p_value >= significance.REAL:
        word = "no real difference"
    return f"{word}: {point:+.3f}, {significance.said(p_value)}"


if __name__ == "__main__":
    stage.run(main)
