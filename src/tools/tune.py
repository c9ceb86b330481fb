"""Search params for a better validation metric: Optuna chooses, DVC experiments keep the tries.

    python -m src.tools.tune
    python -m src.tools.tune --n_trials 50

Each trial is `dvc exp run --temp` of one stage, so that it can be shown, applied, branched and
pushed like any other experiment. The section `tune` of params.yaml says what is searched; what
stands on the command line goes before it. A search that was stopped goes on when it is started
again, as long as what its trials are made from has stayed the same.
"""

import copy
import hashlib
import itertools
import json
import logging
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from inspect import Parameter, signature
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import optuna
from dvc.api import metrics_show, params_show
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.parsing.interpolate import to_str
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc.scm import Git
from matplotlib.figure import Figure
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from src.core import stage
from src.core.command_line import Count, Interval, Seed, bind
from src.core.errors import InputError
from src.core.files import replacing
from src.core.markdown import table
from src.core.stage import LOGS
from src.project.graph import outs_of
from src.tools.doctor.repository import not_kept

Distribution = CategoricalDistribution | FloatDistribution | IntDistribution
Natural = Annotated[int, Interval(ge=0)]
# The best of many by a test metric is no longer tested by it, so there is none among these.
Metric = Literal[
    "validation.accuracy",
    "validation.macro_f1",
    "validation.weighted_f1",
    "validation.log_loss",
    "validation.ece",
]
FALLING = ("validation.log_loss", "validation.ece")  # where lower is better

STORAGE = LOGS / "tune.db"
TABLE = LOGS / "tune.md"
PICTURE = LOGS / "tune.png"

FORMS = "'PARAM int LOW HIGH', 'PARAM float LOW HIGH', with or without 'log', or 'PARAM one A B'"
WORDS = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
SHOWN = ((TrialState.COMPLETE, "o", "tab:blue"), (TrialState.PRUNED, "x", "tab:gray"))
FAILURES = 3  # in a row, after which something else than the params is wrong

# Ends a trial when this process is gone, however it went: it alone holds the other end of the pipe.
# Only an interrupt of all its processes lets DVC remove its temporary folder.
GUARD = "import os, signal, sys; sys.stdin.read(); os.killpg(int(sys.argv[1]), signal.SIGINT)"

log = logging.getLogger("src.tools.tune")


def main(
    *,
    target: Literal["baseline", "train"],
    metric: Metric,
    space: list[str],
    n_trials: Count,
    n_startup_trials: Natural,
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
    with Repo() as repo:
        for lack in not_kept(repo, [*outs_of(repo)]):
            raise InputError(lack)
    section = _params()[target]
    searched = read_space(space, target, section)
    name, file = identify(target, metric, searched)
    study = optuna.create_study(
        storage=f"sqlite:///{STORAGE}",
        study_name=name,
        direction="minimize" if metric in FALLING else "maximize",
        pruner=optuna.pruners.MedianPruner(pruner_startup_trials, pruner_warmup_epochs),
        load_if_exists=True,
    )
    if not study.trials:
        study.enqueue_trial(present(searched, section))
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # when a search was stopped
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    try:
        while (number := len(_done(study)) + 1) <= n_trials:
            if identify(target, metric, searched)[0] != name:
                raise InputError(
                    f"Expected code, data and params as {name} began with, found others: put them "
                    "back to go on with it, or run `python -m src.tools.tune` for a new search."
                )
            # Seeded anew each time, so that a search that goes on draws no value twice.
            study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=n_startup_trials, seed=(seed + len(study.trials)) % 2**32
            )
            tried = _try(study, target, metric, file, searched)
            log.info("trial %d of %d: %s", number, n_trials, _line(tried, metric))
            _stop_if_trials_fail(study)
    except KeyboardInterrupt:
        log.error(
            "Interrupted with %d of %d trials: `python -m src.tools.tune` goes on.",
            *(len(_done(study)), n_trials),
        )
        sys.exit(130)
    finally:
        _report(study, f"{name}: {metric} of {target}", metric, file, searched)
    log.info("%s has %d trials: %s", name, len(_done(study)), _advice(study, metric, file))


# What is asked


def read_section() -> list[str]:
    """The words that DVC would make of the section, before those of the command line.

    Raises:
        InputError: there is no such section, or params.yaml can't be read.
    """
    section = _params().get("tune")
    if not isinstance(section, dict):
        raise InputError("Expected a section `tune` in params.yaml, found none: write one.")
    return [*words_of(section), *sys.argv[1:]]


