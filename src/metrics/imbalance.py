"""Figures of a classifier whose classes are of unequal size, such as frauds among payments.

Throughout, ``labels`` is an integer array of shape [rows], ``probabilities`` a float64 array of
shape [rows, classes] whose rows sum to 1, and ``positive`` the class that is looked for: None where
there are more than two, whose figures are then the means over the classes (macro).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    log_loss,
    matthews_corrcoef,
    precision_recall_fscore_support,
    roc_auc_score,
)

from src.metrics.classification import Floats, Integers, expected_calibration_error

RANKING = ("average_precision", "roc_auc")
DECIDED = ("balanced_accuracy", "precision", "recall", "f1")


def ranking(labels: Integers, probabilities: Floats, positive: int | None) -> dict[str, float]:
    """Return what holds whatever the threshold: how well rows are ordered, and how sure they are.

    These are average precision, area under the ROC curve, log loss in nats, Brier score (of two
    classes, half the sum over both) and expected calibration error. The first two are left out
    where one class has no row.
    """
    classes = range(probabilities.shape[1])
    return order(labels, probabilities, positive) | {
        "log_loss": float(log_loss(labels, probabilities, labels=classes)),
        "brier": float(brier_score_loss(labels, probabilities, labels=classes)),
        "ece": expected_calibration_error(labels, probabilities),
    }


def order(labels: Integers, probabilities: Floats, positive: int | None) -> dict[str, float]:
    """Return each of ``RANKING``; nothing where one class has no row."""
    classes = range(probabilities.shape[1])
    if not all((labels == k).any() for k in classes):
        return {}
    wanted, scores = classes if positive is None else [positive], {}
    for name, score in zip(RANKING, (average_precision_score, roc_auc_score), strict=True):
        found = [score(labels == k, probabilities[:, k]) for k in wanted]
        scores[name] = float(np.mean(found))
    return scores


def decided(labels: Integers, predicted: Integers, positive: int | None) -> dict[str, float]:
    """Return balanced accuracy, precision, recall, F1 and Matthews correlation of the decisions."""
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels,
        predicted,
        labels=None if positive is None else [positive],
        average="macro",
        zero_division=0.0,
    )
    return {
        "balanced_accuracy": float(balanced_accuracy_score(labels, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "mcc": float(matthews_corrcoef(labels, predicted)),
    }


def precision_of_first(is_positive: Sequence[bool] | Integers, scores: Floats, rows: int) -> float:
    """Return the share of positives among the rows of the highest scores, as many as are reviewed.

    Rows that tie at the border count by their share of positives.
    """
    truth = np.asarray(is_positive, float)
    rows = min(rows, len(scores))
    border = np.sort(scores)[::-1][rows - 1]
    above, at = scores > border, scores == border
    return float((truth[above].sum() + (rows - above.sum()) * truth[at].mean()) / rows)


def resampled(
    labels: Integers,
    probabilities: Sequence[Floats],
    predicted: Sequence[Integers],
    positive: int | None,
    resamples: int,
    seed: int,
) -> dict[str, Floats]:
    """Draw the rows anew, and return figures of several models on them.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Args:
        labels: the true classes.
        probabilities: those of each model, in the order of ``labels``.
        predicted: the classes that each model decides for.
        positive: the class that is looked for, or None.
        resamples: how often the rows are drawn anew, with replacement.
        seed: of the draws; equal seeds draw equal rows.

    Returns:
        Each of ``RANKING`` and ``DECIDED``, of shape [models, resamples].
    """
    random = np.random.default_rng(seed)
    classes = probabilities[0].shape[1]
    wanted = range(classes) if positive is None else [positive]
    orders = [[_Order(labels == k, p[:, k]) for k in wanted] for p in probabilities]
    cells = [labels * classes + each for each in predicted]
    scores = {name: np.empty((len(cells), resamples)) for name in (*RANKING, *DECIDED)}
    for resample in range(resamples):
        drawn = random.integers(len(labels), size=len(labels))
        weights = np.bincount(drawn, minlength=len(labels))
        for model, (cell, order) in enumerate(zip(cells, orders, strict=True)):
            found = np.mean([one.scores(weights) for one in order], axis=0)
            counts = np.bincount(cell, weights, classes**2).reshape(classes, classes)
            figures = (*found, *_decided(counts, positive))
            for name, figure in zip(scores, figures, strict=True):
                scores[name][model, resample] = figure
    return scores


class _Order:
    """Rows from the highest score down, which are sorted once for all draws."""

    def __init__(self, truth: np.ndarray, scores: Floats) -> None:
        self._rows = np.argsort(-scores, kind="stable")
        ordered = scores[self._rows]
        self._ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True))  # of equal scores
        self._truth = truth[self._rows]

    def scores(self, weights: Integers) -> tuple[float, float]:
        """Return average precision and the area under the ROC curve of rows drawn so often."""
        drawn = weights[self._rows]
        hits = np.cumsum(drawn * self._truth)[self._ends].astype(float)
        taken = np.cumsum(drawn)[self._ends].astype(float)
        misses = taken - hits
        if not hits[-1] or not misses[-1]:
            return np.nan, np.nan
        new = np.diff(hits, prepend=0.0)
        average_precision = (new * hits / np.maximum(taken, 1)).sum() / hits[-1]
        wide = np.diff(misses, prepend=0.0)
        area = (wide * (hits - new / 2)).sum() / (hits[-1] * misses[-1])
        return float(average_precision), float(area)


def _decided(counts: npt.NDArray[Any], positive: int | None) -> tuple[float, float, float, float]:
    """Read balanced accuracy, precision, recall and F1 from a confusion matrix [true, predicted].

    A class that no row has, or is decided to have, does not count.
    """
    hits, true, said = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    there = true > 0
    recalls = hits[there] / true[there]
    wanted = np.flatnonzero(there | (said > 0)) if positive is None else np.array([positive])
    precision, recall, f1 = (
        (hits[wanted] * factor / np.maximum(below[wanted], 1)).mean()
        for factor, below in ((1, said), (1, true), (2, said + true))
    )
    return float(recalls.mean()), float(precision), float(recall), float(f1)
