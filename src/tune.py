"""Search params for a better validation metric: Optuna chooses, DVC experiments keep the tries.

    python -m src.tune
    python -m src.tune --n_trials 50

Each trial is `dvc exp run --temp` of one stage, so that it can be shown, applied, branched and
pushed like any other experiment. The section `tune` of params.yaml says what is searched; what
stands on the command line goes before it. A search that was stopped goes on when it is started
again, as long as what its trials are made from has stayed the same.
"""

import functools
import hashlib
import json
import logging
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import optuna
from dvc.api import metrics_show
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.parsing.interpolate import to_str
from dvc.repo import Repo
from dvc.utils.serialize import ParseError, load_yaml
from matplotlib.figure import Figure
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from src import stage
from src.stage import Count, InputError, Interval, Seed

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Natural = Annotated[int, Interval(ge=0)]

PARAMS = Path("params.yaml")
STORAGE = stage.LOGS / "tune.db"
TABLE = stage.LOGS / "tune.md"
PICTURE = stage.LOGS / "tune.png"

DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {
    "validation.accuracy": "maximize",
    "validation.macro_f1": "maximize",
    "validation.weighted_f1": "maximize",
    "validation.log_loss": "minimize",
    "validation.ece": "minimize",
}
FORMS = "'PARAM int LOW HIGH', 'PARAM float LOW HIGH', with or without 'log', or 'PARAM one A B'"
FAILURES = 3  # in a row, after which something else than the params is wrong
PATIENCE = 60.0  # seconds that a stage has to end after it was interrupted

# Ends a trial when this process is gone, however it went: it alone holds the other end of the pipe.
# Only an interrupt lets DVC put the work tree back and remove its temporary folder.
GUARD = "import os, signal, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), signal.SIGINT)"

log = logging.getLogger("src.tune")


@dataclass(frozen=True)
class Searched:
    """A param with the values that it may take, as an entry of ``tune.space`` says."""

    name: str
    distribution: Distribution

    def suggest(self, trial: Trial) -> str:
        """Have Optuna choose a value, and give it as it is written in params.yaml."""
        given = self.distribution
        if isinstance(given, CategoricalDistribution):
            return str(trial.suggest_categorical(self.name, given.choices))
        if isinstance(given, IntDistribution):
            return str(trial.suggest_int(self.name, given.low, given.high, log=given.log))
        value = trial.suggest_float(self.name, given.low, given.high, log=given.log)
        # Three digits are easier to read and to type again, and tell no two models apart.
        return repr(min(max(float(f"{value:.3g}"), given.low), given.high))

    def holds(self, value: Any) -> bool:
        """Whether a value of params.yaml is among those that the search may choose."""
        given = self.distribution
        if isinstance(given, CategoricalDistribution):
            return value in given.choices
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and given.low <= value <= given.high


@dataclass(frozen=True)
class Search:
    """What is asked: equal searches have equal names, and share their trials."""

    target: str
    metric: str
    params: Sequence[Searched]
    file: str  # that has the metric
    name: str

    @property
    def direction(self) -> Literal["maximize", "minimize"]:
        """Which end of the metric is the better one."""
        return DIRECTIONS[self.metric]


