"""Look for what makes the results of DVC experiments misleading, and say how to fix it.

    python -m src.tools.doctor            # before work is shared
    python -m src.tools.doctor --queue    # also before `dvc exp run --queue` or `--temp`

Each problem is one sentence; with any, the command exits with 1. Nothing is changed.
"""

import json
import logging
import os
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from dvc.exceptions import DvcException

from src.core import stage
from src.core.errors import InputError
from src.project.git import listed
from src.project.graph import outs_of, project, unreadable
from src.tools.doctor import repository

OLDEST = (3, 11)  # the Python that the project asks for
LOCK = Path("requirements.lock")

log = logging.getLogger("src.tools.doctor")


def main(*, queue: bool = False) -> None:
    """List what makes results misleading; --queue adds what matters to `dvc exp run --queue`."""
    problems = list(examine(queue))
    for problem in problems:
        log.error("%s", problem)
    if problems:
        are = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"{are} found; each line above says how to fix it.")
    log.info("No problems found.")


def examine(queue: bool) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with the repository in this folder."""
    if not Path("dvc.yaml").exists():
        raise InputError(f"{Path.cwd()} has no dvc.yaml: go to the root of the repository.")
    yield from python()
    yield from shadows()
    broken = [*repository.without_commits(), *repository.conflicts()]
    yield from broken
    try:
        yield from repository.secrets()
        yield from repository.unverified()
        if broken:  # what follows reads the pipelines, and compares them with git
            return
        with project() as repo:
            outs = list(outs_of(repo))
            yield from repository.kept_twice(outs)
            yield from repository.out_of_date(repo)
            yield from repository.not_pushed(repo)
            if queue:
                yield from repository.not_committed(repo, outs)
    except DvcException as error:
        yield unreadable(error)
    except InputError as error:
        yield str(error)


def python() -> Iterator[str]:
    """Yield how Python and its packages differ from what the project asks for."""
    if sys.version_info < OLDEST:
        yield (
            f"This Python is {sys.version.split()[0]}, and the project needs "
            f"{'.'.join(map(str, OLDEST))} or newer: `make clean` and `make run PYTHON=python3.11`."
        )
    called = shutil.which("python")
    words = [called or "", "-c", "import sys; print(sys.prefix)"]
    done = called and subprocess.run(words, capture_output=True, text=True, check=False)
    prefix = done and done.stdout.strip()
    if not prefix or not Path(prefix).samefile(sys.prefix):
        yield (
            f"`python`, which the stages call, is {f'of {prefix}' if prefix else 'not found'}: put "
            f"{sys.prefix}/bin first on your PATH, as `. .venv/bin/activate` does."
        )
    if not LOCK.exists():
        yield f"{LOCK} is missing: run `make lock`."
        return
    others = []
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", LOCK.read_text(), re.MULTILINE):
        try:
            found = metadata.version(name).partition("+")[0]  # without a variant, such as +cpu
        except metadata.PackageNotFoundError:
            found = "none"
        if found != version.partition("+")[0]:
            others.append(f"{name} {found} in place of {version}")
    if others:
        yield (
            f"Installed packages are not those of {LOCK}, {listed(others)}: "
            f"`pip install --requirement {LOCK}`."
        )


def shadows() -> Iterator[str]:
    """Yield the places other than this folder that have a package src, which stages may import."""
    if sys.flags.safe_path:
        yield (
            "Python doesn't look for src in the current folder first: unset PYTHONSAFEPATH, and "
            "do without `python -P`."
        )
    elsewhere = sys.path if sys.flags.safe_path else sys.path[1:]  # the first is this folder
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find and find("src", elsewhere if finder is PathFinder else None)
        if not spec or not spec.origin:  # a mere folder of that name never comes before a package
            continue
        place = Path(spec.origin).parent
        yield (
            f"{place} is another src that Python finds, {_because_of(place)}: a queued experiment "
            "may run that code in place of its own, and its result then stands for the wrong code "
            "in the run cache."
        )


def _because_of(place: Path) -> str:
    """Say why Python looks into a folder, and what to do about it, as part of a sentence."""
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if place.parent in [Path(entry).resolve() for entry in named]:
        return "because of PYTHONPATH (`unset PYTHONPATH`)"
    for distribution in metadata.distributions():
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        folder = Path(str(origin.get("url", "")).removeprefix("file://"))
        if origin.get("dir_info", {}).get("editable") and place.is_relative_to(folder):
            name = distribution.name
            return f"because {name} is installed as editable (`pip uninstall {name}`)"
    if str(place.parent) in site.getsitepackages():
        owners = metadata.packages_distributions().get("src", [])
        name = owners[0] if owners else "NAME"
        return f"where a package put it (`pip uninstall {name}`)"
    return "which a .pth file or sitecustomize.py names (remove that)"


if __name__ == "__main__":
    stage.run(main, section=False)
