"""The rows of a source: their texts as they came, and the values that are read from them."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from src.core.errors import InputError, closest
from src.tables import delimited, examples
from src.tables.columns import refuse_one_column
from src.tables.examples import Hashes
from src.tables.folders import stem, stems
from src.tables.rows import Batch
from src.tables.schema import ID, STORED, WORDS, Kind, Schema, Writing
from src.tabular.inference import Found

REASONS = ("malformed", "no_label", "unreadable", "duplicate", "rare_class")
MANY = 100  # labels, beyond which they are no classes
FEW = 20  # rows, below which their labels may all differ
NAMED = 20  # dropped rows that the log names
TOLD = 500_000  # rows between two lines of progress

PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False}  # read again at once

FILE, LINE, WHY = "\0file", "\0line", "\0why"  # columns beside those of the source

log = logging.getLogger("src.tabular.table")


@dataclass(frozen=True)
class Wanted:
    """The columns that the params name."""

    target: str
    ids: str  # "" to number the rows
    keep: Sequence[str]  # all if it is empty
    drop: Sequence[str]
    fixed: Mapping[str, Kind]

    def check(self, header: Sequence[str], name: str) -> None:
        """Stop if one is not in the table, or has two roles."""
        every = {
            "target": [self.target],
            "id_column": [self.ids] if self.ids else [],
            "keep": self.keep,
            "drop": self.drop,
            "types": [*self.fixed],
        }
        for key, columns in every.items():
            for column in columns:
                if column not in header:
                    refuse_one_column(column, header, name)
                    raise InputError(
                        f"{name} has no column {column!r}, but {', '.join(map(repr, header))}"
                        f"{closest(column, header)}: correct load.{key}."
                    )
        for key in ("keep", "drop"):
            if self.target in every[key]:
                raise InputError(
                    f"load.{key} has {self.target!r}, which is load.target: take it out of one."
                )
        if both := {*self.keep} & {*self.drop}:
            raise InputError(f"load.keep and load.drop both have {min(both)!r}: keep it in one.")

    def features(self, header: Sequence[str]) -> list[str]:
        """List the columns that models may read."""
        others = {self.target, self.ids, *self.drop}
        return [n for n in header if n not in others and (not self.keep or n in self.keep)]


class Table:
    """All rows: their texts on disk, a file a batch, and a few bytes of each in memory."""

    def __init__(
        self, folder: Path, files: Sequence[str], wanted: Wanted, writing: Writing, *, alike: bool
    ) -> None:
        """Keep batches of files in ``folder``; ``alike`` if repeated rows are to be found."""
        self._folder = folder
        self._alike = alike
        self._wanted = wanted
        self._writing = writing
        self._found: dict[str, Found] = {}
        self._labels: dict[str, int] = {}  # code by label
        self._runs: list[int] = []  # rows of each batch
        self._rows: Counter[str] = Counter()  # of each file so far
        self._stems = stems(files)
        self._parts: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.uint8], Hashes]] = []
        self._no_label = ""  # where the first row without one is

    def add(self, name: str, batch: Batch) -> None:
        """Take in a batch of the file ``name``."""
        rows = len(batch.lines)
        if name not in self._rows:
            self._wanted.check([*batch.columns], name)
        columns = {
            key: self._writing.filled(pa.array(values, pa.string()))
            for key, values in batch.columns.items()
        }
        reasons = np.array([bool(why) for why in batch.reasons], np.uint8)

        def where(row: int) -> str:
            return f"{name}, line {batch.lines[row]}"

        labels = columns[self._wanted.target]
        bare = pc.is_null(labels).to_numpy(zero_copy_only=False) & (reasons == 0)
        reasons[bare] = _code("no_label")
        if bare.any() and not self._no_label:
            self._no_label = where(int(bare.argmax()))
        usable = pa.array(reasons == 0)
        places = np.flatnonzero(reasons == 0)
        before = sum(self._runs)
        for key in self._wanted.features([*columns]):
            if key not in self._found:
                self._found[key] = Found(key, self._writing, self._wanted.fixed.get(key))
                self._found[key].rows = before  # without this key so far, as JSON may be
            used = columns[key].filter(usable)
            self._found[key].add(used, lambda row: where(int(places[row])))
        codes = [
            self._labels.setdefault(n, len(self._labels)) for n in labels.fill_null("").to_pylist()
        ]
        texts = {
            key: columns[key] for key in (*self._wanted.features([*columns]), self._wanted.target)
        }
        keys = examples.hash_rows(texts) if self._alike else np.empty(0, np.uint64)
        self._parts.append((np.array(codes, np.int32), reasons, keys))
        numbers = range(self._rows[name] + 1, self._rows[name] + rows + 1)
        ids = pa.array([f"{self._stems.get(name) or stem(name)}:{row}" for row in numbers])
        if self._wanted.ids:
            ids = pc.coalesce(columns[self._wanted.ids], ids)
        texts |= {ID: ids, FILE: pa.array([name] * rows), LINE: pa.array(batch.lines, pa.int64())}
        texts[WHY] = pa.array(batch.reasons, pa.string())
        pq.write_table(pa.table(texts), self._folder / f"{len(self._runs)}.parquet", **PLAIN)
        self._rows[name] += rows
        self._runs.append(rows)
        if sum(self._runs) // TOLD > before // TOLD:
            log.info("read %d rows", sum(self._runs))

    def settle(self, positive: str, stop_unreadable: bool, stop_unlabelled: bool) -> Schema:
        """Settle what the columns hold; InputError if a model can't be made of them."""
        target = self._wanted.target
        if self._no_label and stop_unlabelled:
            raise InputError(
                f"{self._no_label} has no label in column {target!r}: add one, or set "
                "load.missing_labels to drop to leave such rows out."
            )
        self._codes, self._reasons, self._keys = map(np.concatenate, zip(*self._parts, strict=True))
        self._parts = []
        labels = sorted(label for label in self._labels if label)
        _refuse_odd_labels(labels, target, int((self._reasons == 0).sum()))
        columns, left_out = [], {}
        for found in self._found.values():
            found.rows = int((self._reasons == 0).sum())
            column = found.column()
            if isinstance(column, str):
                left_out[found.name] = column
                log.warning("column %r is left out: %s", found.name, column)
                continue
            if stop_unreadable:
                found.refuse_unreadable(column)
            columns.append(column)
        if not columns:
            raise InputError(
                f"No column but {target!r} tells the rows apart ({left_out}): add features, or fix "
                "kinds by load.types."
            )
        kinds = Counter(column.kind for column in columns)
        log.info("%d columns: %s", len(columns), dict(kinds))
        schema = Schema(
            target, _positive(labels, positive), self._writing, tuple(columns), left_out
        )
        self._why: dict[int, str] = {}
        return schema

    def convert(self, schema: Schema) -> None:
        """Read the values of every batch; note the rows that have one that can't be read."""
        for number, (start, table) in enumerate(self._batches()):
            typed = {}
            for column in schema.columns:
                texts = _column(table, column.name)
                typed[column.name] = values = self._writing.read(texts, column.kind)
                bad = pc.and_(pc.is_valid(texts), pc.is_null(values))
                for row in np.flatnonzero(bad.to_numpy(zero_copy_only=False)).tolist():
                    if self._reasons[start + row] == 0:
                        self._reasons[start + row] = _code("unreadable")
                        value = texts[row].as_py()[:60]
                        self._why[start + row] = f"{value!r} in {column.name!r}, a {column.kind}"
            pq.write_table(pa.table(typed), self._folder / f"typed-{number}.parquet", **PLAIN)

    def drop_repeated(self) -> None:
        """Note rows that repeat an earlier one in all features and the label."""
        for part in examples.partitions(self._keys):
            rows = part[self._reasons[part] == 0]
            order = rows[np.argsort(self._keys[rows], kind="stable")]  # the first row stays first
            again = np.diff(self._keys[order], prepend=~self._keys[order[:1]]) == 0
            self._reasons[order[again]] = _code("duplicate")

    def drop_rare(self, fewest: int) -> None:
        """Note the rows of classes with fewer rows left than ``fewest``."""
        counts = np.bincount(self._codes[self._reasons == 0], minlength=len(self._labels))
        rare = (counts < fewest)[self._codes] & (self._reasons == 0)
        self._reasons[rare] = _code("rare_class")

    def counts(self) -> dict[str, Any]:
        """Count the rows, those kept, those dropped by reason, and those of each class."""
        found = np.bincount(self._reasons, minlength=len(REASONS) + 1).tolist()
        of_class = np.bincount(self._codes[self._reasons == 0], minlength=len(self._labels))
        classes = {n: int(of_class[k]) for n, k in self._labels.items() if of_class[k]}
        return {
            "rows": len(self._reasons),
            "kept": found[0],
            "dropped": dict(zip(REASONS, found[1:], strict=True)),
            "classes": dict(sorted(classes.items())),
        }

    def refuse(self, counts: Mapping[str, Any], most: float, rejected: Path) -> None:
        """Stop if too many rows are dropped, one class is left, or an id is there twice."""
        total, lost = counts["rows"], counts["rows"] - counts["kept"]
        if lost > most * total:
            found = ", ".join(
                f"{count} {reason}" for reason, count in counts["dropped"].items() if count
            )
            raise InputError(
                f"{lost} of {total} rows would be dropped ({found}), more than "
                f"load.max_dropped_fraction {most:g} allows: fix the rows that {rejected} lists, "
                "or raise it."
            )
        if len(counts["classes"]) < 2:
            raise InputError(
                f"Column {self._wanted.target!r} must have at least 2 classes, and has "
                f"{len(counts['classes'])} in the {counts['kept']} rows kept: add rows of another "
                "class, or correct load.target."
            )
        if self._wanted.ids:
            seen: set[str] = set()
            for start, table in self._batches(ID):
                for row, name in enumerate(table[ID].to_pylist()):
                    if self._reasons[start + row] == 0 and name in seen:
                        raise InputError(
                            f"The id {name!r} is in column {self._wanted.ids!r} twice: set "
                            "load.id_column to one whose values differ, or to '' to number rows."
                        )
                    seen.add(name)

    def write_rejected(self, path: Path) -> None:
        """Write the dropped rows as csv, and name the first ones in the log."""
        named = 0
        with path.open("w", encoding="utf-8", newline="") as stream:
            out = delimited.writer(stream)
            out.writerow(["file", "line", "id", "reason", "label"])
            told = (FILE, LINE, ID, WHY, self._wanted.target)
            for start, table in self._batches(*told):
                reasons = self._reasons[start : start + len(table)]
                for row in np.flatnonzero(reasons).tolist():
                    each = {key: table[key][row].as_py() for key in told}
                    detail = each[WHY] or self._why.get(start + row, "")
                    why = REASONS[reasons[row] - 1] + f": {detail}" * bool(detail)
                    label = each[self._wanted.target] or ""
                    out.writerow([Path(each[FILE]).name, each[LINE], each[ID], why, label])
                    named += 1
                    if named <= NAMED:
                        log.info(
                            "dropped %s of %s, line %d: %s", each[ID], each[FILE], each[LINE], why
                        )
        if named > NAMED:
            log.info("and %d more", named - NAMED)

    def write_kept(self, path: Path, schema: Schema) -> None:
        """Write the values of the rows that are kept, a batch at a time."""
        fields = [(ID, pa.string()), (schema.target, pa.string())]
        fields += [(column.name, STORED[column.kind]) for column in schema.columns]
        with pq.ParquetWriter(path, pa.schema(fields), compression="zstd") as writer:
            for number, (start, table) in enumerate(self._batches(ID, schema.target)):
                typed = pq.read_table(self._folder / f"typed-{number}.parquet")
                whole = pa.table(
                    [table[ID], table[schema.target], *typed.columns], schema=pa.schema(fields)
                )
                kept = self._reasons[start : start + len(table)] == 0
                writer.write_table(whole.filter(pa.array(kept)))

    def _batches(self, *columns: str) -> Iterator[tuple[int, pa.Table]]:
        """Yield the number of its first row, and the texts of each batch: all, or some columns."""
        start = 0
        for number, rows in enumerate(self._runs):
            path = self._folder / f"{number}.parquet"
            yield start, pq.read_table(path, columns=[*columns] or None, memory_map=False)
            start += rows


