"""What each model says of the same rows, side by side."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from src.core.errors import InputError
from src.tables import examples


def read(
    folders: Sequence[Path], called: str, repro: str, file: str = "predictions.parquet"
) -> dict[str, pd.DataFrame]:
    """Read the predictions of each folder, by the folder's name.

    Args:
        folders: one for each model.
        called: what messages call rows, such as texts.
        repro: the command that evaluates the models anew.
        file: the file of each folder.

    Raises:
        InputError: the columns ``id`` and ``label`` of two of them differ.
    """
    frames = {folder.name: examples.read(folder / file) for folder in folders}
    first = next(iter(frames))
    for name, frame in frames.items():
        if not frame[["id", "label"]].equals(frames[first][["id", "label"]]):
            raise InputError(
                f"The predictions of {first} and {name} are not of the same {called}: run "
                f"`{repro}` to evaluate both on the present split."
            )
    return frames
