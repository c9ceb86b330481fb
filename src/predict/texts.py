"""A classifier of texts at work on the rows of a table."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from src.core.errors import InputError, closest
from src.predict.classifier import Answer, Classifier, softmax
from src.predict.engines import package_of
from src.predict.scoring import Counts, Outputs, Probabilities, Scores, Values
from src.tables.encodings import why_not_text
from src.tables.parquet_rows import is_text, strings
from src.tables.places import Place


class TextColumn:
    """The texts of a column, as ``scoring.Reading``."""

    columnar = False

    def __init__(self, column: str) -> None:
        """Read the texts of ``column``."""
        self.shown = column
        self.columns = [column]

    def refuse_columns(self, found: Sequence[str], place: Place, types: pa.Schema | None) -> None:
        """Stop if the column of the texts is not there, or holds something else."""
        column = self.shown
        if column not in found:
            raise InputError(
                f"{place} has no column {column!r}, but {', '.join(map(repr, found)) or 'none'}"
                f"{closest(column, found)}: set --text_column to the right one."
            )
        if types and not is_text(kind := types.field(column).type):
            raise InputError(
                f"{place} has {kind} in column {column!r}, which is not text: save it as strings, "
                "or set --text_column to another one."
            )

    def take(self, columns: Mapping[str, Values], rows: int) -> tuple[list[str], list[str]]:
        """Return the texts that can be scored, and why each row can't be or ""."""
        values = columns.get(self.shown, [])  # there is none among no rows
        values = strings(values) if isinstance(values, pa.Array) else values
        reasons = list(map(self._why_not, values))
        return [v for v, reason in zip(values, reasons, strict=True) if not reason], reasons

    def _why_not(self, text: Any) -> str:
        if text is None or (isinstance(text, str) and not text.strip()):
            return "no text"
        if not isinstance(text, str):
            return f"expected text in {self.shown!r}, found {json.dumps(text)[:40]}"
        return why_not_text(text)


class Texts(TextColumn):
    """A classifier of the texts of a column, as ``scoring.Work``."""

    rows = 512
    outputs_type = "float32"

    def __init__(
        self, classifier: Classifier, threads: int, batch_tokens: int, column: str = "text"
    ) -> None:
        """Score the texts of ``column`` in batches of ``batch_tokens`` tokens, padding included."""
        super().__init__(column)
        self.labels = classifier.labels
        self.fields: Sequence[str] = classifier.fields
        self.truncates = f"the model reads {classifier.max_length} tokens of a text"
        names = (package_of(classifier.engine), "tokenizers")
        self.computing: dict[str, Any] = {
            "engine": classifier.engine,
            "threads": threads,
            "batch_tokens": batch_tokens,
            "packages": [getattr(sys.modules.get(name), "__version__", "") for name in names],
        }
        self._classifier = classifier
        self._batch_tokens = batch_tokens

    def digest(self, inputs: list[str]) -> bytes:
        """Return 32 bytes that tell these texts from others."""
        found = hashlib.sha256()
        for text in inputs:
            raw = text.encode()
            found.update(len(raw).to_bytes(8, "little") + raw)
        return found.digest()

    def score(self, inputs: list[str], worker: str = "") -> Scores:
        """Score texts: their logits."""
        ids, cut = self._classifier.encode(inputs)
        return Scores(self._classifier.score(ids, self._batch_tokens), sum(cut), worker)

    def shares(self, outputs: Outputs) -> Probabilities:
        """Turn logits into probabilities."""
        return softmax(outputs.astype(np.float32, copy=False))

    def answers(self, shares: Probabilities) -> list[Answer]:
        """Return an answer for each row."""
        return self._classifier.answers(shares)

    def notes(self, counts: Counts) -> list[str]:
        """Say how many rows got no label, if any may get none."""
        least = self._classifier.min_score
        return [f"no label {counts.unanswered}, with a score below {least:g}"] if least > 0 else []
