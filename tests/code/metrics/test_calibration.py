"""A temperature makes probabilities as often right as they say."""

import numpy as np
import pytest
from scipy.special import softmax

from src.metrics.calibration import temperature


def drawn(texts: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels that are drawn by their probabilities."""
    random = np.random.default_rng(0)
    logits = random.normal(scale=2, size=(texts, classes))
    labels = [random.choice(classes, p=row) for row in softmax(logits, axis=1)]
    return np.array(labels), logits


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("factor", [0.1, 1, 7])
def test_the_factor_that_logits_are_too_large_by_is_found(classes: int, factor: float) -> None:
    labels, logits = drawn(5000, classes)
    assert temperature(labels, factor * logits) == pytest.approx(factor, rel=0.1)


def test_a_class_may_have_no_text() -> None:
    labels, logits = drawn(5000, 4)
    kept = labels != 2
    assert 0.5 < temperature(labels[kept], logits[kept]) < 1.5


@pytest.mark.parametrize(("texts", "most"), [(10, 0.99), (1000, 0.9999)])
def test_no_mistake_makes_no_certainty(texts: int, most: float) -> None:
    labels = np.arange(texts) % 2
    logits = np.eye(2)[labels]
    sure = softmax(logits / temperature(labels, logits), axis=1).max()
    assert 0.9 < sure < most, "one more text is taken to be wrong"
