"""Search params for a better validation metric: Optuna chooses, DVC experiments keep the tries.

    python -m src.tools.tune
    python -m src.tools.tune --n_trials 50

Each trial is `dvc exp run --temp` of one stage, so that it can be shown, applied, branched and
pushed like any other experiment. The section `tune` of params.yaml says what is searched; an option
on the command line overrides it. A search that was stopped goes on when it is started again, as
long as what its trials are made from has stayed the same.
"""

import logging
import signal
import sys
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import optuna
from optuna.study import Study
from optuna.trial import TrialState

from src.core import stage
from src.core.command_line import Count, Interval, Seed
from src.core.errors import InputError
from src.core.stage import LOGS
from src.project import graph, params
from src.tools.doctor.repository import not_kept
from src.tools.tune import page, trials
from src.tools.tune.space import identify, present, read_space

Natural = Annotated[int, Interval(ge=0)]
# A test metric would no longer test the best of many, so there is none among these.
Metric = Literal[
    "validation.accuracy",
    "validation.macro_f1",
    "validation.weighted_f1",
    "validation.log_loss",
    "validation.ece",
]
FALLING = ("validation.log_loss", "validation.ece")  # where lower is better

STORAGE = LOGS / "tune.db"

log = logging.getLogger("src.tools.tune")


def main(
    *,
    target: Literal["baseline", "train"],
    metric: Metric,
    space: list[str],
    n_trials: Count,
    n_startup_trials: Natural,
    seed: Seed,
) -> None:
    """Search until there are ``n_trials`` trials, and write logs/tune.md and its pictures.

    Raises:
        InputError: the section asks for what can't be searched, or trials fail.
    """
    # A shell without job control starts what runs in the background with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with graph.project() as repo:
        for lack in not_kept(repo, [*graph.outs_of(repo)]):
            raise InputError(lack)
    section = params.read()[target]
    searched = read_space(space, target, section)
    name, file = identify(target, metric, searched)
    study = _open(name, metric, present(searched, section))
    try:
        while (number := len(trials.done(study)) + 1) <= n_trials:
            if identify(target, metric, searched)[0] != name:
                raise InputError(
                    f"The code, data or params that {name} began with have changed: put them back "
                    "to continue it, or run `python -m src.tools.tune` for a new search."
                )
            # Seeded anew each time, so that a search that goes on draws no value twice.
            study.sampler = optuna.samplers.TPESampler(
                n_startup_trials=n_startup_trials, seed=(seed + len(study.trials)) % 2**32
            )
            tried = trials.run_next(study, target, metric, file, searched)
            log.info("trial %d of %d: %s", number, n_trials, page.line(tried, metric))
            trials.stop_if_trials_fail(study)
    except KeyboardInterrupt:
        log.error(
            "Interrupted after %d of %d trials: run `python -m src.tools.tune` to continue.",
            *(len(trials.done(study)), n_trials),
        )
        sys.exit(130)
    finally:
        page.write(study, f"{name}: {metric} of {target}", metric, file, searched)
    advice = page.advice(study, metric, file)
    log.info("%s has %d trials: %s", name, len(trials.done(study)), advice)


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


def words() -> list[str]:
    """Give the words that DVC would make of the section, before those of the command line."""
    return [*params.words_of(params.read()["tune"]), *sys.argv[1:]]


if __name__ == "__main__":
    stage.run(main, arguments=words)
