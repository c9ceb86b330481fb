"""Helpers of every benchmark: to run a command and weigh it, alone or not, to sum up and report."""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LOADS = {"idle": 0, "loaded": 2}  # how many other processes are busy


def command(
    words: Sequence[object] | str, log: Path, cwd: Path = ROOT, **environment: str
) -> dict[str, float]:
    """Run a command to its end: wall and CPU seconds, and peak resident memory in MiB.

    Output goes to ``log``; a failure ends the benchmark with its last lines.
    """
    shell = isinstance(words, str)
    start = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(  # noqa: S603
            words if isinstance(words, str) else [str(word) for word in words],
            shell=shell,
            cwd=cwd,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | {"HF_HUB_OFFLINE": "1"} | environment,
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        tail = "\n".join(line[:200] for line in log.read_text().splitlines()[-20:])
        sys.exit(f"Expected {words} to succeed, found exit code {process.returncode}:\n{tail}")
    return {
        "wall_s": time.perf_counter() - start,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_mib": usage.ru_maxrss / 1024,
    }


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep as many other processes busy."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def params(section: str) -> dict[str, Any]:
    """A section of params.yaml as DVC reads it: by YAML 1.2, where `no` is a word."""
    values: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")[section]
    return values


def stage(
    name: str, *paths: object, log: Path, cwd: Path = ROOT, **changes: object
) -> dict[str, float]:
    """Run a stage with its section of params.yaml, except for ``changes``."""
    return command(words_of(name, *paths, **changes), log, cwd, PYTHONPATH=str(ROOT))


def words_of(name: str, *paths: object, **changes: object) -> list[object]:
    """The command of a stage with its section of params.yaml, except for ``changes``."""
    section = params(name)
    words: list[object] = [sys.executable, "-m", f"src.text.{name}", *paths]
    for key, value in (section | changes).items():
        if isinstance(value, bool):
            words.append(f"--{key}" if value else f"--no-{key}")
        elif value != []:
            words += [f"--{key}", *(value if isinstance(value, list) else [value])]
    return words


def splits(folder: Path, changes: Mapping[str, str]) -> Path:
    """Load and split texts as params.yaml says, except for ``changes`` such as load.source."""
    sections: dict[str, dict[str, Any]] = {"load": {}, "split": {}}
    for key, value in changes.items():
        section, _, param = key.partition(".")
        lists = ("source", "column_names", "train_only")
        sections[section][param] = value.split(",") if param in lists else value
    (folder / "source").mkdir()
    log = folder / "log"
    raw, rejected = folder / "raw", folder / "rejected.csv"
    stage("load", folder / "source", raw, rejected, log=log, **sections["load"])
    stage("split", raw, folder / "splits", log=log, **sections["split"])
    return folder / "splits"


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Median, smallest and largest of each figure over the runs."""
    return {
        key: {
            "median": statistics.median(run[key] for run in runs),
            "min": min(run[key] for run in runs),
            "max": max(run[key] for run in runs),
        }
        for key in runs[0]
    }


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Median, smallest and largest of the ratios of runs that were made side by side."""
    found = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {"median": statistics.median(found), "min": min(found), "max": max(found)}


def machine() -> dict[str, Any]:
    """The processor, what it can do that matters here, and the versions of the packages."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    info = dict(line.split(":", 1) for line in lines if ":" in line)
    info = {key.strip(): value.strip() for key, value in info.items()}
    flags = set(info.get("flags", "").split())
    known = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
    packages = ("torch", "transformers", "onnxruntime", "tokenizers", "scikit-learn")
    return {
        "processor": info.get("model name", platform.processor()),
        "cores": os.cpu_count(),
        "instructions": [flag for flag in known if flag in flags],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in packages},
    }


def say(message: str) -> None:
    """Tell of progress."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def write(name: str, report: Mapping[str, Any]) -> None:
    """Write a report, with the machine, to benchmarks/results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    whole = {"machine": machine(), **report}
    (RESULTS / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")
    print(f"wrote {RESULTS / name}.json")
