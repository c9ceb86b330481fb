"""Ways to divide rows: by the source's own column, by class, by group, or by the row alone."""

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from src.core.errors import InputError, closest
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
FURTHER = {"devel": "validation", "development": "validation", "testing": "test"}
EITHER = ("eval", "evaluation")  # what test is called beside dev, and else validation
NAMED = 5  # words that a message names
# Sides, the first three in the order of SPLITS.
TRAIN, VALIDATION, TEST, LEFT_OUT, OUT_OF_SCOPE = range(5)
APART = {LEFT_OUT: "left_out", OUT_OF_SCOPE: "out_of_scope"}  # files that there may be

Numbers = npt.NDArray[np.int32]
Sides = npt.NDArray[np.int8]

log = logging.getLogger("src.tables.splitting")


@dataclass(frozen=True)
class Rows:
    """A few bytes of each row."""

    names: list[str]  # the labels in the order of their codes
    labels: Numbers  # the code of each row's label
    keys: Hashes  # equal for rows that may not fall on two sides, such as equal texts
    groups: Numbers  # the same as numbers from 0 without gaps
    values: Numbers  # the value of the split's column, as a code
    value_names: list[str]  # the values in the order of their codes
    trained: npt.NDArray[np.bool_]  # whether the row may be trained on
    show: Callable[[int], str]  # a row, for messages
    called: str  # what messages call rows, such as texts

    def only(self, chosen: npt.NDArray[np.bool_]) -> "Rows":
        """Return some of the rows."""
        values = self.values[chosen] if len(self.values) else self.values
        return replace(
            self,
            labels=self.labels[chosen],
            keys=self.keys[chosen],
            groups=np.unique(self.groups[chosen], return_inverse=True)[1].astype(np.int32),
            values=values,
            trained=self.trained[chosen],
            show=lambda row: self.show(int(np.flatnonzero(chosen)[row])),
        )


@dataclass(frozen=True)
class Division:
    """The params of split by their names."""

    strategy: Literal["stratified", "predefined", "group", "hash"]
    column: str
    overlap: Literal["stop", "drop"]
    sizes: dict[int, float]  # the share of all texts that each side but train gets
    seed: int


def apart(rows: Rows, out_of_scope: Sequence[str], wanted: Division) -> Sides:
    """Choose a side for each row, and a place of their own for labels out of scope.

    Where the source itself has test texts, those out of scope on its other sides are left out, so
    that figures are of the texts that others have.
    """
    if unknown := [name for name in out_of_scope if name not in rows.names]:
        raise InputError(
            f"split.out_of_scope has {unknown[0]!r}, which is no label of the {rows.called}"
            f"{closest(unknown[0], rows.names)}: correct it."
        )
    left = {*rows.names} - {*out_of_scope}
    if out_of_scope and len(left) < 2:
        raise InputError(
            f"split.out_of_scope leaves {len(left)} classes to learn: leave at least 2 of the "
            "labels out of it."
        )
    other = np.isin(rows.labels, [rows.names.index(name) for name in out_of_scope])
    sides = np.full(len(other), OUT_OF_SCOPE, np.int8)
    sides[~other] = divide(rows.only(~other), wanted)
    if wanted.strategy == "predefined":
        given = _given(rows, wanted.column)
        if (given == TEST).any():
            sides[other & (given != TEST)] = LEFT_OUT
    if out_of_scope and not (sides == OUT_OF_SCOPE).any():
        log.warning("nothing of split.out_of_scope is on the test side, so none is out of scope")
    return sides


def divide(rows: Rows, wanted: Division) -> Sides:
    """Choose a side for each row; InputError if they can't be divided so."""
    sizes, seed = wanted.sizes, wanted.seed
    if wanted.strategy == "group":
        return _by_group(rows, sizes, seed)
    if wanted.strategy == "hash":
        return _by_hash(rows.keys, sizes, seed)
    sides = np.full(len(rows.labels), TRAIN, np.int8)
    if wanted.strategy == "predefined":
        sides = _given(rows, wanted.column)
        sides = _without_overlap(sides, rows, wanted)
        # Sides that the source lacks are drawn from its train texts.
        sizes = {side: size for side, size in sizes.items() if not (sides == side).any()}
    _draw_sides(sides, rows, sizes, seed)
    return sides


