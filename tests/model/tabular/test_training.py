"""Params of the models of tables that change what is learnt, each by what it does."""

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from tabular_model import PARAMS, make_splits

from src.core.errors import InputError
from src.tables.schema import Schema
from src.tabular import boosting, decide, export, features, forest, linear

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no pipeline of tables")

STAGES = {"linear": linear, "forest": forest, "boosting": boosting}
SMALL = {"linear": {}, "forest": {"n_estimators": 10}, "boosting": {"max_iter": 20}}


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_splits(tmp_path_factory.mktemp("two"), 600) / "splits"


@pytest.fixture(scope="module")
def of_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_splits(tmp_path_factory.mktemp("three"), 600, labels=3) / "splits"


def train(name: str, splits: Path, folder: Path, **changes: Any) -> Any:
    params = PARAMS[name] | SMALL[name] | changes
    STAGES[name].main(splits, folder / "model", folder / "live", **params)
    return joblib.load(folder / "model/model.joblib")


def export_model(splits: Path, folder: Path) -> None:
    """Export what was trained; it stops unless ONNX decides as scikit-learn does."""
    decision = folder / "decision.json"
    decide.main(splits, folder / "model", decision, folder / "live", **PARAMS["decide"])
    words = splits, folder / "model", decision, folder / "exported", folder / "live"
    export.main(*words, **PARAMS["export"])


def rows(splits: Path) -> pd.DataFrame:
    schema = Schema.read(splits / "schema.json")
    return features.read(
        splits, "train", schema, json.loads((splits / "labels.json").read_text())
    ).features


@pytest.mark.parametrize("name", STAGES)
def test_a_weight_is_that_of_a_positive_row(name: str, splits: Path, tmp_path: Path) -> None:
    means = [
        train(name, splits, tmp_path, class_weight=weight).predict_proba(rows(splits))[:, 1].mean()
        for weight in (0.1, "none", 20.0)
    ]
    assert means[0] < means[1] < means[2]
    export_model(splits, tmp_path)


@pytest.mark.parametrize("name", STAGES)
def test_a_weight_needs_a_positive_label(name: str, of_three: Path, tmp_path: Path) -> None:
    told = rf"{name}\.class_weight is 20, the weight of the positive label, and there are 3 labels"
    with pytest.raises(InputError, match=told):
        train(name, of_three, tmp_path, class_weight=20.0)
    train(name, of_three, tmp_path, class_weight="balanced")


def test_the_share_of_an_l1_penalty_sets_weights_to_0(splits: Path, tmp_path: Path) -> None:
    zeros = [
        (train("linear", splits, tmp_path, C=0.05, **way)["classify"].coef_ == 0).sum()
        for way in ({"solver": "saga", "l1_ratio": 1.0}, {"solver": "saga"}, {})
    ]
    assert zeros[0] > 10 > zeros[1] == zeros[2]
    by_hessian = train("linear", splits, tmp_path, solver="newton-cholesky")
    default = train("linear", splits, tmp_path)
    shares = [one.predict_proba(rows(splits)) for one in (by_hessian, default)]
    assert shares[0] == pytest.approx(shares[1], abs=0.01)
    told = r"linear\.l1_ratio is 0\.5, and linear\.solver lbfgs knows no L1 penalty"
    with pytest.raises(InputError, match=told):
        train("linear", splits, tmp_path, l1_ratio=0.5)


@pytest.mark.parametrize("direction", [1, -1])
@pytest.mark.parametrize("positive", ["0", "1"])
def test_a_probability_goes_one_way_with_a_column(
    direction: int, positive: str, tmp_path: Path
) -> None:
    splits = make_splits(tmp_path, 600, positive=positive) / "splits"
    words = [f"amount {direction}"]
    pipeline = train("boosting", splits, tmp_path, monotonic_cst=words, min_samples_leaf=5)
    frame = rows(splits).iloc[[0] * 200].assign(amount=np.linspace(0, 300, 200))
    steps = np.diff(pipeline.predict_proba(frame)[:, int(positive)])
    assert (direction * steps >= 0).all()
    if (direction == 1) == (positive == "1"):  # frauds are of large amounts
        assert (direction * steps > 0).any()
    export_model(splits, tmp_path)


def test_a_direction_that_is_none_is_refused(splits: Path, of_three: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="monotonic_cst has 'amount' twice: take one"):
        train("boosting", splits, tmp_path, monotonic_cst=["amount 1", "amount -1"])
    for entry, hint in (("amounts 1", "amount"), ("amount up", ""), ("country 1", ""), ("1", "")):
        with pytest.raises(InputError) as caught:
            train("boosting", splits, tmp_path, monotonic_cst=[entry])
        told = f"boosting.monotonic_cst has {entry!r}: write a column of numbers (of a date"
        assert str(caught.value).startswith(told)
        assert (f"did you mean {hint!r}" in str(caught.value)) == bool(hint)
    with pytest.raises(InputError, match="about the positive label, and there are 3 labels"):
        train("boosting", of_three, tmp_path, monotonic_cst=["amount 1"])
