"""Judge one model on the test split."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from dvclive.live import Live
from sklearn.inspection import permutation_importance
from sklearn.metrics import precision_recall_curve

from src.core import stage
from src.core.command_line import Count, Natural, Seed, Share
from src.core.errors import InputError, closest
from src.core.files import replacing, write_json
from src.metrics import bootstrap, classification, imbalance
from src.metrics.classification import Floats, Integers
from src.tables import examples
from src.tables.schema import Schema
from src.tabular import features, models
from src.tabular.decision import Decision
from src.tabular.features import Rows

POINTS = 500  # of the curve over thresholds

log = logging.getLogger("src.tabular.evaluate")


@dataclass(frozen=True)
class Judged:
    """A model at work on rows."""

    rows: Rows
    probabilities: Floats  # calibrated, [rows, classes]
    decided: Integers  # [rows]
    names: list[str]
    positive: int | None
    decision: Decision

    def figures(self, review_rows: int) -> dict[str, float]:
        """Return all figures; see ``metrics.imbalance``."""
        labels, positive = self.rows.labels, self.positive
        found = imbalance.ranking(labels, self.probabilities, positive)
        found |= imbalance.decided(labels, self.decided, positive)
        if positive is not None:
            found["cost"] = self.decision.cost(labels, self.decided, positive)
            found["precision_of_reviewed"] = imbalance.precision_of_first(
                labels == positive, self.probabilities[:, positive], review_rows
            )
        return found

    def only(self, chosen: np.ndarray) -> "Judged":
        """Return some of the rows."""
        rows = Rows(
            [self.rows.ids[k] for k in chosen],
            self.rows.labels[chosen],
            self.rows.features.iloc[chosen],
        )
        further = (self.names, self.positive, self.decision)
        return Judged(rows, self.probabilities[chosen], self.decided[chosen], *further)


def main(
    splits: Path,
    model: Path,
    decided: Path,
    predictions: Path,
    live: Path,
    *,
    slices: list[str],
    review_rows: Count,
    importance_rows: Natural,
    importance_repeats: Count,
    resamples: Count,
    confidence: Share,
    seed: Seed,
) -> None:
    """Score the test split, and write predictions, metrics and plots.

    Args:
        splits: the folder with the split, ``schema.json`` and ``labels.json``.
        model: the folder with ``model.joblib``.
        decided: what ``decide`` made of its probabilities.
        predictions: the folder that gets ``predictions.parquet``: id, label, predicted, and the
            probability of each label.
        live: the folder that gets ``metrics.json``, ``details.json`` by class and slice, and plots.
    """
    schema, names = Schema.read(splits / "schema.json"), examples.read_labels(splits)
    pipeline, decision = models.load(model, names), Decision.read(decided)
    positive = schema.positive_of(names)

    def judge(side: examples.Split) -> Judged:
        rows = features.read(splits, side, schema, names)
        probabilities = decision.calibrated(pipeline.predict_proba(rows.features))
        labels = decision.labels(probabilities, positive)
        return Judged(rows, probabilities, labels, names, positive, decision)

    test = judge("test")
    _expect_columns(slices, test.rows.features)
    figures = test.figures(review_rows)
    figures |= _intervals(test, figures, review_rows, resamples, confidence, seed)
    size = sum(path.stat().st_size for path in model.rglob("*") if path.is_file())
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        validation = judge("validation").figures(review_rows)
        for split, found in (("test", figures), ("validation", validation)):
            for name, figure in found.items():
                record.log_metric(f"{split}/{name}", figure, plot=False)
        record.log_metric("bytes", size, plot=False)
        _plot(record, test)
        if importance_rows:
            _plot_importance(record, pipeline, test, importance_rows, importance_repeats, seed)
    write_json(live / "details.json", _details(test, slices, review_rows))
    with replacing(predictions) as folder:
        folder.mkdir()
        frame = pd.DataFrame({"id": test.rows.ids, "label": [names[k] for k in test.rows.labels]})
        frame["predicted"] = [names[k] for k in test.decided]
        for k, name in enumerate(names):
            frame[f"p_{name}"] = test.probabilities[:, k]
        examples.write(frame, folder / "predictions.parquet")


def _expect_columns(slices: list[str], frame: pd.DataFrame) -> None:
    known = [*map(str, frame)]
    for column in slices:
        if column not in known:
            raise InputError(
                f"evaluate.slices has {column!r}, which no model reads: choose among "
                f"{', '.join(known)}{closest(column, known)}."
            )


def _intervals(
    test: Judged,
    figures: Mapping[str, float],
    review_rows: int,
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, float]:
    """Return the ends of the interval of each figure, but for those that most draws lack.

    The calibration error is a sum of distances, which drawing anew only makes longer, so its
    interval is the basic one, turned about the figure; the others' are of percentiles. Source:
    Davison and Hinkley, Bootstrap Methods and their Application, 1997, sections 5.2 and 5.3.
    """
    positive = test.positive
    scores = imbalance.resampled(
        test.rows.labels,
        [test.probabilities],
        [test.decided],
        positive,
        resamples,
        seed,
        costs=None if positive is None else test.decision.costs(positive),
        review_rows=0 if positive is None else review_rows,
    )
    found: dict[str, float] = {}
    for name, drawn in scores.items():
        measured = imbalance.measured(drawn[0])
        if not len(measured):
            log.warning("%s has no interval, as a label has too few test rows", name)
            continue
        low, high = bootstrap.interval(measured, confidence)
        if name == "ece":
            low, high = (max(0.0, 2 * figures[name] - end) for end in (high, low))
        found |= {f"{name}_low": low, f"{name}_high": high}
        log.info("%s, %g%% between %.4f and %.4f", name, 100 * confidence, low, high)
    return found


def _details(test: Judged, slices: list[str], review_rows: int) -> dict[str, Any]:
    by_slice: dict[str, Mapping[str, Mapping[str, float]]] = {}
    for column in slices:
        values = test.rows.features[column]
        if values.dtype == float and values.nunique() > 10:
            values = pd.qcut(values, 5, duplicates="drop").astype(str).where(values.notna())
        values = values.astype(object).replace("", "(none)").fillna("(none)")
        by_slice[column] = {
            str(value): test.only(np.asarray(chosen)).figures(review_rows) | {"rows": len(chosen)}
            for value, chosen in values.groupby(values).indices.items()
        }
    by_class = classification.by_class(test.rows.labels, test.decided, test.names)
    return {"classes": by_class, "slices": by_slice}


def _plot(record: Live, test: Judged) -> None:
    """Plot confusion, PR, ROC, reliability and, of two classes, what each threshold would give.

    Of more than two classes, PR and ROC are over all pairs of a row and a class.
    """
    labels, probabilities, positive = test.rows.labels, test.probabilities, test.positive
    truth, said = ([test.names[k] for k in each] for each in (labels, test.decided))
    record.log_sklearn_plot("confusion_matrix", truth, said, "confusion")
    if positive is None:
        is_class = np.eye(len(test.names), dtype=int)[labels].ravel()
        scores = probabilities.ravel()
    else:
        is_class, scores = (labels == positive).astype(int), probabilities[:, positive]
    # Four digits bound the points of a curve, however many rows there are.
    shown = np.array([float(f"{score:.4g}") for score in scores])
    record.log_sklearn_plot("precision_recall", is_class, shown, "precision_recall")
    record.log_sklearn_plot("roc", is_class, shown, "roc")
    record.log_sklearn_plot(
        "calibration", is_class, scores, "reliability", n_bins=10, strategy="quantile"
    )
    precision, recall, levels = precision_recall_curve(is_class, shown)
    chosen = np.unique(np.linspace(0, len(levels) - 1, min(POINTS, len(levels))).astype(int))
    curve = {"threshold": levels[chosen], "precision": precision[chosen], "recall": recall[chosen]}
    record.log_plot("thresholds", pd.DataFrame(curve), x="threshold", y=["precision", "recall"])


def _plot_importance(
    record: Live, pipeline: Any, test: Judged, rows: int, repeats: int, seed: int
) -> None:
    """Plot by how much average precision falls when the values of a feature are shuffled.

    Source: Breiman, Random Forests, Machine Learning 45, 2001, section 10.
    """
    random = np.random.default_rng(seed)
    common = np.flatnonzero(test.rows.labels != test.positive)
    rare = np.flatnonzero(test.rows.labels == test.positive)[: rows // 2]
    drawn = random.permutation(common)[: max(0, rows - len(rare))]
    chosen = np.sort(np.concatenate([rare, drawn]))
    frame, labels = test.rows.features.iloc[chosen], test.rows.labels[chosen]

    def score(model: Any, features: pd.DataFrame, truth: Integers) -> float:
        found = imbalance.order(truth, model.predict_proba(features), test.positive)
        return found["average_precision"]

    if len(np.unique(labels)) < len(test.names):
        log.warning("importance is not told, for a class has no row among evaluate.importance_rows")
        return
    found = permutation_importance(
        pipeline, frame, labels, scoring=score, n_repeats=repeats, random_state=seed
    )
    order = np.argsort(-found.importances_mean, kind="stable")
    columns = pd.DataFrame(
        {
            "feature": [str(frame.columns[k]) for k in order],
            "importance": found.importances_mean[order],
            "spread": found.importances_std[order],
        }
    )
    record.log_plot("importance", columns, x="importance", y="feature", template="bar_horizontal")


if __name__ == "__main__":
    stage.run(main)
