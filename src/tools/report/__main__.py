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
from pathlib import Path

from src.core import stage
from src.core.errors import InputError, closest
from src.core.files import replacing
from src.core.markdown import code
from src.tools.report import sections
from src.tools.report.change import compare, failing, read_gate
from src.tools.report.revision import WORK_TREE, Revision
from src.tools.report.verdicts import verdicts

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
    gate = read_gate()
    for model in gate.models:
        if model not in after.models:
            raise InputError(
                f"report.models has {model!r}, which {after.name} does not evaluate"
                f"{closest(model, after.models)}: write models of {', '.join(after.models)} in "
                "params.yaml."
            )
    changes = {m: compare(m, before, after, gate) for m in after.models if m in before.models}
    with replacing(Path(out)) as folder:
        folder.mkdir()
        lines = [
            f"# From {code(before.name)} to {code(after.name)}",
            *verdicts(before, after, changes, gate),
            *sections.metrics(before, after),
            *sections.parts(before, after, gate),
            *sections.params(before, after),
            *sections.data(before, after),
            *sections.stages(before, after),
            *sections.source(before, after),
            *sections.plots(before, after, folder / "plots"),
        ]
        (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")
    log.info("wrote %s", Path(out) / "report.md")
    if failed := failing(before, after, changes, gate):
        log.error(
            "The gate is closed: %s got worse by more than report.max_drop %g of %s.",
            *(", ".join(failed), gate.max_drop, gate.figure),
        )
        sys.exit(GATE_CLOSED)


if __name__ == "__main__":
    stage.run(main, section=False)
