"""Intervals and p-values of figures, by drawing the test texts anew.

``labels`` is an integer array of shape [texts], as in ``metrics.classification``.
"""

from collections.abc import Sequence

import numpy as np

from src.metrics.classification import Floats, Integers


def bootstrap(
    labels: Integers, predictions: Sequence[Integers], classes: int, resamples: int, seed: int
) -> dict[str, Floats]:
    """Resample the test texts, and return accuracy and macro F1 of several models on them.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

    Args:
        labels: the true classes.
        predictions: the classes that each model predicts, in the order of ``labels``.
        classes: their number.
        resamples: how often the texts are drawn anew, with replacement.
        seed: of the draws; equal seeds draw equal texts.

    Returns:
        "accuracy" and "macro_f1", each of shape [models, resamples].
    """
    random = np.random.default_rng(seed)
    cells = [labels * classes + predicted for predicted in predictions]
    scores = np.empty((2, len(predictions), resamples))
    for resample in range(resamples):
        drawn = random.integers(len(labels), size=len(labels))
        for model, cell in enumerate(cells):
            counts = np.bincount(cell[drawn], minlength=classes**2).reshape(classes, classes)
            scores[:, model, resample] = _accuracy_and_macro_f1(counts)
    return {"accuracy": scores[0], "macro_f1": scores[1]}


def interval(scores: Floats, confidence: float) -> tuple[float, float]:
    """Return the percentile interval that holds a share ``confidence`` of resampled scores."""
    low, high = np.quantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def p_value(differences: Floats) -> float:
    """Return the two-sided p-value of resampled differences for "there is no difference"."""
    below = (np.count_nonzero(differences <= 0) + 1) / (len(differences) + 1)
    above = (np.count_nonzero(differences >= 0) + 1) / (len(differences) + 1)
    return float(min(1.0, 2 * min(below, above)))


def _accuracy_and_macro_f1(counts: Integers) -> tuple[float, float]:
    """Read both from a confusion matrix [true, predicted]; a class in neither does not count."""
    hits = counts.diagonal()
    sizes = counts.sum(axis=0) + counts.sum(axis=1)
    seen = sizes > 0
    return float(hits.sum() / counts.sum()), float((2 * hits[seen] / sizes[seen]).mean())
