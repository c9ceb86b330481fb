"""Fit the baseline side by side with scikit-learn's own settings: time, size and accuracy.

    python benchmarks/forest.py

Each round fits scikit-learn's defaults (100 trees on one core), the same with as many trees and
cores as ours, and the settings of params.yaml by the stage, with its validation and its records,
with a seed of the round's own, on the splits of the pipeline, and scores the test split.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import joblib
import pandas as pd
from measure import ROOT, params, ratios, say, summary, write
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline

from src.tables import examples
from src.text import baseline


def main() -> None:
    """Measure, print a table and write benchmarks/results/forest.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=Path, default=ROOT / "data/splits")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    train = examples.read(arguments.splits / "train.parquet")
    test = examples.read(arguments.splits / "test.parquet")
    settings = params("baseline")
    as_many = {"n_estimators": settings["n_estimators"], "n_jobs": settings["n_jobs"]}
    runs: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for seed in range(1, arguments.rounds + 1):
            for name, theirs in (("scikit-learn's defaults", {}), ("as many trees", as_many)):
                start = time.perf_counter()
                forest = RandomForestClassifier(random_state=seed, **theirs)
                pipeline = make_pipeline(TfidfVectorizer(), forest)
                pipeline.fit(train["text"], train["label"])
                seconds = time.perf_counter() - start
                joblib.dump(pipeline, folder / "model.joblib", compress=3)
                runs[name].append(_judge(folder / "model.joblib", test) | {"fit_s": seconds})
            start = time.perf_counter()
            baseline.main(
                arguments.splits, folder / "model", folder / "live", **settings | {"seed": seed}
            )
            seconds = time.perf_counter() - start
            judged = _judge(folder / "model" / "model.joblib", test)
            runs["baseline"].append(judged | {"fit_s": seconds})
            say(f"round {seed} of {arguments.rounds}")
    rows = {}
    reference = [run["fit_s"] for run in runs["as many trees"]]
    print("| | fit, s | ratio | size, MB | one text, ms | accuracy (range) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, measured in runs.items():
        ratio = ratios(reference, [run["fit_s"] for run in measured])
        found = summary(measured)
        rows[name] = {"figures": found, "ratio": ratio}
        accuracy = found["accuracy"]
        print(
            f"| {name} | {found['fit_s']['median']:.1f} | {ratio['median']:.2f} | "
            f"{found['mb']['median']:.2f} | {found['one_ms']['median']:.1f} | "
            f"{accuracy['median']:.4f} ({accuracy['min']:.4f} to {accuracy['max']:.4f}) |"
        )
    write("forest", {"rounds": arguments.rounds, "rows": rows})


def _judge(path: Path, test: pd.DataFrame) -> dict[str, float]:
    """Accuracy, the size of the file and the time that one text takes."""
    pipeline = joblib.load(path)
    accuracy = (pipeline.predict(test["text"]) == test["label"]).mean()
    start = time.perf_counter()
    for text in test["text"].head(20):
        pipeline.predict([text])
    one = (time.perf_counter() - start) / 20
    return {"accuracy": float(accuracy), "mb": path.stat().st_size / 1e6, "one_ms": 1000 * one}


if __name__ == "__main__":
    main()
