"""A `dvc repro` that has nothing to do, against what DVC itself takes for such a pipeline.

    python benchmarks/noop.py

The other pipeline has the same stages, deps, params and outs, with the same files in them, but
each stage is written out, its command does nothing, and there is nothing else: no comments, no
plots, no artifacts. Both take turns.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.repo import Repo
from measure import ROOT, command, machine, ratios, say, summary, write
from ruamel.yaml import YAML

OURS, THEIRS = "this pipeline", "DVC itself"
DVC = (sys.executable, "-m", "dvc")


def bare(project: Path, folder: Path) -> dict[str, int]:
    """Make the pipeline that does nothing, up to date; how much there is of what."""
    stages: dict[str, Any] = {}
    with Repo(str(project)) as repo:
        for one in repo.index.stages:
            if not one.cmd:  # data that was added to DVC
                continue
            deps = [dep for dep in one.deps if not isinstance(dep, ParamsDependency)]
            params = [dep.params for dep in one.deps if isinstance(dep, ParamsDependency)]
            stages[one.name.replace("@", "-")] = {
                "cmd": "true",
                "deps": [_copy(dep, project, folder) for dep in deps],
                "params": [section for sections in params for section in sections],
                "outs": [
                    {_copy(out, project, folder): {"cache": out.use_cache}} for out in one.outs
                ],
            }
    yaml = YAML(typ="safe")
    yaml.dump(yaml.load(project / "params.yaml"), folder / "params.yaml")
    yaml.dump({"stages": stages}, folder / "dvc.yaml")
    who = ("-c", "user.name=A", "-c", "user.email=a@example.org")
    for words in (
        ("git", "init", "--quiet"),
        (*DVC, "init", "--quiet"),
        (*DVC, "config", "core.analytics", "false"),
        (*DVC, "commit", "--quiet", "--force"),
        ("git", "add", "--all"),
        ("git", *who, "commit", "--quiet", "--message", "Make"),
    ):
        subprocess.run(words, cwd=folder, check=True)  # noqa: S603
    counts = {"stages": len(stages)}
    for kind in ("deps", "outs", "params"):
        counts[kind] = sum(len(stage[kind]) for stage in stages.values())
    files = [path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts]
    files = [path for path in files if ".dvc" not in path.parts]
    return counts | {"files": len(files), "bytes": sum(path.stat().st_size for path in files)}


def _copy(entry: Any, project: Path, folder: Path) -> str:
    """Bring a dependency or an output into the folder, if it is not there; its path in there."""
    source = Path(entry.fs_path)
    path = source.relative_to(project)
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)
    return path.as_posix()


def repro(folder: Path, log: Path) -> dict[str, float]:
    """Run `dvc repro`, which must find nothing to do."""
    found = command([*DVC, "repro"], log, folder)
    if "Running" in log.read_text() or "up to date" not in log.read_text():
        sys.exit(f"Expected `dvc repro` to have nothing to do in {folder}: run it there first.")
    return found


def main() -> None:
    """Measure, print a table and write benchmarks/results/noop.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=ROOT, help="one that has run")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    project = arguments.project.resolve()
    runs: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        folder, log = Path(place, "bare"), Path(place, "log")
        folder.mkdir()
        counts = bare(project, folder)
        folders = {OURS: project, THEIRS: folder}
        for path in folders.values():
            repro(path, log)  # which DVC may take the occasion to remember something by
        for number in range(arguments.rounds):
            order = [*folders.items()]
            for name, path in order if number % 2 else order[::-1]:
                runs[name].append(repro(path, log))
            seconds = ", ".join(f"{name} {run[-1]['wall_s']:.2f} s" for name, run in runs.items())
            say(f"round {number + 1}: {seconds}")
    rows = {name: {"figures": summary(measured)} for name, measured in runs.items()}
    ours, theirs = runs[OURS], runs[THEIRS]
    ratio = {
        key: ratios([run[key] for run in ours], [run[key] for run in theirs])
        for key in ("wall_s", "cpu_s")
    }
    print("| | wall, s | CPU, s |")
    print("| --- | --- | --- |")
    for name, row in rows.items():
        found = row["figures"]
        print(f"| {name} | {found['wall_s']['median']:.2f} | {found['cpu_s']['median']:.2f} |")
    print(
        f"\nratio {ratio['wall_s']['median']:.2f}, of CPU time {ratio['cpu_s']['median']:.2f}; ",
        end="",
    )
    print(machine()["processor"])
    write("noop", {"rounds": arguments.rounds, "counts": counts, "ratio": ratio, "rows": rows})


if __name__ == "__main__":
    main()
