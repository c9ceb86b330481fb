"""A classifier of the mean reads all tokens, and starts from what its checkpoint knows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TRAIN, make_checkpoint, probed
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from src.core.errors import InputError
from src.core.files import write_json
from src.text import encoder
from src.text.encoder import Texts
from src.text.pooling import MeanClassifier, Pooling, settle
from src.text.trainer import trainer_of

pytestmark = pytest.mark.slow


def load(checkpoint: Path, classes: int) -> tuple[MeanClassifier, Any]:
    torch.manual_seed(1)
    return encoder.load(str(checkpoint), new_head=True, pooling="mean", num_labels=classes)


SAID: dict[str, tuple[object, str]] = {
    "mean": ({"pooling_mode": "mean"}, "mean"),
    "flag of the mean": ({"pooling_mode_mean_tokens": True}, "mean"),
    "first": ({"pooling_mode": "cls"}, "first"),
    "flag of the first": (
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        "first",
    ),
    "several": ({"pooling_mode": ["cls", "mean"]}, "first"),
    "one of several": ({"pooling_mode": ["mean"]}, "mean"),
    "several flags": (
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True},
        "first",
    ),
    "nothing": (None, "first"),
}


@pytest.mark.parametrize(("said", "auto"), SAID.values(), ids=SAID)
def test_what_is_read_is_what_the_checkpoint_says_or_the_param(
    said: object, auto: str, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint")
    if said:
        (checkpoint / "1_Pooling").mkdir()
        write_json(checkpoint / "1_Pooling" / "config.json", said)
    poolings: tuple[Pooling, ...] = ("auto", "first", "mean")
    assert [settle(pooling, str(checkpoint)) for pooling in poolings] == [auto, "first", "mean"]
    model, _ = encoder.load(str(checkpoint), new_head=True, pooling=settle("auto", str(checkpoint)))
    assert isinstance(model, MeanClassifier) == (auto == "mean")


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "[" * 100_000])
def test_a_checkpoint_that_says_nothing_readable_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(content)
    with pytest.raises(InputError, match="is not as sentence-transformers writes it"):
        settle("auto", str(tmp_path))


def test_a_checkpoint_of_the_hub_that_can_not_be_asked_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether one on this machine says something is kept beside it, in the hub's own cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert settle("auto", "some/encoder") == "first"
    assert "Whether some/encoder has 1_Pooling/config.json can't be looked up" in caplog.text
    caplog.clear()
    folder = tmp_path / "models--some--encoder"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0")
    absent = folder / ".no_exist" / "0" / "1_Pooling"
    absent.mkdir(parents=True)
    (absent / "config.json").touch()
    assert settle("auto", "some/encoder") == "first"
    assert not caplog.records
    (absent / "config.json").unlink()
    (folder / "snapshots" / "0" / "1_Pooling").mkdir(parents=True)
    write_json(folder / "snapshots" / "0" / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    assert settle("auto", "some/encoder") == "mean"


def test_a_text_without_tokens_has_the_scores_of_the_bias(checkpoint: Path) -> None:
    model, _ = load(checkpoint, 3)
    torch.nn.init.ones_(model.classifier.bias)
    ids = torch.tensor([[2, 5, 3], [0, 0, 0]])
    with torch.inference_mode():
        logits = model.eval()(ids, (ids > 0).long()).logits
    assert logits[1].tolist() == [1, 1, 1]


def test_the_head_learns_faster_than_the_encoder(checkpoint: Path, tmp_path: Path) -> None:
    model, tokenizer = load(checkpoint, 3)
    texts = Texts([np.array([2, 5, 3], np.int32)] * 8, np.arange(8) % 3)
    params = TRAIN | {"class_weight": "none"}
    trainer = trainer_of(
        model,
        tokenizer,
        texts,
        None,
        params,
        tmp_path,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
    )
    optimizer: Any = trainer.optimizer
    rates = {
        id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]
    }
    for name, weight in model.named_parameters():
        factor = 10 if name.startswith("classifier.") else 1
        assert rates[id(weight)] == pytest.approx(factor * params["lr"]), name
    weight_decay = {
        id(w): group["weight_decay"] for group in optimizer.param_groups for w in group["params"]
    }
    assert weight_decay[id(model.classifier.weight)] == params["weight_decay"]
    assert weight_decay[id(model.classifier.bias)] == 0


def test_the_folder_is_one_of_sentence_transformers(
    splits: Path, checkpoint: Path, tmp_path: Path
) -> None:
    """What that library does with its files, done by hand, gives the logits."""
    folder = probed(splits, tmp_path, checkpoint, pooling="mean")
    modules = json.loads((folder / "modules.json").read_text())
    assert [(module["path"], module["type"].split(".")[-1]) for module in modules] == [
        ("", "Transformer"),
        ("1_Pooling", "Pooling"),
        ("2_Normalize", "Normalize"),
        ("3_Dense", "Dense"),
    ]
    assert json.loads((folder / "1_Pooling" / "config.json").read_text()) == {
        "word_embedding_dimension": 32,
        "pooling_mode_mean_tokens": True,
        "pooling_mode_cls_token": False,
    }
    dense = json.loads((folder / "3_Dense" / "config.json").read_text())
    assert dense["activation_function"] == "torch.nn.modules.linear.Identity"
    assert (dense["in_features"], dense["out_features"], dense["bias"]) == (32, 3, True)
    head = load_file(folder / "3_Dense" / "model.safetensors")
    stock = AutoModel.from_pretrained(folder)
    tokens = AutoTokenizer.from_pretrained(folder)("goal match bank", return_tensors="pt")
    with torch.inference_mode():
        mean = torch.nn.functional.normalize(stock(**tokens).last_hidden_state.mean(1))
        expected = mean @ head["linear.weight"].T + head["linear.bias"]
    found = encoder.TorchClassifier(folder, threads=1).logits(["goal match bank", "goal"], 100)
    assert found[:1] == pytest.approx(expected.numpy(), abs=1e-5)
