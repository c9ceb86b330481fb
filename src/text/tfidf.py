"""Train a classifier of scikit-learn on TF-IDF features, and save both as one pipeline."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import joblib
import numpy as np
import pandas as pd
from dvclive.live import Live
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from src.core.errors import InputError
from src.core.files import replacing
from src.core.words import LONGER
from src.metrics import classification
from src.metrics.calibration import temperature
from src.metrics.classification import Integers
from src.tables import examples
from src.text.forest import Forest
from src.text.regression import weights_of
from src.training import provenance

# The params that have the names of scikit-learn's own.
TFIDF = ("analyzer", "lowercase", "strip_accents", "min_df", "max_df", "sublinear_tf")

Model: TypeAlias = Forest | LogisticRegression

log = logging.getLogger("src.text.tfidf")


def train(
    splits: Path,
    model: Path,
    live: Path,
    section: str,
    params: Mapping[str, Any],
    classifier: Model,
    threads: int,
) -> None:
    """Fit TF-IDF and a classifier on the train split, and calibrate it on the validation split.

    Args:
        splits: the folder with ``train.parquet`` and ``validation.parquet``.
        model: the folder that gets ``model.joblib``, a scikit-learn pipeline from texts to labels.
        live: the folder that gets the params and validation metrics.
        section: the section of params.yaml, for messages.
        params: all its params, those of ``TfidfVectorizer`` among them.
        classifier: a forest or a logistic regression.
        threads: CPU threads of the training.
    """
    tfidf = _vectorizer(section, params)
    validation = examples.read(splits / "validation.parquet")
    _fit(tfidf, classifier, examples.read(splits / "train.parquet"), section)
    labels = examples.label_ids(validation, list(classifier.classes_))
    features = tfidf.transform(validation["text"])
    _calibrate(classifier, features, labels)
    scores = classification.summary(labels, classifier.predict_proba(features))
    log.info("validation: %s", scores)
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        settings = tfidf.get_params() | classifier.get_params()
        del settings["token_pattern"]  # long, and always the same
        record.log_params({k: v for k, v in settings.items() if isinstance(v, str | int | float)})
        for name, score in scores.items():
            record.log_metric(f"validation/{name}", score, plot=False)
    with replacing(model) as folder:
        folder.mkdir()
        # Drop what would make the saved files of two equal trainings differ.
        tfidf.__dict__.pop("_stop_words_id", None)  # a memory address
        classifier.n_jobs = None  # how fast it was trained, not what was learnt
        pipeline = Pipeline([("tfidf", tfidf), ("classifier", classifier)])
        joblib.dump(pipeline, folder / "model.joblib", compress=3)
    packages = ("scikit-learn", "scipy", "numpy", "joblib")
    settings = {"dtype": "float64", "threads": threads, "seed": params["seed"]}
    provenance.record(model, *packages, params=params, **settings)


def _calibrate(classifier: Model, features: Any, labels: Integers) -> None:
    """Let a temperature that fits these texts be part of the classifier."""
    if isinstance(classifier, Forest):
        classifier.temperature_ = temperature(labels, classifier.logits(features))
        log.info("temperature: %.3f", classifier.temperature_)
        return
    weight, bias = weights_of(classifier)
    found = temperature(labels, features @ weight.T + bias)
    log.info("temperature: %.3f", found)
    classifier.coef_ = (classifier.coef_ / found).astype(np.float32)  # which ONNX has, too
    classifier.intercept_ = classifier.intercept_ / found


def or_none(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return scikit-learn's None for "none", since params.yaml holds no nulls."""
    return {name: None if value == "none" else value for name, value in params.items()}


def _vectorizer(section: str, params: Mapping[str, Any]) -> TfidfVectorizer:
    ngram_range = params["ngram_range"]
    if len(ngram_range) != 2 or ngram_range[0] > ngram_range[1]:
        raise InputError(
            f"{section}.ngram_range is {ngram_range}: expected the shortest and the longest "
            "length, such as [1, 2]."
        )
    of = or_none({name: params[name] for name in (*TFIDF, "tfidf_max_features")})
    return TfidfVectorizer(
        ngram_range=tuple(ngram_range),
        max_features=of.pop("tfidf_max_features"),
        **of,
        **({"token_pattern": LONGER} if of["analyzer"] == "word" else {}),
    )


def _fit(tfidf: TfidfVectorizer, classifier: Model, train: pd.DataFrame, section: str) -> None:
    try:
        features = tfidf.fit_transform(train["text"])
    except ValueError as error:  # no token is left, or the bounds exclude each other
        raise InputError(
            f"{len(train)} texts have no TF-IDF features ({error}): lower {section}.min_df, raise "
            f"{section}.max_df or change {section}.analyzer."
        ) from error
    log.info("%d texts, %d features", *features.shape)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        classifier.fit(features, train["label"].to_numpy(dtype=str))
    for warning in caught:
        if issubclass(warning.category, ConvergenceWarning):
            log.warning(
                "the weights moved by more than %s.tol even after %s.max_iter passes: raise one",
                *(section, section),
            )
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
