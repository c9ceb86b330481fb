"""Search params for a better validation metric: Optuna chooses, DVC experiments keep the tries.

    python -m src.tools.tune
    python -m src.tools.tune tabular/dvc.yaml --n_trials 50

Each trial is `dvc exp run --temp` of one stage, so that it can be shown, applied, branched and
pushed like any other experiment. The section `tune` of the params.yaml beside a dvc.yaml says what
is searched; an option on the command line overrides it. A search that was stopped goes on when it
is started again, as long as what its trials are made from has stayed the same.
"""

import logging
import signal
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from src.core import stage
from src.core.command_line import Count, Natural, Seed, bind
from src.core.errors import InputError, closest
from src.core.files import replacing
from src.core.markdown import table
from src.core.processes import alone
from src.core.stage import LOGS
from src.project import graph, params
from src.tools.doctor.repository import not_kept, shallow
from src.tools.tune import trials
from src.tools.tune.trials import (
    FALLING,
    WORDS,
    Metric,
    Search,
    best,
    done,
    identify,
    present,
    read_space,
)

TARGETS = (  # which train a model
    *("baseline", "linear", "probe", "train"),
    *("forest", "boosting"),
    *("lora", "ptuning", "full"),
)

STORAGE = LOGS / "tune.db"
TABLE = LOGS / "tune.md"
PICTURE = LOGS / "tune.png"
HISTORY = LOGS / "tune-history.png"

log = logging.getLogger("src.tools.tune")


def main(
    pipeline: str,
    *,
    target: str,
    metric: Metric,
    space: list[str],
    n_trials: Count,
    n_startup_trials: Natural,
    seed: Seed,
) -> None:
    """Search until there are ``n_trials`` trials, and write logs/tune.md and its pictures.

    Args:
        pipeline: the dvc.yaml of the stage, by its path from the root.

    Raises:
        InputError: the section asks for what can't be searched, or trials fail.
    """
    # A shell without job control starts what runs in the background with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with graph.project() as repo:
        for lack in (*shallow(), *not_kept(repo, [*graph.outs_of(repo)])):
            raise InputError(lack)
    known = [name for name in graph.modules(pipeline) if name in TARGETS]
    if target not in known:
        raise InputError(
            f"tune.target is {target!r}, which trains no model in {pipeline}"
            f"{closest(target, known)}: write one of {', '.join(known) or 'another pipeline'} into "
            f"{params.file_beside(pipeline)}."
        )
    section = params.read(Path(params.file_beside(pipeline)))[target]
    search = Search(pipeline, target, metric, read_space(space, target, section, pipeline))
    name, file = identify(search)
    if Path(file).exists():
        trials.measured(metric, file)  # or say that the stage has no such metric
    # One at a time, of whichever pipeline: a page is of one, and a trial stashes the work tree.
    with alone(LOGS / ".tune.lock", "searches params"):
        study = _open(name, metric, present(search.space, section))
        try:
            while (number := len(done(study)) + 1) <= n_trials:
                if identify(search)[0] != name:
                    raise InputError(
                        f"The code, data or params that {name} began with have changed: put them "
                        f"back to continue it, or run `{search.command}` for a new search."
                    )
                # Seeded anew each time, so that a search that goes on draws no value twice.
                study.sampler = optuna.samplers.TPESampler(
                    n_startup_trials=n_startup_trials, seed=(seed + len(study.trials)) % 2**32
                )
                tried = trials.run_next(study, search, file)
                log.info("trial %d of %d: %s", number, n_trials, line(tried, metric))
                trials.stop_if_trials_fail(study)
        except KeyboardInterrupt:
            log.error(
                "Interrupted after %d of %d trials: run `%s` to continue.",
                *(len(done(study)), n_trials, search.command),
            )
            sys.exit(130)
        finally:
            write_page(study, search, file)
        log.info("%s has %d trials: %s", name, len(done(study)), advice(study, search, file))


def _open(name: str, metric: str, first: Mapping[str, Any]) -> Study:
    """Open a search, with the params of its first or its stopped trial as the next."""
    study = optuna.create_study(
        storage=f"sqlite:///{STORAGE}",
        study_name=name,
        direction="minimize" if metric in FALLING else "maximize",
        load_if_exists=True,
    )
    if not study.trials:
        study.enqueue_trial(dict(first))
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # when a search was stopped
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def line(trial: FrozenTrial, metric: str) -> str:
    """Tell of a trial in one line."""
    tried = ", ".join(f"{name}={text}" for name, text in trial.user_attrs["params"].items())
    figure = f"{metric} {_figure(trial)}, " if trial.value is not None else ""
    return f"{trial.user_attrs['experiment']} ({tried}): {figure}{_outcome(trial)}"


