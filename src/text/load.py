"""Bring labelled texts from their source into one table, and set unusable rows apart."""

import itertools
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from src.core import stage
from src.core.command_line import Count, Interval
from src.core.files import replacing, scratch, write_json
from src.tables import delimited, examples, sources
from src.tables.columns import NUMBERED, IdsError
from src.tables.examples import Hashes
from src.tables.folders import stem, stems
from src.tables.rows import Batch, Format, Reader
from src.text import load_cleaning
from src.text.load_cleaning import REASONS, Codes, Reasons, Rules

NAMED = 20  # dropped rows that the log names
QUOTED = 200  # characters of a dropped text that are kept

FILE, LINE, WHY = "\0file", "\0line", "\0why"  # columns beside those of the source

log = logging.getLogger("src.text.load")


def main(
    watched: Path,
    raw: Path,
    rejected: Path,
    *,
    source: list[str],
    sha256: str,
    max_bytes: Count,
    format: Format,
    text_column: str,
    label_column: str,
    id_column: str,
    encoding: list[str],
    delimiter: str,
    quote: str,
    column_names: list[str],
    max_characters: Count,
    control_characters: Literal["strip", "drop"],
    missing_labels: Literal["stop", "drop"],
    normalize_labels: bool,
    conflicting_labels: Literal["drop", "majority"],
    min_class_texts: Count,
    max_dropped_fraction: Annotated[float, Interval(ge=0, le=1)],
) -> None:
    """Read the source, drop the rows that can't be used, and write the rest.

    Args:
        watched: the folder whose files DVC watches for changes.
        raw: the folder that gets ``examples.parquet`` and ``counts.json``, in which rows = kept +
            dropped.
        rejected: the csv file that gets the dropped rows: file, line, reason, label, text.
    """
    sources.warn_of_unwatched(source, watched)
    reader = Reader(
        *(format, text_column, label_column, encoding, delimiter, quote, column_names, id_column)
    )
    rules = Rules(max_characters, control_characters == "strip", missing_labels == "stop")
    with scratch(raw.parent / "load") as folder:
        files = sources.find(source, folder, sha256, max_bytes)
        rows = Rows(folder, [file.name for file in files if file.suffix != ".txt"])
        for name, batch in reader.read(files):
            rows.add(name, batch, rules)
        rows.finish(normalize_labels)
        majority = conflicting_labels == "majority"
        load_cleaning.drop_repeated(rows.keys, rows.codes, rows.reasons, majority=majority)
        load_cleaning.drop_rare(rows.codes, rows.reasons, min_class_texts)
        rows.tell_ids_apart(id_column)
        counts = rows.counts()
        _log_dropped(rows, counts)
        with replacing(rejected) as apart:  # kept when load stops below: it lists what to fix
            rows.write_rejected(apart)
        load_cleaning.refuse_losses(counts, max_dropped_fraction, rejected)
        load_cleaning.refuse_odd_classes(counts, label_column)
        with replacing(raw) as made:
            made.mkdir()
            rows.write_kept(made / "examples.parquet")
            write_json(made / "counts.json", {"source": source} | counts)


