"""From a table that nobody described to an answer of the server, without an edit by hand.

    PYTHONPATH=. python benchmarks/tabular_ready.py bank-full.csv
    PYTHONPATH=. python benchmarks/tabular_ready.py bank-full.csv --drop duration

In a clone of the last commit, `check --write`, `dvc repro`, `src.predict` of all rows and one
record to `src.serve` run one after the other; the table tells how long each took, and the models'
average precision on the test rows.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import requests
from measure import ROOT, machine, write

PATIENCE = 60  # seconds until the server answers
MODELS = ("linear", "forest", "boosting")


def main() -> None:
    """Run all, print a table, and write benchmarks/results/tabular-ready-NAME.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--drop", default="")
    parser.add_argument("--delimiter", default=",")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        words = ["git", "clone", "--quiet", str(ROOT), str(project)]
        subprocess.run(words, check=True)  # noqa: S603
        source = project / "data/tabular/source/mine.csv"
        shutil.copyfile(asked.csv, source)
        own = source.relative_to(project)
        dropped = ["--drop", asked.drop] if asked.drop else []
        seconds = {
            "check": run(project, "src.tabular.check", own, "--write", *dropped),
            "repro": run(project, "dvc", "repro", "tabular/dvc.yaml"),
            "predict": run(
                *(project, "src.predict", "models/tabular/shipped", "--input", own),
                *("--output", "scored.parquet", "--delimiter", asked.delimiter),
            ),
            "serve": served(project),
        }
        judged = {
            name: json.loads(
                (project / f"dvclive/tabular/evaluate/{name}/metrics.json").read_text()
            )["test"]["average_precision"]
            for name in MODELS
        }
        compared = json.loads((project / "dvclive/tabular/compare/metrics.json").read_text())
    print(f"| {' | '.join(['s', *seconds])} |\n|{' --- |' * (1 + len(seconds))}")
    print(f"| {sum(seconds.values()):.0f} | {' | '.join(f'{s:.1f}' for s in seconds.values())} |")
    print(judged)
    name = f"tabular-ready-{asked.csv.stem}{'-dropped' * bool(asked.drop)}"
    write(
        name,
        {
            "machine": machine(),
            "seconds": seconds,
            "average_precision": judged,
            "compared": compared,
        },
    )


def run(project: Path, module: str, *words: Any) -> float:
    """Run a module in the project, and return how long it took."""
    start = time.perf_counter()
    command = [sys.executable, "-m", module, *map(str, words)]
    subprocess.run(command, cwd=project, check=True, stdout=subprocess.DEVNULL)  # noqa: S603
    return time.perf_counter() - start


def served(project: Path) -> float:
    """Start the server, and return how long it takes to its first answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = time.perf_counter()
    words = [sys.executable, "-m", "src.serve", "models/tabular/shipped", "--port", str(port)]
    server = subprocess.Popen(words, cwd=project, stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        base = f"http://127.0.0.1:{port}"
        while True:
            try:
                (model,) = requests.get(f"{base}/models", timeout=PATIENCE).json()
                break
            except requests.ConnectionError:
                if server.poll() is not None or time.perf_counter() - start > PATIENCE:
                    raise
                time.sleep(0.1)
        record = {column["name"]: column.get("usual") for column in model["columns"]}
        body = {"records": [record], "explain": True}
        answer = requests.post(f"{base}/predict", json=body, timeout=PATIENCE)
        answer.raise_for_status()
        print(answer.json()[0]["label"], answer.json()[0]["probabilities"])
        return time.perf_counter() - start
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
