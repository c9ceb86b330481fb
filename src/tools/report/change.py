"""The change of a model between two revisions, and the gate that it must pass."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.metrics import accuracy_score, f1_score

from src.core.command_line import Count, Interval, Seed, Share
from src.core.errors import InputError, closest
from src.metrics import answers, bootstrap, imbalance, spans
from src.metrics.classification import Floats, Integers
from src.project import params
from src.tables import examples
from src.tables.schema import ID
from src.tools.report.revision import Revision, folder_of

# Those of texts, those of tables, whose classes may be of very unequal size, and those of answers.
Metric = Literal[
    "accuracy",
    "macro_f1",
    "average_precision",
    "roc_auc",
    "balanced_accuracy",
    "f1",
    "right",
    "loss",
    "exact_match",
    "token_f1",
]
METRICS_OF_TEXTS = ("accuracy", "macro_f1")
# The columns that answers have been judged in, by the metric: of written ones, and of spans.
METRICS_OF_ANSWERS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("right", "loss"), ("right", "loss", "tokens")),
    **dict.fromkeys(spans.FIGURES, spans.FIGURES),
}
FIGURES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "average_precision": "average precision",
    "roc_auc": "ROC AUC",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "log_loss": "log loss",
    "ece": "ECE",
    "right": "right answers",
    "loss": "loss",
    "exact_match": "exact match",
    "token_f1": "F1 of words",
}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """A section ``report`` of a params.yaml: its sentences are there."""

    models: list[str]
    metric: Metric
    max_drop: Annotated[float, Interval(ge=0, le=1)]  # of the loss, by how much it may rise
    resamples: Count
    confidence: Share
    seed: Seed

    @property
    def figure(self) -> str:
        """Name the metric, in a sentence."""
        return FIGURES[self.metric]

    @property
    def falling(self) -> bool:
        """Tell whether less of the metric is better."""
        return self.metric in answers.LOWER

    def lost(self, was: float, now: float | None) -> float:
        """Say what was lost of the metric: below 0 if some was won, without end if it is gone."""
        if now is None or not math.isfinite(now):
            return math.inf
        return now - was if self.falling else was - now


@dataclass(frozen=True)
class Change:
    """The effect of a change on a model, on the test texts that both revisions have."""

    texts: int  # their number
    before: float  # the metric of the gate on them; NaN if they lack a class that it needs
    after: float
    low: float  # the interval of the difference, by the paired bootstrap
    high: float
    p_value: float  # of "there is no difference"
    fixed: int  # texts that are right now and were wrong
    broken: int  # the other way round
    moved: int  # texts that have another predicted label
    alone: tuple[int, int]  # test texts of the one revision and of the other alone
    same: bool = False  # whether dvc.lock has the same predictions for both, which nobody need read
    falling: bool = False  # whether less of the metric is better

    @property
    def judged(self) -> bool:
        """Tell whether there is a verdict."""
        return self.same or (self.texts > 0 and not math.isnan(self.before))

    @property
    def verdict(self) -> str:
        """Say better, worse or no real difference: whether the interval leaves 0 out."""
        if self.low > 0:
            return "worse" if self.falling else "better"
        if self.high < 0:
            return "better" if self.falling else "worse"
        return "no real difference"


SAME = Change(0, math.nan, math.nan, 0.0, 0.0, 1.0, 0, 0, 0, (0, 0), same=True)


def read_gates(before: Revision, after: Revision) -> dict[str, Gate]:
    """Read the gate of each pipeline from the work tree's params.yaml beside it, by its folder.

    Their models are named as those of a revision. A pipeline that has none is judged as the root's
    is; one that ``after`` has not run has no models.

    Raises:
        InputError: a param is missing, stray, or not what it may be, or ``after`` does not evaluate
            a model or figure that a gate names.
    """
    gates: dict[str, Gate] = {}
    for folder in dict.fromkeys([".", *map(folder_of, [*after.models, *before.models])]):
        file = Path(folder) / params.PARAMS
        sections = params.read(file) if folder == "." or file.exists() else {}
        if folder == "." or "report" in sections:
            gate = Gate(**params.typed(Gate, sections["report"]))
            gates[folder] = _checked(gate, folder, file, after)
        else:
            gates[folder] = replace(gates["."], models=[])
    return gates


def _checked(gate: Gate, folder: str, file: Path, after: Revision) -> Gate:
    ran = [model for model in after.models if folder_of(model) == folder]
    if not ran:
        return replace(gate, models=[])
    known = {PurePosixPath(model).name: model for model in ran}
    called = known | {model: model for model in ran}  # as on the page
    for name in gate.models:
        if name not in called and name in after.models:
            place = Path(folder_of(name)) / params.PARAMS
            raise InputError(
                f"report.models in {file} has {name!r}, a model of another pipeline: write "
                f"{PurePosixPath(name).name} into the section report of {place}."
            )
        if name not in called:
            raise InputError(
                f"report.models has {name!r}, which {after.name} does not evaluate"
                f"{closest(name, known)}: write models of {', '.join(known)} in {file}."
            )
    for model in ran:
        figures = after.figures(model)
        if figures and gate.metric not in figures:
            measured = [metric for metric in get_args(Metric) if metric in figures]
            raise InputError(
                f"report.metric is {gate.metric!r}, of which {model} has no figure in "
                f"{after.name}: write one of {', '.join(measured)} in {file}."
            )
    return replace(gate, models=[called[name] for name in gate.models])


def compare(model: str, before: Revision, after: Revision, gate: Gate) -> Change | None:
    """Judge a model by the predictions of both revisions; None if a file of them is not at hand."""
    was, now = (_predictions(model, side) for side in (before, after))
    if was == now != "":
        return SAME
    same, frames = same_splits(model, before, after), []
    answered = METRICS_OF_ANSWERS.get(gate.metric, ())
    positive = "" if answered or gate.metric in METRICS_OF_TEXTS else after.positive(model)
    for side in (before, after):
        paths = side.models[model]
        frame = side.frame(f"{paths['predictions']}/predictions.parquet")
        if frame is not None:
            wanted = ("id", "label", "predicted", *(("text", *answered) if answered else ()))
            frame = frame[[c for c in map(str, frame) if c in wanted or c.startswith("p_")]]
            if not {*answered} <= {*frame}:  # of before they were judged one by one
                frame = None
        if frame is not None and not same and not answered:  # which have their text themselves
            # Where the source has no ids, its rows are numbered: an id alone may be another row.
            rows = side.frame(f"{paths['splits']}/test.parquet")
            frame = None if rows is None else frame.merge(_content(rows, paths["rows"]), on="id")
        if frame is not None:
            frames.append(frame)
    if len(frames) < 2 or positive is None:
        return None
    return judge(frames[0], frames[1], gate, positive)


def _content(rows: pd.DataFrame, called: str) -> pd.DataFrame:
    """Return the id of each row, and as its text what tells it from another of that id."""
    if called == "texts":
        return rows[["id", "text"]]
    columns = {str(name): pa.array(rows[name], from_pandas=True) for name in rows if name != ID}
    return pd.DataFrame({"id": rows[ID], "text": examples.hash_rows(columns)})


def _predictions(model: str, side: Revision) -> str:
    """Return the hash of a model's predictions, which have the labels too, by dvc.lock; or ""."""
    paths = side.models[model]
    return side.hashes(paths["stage"], "outs").get(paths["predictions"], "")


