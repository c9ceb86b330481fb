"""Bring a table of features and a label from its source, and settle what its columns hold."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from src.core import stage
from src.core.command_line import Count, Interval
from src.core.errors import InputError
from src.core.files import replacing, scratch, write_json
from src.tables import sources
from src.tables.places import File
from src.tables.rows import Format, Reader
from src.tables.schema import Writing, fixed
from src.tabular.table import Table
from src.tabular.wanted import Wanted, positive_of

log = logging.getLogger("src.tabular.load")


def main(
    watched: Path,
    raw: Path,
    rejected: Path,
    *,
    source: list[str],
    sha256: str,
    max_bytes: Count,
    format: Format,
    encoding: list[str],
    delimiter: str,
    quote: str,
    column_names: list[str],
    target: str,
    positive: str,
    id_column: str,
    keep: list[str],
    drop: list[str],
    types: list[str],
    missing: list[str],
    decimal: Literal[".", ","],
    date_formats: list[str],
    unreadable: Literal["stop", "drop"],
    missing_labels: Literal["stop", "drop"],
    duplicates: Literal["keep", "drop"],
    min_class_rows: Count,
    max_dropped_fraction: Annotated[float, Interval(ge=0, le=1)],
) -> None:
    """Read the source, settle what its columns hold, and write the rows that can be used.

    Args:
        watched: the folder whose files DVC watches for changes.
        raw: the folder that gets ``rows.parquet``, ``schema.json`` and ``counts.json``, in which
            rows = kept + dropped.
        rejected: the csv file that gets the dropped rows: file, line, id, reason, label.
    """
    sources.warn_of_unwatched(source, watched)
    reader = Reader(format, "", "", encoding, delimiter, quote, column_names, "")
    writing = Writing(tuple(missing), decimal, tuple(date_formats))
    writing.check()
    columns = Wanted(target, id_column, keep, drop, fixed(types, "load.types"))
    with scratch(raw.parent / "load") as folder:
        files = sources.find(source, folder, sha256, max_bytes)
        names = [file.name for file in files]
        _refuse_commas(decimal, files)
        table = Table(folder, names, columns, writing, alike=duplicates == "drop")
        for name, batch in reader.read(files):
            table.add(name, batch)
        schema = table.settle(unreadable == "stop", missing_labels == "stop")
        table.convert(schema)
        if duplicates == "drop":
            table.drop_repeated()
        table.drop_rare(min_class_rows)
        counts = table.counts()
        log.info("%d rows: %d kept, dropped %s", counts["rows"], counts["kept"], counts["dropped"])
        with replacing(rejected) as apart:  # kept when load stops below: it lists what to fix
            table.write_rejected(apart)
        table.refuse(counts, max_dropped_fraction, rejected)
        schema = replace(schema, positive=positive_of([*counts["classes"]], positive))
        with replacing(raw) as made:
            made.mkdir()
            table.write_kept(made / "rows.parquet", schema)
            schema.write(made / "schema.json")
            write_json(made / "counts.json", {"source": source} | counts)


def _refuse_commas(decimal: str, files: Sequence[File]) -> None:
    """Stop if numbers that are stored as such would be read as if a comma had to be in them."""
    for file in files:
        if decimal == "," and file.format in ("parquet", "json", "jsonl"):
            raise InputError(
                f"load.decimal is ',', and {file} stores numbers as such: set it to '.'."
            )


if __name__ == "__main__":
    stage.run(main)
