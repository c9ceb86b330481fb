"""Run commands on an idle machine and beside two busy processes, as they were and as they are.

    python benchmarks/shared.py --before 0618c2b

A thread that waits for others spins for a while before it sleeps, and where another process wants
the core, that is time lost to both. Each round runs each command as before and as it is now, idle
and loaded, on a few texts of data/splits: train, evaluate and export with OpenMP's own spinning and
with ours, predict and serve, whose onnxruntime has a setting for it, in a checkout of BEFORE and in
this one. It needs what `dvc repro` makes.
"""

import argparse
import http.client
import itertools
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measure import LOADS, ROOT, busy, command, machine, ratios, say, words_of, write

from src.tables import examples

COMMANDS = ("train", "evaluate", "export", "predict", "serve")
VERSIONS = ("before", "after")
DEFAULT = "300000"  # turns of a thread that waits, in GNU's OpenMP
SIZES = {"train": 64, "validation": 16, "test": 64}  # texts
ASKED = 100  # texts that a server is asked for, one after another


def main() -> None:
    """Measure, print a table and write benchmarks/results/shared.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", required=True, help="a revision of git")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commands", nargs="+", default=COMMANDS, choices=COMMANDS)
    arguments = parser.parse_args()
    seconds: dict[str, dict[tuple[str, str], list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        before = folder / "before"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", before, arguments.before], check=True)  # noqa: S603
        try:
            words = _commands(folder)
            turns = range(1, arguments.rounds + 1), LOADS, arguments.commands, VERSIONS
            for turn, load, name, version in itertools.product(*turns):
                old = version == "before"
                code = before if old and name in ("predict", "serve") else ROOT
                spin = {"GOMP_SPINCOUNT": DEFAULT} if old else {}
                with busy(LOADS[load]):
                    if name == "serve":
                        took = _served(code, folder)
                    else:
                        environment = {"PYTHONPATH": str(code), **spin}
                        took = command(words[name], folder / "log", code, **environment)["wall_s"]
                seconds[name][version, load].append(took)
                say(f"round {turn}: {name}, {version}, {load}: {took:.1f} s")
        finally:
            subprocess.run([*git, "remove", "--force", before], check=True)  # noqa: S603
    rows = {name: _row(found) for name, found in seconds.items()}
    print(f"{machine()['processor']}, medians of {arguments.rounds}\n")
    print("| | idle, after / before | loaded / idle before | loaded / idle after |")
    print("| --- | --- | --- | --- |")
    for name, row in rows.items():
        cells = (f"{row[key]['median']:.2f}" for key in ("cost", "before", "after"))
        print(f"| {name} | {' | '.join(cells)} |")
    write("shared", {"before": arguments.before, "rounds": arguments.rounds, "rows": rows})


def _row(found: dict[tuple[str, str], list[float]]) -> dict[str, Any]:
    """The ratios of runs of one round, and the median seconds."""
    of = {f"{version} {load}": statistics.median(runs) for (version, load), runs in found.items()}
    return {
        "seconds": of,
        "cost": ratios(found["after", "idle"], found["before", "idle"]),
        "before": ratios(found["before", "loaded"], found["before", "idle"]),
        "after": ratios(found["after", "loaded"], found["after", "idle"]),
    }


def _commands(folder: Path) -> dict[str, Sequence[object]]:
    """The commands, on texts of each split, evenly of all classes."""
    splits, models = folder / "splits", ROOT / "models"
    splits.mkdir()
    for name, size in SIZES.items():
        frame = examples.read(ROOT / f"data/splits/{name}.parquet").sort_values("label")
        rows = frame.iloc[:: len(frame) // size].head(size)  # of every class
        examples.write(rows.reset_index(drop=True), splits / f"{name}.parquet")
    (splits / "labels.json").write_bytes((ROOT / "data/splits/labels.json").read_bytes())
    examples.read(splits / "test.parquet")[["text"]].to_csv(folder / "texts.csv", index=False)
    live, transformer = folder / "live", models / "transformer"
    return {
        "train": words_of("train", splits, models / "probe", folder / "model", live, epochs=1),
        "evaluate": words_of("evaluate", splits, transformer, folder / "predictions", live),
        "export": words_of("export", splits, transformer, folder / "onnx", folder / "int8", live),
        "predict": [
            *(sys.executable, "-m", "src.predict", models / "exported/onnx-int8"),
            *("--input", folder / "texts.csv", "--output", folder / "scores.csv"),
        ],
    }


def _served(code: Path, folder: Path) -> float:
    """Seconds in which a server answers texts, one after another, from its start on."""
    texts = examples.read(folder / "splits/test.parquet")["text"]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model = str(ROOT / "models/exported/onnx-int8")
    words = [sys.executable, "-m", "src.serve", model, "--port", str(port)]
    start = time.perf_counter()
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(words, cwd=code, stdout=log, stderr=log)  # noqa: S603
        try:
            connection = _connected(server, port)
            for k in range(ASKED):
                body = json.dumps({"inputs": texts.iloc[k % len(texts)]})
                connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                told = answer.read()
                if answer.status != 200:
                    sys.exit(f"The server answered {answer.status}: {told!r}")
            return time.perf_counter() - start
        finally:
            server.terminate()
            server.wait()


def _connected(server: "subprocess.Popen[bytes]", port: int) -> http.client.HTTPConnection:
    while server.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.connect()
        except OSError:
            time.sleep(0.05)
        else:
            return connection
    sys.exit("The server ended before it listened.")


if __name__ == "__main__":
    main()
