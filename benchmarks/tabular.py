"""The pipeline of tables beside what its users would do instead, on the card payments.

    export PYTHONPATH=.
    python benchmarks/tabular.py quality --peers .venv-tabular/bin/python
    python benchmarks/tabular.py predict
    python benchmarks/tabular.py file --times 4
    python benchmarks/tabular.py load

The file is that of load.source, as long as --csv names no other of its columns; --times repeats its
rows. What is asked are the models of the last run.

``quality`` divides the rows as the article that the pipeline is made after, 70 to 30 by
scikit-learn's train_test_split with seed 42, and trains the article's forest, ours, and LightGBM
and XGBoost on the same rows. ``predict`` asks models for all test rows and for one, ``file`` scores
the whole file, and ``load`` reads and divides it; the other way is scikit-learn with joblib, and
pandas.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from measure import ROOT, command, machine, ratios, say, summary, write
from ruamel.yaml import YAML
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.model_selection import train_test_split

from src.metrics import bootstrap, imbalance
from src.predict.records import Records
from src.tables import sources
from src.tables.schema import Schema
from src.tabular import boosting, features, forest, linear, load

PARAMS: dict[str, Any] = YAML(typ="safe").load(ROOT / "tabular/params.yaml")
MODELS = ROOT / "models/tabular"
SEED = 42
RESAMPLES = 1000
CHUNK = 1 << 20  # bytes that are copied at once

FILE = """
import sys, joblib, pandas as pd, pyarrow as pa, pyarrow.parquet as pq
pipeline = joblib.load(sys.argv[1])
writer = None
for part in pd.read_csv(sys.argv[2], chunksize=100_000, dtype="float64"):
    shares = pipeline.predict_proba(part[list(pipeline.feature_names_in_)])[:, 1]
    part = part.assign(label=(shares >= 0.5).astype(int), probability=shares)
    table = pa.Table.from_pandas(part, preserve_index=False)
    writer = writer or pq.ParquetWriter(sys.argv[3], table.schema.remove_metadata())
    writer.write_table(table.replace_schema_metadata())
writer.close()
"""
LOAD = """
import sys, pandas as pd
from sklearn.model_selection import train_test_split
frame = pd.read_csv(sys.argv[1])
train, test = train_test_split(frame, test_size=0.3, random_state=42)
train.to_csv(sys.argv[2], index=False)
test.to_csv(sys.argv[3], index=False)
"""


def main() -> None:
    """Measure one of the four, print a table, and write benchmarks/results/tabular-*.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("quality", "predict", "file", "load"))
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asked.csv = csv_of(asked.csv, asked.times, Path(folder))
        measure = {"quality": quality, "predict": predict, "file": file, "load": reading}
        found = measure[asked.what](asked, Path(folder))
    often = f"-{asked.times}-times" * (asked.times > 1)
    write(f"tabular-{asked.what}{often}", {"machine": machine()} | found)


def csv_of(path: Path | None, times: int, folder: Path) -> Path:
    """Bring the file, and repeat its rows."""
    if path is None:
        section = PARAMS["load"]
        (found,) = sources.find(
            section["source"], folder, section["sha256"], section["max_bytes"], "load.source"
        )
        path = found.path
    if times == 1:
        return path.resolve()
    repeated = folder / "repeated.csv"
    with path.open("rb") as rows, repeated.open("wb") as file:
        file.write(rows.readline())
        start = rows.tell()
        for _ in range(times):
            rows.seek(start)
            shutil.copyfileobj(rows, file, CHUNK)
    return repeated


def raw_of(csv: Path, folder: Path) -> Path:
    """Load the file as params.yaml says, from here."""
    params = PARAMS["load"] | {"source": [str(csv)], "sha256": ""}
    load.main(folder, folder / "raw", folder / "rejected.csv", **params)
    return folder / "raw"


