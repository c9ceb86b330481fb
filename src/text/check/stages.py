"""Run `load`, `split` and `quality` on the files, and settle the params that they need."""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pyarrow.parquet as pq

from src.core.command_line import bind
from src.core.errors import InputError
from src.project import params
from src.tables import examples
from src.tables.columns import NUMBERED, IdsError
from src.tables.splitting import sides_of
from src.text import load, split
from src.text.check import guess_columns

TEXTS = 2000  # whose tokens are counted, and that `quality` looks at
WATCHED = Path("data/source")  # what DVC watches, as load is told in dvc.yaml
FEWEST = 3  # texts of a class, one for each side of a split
SHOWN = 20  # classes at most
SPLIT = re.compile(
    r"(data[ _-]?)?(split|subset|partition|set|fold)|is[ _-]?(train|test|val|valid)\w*"
)
SLICE = 20  # different values of a column whose values get metrics of their own, at most

log = logging.getLogger("src.text.check")


@dataclass
class Check:
    """Everything that is known so far."""

    present: dict[str, params.Section]  # the sections of params.yaml
    params: dict[str, params.Section]  # the same with what the texts need
    folder: Path  # a temporary one
    lines: list[str] = field(default_factory=list)  # the report
    warnings: list[str] = field(default_factory=list)  # sentences on what is likely wrong
    stops: bool = False  # whether a stage would stop
    large: bool = False  # whether each step takes so long that it is told

    def set(self, section: str, **values: Any) -> None:
        """Note params that the texts need."""
        self.params[section] |= values

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """Return the params that differ: as they are, and as they should be."""
        return {
            f"{section}.{key}": (self.present[section][key], value)
            for section, values in self.params.items()
            for key, value in values.items()
            if value != self.present[section][key]
        }

    def stop(self, name: str, why: object) -> None:
        """Warn that a stage would stop."""
        self.stops = True
        self.warnings.append(f"`{name}` would stop: {why}")

    def bind(self, stage: ModuleType, *paths: str, **changes: Any) -> partial[None]:
        """Prepare a stage with its params, as DVC would run it, and paths in the temporary folder.

        Raises:
            InputError: a param is not what the stage takes.
        """
        name = stage.__name__.rpartition(".")[2]
        words = params.words_of({**self.params[name], **changes})
        places = [str(self.folder / path) for path in paths]
        positional, options = bind(stage.main, name, True, [*places, *words])
        return partial(stage.main, *positional, **options)

    def run(self, stage: ModuleType, *paths: str, **changes: Any) -> None:
        """Run a stage, and keep its warnings; InputError if it would stop."""
        bound = self.bind(stage, *paths, **changes)
        if self.large:
            log.info("running %s", stage.__name__.rpartition(".")[2])
        with hushed() as said:
            bound()
        self.warnings += [sentence for sentence in said if sentence not in self.warnings]

    def read_json(self, path: str) -> dict[str, Any]:
        """Read what a stage wrote in the temporary folder."""
        found: dict[str, Any] = json.loads((self.folder / path).read_text(encoding="utf-8"))
        return found


@contextmanager
def hushed() -> Iterator[list[str]]:
    """Collect the warnings of the project's modules in place of their log."""
    said: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("src")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield said
    finally:
        logger.propagate = True
        logger.removeHandler(handler)


def run_load(check: Check) -> dict[str, Any]:
    """Run `load`, settle ids and what is dropped, and return what it counted."""
    lenient = {"missing_labels": "drop", "max_dropped_fraction": 1.0}
    paths = (str(WATCHED.absolute()), "raw", "rejected.csv")
    column = check.params["load"]["id_column"]
    try:
        check.run(load, *paths, **lenient)
    except IdsError:
        if column == NUMBERED:
            raise
        # A guess, that rows which were not looked at may refute, or an `id` that repeats.
        check.set("load", id_column="" if column else NUMBERED)
        return run_load(check)
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
    if len(classes) - len(small) < 2:
        told = ", ".join(f"{n} of {name!r}" for name, n in [*classes.items()][:SHOWN])
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
    outside = check.params["split"]["out_of_scope"]
    if set(outside) - classes.keys():  # of other data
        check.set("split", out_of_scope=[name for name in outside if name in classes])
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
    from src.text import quality  # which takes seconds to import

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


def _is_split(values: Iterable[object]) -> bool:
    sides = sides_of({*guess_columns.filled(values)})
    return len({*sides.values()}) > 1 and all(sides.values())


def _warn_of_other_words(check: Check, name: str, values: Iterable[object]) -> None:
    """Warn of a column that is a split by its name or some of its words, and names no sides."""
    words = sorted({*guess_columns.filled(values)})
    if not 2 <= len(words) <= SLICE:
        return
    sides = sides_of(words)
    if SPLIT.fullmatch(examples.fold(name)) or "train" in sides.values():
        unknown = ", ".join(repr(word) for word in words if not sides[word])
        check.warnings.append(
            f"Column {name!r} looks like a split of your own, and {unknown} in it name no side, so "
            "texts are divided anew: write train, validation and test there to keep it."
        )


def settle_columns(check: Check) -> None:
    """Settle the params for the further columns, and report them."""
    path = check.folder / "raw" / "examples.parquet"
    names = [
        name
        for name in examples.column_names(path)
        if name.strip() and name not in examples.COLUMNS and not params.breaks_a_line(name)
    ]
    frame = pq.read_table(path, columns=names).to_pandas()
    section = check.params["split"]
    sides = [name for name in names if _is_split(frame[name])]
    for name in names if not sides else ():
        _warn_of_other_words(check, name, frame[name])
    if sides:
        check.set("split", strategy="predefined", column=sides[0])
    elif section["column"] and section["column"] not in names:
        check.set("split", strategy="stratified", column="")
    if section["train_only"] and section["train_only"][0] not in names:
        check.set("split", train_only=[])
    few = [
        name
        for name in names
        if name not in sides
        and guess_columns.is_label(frame[name])
        and frame[name].nunique() <= SLICE
    ]
    languages = [name for name in few if guess_columns.is_language(frame[name])]
    for stage in ("quality", "evaluate"):
        kept = [name for name in check.params[stage]["slices"] if name in names]
        check.set(stage, slices=list(dict.fromkeys([*kept, *languages])))
    codes = {*guess_columns.filled(frame[languages[0]])} if languages else set()
    present = check.params["card"]["languages"]
    # Codes alone may be of something else, and do not change what a person has said.
    sure = not present or any(map(guess_columns.names_languages, languages[:1]))
    if codes and codes <= guess_columns.CODES and codes != {*present} and sure:
        check.set("card", languages=sorted(codes))
    groups = [
        name
        for name in names
        if name not in few and SLICE < frame[name].nunique() <= len(frame) / 2
    ]
    check.lines += [
        f"  {word:7} {', '.join(found)}{use}"
        for word, found, use in (
            ("split", sides, ""),
            ("slices", few, f", for evaluate.slices{_which(few, check.params['evaluate'])}"),
            ("groups", groups, ", if texts of one value are alike: split.strategy group"),
        )
        if found
    ]


def _which(names: Sequence[str], evaluate: params.Section) -> str:
    """Say which columns are slices, and which may be."""
    chosen = [name for name in names if name in evaluate["slices"]]
    free = [name for name in names if name not in chosen]
    told = [(word, ", ".join(found)) for word, found in (("set", chosen), ("may be added", free))]
    return f" ({'; '.join(f'{word}: {found}' for word, found in told if found)})"
