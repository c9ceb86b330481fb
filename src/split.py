"""Divide examples into train, validation and test; equal texts never fall on two sides."""

import logging
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from src import examples, stage
from src.examples import SPLITS
from src.stage import InputError, Seed, Share, closest

NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}

log = logging.getLogger("src.split")


def main(
    raw: Path,
    splits: Path,
    *,
    column: str,
    overlap: Literal["stop", "drop"],
    validation_size: Share,
    test_size: Share,
    seed: Seed,
) -> None:
    """Write ``train validation test .parquet`` and ``labels.json``.

    Args:
        raw: the folder with ``examples.parquet``.
        splits: the folder that gets the four files.
    """
    frame = examples.read(raw / "examples.parquet")
    if validation_size + test_size >= 1:
        raise InputError(
            "Expected split.validation_size and split.test_size to leave texts to train on, found "
            f"{validation_size:g} + {test_size:g}: make them sum to less than 1."
        )
    wanted = {"test": test_size, "validation": validation_size}
    sides = _given(frame, column) if column else pd.Series("train", index=frame.index)
    groups = frame["text"].map(examples.fold)
    sides = _without_overlap(sides, groups, column, overlap)
    # The test texts are drawn first, then the validation texts from what is left.
    to_draw = {side: size for side, size in wanted.items() if side not in set(sides)}
    for number, (side, size) in enumerate(to_draw.items(), 1):
        pool = sides == "train"
        leave = len(to_draw) - number + 1  # a group for each side that is still to come, and train
        share = size * len(frame) / pool.sum()
        sides[draw(frame["label"][pool], groups[pool], share, leave, seed)] = side
    labels = sorted(set(frame["label"][sides == "train"]))
    _refuse_unknown(frame["label"], sides, labels)
    with stage.replacing(splits) as folder:
        folder.mkdir()
        stage.write_json(folder / "labels.json", labels)
        for side in SPLITS:
            rows = frame[sides == side]
            examples.write(rows, folder / f"{side}.parquet")
            log.info("%s: %d texts, %s", side, len(rows), rows["label"].value_counts().to_dict())


def draw(labels: pd.Series, groups: pd.Series, size: float, leave: int, seed: int) -> pd.Index:
    """Draw a share of each label's groups, at least one, and leave some.

    Args:
        labels: the label of each row.
        groups: a key for each row; rows of one key are drawn together. A group that holds several
            labels counts for the first.
        size: the share to draw.
        leave: the groups of each label to leave at least.
        seed: of the pseudo-random order.

    Returns:
        The index of the rows drawn.

    Raises:
        InputError: a label has too few groups.
    """
    label_of_group = labels.groupby(groups, sort=True).first()
    drawn: list[str] = []
    for label, members in label_of_group.groupby(label_of_group, sort=True):
        if len(members) <= leave:
            raise InputError(
                f"Expected {leave + 1} different texts of class {label!r} at least, one for each "
                f"side of the split, found {len(members)}: add some or leave the class out."
            )
        count = min(max(1, round(len(members) * size)), len(members) - leave)
        order = np.random.default_rng(seed).permutation(len(members))
        drawn.extend(members.index.to_numpy()[order[:count]])
    return groups.index[groups.isin(drawn)]


def _given(frame: pd.DataFrame, column: str) -> pd.Series:
    """The split that the source itself names in ``column``."""
    if column not in frame:
        raise InputError(
            f"Expected column {column!r} in the source, found {', '.join(frame.columns)}"
            f"{closest(column, frame.columns)}: correct split.column, or make it ''."
        )
    sides = frame[column].str.strip().str.lower().map(NAMES)
    if sides.isna().any():
        value = frame.loc[sides.isna(), column].iloc[0]
        raise InputError(
            f"Expected one of {', '.join(NAMES)} in column {column!r}, found {value!r}: "
            "correct it in the source, or make split.column ''."
        )
    return sides


def _without_overlap(sides: pd.Series, groups: pd.Series, column: str, overlap: str) -> pd.Series:
    """The sides, with "" for rows whose text is on a later side too: test is kept whole."""
    rank = sides.map({side: k for k, side in enumerate(SPLITS)})
    early = rank < rank.groupby(groups).transform("max")
    if early.any() and overlap == "stop":
        raise InputError(
            f"Expected each text on one side of {column!r}, found {int(early.sum())} that are on a "
            f"later side too, such as {str(groups[early].iloc[0])[:60]!r}: make split.overlap drop "
            "to leave them out, or split.column '' to divide the texts anew."
        )
    if early.any():
        log.warning("left out %d texts that are on a later side too", early.sum())
    return sides.mask(early, "")


def _refuse_unknown(labels: pd.Series, sides: pd.Series, known: list[str]) -> None:
    for side in SPLITS:
        found = set(labels[sides == side])
        if unknown := sorted(found.difference(known)):
            raise InputError(
                f"Expected every class to have training texts, found {unknown[0]!r} in {side} "
                "alone: add training texts, remove the class, or make split.column ''."
            )
        if missing := sorted(set(known) - found):
            log.warning("%s has no text of %s", side, missing)


if __name__ == "__main__":
    stage.run(main)
