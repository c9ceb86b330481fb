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
from src.predict.manifest import read_manifest
from src.tables import examples
from src.text.findings import Finding, sentence

# What other stages were told; DVC reads it, as it reads it for them.
SECTIONS = ("load", "quality", "split", "probe", "train", "evaluate", "compare")


class Facts:
    """The results of the stages before, as a card tells them."""

    def __init__(
        self,
        exported: Path,
        splits: Path,
        quality: Path,
        predictions: Path,
        results: Path,
        reference: Path,
        compared: Path,
        training: Path,
    ) -> None:
        """Read the files; InputError if one is missing, or the model was not compared."""
        found = dvc.api.params_show("params.yaml")
        self.params: dict[str, dict[str, Any]] = {name: found[name] for name in SECTIONS}
        self.manifest = read_manifest(exported)
        self.config = _read_json(exported / "config.json")  # the encoder's
        self.weights = _weights(exported / "model.onnx")  # how many numbers it holds, by type
        self.details = _read_json(results / "details.json")  # figures by class and by slice
        self.splits = {split: splits / f"{split}.parquet" for split in examples.SPLITS}
        self.out_of_scope = splits / "out_of_scope.parquet"  # where there are such texts
        columns = ["label", *self.details["slices"]]
        self.counts: dict[str, pd.DataFrame] = {  # these columns of each split
            split: pa.concat_tables(examples.scan(path, columns)).to_pandas()
            for split, path in self.splits.items()
        }
        self.quality = _read_json(quality)  # the figures of the data
        self.warnings = [_public_sentence(finding) for finding in self.quality["findings"]]
        self.test: dict[str, float] = _read_json(results / "metrics.json")["test"]
        trained = _read_json(training / "metrics.json")
        self.step: int = trained["step"]  # whose weights these are
        self.last_step: int = trained["last_step"]  # that there would have been
        self.predictions = examples.read(predictions / "predictions.parquet")
        self.reference = reference.name, _read_json(reference / "metrics.json")["test"]
        differences = _read_json(compared / "metrics.json")
        if results.name not in differences:
            others = ", ".join(sorted(differences.keys() - {"ship"}))
            raise InputError(
                f"{compared / 'metrics.json'} has no comparison of {results.name}, only of "
                f"{others}: run `dvc repro compare` with it."
            )
        self.difference: dict[str, float] = differences[results.name]

    @property
    def scores(self) -> Any:
        """The probability of the label of each test text."""
        columns = [c for c in map(str, self.predictions) if c.startswith("p_")]
        return self.predictions[columns].max(axis=1)

    @property
    def right(self) -> Any:
        """The test texts that got their true label, as booleans."""
        return self.predictions["label"] == self.predictions["predicted"]


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
