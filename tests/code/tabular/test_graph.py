"""A model of a table as a graph of ONNX gives what scikit-learn gives."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from src.tables.schema import Column, Schema, Writing
from src.tabular import decision, graph, training
from src.tabular.decision import Decision

PARAMS: dict[str, Any] = {
    "fill": "median",
    "missing_indicator": True,
    "min_frequency": 5,
    "max_categories": 6,
}


def columns(*kinds: str) -> tuple[Column, ...]:
    """Columns with names that a graph might use itself."""
    every = (
        Column("_0", "number"),
        Column("probabilities", "number"),
        Column("town of birth", "category"),
        Column("__", "category"),
        Column("opened", "date"),
        Column("member", "boolean"),
    )
    return tuple(column for column in every if column.kind in kinds)


def schema_of(*kinds: str) -> Schema:
    return Schema("y", "", Writing((), ".", ()), columns(*kinds), {})


def frame_of(schema: Schema, rows: int, seed: int, new: bool = False) -> pd.DataFrame:
    """Rows with values that are missing, rare and, if they are to be, new."""
    draw = np.random.default_rng(seed)
    found: dict[str, Any] = {}
    for column in schema.columns:
        for name in column.features:
            if column.kind == "category":
                letters = [f"{name}{k}" for k in range(12)] + ["", "?"] + ["new"] * new
                odds = 1 / np.arange(1, len(letters) + 1)
                found[name] = draw.choice(letters, rows, p=odds / odds.sum())
                continue
            values = draw.normal(0, 10, rows).round(int(draw.integers(0, 4)))
            found[name] = np.where(draw.random(rows) < 0.1, np.nan, values)
    return pd.DataFrame(found)


def labels_of(frame: pd.DataFrame, classes: int) -> np.ndarray:
    draw = np.random.default_rng(7)
    score = draw.normal(0, 0.5, len(frame))
    for name in frame:
        values = frame[name]
        told = values.str.len() % 3 if values.dtype.kind == "O" or values.dtype == "str" else values
        score = score + np.nan_to_num(np.asarray(told, np.float64)) / 5
    return np.searchsorted(np.quantile(score, np.arange(1, classes) / classes), score)


def prepared(
    folder: Path, schema: Schema, kind: str, params: dict[str, Any]
) -> tuple[ColumnTransformer, Any]:
    schema.write(folder / "schema.json")
    if kind == "boosting":
        preparation, categorical = training.ordinal(folder, params)
        return preparation, HistGradientBoostingClassifier(
            max_iter=20, categorical_features=categorical, random_state=1, early_stopping=False
        )
    preparation = training.one_hot(folder, params, scale=kind == "linear")
    if kind == "linear":
        return preparation, LogisticRegression(max_iter=500)
    return preparation, RandomForestClassifier(20, random_state=1)


def run(model: onnx.ModelProto, frame: pd.DataFrame) -> np.ndarray:
    onnx.checker.check_model(model)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    feed = {}
    for one in session.get_inputs():
        assert one.shape == ["rows", 1]
        kind = object if one.type == "tensor(string)" else np.float64
        feed[one.name] = frame[[one.name]].to_numpy(dtype=kind)
    found: np.ndarray = session.run(None, feed)[0]
    return found


EVERY = ("number", "category", "date", "boolean")


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("method", ["none", "sigmoid", "isotonic"])
@pytest.mark.parametrize("kind", ["linear", "forest", "boosting"])
def test_probabilities_are_those_of_scikit_learn(
    kind: str, method: decision.Method, classes: int, tmp_path: Path
) -> None:
    check(kind, method, classes, EVERY, {}, tmp_path)


@pytest.mark.parametrize(
    ("kinds", "changes"),
    [
        (("number",), {"missing_indicator": False, "fill": "mean"}),
        (("category",), {"min_frequency": 1, "max_categories": 50}),
        (("category", "number"), {"max_categories": 2}),
    ],
)
@pytest.mark.parametrize("kind", ["linear", "forest", "boosting"])
def test_of_any_columns(
    kind: str, kinds: tuple[str, ...], changes: dict[str, Any], tmp_path: Path
) -> None:
    check(kind, "none", 2, kinds, changes, tmp_path)


def check(
    kind: str,
    method: decision.Method,
    classes: int,
    kinds: tuple[str, ...],
    changes: dict[str, Any],
    tmp_path: Path,
) -> None:
    schema = schema_of(*kinds)
    train = frame_of(schema, 600, 1)
    labels = labels_of(train, classes)
    preparation, classifier = prepared(tmp_path, schema, kind, PARAMS | changes)
    pipeline = Pipeline([("prepare", preparation), ("classify", classifier)]).fit(train, labels)
    held = frame_of(schema, 400, 2)
    curves = decision.fit(method, labels_of(held, classes), pipeline.predict_proba(held))
    made = Decision(method, curves, 0.0, 1.0, 1.0)
    test = frame_of(schema, 1000, 3, new=True)
    expected = made.calibrated(pipeline.predict_proba(test))
    model = graph.build(pipeline, schema, made, classes)
    found = run(model, test)
    assert found == pytest.approx(expected, abs=1e-12)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).all()
    assert len({*expected[:, 0].tolist()}) > 5, "it tells rows apart"
    again = graph.build(pipeline, schema, made, classes)
    assert again.SerializeToString() == model.SerializeToString()
