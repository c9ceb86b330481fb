"""Bring labelled texts from where they are into one table, and keep what can't be used apart."""

import csv
import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from src.core import stage
from src.core.command_line import Count, Interval
from src.core.errors import InputError
from src.core.files import replacing, scratch, write_json
from src.tables import examples, sources
from src.tables.examples import Hashes
from src.tables.places import PACKED
from src.tables.rows import ENDINGS, Batch, Format, Reader

# Why a row is dropped, in the order in which one is looked for.
REASONS = (
    "malformed",
    "no_label",
    "empty_text",
    "control_characters",
    "too_long",
    "conflicting_label",
    "duplicate",
    "rare_class",
)
# In the syntax of RE2.
SPACE = r"\s\p{Z}\x0b\x{85}"
INVISIBLE = r"\p{Cf}\x{115F}\x{1160}\x{3164}\x{FFA0}\x{2800}"  # zero-width, bidi, fillers
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"  # but for tab and line ends
NAMED = 20  # dropped rows that the log names
FEW = 20  # texts, below which their labels may all differ
QUOTED = 200  # characters of a dropped text that are kept

FILE, LINE, WHY = "\0file", "\0line", "\0why"  # columns beside those of the source

Codes = npt.NDArray[np.int32]
Reasons = npt.NDArray[np.uint8]  # 0 for a row that is kept, else 1 + its place in REASONS

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
    _warn_of_unwatched(source, watched)
    reader = Reader(
        *(format, text_column, label_column, encoding, delimiter, quote, column_names, id_column)
    )
    rules = Rules(max_characters, control_characters == "strip", missing_labels == "stop")
    with scratch(raw.parent / "load") as folder:
        files = sources.find(source, folder, sha256, max_bytes)
        rows = _Rows(folder)
        for name, batch in reader.read(files):
            rows.add(name, batch, rules)
        rows.finish(normalize_labels)
        drop_repeated(
            rows.keys, rows.codes, rows.reasons, majority=conflicting_labels == "majority"
        )
        drop_rare(rows.codes, rows.reasons, min_class_texts)
        rows.refuse_repeated_ids()
        counts = rows.counts()
        _say_what_was_dropped(rows, counts)
        with replacing(rejected) as apart:  # what is refused below is read there
            rows.write_rejected(apart)
        _refuse_losses(counts, max_dropped_fraction, rejected)
        _refuse_odd_classes(counts, label_column)
        with replacing(raw) as made:
            made.mkdir()
            rows.write_kept(made / "examples.parquet")
            write_json(made / "counts.json", {"source": source} | counts)


@dataclass(frozen=True)
class Rules:
    """What is done with a row that is not as it should be."""

    max_characters: int
    strip: bool
    stop_without_label: bool


