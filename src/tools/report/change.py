"""Two sides of a comparison, the change of a model between them, and the gate that it must pass.

A side is a commit, an experiment or the work tree, read from git and DVC without a checkout.
"""

import json
import logging
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import dvc.api
import pandas as pd
from dvc.exceptions import DvcException
from sklearn.metrics import accuracy_score, f1_score

from src.core.command_line import Count, Interval, Seed, Share
from src.core.errors import InputError
from src.metrics import bootstrap
from src.project import git, params
from src.project.graph import LOCK, lock_of, pipelines, sentence, stages_of_lock
from src.tables import examples

WORK_TREE = "workspace"  # as DVC calls it
EVALUATE = r"src\.(\w+\.)?evaluate"  # the module of the stage that judges a model
FIGURES = {"accuracy": "accuracy", "macro_f1": "macro F1", "log_loss": "log loss", "ece": "ECE"}

log = logging.getLogger("src.tools.report")


class Revision:
    """One side of the comparison."""

    def __init__(self, name: str) -> None:
        """Open a git revision or experiment, or the work tree.

        Raises:
            InputError: there is no such revision, or it holds no ``dvc.lock`` that can be read.
        """
        tree = name == WORK_TREE
        if not tree and (above := git.run("rev-parse", "--show-prefix").stdout.strip()):
            raise InputError(
                f"A report needs a project that is a git repository of its own, and this one is "
                f"the folder {above} of one, where DVC can't open another revision: compare the "
                f"figures by `dvc metrics diff {name}`."
            )
        try:
            self._files = dvc.api.DVCFileSystem(rev=None if tree else name)
            self.sha = None if tree else self._files.repo.get_rev()  # of its commit
        except DvcException as error:
            raise InputError(
                f"{name!r} is no git revision or experiment of this repository "
                f"({sentence(error)}): `git log --oneline --all` and `dvc exp list` show what "
                "there is."
            ) from None
        # A sha is as long as nobody reads it, and git and DVC know its first seven characters.
        self.name = "work tree" if tree else re.sub(r"^([0-9a-f]{7})[0-9a-f]{33}$", r"\1", name)
        self.missing: dict[str, str] = {}  # why a file could not be read, by its path
        lock = self.text(LOCK)
        if lock is None:
            raise InputError(
                f"{name} has no dvc.lock: run `dvc repro` there and commit it, or name a revision "
                "that has one."
            )
        try:
            self.stages = stages_of_lock(lock)
            for path in map(lock_of, pipelines(self._files.repo)[1:]):  # the first is of the root
                self.stages |= stages_of_lock(self.text(path) or "stages: {}", path)
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from None
        except DvcException as error:
            raise InputError(
                f"DVC can't read the pipeline of {self.name} ({sentence(error)}): correct it there."
            ) from None

    @cached_property
    def models(self) -> dict[str, dict[str, str]]:
        """Find the stage and paths of each evaluated model, by the signature of ``evaluate``."""
        found = {}
        for name, entry in self.stages.items():
            words = shlex.split(entry["cmd"])
            # Old locks have src.evaluate, from when a stage stood in no folder.
            if words[:2] == ["python", "-m"] and re.fullmatch(EVALUATE, words[2]):
                splits, _, predictions, live = words[3:7]
                paths = {"splits": splits, "predictions": predictions, "live": live}
                found[Path(predictions).name] = {"stage": name, **paths}
        return found

    def params(self) -> dict[str, Any]:
        """Read the params by section, of every params file of the pipeline."""
        try:
            found: dict[str, Any] = dvc.api.params_show(rev=self.sha)
        except DvcException as error:
            raise InputError(
                f"DVC can't read the params of {self.name} ({sentence(error)}): correct "
                "params.yaml."
            ) from None
        return found

    def hashes(self, name: str, kind: Literal["deps", "outs"]) -> dict[str, str]:
        """Read the hash of each dependency or output of a stage, by its path."""
        return {item["path"]: str(item.get("md5")) for item in self.stages[name].get(kind, [])}

    def text(self, path: str) -> str | None:
        """Read a text file; None if there is none."""
        try:
            return str(self._files.read_text(path, encoding="utf-8"))
        except OSError as error:
            self.missing[path] = str(error.strerror or error)
            return None

    def json(self, path: str) -> dict[str, Any]:
        """Read a JSON object; an empty one if there is no such file."""
        found: dict[str, Any] = json.loads(self.text(path) or "{}")
        return found

    def figures(self, model: str) -> dict[str, float]:
        """Read the figures of a model on the test split, as they were committed."""
        found: dict[str, float] = self.json(f"{self.models[model]['live']}/metrics.json").get(
            "test", {}
        )
        return found

    def frame(self, path: str, columns: Sequence[str]) -> pd.DataFrame | None:
        """Read columns of examples from DVC's cache or its remote; None if they are in neither."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "examples.parquet"
            try:
                self._files.get_file(path, str(copy))
            # What is raised without credentials or a network is of the remote's own library.
            except Exception as error:
                self.missing[path] = sentence(error)
                log.warning("%s of %s: %s", path, self.name, self.missing[path])
                return None
            return examples.read(copy)[list(columns)]


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
        columns = ["id", "label", "predicted"]
        frame = side.frame(f"{paths['predictions']}/predictions.parquet", columns)
        if frame is not None and not same:
            # Where the source has no ids, its rows are numbered: an id alone may be another text.
            texts = side.frame(f"{paths['splits']}/test.parquet", ["id", "text"])
            frame = None if texts is None else frame.merge(texts, on="id")
        if frame is not None:
            frames.append(frame)
    return judge(frames[0], frames[1], gate) if len(frames) == 2 else None


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