class Rows:
    """All rows: as they came on disk, a file a batch, and a few bytes of each in memory."""

    codes: Codes  # of each row's label
    keys: Hashes  # equal for rows of one file that are alike in all but id and label
    reasons: Reasons  # why each row is dropped
    ids: Hashes

    def __init__(self, folder: Path, files: Sequence[str]) -> None:
        """Keep batches of files in ``folder``."""
        self.labels: list[str] = []  # in the order of their codes
        self._folder = folder
        self._batches = 0
        self._known: dict[str, int] = {}
        self._parts: list[tuple[Codes, Hashes, Reasons, Hashes]] = []
        self._files: Counter[str] = Counter()  # rows so far
        self._runs: list[tuple[int, int]] = []  # of each batch, the number of its file, and rows
        self._columns: dict[str, None] = dict.fromkeys(examples.COLUMNS)
        self._stripped = 0
        self._stems = stems(files)
        self._by_file = False  # whether ids begin with the name of their file
        self._of_texts = False  # whether each is a file of its own

    def add(self, name: str, batch: Batch, rules: Rules) -> None:
        """Take in a batch of the file ``name``."""
        rows = len(batch.lines)
        columns = {key: pa.array(values, pa.string()) for key, values in batch.columns.items()}
        numbers = range(self._files[name] + 1, self._files[name] + rows + 1)
        numbered = pa.array([f"{self._stem(name)}:{row}" for row in numbers], pa.string())
        own = columns.get("id", pa.nulls(rows, pa.string()))
        # A row without an id of its own, and one whose fields may have shifted, is numbered.
        own = pc.if_else(pa.array([bool(why) for why in batch.reasons]), None, own)
        columns["id"] = pc.coalesce(pc.if_else(pc.equal(own, ""), None, own), numbered)
        self._files[name] += rows
        reasons = np.array([bool(why) for why in batch.reasons], np.uint8)
        if rules.strip:
            self._stripped += load_cleaning.strip_control_characters(columns)
        load_cleaning.judge(columns, reasons, rules, lambda row: f"{name}, line {batch.lines[row]}")
        labels = columns["label"].fill_null("").to_pylist()
        codes = np.array([self._known.setdefault(n, len(self._known)) for n in labels], np.int32)
        # The same text in two files may be on two sides of a split: both are kept.
        other = {"id", "label", *batch.other_ids}
        alike = {key: values for key, values in columns.items() if key not in other}
        keys = examples.hash_rows(alike | {FILE: pa.array([name] * rows)})
        ids = examples.hash_rows({"id": columns["id"]})
        self._parts.append((codes, keys, reasons, ids))
        self._runs.append(([*self._files].index(name), rows))
        self._columns |= dict.fromkeys(columns)
        names = batch.names or [name] * rows
        self._of_texts |= batch.names is not None
        columns |= {FILE: pa.array(names), LINE: pa.array(batch.lines, pa.int64())}
        columns[WHY] = pa.array(batch.reasons, pa.string())
        pq.write_table(pa.table(columns), self._folder / f"{self._batches}.parquet")
        self._batches += 1

    def finish(self, normalize: bool) -> None:
        """Put the parts together once all batches are here."""
        self.codes, self.keys, self.reasons, self.ids = (
            np.concatenate([part[k] for part in self._parts]) for k in range(4)
        )
        self._parts = []
        self.labels = list(self._known)
        if normalize:
            known = {label: k for k, label in enumerate(self.labels)}
            counts = np.bincount(self.codes[self.reasons == 0], minlength=len(known))
            self.labels = load_cleaning.canonical(self.labels, counts.tolist())
            self.codes = np.array([known[label] for label in self.labels], np.int32)[self.codes]

    def counts(self) -> dict[str, Any]:
        """Count the rows, those kept, those dropped by reason, and the texts of each class."""
        found = np.bincount(self.reasons, minlength=len(REASONS) + 1).tolist()
        of_class = np.bincount(self.codes[self.reasons == 0], minlength=len(self.labels))
        classes = {n: int(of_class[k]) for k, n in enumerate(self.labels) if of_class[k]}
        return {
            "rows": len(self.reasons),
            "kept": found[0],
            "dropped": dict(zip(REASONS, found[1:], strict=True)),
            "stripped": self._stripped,
            "classes": dict(sorted(classes.items())),
        }

    def rejected(self) -> Iterator[tuple[str, int, str, str, str, str]]:
        """Yield file, line, id, reason, label and beginning of the text of each dropped row."""
        folders = [os.path.dirname(name) for name in self._files]  # noqa: PTH120, names of URLs too
        mixed = len({os.path.isabs(folder) for folder in folders}) > 1  # noqa: PTH117
        start = "" if mixed else os.path.commonpath(folders)
        for table, reasons in self._tables():
            part = table.filter(pa.array(reasons > 0))
            for row, code in zip(part.to_pylist(), reasons[reasons > 0], strict=True):
                reason = REASONS[code - 1]
                detail = row[WHY]
                if reason == "too_long":
                    detail = f"{len(row['text'])} characters"
                why = f"{reason}: {detail}" if detail else reason
                text = (row["text"] or "")[:QUOTED]
                file = row[FILE].removeprefix(start).lstrip("/") if start else row[FILE]
                yield file, row[LINE], row["id"], why, row["label"] or "", text

    def write_rejected(self, path: Path) -> None:
        """Write the dropped rows as csv."""
        with path.open("w", encoding="utf-8", newline="") as stream:
            out = delimited.writer(stream)
            out.writerow(["file", "line", "id", "reason", "label", "text"])
            out.writerows(self.rejected())

    def write_kept(self, path: Path) -> None:
        """Write the rows that are kept as examples, a batch at a time."""
        short = {name: self._stem(name) for name in self._files}
        several = len(short) > 1
        own = "file"  # what the source's own column of that name is called beside ours
        while several and own in self._columns:
            own = f"source_{own}"
        names = [own if several and name == "file" else name for name in self._columns]
        names += ["file"] if several else []
        schema = pa.schema([(name, pa.string()) for name in names])
        labels = pa.array(self.labels, pa.string())
        start = 0
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for table, reasons in self._tables():
                codes = pa.array(self.codes[start : start + len(table)])
                start += len(table)
                columns = {name: table[name] for name in table.column_names}
                columns["label"] = labels.take(codes)
                if self._by_file:
                    columns["id"] = _within(short[table[FILE][0].as_py()], table["id"])
                if several:
                    if "file" in columns:
                        columns[own] = columns["file"]
                    columns["file"] = pa.array([short[name] for name in table[FILE].to_pylist()])
                absent = pa.nulls(len(table), pa.string())
                whole = pa.table({name: columns.get(name, absent) for name in names})
                writer.write_table(whole.filter(pa.array(reasons == 0)))

    def _tables(self) -> Iterator[tuple[pa.Table, Reasons]]:
        start = 0
        for number in range(self._batches):
            table = pq.read_table(self._folder / f"{number}.parquet", memory_map=False)
            yield table, self.reasons[start : start + len(table)]
            start += len(table)

    def tell_ids_apart(self, column: str) -> None:
        """Put the name of the file before each id if ids start anew in each file.

        Raises:
            IdsError: two rows of one file that are kept have one id; names both places.
        """
        pair = self._repeated(self.ids)
        if pair and len(self._files) > 1:
            files = np.concatenate([np.full(rows, k) for k, rows in self._runs])
            salts = np.random.default_rng(0).integers(2**63, size=len(self._files), dtype=np.uint64)
            pair = self._repeated(self.ids + salts[files])
            if not pair:
                self._by_file = True
                log.warning("Ids start anew in each file: each gets the name of its file before it")
        if pair:
            (name, first), (_, second) = map(self._place, pair)
            raise IdsError(
                f"The id {name!r} is in {first} and in {second}: {self._other_ids(column)}."
            )

    def _other_ids(self, column: str) -> str:
        if self._of_texts:
            return "rename one of the files"
        named = "set load.id_column to a column whose values are all different"
        first = "rename that column, and then set it " * (column == NUMBERED)
        return f"{named}, or {first}to {NUMBERED!r} to number the rows instead"

    def _repeated(self, ids: Hashes) -> list[int]:
        """Return two rows that are kept and have one id, [] for none."""
        for part in examples.partitions(ids):
            rows = part[self.reasons[part] == 0]
            order = rows[np.argsort(ids[rows], kind="stable")]
            same = np.flatnonzero(np.diff(ids[order]) == 0)
            if len(same):
                return sorted(order[same[0] : same[0] + 2].tolist())
        return []

    def _stem(self, name: str) -> str:
        return self._stems.get(name) or stem(name)  # that of a folder

    def _place(self, row: int) -> tuple[str, str]:
        """Name a row by its id, and by the file and line that it is in."""
        for table, _ in self._tables():
            if row < len(table):
                found = table.slice(row, 1).to_pylist()[0]
                return found["id"], f"{found[FILE]}, line {found[LINE]}"
            row -= len(table)
        raise IndexError(row)


def _log_dropped(rows: Rows, counts: Mapping[str, Any]) -> None:
    total, kept, dropped = counts["rows"], counts["kept"], counts["dropped"]
    for file, line, name, why, _, text in itertools.islice(rows.rejected(), NAMED):
        log.info("dropped %s of %s, line %d: %s: %r", name, file, line, why, text[:60])
    if total - kept > NAMED:
        log.info("and %d more", total - kept - NAMED)
    log.info("%d rows: %d kept, dropped %s", total, kept, dropped)


def _within(name: str, ids: pa.ChunkedArray) -> pa.ChunkedArray:
    """Put the name of their file before ids, but for those of rows that are numbered by it."""
    own = pc.binary_join_element_wise(pa.scalar(name), ids, ":")
    return pc.if_else(pc.starts_with(ids, f"{name}:"), ids, own)


if __name__ == "__main__":
    stage.run(main)
