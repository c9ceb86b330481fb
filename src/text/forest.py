"""A random forest whose probabilities can be trusted."""

from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier

from src.metrics.classification import Floats


class Forest(RandomForestClassifier):  # type: ignore[misc]  # scikit-learn has no types
    """scikit-learn's forest, with logits: the logarithms of its votes, over a temperature.

    Votes are far less sure than they are right, as each tree has seen other texts and features. A
    class that no tree votes for has half a vote.
    """

    temperature_ = 1.0

    @property
    def least(self) -> float:
        """The share of half a vote."""
        return float(0.5 / self.n_estimators)

    def logits(self, features: Any) -> Floats:
        """Return the logits of texts: [texts, classes]."""
        votes = super().predict_proba(features)
        logits: Floats = np.log(np.maximum(votes, self.least)) / self.temperature_
        return logits

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803, scikit-learn's name
        """Return the probabilities of texts: [texts, classes]."""
        probabilities: Floats = softmax(self.logits(X), axis=1)
        return probabilities
