"""Look over the rows before anything is trained on them, and report what a person should know."""

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import roc_auc_score

from src.core import markdown, stage
from src.core.command_line import Interval
from src.core.files import replacing, write_json
from src.metrics.classification import Integers
from src.tables import examples
from src.tables.schema import Column, Schema
from src.tabular import features
from src.tabular.features import Rows
from src.tabular.quality_words import Finding, sentence

BAR = 24  # characters of the longest bar
FINE, COARSE = 50, 10  # parts of numbers, by the training rows: to tell labels by, and to compare
VALUES = 100  # of a category that are told apart; the others count as one
FAR = 3.0  # times the distance of the quartiles, beyond which a number is an outlier
SHOWN = ("missing", "distinct", "outliers", "auc", "drift")  # figures of each column
LEAST = 1e-4  # a share, below which a part of the rows counts as so large

log = logging.getLogger("src.tabular.quality")


def main(
    raw: Path,
    splits: Path,
    quality: Path,
    page: Path,
    *,
    leak_auc: Annotated[float, Interval(ge=0.5, le=1)],
    max_drift: Annotated[float, Interval(gt=0)],
    max_missing: Annotated[float, Interval(ge=0, le=1)],
    max_imbalance: Annotated[float, Interval(ge=1)],
) -> None:
    """Write the figures that a reviewer compares, and a page about them.

    Args:
        raw: the folder with ``counts.json``.
        splits: the folder with the split, ``schema.json`` and ``labels.json``.
        quality: the JSON file that gets the figures, and what is likely wrong as entries with a
            code and values.
        page: the Markdown file that gets the same for a person.
    """
    counts = json.loads((raw / "counts.json").read_text(encoding="utf-8"))
    source = counts.pop("source")
    schema, names = Schema.read(splits / "schema.json"), examples.read_labels(splits)
    sides = {side: features.read(splits, side, schema, names) for side in examples.SPLITS}
    train, validation, test = (sides[side] for side in examples.SPLITS)
    columns = {
        column.name: _figures(column, train, validation, test, len(names))
        for column in schema.columns
    }
    repeated = {
        "validation": _repeated(validation, train),
        "test": _repeated(test, train, validation),
    }
    findings = _findings(columns, counts["classes"], max_missing, max_imbalance)
    for code, key, most in (("tells_label", "auc", leak_auc), ("drift", "drift", max_drift)):
        if high := {name: found[key] for name, found in columns.items() if found[key] >= most}:
            findings.append({"code": code, "columns": high})
    for side, rows in (("validation", validation), ("test", test)):
        if count := repeated[side]:
            share = count / len(rows.ids)
            findings.append({"code": "repeated", "side": side, "rows": count, "share": share})
    for finding in findings:
        log.warning("%s", sentence(finding))
    figures = counts | {
        **{key: {name: found[key] for name, found in columns.items()} for key in SHOWN},
        **{f"repeated_{side}_rows": count for side, count in repeated.items()},
        "left_out": dict(schema.left_out),
        "warnings": len(findings),
        "findings": findings,
    }
    with replacing(quality) as file, replacing(page) as text:
        write_json(file, figures)
        written = _page(source, figures, schema, columns)
        text.write_text(written, encoding="utf-8", newline="\n")


def _figures(
    column: Column, train: Rows, validation: Rows, test: Rows, classes: int
) -> dict[str, float]:
    """Return the figures of a column; of a date, those of its days."""
    name = column.features[0]
    values = train.features[name]
    fine, coarse = _binning(values, FINE), _binning(values, COARSE)
    learnt, judged = fine(values), fine(validation.features[name])
    absent = values.eq("") if column.kind == "category" else values.isna()
    return {
        "missing": float(absent.mean()),
        "distinct": values[~absent].nunique(),
        "outliers": _outliers(values.to_numpy()) if column.kind == "number" else 0.0,
        "auc": _auc(learnt, train.labels, judged, validation.labels, classes),
        "drift": _drift(coarse(values), coarse(test.features[name])),
    }


def _binning(values: pd.Series, most: int) -> Callable[[pd.Series], Integers]:
    """Return what numbers the parts of a column: values of a category, or ``most`` ranges."""
    if values.dtype != np.float64:
        places = {value: k for k, value in enumerate(values.value_counts().index[:VALUES], 1)}
        return lambda other: other.map(places).fillna(0).to_numpy(np.int64)
    there = values.dropna()
    edges = np.unique(np.quantile(there, np.linspace(0, 1, most + 1)[1:-1]) if len(there) else [])
    return lambda other: np.where(
        other.isna(), 0, 1 + np.searchsorted(edges, other.to_numpy(), side="right")
    )


