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

from src.metrics.classification import (
    ECE_BINS,
    Floats,
    Integers,
    confidence_bins,
    expected_calibration_error,
)

RANKING = ("average_precision", "roc_auc")
SURE = ("log_loss", "brier", "ece")
DECIDED = ("balanced_accuracy", "precision", "recall", "f1", "mcc")


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


def measured(drawn: Floats) -> Floats:
    """Return the figures of draws that have every label; none where most lack one, as rare ones."""
    there = drawn[~np.isnan(drawn)]
    return there if 2 * len(there) >= len(drawn) else there[:0]


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
    *,
    costs: Floats | None = None,
    review_rows: int = 0,
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
        costs: of a row, by its true class and the one that is decided for; None for no "cost".
        review_rows: rows of the highest scores that are looked at; 0 for no
            "precision_of_reviewed". It needs a positive class.

    Returns:
        Each of ``RANKING``, ``SURE`` and ``DECIDED``, of shape [models, resamples]; and "cost" and
        "precision_of_reviewed" where they are asked for.
    """
    random = np.random.default_rng(seed)
    judges = [
        _Judge(labels, shares, decided, positive, costs, review_rows)
        for shares, decided in zip(probabilities, predicted, strict=True)
    ]
    names = [*RANKING, *SURE, *DECIDED]
    names += ["cost"] * (costs is not None) + ["precision_of_reviewed"] * (review_rows > 0)
    scores = {name: np.empty((len(judges), resamples)) for name in names}
    for resample in range(resamples):
        drawn = random.integers(len(labels), size=len(labels))
        weights = np.bincount(drawn, minlength=len(labels))
        for model, judge in enumerate(judges):
            for name, figure in judge.figures(weights).items():
                scores[name][model, resample] = figure
    return scores


class _Judge:
    """What of a model's rows is worked out once for all draws."""

    def __init__(
        self,
        labels: Integers,
        probabilities: Floats,
        predicted: Integers,
        positive: int | None,
        costs: Floats | None,
        review_rows: int,
    ) -> None:
        self._classes = probabilities.shape[1]
        self._positive, self._costs, self._review_rows = positive, costs, review_rows
        wanted = range(self._classes) if positive is None else [positive]
        self._orders = [_Order(labels == k, probabilities[:, k]) for k in wanted]
        self._cells = labels * self._classes + predicted
        rows, eps = np.arange(len(labels)), np.finfo(np.float64).eps
        self._surprise = -np.log(np.clip(probabilities[rows, labels], eps, 1 - eps))
        self._square = ((probabilities - np.eye(self._classes)[labels]) ** 2).sum(axis=1)
        if self._classes == 2:
            self._square /= 2
        self._bins, self._gaps = confidence_bins(labels, probabilities)

    def figures(self, weights: Integers) -> dict[str, float]:
        """Return the figures of rows drawn so often, [rows]."""
        drawn = [order.drawn(weights) for order in self._orders]
        rows, shape = weights.sum(), (self._classes, self._classes)
        gaps = np.bincount(self._bins, weights * self._gaps, ECE_BINS)
        counts = np.bincount(self._cells, weights, self._classes**2).reshape(shape)
        found = dict(zip(RANKING, np.mean([_ranked(*one) for one in drawn], axis=0), strict=True))
        sure = (weights @ self._surprise, weights @ self._square, np.abs(gaps).sum())
        found |= {name: total / rows for name, total in zip(SURE, sure, strict=True)}
        found |= dict(zip(DECIDED, _decided(counts, self._positive), strict=True))
        if self._costs is not None:
            found["cost"] = (counts * self._costs).sum() / rows
        if self._review_rows:
            found["precision_of_reviewed"] = _of_first(*drawn[0], min(self._review_rows, rows))
        return found


class _Order:
    """Rows from the highest score down, which are sorted once for all draws."""

    def __init__(self, truth: np.ndarray, scores: Floats) -> None:
        self._rows = np.argsort(-scores, kind="stable")
        ordered = scores[self._rows]
        self._ends = np.flatnonzero(np.append(np.diff(ordered) != 0, True))  # of equal scores
        self._truth = truth[self._rows]

    def drawn(self, weights: Integers) -> tuple[Floats, Floats]:
        """Return the positives and all rows from the top down to each score, drawn so often."""
        drawn = weights[self._rows]
        hits = np.cumsum(drawn * self._truth)[self._ends].astype(float)
        return hits, np.cumsum(drawn)[self._ends].astype(float)


def _ranked(hits: Floats, taken: Floats) -> tuple[float, float]:
    """Return average precision and the area under the ROC curve; NaN where a class has no row."""
    misses = taken - hits
    if not hits[-1] or not misses[-1]:
        return np.nan, np.nan
    new = np.diff(hits, prepend=0.0)
    average_precision = (new * hits / np.maximum(taken, 1)).sum() / hits[-1]
    wide = np.diff(misses, prepend=0.0)
    area = (wide * (hits - new / 2)).sum() / (hits[-1] * misses[-1])
    return float(average_precision), float(area)


def _of_first(hits: Floats, taken: Floats, rows: int) -> float:
    """Return the share of positives among the first rows, as ``precision_of_first``."""
    end = int(np.searchsorted(taken, rows))  # the first score that takes so many
    above, hits_above = (taken[end - 1], hits[end - 1]) if end else (0.0, 0.0)
    share = (hits[end] - hits_above) / (taken[end] - above)
    return float((hits_above + (rows - above) * share) / rows)


def _decided(counts: npt.NDArray[Any], positive: int | None) -> tuple[float, ...]:
    """Read each of ``DECIDED`` from a confusion matrix [true, predicted].

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
    # Source of the last: Gorodkin, Comparing two K-category assignments by a K-category correlation
    # coefficient, Computational Biology and Chemistry 28, 2004.
    rows = counts.sum()
    spread = (rows**2 - (said**2).sum()) * (rows**2 - (true**2).sum())
    mcc = (hits.sum() * rows - said @ true) / np.sqrt(spread) if spread else 0.0
    return float(recalls.mean()), float(precision), float(recall), float(f1), float(mcc)
