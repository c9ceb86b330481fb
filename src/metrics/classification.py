"""Figures that a classifier is judged by.

Throughout, ``labels`` is an integer array of shape [texts], and ``probabilities`` a float64 array
of shape [texts, classes] whose rows sum to 1; class k is the k-th name in ``labels.json``.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_recall_fscore_support

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

ECE_BINS = 15  # as many as in the paper


def summary(labels: Integers, probabilities: Floats) -> dict[str, float]:
    """Return accuracy, macro and weighted F1, log loss in nats and expected calibration error."""
    predicted = probabilities.argmax(axis=1)
    classes = range(probabilities.shape[1])
    return {
        "accuracy": float(accuracy_score(labels, predicted)),
        "macro_f1": float(f1_score(labels, predicted, average="macro")),
        "weighted_f1": float(f1_score(labels, predicted, average="weighted")),
        "log_loss": float(log_loss(labels, probabilities, labels=classes)),
        "ece": expected_calibration_error(labels, probabilities),
    }


def by_class(
    labels: Integers, predicted: Integers, names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return precision, recall, F1 and the number of texts of each class, by its name."""
    scores = precision_recall_fscore_support(
        labels, predicted, labels=range(len(names)), zero_division=0.0
    )
    keys = ("precision", "recall", "f1", "texts")
    return {
        name: dict(zip(keys, map(float, column), strict=True))
        for name, column in zip(names, zip(*scores, strict=True), strict=True)
    }


def expected_calibration_error(labels: Integers, probabilities: Floats) -> float:
    """Return the mean distance of confidence from accuracy, weighted over equal bins of confidence.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """
    bins, gaps = confidence_bins(labels, probabilities)
    sums = np.bincount(bins, weights=gaps, minlength=ECE_BINS)
    return float(np.abs(sums).sum() / len(labels))


def confidence_bins(labels: Integers, probabilities: Floats) -> tuple[Integers, Floats]:
    """Return in which of ``ECE_BINS`` each row is, and how far its confidence is from the truth."""
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    return bins, correct - confidence