def _code(reason: str) -> int:
    return REASONS.index(reason) + 1


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:  # of a batch of JSON whose rows lack it
        return pa.nulls(len(table), pa.string())
    return table[name].combine_chunks()


def _refuse_odd_labels(labels: Sequence[str], target: str, rows: int) -> None:
    if len(labels) > MANY or (rows >= FEW and len(labels) > rows / 2):
        raise InputError(
            f"Column {target!r} has {len(labels)} different values, such as {labels[0]!r} and "
            f"{labels[-1]!r}, which are no classes: correct load.target; this pipeline tells "
            "classes, not amounts."
        )


def _positive(labels: Sequence[str], named: str) -> str:
    """Return the label that is looked for, "" if there are more than two."""
    if named and named not in labels:
        raise InputError(
            f"load.positive is {named!r}, which no row has: choose among {', '.join(labels)}"
            f"{closest(named, labels)}."
        )
    if len(labels) != 2:
        if named:
            raise InputError(
                f"load.positive is {named!r}, but there are {len(labels)} labels: set it to ''."
            )
        return ""
    pair = tuple(label.casefold() for label in labels)
    if not named and pair not in {("0", "1"), *WORDS}:
        raise InputError(
            f"The labels are {labels[0]!r} and {labels[1]!r}: set load.positive to the one that is "
            "looked for, such as a fraud."
        )
    return named or labels[1]
