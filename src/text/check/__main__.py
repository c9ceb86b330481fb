"""Look at labelled texts before the first run: what they are, and which params they need.

    python -m src.text.check data/source/mine.csv
    python -m src.text.check data/source/mine.csv --label_column stars --write

The stages `load`, `quality` and `split` themselves are run in a temporary folder, with the params
that the files seem to need, so what is said here is what they will make of the files. A few steps
of the Trainer of `train` are timed. Nothing is written but by --write, or a yes at the terminal:
then params.yaml gets the params that are shown, and keeps its comments.
"""

import copy
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from src.core import stage
from src.core.errors import InputError
from src.project import given, params
from src.tables import examples, guess_encoding, sources
from src.tables.columns import NUMBERED
from src.tables.guess_encoding import is_parquet
from src.tables.places import File
from src.text import load
from src.text.check import guess, guess_columns, stages
from src.text.check.stages import Check, hushed

LARGE = 10_000_000  # bytes, from which each step is told

log = logging.getLogger("src.text.check")


def main(*files: str, text_column: str = "", label_column: str = "", write: bool = False) -> None:
    """Print what files, folders or URLs of labelled texts hold, and the params that they need.

    The columns of the texts and of the labels are guessed if they are not named.
    """
    if not files:
        raise InputError(
            "No file is named: name the one to look at, as in `python -m src.text.check "
            "data/source/mine.csv`."
        )
    present = params.read()
    with tempfile.TemporaryDirectory() as folder:
        check = Check(present, copy.deepcopy(present), Path(folder))
        look(check, files, text_column, label_column)
    changes = check.changes()
    params.refuse_broken_lines({name: new for name, (_, new) in changes.items()})
    if check.warnings:
        check.lines += ["What to look at:", *(f"- {sentence}" for sentence in check.warnings)]
    print("\n".join([*check.lines, ""]))
    if not changes:
        print("params.yaml has all params that these texts need.")
        return
    print("Params that these texts need:")
    for name, (old, new) in changes.items():
        print(f"  {name}: {_value(old)} -> {_value(new)}")
    if write or _asked():
        params.write({name: new for name, (_, new) in changes.items()})
        after = "what would stop, see above, is" if check.stops else "`dvc repro quality` is"
        print(f"params.yaml has them now; {after} next.")
    else:
        print("Nothing was written; --write writes them into params.yaml.")


def look(check: Check, files: Sequence[str], text_column: str, label_column: str) -> None:
    """Fill in the params and the report; InputError if the files are no labelled texts."""
    found = _find(check, files)
    frame = _read(check, found, text_column, label_column)
    plain = next((name for name in map(str, frame) if examples.fold(name) == "id"), "")
    guessed = check.params["load"]["id_column"] or plain
    counts = stages.run_load(check)
    settled = check.params["load"]["id_column"] or plain
    if not settled or (settled == NUMBERED and NUMBERED not in frame):
        repeats = f", for {guessed} repeats" if guessed != settled else ""
        settled = f"none: rows are numbered{repeats}"
    check.lines.append(f"  id      {settled}")
    stages.settle_columns(check)
    stages.count(check, counts)
    sizes = stages.run_split(check, counts["kept"])
    # Before the import that reads it: a checkpoint that is not here is not fetched.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    stages.run_quality(check)
    from src.text.check import timing  # and torch, which takes seconds to import

    learnt = {*counts["classes"]} - {*check.params["split"]["out_of_scope"]}
    timing.measure(check, sizes, len(learnt))


def _find(check: Check, files: Sequence[str]) -> list[File]:
    """Find the files on this machine; those from elsewhere lie in the temporary folder."""
    section = check.params["load"]
    section |= {"source": given.sources(files), "sha256": ""}
    check.bind(load, "source", "raw", "rejected.csv")
    downloads = check.folder / "files"
    downloads.mkdir()
    # The command line names them, so no message may ask to change a param.
    found = sources.find(section["source"], downloads, "", section["max_bytes"], "the address")
    check.large = sum(file.path.stat().st_size for file in found) > LARGE
    if check.large:
        log.info("reading %s", ", ".join(files))
    return found


def _read(check: Check, found: Sequence[File], text_column: str, label_column: str) -> pd.DataFrame:
    """Settle how the files are read and what their columns are, and return some of the rows."""
    section = check.params["load"]
    with hushed():  # ways that are tried and left
        settings, frame, others = guess.reading(found, section, text_column, label_column)
    if settings["column_names"] not in ([], section["column_names"]):
        check.warnings.append(
            f"The first line of {Path(found[0].name).name} is taken for a row, not for the names "
            "of columns: if it has the names, set load.column_names to []."
        )
    names = [str(name) for name in frame]
    columns = {role: settings[f"{role}_column"] for role in ("text", "label", "id")}
    plain = {role: guess_columns.on_one_line(name, names) for role, name in columns.items()}
    section |= settings | {f"{role}_column": name for role, name in plain.items()}
    if others:
        check.warnings.append(
            f"The labels may also be {_or(others)}: --label_column names the right column."
        )
    if whole := guess_columns.combined(frame[columns["label"]]):
        check.warnings.append(
            f"Labels such as {whole!r} look like several of one text: only one label a text is "
            "learnt, so each such combination is a class of its own."
        )
    place, kind = ", ".join(section["source"]), section["format"].replace("auto", "by its ending")
    reads = guess_encoding.guessed(found, section["encoding"])
    fields = f", delimiter {section['delimiter']!r}" if "csv" in place or kind == "csv" else ""
    encoding = "" if is_parquet(found[0]) else f", encoding {section['encoding'][0]}"
    check.lines += [
        f"{place}: format {kind}{encoding}{fields}",
        *([f"  {reads}"] if reads else []),
        *(
            f"  {role:7} {plain[role]}, such as {_shown(frame[columns[role]])}"
            for role in ("text", "label")
        ),
    ]
    return frame


def _or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(map(repr, names[:-1])), repr(names[-1])][len(names) < 2 :])


def _shown(values: Iterable[object]) -> str:
    different = dict.fromkeys(guess_columns.filled(values))
    return ", ".join(repr(value[:40]) for value in list(different)[:3])


def _asked() -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return input("Write these into params.yaml? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _value(value: Any) -> str:
    """Write a value as params.yaml may have it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    plain = isinstance(value, str) and not re.fullmatch(r"[\w./:@-]+", value)
    return repr(value) if plain else str(value)


if __name__ == "__main__":
    stage.run(main, section=False)
