"""Write the page that a change is reviewed by: is a model better or worse, and what else moved.

    python -m src.tools.report main
    python -m src.tools.report main my-branch

compares two revisions, or a revision with the work tree, and writes ``report/report.md`` with its
plots beside it. The section ``report`` of params.yaml is the gate: the exit code is 2 if a model of
it got worse by more than it allows. What is kept in git is read from there, and predictions and
plots from DVC's cache or its remote; nothing in the work tree changes.
"""

import json
import logging
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import dvc.api
import pandas as pd
from dvc.exceptions import DvcException
from dvc.repo import Repo
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from sklearn.metrics import accuracy_score, f1_score

from src.core import stage
from src.core.command_line import Count, Interval, Seed, Share, bind
from src.core.errors import InputError, closest
from src.core.files import replacing
from src.core.markdown import code, table, without_secrets
from src.metrics import bootstrap
from src.project.graph import lock_of, pipelines, stages_of_lock
from src.tables import examples

GATE_CLOSED = 2  # the exit code
WORK_TREE = "workspace"  # as DVC calls it
FIGURES = {"accuracy": "accuracy", "macro_f1": "macro F1", "log_loss": "log loss", "ece": "ECE"}
LONGEST = 30  # rows of a table; those that changed most come first
BROWSER, PAPER = 300, 260  # pixels of a panel
SOURCES = ("filename", "field", "filename::field")  # what DVC tells curves of several files by

log = logging.getLogger("src.tools.report")

Row = Sequence[str]


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
        """The metric, in a sentence."""
        return FIGURES[self.metric]


@dataclass(frozen=True)
class Change:
    """What a change did to a model on the test texts that both revisions have.

    Attributes:
        texts: their number.
        before, after: the metric of the gate on them.
        low, high: the interval of the difference, by the paired bootstrap.
        p_value: of "there is no difference".
        fixed, broken: texts that are right now and were wrong, and the other way round.
        moved: texts that have another predicted label.
        alone: test texts of the one revision and of the other alone.
    """

    texts: int
    before: float
    after: float
    low: float
    high: float
    p_value: float
    fixed: int
    broken: int
    moved: int
    alone: tuple[int, int]

    @property
    def verdict(self) -> str:
        """Better, worse, or no real difference: whether the interval leaves 0 out."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no real difference"

    @property
    def loss(self) -> float:
        """What was lost of the metric, beyond chance; 0 if nothing was."""
        return self.before - self.after if self.verdict == "worse" else 0.0


class Revision:
    """One side of the comparison, read from git and DVC without a checkout.

    Attributes:
        name: as the user gave it, or "work tree".
        sha: of its commit; None for the work tree.
        stages: those of dvc.lock.
        missing: why a file could not be read, by its path.
    """

    def __init__(self, name: str) -> None:
        """Open a git revision or experiment, or the work tree.

        Raises:
            InputError: there is no such revision, or it holds no ``dvc.lock``.
        """
        tree = name == WORK_TREE
        try:
            self._files = dvc.api.DVCFileSystem(rev=None if tree else name)
            self.sha = None if tree else self._files.repo.get_rev()
        except DvcException as error:
            raise InputError(
                f"Expected a git revision or an experiment of this repository, found {name!r}: "
                f"{_sentence(error)}; `git log --oneline --all` and `dvc exp list` show them."
            ) from None
        # A sha is as long as nobody reads it, and git and DVC know its first seven characters.
        self.name = "work tree" if tree else re.sub(r"^([0-9a-f]{7})[0-9a-f]{33}$", r"\1", name)
        self.missing: dict[str, str] = {}
        lock = self.text("dvc.lock")
        if lock is None:
            raise InputError(
                f"Expected dvc.lock in {name}, found none: run `dvc repro` there and commit it, or "
                "name a revision that has it."
            )
        self.stages = _stages_of(lock, self.name)
        for path in map(lock_of, pipelines(self._files.repo)[1:]):  # the first is of the root
            self.stages |= stages_of_lock(self.text(path) or "stages: {}", path)

    @property
    def rev(self) -> str:
        """What DVC knows it by."""
        return self.sha or WORK_TREE

    @cached_property
    def models(self) -> dict[str, dict[str, str]]:
        """The stage and the paths of each evaluated model, by the signature of ``evaluate``."""
        found = {}
        for name, entry in self.stages.items():
            words = shlex.split(entry["cmd"])
            if words[:3] == ["python", "-m", "src.text.evaluate"]:
                splits, _, predictions, live = words[3:7]
                paths = {"splits": splits, "predictions": predictions, "live": live}
                found[Path(predictions).name] = {"stage": name, **paths}
        return found

    def params(self) -> dict[str, Any]:
        """The params by section, of every params file of the pipeline."""
        try:
            params: dict[str, Any] = dvc.api.params_show(rev=self.sha)
        except DvcException as error:
            raise InputError(
                f"Expected params that DVC can read in {self.name}, found: {_sentence(error)}; "
                "correct params.yaml."
            ) from None
        return params

    def hashes(self, name: str, kind: Literal["deps", "outs"]) -> dict[str, str]:
        """The hash of each dependency or output of a stage, by its path."""
        return {item["path"]: str(item.get("md5")) for item in self.stages[name].get(kind, [])}

    def text(self, path: str) -> str | None:
        """A text file; None if there is none."""
        try:
            return str(self._files.read_text(path, encoding="utf-8"))
        except OSError as error:
            self.missing[path] = str(error.strerror or error)
            return None

    def json(self, path: str) -> dict[str, Any]:
        """A JSON object; an empty one if there is no such file."""
        found: dict[str, Any] = json.loads(self.text(path) or "{}")
        return found

    def figures(self, model: str) -> dict[str, float]:
        """The figures of a model on the test split, as they were committed."""
        found: dict[str, float] = self.json(f"{self.models[model]['live']}/metrics.json").get(
            "test", {}
        )
        return found

    def frame(self, path: str, columns: Sequence[str]) -> pd.DataFrame | None:
        """Some columns of examples, from DVC's cache or its remote; None if they are in neither."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "examples.parquet"
            try:
                self._files.get_file(path, str(copy))
            # What is raised without credentials or a network is of the remote's own library.
            except Exception as error:
                self.missing[path] = _sentence(error)
                log.warning("%s of %s: %s", path, self.name, self.missing[path])
                return None
            return examples.read(copy)[list(columns)]


