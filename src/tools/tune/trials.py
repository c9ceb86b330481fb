"""The space of a search, and its trials, each a DVC experiment of one stage."""

import hashlib
import json
import math
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Literal, get_args

from dvc.api import metrics_show
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from src.core.command_line import bind
from src.core.errors import InputError
from src.core.stage import ERROR_FILE, LOGS
from src.project import graph
from src.project.params import file_beside, words_of

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution

# A test metric would no longer test the best of many, so there is none among these.
Metric = Literal[
    "validation.accuracy",
    "validation.macro_f1",
    "validation.weighted_f1",
    "validation.log_loss",
    "validation.ece",
    "validation.average_precision",
    "validation.roc_auc",
    "validation.brier",
    "validation.loss",
    "validation.exact_match",
    "validation.token_f1",
]
# Where lower is better.
FALLING = ("validation.log_loss", "validation.ece", "validation.brier", "validation.loss")

FORMS = "'PARAM int LOW HIGH', 'PARAM float LOW HIGH', with or without 'log', or 'PARAM one A B'"

WORDS = {TrialState.COMPLETE: "complete", TrialState.FAIL: "failed"}
FAILURES = 3  # in a row, after which something else than the params is wrong

# Ends a trial when this process is gone, however it went: it alone holds the other end of the pipe.
# Only an interrupt of all its processes lets DVC remove its temporary folder.
GUARD = "import os, signal, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), signal.SIGINT)"


@dataclass(frozen=True)
class Search:
    """What is searched: params of a stage, for its best figure on the validation split."""

    pipeline: str  # the dvc.yaml of the stage, by its path from the root
    target: str
    metric: str
    space: Mapping[str, Distribution]

    @property
    def stage(self) -> str:
        """The stage as DVC names it."""
        return graph.address(self.target, self.pipeline)

    @property
    def command(self) -> str:
        """The command line that begins and continues it."""
        place = "" if self.pipeline == graph.PIPELINE else f" {shlex.quote(self.pipeline)}"
        return f"python -m src.tools.tune{place}"


def read_space(
    entries: Sequence[str], target: str, section: Mapping[str, Any], pipeline: str = graph.PIPELINE
) -> dict[str, Distribution]:
    """Read the values that each param of ``tune.space`` may take.

    Args:
        entries: as params.yaml has them.
        target: the stage whose params are searched.
        section: its params.
        pipeline: its dvc.yaml.

    Raises:
        InputError: an entry can't be understood, or has a value that ``target`` would refuse.
    """
    modules, place = graph.modules(pipeline), file_beside(pipeline)
    stage_main, space = import_module(modules[target]).main, dict[str, Distribution]()
    kinds = [p.kind for p in signature(stage_main).parameters.values()]
    paths = ["-"] * kinds.count(Parameter.POSITIONAL_OR_KEYWORD)
    for entry in entries:
        name, *words = entry.split() or [""]
        if name in space:
            raise InputError(f"tune.space has {name} twice: leave one in {place}.")
        if name.split(".")[0] != target:
            raise InputError(
                f"tune.space has {entry!r}, which is no param of {target} (others change what it "
                f"starts from or is measured by, or come after it): write {target}.PARAM, or "
                "change tune.target."
            )
        try:
            space[name], ends = _distribution(words)
        except ValueError as error:
            reason = str(error).rstrip(".")
            raise InputError(
                f"tune.space has {entry!r}, but {reason}: write {FORMS} in {place}."
            ) from None
        for end in ends:  # the stage's own check and sentence
            words = words_of({**section, name.partition(".")[2]: _value(end)})
            bind(stage_main, target, True, [*paths, *words], place)
    if not space:
        raise InputError(f"tune.space is empty: write {FORMS} in {place}.")
    return space


def _distribution(words: Sequence[str]) -> tuple[Distribution, Sequence[str]]:
    """Read what an entry says after the param; give the values to check too.

    Raises:
        ValueError: it is wrong; the message is a part of a sentence.
    """
    match words:
        case ["one", *choices] if len(set(choices)) == len(choices) > 1:
            return CategoricalDistribution(choices), choices
        case ["one", *_]:
            raise ValueError("'one' takes at least two values, each once")
        case ["int", low, high, *scale] if scale in ([], ["log"]):
            whole = IntDistribution(int(low), int(high), log=bool(scale))
            return whole, [str(whole.low), str(whole.high)]
        case ["float", low, high, *scale] if scale in ([], ["log"]):
            real = FloatDistribution(float(low), float(high), log=bool(scale))
            return real, [str(real.low), str(real.high)]
    raise ValueError("it has none of the forms of an entry")


def _value(text: str) -> Any:
    try:
        return YAML(typ="safe").load(text)
    except YAMLError:
        return text


