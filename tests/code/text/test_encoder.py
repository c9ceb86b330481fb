"""Every supported architecture trains, exports and predicts the same in torch and in ONNX."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import TOPICS, apart, make_checkpoint, probed, run_train
from safetensors.torch import load_file
from scipy.special import softmax
from transformers import AutoModelForSequenceClassification, pipeline

from src.core.errors import InputError
from src.metrics import classification
from src.metrics.calibration import temperature
from src.predict.classifier import Classifier
from src.predict.graph import is_fp32_transformer
from src.tables import examples
from src.text import encoder, export, train
from src.training import onnx_export, recording, shortcuts

pytestmark = pytest.mark.slow

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "roberta": {},
    "xlm-roberta": {},
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    },
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": 2},
}
EXPORT: dict[str, Any] = {
    "opset": 20,
    "atol": 5e-5,
    "check_texts": 100,
    "batch_tokens": 50,
    "threads": 1,
}


def trained(splits: Path, target: Path, checkpoint: Path, **changes: Any) -> Path:
    probes, params = apart(changes)
    start = probed(splits, target, checkpoint, **probes)
    train.main(splits, start, target / "model", target / "live", **params)
    return target / "model"


def texts_of(splits: Path) -> list[str]:
    return list(examples.read(splits / "validation.parquet")["text"])


@pytest.mark.parametrize(
    ("kind", "pooling"),
    [*((kind, "first") for kind in ARCHITECTURES), *((k, "mean") for k in ("bert", "distilbert"))],
)
def test_an_architecture_from_checkpoint_to_prediction(
    kind: str, pooling: str, splits: Path, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", kind, **ARCHITECTURES[kind])
    model = trained(splits, tmp_path, checkpoint, pooling=pooling, epochs=3)
    assert json.loads((tmp_path / "live/metrics.json").read_text())["step"] > 0, "not the probe"
    export.main(splits, model, tmp_path / "fp32", tmp_path / "int8", tmp_path / "report", **EXPORT)
    report = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert report["fp32"]["max_logit_difference"] <= 5e-5
    assert report["fp32"]["equal_labels"] == 1
    validation = examples.read(splits / "validation.parquet")
    labels = examples.label_ids(validation, examples.read_labels(splits))
    logits = encoder.TorchClassifier(model, threads=1).logits(texts_of(splits), 64)
    assert temperature(labels, logits.astype(float)) == pytest.approx(1, rel=0.01), (
        "it is calibrated"
    )

    # Lengths and batch sizes that the export did not see, and one that is cut.
    texts = ["goal", "", "bank profit " * 30, *texts_of(splits)]
    expected = encoder.TorchClassifier(model, threads=1).logits(texts, batch_tokens=48)
    exported = Classifier(tmp_path / "fp32", threads=1)
    assert exported.logits(texts, batch_tokens=30) == pytest.approx(expected, abs=5e-5)
    assert exported.labels == ["film", "money", "sport"]
    openvino = Classifier(tmp_path / "fp32", threads=1, engine="openvino")
    # It computes in bf16 on a processor that is made for it, with 8 bits of a number.
    most = 0.08 * float(np.abs(expected).max())
    assert openvino.logits(texts, batch_tokens=30) == pytest.approx(expected, abs=most)
    int8 = Classifier(tmp_path / "int8", threads=1).logits(texts, batch_tokens=30)
    assert int8.shape == expected.shape
    kinds = [(tmp_path / name / "model.onnx").read_bytes() for name in ("fp32", "int8")]
    assert list(map(is_fp32_transformer, kinds)) == [True, False]
    assert not np.array_equal(int8, expected)


def test_training_learns_and_is_equal_to_itself(
    splits: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that has just begun gives the same bytes as one that has trained before.

    Even if the one has HF_HUB_OFFLINE, and the other one looks for its checkpoint on the hub too.
    """
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    folders = []
    changes: dict[str, Any] = {"epochs": 6, "early_stopping_patience": 0}
    for run in ("first", "second"):
        if run == "first":
            done = run_train(splits, tmp_path / run, checkpoint, forked=True, **changes)
            assert done.returncode == 0, done.stderr
        else:
            trained(splits, tmp_path / run, checkpoint, **changes)
        files = sorted(path for path in (tmp_path / run).rglob("*") if path.is_file())
        folders.append({path.relative_to(tmp_path / run): path.read_bytes() for path in files})
        assert all(path.stat().st_mode & 0o044 for path in files), "a colleague can read them"
    assert folders[0] == folders[1]

    live = json.loads((tmp_path / "first" / "live" / "metrics.json").read_text())
    assert live["validation"]["accuracy"] > 0.9
    texts, model = texts_of(splits), tmp_path / "first" / "model"
    logits = encoder.TorchClassifier(model, threads=1).logits(texts, batch_tokens=64)
    labels = examples.label_ids(
        examples.read(splits / "validation.parquet"), examples.read_labels(splits)
    )
    kept = classification.summary(labels, softmax(logits, axis=1))
    assert kept == pytest.approx({k: live["validation"][k] for k in kept}, abs=1e-6), (
        "the metrics are those of the weights that were kept"
    )
    curve = (tmp_path / "first/live/plots/metrics/train/loss.tsv").read_text().splitlines()
    assert curve[0] == "step\tloss"
    steps = [line.split("\t")[0] for line in curve[1:5]]
    assert steps == ["1", "2", "4", "6"], "steps are global steps"


