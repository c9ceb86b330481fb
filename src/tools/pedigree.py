"""Print where a model comes from: code, data, params, versions and processor, and what is in doubt.

    python -m src.tools.pedigree models/shipped > pedigree.json

prints one JSON object. It is made anew each time, from git, dvc.lock, the files that are here and
what training left beside its model, and never kept inside of the model itself. Standard error has
a line for each reason to doubt it, and the exit code is then 1.
"""

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from src.core import stage
from src.core.errors import InputError
from src.core.files import sha256
from src.core.secrets import without_secrets
from src.project import git
from src.project.graph import Project, is_params, locked, project, shown, upstream_first
from src.project.hashes import forget
from src.tools.verify.outs import check, files_of, reads_other, select
from src.training import provenance

RECORDS = ("training", "provenance.py")  # a stage that depends on this leaves a record

log = logging.getLogger("src.tools.pedigree")


def main(target: str) -> None:
    """Print where an out, such as models/shipped, comes from; exit with 1 if that is in doubt."""
    with project() as repo:
        record = trace(repo, target)
    print(without_secrets(json.dumps(record, indent=2, ensure_ascii=False)))
    for problem in record["problems"]:
        log.error("%s", problem)
    if record["problems"]:
        sys.exit(1)


def trace(repo: Project, target: str) -> dict[str, Any]:
    """Tell where an out, or a file inside of one, comes from, and what of that is in doubt.

    Returns:
        The record. Its "problems" are sentences, each a reason to doubt it; none is best.

    Raises:
        InputError: the target is not one out.
    """
    forget(repo)
    parts = select(repo, [target])
    if len(parts) != 1:
        names = ", ".join(part.name for part in parts)
        raise InputError(f"{target} is more than one out: name one of {names}.")
    (part,) = parts
    problems = [f"{found.path} {found.fault}." for found in check(repo, [target]).findings]
    _, files = files_of(repo, part)
    ordered = upstream_first(repo, part.out.stage)
    requirements = Path(repo.root_dir, "requirements.lock")
    if not requirements.exists():
        problems.append("requirements.lock is missing.")
    return {
        "target": part.path(part.inside),
        "git": _commit(problems),
        "requirements.lock": sha256(requirements) if requirements.exists() else None,
        "files": {
            part.path(key): sha256(Path(part.path(key)))
            for key, read in files.items()
            if part.has(key) and not read.fault
        },
        "stages": {s.addressing: locked(s) for s in ordered},
        "environment": _environment(ordered, problems),
        "problems": [*problems, *(sentence for _, sentence in changes(repo, ordered))],
    }


def _commit(problems: list[str]) -> dict[str, Any]:
    done = git.run("rev-parse", "--verify", "--quiet", "HEAD")
    if done.returncode:
        problems.append("There is no commit in git, so the code and the params are not known.")
        return {"revision": None, "dirty": None}
    return {"revision": done.stdout.strip(), "dirty": any(git.status())}


def changes(repo: Project, stages: Iterable[Any]) -> Iterator[tuple[str, str]]:
    """Compare code, data and params with what the stages ran with.

    What DVC keeps and was not pulled is taken for what dvc.lock or its .dvc file says of it.

    Yields:
        The name of a stage, and a sentence.
    """
    made = {out.fs_path: out for out in repo.index.outs}
    for s in stages:
        if not s.cmd:  # a .dvc file
            continue
        if not all(out.hash_info for out in s.outs):
            yield s.addressing, f"{s.addressing} has not run."
            continue
        changed_params = False
        for dep in s.deps:
            if is_params(dep):
                for values in dep.workspace_status().values():
                    changed_params = True
                    names = ", ".join(values) if isinstance(values, dict) else values
                    yield (
                        s.addressing,
                        f"{s.addressing} ran with other params than these: {names}.",
                    )
            elif out := made.get(dep.fs_path):
                if dep.hash_info != out.hash_info:
                    maker = out.stage.addressing
                    yield (
                        s.addressing,
                        f"{s.addressing} ran with another {dep} than {maker} made last.",
                    )
            elif reads_other(repo, dep):
                yield s.addressing, f"{s.addressing} ran with another {dep} than the present one."
        if s.cmd_changed and not changed_params:
            yield s.addressing, f"{s.addressing} ran with another command than the present one."


def _environment(stages: Sequence[Any], problems: list[str]) -> dict[str, Any]:
    """Return the records of the stages that leave one, and whether each is of this model."""
    found: dict[str, Any] = {}
    for s in stages:
        if not any(Path(dep.fs_path).parts[-2:] == RECORDS for dep in s.deps):
            continue
        records = {out: provenance.record_of(Path(out.fs_path)) for out in s.outs}
        here = [(out, path) for out, path in records.items() if path.exists()]
        if not here:
            found[s.addressing] = None
            problems.append(
                f"{s.addressing} left no record of the environment that it ran in: "
                f"`dvc repro --force --single-item {s.addressing}` trains anew and writes one."
            )
        for out, path in here:
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                record = {}
            belongs = record.get("md5") == out.hash_info.value and _is_of(record, out)
            found[s.addressing] = {
                "record": shown(str(path)),
                "belongs_to_the_model": belongs,
            } | record
            if not belongs:
                problems.append(
                    f"{shown(str(path))} is the record of another training than that of "
                    f"{shown(out.fs_path)}, which may come from another commit, another machine or "
                    "DVC's run cache: look for its record in the history of git."
                )
            elif others := _other_params(record.get("params", {}), s):
                problems.append(
                    f"{s.addressing} ran with other params than dvc.lock says, by its record "
                    f"{shown(str(path))}: {', '.join(others)}; it was started by "
                    "hand and committed, or is of the run cache, after a run with these: "
                    f"`dvc repro --force --single-item {s.addressing}`."
                )
    return found


def _other_params(recorded: Mapping[str, Any], s: Any) -> list[str]:
    """Name the recorded params that dvc.lock has with another value for a stage."""
    ran: dict[str, Any] = {}
    for dep in filter(is_params, s.deps):
        for name, value in dep.hash_info.value.items():  # of a section, or of one param of it
            ran |= value if isinstance(value, dict) else {name.rpartition(".")[2]: value}
    # A list of one may be written as what is in it.
    return [
        name
        for name, value in recorded.items()
        if name in ran and value not in (ran[name], [ran[name]])
    ]


def _is_of(record: Mapping[str, Any], out: Any) -> bool:
    """Tell whether the files of a model that is here are those of its record."""
    folder = Path(out.fs_path)
    if not folder.exists():
        return True
    hashes = record.get("sha256", {})
    return all(
        (folder / name).exists() and sha256(folder / name) == value
        for name, value in hashes.items()
    )


if __name__ == "__main__":
    stage.run(main, section=False)
