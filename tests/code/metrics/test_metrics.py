"""The figures, against values worked out by hand or by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import f1_score

from src.metrics import bootstrap, classification

LABELS = np.array([0, 0, 1, 1])
PROBABILITIES = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]])


def test_summary_by_hand() -> None:
    found = classification.summary(LABELS, PROBABILITIES)
    assert found["accuracy"] == 0.75
    assert found["macro_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["weighted_f1"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.4, 0.8, 0.7]).mean())
    # Bins of 1/15: 0.6 (wrong), 0.7, 0.8 and 0.9 (right) are each alone in theirs.
    assert found["ece"] == pytest.approx((0.6 + 0.3 + 0.2 + 0.1) / 4)


def test_a_sure_and_correct_model_is_calibrated() -> None:
    assert classification.expected_calibration_error(LABELS, np.eye(2)[LABELS]) == 0


def test_by_class() -> None:
    found = classification.by_class(LABELS, PROBABILITIES.argmax(axis=1), ["no", "yes"])
    assert found["no"] == {"precision": 1, "recall": 0.5, "f1": pytest.approx(2 / 3), "texts": 2}
    assert found["yes"] == {"precision": pytest.approx(2 / 3), "recall": 1, "f1": 0.8, "texts": 2}


def test_bootstrap_resamples_the_same_texts_for_each_model() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(3, size=300)
    good = np.where(draw.random(300) < 0.9, labels, (labels + 1) % 3)
    scores = bootstrap.bootstrap(labels, [good, good.copy(), labels], 3, 500, seed=1)
    assert (scores["accuracy"][0] == scores["accuracy"][1]).all()
    assert (scores["macro_f1"][2] == 1).all()
    low, high = bootstrap.interval(scores["accuracy"][0], 0.95)
    accuracy = (good == labels).mean()
    # The normal approximation of the interval, which the percentiles come near.
    half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 300)
    assert (low, high) == pytest.approx((accuracy - half, accuracy + half), abs=0.01)
    f1 = f1_score(labels, good, average="macro")
    assert scores["macro_f1"][0].mean() == pytest.approx(f1, abs=0.01)


def test_p_value() -> None:
    assert bootstrap.p_value(np.full(999, 0.1)) == pytest.approx(0.002)
    assert bootstrap.p_value(np.full(999, -0.1)) == pytest.approx(0.002)
    assert bootstrap.p_value(np.array([-1.0, 1.0] * 50)) == pytest.approx(1, abs=0.02)
    assert bootstrap.p_value(np.zeros(9)) == 1
