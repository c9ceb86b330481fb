"""Models of tables: verdicts beside a reference, and what is not exported."""

import json
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tabular_model import PARAMS, make_table_model

from src.core.errors import InputError
from src.core.files import write_json
from src.metrics import imbalance
from src.predict.records import Records
from src.tabular import compare, export, forest

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no pipeline of tables")

ROWS = 600


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table_model(tmp_path_factory.mktemp("made"), 600)


def judged(folder: Path, name: str, scores: np.ndarray, labels: np.ndarray) -> Path:
    """What `evaluate` leaves of a model, which decides by 0.5."""
    shares = np.stack([1 - scores, scores], axis=1)
    decided = (scores >= 0.5).astype(int)
    figures = imbalance.ranking(labels, shares, 1) | imbalance.decided(labels, decided, 1)
    (folder / "judged" / name).mkdir(parents=True)
    found = {"test": figures, "validation": figures, "bytes": 1000}
    write_json(folder / "judged" / name / "metrics.json", found)
    place = folder / "predictions" / name
    place.mkdir(parents=True)
    frame = pd.DataFrame({"id": [str(k) for k in range(ROWS)], "label": labels.astype(str)})
    frame["predicted"] = decided.astype(str)
    frame["p_0"], frame["p_1"] = 1 - scores, scores
    frame.to_parquet(place / "predictions.parquet")
    return place


def test_models_are_better_worse_or_not_told_apart(made: Path, tmp_path: Path) -> None:
    draw = np.random.default_rng(7)
    labels = (draw.random(ROWS) < 0.15).astype(int)
    noise = draw.normal(size=(3, ROWS))

    def scores(signal: float, noise: np.ndarray) -> np.ndarray:
        found: np.ndarray = 1 / (1 + np.exp(-(signal * labels - 1 + noise)))
        return found

    reference = scores(2.0, noise[0])
    models = {
        "forest": reference,
        "twin": reference,
        "sharp": scores(8.0, noise[1]),
        "guess": scores(0.0, noise[2]),
    }
    places = [judged(tmp_path, name, found, labels) for name, found in models.items()]
    params: dict[str, Any] = {"reference": "forest", "metric": "average_precision"}
    params |= {"resamples": 400, "confidence": 0.95, "seed": 1}
    compare.main(made / "splits", tmp_path / "judged", tmp_path / "live", *places, **params)
    lines = (tmp_path / "live/comparison.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    verdicts = {row[0]: row[-1] for row in cells[2:]}
    assert verdicts["forest"] == ""
    assert verdicts["twin"] == "no real difference: +0.0000, p = 1.000"
    assert verdicts["sharp"].startswith("better: +0.")
    assert verdicts["guess"].startswith("worse: -0.")
    found = json.loads((tmp_path / "live/metrics.json").read_text())
    assert found["best"] == "sharp"
    for name, least in (("sharp", 0.0), ("guess", -1.0)):
        told = {
            key: found[name][f"average_precision_difference_{key}"]
            for key in ("low", "high", "p_value")
        }
        assert least < told["low"] < told["high"] < least + 1
        assert f"p = {told['p_value']:.3f}" in verdicts[name]


@pytest.mark.parametrize(
    ("most", "change", "told"),
    [
        (1e-6, lambda shares: shares + 1e-3, "up to 0.001 from scikit-learn's on the"),
        (1.0, lambda shares: 1 - shares, "labels must be equal"),
    ],
)
def test_a_graph_that_is_another_model_is_not_exported(
    most: float, change: Any, told: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Records.probabilities
    monkeypatch.setattr(Records, "probabilities", lambda *words: change(right(*words)))
    words = made / "splits", made / "forest", made / "decision.json", tmp_path / "model"
    with pytest.raises(InputError, match=told):
        export.main(*words, tmp_path / "live", max_probability_difference=most)
    assert not (tmp_path / "model").exists()


def test_a_share_of_the_rows_is_drawn_for_each_tree(made: Path, tmp_path: Path) -> None:
    params = PARAMS["forest"] | {"n_estimators": 5, "max_samples": 0.05}
    forest.main(made / "splits", tmp_path / "model", tmp_path / "live", **params)
    trees = joblib.load(tmp_path / "model/model.joblib")[-1]
    rows = len(trees.estimators_samples_[0])
    assert rows == int(0.05 * pq.read_metadata(made / "splits/train.parquet").num_rows)
    with pytest.raises(InputError, match=r"forest\.max_samples is 0\.05, and without forest\.boot"):
        forest.main(
            *(made / "splits", tmp_path / "other", tmp_path / "live"),
            **params | {"bootstrap": False},
        )
