"""Look at labelled texts before the first run: what they are, and which params they need.

    python -m src.check data/source/mine.csv
    python -m src.check data/source/mine.csv --label_column stars --write

The stages `load`, `quality` and `split` themselves are run in a temporary folder, with the params
that the files seem to need, so what is said here is what they will make of the files. A few steps
of training are timed. Nothing is written but by --write, or a yes at the terminal: then params.yaml
gets the params that are shown, and keeps its comments.
"""

import copy
import io
import itertools
import json
import logging
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from charset_normalizer import from_bytes
from dvc.parsing.interpolate import to_str
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import YAMLError

from src import examples, sources, stage
from src.formats import ENDINGS, GUESSED, MARKS, SAMPLE, WESTERN, Reader
from src.sources import File
from src.stage import InputError, closest

PARAMS = Path("params.yaml")
WATCHED = Path("data/source")  # what DVC watches, as load is told in dvc.yaml
PARQUET = b"PAR1"  # that such a file begins with
# Ways to read a table, those of a line first that leave nothing to guess.
TABLES = [{"delimiter": sign, "quote": quote} for quote in ('"', "") for sign in ",;|"]
WAYS: list[list[dict[str, str]]] = [
    [{"format": "auto", **table} for table in TABLES],
    *([{"format": kind}] for kind in ("parquet", "json", "jsonl")),
    [{"format": "tsv", "quote": '"'}, {"format": "tsv", "quote": ""}]
    + [{"format": "csv", **table} for table in TABLES],
]
ROWS = 20_000  # that the columns are judged by, at least, where there are as many
LABELS = 1000  # different values of a column of labels at most
SHORT = 60  # characters of a label at most, on average
LABEL = re.compile(r"label|class|categor|target|sentiment|topic|intent|rating|stars|^y$")
LANGUAGE = re.compile(r"lang|locale")
ID = re.compile(r"(^|[_ -])(u?u?id|guid|key)$|[a-z]I[dD]$")
NO_LABEL = r"[-+]?\d+[.,](?!0+$)\d+|\d{4}-\d\d-\d\d.*"  # a measured number, a date
SLICE = 20  # different values of a column whose values get metrics of their own, at most
FEWEST = 3  # texts of a class, one for each side of a split
TEXTS = 2000  # whose tokens are counted, and that `quality` looks at
CUT = 0.05  # share of texts that may be longer than max_length
STEPS = 4  # that are timed
VALIDATED = 3  # validation texts take the time of one in training
SHOWN = 20  # classes at most

log = logging.getLogger("src.check")


