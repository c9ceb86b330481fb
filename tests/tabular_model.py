"""A small model of tables, for tests of prediction and of the server."""

from pathlib import Path
from typing import Any

import pandas as pd
from conftest import ROOT, TABULAR, make_table
from ruamel.yaml import YAML

from src.tabular import decide, export, forest, load, split

FILE = ROOT / "tabular/params.yaml"
OWN: dict[str, Any] = YAML(typ="safe").load(FILE) if FILE.exists() else {}
PARAMS = {name: section | TABULAR.get(name, {}) for name, section in OWN.items()}

Row = dict[str, Any]


def make_splits(folder: Path, rows: int, labels: int = 2, positive: str = "") -> Path:
    """Leave a source x.csv in a folder, its rows in raw, and their division in splits."""
    frame = make_table(rows)
    if labels == 3:
        frame["fraud"] = pd.qcut(frame["amount"], 3, labels=["low", "middle", "high"])
    frame.to_csv(folder / "x.csv", index=False)
    source = TABULAR["load"] | {"source": [str(folder / "x.csv")], "positive": positive}
    load.main(folder, folder / "raw", folder / "rejected.csv", **source)
    division = TABULAR["split"] | {"strategy": "hash", "column": ""}
    split.main(folder / "raw", folder / "splits", **division)
    return folder


def make_table_model(folder: Path, rows: int, labels: int = 2) -> Path:
    """Leave what ``make_splits`` does, and a forest's exported model in model."""
    make_splits(folder, rows, labels)
    live, splits = folder / "live", folder / "splits"
    forest.main(splits, folder / "forest", live, **PARAMS["forest"] | {"n_estimators": 20})
    decide.main(splits, folder / "forest", folder / "decision.json", live, **PARAMS["decide"])
    words = splits, folder / "forest", folder / "decision.json", folder / "model", live
    export.main(*words, **PARAMS["export"])
    return folder


def table(made: Path) -> pd.DataFrame:
    return pd.read_csv(made / "x.csv", dtype=str, keep_default_na=False)


def typed(made: Path) -> list[Row]:
    """The rows as JSON has them: numbers, booleans and null."""
    rows: list[Any] = table(made).to_dict("records")
    for row in rows:
        row["amount"] = float(row["amount"])
        row["income"] = None if row["income"] == "NA" else float(row["income"])
        row["member"] = row["member"] == "yes"
    return rows