def _params() -> dict[str, Any]:
    try:
        params: dict[str, Any] = params_show("params.yaml")
    except DvcException as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(
            f"Expected params.yaml that DVC can read in {Path.cwd()}, found: {reason}; go to the "
            "root of the project, or correct it."
        ) from None
    return params


def words_of(section: Mapping[str, Any]) -> list[str]:
    """What DVC makes of a section of params on the command line of a stage."""
    return shlex.split(to_str(dict(section), {"bool": "boolean_optional"}))


def read_space(
    entries: Sequence[str], target: str, section: Mapping[str, Any]
) -> dict[str, Distribution]:
    """The values that each param of ``tune.space`` may take.

    Args:
        entries: as params.yaml has them.
        target: the stage whose params are searched.
        section: its params.

    Raises:
        InputError: an entry can't be understood, or has a value that ``target`` would refuse.
    """
    stage_main, space = import_module(f"src.text.{target}").main, dict[str, Distribution]()
    kinds = [p.kind for p in signature(stage_main).parameters.values()]
    paths = ["-"] * kinds.count(Parameter.POSITIONAL_OR_KEYWORD)
    for entry in entries:
        name, *words = entry.split() or [""]
        if name in space:
            raise InputError(f"tune.space has {name} twice: leave one in params.yaml.")
        if name.split(".")[0] != target:
            raise InputError(
                f"tune.space has {entry!r}: expected a param of {target}, because others change "
                f"what is measured or come after it; write {target}.PARAM, or change tune.target."
            )
        try:
            space[name], ends = _distribution(words)
        except ValueError as error:
            raise InputError(
                f"tune.space has {entry!r}: expected {FORMS}, found: {error}; change it in "
                "params.yaml."
            ) from None
        for end in ends:  # the stage's own check and sentence
            words = words_of({**section, name.partition(".")[2]: _value(end)})
            bind(stage_main, target, True, [*paths, *words])
    if not space:
        raise InputError(f"tune.space is empty: expected {FORMS}; add one in params.yaml.")
    return space


def _distribution(words: Sequence[str]) -> tuple[Distribution, Sequence[str]]:
    """What an entry says after the param, and the values to check; ValueError if it is wrong."""
    match words:
        case ["one", *choices] if len(set(choices)) == len(choices) > 1:
            return CategoricalDistribution(choices), choices
        case ["one", *_]:
            raise ValueError("less than two different values, or one twice")
        case ["int", low, high, *scale] if scale in ([], ["log"]):
            whole = IntDistribution(int(low), int(high), log=bool(scale))
            return whole, [str(whole.low), str(whole.high)]
        case ["float", low, high, *scale] if scale in ([], ["log"]):
            real = FloatDistribution(float(low), float(high), log=bool(scale))
            return real, [str(real.low), str(real.high)]
    raise ValueError("neither of these")


def _value(text: str) -> Any:
    """What params.yaml has where it is written so."""
    try:
        return YAML(typ="safe").load(text)
    except YAMLError:
        return text


def present(space: Mapping[str, Distribution], section: Mapping[str, Any]) -> dict[str, Any]:
    """The values of params.yaml that a search may choose, as it begins with them."""
    found: dict[str, Any] = {}
    for name, distribution in space.items():
        value = section[name.partition(".")[2]]
        if isinstance(distribution, CategoricalDistribution):
            if same := [c for c in distribution.choices if _value(str(c)) == value]:
                found[name] = same[0]
        elif isinstance(value, int | float) and distribution.low <= value <= distribution.high:
            found[name] = value
    return found


def identify(target: str, metric: str, space: Mapping[str, Distribution]) -> tuple[str, str]:
    """A name for a search, of all that its figures depend on, and the file of its metric.

    Raises:
        InputError: what the target depends on is not there.
    """
    facts: dict[str, Any] = {}
    with Repo() as repo:
        stages = repo.stage.collect(target, with_deps=True)
        made = {out.fs_path for s in stages for out in s.outs}
        try:
            for dep in [dep for s in stages for dep in s.deps if dep.fs_path not in made]:
                if isinstance(dep, ParamsDependency):
                    facts |= copy.deepcopy(dep.read_params())
                else:
                    facts[str(dep)] = dep.get_hash().value
        except (DvcException, FileNotFoundError) as error:
            raise InputError(f"Expected what {target} depends on, found: {error}.") from error
        file = next(str(out) for s in stages if s.name == target for out in s.outs if out.metric)
    for name in space:
        section, _, key = name.partition(".")
        del facts[section][key]
    asked = [target, metric, {name: repr(space[name]) for name in space}, facts]
    text = json.dumps(asked, sort_keys=True, default=str)
    return f"tune-{hashlib.sha256(text.encode()).hexdigest()[:8]}", file


