"""Prove that a commit gives the same bits: clean clones of it run every stage, to equal locks.

    python -m src.tools.prove
    python -m src.tools.prove baseline --clones 3
    python -m src.tools.prove tabular/dvc.yaml

Each clone has an empty cache of its own and takes nothing from DVC's run cache, so that each stage
computes anew, in another folder and at another time than before. Only data that was added to DVC
comes from the cache here. The packages are those of the Python that runs this.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.core import stage
from src.core.command_line import Count
from src.core.errors import InputError
from src.project import git, graph
from src.project.git import listed
from src.training import provenance

Chain = Mapping[str, set[str]]  # the stages, each after those that it waits for, and these

log = logging.getLogger("src.tools.prove")


@dataclass(frozen=True)
class Plan:
    """The work to be done."""

    pipelines: list[str]  # every dvc.yaml of the repository
    chain: Chain  # their stages
    outs: list[str]  # the paths of their outputs
    cache: str  # the folder of DVC's cache here


@dataclass(frozen=True)
class State:
    """The stages of a clone as it tells them, before it has run them or after."""

    locks: Mapping[str, bytes]  # every dvc.lock as it is, by path
    stages: Mapping[str, Any]  # their entries, by the names of the stages
    records: Mapping[str, Any]  # by path, what ``training.provenance`` tells of the trainings


def main(*targets: str, clones: Count = 2) -> None:
    """Run the last commit in clean clones, and expect the same dvc.lock of each.

    The targets are stages, or the dvc.yaml of a pipeline, which run with all before them; without
    any, all pipelines run. With --clones 1 the one result is compared with the committed one alone.
    """
    plan, commit = _plan(), _commit()
    with ExitStack() as stack:
        place = Path(tempfile.mkdtemp(prefix="prove-"))
        stack.callback(shutil.rmtree, place, ignore_errors=True)
        states = []
        for number in range(1, clones + 1):
            folder = _clone(place / str(number), commit, plan.cache)
            committed = _state(folder, plan)
            if clones == 1 and not committed.locks:
                raise InputError("There is no dvc.lock in git: commit it, or use 2 clones.")
            log.info("clone %d of %d of %s runs in %s", number, clones, commit, folder)
            _run(folder, targets or plan.pipelines)
            states.append(_state(folder, plan))
            if states[-1].locks != states[0].locks:
                stack.pop_all()  # a person will want to look into the clones
                found = difference(states[0], states[-1], plan.chain)
                found = found or "the same entries stand in another order"
                raise InputError(
                    f"Two clones of {commit} differ, {found}: compare both in {place / '1'} and "
                    f"{place / str(number)}, and take what is of the time, the folder or chance "
                    "out of that stage."
                )
    if clones > 1:
        made = ", ".join(states[0].locks)
        log.info("%d clones of %s agree on %s", clones, commit, made)
    compare_with_committed(committed, states[0], plan.chain, alone=clones == 1)


def _plan() -> Plan:
    if not Path("dvc.yaml").exists():
        raise InputError(f"{Path.cwd()} has no dvc.yaml: go to the root of the repository.")
    with graph.project() as repo:
        outs = [out.path for out in graph.outs_of(repo)]
        cache = str(repo.cache.local_cache_dir)
        return Plan(graph.pipelines(repo), graph.chain(repo), outs, cache)


def _commit() -> str:
    """Return the short hash of the last commit, which must be all that there is."""
    commit = git.output("rev-parse", "--short", "--verify", "HEAD")
    if changed := [path for _, path in git.status("--", ".")]:
        raise InputError(
            f"Clones have only what is in git, and it lacks changes in {listed(changed)}: commit "
            "or `git stash --include-untracked` them."
        )
    return commit


def _clone(target: Path, commit: str, cache: str) -> Path:
    """Clone the commit into a folder, with what was added to DVC; the project's folder in there."""
    git.output(
        "clone", "--quiet", "--no-checkout", git.output("rev-parse", "--show-toplevel"), str(target)
    )
    git.output("checkout", "--quiet", "--detach", commit, cwd=target)
    folder = target / git.output("rev-parse", "--show-prefix")
    # The team may share a cache by .dvc/config; here no stage's output may come from one.
    graph.use_cache(folder, folder / ".dvc" / "cache", {"here": cache})
    if added := git.names("ls-files", "*.dvc", cwd=folder):
        pull = ("pull", "--quiet", "--remote", "here", *added)
        if _dvc(folder, *pull, capture=True).returncode:
            _expect_of_dvc(Path.cwd(), "fetch", *added)
            _expect_of_dvc(folder, *pull)
    return folder


