"""How files that nobody described are to be read, and what their columns are: guessed, by trying.

Each way to read them is tried with the reader of `load`, and the first that reads all of them as a
table of the least malformed rows is the one. Columns are told apart by their values, and by their
names where several will do.
"""

import codecs
import io
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from charset_normalizer import from_bytes

from src.core.errors import InputError, closest
from src.tables import examples
from src.tables.encodings import GUESSED, MARKS, SAMPLE, WESTERN
from src.tables.places import File
from src.tables.rows import ENDINGS, Reader

Params = dict[str, Any]  # of the section `load`

# What no table begins with: objects a line, a list of them, and parquet.
PARQUET = b"PAR1"
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
ROWS = 20_000  # that columns are judged by, where there are as many
LINES = 1000  # of other characters than ASCII that an encoding is guessed from
LABELS = 1000  # different values of a column of labels at most
SHORT = 60  # characters of a label at most, on average
LABEL = re.compile(r"label|class|categor|target|sentiment|topic|intent|rating|stars|^y$")
# Names that are hardly values: of one word, or of one with another before or after it.
HEADER = re.compile(
    r"(\w+[_-])?(labels?|class|category|target|sentiment|topic|intent|rating|stars|texts?|sentence|"
    r"body|content|message|review|comment|title|tweet|utterance|document|description)([_-]\w+)?"
)
PARTS = ";|,+"  # between the labels of a text that has several
LANGUAGE = re.compile(r"lang|locale")
PLACE = re.compile(r"countr|nation|state|region|market|province|^(geo|land|pays|cc)$")
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


def reading(
    files: Sequence[File], load: Params, text: str = "", label: str = ""
) -> tuple[Params, pd.DataFrame, list[str]]:
    """How to read the files: params of `load`, rows spread evenly, other likely columns of labels.

    Args:
        files: all of one kind.
        load: the present params, which go first where several will do.
        text: the column of the texts, or "" to choose it.
        label: that of the labels, likewise.

    Raises:
        InputError: there is no way to read them as a table of texts and labels.
    """
    _reader(load).check()
    given = load["column_names"]
    load = load | {"encoding": encodings(files, load["encoding"]), "column_names": []}
    start = _start(files[0], load["encoding"][0])
    _refuse_a_word_to_excel(start, files[0])
    all_ways, kind = _ways(files, load, start)
    refused: dict[str, InputError] = {}  # by the sign between fields
    alone = ""
    for ways in all_ways:
        tried = []
        for number, way in enumerate(ways):
            try:
                frame, malformed = next(_read(_reader(load | way), files))
            except InputError as error:
                refused.setdefault(_sign(way), error)
                continue
            if len(frame.columns) > 1:
                tried.append((malformed / len(frame), -len(frame.columns), number))
            else:
                alone = alone or str(frame.columns[0])
        for *_, number in sorted(tried):
            way = ways[number]
            if not way.get("quote", '"') and load["quote"] and _is_quoted(files, load | way):
                continue  # one quote too many or too few is told by what refused it
            try:
                settings, frame = _sample(files, load | way, given)
                columns, others = roles(frame, settings, text, label)
            except InputError as error:
                refused.setdefault(_sign(way), error)
            else:
                return settings | columns, frame, others
    line = start.lstrip().split("\n")[0]
    likely = max(refused, key=line.count, default="")
    if refused and (likely in line or not alone):
        raise refused[likely] if likely in line else next(iter(refused.values()))
    found = f"in {files[0].name}, found one column only, {alone!r:.60}: "
    if kind:
        raise InputError(
            f"Expected a key of texts and one of labels {found}make each text an object of its own."
        )
    raise InputError(
        f"Expected a column of texts and one of labels {found}add the labels, or put one of , ; | "
        "or a tab between the fields."
    )


def _ways(
    files: Sequence[File], load: Params, start: str
) -> tuple[list[list[dict[str, str]]], str]:
    """Ways to read the files, each list if none of the one before does; their kind if no table."""
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
    """The first characters of a file, "" if it has none."""
    with file.open() as stream:
        return stream.read(SAMPLE).decode(encoding, "ignore").removeprefix("\ufeff")


def _ending(file: File) -> str:
    """The format that the ending of a file names, or ""."""
    return ENDINGS.get(file.suffix, "")


def _kind(file: File, start: str) -> str:
    """The format of a file that is no table, or ""."""
    begins = start.encode()
    found = next((kind for kind, mark in KINDS.items() if re.match(mark, begins)), "")
    return found or (_ending(file) if _ending(file) in KINDS else "")


def _refuse_a_word_to_excel(start: str, file: File) -> None:
    if re.match(r"sep=.[\r\n]", start):
        raise InputError(
            f"Expected a header in {file.name}, found {start[:5]!r} on line 1, which Excel alone "
            "understands: remove that line."
        )


