"""Look for what makes the results of DVC experiments misleading, and say how to fix it.

    python -m src.tools.doctor            # before work is shared
    python -m src.tools.doctor --queue    # also before `dvc exp run --queue` or `--temp`

Each problem is one sentence; with any, the command exits with 1. Nothing is changed.
"""

import logging
from collections.abc import Iterator
from pathlib import Path

from dvc.exceptions import DvcException

from src.core import stage
from src.core.errors import InputError
from src.project.graph import outs_of, project, unreadable
from src.tools.doctor import environment, remotes, repository

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
    yield from environment.python()
    yield from environment.shadows()
    broken = [*repository.without_commits(), *repository.conflicts()]
    yield from broken
    try:
        yield from remotes.secrets()
        yield from remotes.unverified()
        if broken:  # what follows reads the pipelines, and compares them with git
            return
        with project() as repo:
            outs = list(outs_of(repo))
            yield from repository.kept_twice(outs)
            yield from repository.out_of_date(repo)
            yield from remotes.not_pushed(repo)
            if queue:
                yield from repository.not_committed(repo, outs)
    except DvcException as error:
        yield unreadable(error)
    except InputError as error:
        yield str(error)


if __name__ == "__main__":
    stage.run(main, section=False)