def main(
    *,
    target: Literal["baseline", "train"],
    metric: str,
    space: list[str],
    n_trials: Count,
    sampler: Literal["tpe", "random"],
    n_startup_trials: Natural,
    pruner: Literal["median", "none"],
    pruner_startup_trials: Natural,
    pruner_warmup_epochs: Natural,
    seed: Seed,
) -> None:
    """Search until there are ``n_trials`` trials, and write logs/tune.md and logs/tune.png.

    Raises:
        InputError: the section asks for what can't be searched, or trials fail.
    """
    # A shell without job control starts what runs in the background with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _check_metric(metric)
    values = _values(PARAMS)
    params = _space(space, target)
    search = _search(target, metric, params)
    study = optuna.create_study(
        storage=f"sqlite:///{STORAGE}",
        study_name=search.name,
        direction=search.direction,
        pruner=_pruner(pruner, pruner_startup_trials, pruner_warmup_epochs),
        load_if_exists=True,
    )
    _take_up(study, search)
    if not study.trials:
        present = {p.name: _present(p, values) for p in params}
        study.enqueue_trial({name: value for name, value in present.items() if value is not None})
    log.info("%s has %d of %d trials", search.name, len(_counted(study)), n_trials)
    failures = 0
    try:
        while (number := len(_counted(study)) + 1) <= n_trials:
            if _search(target, metric, params).name != search.name:
                raise InputError(
                    f"Expected code, data and params as {search.name} began with, found others, "
                    "whose figures don't compare: put them back to go on with it, or run "
                    "`python -m src.tune` for a new search."
                )
            # Seeded anew each time, so that a search that is taken up draws no value twice.
            study.sampler = _sampler(sampler, n_startup_trials, seed, len(study.trials))
            tried = _try(study, search)
            log.info("trial %d of %d: %s", number, n_trials, _line(study, search, tried))
            failures = failures + 1 if tried.state == TrialState.FAIL else 0
            if failures and (failures == FAILURES or not _scored(study)):
                raise InputError(
                    f"Expected trials to run, found that {failures} in a row failed, the last "
                    f"with: {tried.user_attrs['error']} All it printed is in "
                    f"{_log_of(tried.user_attrs['experiment'])}."
                )
    except KeyboardInterrupt:
        _take_up(study, search)
        log.error(
            "Interrupted with %d of %d trials: `python -m src.tune` goes on.",
            *(len(_counted(study)), n_trials),
        )
        sys.exit(130)
    finally:
        _report(study, search)
    if best := _best(study):
        name = best.user_attrs["experiment"]
        log.info("the best is %s: `dvc exp apply %s`; see %s", name, name, TABLE)


# What is asked


def _arguments() -> list[str]:
    """The words that DVC would make of the section, before those of the command line."""
    section = _values(PARAMS).get("tune")
    if not isinstance(section, dict):
        raise InputError("Expected a section `tune` in params.yaml, found none: write one.")
    return [*shlex.split(to_str(section, {"bool": "boolean_optional"})), *sys.argv[1:]]


