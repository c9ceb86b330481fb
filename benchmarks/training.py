"""Fine-tune side by side with Hugging Face's run_classification.py: same texts, steps and seeds.

    python benchmarks/training.py tweets --peer-python .venv-peers/bin/python \
        --peer-script .venv-peers/run_classification.py \
        --set load.source=tweets.csv --set split.column=split

The peer runs with its defaults, which pad every text to 128 tokens, but saves nothing while it
trains; weight decay and warm-up, which it sets to 0, are 0 for us too. A round runs the peer, the
train stage without its shortcuts and the train stage, with a seed of the round's own. The time is
that of the training loop: start-up and validation are left out, our saving of the epoch is not, and
the whole command of the probe, which training starts from, is added to ours. CPU time and peak
memory are of the whole commands, validation and, for the peer, the test included.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from measure import ROOT, command, machine, params, ratios, say, splits, summary, words_of, write

from src.core import packages
from src.tables import examples
from src.text import encoder

# What evaluate.load fetches from the hub by the name of "accuracy", which a benchmark can't ask.
ACCURACY = """
import datasets
import evaluate
class Accuracy(evaluate.Metric):
    def _info(self):
        label = datasets.Value("int32")
        features = datasets.Features(predictions=label, references=label)
        return evaluate.MetricInfo(description="", citation="", features=features)
    def _compute(self, predictions, references):
        pairs = list(zip(predictions, references))
        return {"accuracy": sum(a == b for a, b in pairs) / len(pairs)}
"""
# Runs the train stage, and leaves the seconds of its loop in a file.
TIMED = """
import pathlib, runpy
from transformers import Trainer
train = Trainer.train
def timed(self, *words, **changes):
    ended = train(self, *words, **changes)
    validating = sum(entry.get("eval_runtime", 0.0) for entry in self.state.log_history)
    pathlib.Path("loop_s").write_text(str(ended.metrics["train_runtime"] - validating))
    return ended
