"""Divide rows into train, validation and test; equal rows never fall on two sides."""

import logging
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from src.core import stage
from src.core.command_line import Seed, Share
from src.core.errors import InputError, closest
from src.core.files import replacing, write_json
from src.tables import examples, splitting
from src.tables.examples import SPLITS
from src.tables.schema import ID, Schema
from src.tables.splitting import TEST, TRAIN, VALIDATION, Division, Rows, Sides

log = logging.getLogger("src.tabular.split")


def main(
    raw: Path,
    splits: Path,
    *,
    strategy: Literal["stratified", "time", "group", "predefined", "hash"],
    column: str,
    overlap: Literal["stop", "drop"],
    validation_size: Share,
    test_size: Share,
    seed: Seed,
) -> None:
    """Write ``train validation test .parquet``, ``labels.json`` and the schema.

    Args:
        raw: the folder with ``rows.parquet`` and ``schema.json``.
        splits: the folder that gets the five files, and ``left_out.parquet`` if there are rows that
            another side has, too.
    """
    if validation_size + test_size >= 1:
        raise InputError(
            f"split.validation_size and split.test_size, {validation_size:g} + {test_size:g}, "
            "leave no rows to train on: make them sum to less than 1."
        )
    if (strategy in ("time", "group", "predefined")) != bool(column):
        raise InputError(
            f"split.strategy is {strategy!r} and split.column {column!r}: expected a column for "
            "time, group and predefined, and '' for the others."
        )
    path = raw / "rows.parquet"
    schema = Schema.read(raw / "schema.json")
    table = pa.concat_tables(examples.scan(path))
    if column and column not in table.column_names:
        raise InputError(
            f"The rows have no column {column!r}, only {', '.join(table.column_names)}"
            f"{closest(column, table.column_names)}: correct split.column, or keep the column by "
            "load.keep or load.types."
        )
    if column and (empty := table[column].null_count):
        raise InputError(
            f"Column {column!r} is empty in {empty} rows: fill it in, leave these rows out, or "
            "choose another split.strategy."
        )
    rows = _rows(table, schema, column if strategy != "time" else "")
    sizes = {VALIDATION: validation_size, TEST: test_size}
    if strategy == "time":
        sides = _by_time(table[column].combine_chunks(), sizes, column)
    else:
        sides = splitting.divide(rows, Division(strategy, column, overlap, sizes, seed))
    labels = splitting.labels_of(rows, sides)
    with replacing(splits) as folder:
        folder.mkdir()
        write_json(folder / "labels.json", labels)
        shutil.copyfile(raw / "schema.json", folder / "schema.json")
        splitting.write(path, folder, sides)
    splitting.log_counts(rows, sides)


def _rows(table: pa.Table, schema: Schema, column: str) -> Rows:
    features = {c.name: table[c.name].combine_chunks() for c in schema.columns}
    keys = examples.hash_rows(features)
    labels, names = _codes(table[schema.target])
    values, value_names = _codes(table[column].cast(pa.string())) if column else (None, [])
    ids = table[ID]
    return Rows(
        names,
        labels,
        keys,
        np.unique(keys, return_inverse=True)[1].astype(np.int32),
        np.zeros(0, np.int32) if values is None else values,
        value_names,
        np.ones(len(table), np.bool_),
        lambda row: str(ids[row].as_py()),
        "rows",
    )


def _codes(column: Any) -> tuple[Any, list[str]]:
    """Number values in the order in which they first come; return also what they stand for."""
    encoded = column.combine_chunks().dictionary_encode()
    return (
        encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32),
        encoded.dictionary.to_pylist(),
    )


def _by_time(column: pa.Array, sizes: dict[int, float], name: str) -> Sides:
    """Put the last rows into test and those before them into validation; equal times stay together.

    A split at random would let a model learn from what came later than the rows it is tested on.
    """
    if pa.types.is_string(column.type) or pa.types.is_boolean(column.type):
        raise InputError(
            f"Column {name!r} holds no numbers or dates: name one that does in split.column."
        )
    moments = pc.rank(column, tiebreaker="max").to_numpy(zero_copy_only=False) / len(column)
    sides = np.full(len(column), TRAIN, np.int8)
    sides[moments > 1 - sizes[TEST] - sizes[VALIDATION]] = VALIDATION
    sides[moments > 1 - sizes[TEST]] = TEST
    for side, side_name in enumerate(SPLITS):
        if not (sides == side).any():
            raise InputError(
                f"The split by {name!r} leaves no rows for {side_name}, as too many have one "
                "moment: change the sizes or split.strategy."
            )
    return sides


if __name__ == "__main__":
    stage.run(main)
