"""The figures that a classifier is judged by.

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


def softmax(logits: npt.NDArray[np.floating]) -> Floats:
    """Probabilities from logits of shape [texts, classes]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    result: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def summary(labels: Integers, probabilities: Floats) -> dict[str, float]:
    """Accuracy, macro and weighted F1, log loss in nats and expected calibration error."""
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
    """Precision, recall, F1 and the number of texts of each class, by its name."""
    scores = precision_recall_fscore_support(
        labels, predicted, labels=range(len(names)), zero_division=0.0
    )
    keys = ("precision", "recall", "f1", "texts")
    return {
        name: dict(zip(keys, map(float, column), strict=True))
        for name, column in zip(names, zip(*scores, strict=True), strict=True)
    }


def expected_calibration_error(labels: Integers, probabilities: Floats) -> float:
    """Mean distance of confidence from accuracy, weighted over equal bins of confidence.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
    """
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def bootstrap(
    labels: Integers, predictions: Sequence[Integers], classes: int, resamples: int, seed: int
) -> dict[str, Floats]:
    """Accuracy and macro F1 of several models on the same resampled texts.

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
    """The percentile interval of resampled scores that holds a share ``confidence`` of them."""
    low, high = np.quantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def p_value(differences: Floats) -> float:
    """Two-sided p-value of resampled differences for "there is no difference"."""
    below = (np.count_nonzero(differences <= 0) + 1) / (len(differences) + 1)
    above = (np.count_nonzero(differences >= 0) + 1) / (len(differences) + 1)
    return float(min(1.0, 2 * min(below, above)))


def _accuracy_and_macro_f1(counts: Integers) -> tuple[float, float]:
    """From a confusion matrix [true, predicted]; a class that is in neither does not count."""
    hits = counts.diagonal()
    sizes = counts.sum(axis=0) + counts.sum(axis=1)
    seen = sizes > 0
    return float(hits.sum() / counts.sum()), float((2 * hits[seen] / sizes[seen]).mean())
