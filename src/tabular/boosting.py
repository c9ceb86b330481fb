"""Train gradient-boosted trees, which read missing values and categories as they are."""

from pathlib import Path
from typing import Annotated, Literal

from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from src.core import stage
from src.core.command_line import Count, Interval, Seed, Share, Threads
from src.core.errors import InputError, closest
from src.tables import examples
from src.tables.schema import Schema
from src.tabular import training
from src.tabular.features import NUMBERS
from src.tabular.training import Weight

# The params that have the names of scikit-learn's own.
BOOSTING = (
    *("learning_rate", "max_iter", "max_leaf_nodes", "max_depth", "min_samples_leaf"),
    *("l2_regularization", "max_features", "max_bins", "early_stopping"),
    *("validation_fraction", "n_iter_no_change", "tol"),
)
DIRECTIONS = {"1": 1, "-1": -1}


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
    monotonic_cst: list[str],
    class_weight: Literal["none", "balanced"] | Weight,
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
        random_state=seed,
        categorical_features=are_categories,
        class_weight=training.class_weights(splits, "boosting", class_weight),
        monotonic_cst=_directions(splits, monotonic_cst, len(are_categories)),
        **of,
    )
    with threadpool_limits(threads):
        training.train(splits, model, live, params, preparation, trees, threads)


def _directions(splits: Path, entries: list[str], features: int) -> list[int] | None:
    """Return which way the probability goes with each feature: 1 up, -1 down, 0 either way.

    Raises:
        InputError: an entry is none, or there is no one label to be probable.
    """
    if not entries:
        return None
    schema, names = Schema.read(splits / "schema.json"), examples.read_labels(splits)
    numbers, positive = schema.features(*NUMBERS), schema.positive_of(names)
    if positive is None:
        raise InputError(
            f"boosting.monotonic_cst is about the positive label, and there are {len(names)} "
            "labels of which none is: leave it empty."
        )
    found = [0] * features  # numbers come first
    for entry in entries:
        name, _, word = entry.rpartition(" ")
        if word not in DIRECTIONS or name not in numbers:
            raise InputError(
                f"boosting.monotonic_cst has {entry!r}: write a column of numbers (of a date, one "
                f"of its four) and 1 or -1, such as '{numbers[0] if numbers else 'income'} 1'"
                f"{closest(name, numbers)}."
            )
        if found[numbers.index(name)]:
            raise InputError(f"boosting.monotonic_cst has {name!r} twice: take one of them out.")
        found[numbers.index(name)] = DIRECTIONS[word] * (1 if positive else -1)
    return found


if __name__ == "__main__":
    stage.run(main)
