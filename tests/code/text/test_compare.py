"""Which model is to be shipped, and what the comparison says of the others."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from src.core.errors import InputError
from src.tables import examples
from src.text import compare
from src.text.choice import SHOWN

TEXTS = 200
VALIDATION = 1000
PARAMS: dict[str, Any] = {
    "models": ["forest", "large", "onnx-int8"],
    "metric": "accuracy",
    "margin": 0.005,
    "min_score": 0.0,
    "resamples": 500,
    "confidence": 0.95,
    "seed": 1,
}
# Mistakes in 200 test texts, accuracy on the validation texts and bytes of each model.
FOUND = {
    "linear": (30, 0.85, 1_000_000),
    "forest": (34, 0.83, 4_000_000),
    "large": (10, 0.95, 90_000_000),
    "onnx-int8": (10, 0.948, 23_000_000),
}


def run(folder: Path, found: dict[str, tuple[int, float, int]], **changes: Any) -> tuple[Any, str]:
    """Compare models of these mistakes; return the metrics and the page."""
    labels = np.where(np.arange(TEXTS) % 2, "sport", "film")
    for name, (mistakes, validated, size) in found.items():
        wrong = np.where(labels == "sport", "film", "sport")
        predicted = np.where(np.arange(TEXTS) < mistakes, wrong, labels)
        frame = pd.DataFrame({"id": [str(k) for k in range(TEXTS)], "label": labels})
        frame = frame.assign(predicted=predicted, p_film=0.5, p_sport=0.5)
        (folder / "predictions" / name).mkdir(parents=True)
        if name != "linear":
            (folder / "exported" / name).mkdir(parents=True)
        examples.write(frame, folder / "predictions" / name / "predictions.parquet")
        checked = pd.DataFrame({"id": [str(k) for k in range(VALIDATION)], "label": "film"})
        checked.loc[::2, "label"] = "sport"
        right = np.arange(VALIDATION) >= round((1 - validated) * VALIDATION)
        other = checked["label"].map({"film": "sport", "sport": "film"})
        checked["predicted"] = checked["label"].where(right, other)
        examples.write(checked, folder / "predictions" / name / "validation.parquet")
        accuracy = 1 - mistakes / TEXTS
        test = {"accuracy": accuracy, "macro_f1": accuracy, "log_loss": 0.5, "ece": 0.1}
        validation = {"accuracy": validated, "macro_f1": validated, "log_loss": 1 - validated}
        figures = {"test": test, "validation": validation, "bytes": size}
        (folder / "judged" / name).mkdir(parents=True)
        (folder / "judged" / name / "metrics.json").write_text(json.dumps(figures))
    trained(folder, 20)
    predictions = [folder / "predictions" / name for name in found]
    compare.main(*places(folder), *predictions, **PARAMS | changes)
    page = (folder / "live" / "comparison.md").read_text()
    return json.loads((folder / "live" / "metrics.json").read_text()), page


def trained(folder: Path, step: int) -> None:
    """Leave the record of a training of 30 steps, of which this one was the best."""
    (folder / "train").mkdir(exist_ok=True)
    record = {"step": step, "last_step": 30}
    (folder / "train/metrics.json").write_text(json.dumps(record))


def places(folder: Path) -> list[Path]:
    return [folder / name for name in ("judged", "train", "exported", "live")]


def advice(page: str) -> str:
    return " ".join(page.split(f"{TEXTS} test texts")[0].split())


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_the_smallest_of_the_best_is_shipped(metric: str, tmp_path: Path) -> None:
    metrics, page = run(tmp_path, FOUND, metric=metric)
    assert metrics["ship"] == "onnx-int8"
    assert advice(page) == (
        f"Ship onnx-int8: its {SHOWN[metric]} on the 1000 validation texts, 0.9480, is "
        "within 0.005 (compare.margin) of the best, 0.9500 of large, which is 3.9 times as large "
        "(these texts don't tell the two apart, p = 0.259). On the test texts no model is shown to "
        "be better."
    )
    rows = {row.split("|")[1].strip(): row for row in page.splitlines() if row.startswith("|")}
    assert "accuracy minus onnx-int8's" in rows["model"]
    assert "-0.1000 (" in rows["linear"]
    assert "+0.0000 (+0.0000 to +0.0000), p = 1.000" in rows["large"]
    assert rows["onnx-int8"].split("|")[-2].strip() == ""
    assert rows["onnx-int8"].split("|")[2].strip() == "23.0"
    assert set(metrics) - {"ship"} == {"forest", "large", "onnx-int8"}, "against the first"
    assert metrics["large"]["accuracy_difference_low"] > 0
    assert metrics["forest"]["accuracy_difference_high"] < 0.01


def test_of_equal_models_the_smallest_is_the_best(tmp_path: Path) -> None:
    found = {"large": (10, 0.95, 90_000_000), "onnx-int8": (10, 0.95, 9)}
    found["small"] = (30, 0.949, 1)
    _, page = run(tmp_path, found, models=[*found])
    assert "the best, 0.9500 of onnx-int8, which is 9.0 times as large" in advice(page)
    assert "| 1e-06 |" in page, "sizes are never 0"


def test_a_training_that_was_still_getting_better_is_told(tmp_path: Path) -> None:
    _, page = run(tmp_path, FOUND)
    assert compare.UNFINISHED not in page
    predictions = [tmp_path / "predictions" / name for name in FOUND]
    trained(tmp_path, 30)
    compare.main(*places(tmp_path), *predictions, **PARAMS)
    again = (tmp_path / "live" / "comparison.md").read_text()
    assert again.replace(f"{compare.UNFINISHED}\n\n", "") == page
    assert advice(again).endswith(compare.UNFINISHED)


def test_a_margin_of_0_takes_the_best(tmp_path: Path) -> None:
    metrics, page = run(tmp_path, FOUND, margin=0.0)
    assert metrics["ship"] == "large"
    assert advice(page) == (
        "Ship large: none of compare.models has a higher accuracy on the 1000 validation texts, "
        "0.9500, and it is the smallest that has it; next is onnx-int8 with 0.9480 (these texts "
        "don't tell the two apart, p = 0.259). On the test texts no model is shown to be better. "
        "onnx-int8 is 3.9 times smaller, and not shown to be worse (accuracy +0.0000, p = 1.000)."
    )


def test_a_model_that_is_named_is_shipped_whatever_the_others_are(tmp_path: Path) -> None:
    metrics, page = run(tmp_path, FOUND, models=["forest"])
    assert metrics["ship"] == "forest"
    assert advice(page) == (
        "Ship forest, the one that compare.models names (its accuracy on the 1000 validation "
        "texts, 0.8300). On the test texts large is shown to be better (accuracy +0.1200, "
        "p = 0.004), and likewise onnx-int8, linear."
    )


def test_what_the_test_texts_show_against_the_choice_is_said(tmp_path: Path) -> None:
    found = {"linear-onnx": (10, 0.9, 10_000), "large": (30, 0.95, 9_000_000)}
    metrics, page = run(tmp_path, found, models=[*found])
    assert metrics["ship"] == "large"
    assert (
        "On the test texts linear-onnx is shown to be better (accuracy +0.1000, p = 0.004). "
        "linear-onnx is 900 times smaller, and not shown to be worse"
    ) in advice(page)


@pytest.mark.parametrize("name", ["onnx-int", "linear"])
def test_a_model_that_is_not_exported_and_judged_can_not_be_shipped(
    name: str, tmp_path: Path
) -> None:
    said = f"{name!r}, which is not both exported and judged: choose among forest, large, onnx-int8"
    with pytest.raises(InputError, match=said):
        run(tmp_path, FOUND, models=[name])


def test_some_model_has_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"^compare\.models is empty: name what may be shipped, forest, "
    ):
        run(tmp_path, FOUND, models=[])


def test_models_that_were_judged_on_other_texts_are_not_compared(tmp_path: Path) -> None:
    run(tmp_path, FOUND)
    file = tmp_path / "predictions" / "large" / "predictions.parquet"
    examples.write(examples.read(file).iloc[::-1].reset_index(drop=True), file)
    names = ["onnx-int8", "large"]
    predictions = [tmp_path / "predictions" / name for name in names]
    with pytest.raises(InputError, match="of onnx-int8 and large are not of the same texts"):
        compare.main(*places(tmp_path), *predictions, **PARAMS | {"models": names})


def test_what_a_least_score_leaves_without_an_answer_is_told(tmp_path: Path) -> None:
    run(tmp_path, FOUND)
    sure = np.where(np.arange(TEXTS) < 150, 0.9, 0.4)
    for name in FOUND:
        folder = tmp_path / "predictions" / name
        frame = examples.read(folder / "predictions.parquet")
        examples.write(frame.assign(p_film=sure), folder / "predictions.parquet")
        if name != "forest":
            unknown = pd.DataFrame({"id": ["x", "y", "z"], "score": [0.8, 0.5, 0.7]})
            examples.write(unknown, folder / "out_of_scope.parquet")
    predictions = [tmp_path / "predictions" / name for name in FOUND]
    changes = PARAMS | {"min_score": 0.8}
    compare.main(*places(tmp_path), *predictions, **changes)
    metrics = json.loads((tmp_path / "live" / "metrics.json").read_text())
    assert metrics["linear"] == pytest.approx(
        {"coverage": 0.75, "answered_accuracy": 0.8, "out_of_scope_coverage": 1 / 3}
    )
    assert metrics["forest"]["coverage"] == 0.75
    assert "out_of_scope_coverage" not in metrics["forest"]
    page = (tmp_path / "live" / "comparison.md").read_text()
    rows = [row.split("|") for row in page.splitlines() if row.startswith("|")]
    named = dict(zip(map(str.strip, rows[0]), map(str.strip, rows[2]), strict=True))
    assert named["model"] == "linear"
    assert named["answered"] == "0.7500"
    assert named["accuracy of these"] == "0.8000"
    assert named["out of scope, answered"] == "0.3333"
    assert "A label is given from a score of 0.8 (compare.min_score) on" in page
    changes["min_score"] = 0.95
    compare.main(*places(tmp_path), *predictions, **changes)
    metrics = json.loads((tmp_path / "live" / "metrics.json").read_text())
    assert metrics["linear"] == {"coverage": 0, "out_of_scope_coverage": 0}
