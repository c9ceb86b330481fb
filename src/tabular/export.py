"""Export a model of a table to ONNX: a folder that is read without scikit-learn, and no pickle."""

import logging
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.compute as pc
from dvclive.live import Live

from src.core import stage
from src.core.command_line import Interval
from src.core.errors import InputError
from src.core.files import replacing, write_json
from src.predict.manifest import write_table_manifest
from src.predict.records import Records
from src.tables import examples
from src.tables.schema import Column, Schema
from src.tabular import features, graph, models
from src.tabular.decision import Decision

log = logging.getLogger("src.tabular.export")


def main(
    splits: Path,
    model: Path,
    decided: Path,
    exported: Path,
    live: Path,
    *,
    max_probability_difference: Annotated[float, Interval(ge=0, le=1)],
) -> None:
    """Write the model folder, and stop unless it decides for each test row as scikit-learn does.

    Args:
        splits: the folder with ``test.parquet``, whose rows are compared, ``train.parquet``, whose
            values say what is usual, and ``schema.json``.
        model: the folder with ``model.joblib``.
        decided: what ``decide`` made of its probabilities.
        exported: the folder that gets the ONNX model, the schema, the threshold, and a record of
            usual values.
        live: the folder that gets the metrics.
    """
    schema, names = Schema.read(splits / "schema.json"), examples.read_labels(splits)
    pipeline, decision = models.load(model, names), Decision.read(decided)
    table = pa.concat_tables(examples.scan(splits / "test.parquet"))
    expected = decision.calibrated(pipeline.predict_proba(features.frame(schema, table)))
    positive = schema.positive_of(names)
    with replacing(exported) as folder:
        folder.mkdir()
        onnx.save(graph.build(pipeline, schema, decision, len(names)), folder / "model.onnx")
        schema.write(folder / "schema.json")
        train = pa.concat_tables(examples.scan(splits / "train.parquet"))
        usual = {c.name: _usual(c, train[c.name].combine_chunks()) for c in schema.columns}
        write_json(folder / "usual.json", usual)
        write_table_manifest(
            folder, labels=names, positive=schema.positive, threshold=decision.threshold
        )
        records = Records(folder, threads=1)
        columns = {c.name: table[c.name].combine_chunks() for c in schema.columns}
        inputs, _ = records.features(columns, len(table))
        found = records.probabilities(inputs)
        difference = float(np.abs(found - expected).max())
        labels = [names[k] for k in decision.labels(expected, positive)]
        said = [answer.label for answer in records.answers(found)]
        equal = float(np.mean([a == b for a, b in zip(said, labels, strict=True)]))
        log.info("probabilities within %.2g of scikit-learn's, %.4f of labels", difference, equal)
        if difference > max_probability_difference or equal < 1:
            raise InputError(
                f"{exported.name} gives probabilities up to {difference:.2g} from scikit-learn's "
                f"on the {len(table)} test rows, and its label to {equal:.4f} of them: raise "
                "export.max_probability_difference if that is near enough; labels must be equal."
            )
        with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
            record.log_metric("max_probability_difference", difference, plot=False)
            record.log_metric("equal_labels", equal, plot=False)


def _usual(column: Column, values: pa.Array) -> Any:
    """Return the middle of numbers and dates, and the most frequent of other values, as JSON."""
    there = values.drop_null()
    if not len(there):
        return None
    if column.kind in ("number", "date"):
        middle = there[pc.array_sort_indices(there)[len(there) // 2].as_py()].as_py()
        return middle if column.kind == "number" else middle.isoformat()
    counts = pc.value_counts(there).to_pylist()
    return min(counts, key=lambda one: (-one["counts"], one["values"]))["values"]


if __name__ == "__main__":
    stage.run(main)
