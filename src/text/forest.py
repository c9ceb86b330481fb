"""A random forest whose probabilities can be trusted."""

from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier

from src.metrics.classification import Floats


class Forest(RandomForestClassifier):  # type: ignore[misc]  # scikit-learn has no types
    """scikit-learn's forest, with logits: the logarithms of its shares, over a temperature.

    The mean of the trees' shares is far less sure than it is right, as each has seen other texts
    and features. Each class has half a tree's vote more, so that none has no chance; the order of
    the classes stays.
    """

    temperature_ = 1.0

    @property
    def half_vote(self) -> float:
        """Half of what one tree adds to a share."""
        return float(0.5 / self.n_estimators)

    def logits(self, features: Any) -> Floats:
        """Return the logits of texts: [texts, classes]."""
        shares = super().predict_proba(features)
        logits: Floats = np.log(shares + self.half_vote) / self.temperature_
        return logits

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803, scikit-learn's name
        """Return the probabilities of texts: [texts, classes]."""
        probabilities: Floats = softmax(self.logits(X), axis=1)
        return probabilities
