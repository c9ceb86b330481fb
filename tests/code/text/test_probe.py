"""The head that a frozen encoder gets, and what becomes of it in training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import apart, digest, probed
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from src.metrics import classification
from src.metrics.calibration import temperature
from src.tables import examples
from src.text import encoder, probe, train
from src.text.encoder import Texts

pytestmark = pytest.mark.slow


def load(checkpoint: Path, classes: int, pooling: Any) -> tuple[Any, Any]:
    return encoder.load(str(checkpoint), new_head=True, pooling=pooling, num_labels=classes)


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize(("classes", "class_weight"), [(2, "none"), (3, "balanced")])
def test_the_head_is_a_logistic_regression_on_what_it_reads(
    classes: int, class_weight: str, pooling: str, checkpoint: Path, splits: Path
) -> None:
    frame = examples.read(splits / "train.parquet")
    labels = examples.label_ids(frame, examples.read_labels(splits))
    frame, labels = frame[labels < classes].iloc[30:], labels[labels < classes][30:]
    model, tokenizer = load(checkpoint, classes, pooling)
    ids = encoder.tokenize(tokenizer, list(frame["text"]), 16, 1000)
    held_out = Texts(ids[::3], labels[::3])
    found = probe.fit_head(
        model, model.classifier, Texts(ids, labels), held_out, 0, [10.0], class_weight
    )
    vectors = probe.vectors_of(model, model.classifier, ids, 0)
    if pooling == "mean":
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
    weights = None if class_weight == "none" else class_weight
    scale = np.sqrt(((vectors - vectors.mean(axis=0)) ** 2).sum(axis=1).mean())
    expected = LogisticRegression(C=10, max_iter=1000, class_weight=weights)
    expected.fit((vectors - vectors.mean(axis=0)) / scale, labels)
    with torch.inference_mode():
        logits = model.eval()(**encoder.collate(ids, 0)).logits
    assert logits[::3].numpy() == pytest.approx(found, rel=1e-3, abs=1e-3)
    scores = expected.predict_log_proba((vectors - vectors.mean(axis=0)) / scale)
    shares = softmax(scores / temperature(labels[::3], scores[::3]), axis=1)
    assert logits.softmax(1).numpy() == pytest.approx(shares, abs=1e-3)
    assert (logits.argmax(1).numpy() == labels).mean() > 0.9


@pytest.mark.parametrize("C", [[1e-4, 10.0], [10.0, 1e-4]])
def test_the_validation_texts_choose_among_several(
    C: list[float],  # noqa: N803
    checkpoint: Path,
    splits: Path,
) -> None:
    frame = examples.read(splits / "train.parquet")
    labels = examples.label_ids(frame, examples.read_labels(splits))
    losses = {}
    for several in (C, C[:1], C[1:]):
        model, tokenizer = load(checkpoint, 3, "mean")
        ids = encoder.tokenize(tokenizer, list(frame["text"]), 16, 1000)
        texts, held_out = Texts(ids[::2], labels[::2]), Texts(ids[1::2], labels[1::2])
        logits = probe.fit_head(model, model.classifier, texts, held_out, 0, several, "none")
        shares = softmax(logits, axis=1)
        found = encoder.logits_of(model, held_out.ids, 0, 64)
        assert found == pytest.approx(logits, rel=1e-3, abs=1e-3), "the weights of the chosen one"
        losses[tuple(several)] = classification.summary(held_out.labels, shares)["log_loss"]
    assert losses[10.0,] < losses[1e-4,] - 0.01
    assert losses[tuple(C)] == losses[10.0,]


def test_a_probe_of_some_texts_has_all_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MOST", 20)
    ids = [np.array([2, 3], np.int32)] * 300
    texts = probe._spread(Texts(ids, np.array([0] * 298 + [1, 2])))
    assert len(texts) <= 22
    assert set(texts.labels) == {0, 1, 2}


def test_the_stage_leaves_a_model_that_is_calibrated_and_equal_to_itself(
    splits: Path, checkpoint: Path, tmp_path: Path
) -> None:
    model = probed(splits, tmp_path / "one", checkpoint)
    assert digest(model) == digest(probed(splits, tmp_path / "other", checkpoint))
    validation = examples.read(splits / "validation.parquet")
    labels = examples.label_ids(validation, examples.read_labels(splits))
    logits = encoder.TorchClassifier(model, threads=1).logits(list(validation["text"]), 64)
    assert temperature(labels, logits.astype(float)) == pytest.approx(1, rel=0.01)
    found = json.loads((model.parent / "live/metrics.json").read_text())["validation"]
    assert found == pytest.approx(classification.summary(labels, softmax(logits, 1)), abs=1e-5)
    assert found["accuracy"] > 0.8
    record = json.loads(model.with_name("model.json").read_text())
    assert record["params"]["checkpoint"] == str(checkpoint)


def test_training_that_makes_it_worse_keeps_it(
    splits: Path, checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start = probed(splits, tmp_path / "out", checkpoint)
    _, params = apart({"lr": 0.9, "epochs": 1})
    train.main(splits, start, tmp_path / "out/model", tmp_path / "out/live", **params)
    assert "no epoch was better than the probe, whose weights are kept" in caplog.text
    assert digest(tmp_path / "out/model") == digest(start)
    before = json.loads((start.parent / "live/metrics.json").read_text())["validation"]
    after = json.loads((tmp_path / "out/live/metrics.json").read_text())
    assert after["step"] == 0
    assert {key: after["validation"][key] for key in before} == pytest.approx(before, abs=1e-5)


def test_training_begins_with_it(splits: Path, checkpoint: Path, tmp_path: Path) -> None:
    start = probed(splits, tmp_path / "out", checkpoint)
    _, params = apart({"lr": 1e-12, "epochs": 1, "shortcuts": False})
    train.main(splits, start, tmp_path / "out/model", tmp_path / "out/live", **params)
    lines = (tmp_path / "out/live/plots/metrics/validation/log_loss.tsv").read_text().split()
    before = json.loads((start.parent / "live/metrics.json").read_text())["validation"]
    assert lines[2] == "0"
    assert [float(lines[3]), float(lines[5])] == pytest.approx([before["log_loss"]] * 2, abs=1e-5)