def test_a_model_whose_last_layer_is_not_known_stays_as_it_is(
    splits: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calibrated = trained(splits, tmp_path / "calibrated", checkpoint)
    probed(splits, tmp_path / "not", checkpoint)
    monkeypatch.setattr(encoder, "head_of", lambda *_: None)
    model = trained(splits, tmp_path / "not", checkpoint)
    assert "left uncalibrated: no layer of this architecture gives the logits" in caplog.text
    found = [
        encoder.TorchClassifier(folder, threads=1).logits(texts_of(splits), batch_tokens=64)
        for folder in (calibrated, model)
    ]
    ratio = found[1] / found[0]
    assert ratio == pytest.approx(ratio[0, 0], rel=1e-3), "but for one temperature"
    assert ratio[0, 0] != pytest.approx(1, rel=0.01)
    live = [
        json.loads((tmp_path / name / "live/metrics.json").read_text())
        for name in ("calibrated", "not")
    ]
    losses = [figures["validation"]["log_loss"] for figures in live]
    assert losses[0] != losses[1]
    assert [figures["step"] > 0 for figures in live] == [True, True]
    probed(splits, tmp_path / "random", checkpoint)
    assert "no layer of this architecture gives the logits alone: the head is random" in caplog.text


def test_the_last_layer_is_found_by_what_it_gives(checkpoint: Path) -> None:
    model, _ = encoder.load(str(checkpoint), new_head=True)
    text = np.array([2, 5, 3], np.int32)
    assert encoder.head_of(model, text) is model.classifier
    handle = model.register_forward_hook(
        lambda _, __, output: type(output)(logits=output.logits.tanh())
    )
    assert encoder.head_of(model, text) is None
    handle.remove()
    model.classifier = torch.nn.Identity()
    assert encoder.head_of(model, text) is None


@pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "modernbert"])
def test_shortcuts_train_what_hugging_face_trains(
    kind: str, splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without dropout, whose masks are others, every weight ends the same, the best epoch kept."""
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *_, **__: x)
    monkeypatch.setattr(train, "replace_dropout", lambda _: None)
    names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
    off = dict.fromkeys(names, 0.0)
    checkpoint = make_checkpoint(tmp_path / "checkpoint", kind, **ARCHITECTURES[kind] | off)
    weights = []
    for on in (True, False):
        model = trained(
            splits, tmp_path / str(on), checkpoint, shortcuts=on, weight_decay=0.3, max_length=12
        )
        assert json.loads((tmp_path / str(on) / "live/metrics.json").read_text())["step"] > 0
        weights.append(load_file(model / "model.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    for name, weight in weights[1].items():
        if "key.bias" not in name and "k_lin.bias" not in name:  # no logit depends on it
            most = 1e-3 * max(1.0, float(weight.abs().max()))
            assert weights[0][name].numpy() == pytest.approx(weight.numpy(), abs=most), name


def test_architectures_that_are_known_are_those_tested() -> None:
    assert {"bert", *ARCHITECTURES} == onnx_export.KNOWN


def test_an_architecture_that_can_not_be_exported_is_not_trained(
    splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    longformer = make_checkpoint(tmp_path / "longformer", "longformer", attention_window=8)
    found = refused(splits, tmp_path, longformer)
    assert found.startswith("A model of the architecture longformer can't be exported to ONNX (")
    electra = make_checkpoint(tmp_path / "electra", "electra", embedding_size=16)
    model, tokenizer = encoder.load(str(electra), new_head=True)
    batch = encoder.collate(encoder.tokenize(tokenizer, ["goal", "bank loan"], 9, 99), 0)
    onnx_export.refuse_unexportable(model, batch)  # it says nothing, for that works
    exported = onnx_export.to_onnx

    def distorted(classifier: Any, path: Path, opset: int) -> None:
        with torch.no_grad():
            classifier.classifier.out_proj.bias.add_(0.1)
        exported(classifier, path, opset)

    monkeypatch.setattr(onnx_export, "to_onnx", distorted)
    with pytest.raises(InputError, match="architecture electra gives other logits once it is"):
        onnx_export.refuse_unexportable(model, batch)


def test_a_tokenizer_that_does_not_know_the_texts_is_not_trained_with(
    splits: Path, tmp_path: Path
) -> None:
    """Its files are absent, or its words are others."""
    for kind in ("bert", "roberta", "distilbert", "xlm-roberta"):
        folder = make_checkpoint(tmp_path / kind, kind, **ARCHITECTURES.get(kind, {}))
        for file in folder.glob("*token*"):
            file.unlink()
        assert refused(splits, tmp_path, folder).startswith(f"The tokenizer of {folder} does not ")
    folder = make_checkpoint(tmp_path / "other")
    words = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    words["model"]["vocab"] = {f"{w}x" if w.isalpha() else w: k for w, k in vocabulary.items()}
    (folder / "tokenizer.json").write_text(json.dumps(words))
    assert "100% of the texts" in refused(splits, tmp_path, folder)


def test_other_folders_than_checkpoints_of_encoders_get_a_sentence(
    splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_checkpoint(tmp_path / "bert")
    for place in ("../brt", "~/brt", "/no/brt", "bert/model"):
        assert refused(splits, tmp_path, place).startswith(f"There is no folder at {place}, seen ")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    assert f"{adapter} holds an adapter and not the model" in refused(splits, tmp_path, adapter)
    left = make_checkpoint(tmp_path / "left")
    settings = json.loads((left / "tokenizer_config.json").read_text())
    (left / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": "left"}))
    assert f"The tokenizer of {left} pads texts on the left" in refused(splits, tmp_path, left)


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_the_kind_of_an_earlier_head_is_not_that_of_the_new_one(
    problem: str, splits: Path, tmp_path: Path
) -> None:
    """Other tools choose by it how logits become scores."""
    checkpoint = make_checkpoint(tmp_path / "checkpoint", problem_type=problem)
    model = trained(splits, tmp_path, checkpoint, epochs=1)
    expected = softmax(encoder.TorchClassifier(model, threads=1).logits(["goal match"], 2))[0]
    score: Any = pipeline("text-classification", str(model), top_k=None)
    found = {row["label"]: row["score"] for row in score("goal match")[0]}
    assert [found[label] for label in sorted(TOPICS)] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_shortcuts_cut_the_vocabulary_while_training(
    kind: str, splits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []

    class Watch(shortcuts.CutVocabulary):
        def __init__(self, model: Any, tokens: Any) -> None:
            super().__init__(model, tokens)
            rows.append(model.get_input_embeddings().weight.shape[0])

    monkeypatch.setattr(train, "CutVocabulary", Watch)
    checkpoint = make_checkpoint(tmp_path / "checkpoint", kind, vocab_size=500)
    model = trained(splits, tmp_path, checkpoint, epochs=1)
    assert rows[0] < 100
    weights = load_file(model / "model.safetensors")
    assert weights[f"{kind}.embeddings.word_embeddings.weight"].shape[0] == 500


@pytest.mark.parametrize(
    "changes",
    [
        {"gradient_accumulation_steps": 2, "batch_size": 4},
        {"precision": "bf16"},
        {"activation_checkpointing": True},
        {"class_weight": "balanced", "label_smoothing": 0.1},
        {"lr_scheduler_type": "cosine", "early_stopping_patience": 0},
    ],
)
def test_options_train(
    changes: dict[str, Any], splits: Path, checkpoint: Path, tmp_path: Path
) -> None:
    model = trained(splits, tmp_path, checkpoint, epochs=6, **changes)
    logits = encoder.TorchClassifier(model, threads=1).logits(["goal match", "bank loan"], 2)
    assert list(logits.argmax(axis=1)) == [2, 1]
    assert json.loads((tmp_path / "live/metrics.json").read_text())["step"] > 0, "not the probe"


def test_early_stopping_stops_and_keeps_the_best(
    splits: Path, checkpoint: Path, tmp_path: Path
) -> None:
    by = {"metric_for_best_model": "macro_f1", "early_stopping_patience": 1}
    trained(splits, tmp_path, checkpoint, epochs=30, **by)
    lines = (tmp_path / "live/plots/metrics/validation/macro_f1.tsv").read_text().splitlines()
    scores = [float(line.split("\t")[1]) for line in lines[1:]]
    assert len(scores) < 30
    live = json.loads((tmp_path / "live/metrics.json").read_text())
    assert live["validation"]["macro_f1"] == max(scores)


def test_the_loss_is_cross_entropy_per_text_of_the_step() -> None:
    ids = np.array([0, 0, 0, 1])
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 1])
    plain = torch.nn.functional.cross_entropy
    one = encoder.loss_of(ids, "none", 0.0)({"logits": logits}, labels)
    assert one == pytest.approx(plain(logits, labels))
    half = encoder.loss_of(ids, "none", 0.0)({"logits": logits}, labels, num_items_in_batch=4)
    assert half == pytest.approx(plain(logits, labels) / 2)
    weights = torch.tensor([4 / 6, 4 / 2])
    weighted = encoder.loss_of(ids, "balanced", 0.1)({"logits": logits}, labels)
    expected = plain(logits, labels, weight=weights, label_smoothing=0.1, reduction="sum") / 2
    assert weighted == pytest.approx(expected)


def refused(splits: Path, tmp_path: Path, checkpoint: object, **changes: Any) -> str:
    with pytest.raises(InputError) as raised:
        trained(splits, tmp_path, Path(str(checkpoint)), **changes)
    assert not (tmp_path / "model").exists()
    assert not (tmp_path / "live").exists()
    return str(raised.value)


def test_a_bad_checkpoint_gets_one_sentence(splits: Path, checkpoint: Path, tmp_path: Path) -> None:
    found = refused(splits, tmp_path, checkpoint, sha256="0" * 64)
    assert found.startswith(f"Expected sha256 {'0' * 64} of {checkpoint}/model.safetensors, found ")
    assert refused(splits, tmp_path, "no/such", sha256="0" * 64).startswith(
        "no/such has no model.safetensors for probe.sha256 to pin ("
    )
    assert refused(splits, tmp_path, tmp_path / "none").startswith(
        f"There is no folder at {tmp_path / 'none'}, seen from "
    )
    broken = make_checkpoint(tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert refused(splits, tmp_path, broken).startswith(
        f"{broken} can't be loaded as a checkpoint ("
    )
    found = refused(splits, tmp_path, checkpoint, max_length=64)
    assert found.startswith(f"probe.max_length is 64: {checkpoint} reads at most 40 tokens")
    roberta = make_checkpoint(tmp_path / "roberta", "roberta", max_position_embeddings=20)
    assert "reads at most 18 tokens" in refused(splits, tmp_path, roberta, max_length=20)
    found = refused(splits, tmp_path, checkpoint, processes=3)
    assert found.startswith("train.batch_size is 8: expected a multiple of the 3 processes")
    found = refused(splits, tmp_path, checkpoint, precision="fp16")
    assert found.startswith("train.precision is 'fp16', which needs a GPU")


def test_processes_that_somebody_else_started_are_refused(
    splits: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    found = refused(splits, tmp_path, checkpoint)
    assert found.startswith("WORLD_SIZE is set, as torchrun sets it")


def test_a_checkpoint_without_part_of_its_encoder_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    encoder.load(str(folder), new_head=True, num_labels=7)
    assert not caplog.records, "a new head is what fine-tuning starts with"
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    state = {k: v for k, v in model.state_dict().items() if "layer.1.output" not in k}
    model.save_pretrained(folder, state_dict=state)
    encoder.load(str(folder), new_head=True)
    assert "has no weights for bert.encoder.layer.1.output" in caplog.text
    with pytest.raises(InputError, match=r"absent or don't fit .* such as bert\.encoder"):
        encoder.TorchClassifier(folder, threads=1)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 32}))
    with pytest.raises(InputError, match=r"such as bert\.encoder.*: get the model anew"):
        encoder.load(str(folder), new_head=True)


def test_fp32_that_differs_stops_the_export_and_leaves_nothing(
    splits: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = trained(splits, tmp_path, checkpoint, epochs=1)

    def distorted(classifier: Any, path: Path, opset: int) -> None:
        head = classifier.classifier.bias
        with torch.no_grad():
            head += 0.01
        onnx_export.to_onnx(classifier, path, opset)

    monkeypatch.setattr("src.text.export.to_onnx", distorted)
    with pytest.raises(InputError, match=r"up to 0.01, more than export.atol 5e-05: "):
        export.main(
            splits, model, tmp_path / "fp32", tmp_path / "int8", tmp_path / "report", **EXPORT
        )
    assert not (tmp_path / "fp32").exists()


def test_the_graph_is_small_and_onnxruntime_fuses_it(
    splits: Path, checkpoint: Path, tmp_path: Path
) -> None:
    model = trained(splits, tmp_path, checkpoint, epochs=1)
    export.main(splits, model, tmp_path / "fp32", tmp_path / "int8", tmp_path / "report", **EXPORT)

    def count(path: Path) -> Counter[str]:
        return Counter(node.op_type for node in onnx.load(path).graph.node)

    layers = 2
    exported = count(tmp_path / "fp32/model.onnx")
    assert exported["MatMul"] == 8 * layers, "query, key, value, two of attention, three linear"
    assert exported["Gelu"] == layers
    assert exported["LayerNormalization"] == 2 * layers + 1
    assert "IsNaN" not in exported, "what the fused attention is exported with"
    assert exported.total() <= 60 + 30 * layers

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    onnxruntime.InferenceSession(tmp_path / "fp32/model.onnx", options)
    fused = count(tmp_path / "optimized.onnx")
    assert fused["BiasGelu"] == layers
    assert fused["FusedMatMul"] >= layers, "transposition within the product"
    assert fused.total() < exported.total()

    # In 8 bits are the pooler, the head and all layers but for the last one's key and value.
    assert count(tmp_path / "int8/model.onnx")["MatMulInteger"] == 2 + 6 * layers - 2


def test_figures_that_vary_by_run_are_not_recorded() -> None:
    names = ["eval_macro_f1", "eval_runtime", "eval_samples_per_second", "loss", "epoch"]
    assert [recording.name_of(name) for name in names] == [
        "validation/macro_f1",
        "",
        "",
        "train/loss",
        "",
    ]
    assert recording.name_of("grad_norm") == ""
