"""Divide examples into train, validation and test; equal texts never fall on two sides."""

import hashlib
import itertools
import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from src.core import stage
from src.core.command_line import Seed, Share
from src.core.errors import InputError, closest
from src.core.files import replacing, write_json
from src.tables import examples
from src.tables.examples import SPLITS, Hashes

NAMES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
}
TRAIN, VALIDATION, TEST, LEFT_OUT = range(4)  # sides, the first three in the order of SPLITS

Numbers = npt.NDArray[np.int32]
Sides = npt.NDArray[np.int8]

log = logging.getLogger("src.text.split")


def main(
    raw: Path,
    splits: Path,
    *,
    strategy: Literal["stratified", "predefined", "group", "hash"],
    column: str,
    overlap: Literal["stop", "drop"],
    train_only: list[str],
    validation_size: Share,
    test_size: Share,
    seed: Seed,
) -> None:
    """Write ``train validation test .parquet`` and ``labels.json``.

    Args:
        raw: the folder with ``examples.parquet``.
        splits: the folder that gets the four files.
    """
    path = raw / "examples.parquet"
    if validation_size + test_size >= 1:
        raise InputError(
            "Expected split.validation_size and split.test_size to leave texts to train on, found "
            f"{validation_size:g} + {test_size:g}: make them sum to less than 1."
        )
    needs_column = strategy in ("predefined", "group")
    if needs_column != bool(column):
        raise InputError(
            f"split.strategy is {strategy!r} and split.column {column!r}: expected a column for "
            "predefined and group, and '' for the others."
        )
    sizes = {VALIDATION: validation_size, TEST: test_size}
    rows = _read(path, column, train_only)
    if strategy == "predefined":
        sides = _without_overlap(_given(rows, column), rows.groups, column, overlap, path)
        # Sides that the source lacks are drawn from its train texts.
        sizes = {side: size for side, size in sizes.items() if not (sides == side).any()}
        _draw(sides, rows, sizes, seed)
    elif strategy == "stratified":
        sides = np.full(len(rows.labels), TRAIN, np.int8)
        _draw(sides, rows, sizes, seed)
    elif strategy == "group":
        sides = _by_group(rows, sizes, seed)
    else:
        sides = _by_hash(rows.texts, sizes, seed)
    sides[~rows.trained & (sides != TEST)] = LEFT_OUT
    labels = _labels(rows, sides)
    with replacing(splits) as folder:
        folder.mkdir()
        write_json(folder / "labels.json", labels)
        _write(path, folder, sides)
    for side, name in enumerate(SPLITS):
        counts = np.bincount(rows.labels[sides == side], minlength=len(rows.names)).tolist()
        found = {n: count for n, count in zip(rows.names, counts, strict=True) if count}
        log.info("%s: %d texts, %s", name, sum(counts), dict(sorted(found.items())))
    if left_out := int((sides == LEFT_OUT).sum()):
        log.info("left out: %d texts", left_out)


@dataclass(frozen=True)
class _Rows:
    """A few bytes of each row.

    Attributes:
        names: the labels in the order of their codes.
        labels: the code of each row's label.
        texts: a hash of each text, equal for texts that differ in form alone.
        groups: the same as numbers from 0 without gaps.
        values: the value of the split's column, as a code.
        value_names: the values in the order of their codes.
        trained: whether the row may be trained on.
    """

    names: list[str]
    labels: Numbers
    texts: Hashes
    groups: Numbers
    values: Numbers
    value_names: list[str]
    trained: npt.NDArray[np.bool_]


def _read(path: Path, column: str, train_only: Sequence[str]) -> _Rows:
    if len(train_only) == 1:
        raise InputError(
            f"split.train_only is {list(train_only)}: expected a column and the values of it that "
            "are trained on, as in [language, en], or []."
        )
    found = examples.column_names(path)
    for key, name in (("column", column), ("train_only", train_only[0] if train_only else "")):
        if name and name not in found:
            raise InputError(
                f"Expected column {name!r} in the source, found {', '.join(found)}"
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
            f"Expected a value of column {column!r} in each row, found rows without one: fill it, "
            "leave such rows out, or choose another split.strategy."
        )
    if absent := set(train_only[1:]) - seen:
        raise InputError(
            f"split.train_only has {min(absent)!r}: expected values of column {train_only[0]!r}"
            f"{closest(min(absent), filter(None, seen))}; correct it."
        )
    every = {key: np.concatenate(parts) for key, parts in codes.items() if parts}
    rows = len(every["label"])
    return _Rows(
        list(labels),
        every["label"],
        every["text"],
        _groups(every["text"]),
        every.get("value", np.zeros(0, np.int32)),
        [str(value) for value in values],
        every.get("trained", np.ones(rows, np.bool_)),
    )


