"""Divide texts into train, validation and test; equal texts never fall on two sides."""

import hashlib
import itertools
import logging
from collections.abc import Sequence
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
from src.tables.examples import Hashes
from src.tables.splitting import LEFT_OUT, TEST, TRAIN, VALIDATION, Division, Numbers, Rows, apart

log = logging.getLogger("src.text.split")


def main(
    raw: Path,
    splits: Path,
    *,
    strategy: Literal["stratified", "predefined", "group", "hash"],
    column: str,
    overlap: Literal["stop", "drop"],
    out_of_scope: list[str],
    train_only: list[str],
    validation_size: Share,
    test_size: Share,
    seed: Seed,
) -> None:
    """Write ``train validation test .parquet`` and ``labels.json``.

    Args:
        raw: the folder with ``examples.parquet``.
        splits: the folder that gets the four files, and ``out_of_scope.parquet`` and
            ``left_out.parquet`` if there are such rows.
    """
    path = raw / "examples.parquet"
    if validation_size + test_size >= 1:
        raise InputError(
            f"split.validation_size and split.test_size, {validation_size:g} + {test_size:g}, "
            "leave no texts to train on: make them sum to less than 1."
        )
    needs_column = strategy in ("predefined", "group")
    if needs_column != bool(column):
        raise InputError(
            f"split.strategy is {strategy!r} and split.column {column!r}: expected a column for "
            "predefined and group, and '' for the others."
        )
    rows = _read(path, column, train_only)
    sizes = {VALIDATION: validation_size, TEST: test_size}
    wanted = Division(strategy, column, overlap, sizes, seed)
    sides = apart(rows, out_of_scope, wanted)
    sides[~rows.trained & np.isin(sides, (TRAIN, VALIDATION))] = LEFT_OUT
    labels = splitting.labels_of(rows, sides)
    with replacing(splits) as folder:
        folder.mkdir()
        write_json(folder / "labels.json", labels)
        splitting.write(path, folder, sides)
    splitting.log_counts(rows, sides)


def _read(path: Path, column: str, train_only: Sequence[str]) -> Rows:
    if len(train_only) == 1:
        raise InputError(
            f"split.train_only is {list(train_only)}: expected a column and the values of it that "
            "are trained on, as in [language, en], or []."
        )
    found = examples.column_names(path)
    for key, name in (("column", column), ("train_only", train_only[0] if train_only else "")):
        if name and name not in found:
            raise InputError(
                f"The source has no column {name!r}, only {', '.join(found)}"
                f"{closest(name, found)}: correct split.{key}."
            )
    wanted = list(dict.fromkeys(["text", "label", *filter(None, [column, *train_only[:1]])]))
    labels: dict[str, int] = {}
    values: dict[str | None, int] = {}
    seen: set[str | None] = set()
    codes: dict[str, list[Any]] = {"label": [], "text": [], "value": [], "trained": []}
    for table in examples.scan(path, wanted):
        codes["label"].append(_encode(table["label"], labels))
        keys = map(_key, table["text"].to_pylist())
        codes["text"].append(np.fromiter(keys, np.uint64, len(table)))
        if column:
            codes["value"].append(_encode(table[column], values))
        if train_only:
            seen.update(pc.unique(table[train_only[0]]).to_pylist())
            trained = pc.is_in(table[train_only[0]], pa.array(train_only[1:], pa.string()))
            codes["trained"].append(trained.to_numpy())
    if None in values:
        raise InputError(
            f"Column {column!r} is empty in some rows: fill it in, leave these rows out, or choose "
            "another split.strategy."
        )
    if absent := set(train_only[1:]) - seen:
        raise InputError(
            f"split.train_only has {min(absent)!r}, which column {train_only[0]!r} lacks"
            f"{closest(min(absent), filter(None, seen))}: correct it."
        )
    every = {key: np.concatenate(parts) for key, parts in codes.items() if parts}
    rows = len(every["label"])
    return Rows(
        list(labels),
        every["label"],
        every["text"],
        _groups(every["text"]),
        every.get("value", np.zeros(0, np.int32)),
        [str(value) for value in values],
        every.get("trained", np.ones(rows, np.bool_)),
        lambda row: _text(path, row)[:60],
        "texts",
    )


def _text(path: Path, row: int) -> str:
    every = itertools.chain.from_iterable(t["text"] for t in examples.scan(path, ["text"]))
    found: str = next(itertools.islice(every, row, None)).as_py()
    return found


def _encode(column: Any, known: dict[Any, int]) -> Numbers:
    """Number values in the order in which they first come."""
    encoded = column.combine_chunks().dictionary_encode("encode")
    codes = [known.setdefault(value, len(known)) for value in encoded.dictionary.to_pylist()]
    found: Numbers = np.array(codes, np.int32)[encoded.indices.to_numpy(zero_copy_only=False)]
    return found


def _groups(texts: Hashes) -> Numbers:
    groups = np.empty(len(texts), np.int32)
    known = 0
    for rows in examples.partitions(texts):
        found, group = np.unique(texts[rows], return_inverse=True)
        groups[rows] = group + known
        known += len(found)
    return groups


def _key(text: str) -> int:
    """Hash a text to 64 bits, the same in each run and on each machine."""
    folded = examples.fold(text).encode()
    return int.from_bytes(hashlib.blake2b(folded, digest_size=8).digest(), "big")


if __name__ == "__main__":
    stage.run(main)