def _figure(trial: FrozenTrial) -> str:
    return "" if trial.value is None else f"{trial.value:.4f}"


def _outcome(trial: FrozenTrial) -> str:
    more = f": {trial.user_attrs['error']}" if trial.state == TrialState.FAIL else ""
    if "repeated" in trial.user_attrs:
        more = " earlier, with equal params"
    return WORDS[trial.state] + more


def advice(study: Study, search: Search, file: str) -> str:
    """Say what to do with the best trial, compared with what is in the work tree."""
    found = best(study)
    if found is None or found.value is None:
        return "No trial has a figure."
    name = found.user_attrs["experiment"]
    repro = graph.repro([search.stage])
    further = search.pipeline != graph.PIPELINE
    told = f"`dvc exp apply {name}` brings the best into the work tree, `{repro}` what follows."
    if further:
        told += " DVC ends the first with an error where another pipeline never ran."
    if not Path(file).exists():
        return told
    now = trials.measured(search.metric, file)  # of params that the space may not hold
    sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
    if sign * found.value <= sign * now:
        return f"{told} What is there now has {now:.4f}."
    return f"None is better than what is in the work tree, which has {now:.4f}."


def write_page(study: Study, search: Search, file: str) -> None:
    """Write the table and the pictures of a search."""
    ended, order = done(study), list(WORDS)
    sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
    ended.sort(key=lambda t: (order.index(t.state), sign * (t.value or 0.0)))
    counts = [(sum(t.state == state for t in ended), word) for state, word in WORDS.items()]
    rows = []
    for trial in ended:
        values = [trial.user_attrs["params"][name] for name in search.space]
        seconds = f"{trial.duration.total_seconds():.0f}" if trial.duration else ""
        cells = [trial.user_attrs["experiment"], _figure(trial), *values, seconds, _outcome(trial)]
        rows.append([cell.replace("|", "/") for cell in cells])
    parts = [
        f"# {study.study_name}: {search.metric} of {search.stage}, "
        f"{'lower' if sign == 1 else 'higher'} is better",
        f"Trials: {', '.join(f'{count} {word}' for count, word in counts if count) or 'none yet'}. "
        "A failed trial leaves no experiment.",
        table(["experiment", search.metric, *search.space, "seconds", "outcome"], rows),
        advice(study, search, file),
    ]
    with replacing(TABLE) as path:
        path.write_text("\n\n".join(parts) + "\n", encoding="utf-8", newline="\n")
    if best(study):
        _draw(study, search.metric)


def _draw(study: Study, metric: str) -> None:
    from matplotlib import pyplot
    from optuna.visualization.matplotlib import plot_optimization_history, plot_slice

    pyplot.switch_backend("agg")  # no window
    with warnings.catch_warnings():
        # Optuna warns that the plots are experimental, matplotlib that one trial spans no axis.
        warnings.simplefilter("ignore")
        for picture, draw in ((PICTURE, plot_slice), (HISTORY, plot_optimization_history)):
            draw(study, target_name=metric)
            for axes in pyplot.gcf().axes:  # labels of a logarithmic scale are long
                axes.tick_params("x", which="both", rotation=90)
            with replacing(picture) as path:
                pyplot.savefig(path, dpi=120, bbox_inches="tight")
            pyplot.close()


def words() -> list[str]:
    """Give the pipeline, the words that DVC would make of its section, and those typed here.

    Raises:
        InputError: there is no such pipeline, or what it or the command line says can't be.
    """
    typed, pipeline = sys.argv[1:], graph.PIPELINE
    named = [word for word in typed if Path(word).name == graph.PIPELINE]
    named = named or [word for word in typed[:1] if not word.startswith("-")]
    if named:
        pipeline = Path(named[0]).as_posix()
        with graph.project() as repo:
            known = graph.pipelines(repo)
        if pipeline not in known or len(named) > 1:
            raise InputError(
                f"{' '.join(named)!r} is no pipeline{closest(pipeline, known)}: name one of "
                f"{', '.join(known)}, seen from the root of the project."
            )
    file = params.file_beside(pipeline)
    section = params.words_of(params.read(Path(file))["tune"])
    found = [pipeline, *section, *(word for word in typed if word not in named)]
    bind(main, "tune", True, found, f"{file} or on the command line")
    return found


if __name__ == "__main__":
    stage.run(main, exclusive=False, arguments=words)