def main(base: str, *head: str, out: str = "report") -> None:
    """Write the page about the change from BASE to HEAD, which is the work tree if not given.

    The exit code is 2 if a model of params.yaml's section report got worse by more than it allows.
    """
    if len(head) > 1:
        raise InputError(f"Expected BASE and HEAD, found {1 + len(head)} revisions: name two.")
    if Path(out).exists() and not Path(out, "report.md").exists():
        raise InputError(
            f"Expected a report or nothing at {out}, found something else: name another."
        )
    before, after = Revision(base), Revision(head[0] if head else WORK_TREE)
    gate = read_gate()
    for model in gate.models:
        if model not in after.models:
            raise InputError(
                f"report.models has {model!r}: expected models that {after.name} evaluates, which "
                f"are {', '.join(after.models)}{closest(model, after.models)}."
            )
    changes = {m: compare(m, before, after, gate) for m in after.models if m in before.models}
    with replacing(Path(out)) as folder:
        folder.mkdir()
        lines = [
            f"# From {code(before.name)} to {code(after.name)}",
            *_verdicts(before, after, changes, gate),
            *_metrics(before, after),
            *_parts(before, after, gate),
            *_params(before, after),
            *_data(before, after),
            *_stages(before, after),
            *_source(before, after),
            *_plots(before, after, gate, folder),
        ]
        (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    log.info("wrote %s", Path(out) / "report.md")
    if failed := failing(before, after, changes, gate):
        log.error(
            "The gate is closed: %s got worse by more than report.max_drop %g of %s.",
            *(", ".join(failed), gate.max_drop, gate.figure),
        )
        sys.exit(GATE_CLOSED)


def read_gate() -> Gate:
    """The gate of the work tree's params.yaml, checked as a stage's params are.

    Raises:
        InputError: a param is missing, stray, or not what it may be.
    """
    section = Revision(WORK_TREE).params().get("report")
    words = []
    for key, value in (section if isinstance(section, dict) else {}).items():
        words += [f"--{key}", *map(str, value if isinstance(value, list) else [value])]
    # Its signature is the schema, as a stage's main is of its section.
    _, values = bind(Gate, "report", True, words)  # type: ignore[arg-type]
    return Gate(**values)


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
    """Whether both revisions judged a model on the same splits, by dvc.lock."""
    was, now = (
        side.hashes(side.models[model]["stage"], "deps").get(side.models[model]["splits"])
        for side in (before, after)
    )
    return was == now


def failing(
    before: Revision, after: Revision, changes: Mapping[str, Change | None], gate: Gate
) -> list[str]:
    """The models of the gate that lost more than it allows.

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
    points = [
        float(
            accuracy_score(labels, side)
            if gate.metric == "accuracy"
            else f1_score(labels, side, average="macro")
        )
        for side in (was, now)
    ]
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


def _verdicts(
    before: Revision, after: Revision, changes: Mapping[str, Change | None], gate: Gate
) -> Iterator[str]:
    """The gate, and a sentence for each model, those of the gate first."""
    judged = {m: c for m in gate.models if (c := changes.get(m)) and c.texts}
    failed = failing(before, after, changes, gate)
    doubtful = [
        m for m, c in judged.items() if c.before - c.after > gate.max_drop and m not in failed
    ]
    left = [m for m in gate.models if m not in judged and m not in failed]
    yield ""
    allowed = f"more than the {gate.max_drop:g} of {gate.figure} that `report.max_drop` allows"
    if failed:
        yield f"**The gate is closed**: {_names(failed)} got worse by {allowed}."
    elif judged:
        yield f"**The gate is open**: {_names(judged)} did not get worse by {allowed}."
    if doubtful:
        yield (
            f"{_names(doubtful)} lost {allowed}, but chance may have made it; more test texts "
            "would tell."
        )
    if left:
        yield f"**The gate did not judge** {_names(left)}; why stands below."
    yield ""
    ordered = [*gate.models, *(m for m in after.models if m not in gate.models)]
    for model in ordered:
        mark = "" if model in gate.models else " (not of the gate)"
        yield f"- **{code(model)}**{mark}{_verdict(model, before, after, changes, gate)}"
    for model in before.models:
        if model not in after.models:
            yield f"- **{code(model)}** is gone."
    yield ""
    yield (
        "Better or worse is a difference that chance hardly makes on these texts: the "
        f"{100 * gate.confidence:g} % interval of the paired bootstrap leaves out 0. Intervals "
        "from a few dozen texts are too narrow."
    )
    lacking = [(side, path) for side in (before, after) for path in side.missing]
    if lacking:
        yield from _how_to_get(lacking)
    if after.sha is None and (stale := _stale()):
        yield ""
        yield (
            f"**The work tree has changes that were not run**, in {_names(stale)}: what stands "
            "here is of the last `dvc repro`."
        )


def _verdict(
    model: str,
    before: Revision,
    after: Revision,
    changes: Mapping[str, Change | None],
    gate: Gate,
) -> str:
    """What follows the name of a model."""
    if model not in before.models:
        return f" is new: {code(before.name)} has no such model to compare it with."
    change = changes[model]
    if change is None and not same_splits(model, before, after):
        return (
            ": no verdict, as its predictions are not at hand, and the committed figures are of "
            "another test split."
        )
    if change is None:
        was, now = (side.figures(model).get(gate.metric) for side in (before, after))
        figures = f" {gate.figure} {was:.4f} → {now:.4f}" if was and now else ""
        return (
            f":{figures}; no verdict, as its predictions are not at hand to tell what chance may "
            "have made."
        )
    if not change.texts:
        return (
            ": no verdict, as the revisions have no test text in common, by id and label. Where "
            "the source has no ids, its rows are numbered; `load.id_column` keeps them."
        )
    texts = f"the {change.texts} test texts"
    if any(change.alone):
        texts = (
            f"the {change.texts} test texts that both revisions have ({change.alone[0]} more in "
            f"{code(before.name)}, {change.alone[1]} more in {code(after.name)})"
        )
    if not change.moved:
        return f": no difference, it predicts the same label as before for each of {texts}."
    p = f"p = {change.p_value:.3f}" if change.p_value >= 0.001 else "p < 0.001"
    return (
        f": **{change.verdict}**. {gate.figure} {change.before:.4f} → {change.after:.4f} "
        f"({change.after - change.before:+.4f}, {100 * gate.confidence:g} % interval "
        f"{change.low:+.4f} to {change.high:+.4f}, {p}) on {texts}: {change.fixed} wrong ones "
        f"became right, {change.broken} right ones wrong."
    )


def _how_to_get(lacking: Iterable[tuple[Revision, str]]) -> Iterator[str]:
    """What a reader does about files that are neither in the cache nor in the remote."""
    yield ""
    yield "These files are neither in DVC's cache nor in its remote, as far as it can be read here:"
    yield ""
    for side, path in lacking:
        yield f"- {code(path)} of {code(side.name)}: {code(side.missing[path])}"
    yield ""
    yield (
        "Whoever has them runs `dvc push`; then this report reads them from the remote, as "
        "`dvc fetch` does. Without a remote, `dvc repro` in a checkout of the revision makes them."
    )


def _metrics(before: Revision, after: Revision) -> Iterator[str]:
    """The figures of each model, on the test texts of each revision."""
    rows: list[Row] = [["model", "", *FIGURES.values()]]
    for model in dict.fromkeys([*after.models, *before.models]):
        was, now = (side.figures(model) if model in side.models else {} for side in (before, after))
        if was == now:
            rows.append([code(model), "both", *_figures(now)])
            continue
        rows.append([code(model), code(before.name), *_figures(was)])
        rows.append(["", code(after.name), *_figures(now)])
        both = [key in was and key in now for key in FIGURES]
        differences = [
            f"{now[k] - was[k]:+.4f}" if b else "" for k, b in zip(FIGURES, both, strict=True)
        ]
        rows.append(["", "change", *differences])
    yield from _section("Metrics", rows, "No model was evaluated.")


def _figures(test: Mapping[str, float]) -> Iterator[str]:
    for key in FIGURES:
        text = f"{test[key]:.4f}" if key in test else ""
        if f"{key}_low" in test:
            text += f" ({test[f'{key}_low']:.4f} to {test[f'{key}_high']:.4f})"
        yield text


def _parts(before: Revision, after: Revision, gate: Gate) -> Iterator[str]:
    """Classes and slices of the models of the gate, where they changed."""
    rows: list[tuple[float, Row]] = []
    for model in gate.models:
        if model not in before.models:
            continue
        was, now = (
            dict(_scores(side.json(f"{side.models[model]['live']}/details.json"), gate.metric))
            for side in (before, after)
        )
        for part in dict.fromkeys([*was, *now]):
            (a, texts_a), (b, texts_b) = was.get(part, (None, 0)), now.get(part, (None, 0))
            if a == b:
                continue
            change = 1.0 if a is None or b is None else b - a
            texts = f"{texts_b:g}" if texts_a == texts_b else f"{texts_a:g} → {texts_b:g}"
            row = [code(model), part, texts, _number(a), _number(b), f"{change:+.4f}"]
            rows.append((change, row if a is not None and b is not None else [*row[:5], ""]))
    rows.sort(key=lambda item: -abs(item[0]))
    head = ["model", "texts of", "number", before.name, after.name, "change"]
    table = [head, *(row for _, row in rows)]
    yield from _section("Classes and slices", table, "None of the models of the gate changed.")
    if rows:
        yield ""
        yield f"F1 of a class, {gate.figure} of a slice; a few texts move it by chance."


def _scores(details: Mapping[str, Any], metric: str) -> Iterator[tuple[str, tuple[float, float]]]:
    for name, scores in details.get("classes", {}).items():
        yield f"class {code(name)}", (scores["f1"], scores["texts"])
    for column, values in details.get("slices", {}).items():
        for value, scores in values.items():
            yield f"{code(column)} {code(value)}", (scores[metric], scores["texts"])


def _params(before: Revision, after: Revision) -> Iterator[str]:
    was, now = dict(_flat(before.params())), dict(_flat(after.params()))
    rows = [[code(key), _value(was, key), _value(now, key)] for key in _differing(was, now)]
    yield from _section("Params", [["param", before.name, after.name], *rows], "None changed.")


def _data(before: Revision, after: Revision) -> Iterator[str]:
    """What `quality` counted: a metric named quality.json of any stage."""
    was, now = (
        dict(_flat(side.json(path)))
        for side in (before, after)
        for path in [next(_outputs(side, "quality.json"), "quality.json")]
    )
    rows = []
    for key in dict.fromkeys([*was, *now]):
        if was.get(key) != now.get(key):
            a, b = was.get(key), now.get(key)
            numbers = isinstance(a, int | float) and isinstance(b, int | float)
            change = f"{b - a:+.6g}" if numbers else ""  # type: ignore[operator]
            rows.append([code(key), _value(was, key), _value(now, key), change])
    kept = f"{now['kept']} of {now['rows']} rows, " if {"kept", "rows"} <= now.keys() else ""
    none = f"No figure of the data changed: {kept}as before." if now else "There are no figures."
    yield from _section("Data", [["figure", before.name, after.name, "change"], *rows], none)


def _stages(before: Revision, after: Revision) -> Iterator[str]:
    """Why stages ran, and whether their outputs are others: dvc.lock before and after."""
    rows = []
    for name in dict.fromkeys([*before.stages, *after.stages]):
        if name not in before.stages or name not in after.stages:
            rows.append([code(name), "new" if name in after.stages else "gone", ""])
            continue
        was, now = before.stages[name], after.stages[name]
        params = _differing(*(dict(_flat(entry.get("params", {}))) for entry in (was, now)))
        deps = _differing(*(side.hashes(name, "deps") for side in (before, after)))
        outs = _differing(*(side.hashes(name, "outs") for side in (before, after)))
        why = [re.sub(r"^[^.]*\.yaml\.", "", key) for key in params] + deps
        if not why and was["cmd"] != now["cmd"]:
            why = ["its command"]
        if why or outs:
            cause = _names(why) or "nothing that DVC watches"
            rows.append([code(name), cause, f"{len(outs)} of {len(after.hashes(name, 'outs'))}"])
    head = ["stage", "ran for", "outputs that changed"]
    yield from _section("Stages", [head, *rows], "`dvc.lock` says the same.")


def _source(before: Revision, after: Revision) -> Iterator[str]:
    revisions = [str(side.sha) for side in (before, after) if side.sha]
    stat = _output("git", "diff", "--stat=100", *revisions, "--", "src", "dvc.yaml")
    yield from ["", "## Code", ""]
    yield from ["```", stat.rstrip(), "```"] if stat else ["`src` and `dvc.yaml` are as before."]


def _plots(before: Revision, after: Revision, gate: Gate, folder: Path) -> Iterator[str]:
    """Draw the plots of dvc.yaml that differ, those of one model alone for the gate's models."""
    yield from ["", "## Plots", ""]
    if before.sha == after.sha:
        yield "Both are the same commit."
        return
    try:
        shown = _output(
            *(sys.executable, "-m", "dvc", "plots", "diff", before.rev, after.rev, "--json")
        )
    except subprocess.CalledProcessError as error:
        told = [line for line in error.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = (told or ["no reason"])[-1].removeprefix("ERROR: ")
        log.warning("no plots: %s", reason)
        yield f"`dvc plots diff` could not draw them: {code(reason)}."
        return
    others = {m for side in (before, after) for m in side.models} - set(gate.models)
    names = {before.rev: before.name, after.rev: after.name}
    same, lacking = [], []
    for name, plots in json.loads(shown)["data"].items():
        if name.endswith(tuple(f" of {model}" for model in others)):
            continue
        spec = plots[0]["content"] if plots else {}
        points = _points(spec)
        if set(points) != set(names):
            lacking.append(name)
        elif points[before.rev] == points[after.rev]:
            same.append(name)
        else:
            file = re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-") + ".svg"
            (folder / file).write_text(_draw(spec, names), encoding="utf-8", newline="\n")
            yield from [f"![{name}]({file})", ""]
    if same:
        yield f"The same before and after: {', '.join(same)}."
    if lacking:
        yield (
            f"Not drawn, as the data of one revision are not at hand: {', '.join(lacking)}; "
            "`dvc fetch` brings what a remote has."
        )


def _points(spec: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The points of a plot by revision."""
    found: dict[str, list[dict[str, Any]]] = {}
    for value in spec.get("data", {}).get("values", []):
        point = {key: str(v) for key, v in value.items() if key != "rev"}
        found.setdefault(value["rev"], []).append(point)
    return found


def _draw(spec: dict[str, Any], names: Mapping[str, str]) -> str:
    """Turn what DVC would show in a browser into an SVG, which has no mouse and no sliders."""
    import vl_convert

    # Panels stand in the order of the data, in which DVC puts the work tree first.
    values = sorted(spec["data"]["values"], key=lambda value: list(names).index(value["rev"]))
    spec["data"]["values"] = values
    shown = {**names, **_short({str(v[k]) for v in values for k in SOURCES if k in v})}
    for value in values:
        for key in ("rev", *SOURCES):
            if key in value:
                value[key] = shown[value[key]]
        # The first threshold of a ROC curve is infinite, which JSON can't say.
        value.pop("threshold", None)
    _still(spec, shown, [names[rev] for rev in names])
    spec["config"] = {"legend": {"symbolType": "stroke", "symbolSize": 600}}
    return str(vl_convert.vegalite_to_svg(spec))


def _short(files: Collection[str]) -> dict[str, str]:
    """Names for the files of one plot, without the folders and the file name that all share.

    DVC writes ``file::column`` where the column differs too, of which the column says enough.
    """
    shared, ends = 0, [[*reversed(file.split("/"))][:-1] for file in files]
    for parts in zip(*ends, strict=False):
        if len(set(parts)) > 1 or len(files) < 2:
            break
        shared += 1
    return {f: f.split("::")[-1] if "::" in f else f.rsplit("/", shared)[0] for f in files}


def _still(part: Any, shown: Mapping[str, str], revisions: Sequence[str]) -> None:
    """Make a Vega-Lite spec fit for paper, in place.

    Args:
        part: the spec, or what is nested in it.
        shown: what stands in legends in place of DVC's names of revisions and files.
        revisions: the shown names of both, in the order of the panels.
    """
    if isinstance(part, list):
        for item in part:
            _still(item, shown, revisions)
    if not isinstance(part, dict):
        return
    if "layer" in part:  # what only answers to a mouse or a slider goes
        of_mouse = ('"selection"', '"hover"', '"loess"')
        part["layer"] = [
            layer for layer in part["layer"] if not any(w in json.dumps(layer) for w in of_mouse)
        ]
        for layer in part["layer"]:  # a line that was faint beside its smoothed one
            if isinstance(layer.get("mark"), dict):
                layer["mark"].pop("opacity", None)
    elif "strokeDash" in part.get("encoding", {}):  # curves of several models, a panel for each
        dashes = part["encoding"].pop("strokeDash")
        part["encoding"]["column"] = {"field": dashes["field"], "sort": dashes["scale"]["domain"]}
    if "params" in part:  # the counts in a confusion matrix, which a checkbox shows
        kept = [p for p in part["params"] if p.get("name") == "showValues"]
        part["params"] = [{"name": p["name"], "value": True} for p in kept]
    if part.get("field") in ("rev", *SOURCES):
        part["title"] = None
    for key in ("domain", "sort"):
        if isinstance(part.get(key), list):
            names = [shown.get(name, name) for name in part[key]]
            part[key] = list(revisions) if set(names) == set(revisions) else names
    for key in ("width", "height"):
        if part.get(key) == BROWSER:
            part[key] = PAPER
    for key, item in part.items():
        if key != "values":
            _still(item, shown, revisions)


def _stale() -> list[str]:
    """The stages that `dvc repro` would run in the work tree."""
    return sorted(Repo().status())


def _stages_of(lock: str, name: str) -> dict[str, dict[str, Any]]:
    """The stages of a dvc.lock.

    Raises:
        InputError: it is empty, or no YAML, as with the markers of a conflict.
    """
    try:
        found = YAML(typ="safe").load(lock)
    except YAMLError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("stages"), dict):
        raise InputError(
            f"Expected the stages that ran in dvc.lock of {name}, found none that can be read: "
            "`python -m src.tools.doctor` tells how a conflict is settled; else `dvc repro`."
        )
    return dict(found["stages"])


def _output(*command: str) -> str:
    """What a command prints on standard output; CalledProcessError if it fails."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603


def _outputs(side: Revision, name: str) -> Iterator[str]:
    """The outputs of a file name."""
    for key in side.stages:
        yield from (path for path in side.hashes(key, "outs") if Path(path).name == name)


def _differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [key for key in dict.fromkeys([*was, *now]) if was.get(key, was) != now.get(key, now)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested objects, by their dotted path."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _section(title: str, rows: Sequence[Row], none: str) -> Iterator[str]:
    """A heading and a table whose first row is its head, or a sentence if it has no other."""
    yield from ["", f"## {title}", ""]
    if len(rows) == 1:
        yield none
        return
    head, *body = rows
    yield table(head, body[:LONGEST])
    if len(body) > LONGEST:
        yield from ["", f"And {len(body) - LONGEST} more."]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _value(values: Mapping[str, Any], key: str) -> str:
    shown = json.dumps(values[key], ensure_ascii=False) if key in values else ""
    return code(without_secrets(shown)) if shown else ""


def _names(words: Iterable[str]) -> str:
    return ", ".join(map(code, words))


def _sentence(error: Exception) -> str:
    """The message of another library's exception, on one line and without its last dot."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


if __name__ == "__main__":
    stage.run(main, section=False)
