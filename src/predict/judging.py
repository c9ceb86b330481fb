"""Rows of a batch that can be scored, and the others told apart."""

from collections.abc import Callable, Mapping

from src.predict.scoring import Inputs, Reading, Values
from src.tables.lines import Broken


def judged(
    wanted: Reading,
    columns: Mapping[str, Values],
    rows: int,
    place: Callable[[int], tuple[int, str]],
) -> tuple[Inputs, list[bool], list[Broken]]:
    """Return what is scored of some rows, which rows that are, and the others.

    Args:
        wanted: what is scored of rows.
        columns: their values.
        rows: how many there are.
        place: returns the line of a row, and the row as it stands there; it is asked for those
            alone that can't be scored.
    """
    inputs, reasons = wanted.take(columns, rows)
    broken = []
    for row, reason in enumerate(reasons):
        if reason:
            line, source = place(row)
            broken.append(Broken.of(line, reason, source))
    return inputs, [not reason for reason in reasons], broken
