"""How files that nobody described are to be read, and what their columns are: guessed, by trying.

Each way to read them is tried with the reader of `load`, and the first that reads all of them as a
table of the least malformed rows is the one. Columns are told apart by their values, and by their
names where several will do.
"""

import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from charset_normalizer import from_bytes

from src import examples
from src.formats import GUESSED, MARKS, SAMPLE, WESTERN, Reader
from src.sources import File
from src.stage import InputError, closest

Params = dict[str, Any]  # of the section `load`

PARQUET = b"PAR1"  # that such a file begins with
# Ways to read a table, those first that need no word on the format.
TABLES = [{"delimiter": sign, "quote": quote} for quote in ('"', "") for sign in ",;|"]
WAYS: list[list[dict[str, str]]] = [
    [{"format": "auto", **table} for table in TABLES],
    *([{"format": kind}] for kind in ("parquet", "json", "jsonl")),
    [
        *({"format": "tsv", "quote": quote} for quote in ('"', "")),
        *({"format": "csv", **table} for table in TABLES),
    ],
]
ROWS = 20_000  # that columns are judged by, where there are as many
LINES = 1000  # of other characters than ASCII that an encoding is guessed from
LABELS = 1000  # different values of a column of labels at most
SHORT = 60  # characters of a label at most, on average
LABEL = re.compile(r"label|class|categor|target|sentiment|topic|intent|rating|stars|^y$")
LANGUAGE = re.compile(r"lang|locale")
# ISO 639-1; other words of two letters, such as "no" and "us", may be anything.
CODES = frozenset(
    re.findall(
        r"\w+",
        """
        aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv
        cy da de dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho
        hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku
        kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn
        no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm
        sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi
        vo wa wo xh yi yo za zh zu
        """,
    )
)
ID = re.compile(r"(^|[_ -])(u?u?id|guid|key|nr|no)$|[a-z]I[dD]$")
MEASURED = r"[-+]?\d+[.,](?!0+$)\d+|\d{4}-\d\d-\d\d.*"  # numbers and dates, which label nothing


def reading(files: Sequence[File], load: Params) -> tuple[Params, pd.DataFrame]:
    """How to read the files: params of `load`, and rows of them, spread evenly.

    Args:
        files: all of one kind.
        load: the present params, which go first where several will do.

    Raises:
        InputError: there is no way to read them as a table of two columns or more.
    """
    load = load | {"encoding": _encoding(files, load["encoding"]), "column_names": []}
    present = {"format": "auto", "delimiter": load["delimiter"], "quote": load["quote"]}
    lone = len(files) == 1 and Path(files[0].name).suffix.lower() == ".txt"  # no folder of texts
    refused: InputError | None = None
    alone = ""
    for ways in [[present], *WAYS][2 * lone :]:
        tried = []
        for number, way in enumerate(ways):
            try:
                frame, malformed = next(_read(files, load | way))
            except InputError as error:
                refused = refused or error
                continue
            if len(frame.columns) > 1:
                tried.append((malformed / len(frame), -len(frame.columns), number))
            alone = alone or str(frame.columns[0])
        for *_, number in sorted(tried):
            try:
                return _sample(files, load | ways[number])
            except InputError as error:  # on a later row
                refused = refused or error
    if alone:
        raise InputError(
            f"Expected a column of texts and one of labels in {files[0].name}, found one column "
            f"only, {alone!r:.60}: add the labels, or put one of , ; | or a tab between the fields."
        )
    raise refused or AssertionError("a way that reads nothing is refused")


class _AnyColumns(Reader):
    """The reader before it is known what its columns are: all of them by their own names."""

    def _roles(self, found: Sequence[str], file: File) -> dict[str, str]:
        return {"text": "\0", "label": "\0"}

    def _named(
        self, columns: dict[str, list[str | None]], roles: dict[str, str], rows: int
    ) -> dict[str, Any]:
        return dict(columns)


def _read(files: Sequence[File], load: Params) -> Iterator[tuple[pd.DataFrame, int]]:
    """The columns of each batch, and how many of its rows are malformed."""
    reader = _AnyColumns(
        load["format"],
        "text",
        "label",
        load["encoding"],
        load["delimiter"],
        load["quote"],
        load["column_names"],
        "",
    )
    for _, batch in reader.read(files):
        yield pd.DataFrame(batch.columns, dtype=object), sum(map(bool, batch.reasons))


def _sample(files: Sequence[File], load: Params) -> tuple[Params, pd.DataFrame]:
    """Read all of the files, and keep rows that are spread evenly over them."""
    frame, step = pd.DataFrame(), 1
    for part, _ in _read(files, load):
        frame = pd.concat([frame, part.iloc[::step]], ignore_index=True)
        while len(frame) > 2 * ROWS:
            frame, step = frame.iloc[::2], 2 * step
    # Where a column has its own name for a value, the first row is no header.
    if not load["column_names"] and any(
        is_label(frame[name]) and name in set(frame[name]) for name in frame
    ):
        names = [f"column_{k + 1}" for k in range(len(frame.columns))]
        return _sample(files, load | {"column_names": names})
    return load, frame


