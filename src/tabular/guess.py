"""What a table seems to be: its label, its ids, and how its values are written."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa

from src.core.errors import InputError, closest
from src.tables.schema import Writing
from src.tabular import inference
from src.tabular.wanted import positive_of

VALUES = 1000  # of a column, that are looked at for words that mean missing
LABELS = 20  # of a target that nobody named, at most
SIGNS: tuple[Literal[".", ","], ...] = (".", ",")  # before the digits of a fraction
# Names of a target, the likeliest first.
TARGETS = (
    r"(y|target|label|class|outcome|response)",
    r".*(churn|fraud|default|surviv|approv|convert|click|diagnos|target|label|outcome).*",
)
ID = r"(?i:(.*[_ .-])?(u?u?id|guid|key|nr|no))|.*[a-z]ID"
MISSING = {
    *("?", "-", "--", ".", "unknown", "na", "n/a", "#n/a", "nan", "null", "none", "nil"),
    *("missing", "not available", "not known", "n.a.", "n/d", "n.d.", "s/d", "#nv", "#n/v"),
    *("k.a.", "k.a", "keine angabe", "unbekannt", "fehlt", "inconnu", "desconocido"),
}

Columns = dict[str, pa.Array]  # their texts, by name


def target_of(columns: Columns, named: str, present: str) -> str:
    """Return the column of the labels: the named one, the present one, or the likeliest.

    Raises:
        InputError: there is no such column, or none is likely.
    """
    if named and named not in columns:
        raise InputError(
            f"--target is {named!r}, which is no column: choose among "
            f"{', '.join(map(repr, columns))}{closest(named, columns)}."
        )
    if named or present in columns:
        return named or present
    likely = [name for name, texts in columns.items() if 1 < len(texts.unique()) <= LABELS]
    for pattern in TARGETS:
        for name in reversed(likely):
            if re.fullmatch(pattern, name.casefold()):
                return name
    last = list(columns)[-1]
    if last in likely:
        return last
    raise InputError(
        f"Can't tell which column has the labels: pass --target, one of "
        f"{', '.join(map(repr, columns))}."
    )


def missing_words(columns: Columns, present: Sequence[str]) -> list[str]:
    """Return the words that mean missing, and those of the columns that hardly mean more."""
    found = [
        str(text)
        for texts in columns.values()
        for text in texts.unique().to_pylist()[:VALUES]
        if text is not None and text.casefold() in MISSING
    ]
    return [*present, *sorted({*found} - {*present})]


def writing_of(columns: Columns, missing: Sequence[str]) -> dict[str, Any]:
    """Find the decimal sign by which the most columns are numbers, and forms of dates."""
    counts: Counter[str] = Counter()
    filled = {}
    for name, texts in columns.items():
        filled[name] = Writing(tuple(missing), ".", ()).filled(texts).drop_null()
        for sign in SIGNS:
            writing = Writing((), sign, ())
            counts[sign] += inference.share(writing.numbers(filled[name])) >= inference.LIKELY
    sign = SIGNS[counts[","] > counts["."]]
    plain = Writing((), sign, ())
    found = (inference.form_of(texts[: inference.SAMPLE], plain) for texts in filled.values())
    forms = {*filter(None, found)}
    return {"decimal": sign, "date_formats": sorted(forms)}


def id_column(columns: Columns) -> str:
    """Return a column that is called an id, and names each row."""
    for name, texts in columns.items():
        if re.fullmatch(ID, name) and len(texts.unique()) == len(texts) - texts.null_count > 1:
            return name
    return ""


def positive_label(labels: pa.Array, missing: Sequence[str], named: str) -> str:
    """Return the label that is looked for, "" where there are more than two.

    Raises:
        InputError: none is as the named one.
    """
    writing = Writing(tuple(missing), ".", ())
    counts: Counter[str] = Counter(writing.filled(labels).drop_null().to_pylist())
    if named and named not in counts:
        raise InputError(
            f"--positive is {named!r}, and the labels are {', '.join(map(repr, counts))}"
            f"{closest(named, counts)}: name one of them."
        )
    if len(counts) != 2:
        return ""
    try:
        return positive_of([*counts], named)
    except InputError:  # neither of the labels is the opposite of the other
        return min(counts, key=counts.__getitem__)