def _is_quoted(files: Sequence[File], load: Params) -> bool:
    """Whether most lines with quotes have them around whole fields."""
    sign = re.escape(_sign(load))
    whole = re.compile(rf'(?<![^{sign}])"(?:[^"]|"")*"(?![^{sign}])')
    well = odd = 0
    for file in files:
        with file.open() as stream:
            text = io.TextIOWrapper(stream, load["encoding"][0], errors="replace")
            for line in itertools.islice(text, ROWS):
                if '"' in line:
                    closed = '"' not in whole.sub("", line.rstrip("\r\n"))
                    well, odd = well + closed, odd + (not closed)
    return 0 < well >= odd


def _reader(load: Params) -> Reader:
    """The reader before it is known what its columns are: all of them by their own names."""
    names = "format", "encoding", "delimiter", "quote", "column_names"
    kind, encoding, delimiter, quote, columns = (load[name] for name in names)
    return Reader(kind, "", "", encoding, delimiter, quote, columns, "")


def _read(reader: Reader, files: Sequence[File]) -> Iterator[tuple[pd.DataFrame, int]]:
    """The columns of each batch, and how many of its rows are malformed."""
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
        while len(frame) > 2 * ROWS:
            frame, step = frame.iloc[::2], 2 * step
    fitting = len(given) == len(frame.columns)
    if _has_no_header(frame, load, files[0], named=fitting):
        numbered = [f"column_{k + 1}" for k in range(len(frame.columns))]
        return _sample(files, load | {"column_names": [*given] if fitting else numbered})
    # One list among texts is a mistake, which `load` tells with its line.
    left_out = [name for name in sorted(reader.nested) if _is_nested(frame[name])]
    frame = frame.drop(columns=left_out)
    frame.attrs["nested"] = left_out
    return load, frame


def _has_no_header(frame: pd.DataFrame, load: Params, file: File, named: bool) -> bool:
    """Whether the first row of a table is one of its texts.

    It has a label that comes again below it, or the params name the columns; and where there are
    texts below, it has no single word.
    """
    kind = _ending(file) if load["format"] == "auto" else load["format"]
    if kind not in ("csv", "tsv") or load["column_names"]:
        return False
    known = {load["text_column"], load["label_column"], load["id_column"], "id"}
    for name in map(str, frame):
        is_id = ID.search(name) and " " not in name and not is_label(frame[name])
        if name in known or is_id or HEADER.fullmatch(examples.fold(name)):
            return False
        if _is_prose(frame[name]) and not _is_prose([name]):
            return False
    return named or any(is_label(frame[name]) and name in set(frame[name]) for name in frame)


def is_parquet(file: File) -> bool:
    """Whether a file is one of parquet, by its first bytes."""
    return _first_bytes(file).startswith(PARQUET)


def _first_bytes(file: File) -> bytes:
    with file.open() as stream:
        return stream.peek(64)[:64]  # it gives all that it has


def encodings(files: Sequence[File], present: list[str]) -> list[str]:
    """The params' encodings if the first fits the files, or the one that does."""
    for file in files:
        start = _first_bytes(file)
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
    if any(map(_is_nearly_utf_8, odd)):
        return ["utf-8"]  # so that what reads it says which bytes are wrong
    folder = all(Path(file.name).suffix.lower() == ".txt" for file in files)  # of texts, mixed
    known = ["utf-8"] if not odd or (folder and len(odd) < len(files)) else []
    for encoding in _guesses(odd, present) if odd else known:
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


def _is_nearly_utf_8(file: File) -> bool:
    """Whether most lines with other characters than ASCII are UTF-8, all of which are not."""
    well = odd = 0
    with file.open() as stream:
        for line in stream:
            if not line.isascii():
                fits = "\ufffd" not in line.decode("utf-8", "replace")
                well, odd = well + fits, odd + (not fits)
    return well > odd


def _guesses(files: Sequence[File], present: Sequence[str]) -> Iterator[str]:
    """Encodings that the lines of other characters than ASCII may be of, the likeliest first.

    Many read the same bytes as letters of one language or another; so those of the params go first,
    and then the most common one, as `load` says when it finds a wrong byte.
    """
    sample = b""
    for file in files:
        with file.open() as stream:
            lines = itertools.islice((line for line in stream if not line.isascii()), LINES)
            sample += b"".join(lines)[:SAMPLE]
    matches = list(from_bytes(sample)) if len(sample) >= GUESSED else []
    alike = list(itertools.chain(*(match.could_be_from_charset for match in matches)))
    likely = {codecs.lookup(name).name for name in alike} or {WESTERN}
    if "iso8859-1" in likely:  # which is nearly the same
        likely.add(WESTERN)
    first = [*present, WESTERN] if matches else [WESTERN, *present]
    yield from (name for name in first if codecs.lookup(name).name in likely)
    yield from alike
    yield from present


