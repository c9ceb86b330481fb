"""The sections of the page: what else moved."""

import json
import logging
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.core.markdown import code, table
from src.core.secrets import without_secrets
from src.project import git
from src.tools.report.change import FIGURES, METRICS_OF_TEXTS, Gate
from src.tools.report.revision import WORK_TREE, Revision, folder_of

LONGEST = 30  # rows of a table; those that changed most come first

log = logging.getLogger("src.tools.report")

Row = Sequence[str]


def metrics(before: Revision, after: Revision) -> Iterator[str]:
    """Show the figures of each model on the test rows of each revision, a table a pipeline."""
    models = dict.fromkeys([*after.models, *before.models])
    figures = {
        model: [side.figures(model) if model in side.models else {} for side in (before, after)]
        for model in models
    }
    for folder in dict.fromkeys([".", *map(folder_of, models)]):
        of = {model: f for model, f in figures.items() if folder_of(model) == folder}
        keys = [key for key in FIGURES if any(key in side for f in of.values() for side in f)]
        rows: list[Row] = [["model", "", *(FIGURES[key] for key in keys)]]
        for model, (was, now) in of.items():
            if was == now:
                rows.append([code(model), "both", *_figures(now, keys)])
                continue
            rows.append([code(model), code(before.name), *_figures(was, keys)])
            rows.append(["", code(after.name), *_figures(now, keys)])
            differences = [f"{now[k] - was[k]:+.4f}" if k in was and k in now else "" for k in keys]
            rows.append(["", "change", *differences])
        yield from section(titled("Metrics", folder), rows, "No model was evaluated.")


def titled(title: str, folder: str) -> str:
    """Name what a pipeline has, by its folder, as in "Metrics of tabular"."""
    return title if folder == "." else f"{title} of {folder}"


def _figures(test: Mapping[str, float], keys: Iterable[str]) -> Iterator[str]:
    for key in keys:
        text = f"{test[key]:.4f}" if key in test else ""
        if f"{key}_low" in test:
            text += f" ({test[f'{key}_low']:.4f} to {test[f'{key}_high']:.4f})"
        yield text


def parts(before: Revision, after: Revision, gates: Iterable[Gate]) -> Iterator[str]:
    """Show classes and slices of the models of the gates, where they changed."""
    rows: list[tuple[float, Row]] = []
    gate_of = {model: gate for gate in gates for model in gate.models}
    for model, gate in gate_of.items():
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
    of_texts = all(gate.metric in METRICS_OF_TEXTS for gate in gate_of.values())
    rows_of = "texts of" if of_texts else "rows of"
    head = ["model", rows_of, "number", before.name, after.name, "change"]
    table = [head, *(row for _, row in rows)]
    yield from section("Classes and slices", table, "None of the models of a gate changed.")
    if rows:
        yield ""
        figures = dict.fromkeys(gate.figure for gate in gate_of.values())
        yield f"F1 of a class, {' or '.join(figures)} of a slice; a few of them move it by chance."


def _scores(details: Mapping[str, Any], metric: str) -> Iterator[tuple[str, tuple[float, float]]]:
    for name, scores in details.get("classes", {}).items():
        yield f"class {code(name)}", (scores["f1"], scores["texts"])
    for column, values in details.get("slices", {}).items():
        for value, scores in values.items():
            if metric in scores:
                number = scores["rows" if "rows" in scores else "texts"]
                yield f"{code(column)} {code(value)}", (scores[metric], number)


def params(before: Revision, after: Revision) -> Iterator[str]:
    """Show the params that changed."""
    was, now = dict(_flat(before.params())), dict(_flat(after.params()))
    rows = [[code(key), _value(was, key), _value(now, key)] for key in _differing(was, now)]
    yield from section("Params", [["param", before.name, after.name], *rows], "None changed.")


