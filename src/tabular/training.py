"""Train a classifier of scikit-learn on a table, and save it with what prepares its columns."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import joblib
import numpy as np
from dvclive.live import Live
from scipy.linalg import LinAlgWarning
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from src.core.command_line import Interval
from src.core.errors import InputError
from src.core.files import replacing
from src.metrics import imbalance
from src.tables import examples
from src.tables.schema import Schema
from src.tabular import features
from src.tabular.features import NUMBERS
from src.training import provenance

Weight = Annotated[float, Interval(gt=0)]  # of a row of the positive label; one of the other has 1

PACKAGES = ("scikit-learn", "scipy", "numpy", "joblib")

log = logging.getLogger("src.tabular.training")


def train(
    splits: Path,
    model: Path,
    live: Path,
    params: Mapping[str, Any],
    preparation: ColumnTransformer,
    classifier: Any,
    threads: int,
) -> None:
    """Fit on the train split, and log the params and the figures of the validation split.

    Args:
        splits: the folder with the split, ``schema.json`` and ``labels.json``.
        model: the folder that gets ``model.joblib``, a scikit-learn pipeline from a frame of
            features to probabilities, in the order of ``labels.json``.
        live: the folder that gets params and metrics.
        params: all of the section.
        preparation: turns columns into what the classifier takes.
        classifier: of scikit-learn, not fitted.
        threads: CPU threads of the training.
    """
    schema, names = Schema.read(splits / "schema.json"), examples.read_labels(splits)
    rows = features.read(splits, "train", schema, names)
    log.info("%d rows, %d features", *rows.features.shape)
    pipeline = Pipeline([("prepare", preparation), ("classify", classifier)])
    if getattr(classifier, "early_stopping", False) and np.bincount(rows.labels).min() < 2:
        raise InputError(
            "boosting.early_stopping holds rows of each label out of the training rows, and one "
            "label has one row: set it to false, or raise load.min_class_rows."
        )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        warnings.simplefilter("always", LinAlgWarning)
        pipeline.fit(rows.features, rows.labels)
    _tell(caught)
    if "n_jobs" in classifier.get_params():  # how fast it was trained, not what was learnt; and
        classifier.n_jobs = None  # threads would sum up the trees in the order in which they end
    validation = features.read(splits, "validation", schema, names)
    probabilities = pipeline.predict_proba(validation.features)
    positive = schema.positive_of(names)
    figures = imbalance.ranking(validation.labels, probabilities, positive)
    log.info("validation: %s", figures)
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        record.log_params(dict(params))
        for name, figure in figures.items():
            record.log_metric(f"validation/{name}", figure, plot=False)
    with replacing(model) as folder:
        folder.mkdir()
        joblib.dump(pipeline, folder / "model.joblib", compress=3)
    provenance.record(
        model, *PACKAGES, params=params, dtype="float64", threads=threads, seed=params["seed"]
    )


def _tell(caught: list[warnings.WarningMessage]) -> None:
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            log.warning("the weights still moved in the last pass: raise linear.max_iter")
        elif issubclass(warning.category, LinAlgWarning):
            log.warning("newton-cholesky found no way and left the rest to lbfgs: lower linear.C")
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


def class_weights(splits: Path, section: str, given: str | float) -> str | dict[int, float] | None:
    """Return the weights of the classes as scikit-learn takes them.

    Raises:
        InputError: the weight of a positive label where none is.
    """
    if isinstance(given, str):
        return None if given == "none" else given
    names = examples.read_labels(splits)
    positive = Schema.read(splits / "schema.json").positive_of(names)
    if positive is None:
        raise InputError(
            f"{section}.class_weight is {given:g}, the weight of the positive label, and there are "
            f"{len(names)} labels of which none is: set it to none or balanced."
        )
    return {1 - positive: 1.0, positive: given}


def one_hot(splits: Path, params: Mapping[str, Any], *, scale: bool) -> ColumnTransformer:
    """Fill in what is missing, and give each value of a category a column of its own.

    Values that are rare or were not seen in training share one.

    Args:
        splits: the folder with ``schema.json``.
        params: fill, missing_indicator, min_frequency and max_categories.
        scale: whether numbers get mean 0 and variance 1.
    """
    schema = Schema.read(splits / "schema.json")
    numbers: list[tuple[str, Any]] = [
        (
            "fill",
            SimpleImputer(
                strategy=params["fill"],
                add_indicator=params["missing_indicator"],
                keep_empty_features=True,
            ),
        )
    ]
    if scale:
        numbers.append(("scale", StandardScaler()))
    categories = OneHotEncoder(
        handle_unknown="infrequent_if_exist",
        min_frequency=params["min_frequency"],
        max_categories=params["max_categories"],
        sparse_output=False,
    )
    return ColumnTransformer(
        [
            ("numbers", Pipeline(numbers), schema.features(*NUMBERS)),
            ("categories", categories, schema.features("category")),
        ]
    )


def ordinal(splits: Path, params: Mapping[str, Any]) -> tuple[ColumnTransformer, list[bool]]:
    """Number the values of categories, for a classifier that knows what these numbers are.

    Args:
        splits: the folder with ``schema.json``.
        params: min_frequency and max_categories.

    Returns:
        The preparation, and whether each of its columns is a category.
    """
    schema = Schema.read(splits / "schema.json")
    numbers, categories = schema.features(*NUMBERS), schema.features("category")
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=np.nan,
        min_frequency=params["min_frequency"],
        max_categories=params["max_categories"],
    )
    preparation = ColumnTransformer(
        [("numbers", "passthrough", numbers), ("categories", encoder, categories)]
    )
    return preparation, [False] * len(numbers) + [True] * len(categories)
