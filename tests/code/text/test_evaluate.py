"""Texts that no label fits, and texts that get no label, as evaluate tells of them."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import ROOT, SPLIT, make_texts
from ruamel.yaml import YAML

from src.metrics import selective
from src.tables import examples
from src.text import evaluate, linear, split

WRITTEN: dict[str, dict[str, Any]] = YAML(typ="safe").load(ROOT / "params.yaml")


@pytest.mark.parametrize("scope", [[], ["film"]])
def test_what_the_model_does_not_know_is_told(scope: list[str], tmp_path: Path) -> None:
    frame = pd.DataFrame(make_texts(120)).assign(id=[str(k) for k in range(120)])
    examples.write(frame, tmp_path / "examples.parquet")
    split.main(tmp_path, tmp_path / "splits", **SPLIT | {"out_of_scope": scope})
    linear.main(tmp_path / "splits", tmp_path / "model", tmp_path / "fit", **WRITTEN["linear"])
    changes = WRITTEN["evaluate"] | {"resamples": 50}
    places = (tmp_path / "splits", tmp_path / "model", tmp_path / "said", tmp_path / "live")
    evaluate.main(*places, **changes)
    test = json.loads((tmp_path / "live" / "metrics.json").read_text())["test"]
    said = examples.read(tmp_path / "said" / "predictions.parquet")
    shares = [column for column in map(str, said) if column.startswith("p_")]
    surest = said[shares].max(axis=1).to_numpy()
    right = (said["label"] == said["predicted"]).to_numpy()
    assert test["aurc"] == selective.area_under_risk_coverage(right, surest)
    curve = json.loads((tmp_path / "live/plots/custom/risk_coverage.json").read_text())
    assert float(curve[-1]["coverage"]) == 1
    assert float(curve[-1]["risk"]) == pytest.approx(1 - test["accuracy"])
    file = tmp_path / "said" / "out_of_scope.parquet"
    assert file.exists() == bool(scope) == ("out_of_scope_auroc" in test)
    if scope:
        assert shares == ["p_money", "p_sport"]
        unknown = examples.read(file)
        assert set(unknown["label"]) == {"film"}
        assert len(unknown) == sum(frame["label"] == "film")
        expected = selective.separation(surest, unknown["score"].to_numpy())
        assert test["out_of_scope_auroc"] == expected > 0.9
