"""Pedigree. A stage that DVC started ends with it, also while it imports what it needs."""

import os
import sys

if "DVC_STAGE" in os.environ and sys.argv[:1] == ["-m"]:  # Python is about to run a stage
    from src.core.processes import end_with_dvc

    end_with_dvc()
