"""Look at a table before the first run: what it is, and which params it needs.

    python -m src.tabular.check data/tabular/source/mine.csv
    python -m src.tabular.check data/tabular/source/mine.csv --target churned --write

The stages `load`, `split` and `quality` themselves are run in a temporary folder, with the params
that the table seems to need, so what is said here is what they will make of it. Nothing is written
but by --write: then tabular/params.yaml gets the params that are shown, and keeps its comments.
"""

import json
import logging
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import Any

import pyarrow as pa

from src.core import stage
from src.core.command_line import bind
from src.core.errors import InputError
from src.project import given, params
from src.tables import guess_encoding, sources
from src.tables.places import File
from src.tables.rows import Reader
from src.tables.schema import KINDS, Schema, Writing
from src.tabular import guess, load, quality, split
from src.tabular.features import NUMBERS
from src.tabular.guess import Columns
from src.tabular.quality_words import sentence

PARAMS = Path("tabular/params.yaml")
ROWS = 20_000  # that columns are judged by
LISTS = (  # which may be left out where they are empty
    *(("load", key) for key in ("column_names", "keep", "drop", "types", "missing")),
    *(("load", "date_formats"), ("evaluate", "slices"), ("boosting", "monotonic_cst")),
)
DELIMITERS = (",", ";", "|", "\t")

Params = dict[str, Any]


def main(
    *files: str, target: str = "", positive: str = "", drop: str = "", write: bool = False
) -> None:
    """Print what files or URLs of a table hold, and the params that they need.

    --target is the column of the labels, and --positive the label that is looked for; both are
    guessed if they are not named. --drop names columns that no model may read, separated by commas;
    without it, those that the params name stay, and so do load.keep and load.types.
    """
    if not files:
        raise InputError(
            "No file is named: name the one to look at, as in `python -m src.tabular.check "
            "data/tabular/source/mine.csv`."
        )
    present = params.read(PARAMS)
    settled: dict[str, Params] = {name: copy(present[name]) for name in present}
    for section, key in LISTS:
        settled[section].setdefault(key, [])
    with tempfile.TemporaryDirectory() as folder:
        lines = _look(settled, files, target, positive, drop, Path(folder))
    changes = {
        f"{section}.{key}": (present[section].get(key, []), value)
        for section, values in settled.items()
        for key, value in values.items()
        if present[section].get(key, []) != value
    }
    params.refuse_broken_lines({name: new for name, (_, new) in changes.items()})
    print("\n".join(lines))
    if not changes:
        print(f"\n{PARAMS} has all params that this table needs.")
        return
    print("\nParams that this table needs:")
    for name, (old, new) in changes.items():
        print(f"  {name}: {old!r} -> {new!r}")
    if write:
        params.write({name: new for name, (_, new) in changes.items()}, PARAMS)
        print(f"{PARAMS} has them now; `dvc repro {PARAMS.parent}/dvc.yaml` is next.")
    else:
        print(f"Nothing was written; --write writes them into {PARAMS}.")


def _look(
    settled: dict[str, Params],
    files: Sequence[str],
    target: str,
    positive: str,
    drop: str,
    folder: Path,
) -> list[str]:
    """Fill in the params, and return the report; InputError if this is no table of labels."""
    section = settled["load"]
    section |= {"source": given.sources(files), "sha256": ""}
    (folder / "files").mkdir()
    found = sources.find(
        section["source"], folder / "files", "", section["max_bytes"], "the address"
    )
    section["encoding"] = guess_encoding.encodings(found, section["encoding"])
    section |= _form(found, section)
    columns = _sample(found, section)
    if not columns:
        raise InputError(f"{', '.join(section['source'])} has no rows: add some.")
    given_up = [name.strip() for name in drop.split(",") if name.strip()]
    # What a person said of columns that are here goes on to hold, but for what is said now.
    dropped = [] if given_up else [name for name in section["drop"] if name in columns]
    guessed = {name: texts for name, texts in columns.items() if name not in dropped}
    section["target"] = guess.target_of(columns if target else guessed, target, section["target"])
    section["drop"] = given_up or [name for name in dropped if name != section["target"]]
    section["types"] = [one for one in section["types"] if one.rpartition(" ")[0] in columns]
    if {*section["keep"]} <= {*columns}:
        left = {*section["keep"]} - {section["target"], *section["drop"]}
        section["keep"] = [name for name in section["keep"] if name in left]
    else:  # of another table
        section["keep"] = []
    others = {name: texts for name, texts in columns.items() if name != section["target"]}
    section["missing"] = guess.missing_words(others, section["missing"])
    section |= guess.writing_of(others, section["missing"])
    section["id_column"] = guess.id_column(others)
    labels = columns[section["target"]]
    section["positive"] = guess.positive_label(labels, section["missing"], positive)
    division = settled["split"]
    if division["column"] and division["column"] not in columns:
        division |= {"strategy": "stratified", "column": ""}
    return _report(settled, guess_encoding.guessed(found, section["encoding"]), folder)