def _run(folder: Path, targets: Sequence[str]) -> None:
    # Of some stages all outputs are in git, so without --force they would not run.
    repro = ("repro", "--force", "--no-run-cache", *targets)
    start = time.perf_counter()
    if _dvc(folder, *repro).returncode:
        raise InputError(
            f"`dvc {' '.join(repro)}` failed in a clean clone, see above: what the stages need "
            "must be in git or added to DVC."
        )
    log.info("took %.0f s", time.perf_counter() - start)


def _dvc(folder: Path, *words: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run DVC with this Python, which is also what `python` is to the stages."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return subprocess.run(
        [sys.executable, "-m", "dvc", *words],
        cwd=folder,
        env=os.environ | {"PATH": path},
        capture_output=capture,
        text=True,
        check=False,
    )


def _expect_of_dvc(folder: Path, *words: str) -> None:
    done = _dvc(folder, *words, capture=True)
    if done.returncode:
        told = " ".join(done.stderr.split())
        raise InputError(f"`dvc {' '.join(words[:2])}` failed ({told}): correct what it names.")


def _state(folder: Path, plan: Plan) -> State:
    paths = map(graph.lock_of, plan.pipelines)
    locks = {path: (folder / path).read_bytes() for path in paths if (folder / path).exists()}
    stages = {
        name: entry
        for path, content in locks.items()
        for name, entry in graph.stages_of_lock(content.decode(), path).items()
    }
    records = {str(path): folder / path for path in map(provenance.record_of, map(Path, plan.outs))}
    found = {name: json.loads(path.read_bytes()) for name, path in records.items() if path.exists()}
    return State(locks, stages, found)


def difference(one: State, other: State, chain: Chain) -> str:
    """Say where the results of stages part, as part of a sentence; "" if they do not.

    It tells what the first stages that differ did, such as "split wrote data/splits (md5 1f... and
    2e...)", and names those after. A stage is among the first if all that it waits for is equal.
    """
    differ = [name for name in chain if one.stages.get(name) != other.stages.get(name)]
    first = [name for name in differ if not chain[name] & {*differ}]
    did = [
        part
        for name in first
        for part in _parts(name, one.stages.get(name), other.stages.get(name))
    ]
    after = [name for name in differ if name not in first]
    return "; ".join(did) + (f", which changed {', '.join(after)}" if after else "")


def _parts(
    name: str, one: Mapping[str, Any] | None, other: Mapping[str, Any] | None
) -> Iterator[str]:
    if one is None or other is None:
        yield f"{name} is in one of them alone"
        return
    for key, what in (("cmd", "command"), ("params", "params")):
        if one.get(key) != other.get(key):
            yield f"{name} ran with other {what}"
    for key, did in (("deps", "read"), ("outs", "wrote")):
        ours, theirs = ({e["path"]: e for e in entry.get(key, [])} for entry in (one, other))
        for path in dict.fromkeys([*ours, *theirs]):
            old, new = ours.get(path, {}), theirs.get(path, {})
            if old != new:
                yield f"{name} {did} {path} (md5 {old.get('md5')} and {new.get('md5')})"


def compare_with_committed(committed: State, made: State, chain: Chain, *, alone: bool) -> None:
    """Say whether the lock is the committed one; if not, where they part and whether that may be.

    Raises:
        InputError: they differ although the trainings ran on the same, or nothing else was shown.
    """
    if not committed.locks:
        log.info("there is no dvc.lock in git to compare it with")
        return
    found = difference(committed, made, chain)
    if not found:
        same = "byte for byte" if made.locks == committed.locks else "but for its layout"
        log.info("it is the committed one, %s", same)
        return
    elsewhere = "; ".join(_changes(committed.records, made.records))
    if elsewhere and not alone:
        log.warning(
            "the committed dvc.lock is another, as its models were trained elsewhere (%s): %s",
            *(elsewhere, found),
        )
    elif elsewhere:
        raise InputError(
            f"The committed dvc.lock is another, {found}; it was made elsewhere ({elsewhere}), so "
            "compare clones of this machine, with --clones 2."
        )
    else:
        files = " ".join(committed.locks).replace(graph.LOCK, graph.PIPELINE)
        raise InputError(
            f"The committed dvc.lock is another, {found}: run `dvc repro --force --no-run-cache "
            f"{files}` and commit what it changes."
        )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any], name: str = "") -> Iterator[str]:
    """Say how two records differ, but for the hashes of the model."""
    for key in sorted(before.keys() & now.keys() - {"md5", "sha256"}):
        old, new = before[key], now[key]
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changes(old, new, f"{key} of {name}" if name else key)
        elif old != new:
            yield f"{key} of {name}: {old} there, {new} here"


if __name__ == "__main__":
    stage.run(main, section=False)