def sides_of(words: Iterable[str]) -> dict[str, str]:
    """Return the side that each of the words of a column names, "" where it names none."""
    plain = {word: re.sub(r"[\s_-]*(set|data)$", "", word.strip().lower()) for word in words}
    found = {word: {**NAMES, **FURTHER}.get(form, "") for word, form in plain.items()}
    there = {*found.values()}
    either = "test" if "validation" in there and "test" not in there else "validation"
    return {word: either if plain[word] in EITHER else side for word, side in found.items()}


def _given(rows: Rows, column: str) -> Sides:
    sides = sides_of(rows.value_names)
    if others := [repr(word) for word, side in sides.items() if not side]:
        raise InputError(
            f"Expected one of {', '.join(NAMES)} in column {column!r}, found "
            f"{', '.join(others[:NAMED])}{', ...' * (len(others) > NAMED)}: "
            "correct it in the source, or set split.strategy to stratified."
        )
    for word, side in sides.items():
        if word.strip().lower() not in NAMES:
            log.warning("Column %r: %r is taken for %s", column, word, side)
    found = [SPLITS.index(sides[word]) for word in rows.value_names]
    return np.array(found, np.int8)[rows.values]


def _without_overlap(sides: Sides, rows: Rows, wanted: Division) -> Sides:
    """Leave out rows whose equal is on a later side too, so that test is kept whole."""
    groups = rows.groups
    last = np.zeros(groups.max(initial=0) + 1, np.int8)
    np.maximum.at(last, groups, sides)
    early = sides < last[groups]
    if early.any() and wanted.overlap == "stop":
        raise InputError(
            f"Column {wanted.column!r} has {int(early.sum())} {rows.called} that are on a later "
            f"side too, such as {rows.show(int(early.argmax()))!r}: set split.overlap to drop to "
            "leave them out, or split.strategy to stratified to divide anew."
        )
    if early.any():
        log.warning("left out %d %s that are on a later side too", early.sum(), rows.called)
    return np.where(early, np.int8(LEFT_OUT), sides)


def _draw_sides(sides: Sides, rows: Rows, sizes: dict[int, float], seed: int) -> None:
    """Move rows of the train side to others, as many of each class as the sizes say."""
    total = len(sides)
    # The test texts are drawn first, then the validation texts from what is left.
    for number, side in enumerate(sorted(sizes, reverse=True), 1):
        pool = np.flatnonzero(sides == TRAIN)
        leave = len(sizes) - number + 1  # a text for each side that is still to come, and train
        share = sizes[side] * total / max(1, len(pool))
        drawn = _draw(rows, pool, share, leave, seed)
        sides[pool[drawn]] = side


def _draw(
    rows: Rows, pool: npt.NDArray[np.int64], size: float, leave: int, seed: int
) -> npt.NDArray[np.bool_]:
    """Draw a share of each label's groups, at least one, and leave some.

    Args:
        rows: all rows; those of one group are drawn together, and a group that holds several labels
            counts for that of its first row.
        pool: the rows to draw from.
        size: the share to draw.
        leave: the groups of each label to leave at least.
        seed: of the pseudo-random order.

    Returns:
        Whether each row of the pool is drawn.

    Raises:
        InputError: a label has too few groups.
    """
    labels, groups, names = rows.labels[pool], rows.groups[pool], rows.names
    first = np.full(groups.max(initial=0) + 1, -1, np.int64)  # row of each group
    first[groups[::-1]] = np.arange(len(groups))[::-1]
    here = np.flatnonzero(first >= 0)
    label_of = labels[first[here]]
    drawn = np.zeros(len(first), np.bool_)
    for label in np.unique(labels).tolist():
        members = here[label_of == label]
        if len(members) <= leave:
            raise InputError(
                f"Class {names[label]!r} has {len(members)} different {rows.called}, and needs at "
                f"least {leave + 1}, one for each side of the split: add some, "
                f"{_joined(label, names) if rows.called == 'texts' else ''}"
                f"or leave the class out by load.min_class_{rows.called}."
            )
        members = members[np.argsort(first[members])]  # which no hash decides
        count = min(max(1, round(len(members) * size)), len(members) - leave)
        order = np.random.default_rng(seed).permutation(len(members))
        drawn[members[order[:count]]] = True
    return drawn[groups]


