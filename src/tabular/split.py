"""Divide rows into train, validation and test; equal rows never fall on two sides."""

import logging
from collections.abc import Sequence
from dataclasses import replace
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
from src.tables.examples import SPLITS, Hashes
from src.tables.schema import ID, Column, Schema
from src.tables.splitting import TEST, TRAIN, VALIDATION, Division, Rows, Sides

log = logging.getLogger("src.tabular.split")


def main(
    raw: Path,
    splits: Path,
    *,
    strategy: Literal["stratified", "time", "group", "predefined", "hash"],
    column: str,
    learn_from_column: bool,
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
    _check(strategy, column, validation_size, test_size)
    path, schema = raw / "rows.parquet", Schema.read(raw / "schema.json")
    _expect_column(path, column)
    rows = _rows(path, schema, strategy, column)
    sizes = {VALIDATION: validation_size, TEST: test_size}
    if strategy == "time":
        sides = _by_time(_read(path, column), sizes, column)
    else:
        sides = splitting.divide(rows, Division(strategy, column, overlap, sizes, seed))
    labels = splitting.labels_of(rows, sides)
    _expect_every_label(rows, sides, labels)
    aside = strategy == "predefined" or not learn_from_column
    schema = _without_told(schema, path, sides, column if aside else "")
    with replacing(splits) as folder:
        folder.mkdir()
        write_json(folder / "labels.json", labels)
        schema.write(folder / "schema.json")
        splitting.write(path, folder, sides)
    splitting.log_counts(rows, sides)


def _check(strategy: str, column: str, validation_size: float, test_size: float) -> None:
    """Stop if the params don't fit together."""
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


def _read(path: Path, column: str) -> pa.Array:
    """Read one column of all rows; all columns may be more than memory holds."""
    return pa.concat_tables(examples.scan(path, [column]))[column].combine_chunks()


def _expect_column(path: Path, column: str) -> None:
    """Stop if there is no such column, or a row has no value there."""
    names = examples.column_names(path)
    if column and column not in names:
        raise InputError(
            f"The rows have no column {column!r}, only {', '.join(names)}{closest(column, names)}: "
            "correct split.column, or keep the column by load.keep or load.types."
        )
    if column and (empty := _read(path, column).null_count):
        raise InputError(
            f"Column {column!r} is empty in {empty} rows: fill it in, leave these rows out, or "
            "choose another split.strategy."
        )


def _rows(path: Path, schema: Schema, strategy: str, column: str) -> Rows:
    labels, names = _codes(_read(path, schema.target))
    values, value_names = np.zeros(0, np.int32), list[str]()
    if strategy in ("group", "predefined"):
        values, value_names = _codes(_read(path, column).cast(pa.string()))
    else:
        column = ""
    keys = np.zeros(len(labels), np.uint64)
    if strategy != "time":  # which does not ask what rows hold
        keys = _hash(path, [c for c in schema.columns if c.name != column])
    return Rows(
        names,
        labels,
        keys,
        np.unique(keys, return_inverse=True)[1].astype(np.int32),
        values,
        value_names,
        np.ones(len(labels), np.bool_),
        lambda row: str(_read(path, ID)[row].as_py()),
        "rows",
    )


def _hash(path: Path, columns: Sequence[Column]) -> Hashes:
    """Hash what rows hold in some columns, a batch at a time.

    The column of sides or groups is none of them, as it would tell equal rows apart.
    """
    if not columns:
        raise InputError("No column is left to learn from but that of the split: add features.")
    parts = []
    for table in examples.scan(path):
        features = {c.name: table[c.name].combine_chunks() for c in columns}
        parts.append(examples.hash_rows(features))
    return np.concatenate(parts)


def _expect_every_label(rows: Rows, sides: Sides, labels: list[str]) -> None:
    """Stop if calibration, threshold or figures would lack a label."""
    for side, name in ((VALIDATION, "validation"), (TEST, "test")):
        there = {rows.names[k] for k in np.unique(rows.labels[sides == side])}
        if lacks := [label for label in labels if label not in there]:
            raise InputError(
                f"The split leaves no row of {lacks[0]!r} for {name}: make the sizes larger, "
                "choose another split.strategy, or leave the label out by load.min_class_rows."
            )


def _without_told(schema: Schema, path: Path, sides: Sides, column: str) -> Schema:
    """Leave out the column that the rows are divided by, and those without training values."""
    why = {c.name: "it has no value in the training rows" for c in schema.columns}
    start = 0
    for table in examples.scan(path):
        train = table.filter(pa.array(sides[start : start + len(table)] == TRAIN))
        start += len(table)
        for name in [name for name in why if train[name].null_count < len(train)]:
            del why[name]
        if not why:
            break
    if column in {c.name for c in schema.columns}:
        why[column] = "the rows are divided by it"
    for name, reason in why.items():
        log.warning("column %r is left out: %s", name, reason)
    left = tuple(c for c in schema.columns if c.name not in why)
    if not left:
        raise InputError(f"No column is left to learn from: {why}; add features.")
    return replace(schema, columns=left, left_out={**schema.left_out, **why})


def _codes(column: pa.Array) -> tuple[Any, list[str]]:
    """Number values in the order in which they first come; return also what they stand for."""
    encoded = column.dictionary_encode()
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
