"""What is told of a table before anything is trained on it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import TABULAR, make_table

from src.tabular import load, quality, split

LIMITS: dict[str, Any] = {
    "leak_auc": 0.85,
    "max_drift": 0.25,
    "max_missing": 0.3,
    "max_imbalance": 10,
}


def looked_at(frame: pd.DataFrame, folder: Path, **division: Any) -> tuple[dict[str, Any], str]:
    frame.to_csv(folder / "x.csv", index=False)
    params = TABULAR["load"] | {"source": [str(folder / "x.csv")]}
    load.main(folder, folder / "raw", folder / "rejected.csv", **params)
    split.main(folder / "raw", folder / "splits", **TABULAR["split"] | division)
    places = folder / "raw", folder / "splits", folder / "quality.json", folder / "quality.md"
    quality.main(*places, **LIMITS)
    return json.loads(places[2].read_text()), places[3].read_text()


def finding(found: dict[str, Any], code: str) -> dict[str, Any] | None:
    return next((one for one in found["findings"] if one["code"] == code), None)


HASHED = {"strategy": "hash", "column": ""}


def test_a_column_that_is_known_after_the_label_is_named(tmp_path: Path) -> None:
    frame = make_table(900)
    draw = np.random.default_rng(1)
    frame["amount"] = draw.normal(0, 1, 900).round(3)  # which tells nothing then
    fraud = frame["fraud"] == 1
    # A middle value, which no straight line finds, and words that few rows have.
    frame["duration"] = np.where(fraud, draw.normal(0, 0.1, 900), draw.choice([-5, 5], 900))
    frame["outcome"] = np.where(fraud, "charged back", draw.choice(["fine", "open"], 900))
    found, page = looked_at(frame, tmp_path, **HASHED)
    told = finding(found, "tells_label")
    assert told
    assert set(told["columns"]) == {"duration", "outcome"}
    assert found["auc"]["shop"] < 0.75
    assert "known only after the label, add it to load.drop" in page


def test_markup_of_a_label_means_nothing_on_the_page(tmp_path: Path) -> None:
    frame = make_table(900)
    frame["income"] = [1e9 if k % 100 == 0 else k % 7 for k in range(900)]
    markup = "<script>alert(1)</script>|`x`[a](javascript:1)"
    frame["fraud"] = np.where(frame["fraud"] == 1, "rare", markup)
    params = TABULAR["load"] | {"positive": "rare"}
    frame.to_csv(tmp_path / "x.csv", index=False)
    params |= {"source": [str(tmp_path / "x.csv")]}
    load.main(tmp_path, tmp_path / "raw", tmp_path / "rejected.csv", **params)
    split.main(tmp_path / "raw", tmp_path / "splits", **TABULAR["split"] | HASHED)
    places = tmp_path / "raw", tmp_path / "splits", tmp_path / "q.json", tmp_path / "q.md"
    quality.main(*places, **LIMITS | {"max_imbalance": 2})
    found, page = json.loads(places[2].read_text()), places[3].read_text()
    assert 0.005 < found["outliers"]["income"] < 0.02, "of one in a hundred"
    assert found["distinct"]["member"] == 2
    assert found["distinct"]["country"] == frame["country"].nunique()
    told = [line for line in page.splitlines() if line.startswith("- ") and "script" in line]
    assert told
    for line in told:
        assert r"\<script\>alert(1)" in line
        assert "[a](" not in line.replace(r"\]", "").replace(r"[a\](", "")
    (row,) = [line for line in page.splitlines() if line.startswith("| `<script>")]
    assert row.startswith("| `<script>alert(1)</script>¦'x'[a](javascript:1)` | ")


def test_values_that_are_missing_drift_or_repeat_are_named(tmp_path: Path) -> None:
    frame = make_table(900)
    frame["rate"] = np.r_[np.random.default_rng(2).normal(0, 1, 600), [7.0] * 300]
    frame.loc[::2, "income"] = "NA"
    found, page = looked_at(frame, tmp_path, strategy="time", column="opened")
    drift = finding(found, "drift")
    assert drift
    assert set(drift["columns"]) == {"rate"}
    missing = finding(found, "missing")
    assert missing
    assert (missing["column"], round(missing["share"], 2)) == ("income", 0.55)
    imbalance = finding(found, "imbalance")
    assert imbalance
    assert imbalance["largest"] == "0"
    assert imbalance["times"] == pytest.approx(19, abs=1)
    assert finding(found, "repeated") is None
    assert "Column 'income' has no value in 5" in page
    again = frame.assign(opened=frame["opened"])
    own = frame.columns.drop("opened")
    again.loc[880:, own] = again.loc[:19, own].to_numpy()
    (tmp_path / "again").mkdir()
    found, _ = looked_at(again, tmp_path / "again", strategy="time", column="opened")
    repeated = finding(found, "repeated")
    assert repeated
    assert (repeated["side"], repeated["rows"]) == ("test", 20)
    assert found["repeated_validation_rows"] == 0


def test_nothing_is_said_of_a_table_that_is_well(tmp_path: Path) -> None:
    frame = make_table(900)
    draw = np.random.default_rng(3)
    frame["amount"] = draw.normal(0, 1, 900).round(3)
    frame["fraud"] = (frame["amount"] + draw.normal(0, 2, 900) > 0).astype(int)
    found, page = looked_at(frame, tmp_path, **HASHED)
    assert found["findings"] == []
    assert "What to look at" not in page
    assert found["classes"].keys() == {"0", "1"}
    assert 0.5 < found["auc"]["amount"] < 0.9
