"""The change of a model between two revisions, and the gate that it must pass."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import pandas as pd
import pyarrow as pa
from sklearn.metrics import accuracy_score, f1_score

from src.core.command_line import Count, Interval, Seed, Share
from src.metrics import bootstrap
from src.project import params
from src.tables import examples
from src.tables.schema import ID
from src.tools.report.revision import Revision

FIGURES = {  # those of texts, and those of tables
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "average_precision": "average precision",
    "roc_auc": "ROC AUC",
    "balanced_accuracy": "balanced accuracy",
    "f1": "F1",
    "log_loss": "log loss",
    "ece": "ECE",
}


@dataclass(frozen=True, kw_only=True)
class Gate:
    """The section ``report`` of params.yaml: its sentences are there."""

    models: list[str]
    metric: Literal["accuracy", "macro_f1"]
    max_drop: Annotated[float, Interval(ge=0, le=1)]
    resamples: Count
    confidence: Share
    seed: Seed

    @property
    def figure(self) -> str:
        """Name the metric, in a sentence."""
        return FIGURES[self.metric]


@dataclass(frozen=True)
class Change:
    """The effect of a change on a model, on the test texts that both revisions have."""

    texts: int  # their number
    before: float  # the metric of the gate on them
    after: float
    low: float  # the interval of the difference, by the paired bootstrap
    high: float
    p_value: float  # of "there is no difference"
    fixed: int  # texts that are right now and were wrong
    broken: int  # the other way round
    moved: int  # texts that have another predicted label
    alone: tuple[int, int]  # test texts of the one revision and of the other alone

    @property
    def verdict(self) -> str:
        """Say better, worse or no real difference: whether the interval leaves 0 out."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no real difference"

    @property
    def loss(self) -> float:
        """Give what was lost of the metric, beyond chance; 0 if nothing was."""
        return self.before - self.after if self.verdict == "worse" else 0.0


def read_gate() -> Gate:
    """Read the gate from the work tree's params.yaml, checked as a stage's params are.

    Raises:
        InputError: a param is missing, stray, or not what it may be.
    """
    return Gate(**params.typed(Gate, params.read()["report"]))


def compare(model: str, before: Revision, after: Revision, gate: Gate) -> Change | None:
    """Judge a model by the predictions of both revisions; None if a file of them is not at hand."""
    same, frames = same_splits(model, before, after), []
    for side in (before, after):
        paths = side.models[model]
        frame = side.frame(f"{paths['predictions']}/predictions.parquet")
        if frame is not None:
            frame = frame[["id", "label", "predicted"]]
        if frame is not None and not same:
            # Where the source has no ids, its rows are numbered: an id alone may be another row.
            rows = side.frame(f"{paths['splits']}/test.parquet")
            frame = None if rows is None else frame.merge(_content(rows, paths["rows"]), on="id")
        if frame is not None:
            frames.append(frame)
    return judge(frames[0], frames[1], gate) if len(frames) == 2 else None


def _content(rows: pd.DataFrame, called: str) -> pd.DataFrame:
    """Return the id of each row, and as its text what tells it from another of that id."""
    if called == "texts":
        return rows[["id", "text"]]
    columns = {str(name): pa.array(rows[name], from_pandas=True) for name in rows if name != ID}
    return pd.DataFrame({"id": rows[ID], "text": examples.hash_rows(columns)})


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
            lost = change.loss
        elif model in changes and same_splits(model, before, after):
            was, now = (side.figures(model).get(gate.metric, 0.0) for side in (before, after))
            lost = was - now
        else:
            lost = 0.0
        if lost > gate.max_drop:
            failed.append(model)
    return failed


def judge(before: pd.DataFrame, after: pd.DataFrame, gate: Gate) -> Change:
    """Compare predictions for the same texts: same id and label, and text where there is one.

    Source: the paired bootstrap of ``metrics.bootstrap``; both sides see the same resampled texts.

    Args:
        before: columns ``id label predicted``, and ``text`` if the same id may be another text.
        after: the same columns.
        gate: the metric and the bootstrap.

    Returns:
        The change; one of 0 texts if they have none in common.
    """
    keys = [column for column in before if column != "predicted"]
    both = before.merge(after, on=keys, suffixes=("_before", "_after"))
    alone = (len(before) - len(both), len(after) - len(both))
    if both.empty:
        return Change(0, 0.0, 0.0, 0.0, 0.0, 1.0, 0, 0, 0, alone)
    columns = ("label", "predicted_before", "predicted_after")
    names = sorted({str(name) for column in columns for name in both[column]})
    labels, was, now = (examples.label_ids(both.assign(label=both[c]), names) for c in columns)
    score = accuracy_score if gate.metric == "accuracy" else partial(f1_score, average="macro")
    points = [float(score(labels, side)) for side in (was, now)]
    moved = int((was != now).sum())
    low, high, p_value = 0.0, 0.0, 1.0
    if moved:
        scores = bootstrap.bootstrap(labels, [was, now], len(names), gate.resamples, gate.seed)
        difference = scores[gate.metric][1] - scores[gate.metric][0]
        low, high = bootstrap.interval(difference, gate.confidence)
        p_value = bootstrap.p_value(difference)
    fixed = int(((now == labels) & (was != labels)).sum())
    broken = int(((was == labels) & (now != labels)).sum())
    texts = len(both)
    return Change(texts, points[0], points[1], low, high, p_value, fixed, broken, moved, alone)
