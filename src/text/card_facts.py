"""Read what a model card tells from the files of the stages before."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import dvc.api
import onnx
import pandas as pd
import pyarrow as pa
from onnx.helper import tensor_dtype_to_np_dtype

from src.core.errors import InputError
from src.core.markdown import public
from src.metrics import bootstrap
from src.metrics.classification import Floats
from src.predict.manifest import read_manifest
from src.tables import examples
from src.text.findings import Finding, sentence

# What other stages were told; DVC reads it, as it reads it for them.
SECTIONS = (
    *("load", "quality", "split", "baseline", "linear", "probe", "train", "evaluate", "compare"),
)
OF_WORDS = {"linear-onnx": "linear", "baseline-onnx": "baseline"}  # and what each was exported from
# Findings of quality that are about a checkpoint's tokenizer, which such a model does not have.
OF_TOKENS = ("over_max_length", "unknown_tokens", "letter_by_letter")


class Facts:
    """The results of the stages before, as the card of the model that is to be shipped tells them.

    Attributes:
        name: what the comparison calls the model.
        exported: its folder.
        of_words: the section of its params, if it is a model of TF-IDF features, else None.
        config: what the encoder's folder says of it; empty if there is none.
        weights: how many numbers it holds, by type.
        details: figures by class and by slice.
        reference: the model of TF-IDF that it is compared with: the forest for the regression, and
            the regression for all others.
    """

    def __init__(
        self,
        exported: Path,
        splits: Path,
        quality: Path,
        predictions: Path,
        judged: Path,
        compared: Path,
        training: Path,
    ) -> None:
        """Read the files; InputError if one is missing."""
        found = dvc.api.params_show("params.yaml")
        self.params: dict[str, dict[str, Any]] = {name: found[name] for name in SECTIONS}
        differences = _read_json(compared / "metrics.json")
        self.name: str = differences["ship"]
        self.exported = exported / self.name
        self.of_words = OF_WORDS.get(self.name)
        self.manifest = read_manifest(self.exported)
        self.config = {} if self.of_words else _read_json(self.exported / "config.json")
        self.weights = _weights(self.exported / "model.onnx")
        self.details = _read_json(judged / self.name / "details.json")
        self.splits = {split: splits / f"{split}.parquet" for split in examples.SPLITS}
        self.out_of_scope = splits / "out_of_scope.parquet"  # where there are such texts
        columns = ["label", *self.details["slices"]]
        self.counts: dict[str, pd.DataFrame] = {  # these columns of each split
            split: pa.concat_tables(examples.scan(path, columns)).to_pandas()
            for split, path in self.splits.items()
        }
        self.quality = _read_json(quality)  # the figures of the data
        self.warnings = [
            _public_sentence(finding)
            for finding in self.quality["findings"]
            if not (self.of_words and finding["code"] in OF_TOKENS)
        ]
        self.test: dict[str, float] = _read_json(judged / self.name / "metrics.json")["test"]
        trained = _read_json(training / "metrics.json")
        self.step: int = trained["step"]  # whose weights these are
        self.last_step: int = trained["last_step"]  # that there would have been
        self.predictions = examples.read(predictions / self.name / "predictions.parquet")
        self.reference = "baseline" if self.of_words == "linear" else "linear"
        self.reference_test: dict[str, float]
        self.reference_test = _read_json(judged / self.reference / "metrics.json")["test"]
        other = examples.read(predictions / self.reference / "predictions.parquet")
        self.differences = self._drawn(other)
        self.answers: dict[str, float] = differences.get(self.name, {})  # what becomes of min_score

    @property
    def scores(self) -> Any:
        """The probability of the label of each test text."""
        columns = [c for c in map(str, self.predictions) if c.startswith("p_")]
        return self.predictions[columns].max(axis=1)

    @property
    def right(self) -> Any:
        """The test texts that got their true label, as booleans."""
        return self.predictions["label"] == self.predictions["predicted"]

    def _drawn(self, other: pd.DataFrame) -> dict[str, Floats]:
        """Return the differences of its scores from another's, each time texts are drawn anew."""
        shares = [column for column in map(str, self.predictions) if column.startswith("p_")]
        labels = [column.removeprefix("p_") for column in shares]
        true = examples.label_ids(self.predictions, labels)
        given = [
            examples.label_ids(frame.assign(label=frame["predicted"]), labels)
            for frame in (self.predictions, other)
        ]
        drawing = (self.params["compare"][key] for key in ("resamples", "seed"))
        scores = bootstrap.bootstrap(true, given, len(labels), *drawing)
        return {key: found[0] - found[1] for key, found in scores.items()}


def _read_json(path: Path) -> Any:
    if not path.exists():
        raise InputError(f"{path} is missing: run `dvc repro` first.")
    return json.loads(path.read_text(encoding="utf-8"))


def _public_sentence(finding: Finding) -> str:
    """Say a finding without what the path of a checkpoint tells of a user."""
    shown = {"checkpoint": public(finding["checkpoint"])} if "checkpoint" in finding else {}
    return sentence(finding | shown)


def _weights(path: Path) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for weight in onnx.load(path).graph.initializer:
        counts[tensor_dtype_to_np_dtype(weight.data_type).name] += math.prod(weight.dims)
    return {
        kind: count for kind, count in counts.most_common() if count > sum(counts.values()) / 100
    }