# The trials


def _done(study: Study) -> list[FrozenTrial]:
    """The trials that came to an end; what was stopped is tried again and does not count."""
    ended = study.get_trials(states=tuple(WORDS))
    return [t for t in ended if t.state != TrialState.FAIL or "error" in t.user_attrs]


def _best(study: Study) -> FrozenTrial | None:
    return study.best_trial if study.get_trials(states=(TrialState.COMPLETE,)) else None


def _try(
    study: Study, target: str, metric: str, file: str, space: Mapping[str, Distribution]
) -> FrozenTrial:
    """Run the next trial, or take the result of one with equal params, and tell Optuna."""
    trial = study.ask(dict(space))
    texts = {name: _text(value, space[name]) for name, value in trial.params.items()}
    trial.set_user_attr("params", texts)
    for t in _done(study):
        if t.user_attrs["params"] == texts and t.state != TrialState.FAIL:
            trial.set_user_attr("experiment", t.user_attrs["experiment"])
            trial.set_user_attr("repeated", True)
            return study.tell(trial, t.value if t.state == TrialState.COMPLETE else None, t.state)
    number, taken = trial.number + 1, {ref.name for ref in exp_refs(Git())}
    while (name := f"{study.study_name}-{number}") in taken:  # of a search whose database is gone
        number += 1
    trial.set_user_attr("experiment", name)

    code, pruned = _run(name, target, texts, trial, metric)
    if code == 0:  # also if it was through before it could be ended
        value = _measured(metric, file, name)
        if math.isfinite(value):
            return study.tell(trial, value)
        trial.set_user_attr("error", f"{metric} is {value}.")
    elif pruned:
        return study.tell(trial, state=TrialState.PRUNED)
    else:
        trial.set_user_attr("error", _error_of(_output_of(name)))
    return study.tell(trial, state=TrialState.FAIL)


def _measured(metric: str, file: str, revision: str | None = None) -> float:
    """The metric of an experiment, or of the work tree."""
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