def _auc(
    learnt: Integers, labels: Integers, judged: Integers, truth: Integers, classes: int
) -> float:
    """Return how well one column tells the label: the ROC AUC of the shares in each of its parts.

    The shares are of the training rows, and are judged on the validation rows; of more than two
    classes, the mean over them.
    """
    parts = int(max(learnt.max(), judged.max())) + 1
    table = np.zeros((parts, classes))
    np.add.at(table, (learnt, labels), 1)
    whole = np.bincount(labels, minlength=classes) / len(labels)
    shares = (table + whole) / (table.sum(axis=1, keepdims=True) + 1)
    scores = shares[judged]
    aucs = [roc_auc_score(truth == k, scores[:, k]) for k in range(1 if classes == 2 else classes)]
    return float(np.mean(aucs))


def _drift(before: Integers, after: Integers) -> float:
    """Return the population stability index between the parts of two sides.

    Source: Siddiqi, Credit Risk Scorecards, 2006, chapter 6.
    """
    parts = int(max(before.max(), after.max())) + 1
    counts = (np.bincount(part, minlength=parts) / len(part) for part in (before, after))
    p, q = (np.maximum(shares, LEAST) for shares in counts)
    return float(((p - q) * np.log(p / q)).sum())


def _outliers(values: npt.NDArray[np.float64]) -> float:
    there = values[~np.isnan(values)]
    low, high = np.quantile(there, [0.25, 0.75]) if len(there) else (0.0, 0.0)
    far = FAR * (high - low)
    return float(((there < low - far) | (there > high + far)).mean()) if len(there) else 0.0


def _repeated(rows: Rows, *others: Rows) -> int:
    """Count the rows whose columns all equal those of a row of another side."""
    hashes, *known = (
        pd.util.hash_pandas_object(side.features, index=False) for side in (rows, *others)
    )
    return int(hashes.isin(pd.concat(known)).sum())


def _findings(
    columns: Mapping[str, Mapping[str, float]],
    classes: Mapping[str, int],
    max_missing: float,
    max_imbalance: float,
) -> list[Finding]:
    found: list[Finding] = []
    largest, smallest = max(classes, key=classes.__getitem__), min(classes, key=classes.__getitem__)
    if (times := classes[largest] / classes[smallest]) > max_imbalance:
        found.append(
            {"code": "imbalance", "largest": largest, "smallest": smallest, "times": times}
        )
    for name, figures in columns.items():
        if figures["missing"] > max_missing:
            found.append({"code": "missing", "column": name, "share": figures["missing"]})
    return found


def _page(
    source: list[str],
    figures: Mapping[str, Any],
    schema: Schema,
    columns: Mapping[str, Mapping[str, float]],
) -> str:
    places = ", ".join(markdown.code(markdown.public(place)) for place in source)
    lines = ["# The table", ""]
    lines += [f"{figures['rows']} rows came in from {places}, {figures['kept']} were kept.", ""]
    if figures["findings"]:
        said = [f"- {markdown.plain(sentence(finding))}" for finding in figures["findings"]]
        lines += ["## What to look at", "", *said, ""]
    dropped = {reason: count for reason, count in figures["dropped"].items() if count}
    for head, title, counts in (
        ("reason", "Dropped", dropped),
        ("label", "Labels", figures["classes"]),
    ):
        if counts:
            most = max(counts.values())
            rows = [
                [markdown.code(name), str(count), "█" * round(BAR * count / most)]
                for name, count in counts.items()
            ]
            lines += [f"## {title}", "", markdown.table([head, "rows", ""], rows), ""]
    lines += [
        "## Columns",
        "",
        "Those that tell the label best stand first. *Tells the label* is the ROC AUC of this "
        "column alone on the validation rows, 0.5 for nothing; *drift* the population stability "
        f"index from training to test rows; an outlier is {FAR:g} times the distance of the "
        "quartiles beyond one.",
        "",
        markdown.table(
            ["column", "kind", "tells the label", "", "drift", "missing", "outliers", "values"],
            [
                _row(column, columns[column.name])
                for column in sorted(schema.columns, key=lambda one: -columns[one.name]["auc"])
            ],
        ),
        "",
    ]
    if schema.left_out:
        rows = [[markdown.code(name), markdown.plain(why)] for name, why in schema.left_out.items()]
        lines += ["## Left out", "", markdown.table(["column", "why"], rows), ""]
    return "\n".join(lines)


def _row(column: Column, figures: Mapping[str, float]) -> list[str]:
    values = f"{column.values}" if column.kind == "category" else ""
    if column.minimum is not None and column.maximum is not None:
        values = f"{column.minimum:g} to {column.maximum:g}"
    return [
        markdown.code(column.name),
        column.kind,
        f"{figures['auc']:.3f}",
        "█" * round(BAR * max(0.0, 2 * figures["auc"] - 1)),
        f"{figures['drift']:.2f}",
        f"{100 * figures['missing']:.1f} %",
        f"{100 * figures['outliers']:.1f} %" if column.kind == "number" else "",
        values,
    ]


if __name__ == "__main__":
    stage.run(main)
