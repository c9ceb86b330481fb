"""Run each stage's own command, and report wall time, CPU time and peak memory.

    python benchmarks/stages.py --runs 1 --output stages.json

The commands write what `dvc repro` writes, so the work tree stays as it is. Medians are over the
runs, which go through all stages in turn.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

from dvc.repo import Repo


def measure(command: str) -> dict[str, float]:
    """Seconds of wall and CPU time, and peak resident memory in MiB, of one command."""
    start = time.perf_counter()
    process = subprocess.Popen(command, shell=True, stderr=subprocess.DEVNULL)  # noqa: S602
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"Expected {command} to succeed, found exit code {process.returncode}.")
    return {
        "wall_s": time.perf_counter() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }


def main() -> None:
    """Measure every stage, print a table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    stages = {stage.addressing: stage.cmd for stage in Repo().index.stages}
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    for run in range(arguments.runs):
        for name, command in stages.items():
            found[name].append(measure(command))
            print(f"run {run + 1}: {name} {found[name][-1]['wall_s']:.1f} s", file=sys.stderr)
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for name, runs in found.items()
    }
    print(f"{platform.machine()}, {os.cpu_count()} cores, medians of {arguments.runs}\n")
    print("| stage | wall, s | CPU, s | peak memory, MiB |\n| --- | --- | --- | --- |")
    for name, row in medians.items():
        print(f"| {name} | {row['wall_s']:.1f} | {row['cpu_s']:.1f} | {row['peak_mib']:.0f} |")
    report = {"cores": os.cpu_count(), "runs": arguments.runs, "medians": medians, "all": found}
    arguments.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
