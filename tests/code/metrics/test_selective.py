"""What becomes of texts that get no label, counted by hand."""

import numpy as np
import pytest

from src.metrics.selective import area_under_risk_coverage, risk_coverage, separation

SCORES = np.array([0.9, 0.5, 0.9, 0.7, 0.6])
RIGHT = np.array([True, False, True, False, True])


def test_each_score_has_its_coverage_and_its_risk() -> None:
    scores, coverage, risk = risk_coverage(RIGHT, SCORES)
    assert scores.tolist() == [0.9, 0.7, 0.6, 0.5]
    assert coverage.tolist() == [0.4, 0.6, 0.8, 1.0]
    assert risk == pytest.approx([0, 1 / 3, 1 / 4, 2 / 5])
    whole = 0.2 * (1 / 3 + 1 / 4 + 2 / 5)
    assert area_under_risk_coverage(RIGHT, SCORES) == pytest.approx(whole)


def test_the_order_of_texts_of_one_score_does_not_matter() -> None:
    order = [2, 3, 0, 4, 1]
    found, other = (
        area_under_risk_coverage(right, scores)
        for right, scores in ((RIGHT, SCORES), (RIGHT[order], SCORES[order]))
    )
    assert found == other
    assert area_under_risk_coverage(RIGHT, np.full(5, 0.5)) == pytest.approx(2 / 5)
    assert area_under_risk_coverage(np.array([True]), np.array([0.3])) == 0


def test_scores_that_are_always_higher_separate_wholly() -> None:
    assert separation(np.array([0.8, 0.9]), np.array([0.1, 0.7, 0.2])) == 1
    assert separation(np.array([0.1]), np.array([0.7, 0.2])) == 0
    assert separation(np.array([0.5, 0.7]), np.array([0.5, 0.6])) == pytest.approx(2.5 / 4)
