"""Train gradient-boosted trees, which read missing values and categories as they are."""

from pathlib import Path
from typing import Annotated, Literal

from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from src.core import stage
from src.core.command_line import Count, Interval, Seed, Share, Threads
from src.tabular import training

# The params that have the names of scikit-learn's own.
BOOSTING = (
    *("learning_rate", "max_iter", "max_leaf_nodes", "max_depth", "min_samples_leaf"),
    *("l2_regularization", "max_features", "max_bins", "early_stopping"),
    *("validation_fraction", "n_iter_no_change", "tol", "class_weight"),
)


def main(
    splits: Path,
    model: Path,
    live: Path,
    *,
    min_frequency: Count,
    max_categories: Annotated[int, Interval(ge=2, le=255)],
    learning_rate: Annotated[float, Interval(gt=0, le=1)],
    max_iter: Count,
    max_leaf_nodes: Literal["none"] | Annotated[int, Interval(ge=2)],
    max_depth: Literal["none"] | Count,
    min_samples_leaf: Count,
    l2_regularization: Annotated[float, Interval(ge=0)],
    max_features: Annotated[float, Interval(gt=0, le=1)],
    max_bins: Annotated[int, Interval(ge=2, le=255)],
    early_stopping: bool,
    validation_fraction: Share,
    n_iter_no_change: Count,
    tol: Annotated[float, Interval(ge=0)],
    class_weight: Literal["none", "balanced"],
    threads: Threads,
    seed: Seed,
) -> None:
    """Fit the trees on the train split, and score the validation split.

    The paths are those of ``training.train``.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    of = {name: None if params[name] == "none" else params[name] for name in BOOSTING}
    bounded = params | {"max_categories": min(max_categories, max_bins)}
    preparation, are_categories = training.ordinal(splits, bounded)
    trees = HistGradientBoostingClassifier(
        random_state=seed, categorical_features=are_categories, **of
    )
    with threadpool_limits(threads):
        training.train(splits, model, live, params, preparation, trees, threads)


if __name__ == "__main__":
    stage.run(main)
