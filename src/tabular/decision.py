"""From a model's probabilities to decisions: a calibration, and a threshold."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import precision_recall_curve

from src.core.errors import InputError
from src.core.files import write_json
from src.metrics.classification import Floats, Integers

Method = Literal["none", "sigmoid", "isotonic"]
Rule = Literal["f1", "precision", "recall", "cost"]

LEAST = 1e-6  # a probability, below which forests that never saw a class differ by nothing
WEAK = 1e6  # the inverse of the penalty on the two numbers of a sigmoid


@dataclass(frozen=True)
class Decision:
    """What becomes of the probabilities of a model."""

    method: Method
    curves: tuple[Mapping[str, list[float]], ...]  # of each class; of two, of the second alone
    threshold: float  # the least probability of the class that is looked for; 0 without one
    miss_cost: float  # of a row of that class that is decided to be of the other
    false_alarm_cost: float  # of a row of the other that is decided to be of that one

    def write(self, path: Path) -> None:
        """Write it as JSON; equal ones give equal bytes."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> "Decision":
        """Read what ``write`` wrote; InputError if it isn't there."""
        if not path.exists():
            raise InputError(f"There is no decision in {path}: run `dvc repro tabular/dvc.yaml`.")
        found = json.loads(path.read_text(encoding="utf-8"))
        return cls(**found | {"curves": tuple(found["curves"])})

    def calibrated(self, probabilities: Floats) -> Floats:
        """Return probabilities [rows, classes] that are as often right as they say."""
        if self.method == "none":
            return probabilities
        if len(self.curves) == 1:
            second = _bend(self.method, self.curves[0], probabilities[:, 1])
            return np.stack([1 - second, second], axis=1)
        columns = [
            _bend(self.method, curve, column)
            for curve, column in zip(self.curves, probabilities.T, strict=True)
        ]
        found = np.maximum(np.stack(columns, axis=1), LEAST)
        shares: Floats = found / found.sum(axis=1, keepdims=True)
        return shares

    def labels(self, probabilities: Floats, positive: int | None) -> Integers:
        """Return the class that is decided for, [rows], of calibrated probabilities."""
        if positive is None:
            likeliest: Integers = probabilities.argmax(axis=1)
            return likeliest
        return np.where(probabilities[:, positive] >= self.threshold, positive, 1 - positive)

    def costs(self, positive: int) -> Floats:
        """Return what a row costs, [true class, class that is decided for], of two classes."""
        costs = np.zeros((2, 2))
        costs[positive, 1 - positive] = self.miss_cost
        costs[1 - positive, positive] = self.false_alarm_cost
        return costs

    def cost(self, labels: Integers, decided: Integers, positive: int) -> float:
        """Return what the decisions cost a row, on average."""
        return float(self.costs(positive)[labels, decided].mean())


def fit(
    method: Method, labels: Integers, probabilities: Floats
) -> tuple[Mapping[str, list[float]], ...]:
    """Fit a curve for each class, of two classes for the second alone.

    Source: Zadrozny and Elkan, Transforming classifier scores into accurate multiclass probability
    estimates, KDD 2002.
    """
    if method == "none":
        return ()
    classes = range(probabilities.shape[1])
    wanted = [1] if len(classes) == 2 else classes
    return tuple(_fit(method, labels == k, probabilities[:, k]) for k in wanted)


def _fit(method: Method, truth: np.ndarray, column: Floats) -> Mapping[str, list[float]]:
    if method == "sigmoid":
        found = LogisticRegression(C=WEAK).fit(_logit(column)[:, None], truth)
        return {"slope": [float(found.coef_[0, 0])], "offset": [float(found.intercept_[0])]}
    steps = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(column, truth)
    return {"x": steps.X_thresholds_.tolist(), "y": steps.y_thresholds_.tolist()}


def _bend(method: Method, curve: Mapping[str, list[float]], column: Floats) -> Floats:
    if method == "sigmoid":
        bent: Floats = 1 / (1 + np.exp(-(curve["slope"][0] * _logit(column) + curve["offset"][0])))
        return bent
    steps = np.interp(column, curve["x"], curve["y"])
    return np.clip(steps, LEAST, 1 - LEAST)  # nothing is certain


def _logit(column: Floats) -> Floats:
    clipped = np.clip(column, LEAST, 1 - LEAST)
    found: Floats = np.log(clipped / (1 - clipped))
    return found


def threshold(
    rule: Rule,
    wanted: float,
    costs: tuple[float, float],
    truth: np.ndarray,
    scores: Floats,
) -> tuple[float, bool]:
    """Choose the least score from which a row counts as positive.

    Args:
        rule: the largest f1; the highest recall of at least the wanted precision, or the highest
            precision of at least the wanted recall; or the least cost.
        wanted: precision or recall.
        costs: of a miss, and of a false alarm.
        truth: whether each row is positive, [rows].
        scores: [rows].

    Returns:
        The threshold, half way to the next lower score, so that another machine's rounding decides
        no row; and whether the wanted figure is reached.
    """
    precision, recall, levels = precision_recall_curve(truth, scores)
    precision, recall = precision[:-1], recall[:-1]  # the last point is of no row at all
    positives = truth.sum()
    if rule == "f1":
        value = 2 * precision * recall / np.maximum(precision + recall, LEAST)
    elif rule == "cost":
        hits = recall * positives
        value = -(costs[0] * (positives - hits) + costs[1] * (_taken(scores, levels) - hits))
        if -costs[0] * positives > value.max():
            return float((levels[-1] + 1.5) / 2), True  # no row is worth its false alarm
    else:
        held, free = (precision, recall) if rule == "precision" else (recall, precision)
        value = np.where(held >= wanted, 1 + free, held)
    best = int(np.flatnonzero(value == value.max())[-1])
    reached = rule in ("f1", "cost") or bool(value[best] >= 1)
    below = levels[best - 1] if best else 0.0
    return float((levels[best] + below) / 2), reached


def _taken(scores: Floats, levels: Floats) -> Floats:
    """Return how many scores are at least each level."""
    return len(scores) - np.searchsorted(np.sort(scores), levels, side="left").astype(float)