class _Rows:
    """All rows: as they came on disk, a file a batch, and a few bytes of each in memory.

    Attributes:
        labels: the labels, in the order of their codes.
        codes: of each row's label.
        keys: equal for rows of one file that are alike in all but id and label.
        reasons: why each row is dropped.
        ids: a hash of each row's id.
    """

    codes: Codes
    keys: Hashes
    reasons: Reasons
    ids: Hashes

    def __init__(self, folder: Path) -> None:
        """Keep batches in ``folder``."""
        self.labels: list[str] = []
        self._folder = folder
        self._batches = 0
        self._known: dict[str, int] = {}
        self._parts: list[tuple[Codes, Hashes, Reasons, Hashes]] = []
        self._files: Counter[str] = Counter()  # rows so far
        self._columns: dict[str, None] = dict.fromkeys(examples.COLUMNS)
        self._stripped = 0

    def add(self, name: str, batch: Batch, rules: Rules) -> None:
        """Take in a batch of the file ``name``."""
        rows = len(batch.lines)
        columns = {key: pa.array(values, pa.string()) for key, values in batch.columns.items()}
        numbers = range(self._files[name] + 1, self._files[name] + rows + 1)
        numbered = pa.array([f"{_stem(name)}:{row}" for row in numbers], pa.string())
        own = columns.get("id", pa.nulls(rows, pa.string()))
        # A row without an id of its own, and one whose fields may have shifted, is numbered.
        own = pc.if_else(pa.array([bool(why) for why in batch.reasons]), None, own)
        columns["id"] = pc.coalesce(pc.if_else(pc.equal(own, ""), None, own), numbered)
        self._files[name] += rows
        reasons = np.array([bool(why) for why in batch.reasons], np.uint8)
        if rules.strip:
            for column in ("text", "label"):
                found = pc.match_substring_regex(columns[column], CONTROL)
                if count := pc.sum(found).as_py():
                    self._stripped += count
                    columns[column] = pc.replace_substring_regex(columns[column], CONTROL, "")
        judge(columns, reasons, rules, lambda row: f"{name}, line {batch.lines[row]}")
        labels = columns["label"].fill_null("").to_pylist()
        codes = np.array([self._known.setdefault(n, len(self._known)) for n in labels], np.int32)
        # The same text in two files may be on two sides of a split: both are kept.
        alike = {key: values for key, values in columns.items() if key not in ("id", "label")}
        keys = _hash(alike | {FILE: pa.array([name] * rows)})
        self._parts.append((codes, keys, reasons, _hash({"id": columns["id"]})))
        self._columns |= dict.fromkeys(columns)
        names = batch.names or [name] * rows
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
            self.labels = _canonical(self.labels, counts.tolist())
            self.codes = np.array([known[label] for label in self.labels], np.int32)[self.codes]

    def counts(self) -> dict[str, Any]:
        """Rows, kept, dropped by reason, stripped, and the texts of each class."""
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
        """File, line, id, reason, label and the beginning of the text of each dropped row."""
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
        """Write what is dropped as csv."""
        with path.open("w", encoding="utf-8", newline="") as stream:
            out = csv.writer(stream, lineterminator="\n")
            out.writerow(["file", "line", "id", "reason", "label", "text"])
            out.writerows(self.rejected())

    def write_kept(self, path: Path) -> None:
        """Write what is kept as examples, a batch at a time."""
        stems = {name: _stem(name) for name in self._files}
        several = len(stems) > 1
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
                if several:
                    if "file" in columns:
                        columns[own] = columns["file"]
                    columns["file"] = pa.array([stems[name] for name in table[FILE].to_pylist()])
                absent = pa.nulls(len(table), pa.string())
                whole = pa.table({name: columns.get(name, absent) for name in names})
                writer.write_table(whole.filter(pa.array(reasons == 0)))

    def _tables(self) -> Iterator[tuple[pa.Table, Reasons]]:
        start = 0
        for number in range(self._batches):
            table = pq.read_table(self._folder / f"{number}.parquet", memory_map=False)
            yield table, self.reasons[start : start + len(table)]
            start += len(table)

    def refuse_repeated_ids(self) -> None:
        """Stop if two rows that are kept have one id.

        Raises:
            InputError: names both places.
        """
        for part in examples.partitions(self.ids):
            rows = part[self.reasons[part] == 0]
            order = rows[np.argsort(self.ids[rows], kind="stable")]
            same = np.flatnonzero(np.diff(self.ids[order]) == 0)
            if len(same):
                pair = sorted(order[same[0] : same[0] + 2].tolist())
                (name, first), (_, second) = map(self._place, pair)
                raise InputError(
                    f"Expected an id of its own for each row, found {name!r} in {first} and in "
                    f"{second}: correct load.id_column, or give the column or one of the files "
                    "another name."
                )

    def _place(self, row: int) -> tuple[str, str]:
        """The id of a row, and where it stands."""
        for table, _ in self._tables():
            if row < len(table):
                found = table.slice(row, 1).to_pylist()[0]
                return found["id"], f"{found[FILE]}, line {found[LINE]}"
            row -= len(table)
        raise IndexError(row)


def judge(
    columns: Mapping[str, pa.Array], reasons: Reasons, rules: Rules, where: Callable[[int], str]
) -> None:
    """Note why rows can't be kept, each by itself.

    Args:
        columns: ``text`` and ``label`` among them.
        reasons: of each row; those that have none yet may get one.
        rules: what is asked of them.
        where: names the place of a row.

    Raises:
        InputError: a row has no label, and the rules say that this stops.
    """
    text, label = columns["text"].fill_null(""), columns["label"].fill_null("")
    bad = {
        "no_label": pc.match_substring_regex(label, f"^[{SPACE}]*$"),
        "empty_text": pc.match_substring_regex(text, f"^[{SPACE}{INVISIBLE}]*$"),
        "control_characters": pc.or_(
            pc.match_substring_regex(text, CONTROL), pc.match_substring_regex(label, CONTROL)
        ),
        "too_long": pc.greater(pc.utf8_length(text), rules.max_characters),
    }
    for reason, found in bad.items():
        rows = found.to_numpy(zero_copy_only=False) & (reasons == 0)
        if reason == "no_label" and rules.stop_without_label and rows.any():
            raise InputError(
                f"Expected a label in each row, found none in {where(int(rows.argmax()))}: add "
                "one, or make load.missing_labels drop to leave such rows out."
            )
        reasons[rows] = _code(reason)


