"""Pedigree. What has to be settled before any library is imported.

A stage that DVC started ends with it, also while it imports what it needs.

A thread of OpenMP that waits for others keeps its core for 300,000 turns, before it sleeps. Where
other processes want the core, all of them wait, and training takes five times as long. A tenth of
that costs an idle machine next to nothing (docs/performance.md).
"""

import os
import sys

if not os.environ.keys() & {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}:
    os.environ["GOMP_SPINCOUNT"] = "30000"

if "DVC_STAGE" in os.environ and sys.argv[:1] == ["-m"]:  # Python is about to run a stage
    from src.core.processes import end_with_dvc

    end_with_dvc()