Trainer.train = timed
runpy.run_module("src.text.train", run_name="__main__", alter_sys=True)
"""
EQUAL: dict[str, Any] = {  # to the peer's defaults
    "batch_size": 16,
    "gradient_accumulation_steps": 1,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.0,
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    "label_smoothing": 0.0,
    "class_weight": "none",
    "precision": "no",
    "activation_checkpointing": False,
    "threads": os.cpu_count(),
}


def peer(
    python: str, script: Path, folder: Path, checkpoint: str, epochs: int, lr: float, seed: int
) -> dict[str, float]:
    """Train and test run_classification.py on the CSV files in ``folder``."""
    output = folder / f"peer-{seed}"
    words = [
        *(python, script, "--model_name_or_path", checkpoint),
        *("--train_file", folder / "train.csv", "--validation_file", folder / "test.csv"),
        *("--text_column_names", "text", "--label_column_name", "label", "--use_cpu"),
        *("--do_train", "--do_eval", "--per_device_train_batch_size", 16, "--num_train_epochs"),
        *(epochs, "--learning_rate", lr, "--seed", seed, "--metric_name", folder / "accuracy"),
        *("--output_dir", output, "--report_to", "none", "--save_strategy", "no"),
    ]
    weight = command(words, folder / "log", folder, HF_HOME=str(folder / "cache"))
    results = json.loads((output / "all_results.json").read_text())
    return weight | {"loop_s": results["train_runtime"], "accuracy": results["eval_accuracy"]}


def ours(folder: Path, epochs: int, lr: float, seed: int, *, shortcuts: bool) -> dict[str, float]:
    """Train the stage on the same splits, and test what it kept."""
    output = folder / f"ours-{shortcuts}-{seed}"
    probe, live = output / "probe", output / "live"
    equal = {"max_length": 128, "threads": os.cpu_count(), "seed": seed}
    start = command(
        words_of("probe", folder / "splits", probe, live / "probe", **equal), folder / "log", folder
    )
    paths = (folder / "splits", probe, output / "model", live)
    changes = EQUAL | {"epochs": epochs, "lr": lr, "seed": seed, "shortcuts": shortcuts}
    words = [sys.executable, "-c", TIMED, *words_of("train", *paths, **changes)[3:]]
    weight = command(words, folder / "log", folder, PYTHONPATH=str(ROOT))
    weight["cpu_s"] += start["cpu_s"]
    seconds = start["wall_s"] + float((folder / "loop_s").read_text())
    test = examples.read(folder / "splits" / "test.parquet")
    model = encoder.TorchClassifier(output / "model", threads=2)
    predicted = model.logits(list(test["text"]), batch_tokens=4096).argmax(axis=1)
    truth = examples.label_ids(test, model.labels)
    return weight | {"loop_s": seconds, "accuracy": float((predicted == truth).mean())}


def main() -> None:
    """Measure, print a table and write benchmarks/results/training-<name>.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="what the texts are called in the report")
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--peer-script", type=Path, required=True)
    parser.add_argument(
        "--set", action="append", default=[], help="load.KEY=VALUE, split.KEY=VALUE"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--train-texts", type=int, default=10**9, help="as many, drawn at random")
    parser.add_argument("--test-texts", type=int, default=10**9, help="likewise")
    arguments = parser.parse_args()
    checkpoint = params("probe")["checkpoint"]
    loop = (arguments.epochs, arguments.lr)
    runs: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        splits(folder, dict(pair.split("=", 1) for pair in arguments.set))
        kept = {"train": arguments.train_texts, "test": arguments.test_texts}
        for name, count in kept.items():
            path = folder / f"splits/{name}.parquet"
            frame = examples.read(path)
            frame = frame.sample(min(count, len(frame)), random_state=0)
            examples.write(frame, path)
            # The peer stumbles on labels that are words.
            ids = examples.label_ids(frame, examples.read_labels(folder / "splits"))
            frame[["text"]].assign(label=ids).to_csv(folder / f"{name}.csv", index=False)
        texts = len(examples.read(folder / "splits/train.parquet")) * arguments.epochs
        (folder / "accuracy").mkdir()
        (folder / "accuracy/accuracy.py").write_text(ACCURACY)
        for seed in range(1, arguments.rounds + 1):
            where = (arguments.peer_python, arguments.peer_script.resolve(), folder)
            runs["run_classification.py"].append(
                peer(*where, str(packages.package_path(checkpoint)), *loop, seed)
            )
            runs["train, shortcuts off"].append(ours(folder, *loop, seed, shortcuts=False))
            runs["train"].append(ours(folder, *loop, seed, shortcuts=True))
            say(
                f"round {seed}: "
                + ", ".join(f"{k} {v[-1]['loop_s']:.1f} s" for k, v in runs.items())
            )
    theirs = [run["loop_s"] for run in runs["run_classification.py"]]
    print(
        f"{arguments.name}: {texts} texts a run, medians of {arguments.rounds} interleaved rounds\n"
    )
    print("| | texts/s | ratio (range) | accuracy, mean (range) | CPU, s | peak memory, MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    rows = {}
    for name, measured in runs.items():
        found = summary(measured)
        ratio = ratios(theirs, [run["loop_s"] for run in measured])
        mean = statistics.mean(run["accuracy"] for run in measured)
        rows[name] = {"figures": found, "ratio": ratio, "accuracy_mean": mean, "runs": measured}
        low, high = found["accuracy"]["min"], found["accuracy"]["max"]
        print(
            f"| {name} | {texts / found['loop_s']['median']:.1f} | {ratio['median']:.2f} "
            f"({ratio['min']:.2f} to {ratio['max']:.2f}) | {mean:.4f} ({low:.4f} to {high:.4f}) | "
            f"{found['cpu_s']['median']:.0f} | {found['peak_mib']['median']:.0f} |"
        )
    print(f"\n{machine()['processor']}, {', '.join(machine()['instructions'])}")
    report = {"texts": texts, "epochs": arguments.epochs, "lr": arguments.lr, "rows": rows}
    write(f"training-{arguments.name}", report)


if __name__ == "__main__":
    main()
