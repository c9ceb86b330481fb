"""Train the baseline that the transformer must beat: a random forest on TF-IDF features."""

from pathlib import Path
from typing import Annotated, Literal

from src.core import stage
from src.core.command_line import Count, Interval, Seed, Share
from src.text import tfidf
from src.text.forest import Forest

# The params that have the names of scikit-learn's own.
FOREST = (
    *("n_estimators", "criterion", "max_depth", "min_samples_split", "min_samples_leaf"),
    *("max_features", "max_leaf_nodes", "bootstrap", "class_weight", "ccp_alpha", "n_jobs"),
)


def main(
    splits: Path,
    model: Path,
    live: Path,
    *,
    analyzer: Literal["word", "char", "char_wb"],
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

    The arguments are those of ``tfidf.train``.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    of = tfidf.or_none({name: params[name] for name in FOREST})
    forest = Forest(random_state=seed, **of)
    tfidf.train(splits, model, live, "baseline", params, forest, threads=n_jobs)


if __name__ == "__main__":
    stage.run(main)