def main(*files: str, text_column: str = "", label_column: str = "", write: bool = False) -> None:
    """Print what files, folders or URLs of labelled texts hold, and the params that they need.

    The columns of the texts and of the labels are guessed if they are not named.
    """
    if not files:
        raise InputError(
            "Expected a file to look at, found none: name it, as in `python -m src.check "
            "data/source/mine.csv`."
        )
    _, values = _read_params()
    present = {name: dict(section) for name, section in values.items()}
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
        _write_params({name: new for name, (_, new) in changes.items()})
        print("params.yaml has them now; `dvc repro quality` is next.")
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
    """

    present: dict[str, dict[str, Any]]
    params: dict[str, dict[str, Any]]
    folder: Path
    lines: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

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

    def run(self, name: str, *paths: str, **changes: Any) -> None:
        """Run a stage as DVC would, with paths in the temporary folder, and keep its warnings.

        Raises:
            InputError: the stage would stop.
        """
        section = {**self.params[name], **changes}
        words = shlex.split(to_str(section, {"bool": "boolean_optional"}))
        stage_main = import_module(f"src.{name}").main  # only what is about to run is loaded
        places = [str(self.folder / path) for path in paths]
        positional, params = stage.bind(stage_main, name, True, [*places, *words])
        if name == "load":
            positional[0] = WATCHED
        with _hushed() as said:
            stage_main(*positional, **params)
        self.warnings += [sentence for sentence in said if sentence not in self.warnings]


def look(check: Check, files: Sequence[str], text_column: str, label_column: str) -> None:
    """Fill in the params and the report.

    Raises:
        InputError: the files are no labelled texts.
    """
    check.set("load", source=_sources(files), sha256="")
    with _hushed():
        downloads = check.folder / "files"
        downloads.mkdir()
        load = check.params["load"]
        found = sources.find(load["source"], downloads, "", load["max_bytes"])
        frame = _settle_format(check, found)
    _settle_roles(check, frame, text_column, label_column)
    counts = _load(check)
    _settle_columns(check)
    sizes = _split(check, counts["kept"])
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a checkpoint that is not here is not fetched
    _quality(check)
    _training(check, sizes, len(counts["classes"]))


# Files


def _sources(files: Sequence[str]) -> list[str]:
    """What load.source says of files: as seen from the project if they lie in it."""
    found = []
    for name in files:
        if "://" in name or "::" in name or any(sign in name for sign in "*?["):
            found.append(name)
            continue
        if not Path(name).exists():
            near = closest(Path(name).name, [path.name for path in Path(name).parent.glob("*")])
            raise InputError(
                f"Expected a file or a folder at {name} (seen from {Path.cwd()}), found "
                f"none{near}: correct the path."
            )
        place, root = Path(name).resolve(), Path.cwd().resolve()
        inside = place.is_relative_to(root)
        found.append(place.relative_to(root).as_posix() if inside else str(place))
    return found


class _AnyColumns(Reader):
    """The reader before it is known what its columns are: all of them by their own names."""

    def _roles(self, found: Sequence[str], file: File) -> dict[str, str]:
        return {"text": "\0", "label": "\0"}

    def _named(
        self, columns: dict[str, list[str | None]], roles: dict[str, str], rows: int
    ) -> dict[str, Any]:
        return dict(columns)


def _read(check: Check, files: Sequence[File]) -> Iterator[tuple[pd.DataFrame, int]]:
    """The columns of each batch, and how many of its rows are malformed."""
    load = check.params["load"]
    names = ("encoding", "delimiter", "quote", "column_names")
    reader = _AnyColumns(load["format"], "text", "label", *(load[name] for name in names), "")
    for _, batch in reader.read(files):
        yield pd.DataFrame(batch.columns, dtype=object), sum(map(bool, batch.reasons))


def _settle_format(check: Check, files: Sequence[File]) -> pd.DataFrame:
    """Find how the files are to be read, by trying; rows of them.

    Raises:
        InputError: there is no way to read them as a table.
    """
    _settle_encoding(check, files)
    check.set("load", format="auto", column_names=[])
    lone = len(files) == 1 and Path(files[0].name).suffix.lower() == ".txt"  # no folder of texts
    first: InputError | None = None
    alone = ""
    given = {name: check.present["load"][name] for name in ("delimiter", "quote")}
    for ways in [[{"format": "auto"} | given], *WAYS][2 * lone :]:
        tried = []
        for number, way in enumerate(ways):
            check.set("load", **way)
            try:
                frame, malformed = next(_read(check, files))
            except InputError as error:
                first = first or error
                continue
            if len(frame.columns) > 1:
                tried.append((malformed / len(frame), -len(frame.columns), number))
            alone = alone or str(frame.columns[0])
        for *_, number in sorted(tried):
            check.set("load", **ways[number])
            try:
                return _sample(check, files)
            except InputError as error:
                first = first or error
    if alone:
        raise InputError(
            f"Expected a column of texts and one of labels in {files[0].name}, found one column "
            f"only, {alone!r:.60}: add the labels, or put one of , ; | or a tab between the fields."
        )
    raise first or InputError(f"Expected rows in {files[0].name}, found none: add labelled texts.")


def _sample(check: Check, files: Sequence[File]) -> pd.DataFrame:
    """Read all of the files, and keep rows that are spread evenly over them."""
    frame, step = pd.DataFrame(), 1
    for part, _ in _read(check, files):
        frame = pd.concat([frame, part.iloc[::step]], ignore_index=True)
        while len(frame) > 2 * ROWS:
            frame, step = frame.iloc[::2], 2 * step
    headed = check.params["load"]["column_names"] == []
    if headed and any(_is_label(frame[name]) and name in set(frame[name]) for name in frame):
        # A name of a column that is also one of its values is the first row of a file without names.
        check.set("load", column_names=[f"column_{k + 1}" for k in range(len(frame.columns))])
        return _sample(check, files)
    return frame


def _settle_encoding(check: Check, files: Sequence[File]) -> None:
    present = check.params["load"]["encoding"]
    for file in files:
        with file.open() as stream:
            start = stream.peek(64)
        if start.startswith(PARQUET):
            return
        file.refuse_other_kinds(start, "labelled texts")
        if marks := [name for mark, name in MARKS.items() if start.startswith(mark)]:
            check.set("load", encoding=marks[:1])
            return
        if b"\0" in start:
            raise InputError(
                f"Expected text in {file.name}, found zero bytes, as binary files have: save it as "
                "csv in utf-8."
            )
    candidates = itertools.chain(["utf-8", *present[:1]], _guesses(files))
    for encoding in candidates:
        if all(_fits(file, encoding) for file in files):
            if encoding != present[0]:
                check.set("load", encoding=[encoding])
            return
    if {Path(file.name).suffix.lower() for file in files} != {".txt"}:  # which the others are for
        raise InputError(
            f"Expected text in {files[0].name}, found bytes that fit no encoding: save it as csv "
            "in utf-8."
        )


def _fits(file: File, encoding: str) -> bool:
    try:
        with file.open() as stream:
            for _ in io.TextIOWrapper(stream, encoding):
                pass
    except UnicodeError:
        return False
    return True


def _guesses(files: Sequence[File]) -> Iterator[str]:
    """Encodings that the lines of other characters than ASCII may be of."""
    sample = b""
    for file in files:
        with file.open() as stream:
            odd = itertools.islice((line for line in stream if not line.isascii()), 1000)
            sample += b"".join(odd)[:SAMPLE]
    guesses = [guess.encoding for guess in from_bytes(sample)] if len(sample) >= GUESSED else []
    if not guesses or {WESTERN, "latin_1"} & {*guesses}:  # which read most bytes alike
        yield WESTERN
    yield from guesses


# Columns


def _settle_roles(check: Check, frame: pd.DataFrame, text: str, label: str) -> None:
    """Choose the columns of the texts, the labels and the ids, but for those that are named."""
    names, load = [str(name) for name in frame], check.params["load"]
    for option, name in (("text", text), ("label", label)):
        if name and name not in names:
            raise InputError(
                f"Expected column {name!r}, found {', '.join(names)}{closest(name, names)}: "
                f"correct --{option}_column."
            )
    text = text or max((name for name in names if name != label), key=lambda n: _prose(frame[n]))

    def rank(name: str) -> tuple[bool, ...]:
        folded = examples.fold(name)
        known = name == load["label_column"], bool(LABEL.search(folded))
        return *known, not LANGUAGE.search(folded) and not _sides(frame[name])

    others = [name for name in names if name != text and _is_label(frame[name])]
    likely = sorted(others, key=rank, reverse=True)
    if not (label or likely):
        raise InputError(
            f"Expected a column of labels, with few different values, beside {text!r}, found none "
            f"among {', '.join(names)}: add it, or name it by --label_column."
        )
    if not label and len(likely) > 1 and rank(likely[0]) == rank(likely[1]):
        check.warnings.append(
            f"The labels may also be column {likely[1]!r}: --label_column names the right one."
        )
    label = label or likely[0]
    free = [name for name in names if name not in (text, label)]
    ids = [name for name in free if ID.search(name) and frame[name].is_unique]
    own = "" if "id" in ids else next(iter(ids), "")  # `id` needs no naming
    check.set("load", text_column=text, label_column=label, id_column=own)
    kind = f", delimiter {load['delimiter']!r}" if load["format"] in ("auto", "csv") else ""
    shown = load["source"][0] if len(load["source"]) == 1 else f"{len(load['source'])} sources"
    check.lines += [
        f"{shown}: format {load['format']}{kind}, encoding {load['encoding'][0]}",
        f"  texts   {text}, {_examples(frame[text])}",
        f"  labels  {label}, {_examples(frame[label])}",
        f"  ids     {own or ('id' if 'id' in ids else 'none, rows are numbered')}",
    ]


def _filled(values: pd.Series) -> list[str]:
    return [value for value in values if isinstance(value, str) and value.strip()]


def _prose(values: pd.Series) -> float:
    """How much like texts the values of a column are: long, in words, and different."""
    filled = _filled(values)
    if not filled:
        return 0.0
    letters = np.mean([sum(map(str.isalpha, value)) for value in filled[:ROWS]])
    # Ids and addresses are long too, but have neither spaces nor letters other than ASCII.
    words = np.mean([len(value.split()) > 1 or not value.isascii() for value in filled])
    return float(letters * (words + 0.01) * len({*filled}) / len(filled))


def _is_label(values: pd.Series) -> bool:
    """Whether the values of a column are few, short and no measurements."""
    filled = _filled(values)
    different = {*filled}
    return (
        2 <= len(different) <= min(LABELS, len(filled) / 2)
        and sum(map(len, different)) <= SHORT * len(different)
        and not all(re.fullmatch(NO_LABEL, value.strip()) for value in different)
    )


def _sides(values: pd.Series) -> bool:
    """Whether a column says on which side of the split each row is."""
    names = {value.strip().lower() for value in _filled(values)}
    return len(names) > 1 and names <= {*import_module("src.split").NAMES}


def _examples(values: pd.Series) -> str:
    filled = _filled(values)
    shown = ", ".join(repr(value[:40]) for value in dict.fromkeys(filled[:ROWS]).keys())
    return f"such as {shown:.90}"


def _settle_columns(check: Check) -> None:
    """What the further columns are good for: a split, slices, groups."""
    path = check.folder / "raw" / "examples.parquet"
    names = [name for name in examples.column_names(path) if name not in examples.COLUMNS]
    frame = pq.read_table(path, columns=names).to_pandas()
    split = check.params["split"]
    if sides := [name for name in names if _sides(frame[name])]:
        check.set("split", strategy="predefined", column=sides[0])
    elif split["column"] and split["column"] not in names:
        check.set("split", strategy="stratified", column="")
    if split["train_only"] and split["train_only"][0] not in names:
        check.set("split", train_only=[])
    few = [
        name
        for name in names
        if name not in sides and _is_label(frame[name]) and frame[name].nunique() <= SLICE
    ]
    languages = [name for name in few if LANGUAGE.search(examples.fold(name))]
    for section in ("quality", "evaluate"):
        kept = [name for name in check.params[section]["slices"] if name in names]
        check.set(section, slices=list(dict.fromkeys([*kept, *languages])))
    codes = sorted({*_filled(frame[languages[0]])}) if languages else []
    if codes and all(re.fullmatch("[a-z]{2}", code) for code in codes):
        check.set("card", languages=codes)
    groups = [
        name
        for name in names
        if name not in few and SLICE < frame[name].nunique() <= len(frame) / 2
    ]
    check.lines += [
        f"  {word:7} {', '.join(found)}{use}"
        for word, found, use in (
            ("split", sides, ""),
            ("slices", few, ", for evaluate.slices"),
            ("groups", groups, ", if texts of one value are alike: split.strategy group"),
        )
        if found
    ]


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


def _load(check: Check) -> dict[str, Any]:
    """Run `load`, and report rows and classes; what it counted."""
    lenient = {"missing_labels": "drop", "max_dropped_fraction": 1.0}
    counts: dict[str, Any] = {}
    for fewest in (1, max(FEWEST, check.params["load"]["min_class_texts"])):
        check.run("load", "watched", "raw", "rejected.csv", **lenient, min_class_texts=fewest)
        counts = json.loads((check.folder / "raw" / "counts.json").read_text(encoding="utf-8"))
        small = [name for name, count in counts["classes"].items() if count < FEWEST]
        if not small:
            break
        check.set("load", min_class_texts=FEWEST)
        check.warnings.append(
            f"Classes of fewer than {FEWEST} texts, one for each side of the split: {len(small)}, "
            f"such as {small[0]!r}; load.min_class_texts {FEWEST} leaves them out."
        )
    if counts["dropped"]["no_label"]:
        check.set("load", missing_labels="drop")
    lost, most = counts["rows"] - counts["kept"], check.params["load"]["max_dropped_fraction"]
    if lost > most * counts["rows"]:
        check.warnings.append(
            f"`load` would stop, for more than load.max_dropped_fraction {most:g} of the rows "
            "would be dropped: mend them, or raise it."
        )
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
    return counts


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
    figures = json.loads((check.folder / "quality.json").read_text(encoding="utf-8"))
    scripts = [f"{name} {100 * share:.1f} %" for name, share in figures["scripts"].items()]
    check.lines.append(f"Scripts: {', '.join(scripts)}")
    if any("baseline.analyzer char" in sentence for sentence in check.warnings):
        check.set("baseline", analyzer="char")


def _training(check: Check, sizes: tuple[int, int], classes: int) -> None:
    """Report the lengths in tokens, and how long training may take, by a few steps of it."""
    from src import transformer  # torch, which takes seconds to load

    train = check.params["train"]
    try:
        with _hushed():
            place = transformer.resolve(train["checkpoint"], train["sha256"])
            model, tokenizer = transformer.from_pretrained(place, new_head=True, num_labels=classes)
    except InputError as error:
        check.lines.append(f"Tokens and training time: not measured. {error}")
        return
    path = check.folder / "raw" / "examples.parquet"
    texts = pq.read_table(path, columns=["text"])["text"].to_pylist()
    texts = texts[:: -(-len(texts) // TEXTS)]
    ids = transformer.tokenize(tokenizer, texts, 10**9, train["max_characters"])
    lengths, most = np.array([len(row) for row in ids]), train["max_length"]
    lost = np.maximum(lengths - most, 0).sum() / lengths.sum()
    told = (
        f"Tokens: the median text has {np.median(lengths):.0f} and the longest {lengths.max()}; "
        f"train.max_length {most} cuts {100 * (lengths > most).mean():.1f} % of the texts, and "
        f"{100 * lost:.1f} % of all tokens"
    )
    if (lengths > most).mean() > CUT:
        enough = int(np.sort(lengths)[-int(CUT * len(lengths)) - 1])
        told += f"; {enough} would cut at most {100 * CUT:.0f} % (the checkpoint may read fewer)"
    check.lines.append(told)
    size = train["batch_size"]
    seconds = _seconds_of_a_text(model, tokenizer, [row[:most] for row in ids], train)
    passes = sizes[0] + sizes[1] / VALIDATED
    check.lines.append(
        f"Training: {_duration(seconds * passes * train['epochs'])}, by {STEPS} steps of "
        f"{min(size, len(ids))} texts timed here: {train['epochs']} epochs of {sizes[0]:,} texts"
    )


def _seconds_of_a_text(model: Any, tokenizer: Any, ids: list[Any], train: dict[str, Any]) -> float:
    """How long a text takes in training, as batches of short and of long texts tell."""
    import torch

    from src.shortcuts import CutVocabulary, replace_dropout, shorten
    from src.transformer import collate

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
    seconds = 0.0
    for number, start in enumerate([starts[0], *starts]):
        began = time.perf_counter()
        batch = collate(ids[start : start + size], tokenizer.pad_token_id)
        labels = torch.zeros(size, dtype=torch.int64, device=device)
        with torch.autocast(device.type, kind, enabled=train["precision"] != "no"):
            output = model(**{k: v.to(device) for k, v in batch.items()})
        torch.nn.functional.cross_entropy(output.logits.float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds += (time.perf_counter() - began) * bool(number)  # the first step sets things up
    return seconds / (STEPS * size)


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"about {seconds / length:.2g} {unit}"
    return f"about {max(1.0, seconds):.0f} seconds"


# params.yaml


def _read_params() -> tuple[YAML, Any]:
    """params.yaml with its comments, and what writes it."""
    yaml = YAML()  # of YAML 1.2, as DVC reads it
    yaml.preserve_quotes = True
    yaml.width = 10**6  # no value is broken
    try:
        values = yaml.load(PARAMS)
        for name in ("load", "quality", "split", "baseline", "train", "evaluate", "card"):
            values[name].items()
    except (OSError, YAMLError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"Expected params.yaml with the sections of dvc.yaml in {Path.cwd()}, found: "
            f"{' '.join(str(error).split())}; go to the root of the project, or correct it."
        ) from None
    return yaml, values


def _asked() -> bool:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return False
    try:
        return input("Write these into params.yaml? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _write_params(changes: dict[str, Any]) -> None:
    """Write params into params.yaml as it is now, whose comments stay."""
    yaml, values = _read_params()
    for name, value in changes.items():
        section, key = name.split(".")
        _put(values[section], key, value)
    with stage.replacing(PARAMS) as fresh:
        yaml.dump(values, fresh)


def _put(section: Any, key: str, value: Any) -> None:
    """Give a key another value; the comment over the next key hangs on the end of a list."""
    if isinstance(value, list):
        old, value = section[key], CommentedSeq(value)
        tail = old.ca.items.get(len(old) - 1)
        if tail and value:
            value.ca.items[len(value) - 1] = tail
        elif tail:
            section.ca.items[key] = [None, None, tail[0], None]
        if not old or not value:
            value.fa.set_flow_style()
    section[key] = value


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
