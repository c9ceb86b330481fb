"""Models of texts and of tables, and readers, as the queue scores by them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from src.core.errors import InputError
from src.predict.classifier import Classifier
from src.predict.engines import EngineOption
from src.predict.manifest import kind_of
from src.predict.reader.manifest import is_reader
from src.predict.reader.model import Reader
from src.predict.reader.windows import Window

if TYPE_CHECKING:
    from src.predict.records import Records  # which needs more than texts do


class TextScorer:
    """A classifier of texts, as ``batching.Scorer``."""

    outputs_type = "float32"

    def __init__(self, classifier: Classifier) -> None:
        """Score texts by ``classifier``."""
        self.labels = classifier.labels
        self.fields: Sequence[str] = classifier.fields
        self.encode = classifier.encode
        self.score = classifier.score
        self._longest = classifier.max_length

    def work_of(self, item: str) -> float:
        """Estimate the tokens of a text before it is tokenized."""
        return min(self._longest, 2 + len(item) / 4)


class RecordScorer:
    """A model of tables, as ``batching.Scorer``: an item has the values of all features."""

    outputs_type = "float64"

    def __init__(self, records: "Records") -> None:
        """Score records by ``records``."""
        self.labels = records.labels
        self.fields = records.fields
        self._records = records
        texts = records.schema.features("category")
        names = records.schema.features("number", "category", "boolean", "date")
        self._types = {name: object if name in texts else np.float64 for name in names}

    def items(self, features: Mapping[str, npt.NDArray[Any]]) -> list[tuple[Any, ...]]:
        """Return the values of each record, as the queue takes them."""
        return list(zip(*(features[name].tolist() for name in self._types), strict=True))

    def work_of(self, item: Sequence[Any]) -> float:
        """Count the values of a record."""
        return len(item)

    def encode(self, items: Sequence[Any]) -> tuple[list[Sequence[Any]], list[bool]]:
        """Return the items, which need nothing more."""
        return [*items], [False] * len(items)

    def score(self, rows: Sequence[Any], batch_tokens: int) -> npt.NDArray[np.float64]:
        """Score records: their probabilities."""
        columns = zip(*rows, strict=True)
        found = zip(self._types.items(), columns, strict=True)
        return self._records.probabilities(
            {name: np.array(values, kind) for (name, kind), values in found}
        )


class ReaderScorer:
    """A reader, as ``batching.Scorer``: an item is a window, which gets an array of its logits."""

    outputs_type = "object"

    def __init__(self, reader: Reader) -> None:
        """Read by ``reader``."""
        self.labels = ["logits"]
        self.fields: Sequence[str] = ("text", "score", "probability")
        self._reader = reader

    def work_of(self, item: Window) -> float:
        """Count the tokens of a window."""
        return len(item.ids)

    def encode(self, items: Sequence[Window]) -> tuple[list[Any], list[bool]]:
        """Return the tokens, which are all that is read."""
        return [item.ids for item in items], [False] * len(items)

    def score(self, rows: Sequence[Any], batch_tokens: int) -> npt.NDArray[Any]:
        """Read windows: [windows, 1], each of them [tokens, 2]."""
        found = np.empty((len(rows), 1), dtype=object)
        found[:, 0] = self._reader.read(rows, batch_tokens)
        return found


def load(
    folder: Path, threads: int, engine: EngineOption, min_score: float | Literal["model"]
) -> "Classifier | Records | Reader":
    """Load a model of texts or of tables, or a reader.

    Raises:
        InputError: it is no model folder, a file in it is not the one of its manifest, or it is one
            of tables and what reads these is not installed.
    """
    if is_reader(folder):
        return Reader(folder, threads, engine)
    if kind_of(folder) == "text":
        return Classifier(folder, threads, engine, min_score)
    try:
        from src.predict.records import Records
    except ImportError as error:
        raise InputError(
            f"{folder} is a model of tables, which needs packages that texts do without ({error}): "
            "`pip install pyarrow fsspec`."
        ) from None
    return Records(folder, threads)
