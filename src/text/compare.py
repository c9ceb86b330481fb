"""Compare the models on the same test texts, say which differences are real and which to ship."""

import json
import logging
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import pandas as pd
from dvclive.live import Live

from src.core import stage
from src.core.command_line import Count, Interval, Seed, Share
from src.core.errors import InputError, closest
from src.core.files import replacing
from src.core.markdown import aligned
from src.metrics import bootstrap, significance
from src.metrics.classification import Integers
from src.metrics.selective import Booleans
from src.tables import examples
from src.tables.predictions import read
from src.text import choice
from src.text.choice import SHOWN, Metric, Model

WIDTH = 100  # characters of a line
LEGEND = """
p is how often chance alone would make so large a difference on these texts (paired bootstrap,
two sides); from about 0.05 up, a difference is not shown to be real. Intervals from a few dozen
texts are too narrow. metrics.json, beside this page, has the differences from {first}, whichever
model is shipped.
"""

UNFINISHED = (
    "Of the epochs of train the last one was the best: with more train.epochs it may get better."
)
ANSWERED = (
    "A label is given from a score of {min_score:g} (compare.min_score) on: to so many of the test "
    "texts (answered), of which so many are right. models/shipped has it in its manifest; predict "
    "and serve do so with others by --min_score {min_score:g}."
)
FURTHER = {  # columns that there are where the models have the figure
    "coverage": "answered",
    "answered_accuracy": "accuracy of these",
    "out_of_scope_coverage": "out of scope, answered",
    "out_of_scope_auroc": "out of scope, AUROC",
}

log = logging.getLogger("src.text.compare")


def main(
    judged: Path,
    training: Path,
    exported: Path,
    live: Path,
    *predictions: Path,
    models: list[str],
    metric: Metric,
    margin: Annotated[float, Interval(ge=0)],
    min_score: Annotated[float, Interval(ge=0, lt=1)],
    resamples: Count,
    confidence: Share,
    seed: Seed,
) -> None:
    """Write the comparison table, and the paired bootstrap of each model against the first.

    Args:
        judged: the folder with a folder of each model's ``metrics.json``.
        training: the folder with that of the training.
        exported: the folder of the models that may be shipped.
        live: the folder that gets ``metrics.json`` and ``comparison.md``.
        predictions: a folder of predictions for each model, the reference first.
    """
    if not predictions:
        raise InputError("No predictions are named: name their folders, the reference first.")
    names = [folder.name for folder in predictions]
    _expect_exported(models, [name for name in names if (exported / name).is_dir()])
    trained = json.loads((training / "metrics.json").read_text(encoding="utf-8"))
    frames = read(predictions, "texts", "dvc repro")
    checked = read(predictions, "validation texts", "dvc repro", "validation.parquet")
    found = _found(judged, predictions, frames, checked, min_score, resamples, seed)
    candidates = [model for model in found if model.name in models]
    shipped = choice.choose(candidates, metric, margin)
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        _record(record, found, confidence)
        record.log_metric("ship", shipped.name, plot=False)
    texts = len(frames[names[0]])
    heading = f"{texts} test texts, {100 * confidence:g}% bootstrap intervals"
    table = aligned(_rows(found, shipped, metric, confidence))
    said = choice.worded(candidates, shipped, metric, margin, len(checked[names[0]]))
    advice = textwrap.fill(
        f"{said} {choice.against(found, candidates, shipped, metric)}",
        WIDTH,
        break_on_hyphens=False,
        break_long_words=False,
    )
    if trained["step"] == trained["last_step"]:
        advice += f"\n\n{UNFINISHED}"
    text = f"{advice}\n\n{heading}\n\n{table}{LEGEND.format(first=found[0].name)}"
    if min_score:
        text += textwrap.fill(ANSWERED.format(min_score=min_score), WIDTH) + "\n"
    log.info("%s", text)
    with replacing(live / "comparison.md") as file:
        file.write_text(text, encoding="utf-8", newline="\n")


def _expect_exported(models: Sequence[str], exported: Sequence[str]) -> None:
    if not models:
        raise InputError(
            f"compare.models is empty: name what may be shipped, {', '.join(exported)}."
        )
    for name in models:
        if name not in exported:
            raise InputError(
                f"compare.models has {name!r}, which is not both exported and judged: choose among "
                f"{', '.join(exported)}{closest(name, exported)}."
            )


