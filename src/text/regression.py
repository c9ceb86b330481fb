"""The weights of a logistic regression."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from src.metrics.classification import Floats


def weights_of(model: LogisticRegression) -> tuple[Floats, Floats]:
    """Return the weights [classes, features] and biases [classes] that give the logits.

    scikit-learn has one row for two classes, the logit of the second minus that of the first.
    """
    weight, bias = model.coef_, model.intercept_
    if len(model.classes_) > 2:
        return weight, bias
    return np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
