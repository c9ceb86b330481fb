"""The rows of a source: their texts as they came, and the values that are read from them."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from src.core.errors import InputError
from src.tables import delimited, examples
from src.tables.examples import Hashes
from src.tables.folders import stem, stems
from src.tables.rows import Batch
from src.tables.schema import ID, STORED, Column, Schema, Writing
from src.tabular.inference import Found
from src.tabular.wanted import Wanted, refuse_odd_labels

REASONS = ("malformed", "no_label", "unreadable", "duplicate", "rare_class")
LABELS = 50_000  # that differ, beyond which no further row is read
NAMED = 20  # dropped rows that the log names
TOLD = 500_000  # rows between two lines of progress

OBJECTS = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz")  # whose rows have their own keys
PLAIN: dict[str, Any] = {"compression": "none", "use_dictionary": False}  # read again at once

FILE, LINE, WHY = "\0file", "\0line", "\0why"  # columns beside those of the source

log = logging.getLogger("src.tabular.table")


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
        self._columns: dict[str, None] = {}  # of all files
        self._no_label = ""  # where the first row without one is

    def add(self, name: str, batch: Batch) -> None:
        """Take in a batch of the file ``name``."""
        rows = len(batch.lines)
        self._columns |= dict.fromkeys(batch.columns)
        if name not in self._rows and not name.lower().endswith(OBJECTS):
            self._wanted.check([*batch.columns], name)
        columns = {
            key: self._writing.filled(pa.array(values, pa.string()))
            for key, values in batch.columns.items()
        }
        reasons = np.array([bool(why) for why in batch.reasons], np.uint8)

        def where(row: int) -> str:
            return f"{name}, line {batch.lines[row]}"

        for key in filter(None, (self._wanted.target, self._wanted.ids)):
            columns.setdefault(key, pa.nulls(rows, pa.string()))  # of objects without it
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
        if len(self._labels) > LABELS:
            refuse_odd_labels(self._labels, self._wanted.target, len(self._labels))
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

    def settle(self, stop_unreadable: bool, stop_unlabelled: bool) -> Schema:
        """Settle what the columns hold; InputError if a model can't be made of them."""
        target = self._wanted.target
        self._wanted.check([*self._columns], "The source")
        if self._no_label and stop_unlabelled:
            raise InputError(
                f"{self._no_label} has no label in column {target!r}: add one, or set "
                "load.missing_labels to drop to leave such rows out."
            )
        self._codes, self._reasons, self._keys = map(np.concatenate, zip(*self._parts, strict=True))
        self._parts = []
        usable = int((self._reasons == 0).sum())
        if not usable:
            raise InputError(
                f"No row has both a label in column {target!r} and as many fields as the header: "
                "correct load.target, load.missing or load.delimiter."
            )
        refuse_odd_labels(self._labels, target, usable)
        columns: list[Column] = []
        left_out = {"": "it has no name"} if "" in self._columns else {}
        for found in self._found.values():
            found.rows = usable
            column = found.column()
            if isinstance(column, str):
                left_out[found.name] = column
                log.warning("column %r is left out: %s", found.name, column)
                continue
            if stop_unreadable:
                found.refuse_unreadable(column)
            columns.append(column)
        features = Counter(name for column in columns for name in column.features)
        if twice := [name for name, count in features.items() if count > 1]:
            raise InputError(
                f"Column {twice[0]!r} is called as a part of a date is: rename it, or add it to "
                "load.drop."
            )
        if not columns:
            raise InputError(
                f"No column but {target!r} tells the rows apart ({left_out}): add features, or fix "
                "kinds by load.types."
            )
        kinds = Counter(column.kind for column in columns)
        log.info("columns that models may read: %s", dict(kinds))
        self._why: dict[int, str] = {}
        return Schema(target, "", self._writing, tuple(columns), left_out)

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
            self._refuse_repeated_ids()

    def _refuse_repeated_ids(self) -> None:
        parts = [examples.hash_rows({ID: t[ID].combine_chunks()}) for _, t in self._batches(ID)]
        kept = np.flatnonzero(self._reasons == 0)
        hashes = np.concatenate(parts)[kept]
        order = np.argsort(hashes, kind="stable")
        again = np.flatnonzero(np.diff(hashes[order]) == 0)
        if len(again):
            row = int(kept[order[again]].min())
            start, table = next((n, t) for n, t in self._batches(ID) if row < n + len(t))
            raise InputError(
                f"The id {table[ID][row - start].as_py()!r} is in column {self._wanted.ids!r} "
                "twice: set load.id_column to one whose values differ, or to '' to number rows."
            )

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
