"""Classify the same texts with our exported models and with every peer, in turn, in one run.

    python benchmarks/inference.py bbc --peers .venv-peers --optimum .venv-optimum \
        --openvino .venv-openvino

The models are those of the pipeline, or, with --set load.source=..., are trained for the occasion.

Each engine runs in a process of its own. A round asks each for some texts one by one, for the p50
of the latency, and for all texts of the sample at once, for the throughput; peers cut that list
into batches of 32 as they come, ours sorts it by length. Tokenizing is part of both. Each round is
run on an idle machine and then beside two processes that are always busy. Before the rounds each
engine labels the whole test split, and its first calls are forgotten.

--engines measures some engines alone; an environment that is not named is the one this runs in.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from engines import CONVERT, COPY, ENGINES, MATRIX
from measure import LOADS, ROOT, busy, command, machine, ratios, say, splits, stage, write

from src.tables import examples
from src.text import encoder

FIRST = "transformers.pipeline"  # what the others are compared with
LIMITS = ("multiply", "copy")  # what the machine itself can do
PAUSE = 0.3  # seconds in which the threads of the engine before come to rest

Run = dict[str, float]


class Engine:
    """A process that runs one engine."""

    def __init__(self, python: str, name: str, folder: Path, threads: int, place: Path) -> None:
        """Start benchmarks/engines.py under ``python``, with ``place`` for what it converts."""
        self.name = name
        script, converted = ROOT / "benchmarks/engines.py", place / name
        if name in CONVERT:
            converted.mkdir(parents=True)
            command([python, script, "--convert", name, folder, converted], place / "log")
        words = [python, str(script), name, str(folder), str(converted), str(threads)]
        offline = {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(  # noqa: S603
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | offline,
        )

    def ask(self, texts: list[str], *, at_once: bool) -> dict[str, Any]:
        """Labels, seconds of each call and peak memory."""
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("Expected a process with pipes.")
        print(
            json.dumps({"texts": texts, "at_once": at_once}), file=self._process.stdin, flush=True
        )
        line = self._process.stdout.readline()
        if not line:
            sys.exit(f"Expected an answer of {self.name}, found that it ended: run it by itself.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()


def useful_flops(config: Any, lengths: list[int]) -> float:
    """Multiplications and additions that the logits take, without padding.

    The last layer is counted for the first token alone, with its key and value weights applied once
    a text.
    """
    size, inner = config.hidden_size, config.intermediate_size
    tokens = sum(lengths)
    layer = 2 * tokens * (4 * size * size + 2 * size * inner)
    attention = 4 * size * sum(length**2 for length in lengths)
    last = 2 * len(lengths) * (4 * size * size + 2 * size * inner)
    heads = 4 * config.num_attention_heads * size * tokens
    return float((config.num_hidden_layers - 1) * (layer + attention) + last + heads)


def main() -> None:
    """Measure, print a table and write benchmarks/results/inference-<name>.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="what the texts are called in the report")
    parser.add_argument("--set", action="append", default=[], help="such as load.source=a.csv")
    parser.add_argument(
        "--peers", type=Path, default=sys.prefix, help="venv of benchmarks/peers.txt"
    )
    parser.add_argument("--optimum", type=Path, default=sys.prefix, help="venv of optimum-onnx")
    parser.add_argument("--openvino", type=Path, default=sys.prefix, help="venv of optimum-intel")
    names = [name for name in ENGINES if name not in (FIRST, *LIMITS)]
    parser.add_argument("--engines", nargs="+", default=names, choices=names)
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--single", type=int, default=64, help="texts that are asked one by one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        texts, models = ROOT / "data/splits", ROOT / "models"
        if arguments.set:
            texts, models = _train(Path(place), dict(pair.split("=", 1) for pair in arguments.set))
        measure(arguments, texts, models, Path(place))


