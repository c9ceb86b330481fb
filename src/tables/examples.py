"""Labelled texts on disk: a parquet file of ``id text label`` and any columns kept for slices."""

import json
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from src.core.errors import InputError

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
COLUMNS = ("id", "text", "label")
PART = 200_000

Hashes = npt.NDArray[np.uint64]


def read(path: Path) -> pd.DataFrame:
    """Read examples: string columns ``id text label`` first, then any others.

    Raises:
        InputError: ``path`` is not there, or is no parquet file.
    """
    with _reading(path):
        frame: pd.DataFrame = pq.read_table(path).to_pandas()
    return frame


def scan(path: Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Read examples as they were written, a batch at a time: the given columns, or all.

    Raises:
        InputError: as of ``read``, or a column is not there.
    """
    with _reading(path), pq.ParquetFile(path) as file:
        for number in range(file.num_row_groups):
            yield file.read_row_group(number, columns=columns and list(columns))


def column_names(path: Path) -> list[str]:
    """Read the names of the columns of examples."""
    with _reading(path):
        names: list[str] = pq.read_schema(path).names
    return names


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    if not path.exists():
        raise InputError(f"There are no examples in {path}: run `dvc repro` first.")
    try:
        yield
    except pa.ArrowInvalid as error:
        raise InputError(f"{path} can't be read: {error}; make it again.") from error


def partitions(keys: Hashes) -> Iterator[npt.NDArray[np.int64]]:
    """Divide the rows of the keys into parts of about ``PART``, equal keys in the same part.

    What compares rows with each other part by part needs memory for one part alone.
    """
    parts = min(256, 1 << (len(keys) // PART).bit_length())
    lowest = keys.view(np.uint8)[:: keys.itemsize] & np.uint8(parts - 1)
    for part in range(parts):
        yield np.flatnonzero(lowest == part)


def hash_rows(columns: Mapping[str, pa.Array]) -> Hashes:
    """Hash each row; rows of equal values get equal numbers, whatever the order of the columns.

    A value that is absent counts as one that is null.
    """
    total = np.zeros(len(next(iter(columns.values()))), np.uint64)
    for name, values in columns.items():
        if pa.types.is_boolean(values.type):  # of which one that is missing would change all hashes
            values = values.cast(pa.string())
        strings = values.to_numpy(zero_copy_only=False)
        hashes = pd.util.hash_array(strings, categorize=False)
        factor = pd.util.hash_array(np.array([name], object), categorize=False)[0] | np.uint64(1)
        present = values.is_valid().to_numpy(zero_copy_only=False)
        total += np.where(present, hashes * factor, np.uint64(0))
    return total


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write examples; equal frames give equal bytes, since no pandas metadata goes with them."""
    table = pa.Table.from_pandas(frame, preserve_index=False).replace_schema_metadata()
    pq.write_table(table, path, compression="zstd")


def read_labels(folder: Path) -> list[str]:
    """Read the labels, in the order of the models' outputs, from ``labels.json`` in ``folder``."""
    path = folder / "labels.json"
    if not path.exists():
        raise InputError(f"There are no labels in {path}: run `dvc repro` first.")
    labels: list[str] = json.loads(path.read_text(encoding="utf-8"))
    return labels


def expect_labels(model: Path, known: list[str], labels: list[str]) -> None:
    """Raise an ``InputError`` unless a model knows these labels, in this order."""
    if known != labels:
        raise InputError(
            f"Expected a model of the classes {labels}, found one of {known} in {model}: "
            "run `dvc repro` to train on the present split."
        )


def label_ids(frame: pd.DataFrame, labels: list[str]) -> npt.NDArray[np.int64]:
    """Return the position of each row's label in ``labels``, of shape [rows]."""
    position = {label: k for k, label in enumerate(labels)}
    return np.array([position[label] for label in frame["label"]], dtype=np.int64)


def fold(text: str) -> str:
    """Make texts equal that differ only in Unicode form, case or spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())