def _encode(column: Any, known: dict[Any, int]) -> Numbers:
    """Codes of values, in the order in which they first come."""
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
    """A number of 64 bits that no run, machine or other text changes."""
    folded = examples.fold(text).encode()
    return int.from_bytes(hashlib.blake2b(folded, digest_size=8).digest(), "big")


def _given(rows: _Rows, column: str) -> Sides:
    """The sides that the source itself names."""
    sides = []
    for value in rows.value_names:
        name = NAMES.get(value.strip().lower())
        if name is None:
            raise InputError(
                f"Expected one of {', '.join(NAMES)} in column {column!r}, found {value!r}: "
                "correct it in the source, or make split.strategy stratified."
            )
        sides.append(SPLITS.index(name))
    return np.array(sides, np.int8)[rows.values]


def _without_overlap(sides: Sides, groups: Numbers, column: str, overlap: str, path: Path) -> Sides:
    """The sides, without rows whose text is on a later side too: test is kept whole."""
    last = np.zeros(groups.max(initial=0) + 1, np.int8)
    np.maximum.at(last, groups, sides)
    early = sides < last[groups]
    if early.any() and overlap == "stop":
        every = itertools.chain.from_iterable(t["text"] for t in examples.scan(path, ["text"]))
        first = next(itertools.islice(every, int(early.argmax()), None)).as_py()
        raise InputError(
            f"Expected each text on one side of {column!r}, found {int(early.sum())} that are on a "
            f"later side too, such as {first[:60]!r}: make split.overlap drop to "
            "leave them out, or split.strategy stratified to divide anew."
        )
    if early.any():
        log.warning("left out %d texts that are on a later side too", early.sum())
    return np.where(early, np.int8(LEFT_OUT), sides)


def _draw(sides: Sides, rows: _Rows, sizes: dict[int, float], seed: int) -> None:
    """Move texts of the train side to others, as many of each class as the sizes say."""
    total = len(sides)
    # The test texts are drawn first, then the validation texts from what is left.
    for number, side in enumerate(sorted(sizes, reverse=True), 1):
        pool = np.flatnonzero(sides == TRAIN)
        leave = len(sizes) - number + 1  # a text for each side that is still to come, and train
        share = sizes[side] * total / max(1, len(pool))
        drawn = draw(rows.labels[pool], rows.groups[pool], share, leave, seed, rows.names)
        sides[pool[drawn]] = side


def draw(
    labels: Numbers,
    groups: Numbers,
    size: float,
    leave: int,
    seed: int,
    names: Sequence[str],
) -> npt.NDArray[np.bool_]:
    """Draw a share of each label's groups, at least one, and leave some.

    Args:
        labels: the label of each row, as a code.
        groups: a number for each row; rows of one are drawn together. A group that holds several
            labels counts for that of its first row.
        size: the share to draw.
        leave: the groups of each label to leave at least.
        seed: of the pseudo-random order.
        names: of the labels, for the message.

    Returns:
        Whether each row is drawn.

    Raises:
        InputError: a label has too few groups.
    """
    first = np.full(groups.max(initial=0) + 1, -1, np.int64)  # row of each group
    first[groups[::-1]] = np.arange(len(groups))[::-1]
    here = np.flatnonzero(first >= 0)
    label_of = labels[first[here]]
    drawn = np.zeros(len(first), np.bool_)
    for label in np.unique(labels).tolist():
        members = here[label_of == label]
        if len(members) <= leave:
            raise InputError(
                f"Expected {leave + 1} different texts of class {names[label]!r} at least, one for "
                f"each side of the split, found {len(members)}: add some, {_joined(label, names)}"
                "or leave the class out by load.min_class_texts."
            )
        members = members[np.argsort(first[members])]  # which no hash decides
        count = min(max(1, round(len(members) * size)), len(members) - leave)
        order = np.random.default_rng(seed).permutation(len(members))
        drawn[members[order[:count]]] = True
    return drawn[groups]