def same_splits(model: str, before: Revision, after: Revision) -> bool:
    """Tell whether both revisions judged a model on the same splits, by dvc.lock."""
    was, now = (
        side.hashes(side.models[model]["stage"], "deps").get(side.models[model]["splits"])
        for side in (before, after)
    )
    return was == now


def failing(
    before: Revision, after: Revision, changes: Mapping[str, Change | None], gate: Gate
) -> list[str]:
    """List the models of the gate that lost more than it allows.

    Beyond chance; where predictions are not at hand, by the committed figures alone, if they are of
    the same texts.
    """
    failed = []
    for model in gate.models:
        if change := changes.get(model):
            gone = change.judged and not change.same and not math.isfinite(change.after)
            worse = gone or change.verdict == "worse"
            lost = gate.lost(change.before, change.after) if worse else 0.0
        elif model in changes and same_splits(model, before, after):
            was, now = (side.figures(model).get(gate.metric) for side in (before, after))
            lost = 0.0 if was is None else gate.lost(was, now)
        else:
            lost = 0.0
        if lost > gate.max_drop:
            failed.append(model)
    return failed


def judge(before: pd.DataFrame, after: pd.DataFrame, gate: Gate, positive: str = "") -> Change:
    """Compare predictions for the same texts: same id and label, and text where there is one.

    Source: the paired bootstrap of ``metrics.bootstrap``; both sides see the same resampled texts.

    Args:
        before: columns ``id label predicted``, ``text`` if the same id may be another text, and
            ``p_LABEL``, the probability of each label, for a metric of tables, or those of
            ``METRICS_OF_ANSWERS`` for one of answers.
        after: the same columns.
        gate: the metric and the bootstrap.
        positive: the label that such a metric is about; "" for the mean over all labels.

    Returns:
        The change; one of 0 texts if they have none in common.
    """
    keys = [c for c in before if c in ("id", "label", "text") and c in after]
    first, second = (
        frame.rename(columns={c: f"{c}_{side}" for c in frame if c not in keys})
        for side, frame in enumerate((before, after))
    )
    both = first.merge(second, on=keys)
    alone = (len(before) - len(both), len(after) - len(both))
    if both.empty:
        return Change(0, 0.0, 0.0, 0.0, 0.0, 1.0, 0, 0, 0, alone)
    if gate.metric in METRICS_OF_ANSWERS:
        return _of_answers(both, gate, alone)
    columns = ("label", "predicted_0", "predicted_1")
    names = sorted({str(name) for column in columns for name in both[column]})
    if gate.metric in METRICS_OF_TEXTS:
        labels, was, now = (_classes(both[column], names) for column in columns)
        points, difference = _of_decisions(labels, was, now, len(names), gate)
    else:
        shares = {c[2:] for frame in (before, after) for c in map(str, frame) if c.startswith("p_")}
        names = sorted({*names, *shares})
        labels, was, now = (_classes(both[column], names) for column in columns)
        probabilities = [_probabilities(both, names, side) for side in (0, 1)]
        if positive and positive not in names:  # the schema is of a split that nothing judged yet
            points, difference = [math.nan] * 2, np.zeros(1)
        else:
            wanted = names.index(positive) if positive else None
            points, difference = _of_probabilities(labels, probabilities, [was, now], wanted, gate)
    low, high, p_value = _by_chance(difference, gate)
    fixed = int(((now == labels) & (was != labels)).sum())
    broken = int(((was == labels) & (now != labels)).sum())
    moved, texts = int((was != now).sum()), len(both)
    return Change(texts, points[0], points[1], low, high, p_value, fixed, broken, moved, alone)


