"""Guess how to read files that nobody described, by trying.

Each way to read them is tried with the reader of `load`; the first that reads all of them as a
table of the fewest malformed rows wins.
"""

import io
import itertools
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from src.core.errors import InputError
from src.tables import examples
from src.tables.encodings import SAMPLE
from src.tables.guess_encoding import PARQUET, encodings, is_folder
from src.tables.places import File
from src.tables.rows import ENDINGS, Reader
from src.text.check import guess_columns
from src.text.check.guess_columns import ID, Params, is_label, is_nested, is_prose, roles

# First bytes that no table has: parquet, a list of objects, and an object a line.
KINDS = {"parquet": PARQUET, "json": rb"\s*\[\s*\{", "jsonl": rb'\s*\{\s*"'}
# Ways to read a table, those first that need no word on the format.
TABLES = [{"delimiter": sign, "quote": quote} for quote in ('"', "") for sign in ",;|"]
WAYS: list[list[dict[str, str]]] = [
    [{"format": "auto", **table} for table in TABLES],
    [
        *({"format": "tsv", "quote": quote} for quote in ('"', "")),
        *({"format": "csv", **table} for table in TABLES),
    ],
]
FASTTEXT = re.compile(r"^__label__(\S+)\s+")
TREC = re.compile(r"^([A-Z]+:[a-z]+)\s+")
LINES = 20  # that such labels are looked for in
# Names that are hardly values: of one word, or of one with another before or after it.
HEADER = re.compile(
    r"(\w+[_-])?(labels?|class|category|target|sentiment|topic|intent|rating|stars|texts?|sentence|"
    r"body|content|message|review|comment|title|tweet|utterance|document|description)([_-]\w+)?"
)


def reading(
    files: Sequence[File], load: Params, text: str = "", label: str = ""
) -> tuple[Params, pd.DataFrame, list[str]]:
    """Find params of `load` that read the files.

    Args:
        files: all of one kind.
        load: the present params, which go first where several will do.
        text: the column of the texts, or "" to choose it.
        label: that of the labels, likewise.

    Returns:
        The params, rows that are spread evenly, and other likely columns of labels.

    Raises:
        InputError: there is no way to read them as a table of texts and labels.
    """
    _reader(load).check()
    given = load["column_names"]
    load = load | {"encoding": encodings(files, load["encoding"]), "column_names": []}
    start = _start(files[0], load["encoding"][0])
    _refuse_a_word_to_excel(start, files[0])
    _refuse_labels_before_texts(start, files[0])
    all_ways, kind = _ways(files, load, start)
    refused: dict[str, InputError] = {}  # by the sign between fields
    alone = ""
    for ways in all_ways:
        promising, column = _try(files, load, ways, refused)
        alone = alone or column
        for way in promising:
            if not way.get("quote", '"') and load["quote"] and _is_quoted(files, load | way):
                continue  # one quote too many or too few is told by what refused it
            try:
                settings, frame = _sample(files, load | way, given)
                columns, others = roles(frame, settings, text, label)
            except InputError as error:
                refused.setdefault(_sign(way), error)
            else:
                return settings | columns, frame, others
    raise _refusal(files[0].name, start, kind, refused, alone)


def _try(
    files: Sequence[File],
    load: Params,
    ways: Sequence[dict[str, str]],
    refused: dict[str, InputError],
) -> tuple[list[dict[str, str]], str]:
    """Read the first rows in each way, and note in ``refused`` which can't.

    Returns:
        The ways that find several columns, the fewest malformed rows first; and the one column
        that another way finds, or "".
    """
    tried, alone = [], ""
    for number, way in enumerate(ways):
        reader = _reader(load | way)
        try:
            frame, malformed = next(_read(reader, files))
        except InputError as error:
            refused.setdefault(_sign(way), error)
            continue
        if not len(frame.columns):
            nested = ", ".join(sorted(reader.nested))
            why = f"{files[0].name} has lists or objects in all columns ({nested}): give each row "
            refused.setdefault(_sign(way), InputError(f"{why}one text and one label."))
        elif len({*frame.columns, *reader.nested}) > 1:
            tried.append((malformed / len(frame), -len(frame.columns), number))
        else:
            alone = alone or str(frame.columns[0])
    return [ways[number] for *_, number in sorted(tried)], alone


def _refusal(
    name: str, start: str, kind: str, refused: dict[str, InputError], alone: str
) -> InputError:
    """Choose the likeliest of the reasons why no way reads the files."""
    line = start.lstrip().split("\n")[0]
    likely = max(refused, key=line.count, default="")
    if refused and (likely in line or not alone):
        return refused[likely] if likely in line else next(iter(refused.values()))
    if kind:
        return InputError(
            f"{name} has one column only, {alone!r:.60}: make each text an object of its own, with "
            "a key of the text and one of the label."
        )
    return InputError(
        f"{name} has one column only, {alone!r:.60}: add the labels, or put one of , ; | or a tab "
        "between the fields."
    )


def _ways(
    files: Sequence[File], load: Params, start: str
) -> tuple[list[list[dict[str, str]]], str]:
    """List ways to read the files, each list if none of the one before does.

    Returns:
        The lists, and the kind of the files if they are no tables, or "".
    """
    if len(files) > 1 and is_folder(files) and _ending(files[0]) != "folder":
        return [[{"format": "folder"}]], ""
    present = {"format": "auto", "delimiter": load["delimiter"], "quote": load["quote"]}
    lone = len(files) == 1 and Path(files[0].name).suffix.lower() == ".txt"  # no folder of texts
    folder = not lone and _ending(files[0]) == "folder"
    if kind := "" if folder else _kind(files[0], start):
        # Only its own reader says which row is wrong; that of tables would make much of it.
        same = _ending(files[0]) == kind
        return [[present if same else present | {"format": kind}]], kind
    return [[present], *WAYS][2 * lone :], ""


