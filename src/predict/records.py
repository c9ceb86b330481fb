"""A model of tables at work: a row is a record, each of whose values is read by the schema."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from src.core.errors import InputError, closest
from src.predict.classifier import RecordAnswer
from src.predict.engines import Engine, EngineOption, start
from src.predict.foreign import json_object, refusing, verified
from src.predict.manifest import read_table_manifest
from src.predict.record_values import Features, RecordReader
from src.predict.scoring import Counts, Outputs, Probabilities, Scores, Values
from src.tables.places import Place
from src.tables.schema import STORED, Column, Schema


class Records:
    """A folder of a model of tables, as ``scoring.Work``.

    Attributes:
        manifest: what ``manifest.json`` held.
        schema: of the columns that it reads.
        positive: the label that is looked for, "" where there are more than two.
        threshold: the least probability of that label for it to be decided for.
        usual: a record of usual values, by column.
    """

    rows = 4096
    outputs_type = "float64"
    fields: Sequence[str] = RecordAnswer._fields
    truncates = shown = ""
    columnar = True

    def __init__(
        self,
        folder: Path,
        threads: int,
        engine: EngineOption = "auto",
        threshold: float | Literal["model"] = "model",
    ) -> None:
        """Verify every file of ``folder``, load it, and try it on its usual record.

        Raises:
            InputError: as for ``classifier.Classifier``; or another engine than onnxruntime.
        """
        if engine not in ("auto", "onnxruntime"):
            raise InputError(
                f"--engine {engine} runs no models of tables: leave it out, as onnxruntime does."
            )
        self.manifest = manifest = read_table_manifest(folder)
        files = {name: verified(folder / name, sha) for name, sha in manifest["files"].items()}
        with refusing(f"{folder / 'schema.json'} is not a schema"):
            self.schema = Schema.parse(json_object(files["schema.json"], folder / "schema.json"))
        self.columns = [column.name for column in self.schema.columns]
        self.labels = manifest["labels"]
        self.positive = manifest["positive"]
        self.threshold = float(manifest["threshold"] if threshold == "model" else threshold)
        self._graph = folder / "model.onnx"
        self._session = start(self._graph, files["model.onnx"], threads)
        self._output = self._expect_ends()
        self.engine: Engine = "onnxruntime"
        import onnxruntime

        self.computing: dict[str, Any] = {
            "engine": self.engine,
            "threads": threads,
            "packages": [onnxruntime.__version__],
        }
        self.usual = json_object(files["usual.json"], folder / "usual.json")
        self._reader = RecordReader(self.schema)
        with refusing(f"{folder / 'usual.json'} is no record"):
            usual, reasons = self.features({name: [one] for name, one in self.usual.items()}, 1)
        if reasons[0] or self.usual.keys() != {column.name for column in self.schema.columns}:
            raise InputError(
                f"{folder / 'usual.json'} is no record of the columns in schema.json "
                f"{reasons[0][:100]}: get the model again."
            )
        self.probabilities(usual)  # which also tries the graph
        self._usual = usual

    def _expect_ends(self) -> str:
        """Stop unless the graph reads the features of the schema; return the name of its output."""
        found = {one.name: one.type for one in self._session.get_inputs()}
        texts = self.schema.features("category")
        wanted = {
            name: "tensor(string)" if name in texts else "tensor(double)"
            for name in self.schema.features(*STORED)
        }
        outputs = [one.name for one in self._session.get_outputs()]
        if found != wanted or len(outputs) != 1:
            odd = sorted({*found.items()} ^ {*wanted.items()}) or outputs
            raise InputError(
                f"{self._graph} does not read what schema.json beside it names, such as "
                f"{str(odd[0])[:100]}: get the model again."
            )
        return str(outputs[0])

    def refuse_columns(self, found: Sequence[str], place: Place, types: pa.Schema | None) -> None:
        """Stop if a column that the model reads is not there."""
        lacking = [name for name in self.columns if name not in found]
        if lacking:
            more = f" and {len(lacking) - 1} more" * (len(lacking) > 1)
            raise InputError(
                f"{place} has no column {lacking[0]!r}{closest(lacking[0], found)}{more}, which "
                f"the model reads, but {', '.join(map(repr, found)) or 'none'}: name the columns "
                "as those that it was trained on, and leave values empty that are not known."
            )
        kinds = {one.name: one.type for one in types or ()}
        for name in self.columns if kinds else ():
            kind = kinds[name]
            try:
                pa.nulls(0, kind).cast(pa.string())
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise InputError(
                    f"{place} has {kind} in column {name!r}, which is no value of a record: save "
                    "it as numbers or strings."
                ) from None

    def take(self, columns: Mapping[str, Values], rows: int) -> tuple[Features, list[str]]:
        """Return the features of the rows that can be scored, and why each row can't be or ""."""
        features, reasons = self.features(columns, rows)
        if any(reasons):
            kept = np.array([not reason for reason in reasons])
            features = {name: values[kept] for name, values in features.items()}
        return features, reasons

    def features(self, columns: Mapping[str, Values], rows: int) -> tuple[Features, list[str]]:
        """Read what the model takes of columns, as ``RecordReader.features``."""
        return self._reader.features(columns, rows)

    def digest(self, inputs: Features) -> bytes:
        """Return 32 bytes that tell these features from others."""
        found = hashlib.sha256()
        for values in inputs.values():
            if values.dtype.kind == "f":
                found.update(values.tobytes())
            else:
                found.update(json.dumps(values.tolist()).encode())
        return found.digest()

    def score(self, inputs: Features, worker: str = "") -> Scores:
        """Score records."""
        return Scores(self.probabilities(inputs), 0, worker)

    def probabilities(self, features: Features) -> Probabilities:
        """Return calibrated probabilities [rows, classes].

        Raises:
            InputError: the graph fails, or gives anything but a probability for each label.
        """
        feed = {name: values.reshape(-1, 1) for name, values in features.items()}
        rows = len(next(iter(feed.values())))
        with refusing(f"{self._graph} can't score records"):
            found = np.asarray(self._session.run([self._output], feed)[0])
        if found.shape != (rows, len(self.labels)) or found.dtype != np.float64:
            raise InputError(
                f"{self._graph} gives {rows} records outputs of shape {list(found.shape)} and type "
                f"{found.dtype}, not {[rows, len(self.labels)]} and float64: get the model again."
            )
        if not ((found >= 0) & (found <= 1)).all():
            raise InputError(f"{self._graph} gives what are no probabilities: get the model again.")
        probabilities: Probabilities = found
        return probabilities

    def varied(self, record: Features, columns: Sequence[Column]) -> Features:
        """Return a record, and one for each of these columns, with the usual value there."""
        varied = {name: np.repeat(values, 1 + len(columns)) for name, values in record.items()}
        for row, column in enumerate(columns, 1):
            for name in column.features:
                varied[name][row] = self._usual[name][0]
        return varied

    def shares(self, outputs: Outputs) -> Probabilities:
        """Return the outputs, which are probabilities."""
        return outputs.astype(np.float64, copy=False)

    def answers(self, shares: Probabilities) -> list[RecordAnswer]:
        """Return an answer for each record."""
        if not self.positive:
            best = shares.argmax(axis=1).tolist()
            highest = shares.max(axis=1).tolist()
            return [RecordAnswer(self.labels[k], p) for k, p in zip(best, highest, strict=True)]
        place = self.labels.index(self.positive)
        other = self.labels[1 - place]
        return [
            RecordAnswer(self.positive if p >= self.threshold else other, p)
            for p in shares[:, place].tolist()
        ]

    def notes(self, counts: Counts) -> list[str]:
        """Say how labels were decided."""
        if not self.positive:
            return []
        return [f"{self.positive!r} from a probability of {self.threshold:.4g} on"]