def _found(
    judged: Path,
    predictions: Sequence[Path],
    frames: Mapping[str, pd.DataFrame],
    checked: Mapping[str, pd.DataFrame],
    min_score: float,
    resamples: int,
    seed: int,
) -> list[Model]:
    """Put together what was found of each model."""
    first = next(iter(frames.values()))
    shares = [column for column in map(str, first) if column.startswith("p_")]
    names = [column.removeprefix("p_") for column in shares]
    labels, predicted = _codes(frames, names)
    scores = bootstrap.bootstrap(labels, predicted, len(names), resamples, seed)
    validated = bootstrap.bootstrap(*_codes(checked, names), len(names), resamples, seed)
    found = []
    for k, folder in enumerate(predictions):
        figures = json.loads((judged / folder.name / "metrics.json").read_text(encoding="utf-8"))
        sure = frames[folder.name][shares].max(axis=1).to_numpy() >= min_score
        found.append(
            Model(
                folder.name,
                figures["test"],
                figures["validation"],
                figures["bytes"],
                {key: scores[key][k] for key in SHOWN},
                {key: validated[key][k] for key in SHOWN},
                _answers(folder, sure, labels == predicted[k], min_score) if min_score else {},
            )
        )
    return found


def _codes(frames: Mapping[str, pd.DataFrame], names: list[str]) -> tuple[Integers, list[Integers]]:
    """Return the true classes of some texts, and those that each model predicts."""
    said = [examples.label_ids(f.assign(label=f["predicted"]), names) for f in frames.values()]
    return examples.label_ids(next(iter(frames.values())), names), said


def _answers(folder: Path, sure: Booleans, right: Booleans, min_score: float) -> dict[str, float]:
    """Return the shares of texts that get a label, and of these labels that are right."""
    found = {"coverage": float(sure.mean())}
    if sure.any():
        found["answered_accuracy"] = float(right[sure].mean())
    if (path := folder / "out_of_scope.parquet").exists():
        unknown = examples.read(path)["score"].to_numpy()
        found["out_of_scope_coverage"] = float((unknown >= min_score).mean())
    return found


def _record(record: Live, found: Sequence[Model], confidence: float) -> None:
    """Record the differences from the first model, and what becomes of the least score."""
    for model in found[1:]:
        for key in SHOWN:
            _, resampled = model.against(found[0], key)
            low, high = bootstrap.interval(resampled, confidence)
            p_value = bootstrap.p_value(resampled)
            for figure, value in (("low", low), ("high", high), ("p_value", p_value)):
                record.log_metric(f"{model.name}/{key}_difference_{figure}", value, plot=False)
    for model in found:
        for figure, value in model.answers.items():
            record.log_metric(f"{model.name}/{figure}", value, plot=False)


def _rows(
    found: Sequence[Model], shipped: Model, metric: Metric, confidence: float
) -> list[list[str]]:
    """Lay out the figures of each model, and its difference from the one that is to be shipped."""
    minus = [f"{shown} minus {shipped.name}'s" for shown in SHOWN.values()]
    validated = f"{SHOWN[metric]}, validation"
    told = [{**model.test, **model.answers} for model in found]
    further = {key: head for key, head in FURTHER.items() if any(key in each for each in told)}
    head = ["model", "MB", validated, *SHOWN.values(), "log loss", "ECE", *further.values(), *minus]
    rows = [head]
    for model, figures in zip(found, told, strict=True):
        size = model.bytes / 1e6
        row = [
            model.name,
            f"{size:.1f}" if size >= 1 else f"{size:.2g}",
            f"{model.validation[metric]:.4f}",
        ]
        for key in SHOWN:
            low, high = bootstrap.interval(model.resampled[key], confidence)
            row.append(f"{model.test[key]:.4f} ({low:.4f} to {high:.4f})")
        row += [
            f"{figures[key]:.4f}" if key in figures else "" for key in ("log_loss", "ece", *further)
        ]
        for key in SHOWN:
            point, drawn = model.against(shipped, key)
            low, high = bootstrap.interval(drawn, confidence)
            p = significance.said(bootstrap.p_value(drawn))
            cell = f"{point:+.4f} ({low:+.4f} to {high:+.4f}), {p}"
            row.append("" if model is shipped else cell)
        rows.append(row)
    return rows


if __name__ == "__main__":
    stage.run(main)
