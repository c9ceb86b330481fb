"""Guess the roles of columns, by their values, and by their names where several will do."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from src.core.errors import InputError, closest
from src.project import params
from src.tables import examples
from src.tables.columns import NUMBERED

Params = dict[str, Any]  # of the section `load`

ROWS = 20_000  # that columns are judged by, where there are as many
LABELS = 1000  # different values of a column of labels at most
SHORT = 60  # characters of a label at most, on average
LABEL = re.compile(r"label|class|categor|target|sentiment|topic|intent|rating|stars|^y$")
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
ID = re.compile(r"(?i:(^|[_ -])(u?u?id|guid|key|nr|no)$)|[a-z]I[dD]$")
TRUE = ("1", "1.0", "true", "True", "TRUE")  # and what is not, in columns of one class each
MARKS = {*TRUE, "0", "0.0", "false", "False", "FALSE"}
MEASURED = r"[-+]?\d+[.,](?!0+$)\d+|\d{4}-\d\d-\d\d.*"  # numbers and dates, which label nothing


def roles(frame: pd.DataFrame, load: Params, text: str, label: str) -> tuple[Params, list[str]]:
    """Choose the columns of the texts, the labels and the ids.

    Args:
        text: the column of the texts, or "" to choose it.
        label: that of the labels, likewise.

    Returns:
        The params, and other columns that are as likely to be the labels.

    Raises:
        InputError: a column that is named is not there, or none may be that of the labels.
    """
    names = [str(name) for name in frame if str(name).strip()]
    nested = frame.attrs.get("nested", [])
    apart = f" ({', '.join(nested)} left out, for lists or objects)" if nested else ""
    text, label, present = (as_named(n, names) for n in (text, label, load["text_column"]))
    for option, name in (("text", text), ("label", label)):
        if name in nested:
            raise InputError(
                f"--{option}_column is {name!r}, which holds lists or objects: give each row one "
                "value."
            )
        if name and name not in names:
            raise InputError(
                f"--{option}_column is {name!r}{closest(name, names)}: choose among "
                f"{', '.join(names)}{apart}."
            )
    if not text and present in names and present != label and is_prose(frame[present]):
        text = present
    free = [name for name in names if name != label]
    text = text or max(free, key=lambda name: _prose(list(frame[name])), default="")
    tied: list[str] = []
    if not label:
        others = [name for name in names if name != text]
        label, *tied = _labels(frame, others, as_named(load["label_column"], names)) or [""]
        if not label:
            lists = [n for n in nested if n == load["label_column"] or LABEL.search(n.lower())]
            remedy = (
                f"give each row one value in {lists[0]!r}, or add a column of labels"
                if lists
                else "add it, or name it by --label_column"
            )
            raise InputError(
                f"No column of labels, with few different values, stands beside {text!r} among "
                f"{', '.join(names)}{apart}: {remedy}."
            )
        _refuse_a_column_a_class(frame, others, label, tied)
    free = [name for name in names if name not in (text, label)]
    ids = {"id_column": _id(frame, free, as_named(load["id_column"], names))}
    return {"text_column": text, "label_column": label} | ids, tied


def _refuse_a_column_a_class(
    frame: pd.DataFrame, names: Sequence[str], label: str, tied: Sequence[str]
) -> None:
    """Stop if columns of 0 and 1, all as likely, are one for each class or label of a text."""
    marks = [name for name in names if {*filled(frame[name])} <= MARKS and len({*frame[name]}) > 1]
    if label not in marks or not {*tied} & {*marks}:
        return
    if (frame[marks].isin([*TRUE]).sum(axis=1) == 1).all():
        raise InputError(
            f"Columns {', '.join(marks)} are one for each class: make one column of labels of "
            "them, or name one by --label_column to learn that class alone."
        )
    if len(marks) > 2:
        raise InputError(
            f"Columns {', '.join(marks)} look like several labels of a text, of which only one is "
            "learnt: name it by --label_column."
        )


def as_named(name: str, names: Sequence[str]) -> str:
    """Return the column that `load` takes for a name, or the name where there is none."""
    alike = [other for other in names if examples.fold(other) == examples.fold(name)]
    return alike[0] if name and name not in names and len(alike) == 1 else name


def on_one_line(name: str, names: Sequence[str]) -> str:
    """Return a name by which `load` takes a column, for the params: on one line if that will do."""
    plain = " ".join(name.split())
    return plain if params.breaks_a_line(name) and as_named(plain, names) == name else name


def _labels(frame: pd.DataFrame, names: Sequence[str], present: str) -> list[str]:
    """Choose among columns those that are likeliest to be the labels, all as likely."""

    def rank(name: str) -> tuple[bool, ...]:
        known = name == present, bool(LABEL.search(examples.fold(name)))
        return *known, not is_language(frame[name])

    likely = sorted((n for n in names if is_label(frame[n])), key=rank, reverse=True)
    if not any(rank(name)[0] for name in likely):
        # One class only, of which `load` says what is wrong.
        of_one = [name for name in names if len({*filled(frame[name])}) == 1]
        own = [name for name in of_one if rank(name)[0]]
        likely = own or likely or [name for name in of_one if rank(name)[1]]
    return [name for name in likely if rank(name) == rank(likely[0])]


def _id(frame: pd.DataFrame, names: Sequence[str], present: str) -> str:
    """Choose the column of the ids, "" if there is none or it needs no naming."""
    if present == NUMBERED and present not in names:
        return present
    if present in names and frame[present].is_unique:
        return present
    ids = [name for name in names if ID.search(name) and frame[name].is_unique]
    return "" if "id" in ids else next(iter(ids), "")


def filled(values: Iterable[object]) -> list[str]:
    """Return the values of a column that are not empty."""
    return [value for value in values if isinstance(value, str) and value.strip()]


def _prose(values: Sequence[object]) -> float:
    """Measure how much like texts the values of a column are: long, in words, and different."""
    there = filled(values)
    if not there:
        return 0.0
    letters = np.mean([sum(map(str.isalpha, value)) for value in there[:ROWS]])
    # Ids and addresses are long too, but have neither spaces nor letters other than ASCII.
    words = np.mean([len(value.split()) > 1 or not value.isascii() for value in there])
    return float(letters * (words + 0.01) * len({*there}) / len(there))


def is_nested(values: Iterable[object]) -> bool:
    """Tell whether most values of a column are lists or objects of JSON."""
    there = filled(values)
    return 2 * sum(value[0] in "[{" for value in there) > len(there)


def is_prose(values: Iterable[object]) -> bool:
    """Tell whether most values of a column are of several words, and most differ."""
    there = filled(values)
    words = sum(len(value.split()) > 1 or not value.isascii() for value in there)
    return min(words, len({*there})) > len(there) / 2


def combined(values: Iterable[object]) -> str:
    """Find a value that is made of others, such as "sport;film", if most that may be are; or ""."""
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
    """Tell whether the values of a column are few, short and no measurements."""
    there = filled(values)
    different = {*there}
    return (
        2 <= len(different) <= min(LABELS, len(there) / 2)
        and sum(map(len, different)) <= SHORT * len(different)
        and not all(re.fullmatch(MEASURED, value.strip()) for value in different)
    )


def is_language(values: pd.Series) -> bool:
    """Tell whether a column, by its name or values, has the languages of the texts."""
    name = str(values.name)
    # Codes of countries and states are of two letters too, and many are those of languages.
    of_codes = not PLACE.search(examples.fold(name)) and {*filled(values)} <= CODES
    return names_languages(name) or of_codes


def names_languages(name: str) -> bool:
    """Tell whether a column has the name of one of languages."""
    return bool(LANGUAGE.search(examples.fold(name)))