def _encoding(files: Sequence[File], present: list[str]) -> list[str]:
    """The params' encodings if the first fits the files, or the one that does."""
    for file in files:
        with file.open() as stream:
            start = stream.peek(64)
        if start.startswith(PARQUET):
            return present
        file.refuse_other_kinds(start, "labelled texts")
        if marks := [name for mark, name in MARKS.items() if start.startswith(mark)]:
            return marks[:1]
        if b"\0" in start:
            raise InputError(
                f"Expected text in {file.name}, found zero bytes, as binary files have: save it as "
                "csv in utf-8."
            )
    # Hardly any file in another encoding is valid UTF-8.
    odd = [file for file in files if not _fits(file, "utf-8")]
    folder = all(Path(file.name).suffix.lower() == ".txt" for file in files)  # of texts, mixed
    known = ["utf-8"] if not odd or (folder and len(odd) < len(files)) else []
    # Those of params.yaml after the first are for folders.
    first = present if known else present[:1]
    for encoding in itertools.chain(first, _guesses(odd)) if odd else known:
        if all(_fits(file, encoding) for file in odd):
            found = list(dict.fromkeys([*known, encoding]))
            return present if found == present[: len(found)] else found
    raise InputError(
        f"Expected text in {odd[0].name}, found bytes that fit no encoding: save it as csv in "
        "utf-8."
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
            lines = itertools.islice((line for line in stream if not line.isascii()), LINES)
            sample += b"".join(lines)[:SAMPLE]
    best = from_bytes(sample).best() if len(sample) >= GUESSED else None
    alike = best.could_be_from_charset if best else [WESTERN]
    # Those that read these lines alike may differ in others.
    yield from sorted(alike, key=lambda name: name != WESTERN)


def roles(frame: pd.DataFrame, load: Params, text: str, label: str) -> tuple[Params, str]:
    """The columns of the texts, the labels and the ids; "" or another likely column of labels.

    Args:
        frame: rows of all columns.
        load: the present params.
        text: the column of the texts, or "" to choose it.
        label: that of the labels, likewise.

    Raises:
        InputError: a column that is named is not there, or none may be that of the labels.
    """
    names = [str(name) for name in frame]
    for option, name in (("text", text), ("label", label)):
        if name and name not in names:
            raise InputError(
                f"Expected column {name!r}, found {', '.join(names)}{closest(name, names)}: "
                f"correct --{option}_column."
            )
    text = text or max((n for n in names if n != label), key=lambda n: _prose(list(frame[n])))

    def rank(name: str) -> tuple[bool, ...]:
        known = name == load["label_column"], bool(LABEL.search(examples.fold(name)))
        return *known, not is_language(frame[name])

    others = [name for name in names if name != text and is_label(frame[name])]
    likely = sorted(others, key=rank, reverse=True)
    if not (label or likely):
        raise InputError(
            f"Expected a column of labels, with few different values, beside {text!r}, found none "
            f"among {', '.join(names)}: add it, or name it by --label_column."
        )
    tied = not label and len(likely) > 1 and rank(likely[0]) == rank(likely[1])
    label = label or likely[0]
    free = [name for name in names if name not in (text, label)]
    ids = [name for name in free if ID.search(name) and frame[name].is_unique]
    own = "" if "id" in ids else next(iter(ids), "")  # `id` needs no naming
    found = {"text_column": text, "label_column": label, "id_column": own}
    return found, likely[1] if tied else ""


def filled(values: Iterable[object]) -> list[str]:
    """The values of a column that are not empty."""
    return [value for value in values if isinstance(value, str) and value.strip()]


def _prose(values: Sequence[object]) -> float:
    """How much like texts the values of a column are: long, in words, and different."""
    there = filled(values)
    if not there:
        return 0.0
    letters = np.mean([sum(map(str.isalpha, value)) for value in there[:ROWS]])
    # Ids and addresses are long too, but have neither spaces nor letters other than ASCII.
    words = np.mean([len(value.split()) > 1 or not value.isascii() for value in there])
    return float(letters * (words + 0.01) * len({*there}) / len(there))


def is_label(values: pd.Series) -> bool:
    """Whether the values of a column are few, short and no measurements."""
    there = filled(values)
    different = {*there}
    return (
        2 <= len(different) <= min(LABELS, len(there) / 2)
        and sum(map(len, different)) <= SHORT * len(different)
        and not all(re.fullmatch(MEASURED, value.strip()) for value in different)
    )


def is_language(values: pd.Series) -> bool:
    """Whether a column, by its name or values, has the languages of the texts."""
    named = LANGUAGE.search(examples.fold(str(values.name)))
    return bool(named) or {*filled(values)} <= CODES
