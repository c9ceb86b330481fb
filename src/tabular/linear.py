"""Train the cheapest model: a logistic regression."""

from pathlib import Path
from typing import Annotated, Literal

from sklearn.linear_model import LogisticRegression

from src.core import stage
from src.core.command_line import Count, Interval, Seed
from src.core.errors import InputError
from src.tabular import training
from src.tabular.training import Weight


def main(
    splits: Path,
    model: Path,
    live: Path,
    *,
    fill: Literal["median", "mean", "most_frequent"],
    missing_indicator: bool,
    min_frequency: Count,
    max_categories: Annotated[int, Interval(ge=2)],
    solver: Literal["lbfgs", "newton-cholesky", "saga"],
    C: Annotated[float, Interval(gt=0)],  # noqa: N803, scikit-learn's name
    l1_ratio: Annotated[float, Interval(ge=0, le=1)],
    class_weight: Literal["none", "balanced"] | Weight,
    tol: Annotated[float, Interval(gt=0, lt=1)],
    max_iter: Count,
    seed: Seed,
) -> None:
    """Fit the regression on the train split, and score the validation split.

    The paths are those of ``training.train``.

    Raises:
        InputError: params that don't go together.
    """
    if l1_ratio and solver != "saga":
        raise InputError(
            f"linear.l1_ratio is {l1_ratio:g}, and linear.solver {solver} knows no L1 penalty: set "
            "linear.solver to saga, or l1_ratio to 0."
        )
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    regression = LogisticRegression(
        solver=solver,
        C=C,
        l1_ratio=l1_ratio,
        class_weight=training.class_weights(splits, "linear", class_weight),
        tol=tol,
        max_iter=max_iter,
        random_state=seed,
    )
    preparation = training.one_hot(splits, params, scale=True)
    training.train(splits, model, live, params, preparation, regression, threads=1)


if __name__ == "__main__":
    stage.run(main)
