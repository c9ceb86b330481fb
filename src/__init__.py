"""Pedigree. What has to be settled before any library is imported.

A stage that DVC started ends with it, also while it imports what it needs.

A library that is missing, as where the environment is not active, is told in one sentence.

A thread of OpenMP that waits for others keeps its core for 300,000 turns, before it sleeps. Where
other processes want the core, all of them wait, and training takes five times as long. A tenth of
that costs an idle machine next to nothing (docs/performance.md).
"""

import os
import sys
from types import TracebackType

if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
    os.environ["GOMP_SPINCOUNT"] = "30000"


def _tell_missing(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Say which library this Python lacks, if a module of this project imports it in vain."""
    last = trace
    while last and last.tb_next:
        last = last.tb_next
    ours = last is not None and last.tb_frame.f_code.co_filename.startswith(__path__[0])
    if isinstance(error, ModuleNotFoundError) and ours and not f"{error.name}.".startswith("src."):
        sys.stderr.write(
            f"{sys.executable} has no package {error.name!r}: activate the project's environment, "
            "`. .venv/bin/activate`, which `make setup` makes.\n"
        )
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # Python is about to run a module of ours
    sys.excepthook = _tell_missing

if "DVC_STAGE" in os.environ and sys.argv[:1] == ["-m"]:  # Python is about to run a stage
    from src.core.processes import end_with_dvc

    end_with_dvc()
