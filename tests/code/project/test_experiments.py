"""Experiments as docs/dvc-experiments.md tells them: made, queued, compared, kept and shared."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, copy_built, is_running

METRICS = "dvclive/compare/metrics.json"


@pytest.fixture(scope="module")
def project(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project with a git remote and a DVC remote; only `compare` runs anew in it."""
    place = tmp_path_factory.mktemp("experiments")
    project = copy_built(built, place / "project")
    project.git("init", "--quiet", "--bare", "--initial-branch=main", str(place / "team.git"))
    project.git("remote", "add", "origin", str(place / "team.git"))
    project.dvc("remote", "add", "--default", "storage", str(place / "models"))
    project.commit()
    project.git("push", "--quiet", "origin", "main")
    return project


def shown(project: Project) -> dict[str, dict[str, Any]]:
    """The state of each experiment of HEAD, and its data, by its name."""
    table = json.loads(project.dvc("exp", "show", "--json"))
    rows = next(row for row in table if row["rev"] != "workspace")["experiments"] or []
    return {row["name"]: row["revs"][0]["data"] for row in rows}


def workers(project: Project) -> list[int]:
    """The processes of the queue that have not ended."""
    files = (project.root / ".dvc/tmp/exps/celery").glob("*.pid")
    told = (file.read_text() for file in files)
    return [int(pid) for pid in told if pid and is_running(int(pid))]  # one may just be written


def start(project: Project, workers: int) -> str:
    """Start workers until there are as many, and return what is printed."""
    told = project.root / "logs" / "queue.txt"
    with told.open("w") as file:  # a pipe stays open with them
        command = ["dvc", "queue", "start", "--jobs", str(workers)]
        subprocess.run(command, cwd=project.root, stdout=file, stderr=file, check=True)
    return told.read_text()


def until(project: Project, found: Callable[[str], bool]) -> str:
    """Wait for a status of the queue."""
    for _ in range(600):
        if found(status := project.dvc("queue", "status")):
            return status
        time.sleep(0.5)
    raise AssertionError(status)


def test_one_experiment_with_two_params_is_shown_and_compared(project: Project) -> None:
    project.dvc(
        *("exp", "run", "--temp", "--name", "short"),
        *("-S", "compare.resamples=40", "-S", "compare.confidence=0.9", "compare"),
    )
    data = shown(project)["short"]
    assert data["params"]["params.yaml"]["data"]["compare"]["resamples"] == 40
    assert data["params"]["params.yaml"]["data"]["compare"]["confidence"] == 0.9
    assert "transformer" in data["metrics"][METRICS]["data"]
    diff = json.loads(project.dvc("exp", "diff", "HEAD", "short", "--json"))
    assert diff["params"]["params.yaml"] == {
        "compare.resamples": {"old": 50, "new": 40, "diff": -10},
        "compare.confidence": {"old": 0.95, "new": 0.9, "diff": pytest.approx(-0.05)},
    }
    assert METRICS in diff["metrics"]
    assert project.git("status", "--porcelain") == ""


def test_a_grid_runs_in_the_queue_two_at_a_time(project: Project) -> None:
    printed = project.dvc(
        *("exp", "run", "--queue", "--name", "grid", "-S", "compare.resamples=41,42", "compare")
    )
    assert "Queued experiment 'grid-1'" in printed
    assert "Queued experiment 'grid-2'" in printed
    assert "Started '1' new" in start(project, 1)
    until(project, lambda status: "1 active, 0 idle" in status)
    assert "Started '1' new" in start(project, 2), "the other one"
    status = until(project, lambda status: "Queued" not in status and "Running" not in status)
    assert status.count("Success") == 2
    project.dvc("queue", "stop")
    for _ in range(600):
        if not workers(project):
            break
        time.sleep(0.5)
    assert workers(project) == []
    found = shown(project)
    resamples = {
        name: found[name]["params"]["params.yaml"]["data"]["compare"]["resamples"]
        for name in ("grid-1", "grid-2")
    }
    assert resamples == {"grid-1": 41, "grid-2": 42}


def test_a_list_of_lists_is_a_grid_too(project: Project) -> None:
    ranges = "baseline.ngram_range=[1,1],[1,2]"
    printed = project.dvc("exp", "run", "--queue", "--name", "ngrams", "-S", ranges)
    assert "baseline.ngram_range=[1,1]'" in printed
    assert "baseline.ngram_range=[1,2]'" in printed
    project.dvc("queue", "remove", "--queued")


def test_a_grid_needs_the_queue(project: Project) -> None:
    printed = project.dvc("exp", "run", "-S", "compare.resamples=41,42", code=255)
    assert "Sweep overrides can't be used without `--queue`" in printed


def test_an_experiment_is_kept_and_a_colleague_applies_it(project: Project, tmp_path: Path) -> None:
    run = ("exp", "run", "--temp", "--name", "shared", "-S", "compare.resamples=44", "compare")
    project.dvc(*run)
    project.dvc("exp", "branch", "shared", "kept")
    kept = json.loads(project.git("show", f"kept:{METRICS}"))
    assert "resamples: 44" in project.git("show", "kept:params.yaml")
    project.dvc("exp", "push", "origin", "shared")

    origin = project.git("remote", "get-url", "origin").strip()
    colleague = project.clone(tmp_path / "clone", origin)
    colleague.dvc("exp", "pull", "origin", "shared")
    colleague.dvc("exp", "apply", "shared")
    assert "resamples: 44" in (colleague.root / "params.yaml").read_text()
    assert json.loads((colleague.root / METRICS).read_text()) == kept
    models = colleague.root / "models/shipped/model.onnx"
    assert models.read_bytes() == (project.root / "models/shipped/model.onnx").read_bytes()
    assert colleague.ran(colleague.dvc("repro", "compare")) == []
