"""Predict tables: the rate against a pandas loop, and the memory by the number of rows.

    PYTHONPATH=. python benchmarks/batch.py --texts data/raw/examples.parquet

Memory and the rate of all but the model are measured with a model that costs nothing, so that a
million rows take minutes; the rate of predictions with the real one, in turns with the loop.
"""

import argparse
import csv
import json
import re
import shutil
import sys
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import measure
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper

from src.predict.classifier import Classifier
from src.predict.manifest import write_manifest

# Runs a module, and then writes how much memory the process has held at most, in KiB.
PEAK = """
import re, runpy, sys
from pathlib import Path
_, peak, module, *words = sys.argv
sys.argv = [module, *words]
runpy.run_module(module, run_name="__main__", alter_sys=True)
status = Path("/proc/self/status").read_text()
Path(peak).write_text(re.search(r"VmHWM:\\s+(\\d+)", status)[1])
"""


def main(model: Path, texts: Path, rows: list[int], predicted: int, rounds: int) -> None:
    """Measure, and write benchmarks/results/batch.json."""
    sentences = [
        sentence
        for text in pq.read_table(texts, columns=["text"])["text"].to_pylist()
        for sentence in re.split(r"(?<=[.!?])\s+", text)
        if sentence.strip()
    ]
    with TemporaryDirectory() as place:
        folder = Path(place)
        free = free_model(model, folder / "free")
        report = {
            "sentences": len(sentences),
            "characters": sum(map(len, sentences)) / len(sentences),
            "streaming": streaming(free, sentences, rows, folder),
            "predicting": predicting(model, sentences, predicted, rounds, folder),
        }
    measure.write("batch", report)


def streaming(
    model: Path, sentences: list[str], rows: list[int], folder: Path
) -> dict[str, dict[str, float]]:
    """Rate and peak memory of each format at each number of rows."""
    found = {}
    for count in rows:
        table = pa.table({"id": range(count), "text": list(islice(cycle(sentences), count))})
        pq.write_table(table, folder / "in.parquet", row_group_size=count)
        with (folder / "in.csv").open("w", newline="") as stream:
            out = csv.writer(stream)
            out.writerow(table.column_names)
            out.writerows(zip(*(c.to_pylist() for c in table.columns), strict=True))
        for kind in ("csv", "parquet"):
            measure.say(f"{count} rows of {kind}")
            run = predict(model, folder / f"in.{kind}", folder / f"out.{kind}", folder / "log")
            found[f"{kind} {count}"] = run | {"rows_per_s": count / run["wall_s"]}
    return found


def predicting(
    model: Path, sentences: list[str], count: int, rounds: int, folder: Path
) -> dict[str, object]:
    """The real model, in turns with the loop."""
    frame = pd.DataFrame({"text": list(islice(cycle(sentences), count))})
    frame.to_csv(folder / "in.csv", index=False)
    ours, naive = [], []
    for number in range(rounds):
        measure.say(f"round {number + 1} of {rounds}")
        ours.append(predict(model, folder / "in.csv", folder / "ours.csv", folder / "log"))
        words = ["benchmarks.batch", "--loop", model, folder / "in.csv", folder / "naive.csv"]
        naive.append(run(folder / "log", *words))
    labels = [pd.read_csv(folder / f"{name}.csv")["label"] for name in ("ours", "naive")]
    return {
        "rows": count,
        "ours": measure.summary(ours),
        "loop": measure.summary(naive),
        "loop_to_ours": {
            key: measure.ratios([run[key] for run in naive], [run[key] for run in ours])
            for key in ("wall_s", "cpu_s")
        },
        "equal_labels": float((labels[0] == labels[1]).mean()),
    }


def predict(model: Path, source: Path, target: Path, log: Path) -> dict[str, float]:
    """The command, on the engine of the loop."""
    words = ["--input", source, "--output", target, "--engine", "onnxruntime"]
    return run(log, "src.predict", model, *words)


def run(log: Path, *words: object) -> dict[str, float]:
    """Run a module; of an ended process, the system tells the memory of its parent too."""
    peak = log.with_name("peak")
    found = measure.command(
        [sys.executable, "-c", PEAK, peak, *words], log, PYTHONPATH=f"{measure.ROOT}/benchmarks"
    )
    return found | {"peak_mib": int(peak.read_text()) / 1024}


def loop(model: Path, source: Path, target: Path) -> None:
    """The first that one writes: all rows in a data frame, the model called for each."""
    frame = pd.read_csv(source)
    classifier = Classifier(model, 1)
    found = [next(classifier.predict([text], 1024)) for text in frame["text"]]
    frame["label"] = [prediction["label"] for prediction in found]
    frame["score"] = [prediction["score"] for prediction in found]
    frame.to_csv(target, index=False)


def free_model(model: Path, folder: Path) -> Path:
    """A folder with the tokenizer of ``model``, whose logits are the mean of the token ids."""
    folder.mkdir()
    shutil.copy(model / "tokenizer.json", folder)
    manifest = json.loads((model / "manifest.json").read_text())
    labels = manifest["labels"]
    ids = ["texts", "tokens"]
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["read"]),
        helper.make_node("Cast", ["read"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["numbers"], ["mean"], axes=[1], keepdims=1),
        helper.make_node("Mul", ["mean", "weights"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "free",
        [
            helper.make_tensor_value_info(n, TensorProto.INT64, ids)
            for n in ("input_ids", "attention_mask")
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["texts", len(labels)])],
        [
            helper.make_tensor(
                "weights",
                TensorProto.FLOAT,
                [1, len(labels)],
                [k / 1e4 for k in range(len(labels))],
            )
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(made, folder / "model.onnx")
    kept = {key: manifest[key] for key in ("max_length", "max_characters", "pad_token_id")}
    write_manifest(folder, labels=labels, **kept)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/exported/onnx"))
    parser.add_argument("--texts", type=Path, default=Path("data/raw/examples.parquet"))
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 1_000_000])
    parser.add_argument("--predicted", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loop", type=Path, nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.loop:
        loop(*given.loop)
    else:
        main(given.model, given.texts, given.rows, given.predicted, given.rounds)
