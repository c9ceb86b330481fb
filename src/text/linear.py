"""Train the cheapest model: a logistic regression on TF-IDF features."""

from pathlib import Path
from typing import Annotated, Literal

from sklearn.linear_model import LogisticRegression

from src.core import stage
from src.core.command_line import Count, Interval, Seed, Share
from src.text import tfidf


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
    C: Annotated[float, Interval(gt=0)],  # noqa: N803, scikit-learn's name
    class_weight: Literal["none", "balanced"],
    tol: Annotated[float, Interval(gt=0, lt=1)],
    max_iter: Count,
    seed: Seed,
) -> None:
    """Fit TF-IDF and the regression on the train split, and score the validation split.

    The arguments are those of ``tfidf.train``.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    regression = LogisticRegression(
        C=C,
        class_weight=None if class_weight == "none" else class_weight,
        solver="saga",  # lbfgs takes several times as long for many classes
        tol=tol,
        max_iter=max_iter,
        random_state=seed,
    )
    tfidf.train(splits, model, live, "linear", params, regression, threads=1)


if __name__ == "__main__":
    stage.run(main)
