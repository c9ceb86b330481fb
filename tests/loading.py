"""The stage load, called on files of the current folder: its rows, or the sentence it ends with."""

import bz2
import gzip
import json
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from backports import zstd
from conftest import LOAD

from src.core.errors import InputError
from src.tables import examples
from src.text import load

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd.compress,
}


def here(name: str = "x.csv") -> str:
    """The name that messages give a file of the current folder."""
    return str(Path(name).resolve())


def loaded(*source: str, **params: Any) -> pd.DataFrame:
    """The rows that are kept; whatever is dropped is counted and named."""
    params = LOAD | {"source": list(source), "max_dropped_fraction": 1.0} | params
    load.main(Path("watched"), Path("raw"), Path("rejected.csv"), **params)
    counts = json.loads(Path("raw/counts.json").read_text())
    kept = examples.read(Path("raw/examples.parquet"))
    assert counts["rows"] == counts["kept"] + sum(counts["dropped"].values())
    assert counts["kept"] == len(kept) == sum(counts["classes"].values())
    assert sum(counts["dropped"].values()) == len(rejected())
    return kept


def rejected() -> list[list[str]]:
    """File, line, reason and text of each dropped row."""
    rows = pd.read_csv("rejected.csv", dtype=str, keep_default_na=False)
    return rows[["file", "line", "reason", "text"]].to_numpy().tolist()


def refused(*source: str, **params: Any) -> str:
    """The sentence that load ends with; no output is left."""
    shutil.rmtree("raw", ignore_errors=True)
    Path("rejected.csv").unlink(missing_ok=True)
    with pytest.raises(InputError) as raised:
        loaded(*source, **params)
    assert not Path("raw").exists()
    assert not list(Path().glob(".load.*"))
    return str(raised.value)
