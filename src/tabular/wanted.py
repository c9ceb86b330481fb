"""The columns and labels that the params of load name."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from src.core.errors import InputError, closest
from src.tables.columns import refuse_one_column
from src.tables.schema import ID, WORDS, Kind

MANY = 100  # labels, beyond which they are no classes
FEW = 20  # rows, below which their labels may all differ


@dataclass(frozen=True)
class Wanted:
    """The columns that the params name."""

    target: str
    ids: str  # "" to number the rows
    keep: Sequence[str]  # all if it is empty
    drop: Sequence[str]
    fixed: Mapping[str, Kind]

    def check(self, header: Sequence[str], name: str) -> None:
        """Stop if one is not in the table, or has two roles."""
        every = {
            "target": [self.target],
            "id_column": [self.ids] if self.ids else [],
            "keep": self.keep,
            "drop": self.drop,
            "types": [*self.fixed],
        }
        for key, columns in every.items():
            for column in columns:
                if column not in header:
                    refuse_one_column(column, header, name)
                    raise InputError(
                        f"{name} has no column {column!r}, but {', '.join(map(repr, header))}"
                        f"{closest(column, header)}: correct load.{key}."
                    )
        for key in ("keep", "drop"):
            if self.target in every[key]:
                raise InputError(
                    f"load.{key} has {self.target!r}, which is load.target: take it out of one."
                )
        if ID in (self.target, *self.features(header)):
            raise InputError(
                f"{name} has a column {ID!r}, as the one of the rows' names is called here: rename "
                "it, name it in load.id_column, or add it to load.drop."
            )
        if both := {*self.keep} & {*self.drop}:
            raise InputError(f"load.keep and load.drop both have {min(both)!r}: keep it in one.")

    def features(self, header: Sequence[str]) -> list[str]:
        """List the columns that models may read; one without a name is none."""
        others = {self.target, *self.drop} | ({self.ids} if self.ids else set())
        return [n for n in header if n and n not in others and (not self.keep or n in self.keep)]


def refuse_odd_labels(labels: Collection[str], target: str, rows: int) -> None:
    """Stop if labels are amounts or texts and no classes."""
    labels = sorted(filter(None, labels))
    if len(labels) > MANY or (rows >= FEW and len(labels) > rows / 2):
        raise InputError(
            f"Column {target!r} has {len(labels)} different values, such as {labels[0]!r} and "
            f"{labels[-1]!r}, which are no classes: correct load.target; this pipeline tells "
            "classes, not amounts."
        )


def positive_of(labels: Sequence[str], named: str) -> str:
    """Return the label that is looked for, "" if there are more than two."""
    if named and named not in labels:
        raise InputError(
            f"load.positive is {named!r}, which no row has: choose among {', '.join(labels)}"
            f"{closest(named, labels)}."
        )
    if len(labels) != 2:
        if named:
            raise InputError(
                f"load.positive is {named!r}, but there are {len(labels)} labels: set it to ''."
            )
        return ""
    by_word = {label.casefold(): label for label in labels}
    pair = next((pair for pair in (("0", "1"), *WORDS) if {*pair} == {*by_word}), None)
    if not named and not pair:
        raise InputError(
            f"The labels are {labels[0]!r} and {labels[1]!r}: set load.positive to the one that is "
            "looked for, such as a fraud."
        )
    return named or by_word[pair[1]] if pair else named
