"""What scores the rows of a table, and counts of what becomes of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from src.tables.lines import Broken
from src.tables.places import Place

# Values of a column of a batch: texts of CSV, values of JSON, or an array of parquet.
Values = Any
Inputs = Any  # what a model scores, of some rows
Outputs = npt.NDArray[np.floating[Any]]  # of a model, [rows, classes]
Probabilities = npt.NDArray[np.float64]


class Scores(NamedTuple):
    """The outputs of a batch, how many of its texts were cut, and the node that computed them."""

    outputs: Outputs
    cut: int
    worker: str


Submit = Callable[[Inputs, int], Callable[[], Scores]]  # starts to score rows; its result waits


@dataclass
class Counts:
    """The rows that a run has read, scored, rejected, cut, given no label, and found scored."""

    read: int = 0
    scored: int = 0
    rejected: int = 0
    truncated: int = 0
    unanswered: int = 0
    resumed: int = 0


@dataclass
class Batch:
    """Rows that can be scored, and those between them that can't.

    Attributes:
        inputs: what is scored, of each row.
        count: how many rows these are.
        rows: the columns of the input; of JSON lines that stay such, the lines as they are.
        rejected: what can't be scored.
        read: how many rows were read, before any was judged.
        lines: on which line each that can be scored begins, or of parquet its number; none where
            columns of CSV are read at once.
    """

    inputs: Inputs
    count: int
    rows: pa.Table | list[str]
    rejected: list[Broken]
    read: int
    lines: list[int] = field(default_factory=list)


@dataclass
class Input:
    """A table that is being read.

    Attributes:
        columns: the names of its columns; of JSON lines, those of the first batch.
        schema: what ``rows`` of each batch have; none where they are lines.
        batches: all of it, once.
        rows: how many rows it has, where that is known.
        share: how much of it has been read, from 0 to 1, where that is known.
    """

    columns: list[str]
    schema: pa.Schema | None
    batches: Iterator[Batch]
    rows: int | None
    share: Callable[[], float | None]


class Reading(Protocol):
    """What is scored of the rows of a table.

    Attributes:
        shown: the column by which a row of parquet that is rejected can be known; "" for none.
        columns: the names of those that are scored.
        columnar: whether it takes columns of CSV as arrays of Arrow, in batches maybe shorter.
    """

    shown: str
    columns: list[str]
    columnar: bool

    def refuse_columns(self, found: Sequence[str], place: Place, types: pa.Schema | None) -> None:
        """Stop if a table lacks a column, or has it of a type that is never what is wanted.

        Args:
            found: the columns.
            place: of the table, for the message.
            types: of parquet, the types.
        """

    def take(self, columns: Mapping[str, Values], rows: int) -> tuple[Inputs, list[str]]:
        """Return what is to be scored, of the rows that can be, and why each row can't be or ""."""


class Work(Reading, Protocol):
    """A model that scores the rows of a table.

    Attributes:
        rows: of a batch at most.
        labels: the name of each class, in the order of the outputs.
        fields: the columns that it adds to each row, "label" the first.
        computing: all that outputs depend on, but for the rows and the processor.
        outputs_type: of the numbers that it gives, float32 or float64.
        truncates: how much of a row it reads, to be told where rows were cut.
    """

    rows: int
    labels: list[str]
    fields: Sequence[str]
    computing: dict[str, Any]
    outputs_type: str
    truncates: str

    def digest(self, inputs: Inputs) -> bytes:
        """Return 32 bytes that tell these inputs from others."""

    def score(self, inputs: Inputs, worker: str = "") -> Scores:
        """Score inputs."""

    def shares(self, outputs: Outputs) -> Probabilities:
        """Turn outputs into probabilities [rows, classes]."""

    def answers(self, shares: Probabilities) -> Sequence[Any]:
        """Return an answer for each row, whose attributes are ``fields``."""

    def notes(self, counts: Counts) -> list[str]:
        """Return lines for the end of the log."""


def score_here(work: Work) -> Submit:
    """Return what scores rows in this process, when their scores are asked for."""
    return lambda inputs, _: lambda: work.score(inputs)