def present(space: Mapping[str, Distribution], section: Mapping[str, Any]) -> dict[str, Any]:
    """Give the values of params.yaml that lie in the space, with which a search begins."""
    found: dict[str, Any] = {}
    for name, distribution in space.items():
        value = section[name.partition(".")[2]]
        if isinstance(distribution, CategoricalDistribution):
            if same := [c for c in distribution.choices if _value(str(c)) == value]:
                found[name] = same[0]
        elif isinstance(value, int | float) and distribution.low <= value <= distribution.high:
            found[name] = value
    return found


def identify(search: Search) -> tuple[str, str]:
    """Name a search after all that its figures depend on; give the file of its metric too.

    Raises:
        InputError: what the target depends on is not there.
    """
    with graph.project() as repo:
        stages = repo.stage.collect(search.stage, with_deps=True)
        made = {out.fs_path for s in stages for out in s.outs}
        facts = dict(
            graph.values_of(dep for s in stages for dep in s.deps if dep.fs_path not in made)
        )
        file = next(
            str(out) for s in stages if s.addressing == search.stage for out in s.outs if out.metric
        )
    for name in search.space:
        section, _, key = name.partition(".")
        del facts[section][key]
    space = {name: repr(distribution) for name, distribution in search.space.items()}
    asked = [search.stage, search.metric, space, facts]
    text = json.dumps(asked, sort_keys=True, default=str)
    return f"tune-{hashlib.sha256(text.encode()).hexdigest()[:8]}", file


def done(study: Study) -> list[FrozenTrial]:
    """List the trials that came to an end; one that was stopped is tried again."""
    ended = study.get_trials(states=tuple(WORDS))
    return [t for t in ended if t.state != TrialState.FAIL or "error" in t.user_attrs]


def best(study: Study) -> FrozenTrial | None:
    """Give the best trial, if any is complete."""
    return study.best_trial if study.get_trials(states=(TrialState.COMPLETE,)) else None


def run_next(study: Study, search: Search, file: str) -> FrozenTrial:
    """Run the next trial, or take the result of one with equal params, and tell Optuna."""
    trial = study.ask(dict(search.space))
    texts = {name: _text(value, search.space[name]) for name, value in trial.params.items()}
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
    error = _run(name, search, texts)
    if error is None:
        value = measured(search.metric, file, name)
        if math.isfinite(value):
            return study.tell(trial, value)
        error = f"{search.metric} is {value}."
    trial.set_user_attr("error", error)
    return study.tell(trial, state=TrialState.FAIL)


def measured(metric: str, file: str, revision: str | None = None) -> float:
    """Read the metric of an experiment, or of the work tree; InputError if it is not measured."""
    if revision:
        figures: Any = metrics_show(file, rev=revision)
    else:
        try:
            figures = json.loads(Path(file).read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(
                f"{file} is no JSON ({error}): `git restore {file}`, or remove it."
            ) from error
    name, found = metric.partition(".")[2], figures.get("validation", {})
    if name not in found:
        offered = (f"validation.{other}" for other in found)
        known = [other for other in offered if other in get_args(Metric)]
        raise InputError(
            f"tune.metric is {metric!r}, which {file} does not have: choose among "
            f"{', '.join(known) or 'those of another stage'}."
        )
    return float(found[name])


def _text(value: Any, distribution: Distribution) -> str:
    if not isinstance(distribution, FloatDistribution):
        return str(value)
    # Three digits are easier to read and to type again, and tell no two models apart.
    rounded = float(f"{value:.3g}")
    return str(rounded if distribution.low <= rounded <= distribution.high else value)


def _output_of(experiment: str) -> Path:
    return LOGS / f"{experiment}.log"


def _run(name: str, search: Search, values: Mapping[str, str]) -> str | None:
    """Run an experiment in a temporary folder of DVC's; give what it failed with, if it did."""
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, search.stage]
    place = file_beside(search.pipeline)
    command += [f"--set-param={place}:{key}={value}" for key, value in values.items()]
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
        lines = _output_of(name).read_text(errors="replace").splitlines() or [""]
        return f"`dvc exp run` exited with {process.returncode}; its last line: {lines[-1].strip()}"


def stop_if_trials_fail(study: Study) -> None:
    """Raise InputError after some failures in a row, or one if no trial has a figure yet."""
    last = done(study)[-FAILURES if best(study) else -1 :]
    if all(trial.state == TrialState.FAIL for trial in last):
        attrs = last[-1].user_attrs
        raise InputError(
            f"Trials fail ({len(last)} in a row). The last: {attrs['error']} All it printed is in "
            f"{_output_of(attrs['experiment'])}."
        )
