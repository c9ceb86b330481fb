"""Calibration and thresholds."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import log_loss, precision_score, recall_score

from src.metrics.classification import Floats, Integers
from src.tabular import decision
from src.tabular.decision import Decision


def overconfident(rows: int = 4000, classes: int = 2) -> tuple[Integers, Floats]:
    """Labels, and probabilities that are surer than they are right."""
    draw = np.random.default_rng(3)
    logits = draw.normal(0, 1, (rows, classes)) - [0, *[1.5] * (classes - 1)]
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([draw.choice(classes, p=p) for p in true])
    sharp = np.exp(3 * logits)
    return labels, sharp / sharp.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_probabilities_become_as_often_right_as_they_say(
    classes: int, method: decision.Method, tmp_path: Path
) -> None:
    labels, raw = overconfident(classes=classes)
    curves = decision.fit(method, labels[:2000], raw[:2000])
    assert len(curves) == (1 if classes == 2 else 3)
    made = Decision(method, curves, 0.0, 1.0, 1.0)
    found = made.calibrated(raw[2000:])
    assert found.sum(axis=1) == pytest.approx(1)
    assert log_loss(labels[2000:], found) < 0.8 * log_loss(labels[2000:], raw[2000:])
    made.write(tmp_path / "d.json")
    again = Decision.read(tmp_path / "d.json")
    assert np.array_equal(again.calibrated(raw), made.calibrated(raw))


def test_none_leaves_them() -> None:
    labels, raw = overconfident(rows=50)
    assert decision.fit("none", labels, raw) == ()
    assert np.array_equal(Decision("none", (), 0.5, 1, 1).calibrated(raw), raw)


def chosen(
    rule: decision.Rule, wanted: float = 0.8, costs: tuple[float, float] = (1, 1)
) -> tuple[float, float, bool]:
    """Precision and recall at the threshold, and whether what is wanted was reached."""
    labels, raw = overconfident()
    truth, scores = labels == 1, raw[:, 1]
    level, reached = decision.threshold(rule, wanted, costs, truth, scores)
    said = scores >= level
    return precision_score(truth, said), recall_score(truth, said), reached


def test_a_threshold_gives_what_is_wanted() -> None:
    precision, recall, reached = chosen("precision", 0.7)
    assert reached
    assert precision >= 0.7
    precision, recall, reached = chosen("recall", 0.9)
    assert reached
    assert recall >= 0.9
    wrong = np.array([False, True]), np.array([0.9, 0.1])
    assert not decision.threshold("precision", 0.9, (1, 1), *wrong)[1]


def test_it_is_the_best_there_is() -> None:
    labels, raw = overconfident()
    truth, scores = labels == 1, raw[:, 1]

    def f1(level: float) -> float:
        hits = (truth & (scores >= level)).sum()
        return float(2 * hits / (truth.sum() + (scores >= level).sum()))

    level, _ = decision.threshold("f1", 0.5, (1, 1), truth, scores)
    assert f1(level) == pytest.approx(max(map(f1, np.unique(scores))))

    def cost(level: float) -> float:
        made = Decision("none", (), level, 20.0, 1.0)
        return made.cost(labels, made.labels(raw, 1), 1)

    level, _ = decision.threshold("cost", 0.5, (20.0, 1.0), truth, scores)
    assert cost(level) == pytest.approx(min(map(cost, np.unique(scores))))
    truth, scores = np.array([False, True]), np.array([0.9, 0.1])
    assert decision.threshold("cost", 0.5, (1.0, 10.0), truth, scores)[0] > 0.9, "of none"
    truth, scores = labels == 1, raw[:, 1]
    dear = decision.threshold("cost", 0.5, (1.0, 20.0), truth, scores)[0]
    assert level < dear, "misses that cost more lower the threshold"


def test_a_threshold_lies_between_two_scores() -> None:
    truth = np.array([False, False, True, True])
    scores = np.array([0.1, 0.2, 0.6, 0.8])
    assert decision.threshold("f1", 0.5, (1, 1), truth, scores)[0] == pytest.approx(0.4)