def _joined(label: int, names: Sequence[str]) -> str:
    """Point, in a part of a sentence, at a label that may be the same one."""
    form = examples.fold(names[label])
    alike = [n for k, n in enumerate(names) if k != label and examples.fold(n) == form]
    return f"join it with {alike[0]!r} by load.normalize_labels, " if alike else ""


def _by_group(rows: Rows, sizes: dict[int, float], seed: int) -> Sides:
    """Put each value of the column, and every value that shares a row with it, on one side."""
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
            f"The split needs at least {len(sizes) + 1} groups of {rows.called}, one for each side "
            f"of it, and has {len(rows_of)}; groups that share one of them count as one: choose "
            "another split.column."
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


def _by_hash(keys: Hashes, sizes: dict[int, float], seed: int) -> Sides:
    """Choose a side by the row alone, so that rows that come or go change that of no other."""
    salted = keys ^ np.uint64(int(np.random.default_rng(seed).integers(2**63)))
    # Of the top bits, mixed, so that another seed orders the rows in another way.
    mixed = (salted * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(11)
    place = mixed / 2.0**53
    sides = np.full(len(keys), TRAIN, np.int8)
    sides[place < sizes[TEST] + sizes[VALIDATION]] = VALIDATION
    sides[place < sizes[TEST]] = TEST
    return sides


def labels_of(rows: Rows, sides: Sides) -> list[str]:
    """List the labels that are trained on; InputError if another side has one that is not."""
    counts = np.array(
        [np.bincount(rows.labels[sides == side], minlength=len(rows.names)) for side in range(3)]
    )
    for side, name in enumerate(SPLITS):
        if not counts[side].any():
            raise InputError(
                f"The split leaves no {rows.called} for {name}: add some, or change split.strategy "
                "or the sizes."
            )
        untrained = np.flatnonzero((counts[side] > 0) & (counts[TRAIN] == 0))
        if len(untrained):
            found = {rows.names[k]: int(counts[side, k]) for k in untrained}
            raise InputError(
                f"Classes of {name} have no training {rows.called} ({found}): add some, leave the "
                "classes out, or change split.strategy."
            )
        missing = [rows.names[k] for k in np.flatnonzero(counts[TRAIN] > 0) if not counts[side, k]]
        if missing:
            log.warning("%s has no %s of %s", name, rows.called, sorted(missing))
    return sorted(rows.names[k] for k in np.flatnonzero(counts[TRAIN] > 0))


def write(path: Path, folder: Path, sides: Sides) -> None:
    """Write each side's rows in their order, a batch at a time."""
    names: dict[int, str] = dict(enumerate(SPLITS))
    names |= {side: name for side, name in APART.items() if (sides == side).any()}
    start = 0
    schema = pq.read_schema(path)
    with ExitStack() as stack:
        writers = {
            side: stack.enter_context(
                pq.ParquetWriter(folder / f"{name}.parquet", schema, compression="zstd")
            )
            for side, name in names.items()
        }
        for table in examples.scan(path):
            part = sides[start : start + len(table)]
            start += len(table)
            for side, writer in writers.items():
                if (part == side).any():
                    writer.write_table(table.filter(pa.array(part == side)))


def log_counts(rows: Rows, sides: Sides) -> None:
    """Log how many rows each side has, by label."""
    for side, name in enumerate(SPLITS):
        counts = np.bincount(rows.labels[sides == side], minlength=len(rows.names)).tolist()
        found = {n: count for n, count in zip(rows.names, counts, strict=True) if count}
        log.info("%s: %d %s, %s", name, sum(counts), rows.called, dict(sorted(found.items())))
    for side, further in APART.items():
        if count := int((sides == side).sum()):
            log.info("%s: %d %s", further.replace("_", " "), count, rows.called)
