"""Train a random forest."""

from pathlib import Path
from typing import Annotated, Literal

from sklearn.ensemble import RandomForestClassifier

from src.core import stage
from src.core.command_line import Count, Interval, Seed, Share
from src.core.errors import InputError
from src.tabular import training
from src.tabular.training import Weight

# The params that have the names of scikit-learn's own.
FOREST = (
    *("n_estimators", "criterion", "max_depth", "min_samples_split", "min_samples_leaf"),
    *("max_features", "max_leaf_nodes", "min_impurity_decrease", "bootstrap", "max_samples"),
    *("ccp_alpha", "n_jobs"),
)


def main(
    splits: Path,
    model: Path,
    live: Path,
    *,
    fill: Literal["median", "mean", "most_frequent"],
    missing_indicator: bool,
    min_frequency: Count,
    max_categories: Annotated[int, Interval(ge=2)],
    n_estimators: Count,
    criterion: Literal["gini", "entropy", "log_loss"],
    max_depth: Literal["none"] | Count,
    min_samples_split: Annotated[int, Interval(ge=2)] | Share,
    min_samples_leaf: Count | Share,
    max_features: Literal["sqrt", "log2", "none"] | Count | Share,
    max_leaf_nodes: Literal["none"] | Annotated[int, Interval(ge=2)],
    min_impurity_decrease: Annotated[float, Interval(ge=0)],
    bootstrap: bool,
    max_samples: Literal["none"] | Share,
    class_weight: Literal["none", "balanced", "balanced_subsample"] | Weight,
    ccp_alpha: Annotated[float, Interval(ge=0)],
    n_jobs: Count,
    seed: Seed,
) -> None:
    """Fit the forest on the train split, and score the validation split.

    The paths are those of ``training.train``.

    Raises:
        InputError: params that don't go together.
    """
    if max_samples != "none" and not bootstrap:
        raise InputError(
            f"forest.max_samples is {max_samples}, and without forest.bootstrap each tree sees all "
            "rows: set one to none or the other to true."
        )
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    of = {name: None if params[name] == "none" else params[name] for name in FOREST}
    weights = training.class_weights(splits, "forest", class_weight)
    forest = RandomForestClassifier(random_state=seed, class_weight=weights, **of)
    preparation = training.one_hot(splits, params, scale=False)
    training.train(splits, model, live, params, preparation, forest, threads=n_jobs)


if __name__ == "__main__":
    stage.run(main)