def _run(
    name: str, target: str, params: Mapping[str, str], trial: Trial, metric: str
) -> tuple[int, bool]:
    """Run an experiment in a temporary folder of DVC's; its exit code, and if it was pruned."""
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, target]
    command += [f"--set-param={key}={value}" for key, value in params.items()]
    # To a file: a pipe that nobody reads any more would stop DVC in the midst of tidying up.
    with _output_of(name).open("wb") as file:
        process = subprocess.Popen(  # noqa: S603
            command, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    guard = subprocess.Popen(  # noqa: S603
        [sys.executable, "-ISc", GUARD, str(process.pid)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    told = re.compile(rf"step (\d+)/(\d+): .*\b{metric.replace('.', '/')} ([^,\n]+)[,\n]")
    epoch, pruned, has_ended = 0, False, False
    try:
        while not (pruned or has_ended):
            time.sleep(0.2)
            has_ended = process.poll() is not None
            for step, last, figure in told.findall(_text_of(_output_of(name)))[epoch:]:
                epoch += 1
                trial.report(float(figure), epoch)
                pruned = pruned or (step != last and trial.should_prune())
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
        process.wait()
        guard.kill()
        guard.communicate()
    return process.returncode, pruned


def _text_of(output: Path) -> str:
    return output.read_text(encoding="utf-8", errors="replace")


def _error_of(output: Path) -> str:
    """The sentence of a stage that failed, or else the last line that was printed."""
    text = _text_of(output)
    told = re.findall(r"ERROR src\.stage: (.+)", text) or re.findall(r"\S.*", text)
    return str(told[-1]) if told else "nothing was printed."


def _stop_if_trials_fail(study: Study) -> None:
    """Raise InputError after some failures in a row, or one if no trial has a figure yet."""
    last = _done(study)[-FAILURES if _best(study) else -1 :]
    if all(trial.state == TrialState.FAIL for trial in last):
        attrs = last[-1].user_attrs
        raise InputError(
            f"Expected trials to run, found that {len(last)} in a row failed, the last with: "
            f"{attrs['error']} All it printed is in {_output_of(attrs['experiment'])}."
        )


# What is left to read


def _line(trial: FrozenTrial, metric: str) -> str:
    params = ", ".join(f"{name}={text}" for name, text in trial.user_attrs["params"].items())
    figure = f"{metric} {_figure(trial)}, " if trial.value is not None else ""
    return f"{trial.user_attrs['experiment']} ({params}): {figure}{_outcome(trial)}"


def _figure(trial: FrozenTrial) -> str:
    return "" if trial.value is None else f"{trial.value:.4f}"


def _outcome(trial: FrozenTrial) -> str:
    more = {
        TrialState.COMPLETE: "",
        TrialState.PRUNED: f" after epoch {trial.last_step}",
        TrialState.FAIL: f": {trial.user_attrs.get('error')}",
    }[trial.state]
    if "repeated" in trial.user_attrs:
        more = " earlier, with equal params"
    return WORDS[trial.state] + more


def _advice(study: Study, metric: str, file: str) -> str:
    if (best := _best(study)) is None or best.value is None:
        return "No trial has a figure."
    name = best.user_attrs["experiment"]
    advice = f"`dvc exp apply {name}` brings the best into the work tree, `dvc repro` what follows."
    if not Path(file).exists():
        return advice
    now = _measured(metric, file)  # of params that the space may not hold
    sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
    if sign * best.value <= sign * now:
        return f"{advice} What is there now has {now:.4f}."
    return f"None is better than what is in the work tree, which has {now:.4f}."


def _report(
    study: Study, title: str, metric: str, file: str, space: Mapping[str, Distribution]
) -> None:
    """Write the table and the picture of a search."""
    done, order = _done(study), list(WORDS)
    sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
    done.sort(key=lambda t: (order.index(t.state), sign * (t.value or 0.0)))
    counts = [(sum(t.state == state for t in done), word) for state, word in WORDS.items()]
    rows = []
    for trial in done:
        params = [trial.user_attrs["params"][name] for name in space]
        seconds = f"{trial.duration.total_seconds():.0f}" if trial.duration else ""
        cells = [trial.user_attrs["experiment"], _figure(trial), *params, seconds, _outcome(trial)]
        rows.append([cell.replace("|", "/") for cell in cells])
    parts = [
        f"# {title}, {'lower' if sign == 1 else 'higher'} is better",
        f"Trials: {', '.join(f'{count} {word}' for count, word in counts if count) or 'none yet'}. "
        "What is pruned or failed left no experiment.",
        table(["experiment", metric, *space, "seconds", "outcome"], rows),
        _advice(study, metric, file),
    ]
    with replacing(TABLE) as path:
        path.write_text("\n\n".join(parts) + "\n", encoding="utf-8", newline="\n")
    with replacing(PICTURE) as path:
        _draw(study, title, metric, space).savefig(path, dpi=120)


def _draw(study: Study, title: str, metric: str, space: Mapping[str, Distribution]) -> Figure:
    """The metric over the trials, with the best so far, and over the values of each param."""
    columns = min(3, 1 + len(space))
    rows = math.ceil((1 + len(space)) / columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * rows), layout="constrained")
    history, *others = panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, name in zip(panels, ["trial", *space], strict=False):
        panel.set(xlabel=name, ylabel=metric)
        for state, marker, color in SHOWN:
            trials = [t for t in study.get_trials(states=(state,)) if t.value is not None]
            x, y = [t.params.get(name, t.number + 1) for t in trials], [t.value for t in trials]
            if trials:
                panel.scatter(x, y, marker=marker, color=color, label=WORDS[state], clip_on=False)
        given = space.get(name)
        if isinstance(given, FloatDistribution | IntDistribution):
            if given.log:
                ticks = np.geomspace(given.low, given.high, 3)
                panel.set_xscale("log")
                panel.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
                panel.minorticks_off()
            panel.set_xlim(given.low, given.high)  # also where nothing was tried
        elif given:
            panel.margins(x=0.3)
    for panel in others[len(space) :]:
        panel.set_axis_off()
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    better = min if study.direction == StudyDirection.MINIMIZE else max
    best = list(itertools.accumulate((t.value or 0.0 for t in complete), better))
    numbers = [t.number + 1 for t in complete]
    history.step(numbers, best, where="post", color="tab:orange", label="best so far")
    history.xaxis.get_major_locator().set_params(integer=True)
    history.legend(fontsize="small")
    figure.suptitle(title)
    return figure


if __name__ == "__main__":
    stage.run(main, arguments=read_section)