def quality(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train all on the article's training rows, and compare on its test rows."""
    raw = raw_of(asked.csv, folder)
    schema = Schema.read(raw / "schema.json")
    table = pq.read_table(raw / "rows.parquet")
    sides = dict(
        zip(
            ("train", "test"),
            train_test_split(np.arange(len(table)), test_size=0.3, random_state=SEED),
            strict=True,
        )
    )
    splits = folder / "splits"
    splits.mkdir()
    schema.write(splits / "schema.json")
    (splits / "labels.json").write_text('["0", "1"]')
    for side, rows in (*sides.items(), ("validation", sides["test"])):  # which only logs figures
        pq.write_table(table.take(pa.array(rows)), splits / f"{side}.parquet")
    rows = {
        side: features.read(splits, side, schema, ["0", "1"])  # type: ignore[arg-type]
        for side in sides
    }
    truth = rows["test"].labels
    scores: dict[str, np.ndarray] = {}
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    article = RandomForestClassifier(n_estimators=15, max_depth=8, n_jobs=2, random_state=SEED)
    article.fit(rows["train"].features, rows["train"].labels)
    seconds["the article's forest"] = time.perf_counter() - start
    scores["the article's forest"] = article.predict_proba(rows["test"].features)[:, 1]
    for name, stage in (("forest", forest), ("boosting", boosting), ("linear", linear)):
        start = time.perf_counter()
        stage.main(splits, folder / name, folder / "live", **PARAMS[name])
        seconds[name] = time.perf_counter() - start
        pipeline = joblib.load(folder / name / "model.joblib")
        scores[name] = pipeline.predict_proba(rows["test"].features)[:, 1]
    if asked.peers:
        for side in sides:
            frame = rows[side].features.assign(label=rows[side].labels)
            frame.to_parquet(folder / f"{side}-peers.parquet", index=False)
        words = [asked.peers, ROOT / "benchmarks/tabular_peers.py"]
        words += [folder / "train-peers.parquet", folder / "test-peers.parquet"]
        subprocess.run([*map(str, words), str(folder / "scores.npz")], check=True)  # noqa: S603
        for name, values in np.load(folder / "scores.npz").items():
            if name.endswith(" seconds"):
                seconds[name.removesuffix(" seconds")] = float(values)
            else:
                scores[name] = values
    return {"rows": judged(scores, seconds, truth)}


def judged(
    scores: dict[str, np.ndarray], seconds: dict[str, float], truth: np.ndarray
) -> dict[str, Any]:
    """The figures of each model, and the paired bootstrap of its average precision against ours."""
    drawn = imbalance.resampled(
        truth,
        [np.stack([1 - one, one], axis=1) for one in scores.values()],
        [(one >= 0.5).astype(int) for one in scores.values()],
        1,
        RESAMPLES,
        SEED,
    )["average_precision"]
    names = [*scores]
    ours = names.index("boosting")
    found = {}
    heads = ("average precision", "ROC AUC", "balanced accuracy", "precision", "recall", "s", "p")
    head(*heads)
    for k, (name, one) in enumerate(scores.items()):
        said = one >= 0.5
        low, high = bootstrap.interval(drawn[k], 0.95)
        figures = {
            "average_precision": average_precision_score(truth, one),
            "low": low,
            "high": high,
            "roc_auc": roc_auc_score(truth, one),
            "balanced_accuracy": balanced_accuracy_score(truth, said),
            "precision": precision_score(truth, said, zero_division=0),
            "recall": recall_score(truth, said),
            "seconds": seconds[name],
            "p_against_boosting": bootstrap.p_value(drawn[k] - drawn[ours]),
            "p_against_article": bootstrap.p_value(drawn[k] - drawn[0]),
        }
        found[name] = {key: float(value) for key, value in figures.items()}
        print(
            f"| {name} | {figures['average_precision']:.4f} ({low:.4f} to {high:.4f}) | "
            f"{figures['roc_auc']:.4f} | {figures['balanced_accuracy']:.4f} | "
            f"{figures['precision']:.4f} | {figures['recall']:.4f} | {seconds[name]:.1f} | "
            f"{figures['p_against_boosting']:.3f} |"
        )
    return found


def head(*names: str) -> None:
    """Begin a table of models."""
    print(f"| model | {' | '.join(names)} |\n| --- |{' --- |' * len(names)}")


def shown(ratio: dict[str, float]) -> str:
    """A ratio with the smallest and the largest."""
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def timed(work: Callable[[], Any], times: int = 1) -> float:
    """Seconds of one of so many calls."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return (time.perf_counter() - start) / times


def predict(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:  # noqa: ARG001
    """Ask scikit-learn and the exported model for all test rows and for one, in turns."""
    splits = ROOT / "data/tabular/splits"
    schema, table = Schema.read(splits / "schema.json"), pq.read_table(splits / "test.parquet")
    columns = {c.name: table[c.name].combine_chunks() for c in schema.columns}
    frame = features.frame(schema, table)
    one, record = frame.iloc[:1], {name: [values[0].as_py()] for name, values in columns.items()}
    found: dict[str, Any] = {}
    head("rows/s, scikit-learn", "rows/s, ONNX", "times as fast", "one, ms", "times as fast")
    for name in ("linear", "forest", "boosting"):
        pipeline = joblib.load(MODELS / name / "model.joblib")
        records = Records(MODELS / "exported" / name, threads=2)

        def batch(records: Records = records) -> Any:
            return records.probabilities(records.features(columns, len(table))[0])

        def single(records: Records = records) -> Any:
            return records.probabilities(records.features(record, 1)[0])

        runs = [
            {
                "theirs": timed(lambda p=pipeline: p.predict_proba(frame)),  # type: ignore[misc]
                "ours": timed(batch),
                "theirs_one": timed(lambda p=pipeline: p.predict_proba(one), 20),  # type: ignore[misc]
                "ours_one": timed(single, 100),
            }
            for _ in range(asked.rounds)
        ]
        many = ratios([run["theirs"] for run in runs], [run["ours"] for run in runs])
        few = ratios([run["theirs_one"] for run in runs], [run["ours_one"] for run in runs])
        found[name] = {"batch": many, "one": few, "seconds": summary(runs)}
        medians = {key: value["median"] for key, value in found[name]["seconds"].items()}
        print(
            f"| {name} | {len(table) / medians['theirs']:,.0f} | "
            f"{len(table) / medians['ours']:,.0f} | {shown(many)} | "
            f"{1000 * medians['ours_one']:.2f} | {shown(few)} |"
        )
    return {"rounds": asked.rounds, "rows": found, "test_rows": len(table)}


def file(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Score the whole CSV file into parquet, in turns with pandas and joblib."""
    found = {}
    for name in ("forest", "boosting"):
        ours: list[object] = [sys.executable, "-m", "src.predict", MODELS / "exported" / name]
        ours += ["--input", asked.csv, "--output", folder / "ours.parquet", "--threads", 2]
        theirs = [sys.executable, "-c", FILE, MODELS / name / "model.joblib", asked.csv]
        found[name] = sides(ours, [*theirs, folder / "theirs.parquet"], asked.rounds, folder, name)
    return {"rounds": asked.rounds, "times": asked.times, "rows": found}


def reading(asked: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Load and divide the file, in turns with pandas and scikit-learn."""
    words = (PARAMS["load"] | {"source": [str(asked.csv)], "sha256": ""}, PARAMS["split"])
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import json\n"
        "from src.tabular import load, split\n"
        "folder = Path(sys.argv[2]); a, b = json.loads(sys.argv[3])\n"
        "load.main(folder, folder / 'raw', folder / 'rejected.csv', **a)\n"
        "split.main(folder / 'raw', folder / 'splits', **b)\n"
    )
    ours = [sys.executable, "-c", script, ROOT, folder, json.dumps(words)]
    theirs = [sys.executable, "-c", LOAD, asked.csv, folder / "train.csv", folder / "test.csv"]
    name = "load and split"
    found = {name: sides(ours, theirs, asked.rounds, folder, name)}
    return {"rounds": asked.rounds, "times": asked.times, "rows": found}


def sides(
    ours: list[Any], theirs: list[Any], rounds: int, folder: Path, name: str
) -> dict[str, Any]:
    """Run two commands in turns."""
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    for number in range(rounds):
        for side, words in (("theirs", theirs), ("ours", ours)):
            runs[side].append(command(words, folder / "log"))
        say(f"{name}, round {number + 1}: {runs['theirs'][-1]} {runs['ours'][-1]}")
    ratio = ratios([r["wall_s"] for r in runs["theirs"]], [r["wall_s"] for r in runs["ours"]])
    found = {side: summary(each) for side, each in runs.items()}
    cells = [
        f"{found[side]['wall_s']['median']:.1f} s, {found[side]['peak_mib']['median']:.0f} MiB"
        for side in ("theirs", "ours")
    ]
    print(f"| {name} | {' | '.join(cells)} | {shown(ratio)} times as fast |")
    return found | {"ratio": ratio}


if __name__ == "__main__":
    main()
