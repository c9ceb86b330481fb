"""Load a trained model of a table."""

from pathlib import Path
from typing import Any

import joblib

from src.core.errors import InputError


def load(model: Path, names: list[str]) -> Any:
    """Load the pipeline of scikit-learn in a folder, whose k-th probability is of the k-th name.

    Raises:
        InputError: there is none, or it knows more or fewer labels.
    """
    path = model / "model.joblib"
    if not path.exists():
        raise InputError(f"{model} has no model: run `dvc repro tabular/dvc.yaml`.")
    pipeline = joblib.load(path)
    if list(pipeline.classes_) != list(range(len(names))):
        raise InputError(
            f"{model} knows {len(pipeline.classes_)} labels, and the split has {len(names)}: run "
            "`dvc repro tabular/dvc.yaml` to train on the present split."
        )
    return pipeline