def _values(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = load_yaml(str(path))
    except FileNotFoundError:
        raise InputError(
            f"Expected {path} in {Path.cwd()}, found none: go to the root of the project."
        ) from None
    except ParseError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(f"Expected YAML in {path}, found: {reason}; mend it.") from error
    return values


def _check_metric(metric: str) -> None:
    if metric.startswith("test"):
        raise InputError(
            f"tune.metric is {metric!r}: expected a validation metric, because what is chosen by "
            "test texts is no longer tested by them; change it in params.yaml."
        )
    if metric not in DIRECTIONS:
        raise InputError(
            f"tune.metric is {metric!r}: expected one of {', '.join(DIRECTIONS)}"
            f"{stage.closest(metric, DIRECTIONS)}; change it in params.yaml."
        )


def _space(entries: Sequence[str], target: str) -> list[Searched]:
    """Read ``tune.space``, and hold each value against the type of its param."""
    known = {
        p.name: p
        for p in signature(import_module(f"src.{target}").main, eval_str=True).parameters.values()
        if p.kind is p.KEYWORD_ONLY
    }
    found = [_entry(entry, target, known) for entry in entries]
    names = [param.name for param in found]
    if not names:
        raise InputError(
            f"tune.space is empty: expected entries such as {FORMS}; add them in params.yaml."
        )
    if twice := {name for name in names if names.count(name) > 1}:
        raise InputError(f"tune.space has {min(twice)} twice: leave one in params.yaml.")
    return found


def _entry(entry: str, target: str, known: Mapping[str, Parameter]) -> Searched:
    name, kind, *rest = [*entry.split(), "", ""]
    words, log_scale = [word for word in rest if word], False
    where, key = name.split(".", 1) if "." in name else ("", name)
    if where != target:
        raise InputError(
            f"tune.space has {entry!r}: expected a param of {target}, because others change what "
            f"is measured or come after it; write {target}.PARAM, or change tune.target."
        )
    if key not in known:
        raise InputError(
            f"tune.space has {name}, which is not known{stage.closest(key, known)}: {target} takes "
            f"{', '.join(known)}; change it in params.yaml."
        )
    if kind in ("int", "float") and words[2:] == ["log"]:
        words, log_scale = words[:2], True
    distribution: Distribution
    try:
        if kind == "one":
            if len(set(words)) < 2 or len(set(words)) < len(words):
                raise InputError(
                    f"tune.space has {entry!r}: expected at least two values, all different; "
                    "change it in params.yaml."
                )
            distribution, texts = CategoricalDistribution(words), words
        elif kind == "int":
            low, high = map(int, words)
            _check_range(entry, low, high, log_scale)
            distribution, texts = IntDistribution(low, high, log_scale), [str(low), str(high)]
        elif kind == "float":
            start, end = map(float, words)
            _check_range(entry, start, end, log_scale)
            distribution, texts = FloatDistribution(start, end, log_scale), [repr(start), repr(end)]
        else:
            raise ValueError(kind)
    except ValueError:
        raise InputError(
            f"tune.space has {entry!r}: expected {FORMS}; change it in params.yaml."
        ) from None
    for text in texts:
        # The same check, and the same sentence, as the stage's own.
        stage.value_of(known[key], _words(text), f"tune.space: {target}.", "in params.yaml")
    return Searched(name, distribution)


def _check_range(entry: str, low: float, high: float, log_scale: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(
            f"tune.space has {entry!r}, an empty range: expected two numbers, the lower first; "
            "change it in params.yaml."
        )
    if log_scale and low <= 0:
        raise InputError(
            f"tune.space has {entry!r}: expected a number above 0 for the lower end of a log "
            "scale; change it in params.yaml."
        )


def _words(text: str) -> list[str]:
    """What DVC makes of a value on the command line of a stage, without the option."""
    try:
        value = YAML(typ="safe").load(text)
    except YAMLError:
        value = text
    if isinstance(value, bool):
        return [] if value else ["no"]
    return [str(v) for v in value] if isinstance(value, list) else [text]


def _present(param: Searched, values: Mapping[str, Any]) -> Any:
    """The value that params.yaml has, as Optuna is told it, or None if it is not in the space."""
    section, key = param.name.split(".", 1)
    value = values[section][key]
    if isinstance(param.distribution, CategoricalDistribution):
        # A choice is kept as it is written, so what is equal as YAML is looked for.
        same = (c for c in param.distribution.choices if _words(str(c)) == _words(_yaml(value)))
        return next(same, None)
    return value if param.holds(value) else None


def _yaml(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool | list) else str(value)


def _search(target: str, metric: str, params: Sequence[Searched]) -> Search:
    """Name a search after all that its figures depend on and that it does not search itself."""
    with Repo() as repo:
        stages = repo.stage.collect(target, with_deps=True)
        made = {out.fs_path for s in stages for out in s.outs}
        facts: dict[str, Any] = {}
        try:
            for s in stages:
                for dep in s.deps:
                    if isinstance(dep, ParamsDependency):
                        facts |= dep.read_params()
                    elif dep.fs_path not in made:
                        facts[str(dep)] = dep.get_hash().value
        except (DvcException, FileNotFoundError) as error:
            raise InputError(f"Expected what {target} depends on, found: {error}.") from error
        last = next(s for s in stages if s.name == target)
        file = next(str(out) for out in last.outs if out.metric)
    for param in params:
        section, key = param.name.split(".", 1)
        facts[section] = {k: v for k, v in facts[section].items() if k != key}
    space = sorted(f"{p.name} {p.distribution!r}" for p in params)
    asked = json.dumps([target, metric, space, facts], sort_keys=True, default=str)
    key = hashlib.sha256(asked.encode()).hexdigest()[:8]
    return Search(target, metric, params, file, f"tune-{key}")


def _sampler(
    kind: Literal["tpe", "random"], n_startup_trials: int, seed: int, number: int
) -> optuna.samplers.BaseSampler:
    mixed = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
    if kind == "random":
        return optuna.samplers.RandomSampler(seed=mixed)
    return optuna.samplers.TPESampler(n_startup_trials=n_startup_trials, seed=mixed)


def _pruner(
    kind: Literal["median", "none"], startup_trials: int, warmup_epochs: int
) -> optuna.pruners.BasePruner:
    if kind == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(
        n_startup_trials=startup_trials, n_warmup_steps=warmup_epochs
    )


# The trials


def _counted(study: Study) -> list[FrozenTrial]:
    """The trials that came to an end; one that was killed is tried again and does not count."""
    return [t for t in study.trials if t.state.is_finished() and not _killed(t)]


def _killed(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and "error" not in trial.user_attrs


def _scored(study: Study) -> list[FrozenTrial]:
    return study.get_trials(states=(TrialState.COMPLETE,))


def _best(study: Study) -> FrozenTrial | None:
    """The first of the best: a trial with the params of another is the other's experiment."""
    sign = 1 if study.direction == StudyDirection.MAXIMIZE else -1
    return max(_scored(study), key=lambda t: sign * (t.value or 0.0), default=None)


def _experiments() -> set[str]:
    """The names of all experiments, whatever commit they began at."""
    listed = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname)", "refs/exps"],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    )
    return {ref.rsplit("/", 1)[1] for ref in listed.stdout.split()}


def _take_up(study: Study, search: Search) -> None:
    """Settle the trials that were running when a search was stopped."""
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        name = trial.user_attrs.get("experiment")
        if name in _experiments():  # it was stopped between the two
            study.tell(trial.number, _metric(search, name))
            continue
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)


def _try(study: Study, search: Search) -> FrozenTrial:
    """Run the next trial, or take the result of one with equal params, and tell Optuna."""
    trial = study.ask()
    texts = {param.name: param.suggest(trial) for param in search.params}
    trial.set_user_attr("params", texts)
    for earlier in _counted(study):
        same = earlier.user_attrs.get("params") == texts
        if same and earlier.state in (TrialState.COMPLETE, TrialState.PRUNED):
            trial.set_user_attr("experiment", earlier.user_attrs["experiment"])
            trial.set_user_attr("as", earlier.number)
            complete = earlier.state == TrialState.COMPLETE
            study.tell(trial, earlier.value if complete else None, earlier.state)
            return study.trials[trial.number]

    number, taken = trial.number + 1, _experiments()
    while (name := f"{search.name}-{number}") in taken:  # of a search whose database is gone
        number += 1
    trial.set_user_attr("experiment", name)
    pruned = False

    def follow(epoch: int, figures: Mapping[str, float], last: bool) -> bool:
        """Tell Optuna the figures of an epoch; whether the trial is to end here."""
        nonlocal pruned
        trial.report(figures[search.metric.replace(".", "/")], epoch)
        pruned = not last and trial.should_prune()
        return pruned

    start = time.monotonic()
    code = _run(name, search.target, texts, follow)
    trial.set_user_attr("seconds", round(time.monotonic() - start, 1))
    if code == 0:  # also if it was through before it could be pruned
        study.tell(trial, _metric(search, name))
    elif pruned:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        trial.set_user_attr("error", _error_of(_log_of(name)))
        study.tell(trial, state=TrialState.FAIL)
    return study.trials[trial.number]


def _metric(search: Search, experiment: str) -> float:
    value: Any = metrics_show(search.file, rev=experiment)
    for key in search.metric.split("."):
        value = value[key]
    return float(value)


def _log_of(experiment: str) -> Path:
    return stage.LOGS / f"{experiment}.log"


def _run(
    name: str,
    target: str,
    params: Mapping[str, str],
    follow: Callable[[int, Mapping[str, float], bool], bool],
) -> int:
    """Run an experiment in a temporary folder; its exit code.

    Args:
        follow: is given each epoch's number from 1 on, its figures, and whether it is the last;
            where it returns True, the experiment is interrupted.
    """
    settings = [f"--set-param={key}={value}" for key, value in params.items()]
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, *settings]
    epoch = 0
    with _started([*command, target], _log_of(name)) as process:
        for line in _lines(_log_of(name), process):
            if (found := figures_of(line)) and any(k.startswith("validation/") for k in found[1]):
                epoch += 1
                if follow(epoch, found[1], found[0]):
                    _interrupt(process)
                    break
    return process.returncode


