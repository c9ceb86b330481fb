"""What comes of giving no label to texts that a model is not sure of.

Throughout, ``scores`` is a float64 array of shape [texts], the probability of the label that each
text was given, and ``right`` a boolean array of shape [texts], whether that is its true label.
"""

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from src.metrics.classification import Floats

Booleans = npt.NDArray[np.bool_]


def risk_coverage(right: Booleans, scores: Floats) -> tuple[Floats, Floats, Floats]:
    """Return what becomes of each score as the least one for an answer, from the highest down.

    Returns:
        The score, the share of the texts that are answered (coverage), and the share of these
        answers that is wrong (risk), each of shape [scores that differ].

    Source: El-Yaniv and Wiener, On the Foundations of Noise-free Selective Classification, JMLR
    11, 2010.
    """
    levels, group = np.unique(-scores, return_inverse=True)
    answered = np.bincount(group).cumsum()
    wrong = np.bincount(group, weights=~right).cumsum()
    return -levels, answered / len(scores), wrong / answered


def area_under_risk_coverage(right: Booleans, scores: Floats) -> float:
    """Return the mean risk over all coverages; a model that is never wrong has 0.

    Source: Geifman, Uziel and El-Yaniv, Bias-Reduced Uncertainty Estimation for Deep Neural
    Classifiers, ICLR 2019.
    """
    _, coverage, risk = risk_coverage(right, scores)
    return float((np.diff(coverage, prepend=0.0) * risk).sum())


def separation(known: Floats, unknown: Floats) -> float:
    """Return how often a text of a known class has a higher score than one of none of them.

    It is the area under the ROC curve (AUROC): 1 if scores tell both apart, 0.5 if by chance alone.

    Args:
        known: the scores of texts of the classes, [texts].
        unknown: the scores of texts of other classes, [texts].

    Source: Hendrycks and Gimpel, A Baseline for Detecting Misclassified and Out-of-Distribution
    Examples in Neural Networks, ICLR 2017.
    """
    is_known = np.repeat([1, 0], [len(known), len(unknown)])
    return float(roc_auc_score(is_known, np.concatenate([known, unknown])))
