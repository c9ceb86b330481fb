"""The table and the pictures of a search."""

import warnings
from collections.abc import Mapping
from pathlib import Path

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from src.core.files import replacing
from src.core.markdown import table
from src.core.stage import LOGS
from src.tools.tune.space import Distribution
from src.tools.tune.trials import WORDS, best, done, measured

TABLE = LOGS / "tune.md"
PICTURE = LOGS / "tune.png"
HISTORY = LOGS / "tune-history.png"


def line(trial: FrozenTrial, metric: str) -> str:
    """Tell of a trial in one line."""
    params = ", ".join(f"{name}={text}" for name, text in trial.user_attrs["params"].items())
    figure = f"{metric} {_figure(trial)}, " if trial.value is not None else ""
    return f"{trial.user_attrs['experiment']} ({params}): {figure}{_outcome(trial)}"


def _figure(trial: FrozenTrial) -> str:
    return "" if trial.value is None else f"{trial.value:.4f}"


def _outcome(trial: FrozenTrial) -> str:
    more = f": {trial.user_attrs['error']}" if trial.state == TrialState.FAIL else ""
    if "repeated" in trial.user_attrs:
        more = " earlier, with equal params"
    return WORDS[trial.state] + more


def advice(study: Study, metric: str, file: str) -> str:
    """Say what to do with the best trial, compared with what is in the work tree."""
    found = best(study)
    if found is None or found.value is None:
        return "No trial has a figure."
    name = found.user_attrs["experiment"]
    told = f"`dvc exp apply {name}` brings the best into the work tree, `dvc repro` what follows."
    if not Path(file).exists():
        return told
    now = measured(metric, file)  # of params that the space may not hold
    sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
    if sign * found.value <= sign * now:
        return f"{told} What is there now has {now:.4f}."
    return f"None is better than what is in the work tree, which has {now:.4f}."


def write(
    study: Study, title: str, metric: str, file: str, space: Mapping[str, Distribution]
) -> None:
    """Write the table and the pictures of a search."""
    ended, order = done(study), list(WORDS)
    sign = 1 if study.direction == StudyDirection.MINIMIZE else -1
    ended.sort(key=lambda t: (order.index(t.state), sign * (t.value or 0.0)))
    counts = [(sum(t.state == state for t in ended), word) for state, word in WORDS.items()]
    rows = []
    for trial in ended:
        params = [trial.user_attrs["params"][name] for name in space]
        seconds = f"{trial.duration.total_seconds():.0f}" if trial.duration else ""
        cells = [trial.user_attrs["experiment"], _figure(trial), *params, seconds, _outcome(trial)]
        rows.append([cell.replace("|", "/") for cell in cells])
    parts = [
        f"# {title}, {'lower' if sign == 1 else 'higher'} is better",
        f"Trials: {', '.join(f'{count} {word}' for count, word in counts if count) or 'none yet'}. "
        "A failed trial leaves no experiment.",
        table(["experiment", metric, *space, "seconds", "outcome"], rows),
        advice(study, metric, file),
    ]
    with replacing(TABLE) as path:
        path.write_text("\n\n".join(parts) + "\n", encoding="utf-8", newline="\n")
    if best(study):
        _draw(study, metric)


def _draw(study: Study, metric: str) -> None:
    """Draw the metric over the values of each param, and over the trials."""
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
