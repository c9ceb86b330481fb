"""Reasons to drop a row of the source, and to stop where too much of it is unusable."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from src.core.errors import InputError
from src.tables import examples
from src.tables.examples import Hashes

# Why a row is dropped, in the order in which one is looked for.
REASONS = (
    *("malformed", "no_label", "empty_text", "control_characters", "too_long"),
    *("conflicting_label", "duplicate", "rare_class"),
)
# In the syntax of RE2.
SPACE = r"\s\p{Z}\x0b\x{85}"
INVISIBLE = r"\p{Cf}\x{115F}\x{1160}\x{3164}\x{FFA0}\x{2800}"  # zero-width, bidi, fillers
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"  # but for tab and line ends
# Lists, tuples and sets of strings, as Python, NumPy and JSON print them.
ITEM = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
LIST = re.compile(rf"[\[({{]\s*(?:(?:{ITEM})[\s,]*)+[\])}}]", re.DOTALL)
FEW = 20  # texts, below which their labels may all differ

Codes = npt.NDArray[np.int32]
Reasons = npt.NDArray[np.uint8]  # 0 for a row that is kept, else 1 + its place in REASONS


@dataclass(frozen=True)
class Rules:
    """The treatment of a row that has too much or too little."""

    max_characters: int
    strip: bool
    stop_without_label: bool


def _code(reason: str) -> int:
    return REASONS.index(reason) + 1


def strip_control_characters(columns: dict[str, pa.Array]) -> int:
    """Take control characters out of texts and labels; return how many of these had some."""
    stripped = 0
    for column in ("text", "label"):
        found = pc.match_substring_regex(columns[column], CONTROL)
        if count := pc.sum(found).as_py():
            stripped += count
            columns[column] = pc.replace_substring_regex(columns[column], CONTROL, "")
    return stripped


def judge(
    columns: Mapping[str, pa.Array], reasons: Reasons, rules: Rules, where: Callable[[int], str]
) -> None:
    """Note why rows can't be kept, each by itself.

    Args:
        columns: ``text`` and ``label`` among them.
        reasons: of each row; those that have none yet may get one.
        rules: what is asked of them.
        where: names the place of a row.

    Raises:
        InputError: a row has no label, and the rules say that this stops.
    """
    text, label = columns["text"].fill_null(""), columns["label"].fill_null("")
    bad = {
        "no_label": pc.match_substring_regex(label, f"^[{SPACE}]*$"),
        "empty_text": pc.match_substring_regex(text, f"^[{SPACE}{INVISIBLE}]*$"),
        "control_characters": pc.or_(
            pc.match_substring_regex(text, CONTROL), pc.match_substring_regex(label, CONTROL)
        ),
        "too_long": pc.greater(pc.utf8_length(text), rules.max_characters),
    }
    for reason, found in bad.items():
        rows = found.to_numpy(zero_copy_only=False) & (reasons == 0)
        if reason == "no_label" and rules.stop_without_label and rows.any():
            raise InputError(
                f"{where(int(rows.argmax()))} has no label: add one, or set load.missing_labels to "
                "drop to leave such rows out."
            )
        reasons[rows] = _code(reason)


def drop_repeated(keys: Hashes, codes: Codes, reasons: Reasons, *, majority: bool) -> None:
    """Note rows that repeat another one, or that give its text another label.

    Of rows that are alike in all but the id the first is kept; of rows that are alike in all but id
    and label, none, or those of the label that most of them have. The same text in another file, in
    another language, or on another side of a split that the source makes, is another row.

    Args:
        keys: equal for rows that are alike in all but id and label.
        codes: of the labels.
        reasons: of each row; those that have none yet may get one.
        majority: whether a label that most rows of a text have wins.
    """
    for part in examples.partitions(keys):
        rows = part[reasons[part] == 0]
        if not len(rows):
            continue
        order = rows[np.lexsort((codes[rows], keys[rows]))]  # stable: the first row stays first
        new_text = np.diff(keys[order], prepend=~keys[order[:1]]) != 0
        new_pair = new_text | (np.diff(codes[order], prepend=-1) != 0)
        text, pair = np.cumsum(new_text) - 1, np.cumsum(new_pair) - 1  # numbers of both
        text_of_pair = text[new_pair]
        dropped = np.bincount(text_of_pair)[text] > 1
        if majority:
            rows_of_pair = np.bincount(pair)
            most = np.maximum.reduceat(rows_of_pair, np.flatnonzero(new_text[new_pair]))
            leads = rows_of_pair == most[text_of_pair]
            alone = np.bincount(text_of_pair, weights=leads)[text_of_pair] == 1
            dropped &= ~(leads & alone)[pair]
        reasons[order[~new_pair]] = _code("duplicate")
        reasons[order[dropped]] = _code("conflicting_label")


def drop_rare(codes: Codes, reasons: Reasons, fewest: int) -> None:
    """Note the rows of classes with fewer than ``fewest`` rows left."""
    counts = np.bincount(codes[reasons == 0], minlength=int(codes.max(initial=0)) + 1)
    reasons[(counts < fewest)[codes] & (reasons == 0)] = _code("rare_class")


def canonical(labels: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Give for each label the most frequent of those that differ from it in form alone."""
    variants: dict[str, list[int]] = {}
    for code, label in enumerate(labels):
        variants.setdefault(examples.fold(label), []).append(code)
    best = {form: max(codes, key=counts.__getitem__) for form, codes in variants.items()}
    return [labels[best[examples.fold(label)]] for label in labels]


def refuse_losses(counts: Mapping[str, Any], most: float, rejected: Path) -> None:
    """Stop if a larger share of the rows than ``most`` is dropped."""
    total, kept, dropped = counts["rows"], counts["kept"], counts["dropped"]
    if total - kept > most * total:
        found = ", ".join(f"{count} {reason}" for reason, count in dropped.items() if count)
        raise InputError(
            f"{total - kept} of {total} rows would be dropped ({found}), more than "
            f"load.max_dropped_fraction {most:g} allows: fix the rows that {rejected} lists, or "
            "raise it."
        )


def refuse_lists(labels: Iterable[str], column: str) -> None:
    """Stop if labels are lists as a program prints them, for a text has one label."""
    lists = [label for label in labels if LIST.fullmatch(label.strip())]
    several = next((one for one in lists if len(re.findall(ITEM, one)) > 1), "")
    if several:
        raise InputError(
            f"Column {column!r} has lists of labels, such as {several:.60}, and this pipeline "
            "takes one label a text: keep one of each, or give each combination a name of its own."
        )
    if lists:
        raise InputError(
            f"Column {column!r} has lists of one label each, such as {lists[0]:.60}: write the "
            "label alone, without brackets and quotes."
        )


def refuse_odd_classes(counts: Mapping[str, Any], column: str) -> None:
    """Stop if labels are lists, there is one class only, or nearly as many classes as texts."""
    classes, kept = counts["classes"], counts["kept"]
    refuse_lists(classes, column)
    if len(classes) < 2:
        raise InputError(
            f"Column {column!r} must have at least 2 classes, and has {len(classes)} in the {kept} "
            f"rows kept of {counts['rows']}: add texts of another class, or correct "
            "load.label_column."
        )
    if kept >= FEW and len(classes) > kept / 2:
        raise InputError(
            f"Column {column!r} has {len(classes)} classes in {kept} texts, so it may be a number "
            "or an id: correct load.label_column."
        )