def guessed(files: Sequence[File], encodings: Sequence[str]) -> str:
    """The first line of other characters than ASCII, as an encoding reads it that is but guessed.

    It is "" for files that are UTF-8, have a byte-order mark, or are no text.
    """
    for file in files:
        if _first_bytes(file).startswith((PARQUET, *MARKS)) or _fits(file, "utf-8"):
            continue
        encoding = next(name for name in encodings if _fits(file, name))
        with file.open() as stream:
            line = next(line for line in stream if not line.isascii()).decode(encoding, "replace")
        first = next((k for k, sign in enumerate(line) if not sign.isascii()), 0)
        shown = line[max(0, first - 30) :][:60].strip()
        return f"encoding {encoding} is a guess, by which a line has {shown!r}"
    return ""


def roles(frame: pd.DataFrame, load: Params, text: str, label: str) -> tuple[Params, list[str]]:
    """The columns of the texts, the labels and the ids; other columns as likely of labels.

    Args:
        frame: rows of all columns.
        load: the present params.
        text: the column of the texts, or "" to choose it.
        label: that of the labels, likewise.

    Raises:
        InputError: a column that is named is not there, or none may be that of the labels.
    """
    names = [str(name) for name in frame if str(name).strip()]
    nested = frame.attrs.get("nested", [])
    apart = f" ({', '.join(nested)} left out, for lists or objects)" if nested else ""
    for option, name in (("text", text), ("label", label)):
        if name and name not in names:
            raise InputError(
                f"Expected column {name!r}, found {', '.join(names)}{apart}{closest(name, names)}: "
                f"correct --{option}_column."
            )
    present = load["text_column"]
    if not text and present in names and present != label and _is_prose(frame[present]):
        text = present
    free = [name for name in names if name != label]
    text = text or max(free, key=lambda name: _prose(list(frame[name])), default="")

    def rank(name: str) -> tuple[bool, ...]:
        known = name == load["label_column"], bool(LABEL.search(examples.fold(name)))
        return *known, not is_language(frame[name])

    others = [name for name in names if name != text and is_label(frame[name])]
    likely = sorted(others, key=rank, reverse=True)
    if not label and not any(rank(name)[0] for name in likely):
        # One class only, of which `load` says what is wrong.
        of_one = [name for name in free if name != text and len({*filled(frame[name])}) == 1]
        own = [name for name in of_one if rank(name)[0]]
        likely = own or likely or [name for name in of_one if rank(name)[1]]
    if not (label or likely):
        raise InputError(
            f"Expected a column of labels, with few different values, beside {text!r}, found none "
            f"among {', '.join(names)}{apart}: add it, or name it by --label_column."
        )
    tied = [] if label else [name for name in likely[1:] if rank(name) == rank(likely[0])]
    label = label or likely[0]
    free = [name for name in names if name not in (text, label)]
    ids = [name for name in free if ID.search(name) and frame[name].is_unique]
    named = "" if "id" in ids else next(iter(ids), "")  # `id` needs no naming
    known = load["id_column"]
    named = known if known in free and frame[known].is_unique else named
    return {"text_column": text, "label_column": label, "id_column": named}, tied


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


def _is_nested(values: Iterable[object]) -> bool:
    """Whether most values of a column are lists or objects of JSON."""
    there = filled(values)
    return 2 * sum(value[0] in "[{" for value in there) > len(there)


def _is_prose(values: Iterable[object]) -> bool:
    """Whether most values of a column are of several words, and most differ."""
    there = filled(values)
    words = sum(len(value.split()) > 1 or not value.isascii() for value in there)
    return min(words, len({*there})) > len(there) / 2


def combined(values: Iterable[object]) -> str:
    """A value that is made of others, such as "sport;film", if most that may be are; or ""."""
    different = {*filled(values)}
    for sign in PARTS:
        parts = {value: {part.strip() for part in value.split(sign)} for value in different}
        count = Counter(itertools.chain(*parts.values()))
        # Not A+, beside A.
        several = sorted(v for v in different if len(parts[v]) > 1 and "" not in parts[v])
        made = [value for value in several if all(count[part] > 1 for part in parts[value])]
        if len(made) > 1 and len(made) >= len(several) / 2:
            return made[0]
    return ""


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
    name = str(values.name)
    # Codes of countries and states are of two letters too, and many are those of languages.
    of_codes = not PLACE.search(examples.fold(name)) and {*filled(values)} <= CODES
    return names_languages(name) or of_codes


def names_languages(name: str) -> bool:
    """Whether a column is called as one of languages is."""
    return bool(LANGUAGE.search(examples.fold(name)))
