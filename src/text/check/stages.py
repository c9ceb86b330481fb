"""Run `load`, `split` and `quality` on the files, and settle the params that they need."""

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from src.core.errors import InputError
from src.text import load, quality, split
from src.text.check.state import TEXTS, Check

WATCHED = Path("data/source")  # what DVC watches, as load is told in dvc.yaml
FEWEST = 3  # texts of a class, one for each side of a split
SHOWN = 20  # classes at most


def run_load(check: Check) -> dict[str, Any]:
    """Run `load`, settle what is dropped, and return what it counted."""
    lenient = {"missing_labels": "drop", "max_dropped_fraction": 1.0}
    paths = (str(WATCHED.absolute()), "raw", "rejected.csv")
    try:
        check.run(load, *paths, **lenient)
    except InputError:
        if not check.params["load"]["id_column"]:
            raise
        check.set("load", id_column="")  # a guess, that rows which were not looked at may refute
        check.run(load, *paths, **lenient)
    counts = check.read_json("raw/counts.json")
    if small := [name for name, count in counts["classes"].items() if count < FEWEST]:
        _leave_out(check, small, counts["classes"])
        check.run(load, *paths, **lenient)
        counts = check.read_json("raw/counts.json")
    if counts["dropped"]["no_label"]:
        check.set("load", missing_labels="drop")
    lost, most = counts["rows"] - counts["kept"], check.params["load"]["max_dropped_fraction"]
    if lost > most * counts["rows"]:
        check.stop(
            "load",
            f"it would drop more than load.max_dropped_fraction {most:g} of the rows; mend them, "
            "or raise it.",
        )
    return counts


def _leave_out(check: Check, small: list[str], classes: dict[str, int]) -> None:
    """Leave out small classes, if others remain."""
    if len(classes) - len(small) < 2:
        told = ", ".join(f"{name} {n}" for name, n in [*classes.items()][:SHOWN])
        raise InputError(
            f"Expected at least 2 classes of {FEWEST} texts, one for each side of the split, "
            f"found {told}: add texts, or name the column of the labels by --label_column."
        )
    check.set("load", min_class_texts=FEWEST)
    check.warnings.append(
        f"Classes of fewer than {FEWEST} texts, one for each side of the split: {len(small)}, "
        f"such as {small[0]!r}; load.min_class_texts {FEWEST} leaves them out."
    )


def count(check: Check, counts: dict[str, Any]) -> None:
    """Report rows and classes."""
    dropped = [f"{count:,} {why}" for why, count in counts["dropped"].items() if count]
    kept, classes = counts["kept"], counts["classes"]
    largest = sorted(classes.items(), key=lambda item: -item[1])
    check.lines += [
        f"Rows: {counts['rows']:,}, of which {kept:,} are kept; dropped: "
        f"{', '.join(dropped) or 'none'}",
        f"Classes: {len(classes)}, the largest with {largest[0][1] / largest[-1][1]:.1f} times the "
        "texts of the smallest",
        *(f"  {n:7,}  {100 * n / kept:4.1f} %  {name}" for name, n in largest[:SHOWN]),
        *([f"  and {len(largest) - SHOWN} smaller ones"] if len(largest) > SHOWN else []),
    ]


def run_split(check: Check, kept: int) -> tuple[int, int]:
    """Run `split`, and return how many texts would be trained on and validated with."""
    section = check.params["split"]
    overlaps = ["stop", "drop"] if section["strategy"] == "predefined" else [section["overlap"]]
    refused: InputError | None = None
    for overlap in overlaps:
        try:
            check.run(split, "raw", "splits", overlap=overlap)
        except InputError as error:
            refused = refused or error
            continue
        if refused:
            check.set("split", overlap=overlap)
        files = (check.folder / "splits" / f"{side}.parquet" for side in ("train", "validation"))
        train, validation = (pq.read_metadata(file).num_rows for file in files)
        return train, validation
    check.stop("split", refused)
    section |= check.present["split"]
    held = section["validation_size"], section["test_size"]
    return int(kept * (1 - sum(held))), int(kept * held[0])


def run_quality(check: Check) -> None:
    """Run `quality` on some of the texts, and report scripts."""
    try:
        # The length in tokens is told apart from this; near duplicates take long.
        paths = ("raw", "quality.json", "quality.md")
        check.run(quality, *paths, texts=TEXTS, near_duplicates=0.0, max_length=10**9)
    except InputError as error:
        check.stop("quality", error)
        return
    figures = check.read_json("quality.json")
    scripts = [f"{name} {100 * share:.1f} %" for name, share in figures["scripts"].items()]
    check.lines.append(f"Scripts: {', '.join(scripts)}")
    if any(finding["code"] == "unspaced" for finding in figures["findings"]):
        check.set("baseline", analyzer="char")