def _train(folder: Path, changes: dict[str, str]) -> tuple[Path, Path]:
    """Splits and models of other texts, by the stages of the pipeline."""
    texts, models, log = splits(folder, changes), folder / "models", folder / "log"
    say("training and exporting")
    probe, trained = models / "probe", models / "transformer"
    stage("probe", texts, probe, folder / "live/probe", log=log, cwd=folder)
    stage("train", texts, probe, trained, folder / "live/train", log=log, cwd=folder)
    exported = (models / "exported/onnx", models / "exported/onnx-int8", folder / "live/export")
    stage("export", texts, trained, *exported, log=log, cwd=folder)
    return texts, models


def _rounds(
    engines: dict[str, Engine], every: list[str], sample: list[str], single: list[str], rounds: int
) -> tuple[dict[str, Any], dict[str, dict[str, list[Run]]]]:
    """The label ids of every text by each engine, and by load the figures of each of its rounds."""
    found: dict[str, Any] = {}
    for name, engine in engines.items():
        say(f"{name} labels {len(every)} texts")
        found[name] = np.array(engine.ask(every, at_once=True)["labels"])
        engine.ask(single[:8], at_once=False)
    runs: dict[str, dict[str, list[Run]]] = {load: defaultdict(list) for load in LOADS}
    for number in range(rounds):
        for load, others in LOADS.items():
            with busy(others):
                for name, engine in engines.items():
                    time.sleep(PAUSE)
                    runs[load][name].append(_run(engine, sample, single))
        say(f"round {number + 1} of {rounds}")
    return found, runs


def _run(engine: Engine, sample: list[str], single: list[str]) -> Run:
    alone = engine.ask(single, at_once=False)
    together = engine.ask(sample, at_once=True)
    return {
        "p50_ms": 1000 * statistics.median(alone["seconds"]),
        "texts_per_s": len(sample) / together["seconds"][0],
        "peak_mib": together["peak_mib"],
    }


def _figures(measured: list[Run], reference: list[Run]) -> dict[str, Any]:
    """Medians of an engine's rounds, and the ratios to those of the reference."""
    p50, rate = ([run[key] for run in measured] for key in ("p50_ms", "texts_per_s"))
    return {
        "p50_ms": statistics.median(p50),
        "latency_ratio": ratios([run["p50_ms"] for run in reference], p50),
        "texts_per_s": statistics.median(rate),
        "throughput_ratio": ratios(rate, [run["texts_per_s"] for run in reference]),
        "runs": measured,
    }


def _row(name: str, runs: dict[str, dict[str, list[Run]]], shares: list[float]) -> dict[str, Any]:
    """The figures of an engine, idle and loaded, and how many times as long it takes then."""
    idle, loaded = (runs[load][name] for load in ("idle", "loaded"))
    rates = [[run["texts_per_s"] for run in measured] for measured in (idle, loaded)]
    return _figures(idle, runs["idle"][FIRST]) | {
        "share_of_peak": statistics.median(shares),
        "peak_mib": max(run["peak_mib"] for run in idle),
        "loaded": _figures(loaded, runs["loaded"][FIRST]) | {"cost": ratios(*rates)},
    }


def _places(arguments: argparse.Namespace, models: Path) -> dict[str, tuple[str, Path]]:
    """The interpreter and the folder of each engine that is measured."""
    torch_model = models / "transformer"
    peers, optimum, openvino = (
        str(path / "bin/python")
        for path in (arguments.peers, arguments.optimum, arguments.openvino)
    )
    places = {
        FIRST: (peers, torch_model),
        "optimum, ONNX Runtime": (optimum, torch_model),
        "optimum, OpenVINO": (openvino, torch_model),
        "CTranslate2 fp32": (peers, torch_model),
        "CTranslate2 int8": (peers, torch_model),
        "onnx": (sys.executable, models / "exported/onnx"),
        "onnx-int8": (sys.executable, models / "exported/onnx-int8"),
        "onnx, openvino": (sys.executable, models / "exported/onnx"),
    }
    chosen = {name: places[name] for name in places if name in (FIRST, *arguments.engines)}
    return chosen | dict.fromkeys(LIMITS, (sys.executable, torch_model))