def _by_chance(difference: Floats, gate: Gate) -> tuple[float, float, float]:
    """Return the interval of a difference that was drawn anew, and its p value."""
    if not difference.any():
        return 0.0, 0.0, 1.0
    return *bootstrap.interval(difference, gate.confidence), bootstrap.p_value(difference)


def _of_answers(both: pd.DataFrame, gate: Gate, alone: tuple[int, int]) -> Change:
    """Compare answers to the same questions, which have been judged already."""
    judged = METRICS_OF_ANSWERS[gate.metric]
    was, now = (pd.DataFrame({name: both[f"{name}_{side}"] for name in judged}) for side in (0, 1))
    if gate.metric in spans.FIGURES:
        points = [spans.figures(side)[gate.metric] for side in (was, now)]
        first, second = (spans.drawn(side, gate.resamples, gate.seed) for side in (was, now))
        drawn = second[gate.metric] - first[gate.metric]
    else:
        points = [answers.figures(side)[gate.metric] for side in (was, now)]
        drawn = answers.differences(was, now, gate.resamples, gate.seed)[gate.metric][1]
    low, high, p_value = _by_chance(drawn, gate)
    right_before, right_now = (side[judged[0]].astype(bool) for side in (was, now))
    fixed = int((right_now & ~right_before).sum())
    broken = int((right_before & ~right_now).sum())
    moved = int((both["predicted_0"] != both["predicted_1"]).sum())
    found = (points[0], points[1], low, high, p_value, fixed, broken, moved, alone)
    return Change(len(both), *found, falling=gate.falling)


def _classes(column: "pd.Series[str]", names: list[str]) -> Integers:
    return examples.label_ids(pd.DataFrame({"label": column}), names)


def _probabilities(both: pd.DataFrame, names: list[str], side: int) -> Floats:
    columns = [f"p_{name}_{side}" for name in names]
    return both.reindex(columns=columns, fill_value=0.0).to_numpy()


def _of_decisions(
    labels: Integers, was: Integers, now: Integers, classes: int, gate: Gate
) -> tuple[list[float], Floats]:
    """Measure both sides, and the difference each time that the texts are drawn anew."""
    score = accuracy_score if gate.metric == "accuracy" else partial(f1_score, average="macro")
    points = [float(score(labels, side)) for side in (was, now)]
    if (was == now).all():
        return points, np.zeros(1)
    drawn = bootstrap.bootstrap(labels, [was, now], classes, gate.resamples, gate.seed)
    return points, drawn[gate.metric][1] - drawn[gate.metric][0]


def _of_probabilities(
    labels: Integers,
    probabilities: list[Floats],
    decided: list[Integers],
    positive: int | None,
    gate: Gate,
) -> tuple[list[float], Floats]:
    """Do the same for the metrics of tables; NaN where the labels lack a class that it needs."""
    points = []
    for shares, classes in zip(probabilities, decided, strict=True):
        ranked = gate.metric in imbalance.RANKING
        figures = (
            imbalance.order(labels, shares, positive)
            if ranked
            else imbalance.decided(labels, classes, positive)
        )
        points.append(figures.get(gate.metric, math.nan))
    if math.isnan(points[0]) or all(
        np.array_equal(was, now) for was, now in (probabilities, decided)
    ):
        return points, np.zeros(1)
    drawn = imbalance.resampled(labels, probabilities, decided, positive, gate.resamples, gate.seed)
    difference = drawn[gate.metric][1] - drawn[gate.metric][0]
    measured = difference[~np.isnan(difference)]  # in some draws a class has no row
    return (points, measured) if len(measured) else ([math.nan] * 2, np.zeros(1))
