"""Trainings killed, cut short or out of room: nothing is lost, and the next run ends the same."""

import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import copy_built, digest, errors_in, is_running, set_params, train_command

from src.core import stage
from src.text import train
from src.training import checkpoints

pytestmark = pytest.mark.slow

# Six epochs of 23 steps, of a classifier with a part of its own and two learning rates.
LONG = {
    "pooling": "mean",
    "epochs": 6,
    "save_steps": 5,
    "logging_steps": 3,
    "early_stopping_patience": 0,
}
WAIT = 120  # seconds, after which what is waited for will not come

# Processes that are forked from one that has imported all: the same as new ones, but at once there.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["src.text.train", "frozen"])


@pytest.fixture(scope="module")
def undisturbed(
    splits: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """The files, by their hashes, of a training that nothing happened to."""
    target = tmp_path_factory.mktemp("undisturbed") / "work" / "out"
    code, log = run_forked(splits, target, checkpoint)
    assert code == 0, log
    assert not list((target / ".checkpoints").iterdir()), "they are of no use any more"
    return digest(target)


def stage_process(words: list[str], folder: Path, log: Path, die_in: str, die_after: str) -> None:
    """Run the stage; it kills itself as it marks a checkpoint, or once one is whole."""
    os.chdir(folder)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), sys.stderr.fileno())
    sys.argv = ["src/text/train.py", *words]
    sync = checkpoints._sync

    def die(path: Path) -> None:
        sync(path)
        if path.parent.name == die_in or (die_after and (path / die_after).exists()):
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints._sync = die
    stage.run(train.main)


def start_forked(
    splits: Path,
    target: Path,
    checkpoint: Path,
    log: Path,
    die_in: str = "",
    die_after: str = "",
    **changes: Any,
) -> multiprocessing.process.BaseProcess:
    """Begin to train in the folder that ``target`` lies in."""
    words = train_command(splits, target, checkpoint, **LONG | changes)[3:]
    target.parent.mkdir(parents=True, exist_ok=True)
    given = (words, target.parent, log, die_in, die_after)
    process = FORKED.Process(target=stage_process, args=given)
    process.start()
    return process


def run_forked(
    splits: Path,
    target: Path,
    checkpoint: Path,
    *,
    lines: int = 10**9,
    die_in: str = "",
    die_after: str = "",
    **changes: Any,
) -> tuple[int, str]:
    """Train, and kill it after some lines of its log; its exit code, and its log."""
    log = target.parent.with_name(f"{target.parent.name}.log")  # on the disk of the tests
    log.unlink(missing_ok=True)
    process = start_forked(splits, target, checkpoint, log, die_in, die_after, **changes)
    while process.is_alive() and process.exitcode is None:
        if log.exists() and log.read_text().count("src.training.recording: step") > lines:
            process.kill()
        process.join(0.01)
    process.join()
    assert process.exitcode is not None
    return process.exitcode, log.read_text()


