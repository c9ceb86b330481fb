"""Load, look over and split as many rows as people have: time and memory by the number of rows.

    python benchmarks/data.py

Rows are ten random words of 20,000, one of five labels and one of two languages; the stages are run
by their own commands, with the params of params.yaml, and sizes take turns.
"""

import argparse
import csv
import random
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from measure import machine, say, stage, summary, write

STAGES = ("load", "quality", "split")


def make(path: Path, rows: int) -> None:
    """Write a csv file of short rows."""
    draw = random.Random(0)  # noqa: S311
    words = [f"word{k}" for k in range(20_000)]
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "label", "language"])
        for row in range(rows):
            text = " ".join(draw.choices(words, k=10))
            out.writerow([text, f"class{row % 5}", "en" if row % 2 else "fr"])


def measure(source: Path, folder: Path) -> dict[str, float]:
    """Seconds and MiB of each stage, and of all of them."""
    log, raw = folder / "log", folder / "raw"
    paths = {
        "load": (folder, raw, folder / "rejected.csv"),
        "quality": (raw, folder / "quality.json", folder / "quality.md"),
        "split": (raw, folder / "splits"),
    }
    run: dict[str, float] = {}
    for name in STAGES:
        changes: dict[str, object] = {"source": source} if name == "load" else {}
        found = stage(name, *paths[name], log=log, cwd=folder, **changes)
        run |= {f"{name}_s": found["wall_s"], f"{name}_mib": found["peak_mib"]}
    run["all_s"] = sum(run[f"{name}_s"] for name in STAGES)
    run["all_mib"] = max(run[f"{name}_mib"] for name in STAGES)
    return run


def main() -> None:
    """Measure, print a table and write benchmarks/results/data.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 200_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    runs: dict[int, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for rows in arguments.rows:
            make(folder / f"{rows}.csv", rows)
        for number in range(arguments.rounds):
            for rows in arguments.rows:
                runs[rows].append(measure(folder / f"{rows}.csv", folder))
                say(f"round {number + 1}: {rows} rows {runs[rows][-1]['all_s']:.1f} s")
    print("| rows | load, s | quality, s | split, s | all, s | peak of load, quality, split, MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    found: dict[str, Any] = {}
    for rows, measured in runs.items():
        figures = summary(measured)
        found[str(rows)] = {"figures": figures, "runs": measured}
        seconds = [f"{figures[f'{name}_s']['median']:.1f}" for name in (*STAGES, "all")]
        peaks = ", ".join(f"{figures[f'{name}_mib']['median']:.0f}" for name in STAGES)
        print(f"| {rows:,} | {' | '.join(seconds)} | {peaks} |")
    print(f"\n{machine()['processor']}, medians of {arguments.rounds}")
    write("data", {"rounds": arguments.rounds, "rows": found})


if __name__ == "__main__":
    main()
