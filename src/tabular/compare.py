"""Compare the models on the same test rows, and say which differences are real."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
from dvclive.live import Live

from src.core import stage
from src.core.command_line import Count, Seed, Share
from src.core.errors import InputError
from src.core.files import replacing
from src.core.markdown import aligned
from src.metrics import bootstrap, imbalance, significance
from src.metrics.classification import Floats
from src.tables import examples
from src.tables.predictions import read
from src.tables.schema import Schema

SHOWN = {
    "average_precision": "average precision",
    "roc_auc": "ROC AUC",
    "balanced_accuracy": "balanced accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
}
LEGEND = """
p is how often chance alone would make so large a difference on these rows (paired bootstrap, two
sides); from about 0.05 up, a difference is not shown to be real. Threshold and calibration come
from the validation rows.
"""

Metric = Literal["average_precision", "roc_auc", "balanced_accuracy", "f1"]

log = logging.getLogger("src.tabular.compare")


@dataclass(frozen=True)
class Model:
    """A model, as the stages before found it."""

    name: str
    test: Mapping[str, float]
    validation: Mapping[str, float]
    bytes: int
    resampled: Mapping[str, Floats]  # its figures on the test rows, each time they were drawn anew


def main(
    splits: Path,
    judged: Path,
    live: Path,
    *predictions: Path,
    reference: str,
    metric: Metric,
    resamples: Count,
    confidence: Share,
    seed: Seed,
) -> None:
    """Write the comparison table, and the paired bootstrap of each model against the reference.

    Args:
        splits: the folder with ``schema.json`` and ``labels.json``.
        judged: the folder with a folder of each model's ``metrics.json``.
        live: the folder that gets ``metrics.json`` and ``comparison.md``.
        predictions: a folder of predictions for each model.
    """
    names = [folder.name for folder in predictions]
    if reference not in names:
        raise InputError(
            f"compare.reference is {reference!r}, which is no model: choose among "
            f"{', '.join(names)}."
        )
    frames = read(predictions, "rows", "dvc repro tabular/dvc.yaml")
    found = _found(splits, judged, frames, resamples, seed)
    first = next(model for model in found if model.name == reference)
    best = max(found, key=lambda model: model.validation[metric])
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        for model in found:
            if model is not first:
                _record(record, model, first, confidence)
        record.log_metric("best", best.name, plot=False)
    rows = len(next(iter(frames.values())))
    table = aligned(
        [_head(metric, reference), *(_row(m, first, metric, confidence) for m in found)]
    )
    text = (
        f"{best.name} has the highest {SHOWN[metric]} on the validation rows, "
        f"{best.validation[metric]:.4f}.\n\n{rows} test rows, {100 * confidence:g}% bootstrap "
        f"intervals\n\n{table}{LEGEND}"
    )
    log.info("%s", text)
    with replacing(live / "comparison.md") as file:
        file.write_text(text, encoding="utf-8", newline="\n")


def _found(
    splits: Path, judged: Path, frames: Mapping[str, pd.DataFrame], resamples: int, seed: int
) -> list[Model]:
    schema, labels = Schema.read(splits / "schema.json"), examples.read_labels(splits)
    positive = schema.positive_of(labels)
    truth = examples.label_ids(next(iter(frames.values())), labels)
    columns = [f"p_{label}" for label in labels]
    drawn = imbalance.resampled(
        truth,
        [frame[columns].to_numpy() for frame in frames.values()],
        [examples.label_ids(f.assign(label=f["predicted"]), labels) for f in frames.values()],
        positive,
        resamples,
        seed,
    )
    found = []
    for k, name in enumerate(frames):
        figures = json.loads((judged / name / "metrics.json").read_text(encoding="utf-8"))
        resampled = {key: drawn[key][k] for key in SHOWN}
        found.append(
            Model(name, figures["test"], figures["validation"], figures["bytes"], resampled)
        )
    return found


def _difference(model: Model, other: Model, key: str) -> tuple[float, Floats]:
    drawn = imbalance.measured(model.resampled[key] - other.resampled[key])
    return model.test[key] - other.test[key], drawn


def _record(record: Live, model: Model, first: Model, confidence: float) -> None:
    for key in SHOWN:
        if key in model.test:
            _, drawn = _difference(model, first, key)
            if not len(drawn):
                continue
            low, high = bootstrap.interval(drawn, confidence)
            figures = {"low": low, "high": high, "p_value": bootstrap.p_value(drawn)}
            for figure, value in figures.items():
                record.log_metric(f"{model.name}/{key}_difference_{figure}", value, plot=False)


def _head(metric: Metric, reference: str) -> list[str]:
    judged = [f"{SHOWN[metric]}, validation", *SHOWN.values(), "log loss", "ECE", "cost"]
    return ["model", "MB", *judged, f"{SHOWN[metric]} against {reference}"]


def _row(model: Model, first: Model, metric: Metric, confidence: float) -> list[str]:
    cells = [model.name, f"{model.bytes / 1e6:.2g}", f"{model.validation[metric]:.4f}"]
    for key in SHOWN:
        drawn, cell = imbalance.measured(model.resampled[key]), f"{model.test[key]:.4f}"
        if len(drawn):
            low, high = bootstrap.interval(drawn, confidence)
            cell += f" ({low:.4f} to {high:.4f})"
        cells.append(cell)
    further = ("log_loss", "ece", "cost")
    cells += [f"{model.test[key]:.4f}" if key in model.test else "" for key in further]
    return [*cells, "" if model is first else _verdict(model, first, metric)]


def _verdict(model: Model, first: Model, metric: Metric) -> str:
    point, drawn = _difference(model, first, metric)
    if not len(drawn):
        return f"{point:+.4f}; a label has too few test rows to tell more"
    p_value = bootstrap.p_value(drawn)
    word = "better" if point > 0 else "worse"
    if p_value >= significance.REAL:
        word = "no real difference"
    return f"{word}: {point:+.4f}, {significance.said(p_value)}"


if __name__ == "__main__":
    stage.run(main)
