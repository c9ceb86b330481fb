"""Figures of answers to questions: how many are right, and the loss of a token of right ones."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from src.metrics.classification import Floats

LOWER = ("loss",)  # which are better the lower they are


def figures(frame: pd.DataFrame) -> dict[str, float]:
    """Return the share of right answers, and the loss of a token; NaN if that of one is.

    Args:
        frame: a row a question: ``right``, ``loss`` (that of all its tokens) and ``tokens``.
    """
    loss = frame["loss"].sum(skipna=False) / frame["tokens"].sum()
    return {"right": float(frame["right"].mean()), "loss": float(loss)}


def slices(frame: pd.DataFrame, *columns: str) -> dict[str, dict[str, Mapping[str, float]]]:
    """Return the figures of the rows of each value of some columns, and their number."""
    return {
        column: {
            str(value): {"rows": len(of)} | figures(of)
            for value, of in frame.groupby(column, sort=True)
        }
        for column in columns
    }


def differences(
    first: pd.DataFrame, second: pd.DataFrame, resamples: int, seed: int
) -> dict[str, tuple[float, Floats]]:
    """Return what the second has more of each figure, and each time that questions are drawn anew.

    Args:
        first: a row a question, as for ``figures``.
        second: the same questions in the same order.
        resamples: how often they are drawn.
        seed: of the draws.

    Source: the paired bootstrap; both sides see the same draws.
    """
    draws = np.random.default_rng(seed).integers(len(first), size=(resamples, len(first)))
    was, now = (
        {name: frame[name].to_numpy().astype(float) for name in ("right", "loss", "tokens")}
        for frame in (first, second)
    )
    right = (now["right"] - was["right"])[draws].mean(axis=1)
    loss = [
        side["loss"][draws].sum(axis=1) / side["tokens"][draws].sum(axis=1) for side in (was, now)
    ]
    points = figures(first), figures(second)
    return {
        "right": (points[1]["right"] - points[0]["right"], right),
        "loss": (points[1]["loss"] - points[0]["loss"], loss[1] - loss[0]),
    }
