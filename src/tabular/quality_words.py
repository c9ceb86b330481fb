"""Faults that a table likely has: a code and values for programs, a sentence for people."""

from collections.abc import Callable, Mapping
from typing import Any

# A JSON object: "code", and the values that the sentence of this code is made of.
Finding = dict[str, Any]


def _listed(columns: Mapping[str, float], form: str) -> str:
    """Name columns with their figures, the largest first."""
    ordered = sorted(columns.items(), key=lambda one: -one[1])
    return ", ".join(f"{name!r} {value:{form}}" for name, value in ordered)


# By code; a finding has the values that its sentence takes, and no others.
SENTENCES: dict[str, Callable[..., str]] = {
    "tells_label": lambda columns: (
        f"Columns each of which tells the label alone (ROC AUC): {_listed(columns, '.3f')}. If one "
        "is known only after the label, add it to load.drop."
    ),
    "drift": lambda columns: (
        "Columns with other values in the test rows than in the training rows (population "
        f"stability index): {_listed(columns, '.2f')}. What was learnt from them may not hold."
    ),
    "missing": lambda column, share: (
        f"Column {column!r} has no value in {100 * share:.1f} % of the rows."
    ),
    "imbalance": lambda largest, smallest, times: (
        f"The label {largest!r} has {times:.0f} times the rows of {smallest!r}: accuracy says "
        "nothing then, so look at average precision, and set decide.threshold by what a miss costs."
    ),
    "repeated": lambda side, rows, share: (
        f"Rows of {side} that equal one of an earlier side in all columns: {rows} "
        f"({100 * share:.1f} %); on them a model need only remember."
    ),
}


def sentence(finding: Mapping[str, Any]) -> str:
    """Say a finding in words, as plain text."""
    return SENTENCES[finding["code"]](**{k: v for k, v in finding.items() if k != "code"})
