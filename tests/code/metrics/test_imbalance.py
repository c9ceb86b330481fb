"""Figures of unequal classes, against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from src.metrics import imbalance


def drawn(rows: int = 400, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(1)
    labels = draw.choice(classes, rows, p=[0.9] + [0.1 / (classes - 1)] * (classes - 1))
    scores = draw.random((rows, classes)).round(1) + np.eye(classes)[labels] * 0.4
    return labels, scores / scores.sum(axis=1, keepdims=True)


def test_a_draw_has_the_figures_that_scikit_learn_gives_its_rows() -> None:
    labels, probabilities = drawn()
    predicted = (probabilities[:, 1] > 0.5).astype(int)
    costs = np.array([[0.0, 2.0], [30.0, 0.0]])
    found = imbalance.resampled(
        labels, [probabilities], [predicted], 1, 3, 7, costs=costs, review_rows=20
    )
    random = np.random.default_rng(7)
    for k in range(3):
        rows = random.integers(len(labels), size=len(labels))
        truth, scores = labels[rows], probabilities[rows, 1]
        assert found["average_precision"][0, k] == pytest.approx(
            average_precision_score(truth, scores)
        )
        assert found["roc_auc"][0, k] == pytest.approx(roc_auc_score(truth, scores))
        expected = imbalance.decided(truth, predicted[rows], 1)
        expected |= imbalance.ranking(truth, probabilities[rows], 1)
        expected["cost"] = costs[truth, predicted[rows]].mean()
        expected["precision_of_reviewed"] = imbalance.precision_of_first(truth, scores, 20)
        assert {*found} == {*expected}
        for name, figure in expected.items():
            assert found[name][0, k] == pytest.approx(figure), name


def test_several_classes_have_means_over_them() -> None:
    labels, probabilities = drawn(classes=3)
    predicted = probabilities.argmax(axis=1)
    found = imbalance.resampled(labels, [probabilities], [predicted], None, 2, 7)
    rows = np.random.default_rng(7).integers(len(labels), size=len(labels))
    expected = imbalance.ranking(labels[rows], probabilities[rows], None)
    assert found["average_precision"][0, 0] == pytest.approx(expected["average_precision"])
    expected |= imbalance.decided(labels[rows], predicted[rows], None)
    assert {*found} == {*expected}
    for name, figure in expected.items():
        assert found[name][0, 0] == pytest.approx(figure), name


def test_figures_of_labels_that_most_draws_lack_are_none() -> None:
    labels = np.arange(30).repeat([200] * 2 + [1] * 28)
    probabilities = np.full((len(labels), 30), 1 / 30)
    found = imbalance.resampled(labels, [probabilities], [labels], None, 20, 7)
    assert len(imbalance.measured(found["roc_auc"][0])) == 0
    assert len(imbalance.measured(found["f1"][0])) == 20


def test_a_split_without_positives_has_no_ranking() -> None:
    found = imbalance.ranking(np.zeros(4, int), np.full((4, 2), 0.5), 1)
    assert "average_precision" not in found
    assert found["log_loss"] == pytest.approx(np.log(2))
    assert found["brier"] == pytest.approx(0.25)


def test_precision_of_the_reviewed_rows_shares_ties() -> None:
    truth = np.array([1, 0, 1, 0, 0])
    scores = np.array([0.9, 0.8, 0.5, 0.5, 0.1])
    assert imbalance.precision_of_first(truth, scores, 1) == 1.0
    assert imbalance.precision_of_first(truth, scores, 2) == 0.5
    assert imbalance.precision_of_first(truth, scores, 3) == pytest.approx(1.5 / 3)
    assert imbalance.precision_of_first(truth, scores, 99) == pytest.approx(2 / 5)