def _joined(label: int, names: Sequence[str]) -> str:
    """The part of a sentence that points at a label which may be the same one."""
    form = examples.fold(names[label])
    alike = [n for k, n in enumerate(names) if k != label and examples.fold(n) == form]
    return f"join it with {alike[0]!r} by load.normalize_labels, " if alike else ""


def _by_group(rows: _Rows, sizes: dict[int, float], seed: int) -> Sides:
    """Whole values of the column, with every value that shares a text with them, on one side."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    text = rows.groups
    value = rows.values + text.max(initial=0) + 1
    nodes = int(value.max(initial=0)) + 1
    links = coo_matrix((np.ones(len(text), np.int8), (text, value)), shape=(nodes, nodes))
    group = connected_components(links, directed=False)[1][text]
    _, group = np.unique(group, return_inverse=True)
    rows_of = np.bincount(group)
    if len(rows_of) <= len(sizes):
        raise InputError(
            f"Expected {len(sizes) + 1} groups of texts at least, one for each side, found "
            f"{len(rows_of)}; groups that share a text count as one: choose another split.column."
        )
    side_of = np.full(len(rows_of), TRAIN, np.int8)
    waiting = np.random.default_rng(seed).permutation(len(rows_of)).tolist()
    for side in sorted(sizes, reverse=True):
        room = sizes[side] * len(text)
        chosen = []
        for candidate in waiting:
            # A group that does not fit is left for a side with more room.
            if rows_of[candidate] <= room:
                chosen.append(candidate)
                room -= rows_of[candidate]
        chosen = chosen or [min(waiting, key=rows_of.__getitem__)]
        side_of[chosen] = side
        waiting = [k for k in waiting if side_of[k] == TRAIN]
    return side_of[group]


def _by_hash(texts: Hashes, sizes: dict[int, float], seed: int) -> Sides:
    """A side by the text alone, so that rows that come or go change that of no other."""
    salted = texts ^ np.uint64(int(np.random.default_rng(seed).integers(2**63)))
    # Of the top bits, mixed, so that another seed orders the texts in another way.
    mixed = (salted * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)
    place = mixed / 2.0**53
    sides = np.full(len(texts), TRAIN, np.int8)
    sides[place < sizes[TEST] + sizes[VALIDATION]] = VALIDATION
    sides[place < sizes[TEST]] = TEST
    return sides


def _labels(rows: _Rows, sides: Sides) -> list[str]:
    """The labels that are trained on; InputError if another side has one that is not."""
    counts = np.array(
        [np.bincount(rows.labels[sides == side], minlength=len(rows.names)) for side in range(3)]
    )
    for side, name in enumerate(SPLITS):
        if not counts[side].any():
            raise InputError(
                f"Expected texts for {name}, found none: add texts, or change split.strategy or "
                "the sizes."
            )
        untrained = np.flatnonzero((counts[side] > 0) & (counts[TRAIN] == 0))
        if len(untrained):
            found = {rows.names[k]: int(counts[side, k]) for k in untrained}
            raise InputError(
                f"Expected every class to have training texts, found {found} in {name} alone: add "
                "training texts, leave the class out, or change split.strategy."
            )
        missing = [rows.names[k] for k in np.flatnonzero(counts[TRAIN] > 0) if not counts[side, k]]
        if missing:
            log.warning("%s has no text of %s", name, sorted(missing))
    return sorted(rows.names[k] for k in np.flatnonzero(counts[TRAIN] > 0))


def _write(path: Path, folder: Path, sides: Sides) -> None:
    """Write each side's rows in their order, a batch at a time, and those left out, if any."""
    names = [*SPLITS, "left_out"] if (sides == LEFT_OUT).any() else [*SPLITS]
    start = 0
    schema = pq.read_schema(path)
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd")
            )
            for name in names
        ]
        for table in examples.scan(path):
            part = sides[start : start + len(table)]
            start += len(table)
            for side, writer in enumerate(writers):
                if (part == side).any():
                    writer.write_table(table.filter(pa.array(part == side)))


if __name__ == "__main__":
    stage.run(main)
