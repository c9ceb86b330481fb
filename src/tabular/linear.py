"""Train the cheapest model: a logistic regression."""

from pathlib import Path
from typing import Annotated, Literal

from sklearn.linear_model import LogisticRegression

from src.core import stage
from src.core.command_line import Count, Interval, Seed
from src.tabular import training


def main(
    splits: Path,
    model: Path,
    live: Path,
    *,
    fill: Literal["median", "mean", "most_frequent"],
    missing_indicator: bool,
    min_frequency: Count,
    max_categories: Annotated[int, Interval(ge=2)],
    C: Annotated[float, Interval(gt=0)],  # noqa: N803, scikit-learn's name
    class_weight: Literal["none", "balanced"],
    tol: Annotated[float, Interval(gt=0, lt=1)],
    max_iter: Count,
    seed: Seed,
) -> None:
    """Fit the regression on the train split, and score the validation split.

    The paths are those of ``training.train``.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    regression = LogisticRegression(
        C=C,
        class_weight=None if class_weight == "none" else class_weight,
        tol=tol,
        max_iter=max_iter,
        random_state=seed,
    )
    preparation = training.one_hot(splits, params, scale=True)
    training.train(splits, model, live, params, preparation, regression, threads=1)


if __name__ == "__main__":
    stage.run(main)