def _sign(way: dict[str, str]) -> str:
    return "\t" if way["format"] == "tsv" else way["delimiter"]


def _start(file: File, encoding: str) -> str:
    with file.open() as stream:
        return stream.read(SAMPLE).decode(encoding, "ignore").removeprefix("\ufeff")


def _ending(file: File) -> str:
    return ENDINGS.get(file.suffix, "")


def _kind(file: File, start: str) -> str:
    """Return the format of a file that is no table, or ""."""
    begins = start.encode()
    found = next((kind for kind, mark in KINDS.items() if re.match(mark, begins)), "")
    return found or (_ending(file) if _ending(file) in KINDS else "")


def _refuse_a_word_to_excel(start: str, file: File) -> None:
    if re.match(r"sep=.[\r\n]", start):
        raise InputError(
            f"{file.name} has {start[:5]!r} on line 1, which Excel alone understands: remove that "
            "line."
        )


def _refuse_labels_before_texts(start: str, file: File) -> None:
    """Stop if each line is a label and a text, as fastText and TREC have them."""
    lines = [line for line in start.split("\n")[:LINES] if line.strip()]
    for form, kind in ((FASTTEXT, "as fastText reads them"), (TREC, "as TREC has them")):
        if len(lines) > 1 and all(form.match(line) for line in lines[:-1]):
            pattern = form.pattern.replace(r"\S+", "[^[:blank:]]+").replace(r"\s+", "[[:blank:]]+")
            raise InputError(
                f"{file.name} has the label before each text, {kind}: make a table of it by "
                f"`(printf 'label\\ttext\\n'; sed -E 's/{pattern}/\\1\\t/' "
                f"{shlex.quote(file.name)}) > texts.tsv`."
            )


def _is_quoted(files: Sequence[File], load: Params) -> bool:
    """Tell whether most lines with quotes have them around whole fields."""
    sign = re.escape(_sign(load))
    whole = re.compile(rf'(?<![^{sign}])"(?:[^"]|"")*"(?![^{sign}])')
    well = odd = 0
    for file in files:
        with file.open() as stream:
            text = io.TextIOWrapper(stream, load["encoding"][0], errors="replace")
            for line in itertools.islice(text, guess_columns.ROWS):
                if '"' in line:
                    closed = '"' not in whole.sub("", line.rstrip("\r\n"))
                    well, odd = well + closed, odd + (not closed)
    return 0 < well >= odd


def _reader(load: Params) -> Reader:
    """Make a reader that keeps all columns by their own names, before their roles are known."""
    names = "format", "encoding", "delimiter", "quote", "column_names"
    kind, encoding, delimiter, quote, columns = (load[name] for name in names)
    return Reader(kind, "", "", encoding, delimiter, quote, columns, "")


def _read(reader: Reader, files: Sequence[File]) -> Iterator[tuple[pd.DataFrame, int]]:
    """Yield the columns of each batch, and how many of its rows are malformed."""
    for _, batch in reader.read(files):
        yield pd.DataFrame(batch.columns, dtype=object), sum(map(bool, batch.reasons))


def _sample(
    files: Sequence[File], load: Params, given: Sequence[str] = ()
) -> tuple[Params, pd.DataFrame]:
    """Read all of the files, and keep rows that are spread evenly over them.

    Columns without names get those that are given, if there are as many.
    """
    frame, step = pd.DataFrame(), 1
    reader = _reader(load)
    for part, _ in _read(reader, files):
        frame = pd.concat([frame, part.iloc[::step]], ignore_index=True)
        while len(frame) > 2 * guess_columns.ROWS:
            frame, step = frame.iloc[::2], 2 * step
    fitting = len(given) == len(frame.columns)
    if _has_no_header(frame, load, files[0], named=fitting):
        numbered = [f"column_{k + 1}" for k in range(len(frame.columns))]
        return _sample(files, load | {"column_names": [*given] if fitting else numbered})
    # One list among texts is a mistake, which `load` tells with its line.
    left_out = [n for n in sorted(reader.nested) if n not in frame or is_nested(frame[n])]
    frame = frame.drop(columns=left_out, errors="ignore")
    frame.attrs["nested"] = left_out
    return load, frame


def _has_no_header(frame: pd.DataFrame, load: Params, file: File, named: bool) -> bool:
    """Tell whether the first row of a table is one of its texts.

    It is if it has a label that comes again below it, or the params name the columns; and where
    there are texts below, it has no single word.
    """
    kind = _ending(file) if load["format"] == "auto" else load["format"]
    if kind not in ("csv", "tsv") or load["column_names"]:
        return False
    known = {load["text_column"], load["label_column"], load["id_column"], "id"}
    for name in map(str, frame):
        is_id = ID.search(name) and " " not in name and not is_label(frame[name])
        if name in known or is_id or HEADER.fullmatch(examples.fold(name)):
            return False
        if is_prose(frame[name]) and not is_prose([name]):
            return False
    return named or any(is_label(frame[name]) and name in set(frame[name]) for name in frame)
