"""What models read of the rows of a split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from src.metrics.classification import Integers
from src.tables import examples
from src.tables.schema import ID, Kind, Schema, features_of

NUMBERS: tuple[Kind, ...] = ("number", "boolean", "date")  # kinds that models read as numbers


@dataclass(frozen=True)
class Rows:
    """The rows of one side of the split."""

    ids: list[str]
    labels: Integers  # the place of each row's label in ``labels.json``, [rows]
    features: pd.DataFrame  # numbers as float64, NaN for none; categories as strings, "" for none


def read(splits: Path, side: examples.Split, schema: Schema, names: list[str]) -> Rows:
    """Read a side of the split; InputError if it isn't there.

    Args:
        splits: the folder with ``train validation test .parquet``.
        side: one of these.
        schema: of the columns.
        names: the labels, in the order of the models' outputs.
    """
    table = pa.concat_tables(examples.scan(splits / f"{side}.parquet"))
    labels = table.select([schema.target]).rename_columns(["label"]).to_pandas()
    return Rows(table[ID].to_pylist(), examples.label_ids(labels, names), frame(schema, table))


def frame(schema: Schema, table: pa.Table) -> pd.DataFrame:
    """Turn typed columns into what models read, in the order of the schema."""
    arrays: dict[str, npt.NDArray[Any]] = {}
    for column in schema.columns:
        arrays |= features_of(column, table[column.name].combine_chunks())
    return pd.DataFrame(arrays)