def drop_repeated(keys: Hashes, codes: Codes, reasons: Reasons, *, majority: bool) -> None:
    """Note rows that repeat another one, or that give its text another label.

    Of rows that are alike in all but the id the first is kept; of rows that are alike in all but id
    and label, none, or those of the label that most of them have. The same text in another file, in
    another language, or on another side of a split that the source makes, is another row.

    Args:
        keys: equal for rows that are alike in all but id and label.
        codes: of the labels.
        reasons: of each row; those that have none yet may get one.
        majority: whether a label that most rows of a text have wins.
    """
    for part in examples.partitions(keys):
        rows = part[reasons[part] == 0]
        if not len(rows):
            continue
        order = rows[np.lexsort((codes[rows], keys[rows]))]  # stable: the first row stays first
        new_text = np.diff(keys[order], prepend=~keys[order[:1]]) != 0
        new_pair = new_text | (np.diff(codes[order], prepend=-1) != 0)
        text, pair = np.cumsum(new_text) - 1, np.cumsum(new_pair) - 1  # numbers of both
        text_of_pair = text[new_pair]
        dropped = np.bincount(text_of_pair)[text] > 1
        if majority:
            rows_of_pair = np.bincount(pair)
            most = np.maximum.reduceat(rows_of_pair, np.flatnonzero(new_text[new_pair]))
            leads = rows_of_pair == most[text_of_pair]
            alone = np.bincount(text_of_pair, weights=leads)[text_of_pair] == 1
            dropped &= ~(leads & alone)[pair]
        reasons[order[~new_pair]] = _code("duplicate")
        reasons[order[dropped]] = _code("conflicting_label")


def drop_rare(codes: Codes, reasons: Reasons, fewest: int) -> None:
    """Note the rows of classes with fewer than ``fewest`` rows left."""
    counts = np.bincount(codes[reasons == 0], minlength=int(codes.max(initial=0)) + 1)
    reasons[(counts < fewest)[codes] & (reasons == 0)] = _code("rare_class")


def _code(reason: str) -> int:
    return REASONS.index(reason) + 1


def _hash(columns: Mapping[str, pa.Array]) -> Hashes:
    """A number for each row, equal for equal values, whatever the order of the columns.

    A value that is absent counts as one that is null.
    """
    total = np.zeros(len(next(iter(columns.values()))), np.uint64)
    for name, values in columns.items():
        strings = values.to_numpy(zero_copy_only=False)
        hashes = pd.util.hash_array(strings, categorize=False)
        factor = pd.util.hash_array(np.array([name], object), categorize=False)[0] | np.uint64(1)
        present = values.is_valid().to_numpy(zero_copy_only=False)
        total += np.where(present, hashes * factor, np.uint64(0))
    return total


def _canonical(labels: Sequence[str], counts: Sequence[int]) -> list[str]:
    """For each label the most frequent of those that differ in form alone."""
    variants: dict[str, list[int]] = {}
    for code, label in enumerate(labels):
        variants.setdefault(examples.fold(label), []).append(code)
    best = {form: max(codes, key=counts.__getitem__) for form, codes in variants.items()}
    return [labels[best[examples.fold(label)]] for label in labels]


def _say_what_was_dropped(rows: _Rows, counts: Mapping[str, Any]) -> None:
    total, kept, dropped = counts["rows"], counts["kept"], counts["dropped"]
    for file, line, name, why, _, text in itertools.islice(rows.rejected(), NAMED):
        log.info("dropped %s of %s, line %d: %s: %r", name, file, line, why, text[:60])
    if total - kept > NAMED:
        log.info("and %d more", total - kept - NAMED)
    log.info("%d rows: %d kept, dropped %s", total, kept, dropped)


def _refuse_losses(counts: Mapping[str, Any], most: float, rejected: Path) -> None:
    total, kept, dropped = counts["rows"], counts["kept"], counts["dropped"]
    if total - kept > most * total:
        found = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        raise InputError(
            f"Expected at most {most:g} of the rows to be dropped, found {total - kept} of "
            f"{total} ({found}): mend the rows that {rejected} lists, or raise "
            "load.max_dropped_fraction."
        )


def _refuse_odd_classes(counts: Mapping[str, Any], column: str) -> None:
    classes, kept = counts["classes"], counts["kept"]
    if len(classes) < 2:
        raise InputError(
            f"Expected at least 2 classes in column {column!r}, found {len(classes)} in the {kept} "
            f"rows kept of {counts['rows']}: add texts of another class, or correct "
            "load.label_column."
        )
    if kept >= FEW and len(classes) > kept / 2:
        raise InputError(
            f"Expected classes of several texts each in column {column!r}, found {len(classes)} "
            f"classes in {kept} texts: it may be a number or an id; correct load.label_column."
        )


def _warn_of_unwatched(source: Sequence[str], watched: Path) -> None:
    for place in source:
        local = Path(re.split(r"[*?\[]", place.split("::")[-1].removeprefix("file://"))[0])
        if local.exists() and not local.resolve().is_relative_to(watched.resolve()):
            log.warning("DVC can't see when %s changes: move it into %s", place, watched)


def _stem(name: str) -> str:
    """The name of a file without its folders and the endings that say its format."""
    stem = PurePosixPath(name).name
    while (suffix := PurePosixPath(stem).suffix.lower()) and suffix in (*ENDINGS, *PACKED):
        stem = stem[: -len(suffix)]
    return stem


if __name__ == "__main__":
    stage.run(main)