def test_a_training_that_is_killed_at_ten_random_points_ends_as_if_it_had_not_been(
    splits: Path, checkpoint: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    target = tmp_path / "work" / "out"
    draw = random.Random(0)
    for _ in range(10):
        code, log = run_forked(splits, target, checkpoint, lines=draw.randint(0, 7))
        assert code == -signal.SIGKILL, log
    assert not (target / "model").exists()
    code, log = run_forked(splits, target, checkpoint)
    assert code == 0, log
    assert "INFO src.training.checkpoints: goes on from step " in log
    assert digest(target) == undisturbed
    assert not list(target.glob(".*.tmp")), "what the killed ones left is gone"


def test_a_checkpoint_that_is_not_whole_is_passed_over(
    splits: Path, checkpoint: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    target = tmp_path / "work" / "out"
    code, log = run_forked(splits, target, checkpoint, die_in="checkpoint-10")
    assert code == -signal.SIGKILL, log
    (folder,) = (target / ".checkpoints").iterdir()
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-5"]
    assert (folder / "saving" / "checkpoint-10").exists()
    assert run_forked(splits, target, checkpoint, lines=9)[0] == -signal.SIGKILL
    newest = max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    optimizer = newest / "optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:-1])
    code, log = run_forked(splits, target, checkpoint)
    assert code == 0, log
    place = f"out/.checkpoints/{folder.name}/{newest.name}"
    assert re.search(f"WARNING src.training.checkpoints: checkpoint \\S*{place} is not whole", log)
    assert "INFO src.training.checkpoints: goes on from step " in log
    assert digest(target) == undisturbed


def test_a_training_that_is_killed_after_its_last_step_is_only_put_away(
    splits: Path, checkpoint: Path, tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    target = tmp_path / "work" / "out"
    assert run_forked(splits, target, checkpoint, die_after="checkpoint-138")[0] == -signal.SIGKILL
    (folder,) = (target / ".checkpoints").iterdir()
    assert not (folder / "checkpoint-138" / "optimizer.pt").exists(), "no step would need it"
    assert (folder / "checkpoint-115" / "optimizer.pt").exists()
    code, log = run_forked(splits, target, checkpoint)
    assert code == 0, log
    assert "goes on from step 138" in log
    assert digest(target) == undisturbed


def test_other_params_data_or_code_start_anew(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("one")
    key = checkpoints.key_of({"lr": 1.0}, [data])
    assert checkpoints.key_of({"lr": 1.0}, [data]) == key
    assert checkpoints.key_of({"lr": 2.0}, [data]) != key
    data.write_text("two")
    assert checkpoints.key_of({"lr": 1.0}, [data]) != key


def test_a_training_that_had_stopped_early_does_not_train_on(
    splits: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """Killed between its last checkpoint and its end, it is only put away."""
    changes: dict[str, Any] = {
        "epochs": 30,
        "early_stopping_patience": 1,
        "metric_for_best_model": "macro_f1",
    }
    code, log = run_forked(splits, tmp_path / "a" / "out", checkpoint, **changes)
    assert code == 0, log
    steps = int(re.findall(r"(\d+) steps; those", log)[0])
    assert steps < 30 * 23
    target = tmp_path / "b" / "out"
    last = f"checkpoint-{steps}"
    assert run_forked(splits, target, checkpoint, die_in=last, **changes)[0] == -signal.SIGKILL
    # Saved, and not yet in its place: the training is one epoch behind.
    (folder,) = (target / ".checkpoints").iterdir()
    checkpoints._finish(folder / "saving" / last, folder / last)
    code, log = run_forked(splits, target, checkpoint, **changes)
    assert code == 0, log
    assert f"goes on from step {steps}, which" in log
    assert "src.training.recording: step" not in log
    assert digest(target) == digest(tmp_path / "a" / "out")


def until(condition: Any, what: str) -> Any:
    """Wait until a condition holds, and return what it gives."""
    end = time.monotonic() + WAIT
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {WAIT} s for {what}")


@pytest.fixture(params=["bash", "sh"])
def repro(
    request: pytest.FixtureRequest, built: Path, tmp_path: Path
) -> Iterator[tuple[Any, subprocess.Popen[bytes], Path]]:
    """A project, its `dvc repro` in the middle of training, and the log of the training.

    DVC runs a command by the user's shell: bash becomes that command, Debian's sh waits for it.
    """
    project = copy_built(built, tmp_path / "project")
    set_params(project, {"train.epochs": 25, "train.early_stopping_patience": 0})
    before = set((project.root / "logs").glob("*-train-*.log"))
    with (tmp_path / "printed").open("wb") as printed:
        process = subprocess.Popen(
            ["dvc", "repro", "train"],
            cwd=project.root,
            env=os.environ | {"SHELL": shutil.which(request.param) or ""},
            stdout=printed,
            stderr=printed,
        )

    def saved() -> Path | None:
        logs = set((project.root / "logs").glob("*-train-*.log")) - before
        whole = list(project.root.glob("models/.checkpoints/*/*/whole.json"))
        return next(iter(logs), None) if whole else None

    try:
        yield project, process, until(saved, "the first checkpoint")
    finally:
        process.kill()
        process.wait()


def test_a_stage_ends_with_the_dvc_that_started_it_and_the_next_repro_goes_on(
    repro: tuple[Any, subprocess.Popen[bytes], Path],
) -> None:
    project, process, log = repro
    pid = int(log.stem.rsplit("-", 1)[1])
    assert is_running(pid)
    process.kill()
    process.wait()  # DVC takes the lock of a process that is not waited for as held
    until(lambda: not is_running(pid), "the training to end")
    printed = project.dvc("repro", "train")
    assert "INFO src.training.checkpoints: goes on from step " in printed, printed
    assert project.git("status", "--porcelain").count("\n") == 4  # params, lock, metrics, record


def test_a_second_training_on_the_same_outputs_is_refused(
    splits: Path, checkpoint: Path, tmp_path: Path
) -> None:
    target = tmp_path / "work" / "out"
    changes: dict[str, Any] = {"epochs": 500, "early_stopping_patience": 0}
    first = start_forked(splits, target, checkpoint, tmp_path / "first.log", **changes)
    try:
        until(lambda: list(target.glob(".checkpoints/*/checkpoint-*")), "it to train")
        code, log = run_forked(splits, target, checkpoint, **changes)
        assert first.is_alive()
    finally:
        first.kill()
        first.join()
    assert code == 1
    assert log.endswith(
        f"Another process, {first.pid}, runs train on these paths: wait until it ends, or end it "
        f"by `kill {first.pid}`.\n"
    )


def test_a_full_disk_leaves_the_old_outputs_and_nothing_else(
    splits: Path, checkpoint: Path, small_disk: Path
) -> None:
    target = small_disk / "out"
    code, log = run_forked(splits, target, checkpoint, epochs=1)
    assert code == 0, log
    before = digest(target / "model")
    room = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize - 200_000))
    code, log = run_forked(splits, target, checkpoint, epochs=2)
    assert code == 1
    assert "Traceback" not in log
    (error,) = errors_in(log)
    assert error.startswith("The disk is full, so train can't write")
    assert digest(target / "model") == before
    left = [path for path in target.rglob("*") if path.is_file()]
    assert not [path for path in left if ".checkpoints" in path.parts or ".tmp" in str(path)]