def measure(arguments: argparse.Namespace, texts: Path, models: Path, place: Path) -> None:
    """Run the engines on the test split of ``texts``."""
    test = examples.read(texts / "test.parquet")
    labels = examples.label_ids(test, examples.read_labels(texts))
    every = list(test["text"])
    chosen = np.random.default_rng(0).permutation(len(every))[: arguments.texts]
    sample = [every[k] for k in chosen]
    single = sample[: arguments.single]

    trained = encoder.TorchClassifier(models / "transformer", arguments.threads)
    limits = (trained.tokenizer.model_max_length, trained.model.config.max_characters)
    ids = encoder.tokenize(trained.tokenizer, sample, *limits)
    flops = useful_flops(trained.model.config, [len(row) for row in ids])

    engines = {
        name: Engine(python, name, folder, arguments.threads, place)
        for name, (python, folder) in _places(arguments, models).items()
    }
    found, runs = _rounds(engines, every, sample, single, arguments.rounds)
    for engine in engines.values():
        engine.close()

    # What the machine itself does in the same rounds: FLOP/s of fp32, bytes/s read and written.
    peak = [2 * MATRIX**3 / (run["p50_ms"] / 1000) for run in runs["idle"].pop("multiply")]
    bandwidth = [8 * COPY / (run["p50_ms"] / 1000) for run in runs["idle"].pop("copy")]
    rows: dict[str, Any] = {}
    for name, measured in runs["idle"].items():
        work = flops / len(sample)  # of a text
        shares = [work * run["texts_per_s"] / p for run, p in zip(measured, peak, strict=True)]
        rows[name] = _row(name, runs, shares) | {
            "labels_as_torch": float((found[name] == found[FIRST]).mean()),
            "accuracy": float((found[name] == labels).mean()),
        }
    print(
        f"{arguments.name}: {len(sample)} texts, {sum(map(len, ids))} tokens, medians of rounds\n"
    )
    _print(rows)
    gflops, gb = statistics.median(peak) / 1e9, statistics.median(bandwidth) / 1e9
    print(f"\nfp32 matmul {gflops:.0f} GFLOP/s, copy {gb:.0f} GB/s; {machine()['processor']}")
    weights = 4 * sum(weight.numel() for weight in trained.model.base_model.encoder.parameters())
    report = {"texts": len(sample), "tokens": sum(map(len, ids)), "threads": arguments.threads}
    report |= {"gflop_per_text": flops / len(sample) / 1e9, "weights_mb": weights / 1e6}
    report |= {"peak_gflops": gflops, "gb_per_s": gb, "rows": rows}
    write(f"inference-{arguments.name}", report)


def _print(rows: dict[str, Any]) -> None:
    """Print both tables."""
    print("| | p50, ms | faster | texts/s | faster | labels as torch | accuracy | of peak |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        print(
            f"| {name} | {_shown(row)} | {row['labels_as_torch']:.4f} | {row['accuracy']:.4f} | "
            f"{row['share_of_peak']:.2f} |"
        )
    print(f"\nBeside {LOADS['loaded']} busy processes:\n")
    print("| | p50, ms | faster | texts/s | faster | idle / loaded texts/s |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        print(f"| {name} | {_shown(row['loaded'])} | {row['loaded']['cost']['median']:.2f} |")


def _shown(figures: dict[str, Any]) -> str:
    return (
        f"{figures['p50_ms']:.2f} | {figures['latency_ratio']['median']:.2f} | "
        f"{figures['texts_per_s']:.0f} | {figures['throughput_ratio']['median']:.2f}"
    )


if __name__ == "__main__":
    main()
