"""The trials of a search, each a DVC experiment of one stage."""

import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dvc.api import metrics_show
from optuna.distributions import FloatDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from src.core.errors import InputError
from src.core.stage import ERROR_FILE, LOGS
from src.project import graph
from src.tools.tune.space import Distribution

WORDS = {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed"}
FAILURES = 3  # in a row, after which something else than the params is wrong

# Ends a trial when this process is gone, however it went: it alone holds the other end of the pipe.
# Only an interrupt of all its processes lets DVC remove its temporary folder.
GUARD = "import os, signal, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), signal.SIGINT)"


def done(study: Study) -> list[FrozenTrial]:
    """List the trials that came to an end; one that was stopped is tried again."""
    ended = study.get_trials(states=tuple(WORDS))
    return [t for t in ended if t.state != TrialState.FAIL or "error" in t.user_attrs]


def best(study: Study) -> FrozenTrial | None:
    """Give the best trial, if any is complete."""
    return study.best_trial if study.get_trials(states=(TrialState.COMPLETE,)) else None


def run_next(
    study: Study, target: str, metric: str, file: str, space: Mapping[str, Distribution]
) -> FrozenTrial:
    """Run the next trial, or take the result of one with equal params, and tell Optuna."""
    trial = study.ask(dict(space))
    texts = {name: _text(value, space[name]) for name, value in trial.params.items()}
    trial.set_user_attr("params", texts)
    for t in done(study):
        if t.user_attrs["params"] == texts and t.state == TrialState.COMPLETE:
            trial.set_user_attr("experiment", t.user_attrs["experiment"])
            trial.set_user_attr("repeated", True)
            return study.tell(trial, t.value)
    number, taken = trial.number + 1, graph.experiments()
    while (name := f"{study.study_name}-{number}") in taken:  # of a search whose database is gone
        number += 1
    trial.set_user_attr("experiment", name)
    error = _run(name, target, texts)
    if error is None:
        value = measured(metric, file, name)
        if math.isfinite(value):
            return study.tell(trial, value)
        error = f"{metric} is {value}."
    trial.set_user_attr("error", error)
    return study.tell(trial, state=TrialState.FAIL)


def measured(metric: str, file: str, revision: str | None = None) -> float:
    """Read the metric of an experiment, or of the work tree."""
    value: Any = metrics_show(file, rev=revision)
    for key in metric.split("."):
        value = value[key]
    return float(value)


def _text(value: Any, distribution: Distribution) -> str:
    if not isinstance(distribution, FloatDistribution):
        return str(value)
    # Three digits are easier to read and to type again, and tell no two models apart.
    rounded = float(f"{value:.3g}")
    return str(rounded if distribution.low <= rounded <= distribution.high else value)


def _output_of(experiment: str) -> Path:
    return LOGS / f"{experiment}.log"


def _run(name: str, target: str, params: Mapping[str, str]) -> str | None:
    """Run an experiment in a temporary folder of DVC's; give what it failed with, if it did."""
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, target]
    command += [f"--set-param={key}={value}" for key, value in params.items()]
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "error"
        # To a file: a pipe that nobody reads any more would stop DVC in the midst of tidying up.
        with _output_of(name).open("wb") as file:
            process = subprocess.Popen(  # noqa: S603
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {ERROR_FILE: str(told)},
            )
        guard = subprocess.Popen(  # noqa: S603
            [sys.executable, "-ISc", GUARD, str(process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        try:
            process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            process.wait()
            guard.kill()
            guard.communicate()
        if process.returncode == 0:
            return None
        if told.exists():
            return told.read_text(encoding="utf-8")
        last = next(reversed(_output_of(name).read_text(errors="replace").split("\n")[:-1]), "")
        return f"`dvc exp run` exited with {process.returncode}; its last line: {last.strip()}"


def stop_if_trials_fail(study: Study) -> None:
    """Raise InputError after some failures in a row, or one if no trial has a figure yet."""
    last = done(study)[-FAILURES if best(study) else -1 :]
    if all(trial.state == TrialState.FAIL for trial in last):
        attrs = last[-1].user_attrs
        raise InputError(
            f"Trials fail ({len(last)} in a row). The last: {attrs['error']} All it printed is in "
            f"{_output_of(attrs['experiment'])}."
        )
