"""Write the page that a change is reviewed by: is a model better or worse, and what else moved.

    python -m src.tools.report main
    python -m src.tools.report main my-branch

compares two revisions, or a revision with the work tree, and writes ``report/report.md`` with the
page of ``dvc plots diff`` beside it. The section ``report`` of params.yaml is the gate: the exit
code is 2 if a model of it got worse by more than it allows. What is kept in git is read from there,
and predictions and plots from DVC's cache or its remote; nothing in the work tree changes.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from src.core import stage
from src.core.errors import InputError
from src.core.files import replacing
from src.core.markdown import code
from src.project import graph
from src.tools.report import sections
from src.tools.report.change import Change, Gate, compare, failing, read_gates, same_splits
from src.tools.report.revision import WORK_TREE, Revision, folder_of
from src.tools.report.sections import names, titled

GATE_CLOSED = 2  # the exit code

log = logging.getLogger("src.tools.report")


def main(base: str, *head: str, out: str = "report") -> None:
    """Write the page about the change from BASE to HEAD, which is the work tree if not given.

    The exit code is 2 if a model of params.yaml's section report got worse by more than it allows.
    """
    if len(head) > 1:
        raise InputError(f"{1 + len(head)} revisions are too many: name BASE and HEAD.")
    if Path(out).exists() and not Path(out, "report.md").exists():
        raise InputError(f"{out} is not a report: name another folder with --out.")
    before, after = Revision(base), Revision(head[0] if head else WORK_TREE)
    gates = read_gates(before, after)
    changes = {
        model: compare(model, before, after, gates[folder_of(model)])
        for model in after.models
        if model in before.models
    }
    with replacing(Path(out)) as folder:
        folder.mkdir()
        lines = [
            f"# From {code(before.name)} to {code(after.name)}",
            *verdicts(before, after, changes, gates),
            *sections.metrics(before, after),
            *sections.parts(before, after, gates.values()),
            *sections.params(before, after),
            *sections.data(before, after),
            *sections.stages(before, after),
            *sections.source(before, after),
            *sections.plots(before, after, folder / "plots"),
        ]
        (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    log.info("wrote %s", Path(out) / "report.md")
    closed = {
        place: failed
        for place, gate in gates.items()
        if (failed := failing(before, after, changes, gate))
    }
    for place, failed in closed.items():
        log.error(
            "%s is closed: %s got worse by more than report.max_drop %g of %s.",
            *(
                titled("The gate", place),
                ", ".join(failed),
                gates[place].max_drop,
                gates[place].figure,
            ),
        )
    if closed:
        sys.exit(GATE_CLOSED)


def verdicts(
    before: Revision,
    after: Revision,
    changes: Mapping[str, Change | None],
    gates: Mapping[str, Gate],
) -> Iterator[str]:
    """Say how each gate is, and a sentence for each model, those of the gates first."""
    for folder, gate in gates.items():
        yield from _state(before, after, changes, gate, titled("The gate", folder))
    yield ""
    guarded = [model for gate in gates.values() for model in gate.models]
    for model in dict.fromkeys([*guarded, *after.models]):
        mark = "" if model in guarded else " (not of the gate)"
        gate = gates[folder_of(model)]
        yield f"- **{code(model)}**{mark}{_verdict(model, before, after, changes, gate)}"
    for model in before.models:
        if model not in after.models:
            yield f"- **{code(model)}** is gone."
    yield ""
    kinds = {model["rows"] for model in after.models.values()}
    called = kinds.pop() if len(kinds) == 1 else "rows"
    shares = dict.fromkeys(f"{100 * gate.confidence:g} %" for gate in gates.values())
    yield (
        f"Better or worse is a difference that chance hardly makes on these {called}: the "
        f"{' or '.join(shares)} interval of the paired bootstrap leaves out 0. Intervals "
        f"from a few dozen {called} are too narrow."
    )
    lacking = [(side, path) for side in (before, after) for path in side.missing]
    if lacking:
        yield from _how_to_get(lacking)
    if after.sha is None:
        yield from _not_run()


def _state(
    before: Revision,
    after: Revision,
    changes: Mapping[str, Change | None],
    gate: Gate,
    called: str,
) -> Iterator[str]:
    """Say whether a gate is open."""
    judged = {m: c for m in gate.models if (c := changes.get(m)) and c.judged}
    failed = failing(before, after, changes, gate)
    doubtful = [
        m
        for m, c in judged.items()
        if not c.same and m not in failed and gate.lost(c.before, c.after) > gate.max_drop
    ]
    left = [m for m in gate.models if m not in judged and m not in failed]
    if gate.models:
        yield ""
    allowed = f"more than the {gate.max_drop:g} of {gate.figure} that `report.max_drop` allows"
    if failed:
        yield f"**{called} is closed**: {names(failed)} got worse by {allowed}."
    elif judged:
        yield f"**{called} is open**: {names(judged)} did not get worse by {allowed}."
    if doubtful:
        yield (
            f"{names(doubtful)} lost {allowed}, but chance may have made it; more test "
            f"{after.models[doubtful[0]]['rows']} would tell."
        )
    if left:
        yield f"**{called} did not judge** {names(left)}; why stands below."


def _not_run() -> Iterator[str]:
    with graph.project() as repo:
        changed = graph.changed(repo)
    if changed:
        yield ""
        yield (
            f"**The work tree has changes that were not run**, in {names(changed)}: what stands "
            "here is of the last `dvc repro`."
        )


def _verdict(
    model: str, before: Revision, after: Revision, changes: Mapping[str, Change | None], gate: Gate
) -> str:
    if model not in before.models:
        return f" is new: {code(before.name)} has no such model to compare it with."
    change = changes[model]
    if change is not None and change.same:
        return ": no difference, its predictions are the same file in both."
    if change is None and not same_splits(model, before, after):
        return (
            ": no verdict, as its predictions are not at hand, and the committed figures are of "
            "another test split."
        )
    if change is None:
        was, now = (side.figures(model).get(gate.metric) for side in (before, after))
        figures = f" {gate.figure} {was:.4f} → {now:.4f};" if was and now else ""
        return (
            f":{figures} no verdict, as its predictions are not at hand to tell what chance may "
            "have made."
        )
    called = after.models[model]["rows"]
    if not change.texts:
        kept = "an `id` of its own" if called == "questions" else "`load.id_column`"
        return (
            f": no verdict, as the revisions have no test {called} in common, by id and label. "
            f"Where the source has no ids, its rows are numbered; {kept} keeps them."
        )
    if not change.judged:
        return f": no verdict, as a label is of none of the {change.texts} test {called} in common."
    texts = f"the {change.texts} test {called}"
    if any(change.alone):
        texts = (
            f"the {change.texts} test {called} that both revisions have ({change.alone[0]} more in "
            f"{code(before.name)}, {change.alone[1]} more in {code(after.name)})"
        )
    if not change.moved and change.before == change.after:
        same = "answer" if called == "questions" else "label"
        return f": no difference, it predicts the same {same} as before for each of {texts}."
    p = f"p = {change.p_value:.3f}" if change.p_value >= 0.001 else "p < 0.001"
    return (
        f": **{change.verdict}**. {gate.figure} {change.before:.4f} → {change.after:.4f} "
        f"({change.after - change.before:+.4f}, {100 * gate.confidence:g} % interval "
        f"{change.low:+.4f} to {change.high:+.4f}, {p}) on {texts}: {change.fixed} wrong "
        f"{_ones(change.fixed)} became right, {change.broken} right {_ones(change.broken)} wrong."
    )


def _ones(count: int) -> str:
    return "one" if count == 1 else "ones"


def _how_to_get(lacking: Iterable[tuple[Revision, str]]) -> Iterator[str]:
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


if __name__ == "__main__":
    stage.run(main, section=False)
