"""Run each stage's own command: wall time, start-up, CPU time and peak memory.

    python benchmarks/stages.py --runs 1

The commands write what `dvc repro` writes, so the work tree stays as it is. Start-up is what Python
and the imports of the stage take before the first useful work, those that wait for the kind of
model too; it is part of the wall time.
"""

import argparse
import statistics
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from measure import command, machine, say, summary, write

IMPORTS = 3  # runs of each start-up
LATER = {  # what a stage imports once it knows its model
    "evaluate@baseline": "joblib, sklearn.ensemble",
    "evaluate@baseline-onnx": "src.predict.classifier, onnxruntime",
    "evaluate@linear": "joblib, sklearn.linear_model",
    "evaluate@linear-onnx": "src.predict.classifier, onnxruntime",
    "evaluate@probe": "src.text.encoder",
    "evaluate@transformer": "src.text.encoder",
    "evaluate@onnx": "src.predict.classifier, onnxruntime",
    "evaluate@onnx-int8": "src.predict.classifier, onnxruntime",
    "export_tfidf@baseline": "onnxruntime",
    "export_tfidf@linear": "onnxruntime",
}


def main() -> None:
    """Measure every stage, print a table and write benchmarks/results/stages.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    stages = {stage.addressing: stage.cmd for stage in Repo().index.stages}
    runs: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        startup = {}
        for name in stages:
            modules = f"src.text.{name.partition('@')[0]}, {LATER.get(name, 'sys')}"
            words = [sys.executable, "-c", f"import {modules}"]
            startup[name] = statistics.median(command(words, log)["wall_s"] for _ in range(IMPORTS))
        for run in range(arguments.runs):
            for name, cmd in stages.items():
                runs[name].append(command(cmd, log))
                say(f"run {run + 1}: {name} {runs[name][-1]['wall_s']:.1f} s")
    rows: dict[str, Any] = {
        name: {"figures": summary(runs[name]), "startup_s": startup[name]} for name in stages
    }
    print(f"{machine()['processor']}, medians of {arguments.runs}\n")
    print("| stage | wall, s | start-up, s | CPU, s | peak memory, MiB |")
    print("| --- | --- | --- | --- | --- |")
    for name, row in rows.items():
        wall, cpu, peak = (row["figures"][key]["median"] for key in ("wall_s", "cpu_s", "peak_mib"))
        print(f"| {name} | {wall:.1f} | {row['startup_s']:.1f} | {cpu:.1f} | {peak:.0f} |")
    write("stages", {"runs": arguments.runs, "rows": rows})


if __name__ == "__main__":
    main()