def figures_of(line: str) -> tuple[bool, dict[str, float]] | None:
    """What a line of a training's log tells: whether the step is the last, and the figures."""
    match = re.search(r" INFO src\.recording: step (\d+)/(\d+): (.+)", line)
    if match is None:
        return None
    pairs = (part.rsplit(" ", 1) for part in match[3].split(", "))
    return match[1] == match[2], {key: float(value) for key, value in pairs}


@contextmanager
def _started(command: Sequence[str], output: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a group of its own; when the block or this process ends, it is interrupted.

    It prints to a file: a pipe that nobody reads any more would stop it in the midst of tidying up.
    """
    with output.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
        guard = subprocess.Popen(  # noqa: S603
            [sys.executable, "-ISc", GUARD, str(process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
    try:
        yield process
    except BaseException:
        _interrupt(process)
        raise
    finally:
        last_resort = threading.Timer(PATIENCE, os.killpg, (process.pid, signal.SIGKILL))
        last_resort.start()
        process.wait()
        last_resort.cancel()
        guard.kill()
        guard.communicate()


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGINT)


def _lines(path: Path, process: "subprocess.Popen[bytes]") -> Iterator[str]:
    """The lines of a file as a process writes them, until it ends."""
    with path.open(encoding="utf-8", errors="replace") as file:
        part = ""
        while True:
            ended = process.poll() is not None
            part += file.read()
            *lines, part = part.split("\n")
            yield from lines
            if ended:
                return
            time.sleep(0.2)


def _error_of(path: Path) -> str:
    """The sentence of a stage that failed, or else the last line that was printed."""
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    told = [line.split("ERROR src.stage: ")[1] for line in lines if "ERROR src.stage: " in line]
    return (told or [line for line in lines if line.strip()] or ["nothing was printed."])[-1]


# What is left to read


def _line(study: Study, search: Search, trial: FrozenTrial) -> str:
    name, best = trial.user_attrs["experiment"], _best(study)
    params = ", ".join(f"{k}={v}" for k, v in trial.user_attrs["params"].items())
    if trial.state == TrialState.FAIL:
        return f"{name} ({params}) failed: {trial.user_attrs['error']}"
    what = f"{search.metric} {trial.value:.4f}" if trial.value is not None else "no figure"
    if "as" in trial.user_attrs:
        what += ", as before with equal params"
    elif trial.state == TrialState.PRUNED:
        what += f", pruned after epoch {trial.last_step}"
    if "seconds" in trial.user_attrs:
        what += f", {trial.user_attrs['seconds']:.0f} s"
    so_far = f"; best {best.value:.4f} of {best.user_attrs['experiment']}" if best else ""
    return f"{name} ({params}): {what}{so_far}"


def _report(study: Study, search: Search) -> None:
    """Write the table and the picture of a search."""
    counted = [t for t in _counted(study) if "as" not in t.user_attrs]
    repeated = len(_counted(study)) - len(counted)
    sign = -1 if search.direction == "maximize" else 1
    order = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    counted.sort(key=lambda t: (order.index(t.state), sign * (t.value or 0.0), t.number))
    names = [param.name for param in search.params]
    rows = [["experiment", search.metric, *names, "seconds", ""]]
    for trial in counted:
        state = {TrialState.PRUNED: f"pruned after epoch {trial.last_step}"}.get(trial.state, "")
        rows.append(
            [
                trial.user_attrs["experiment"],
                "" if trial.value is None else f"{trial.value:.4f}",
                *(trial.user_attrs["params"][name] for name in names),
                str(trial.user_attrs.get("seconds", "")),
                f"failed: {trial.user_attrs['error']}" if trial.state == TrialState.FAIL else state,
            ]
        )
    better = "higher" if search.direction == "maximize" else "lower"
    states = ", ".join(
        f"{sum(t.state == s for t in counted)} {s.name.lower()}"
        for s in order
        if any(t.state == s for t in counted)
    )
    text = f"# {search.name}: {search.metric} of {search.target}, {better} is better\n\n"
    text += f"{len(counted) + repeated} trials: {states or 'none yet'}"
    text += f", {repeated} with the params of another.\n\n" if repeated else ".\n\n"
    text += "".join(f"| {' | '.join(row)} |\n" for row in [rows[0], ["---"] * len(rows[0])])
    text += "".join(f"| {' | '.join(c.replace('|', '/') for c in row)} |\n" for row in rows[1:])
    if best := _best(study):
        name = best.user_attrs["experiment"]
        text += f"\n`dvc exp apply {name}` brings the best into the work tree, and `dvc repro`\n"
        text += "what follows from it. A pruned or failed trial left no experiment.\n"
    with stage.replacing(TABLE) as file:
        file.write_text(text, encoding="utf-8", newline="\n")
    if figures := [t for t in counted if t.value is not None]:
        _draw(sorted(figures, key=lambda t: t.number), search)


def _draw(trials: Sequence[FrozenTrial], search: Search) -> None:
    """Draw the metric over the trials, and over the values of each param."""
    columns = min(3, 1 + len(search.params))
    rows = math.ceil((1 + len(search.params)) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    pruned = [t for t in trials if t.state == TrialState.PRUNED]
    groups = ((complete, "o", "complete"), (pruned, "x", "pruned, at its last epoch"))

    def scatter(panel: Any, x: Callable[[FrozenTrial], float]) -> None:
        for group, marker, label in groups:
            if group:
                panel.scatter(
                    *zip(*((x(t), t.value) for t in group), strict=True),
                    marker=marker,
                    label=label,
                    color="tab:blue" if group is complete else "tab:gray",
                    clip_on=False,  # at the end of a range
                )

    scatter(axes[0], lambda t: t.number + 1)
    if complete:
        best = np.maximum if search.direction == "maximize" else np.minimum
        axes[0].step(
            [t.number + 1 for t in complete],
            best.accumulate([t.value or 0.0 for t in complete]),
            where="post",
            color="tab:orange",
            label="best so far",
        )
    axes[0].set(xlabel="trial", ylabel=search.metric)
    axes[0].xaxis.get_major_locator().set_params(integer=True)
    axes[0].legend(fontsize="small")
    for panel, param in zip(axes[1:], search.params, strict=False):
        given = param.distribution
        if isinstance(given, CategoricalDistribution):
            place = functools.partial(_place, param.name, list(given.choices))
            panel.set_xticks(range(len(given.choices)), list(map(str, given.choices)))
            panel.set_xlim(-0.5, len(given.choices) - 0.5)
        else:
            place = functools.partial(_number, param.name)
            panel.set_xlim(given.low, given.high)  # the whole range, also where nothing was tried
            if given.log:
                ticks = np.geomspace(given.low, given.high, 3)
                panel.set_xscale("log")
                panel.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks])
                panel.minorticks_off()
        scatter(panel, place)
        panel.set(xlabel=param.name, ylabel=search.metric)
    for panel in axes[1 + len(search.params) :]:
        panel.set_axis_off()
    figure.suptitle(f"{search.name}: {search.metric} of {search.target}")
    with stage.replacing(PICTURE) as file:
        figure.savefig(file, dpi=120)


def _place(name: str, choices: list[Any], trial: FrozenTrial) -> float:
    return choices.index(trial.user_attrs["params"][name])


def _number(name: str, trial: FrozenTrial) -> float:
    return float(trial.user_attrs["params"][name])


if __name__ == "__main__":
    stage.run(main, arguments=_arguments)