def _forget_other_tables(settled: Mapping[str, Params], schema: Schema) -> None:
    """Take out of the params of later stages what this table does not have."""
    features, numbers = schema.features(*KINDS), schema.features(*NUMBERS)
    evaluate, boosting = settled["evaluate"], settled["boosting"]
    evaluate["slices"] = [name for name in evaluate["slices"] if name in features]
    boosting["monotonic_cst"] = [
        entry
        for entry in boosting["monotonic_cst"]
        if schema.positive and entry.rpartition(" ")[0] in numbers
    ]
    for name in ("linear", "forest", "boosting"):
        if not schema.positive and not isinstance(settled[name]["class_weight"], str):
            settled[name]["class_weight"] = "none"


def _reader(section: Params) -> Reader:
    names = "format", "encoding", "delimiter", "quote", "column_names"
    kind, encoding, delimiter, quote, columns = (section[name] for name in names)
    return Reader(kind, "", "", encoding, delimiter, quote, columns, "")


def _form(files: Sequence[File], section: Params) -> Params:
    """Find the format and the delimiter that read the files as the most columns.

    Raises:
        InputError: none does; what the present params say of the files.
    """
    auto = {"format": "auto", "column_names": []}
    if all(file.format not in (None, "csv", "tsv") for file in files):
        return auto
    ways = [auto | {"delimiter": section["delimiter"]}]
    kind = "auto" if all(file.format == "csv" for file in files) else "csv"
    ways += [{"format": kind, "column_names": [], "delimiter": sign} for sign in DELIMITERS]
    tried = []
    refused: list[InputError] = []
    for number, way in enumerate(ways):
        try:
            _, batch = next(_reader(section | way).read(files))
        except InputError as error:
            refused.append(error)
            continue
        bad = sum(map(bool, batch.reasons)) / len(batch.reasons)
        one = len(batch.columns) == 1  # as a wrong delimiter makes, without a bad row
        tried.append((one, round(bad, 2), -len(batch.columns), number))
    if not tried or (refused and min(tried)[0]):
        raise refused[0]
    *_, best = min(tried)
    return ways[best]


def _sample(files: Sequence[File], section: Params) -> Columns:
    """Read the first rows."""
    parts: dict[str, list[str | None]] = {}
    rows = 0
    for _, batch in _reader(section).read(files):
        for name in batch.columns:
            parts.setdefault(name, [None] * rows)
        good = [not reason for reason in batch.reasons]
        rows += sum(good)
        for name, values in parts.items():
            found = batch.columns.get(name, [None] * len(good))
            values += [value for value, kept in zip(found, good, strict=True) if kept]
        if rows >= ROWS:
            break
    writing = Writing((), ".", ())
    return {name: writing.filled(pa.array(values, pa.string())) for name, values in parts.items()}


def _report(settled: Mapping[str, Params], guess: str, folder: Path) -> list[str]:
    """Run the stages that judge the table, and say what they make of it."""
    section, path = settled["load"], folder / "raw"
    level = logging.getLogger("src").level
    logging.getLogger("src").setLevel(logging.ERROR)  # what they warn of is said below
    try:
        _run(load.main, settled, "load", folder / "watched", path, folder / "rejected.csv")
        _run(split.main, settled, "split", path, folder / "splits")
        pages = folder / "quality.json", folder / "quality.md"
        _run(quality.main, settled, "quality", path, folder / "splits", *pages)
    finally:
        logging.getLogger("src").setLevel(level)
    figures = json.loads(pages[0].read_text(encoding="utf-8"))
    schema = Schema.read(folder / "splits/schema.json")
    _forget_other_tables(settled, schema)
    kinds = Counter(column.kind for column in schema.columns)
    dropped = {reason: count for reason, count in figures["dropped"].items() if count}
    classes = ", ".join(f"{name!r} {count}" for name, count in figures["classes"].items())
    looked = f", and {section['positive']!r} is looked for" if section["positive"] else ""
    lines = [
        f"{', '.join(section['source'])}: encoding {section['encoding'][0]}, delimiter "
        f"{section['delimiter']!r}, decimal {section['decimal']!r}",
        *([f"  {guess}"] if guess else []),
        f"  label   {section['target']}: {classes}{looked}",
        f"  id      {section['id_column'] or 'none: rows are numbered'}",
        f"Rows: {figures['rows']}, of which {figures['kept']} are kept; dropped: "
        f"{dropped or 'none'}",
        f"Columns that models may read: {', '.join(f'{n} {kind}' for kind, n in kinds.items())}",
        *(f"  {column.name}: {column.kind}" for column in schema.columns),
        *(f"  {name}: left out, as {why}" for name, why in schema.left_out.items()),
    ]
    notes = [sentence(finding) for finding in figures["findings"]]
    dates = [column.name for column in schema.columns if column.kind == "date"]
    if dates and settled["split"]["strategy"] != "time":
        notes.append(
            f"Rows have dates, in {', '.join(map(repr, dates))}: split.strategy time with "
            f"split.column {dates[0]} tests on the last rows, as a model in use sees them."
        )
    return [*lines, *(["What to look at:", *(f"- {note}" for note in notes)] if notes else [])]


def _run(main: Any, settled: Mapping[str, Params], name: str, *places: Path) -> None:
    words = [*map(str, places), *params.words_of(settled[name])]
    paths, typed = bind(main, name, True, words)
    main(*paths, **typed)


if __name__ == "__main__":
    stage.run(main, section=False)
