"""Train the baseline that the transformer must beat: a random forest on TF-IDF features."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import joblib
import pandas as pd
from dvclive.live import Live
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import Pipeline

from src.core import stage
from src.core.command_line import Count, Interval, Seed, Share
from src.core.errors import InputError
from src.core.files import replacing
from src.core.words import LONGER
from src.metrics import classification
from src.tables import examples
from src.training import provenance

# The params that have the names of scikit-learn's own.
TFIDF = ("analyzer", "lowercase", "strip_accents", "min_df", "max_df", "sublinear_tf")
FOREST = (
    *("n_estimators", "criterion", "max_depth", "min_samples_split", "min_samples_leaf"),
    *("max_features", "max_leaf_nodes", "bootstrap", "class_weight", "ccp_alpha", "n_jobs"),
)

log = logging.getLogger("src.text.baseline")


def main(
    splits: Path,
    model: Path,
    live: Path,
    *,
    analyzer: Literal["word", "char"],
    ngram_range: Annotated[list[int], Interval(ge=1)],
    lowercase: bool,
    strip_accents: Literal["none", "unicode"],
    min_df: Count | Share,
    max_df: Count | Annotated[float, Interval(gt=0, le=1)],
    tfidf_max_features: Literal["none"] | Count,
    sublinear_tf: bool,
    n_estimators: Count,
    criterion: Literal["gini", "entropy", "log_loss"],
    max_depth: Literal["none"] | Count,
    min_samples_split: Annotated[int, Interval(ge=2)] | Share,
    min_samples_leaf: Count | Share,
    max_features: Literal["sqrt", "log2", "none"] | Count | Share,
    max_leaf_nodes: Literal["none"] | Annotated[int, Interval(ge=2)],
    bootstrap: bool,
    class_weight: Literal["none", "balanced", "balanced_subsample"],
    ccp_alpha: Annotated[float, Interval(ge=0)],
    n_jobs: Count,
    seed: Seed,
) -> None:
    """Fit TF-IDF and the forest on the train split, and score the validation split.

    Args:
        splits: the folder with ``train.parquet`` and ``validation.parquet``.
        model: the folder that gets ``model.joblib``, a scikit-learn pipeline from texts to labels.
        live: the folder that gets the params and validation metrics.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    tfidf, forest = _models(params)
    validation = examples.read(splits / "validation.parquet")
    _fit(tfidf, forest, examples.read(splits / "train.parquet"))
    labels = examples.label_ids(validation, list(forest.classes_))
    scores = classification.summary(
        labels, forest.predict_proba(tfidf.transform(validation["text"]))
    )
    log.info("validation: %s", scores)
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        settings = tfidf.get_params() | forest.get_params()
        del settings["token_pattern"]  # long, and always the same
        record.log_params({k: v for k, v in settings.items() if isinstance(v, str | int | float)})
        for name, score in scores.items():
            record.log_metric(f"validation/{name}", score, plot=False)
    with replacing(model) as folder:
        folder.mkdir()
        _make_canonical(tfidf, forest)
        pipeline = Pipeline([("tfidf", tfidf), ("forest", forest)])
        joblib.dump(pipeline, folder / "model.joblib", compress=3)
    packages = ("scikit-learn", "scipy", "numpy", "joblib")
    provenance.record(model, *packages, params=params, dtype="float64", threads=n_jobs, seed=seed)


def _models(params: Mapping[str, Any]) -> tuple[TfidfVectorizer, RandomForestClassifier]:
    ngram_range = params["ngram_range"]
    if len(ngram_range) != 2 or ngram_range[0] > ngram_range[1]:
        raise InputError(
            f"baseline.ngram_range is {ngram_range}: expected the shortest and the longest length, "
            "such as [1, 2]."
        )
    of = {name: _or_none(value) for name, value in params.items() if name != "ngram_range"}
    tfidf = TfidfVectorizer(
        ngram_range=tuple(ngram_range),
        max_features=of["tfidf_max_features"],
        **{name: of[name] for name in TFIDF},
        **({"token_pattern": LONGER} if of["analyzer"] == "word" else {}),
    )
    return tfidf, RandomForestClassifier(
        random_state=params["seed"], **{name: of[name] for name in FOREST}
    )


def _fit(tfidf: TfidfVectorizer, forest: RandomForestClassifier, train: pd.DataFrame) -> None:
    try:
        features = tfidf.fit_transform(train["text"])
    except ValueError as error:  # no token is left, or the bounds exclude each other
        raise InputError(
            f"{len(train)} texts have no TF-IDF features ({error}): lower baseline.min_df, raise "
            "baseline.max_df or change baseline.analyzer."
        ) from error
    log.info("%d texts, %d features", *features.shape)
    forest.fit(features, train["label"].to_numpy(dtype=str))


def _or_none(value: Any) -> Any:
    """Return scikit-learn's None for "none", since params.yaml holds no nulls."""
    return None if value == "none" else value


def _make_canonical(tfidf: TfidfVectorizer, forest: RandomForestClassifier) -> None:
    """Drop what would make the saved files of two equal trainings differ."""
    tfidf.__dict__.pop("_stop_words_id", None)  # a memory address
    forest.n_jobs = None  # how fast it was trained, not what was learnt


if __name__ == "__main__":
    stage.run(main)
