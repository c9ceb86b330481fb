"""Probabilities that are as often right as they say."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from src.metrics.classification import Floats, Integers

WIDEST = 5.0  # of the logarithm of a temperature, above and below 0


def temperature(labels: Integers, logits: Floats) -> float:
    """Return what to divide logits by for the least log loss, as if one text more had been wrong.

    Without that text a split that has no mistakes would make the classifier certain of all it says.
    The order of a text's classes stays.

    Args:
        labels: the class of each text, [texts].
        logits: [texts, classes], at least two classes.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    texts = np.arange(len(labels))
    wrong = logits.copy()
    wrong[texts, labels] = -np.inf
    nearest = wrong.argmax(axis=1)

    def loss(logarithm: float) -> float:
        found = log_softmax(logits / np.exp(logarithm), axis=1)
        return float(-found[texts, labels].sum() - found[texts, nearest].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-WIDEST, WIDEST), method="bounded").x))