def data(before: Revision, after: Revision) -> Iterator[str]:
    """Show what `quality` counted, a table a pipeline: a metric named quality.json of any stage."""
    files = [_outputs(side, "quality.json") for side in (before, after)]
    for folder in dict.fromkeys([".", *files[1], *files[0]]):
        was, now = (
            dict(_flat(_counted(side.json(found[folder]) if folder in found else {})))
            for side, found in zip((before, after), files, strict=True)
        )
        yield from _data(titled("Data", folder), was, now, before, after)


def _data(
    title: str, was: Mapping[str, Any], now: Mapping[str, Any], before: Revision, after: Revision
) -> Iterator[str]:
    rows = []
    for key in dict.fromkeys([*was, *now]):
        if was.get(key) != now.get(key):
            a, b = was.get(key), now.get(key)
            numbers = isinstance(a, int | float) and isinstance(b, int | float)
            change = f"{b - a:+.6g}" if numbers else ""  # type: ignore[operator]
            rows.append([code(key), _value(was, key), _value(now, key), change])
    kept = f"{now['kept']} of {now['rows']} rows, " if {"kept", "rows"} <= now.keys() else ""
    none = f"No figure of the data changed: {kept}as before." if now else "There are no figures."
    yield from section(title, [["figure", before.name, after.name, "change"], *rows], none)


def stages(before: Revision, after: Revision) -> Iterator[str]:
    """Show why stages ran, and if their outputs changed: dvc.lock before and after."""
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
            cause = names(why) or "nothing that DVC watches"
            rows.append([code(name), cause, f"{len(outs)} of {len(after.hashes(name, 'outs'))}"])
    head = ["stage", "ran for", "outputs that changed"]
    yield from section("Stages", [head, *rows], "`dvc.lock` says the same.")


def source(before: Revision, after: Revision) -> Iterator[str]:
    """Show which files of the code changed, and by how many lines."""
    revisions = [str(side.sha) for side in (before, after) if side.sha]
    stat = git.output("diff", "--stat=100", *revisions, "--", "src", ":(glob)**/dvc.yaml")
    yield from ["", "## Code", ""]
    yield from ["```", stat, "```"] if stat else ["`src` and `dvc.yaml` are as before."]


def plots(before: Revision, after: Revision, folder: Path) -> Iterator[str]:
    """Have DVC draw the plots of both revisions into a folder, and tell where they are."""
    yield from ["", "## Plots", ""]
    if before.sha == after.sha:
        yield "Both are the same commit."
        return
    # DVC labels the curves with what it is given.
    revisions = [side.name if side.sha else WORK_TREE for side in (before, after)]
    drawn = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "dvc", "plots", "diff", *revisions, "--out", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    told = " ".join(drawn.stderr.split())
    if drawn.returncode or not folder.exists():
        log.warning("no plots: %s", told)
        yield f"`dvc plots diff` could not draw them: {code(told)}."
        return
    yield f"`{folder.name}/index.html`, beside this page, shows the plots of both revisions."
    if told:  # such as of data that are not at hand
        yield f"DVC says: {code(told)} `dvc fetch` brings the data that a remote has."


def _outputs(side: Revision, name: str) -> dict[str, str]:
    """Find the output of a name, by the folder of its pipeline."""
    return {
        folder_of(stage.rpartition(":")[0]): path
        for stage in side.stages
        for path in side.hashes(stage, "outs")
        if Path(path).name == name
    }


def _differing(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    return [key for key in dict.fromkeys([*was, *now]) if was.get(key, was) != now.get(key, now)]


def _counted(figures: dict[str, Any]) -> dict[str, Any]:
    """Count the findings by their code, in place of their list."""
    codes = Counter(finding["code"] for finding in figures.get("findings", []))
    return figures | ({"findings": codes} if codes else {})


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """List the leaves of nested objects, by their dotted path."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def section(title: str, rows: Sequence[Row], none: str) -> Iterator[str]:
    """Write a heading and a table whose first row is its head; a sentence if it has no other."""
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


def names(words: Iterable[str]) -> str:
    """List names in a sentence."""
    return ", ".join(map(code, words))
