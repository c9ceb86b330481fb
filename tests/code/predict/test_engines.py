"""Which engine computes a model, where nobody says which."""

import gzip
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from conftest import ROOT
from onnx import TensorProto, helper

from src.core.errors import InputError
from src.predict import __main__ as predict
from src.predict import engines
from src.predict.classifier import Classifier
from src.predict.manifest import list_too

TEXTS = ["goal match", "bank loan profit", "", "film " * 99]


@pytest.fixture
def computer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bool], None]:
    """A processor with such flags, and what OpenVINO says of its bf16."""

    def made(flags: str, bf16: bool) -> None:
        info = tmp_path / "cpuinfo"
        info.write_text(f"processor\t: 0\nflags\t\t: fpu sse {flags}\nbugs\t\t:\n\n" * 2)
        monkeypatch.setattr(engines, "CPUINFO", info)
        monkeypatch.setattr(engines, "_openvino_has_bf16", lambda: bf16)

    return made


def test_openvino_computes_fp32_transformers_where_it_has_bf16(
    exported: tuple[Path, Path],
    computer: Callable[[str, bool], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    computer("avx512_bf16", True)
    found = Classifier(exported[0], 1, "auto")
    assert found.engine == "openvino"
    assert len(caplog.messages) == 1
    assert f"{exported[0]}: computing with OpenVINO in bf16, which is faster" in caplog.text
    by_name = Classifier(exported[0], 1, "openvino").logits(TEXTS, 64)
    assert np.array_equal(found.logits(TEXTS, 64), by_name)
    fp32 = Classifier(exported[0], 1)
    assert fp32.engine == "onnxruntime", "what stages use, on every processor"
    assert not np.array_equal(fp32.logits(TEXTS, 64), by_name)
    assert len(caplog.messages) == 1


def test_openvino_is_not_imported_for_other_models(
    exported: tuple[Path, Path],
    good: Path,
    computer: Callable[[str, bool], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    ask = engines._openvino_has_bf16
    computer("amx_bf16", True)
    monkeypatch.setattr(engines, "_openvino_has_bf16", ask)
    monkeypatch.setitem(sys.modules, "openvino", None)
    for folder in (exported[1], good):  # 8 bits, and trees
        caplog.clear()
        found = Classifier(folder, 1, "auto")
        assert found.engine == "onnxruntime"
        assert found.logits(TEXTS, 64).tolist() == Classifier(folder, 1).logits(TEXTS, 64).tolist()
        (line,) = caplog.messages
        assert line.startswith(f"{folder}: computing with ONNX Runtime, as all models do that")
    caplog.clear()
    assert Classifier(exported[0], 1, "auto").engine == "onnxruntime"
    assert "since OpenVINO is not installed and would compute in bf16, up to 3 times" in caplog.text
    assert "`pip install openvino`" in caplog.text
    monkeypatch.setattr(engines, "CPUINFO", Path("/nowhere"))  # as on a Mac
    caplog.clear()
    assert Classifier(exported[0], 1, "auto").engine == "onnxruntime"
    assert caplog.messages[0].endswith("in fp32, since OpenVINO is not installed")


def test_onnxruntime_computes_where_bf16_is_missing(
    exported: tuple[Path, Path],
    computer: Callable[[str, bool], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    for flags, said in (("avx2", "this processor has no bf16"), ("amx_bf16", "OpenVINO has no bf")):
        computer(flags, flags == "avx2")
        caplog.clear()
        assert Classifier(exported[0], 1, "auto").engine == "onnxruntime"
        assert f"computing with ONNX Runtime in fp32, since {said}" in caplog.text


def test_onnxruntime_computes_what_openvino_has_no_operators_for(
    folder: Path, computer: Callable[[str, bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    computer("amx_bf16", True)
    counted = helper.make_node(
        "TfIdfVectorizer",
        ["input_ids"],
        ["counts"],
        mode="TF",
        max_gram_length=1,
        max_skip_count=0,
        min_gram_length=1,
        ngram_counts=[0],
        ngram_indexes=[0, 1, 2],
        pool_int64s=[0, 1, 2],
    )
    info = helper.make_tensor_value_info
    names = ("input_ids", "attention_mask")
    graph = helper.make_graph(
        [counted, helper.make_node("Softmax", ["counts"], ["logits"])],
        "counts",
        [info(name, TensorProto.INT64, ["texts", "tokens"]) for name in names],
        [info("logits", TensorProto.FLOAT, ["texts", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    list_too(folder, "model.onnx")
    assert Classifier(folder, 1, "auto").engine == "onnxruntime"
    (line,) = caplog.messages
    assert "computing with ONNX Runtime, since OpenVINO fails on this model: OpenVINO can't" in line


def test_the_commands_choose_by_themselves(exported: tuple[Path, Path]) -> None:
    chosen = Classifier(exported[0], 1, "auto").engine  # what it is depends on this processor
    words = [sys.executable, "-m", "src.predict", str(exported[0]), "goal match"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    (expected,) = Classifier(exported[0], 1, chosen).predict(["goal match"], 1024)
    assert json.loads(done.stdout) == expected
    name = {"openvino": "OpenVINO in bf16", "onnxruntime": "ONNX Runtime"}[chosen]
    assert f"INFO src.predict.classifier: {exported[0]}: computing with {name}" in done.stderr


def test_an_interrupted_run_goes_on_with_the_engine_it_began_with(
    exported: tuple[Path, Path], computer: Callable[[str, bool], None], tmp_path: Path
) -> None:
    source, output = tmp_path / "in.csv.gz", tmp_path / "out.csv"
    given: dict[str, Any] = {"input": str(source), "output": str(output)}
    whole = gzip.compress(b"text\n" + b"bank loan\n" * 1100, mtime=0)
    source.write_bytes(whole)
    predict.main(exported[0], **given, engine="openvino")
    expected = output.read_bytes()

    computer("amx_bf16", True)
    source.write_bytes(whole[:-9])
    with pytest.raises(InputError, match="ended before the end-of-stream"):
        predict.main(exported[0], **given)
    source.write_bytes(whole)
    computer("avx2", False)
    with pytest.raises(InputError, match="scores with engine openvino, not onnxruntime: run it"):
        predict.main(exported[0], **given, resume=True)
    predict.main(exported[0], **given, resume=True, engine="openvino")
    assert output.read_bytes() == expected
