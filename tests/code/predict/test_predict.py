"""The inference command, from an exported folder alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from conftest import ROOT, make_model
from hypothesis import given
from hypothesis import strategies as st

from src.core.errors import InputError
from src.predict.classifier import Classifier, softmax
from src.predict.padding import batches


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, from a baseline since that is quick to make."""
    return make_model(tmp_path_factory.mktemp("model"))


def run(*words: str | Path, stdin: bytes = b"", code: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "src.predict", *words],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


def test_a_line_of_json_for_each_text_of_the_command_line(model: Path) -> None:
    out, _ = run(model, "The goal of the match", "bank shares", "")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["label"] for line in lines[:2]] == ["sport", "money"]
    assert len(lines) == 3
    for line in lines:
        assert list(line) == ["label", "score", "probabilities"]
        assert line["score"] == line["probabilities"][line["label"]]
        assert line["score"] == max(line["probabilities"].values())
        assert sum(line["probabilities"].values()) == pytest.approx(1)


def test_below_min_score_there_is_a_guess_and_no_label(model: Path, tmp_path: Path) -> None:
    texts = ("goal match", "goal bank actor")  # the second has a word of each topic
    before = run(model, *texts)[0]
    assert run(model, *texts, "--min_score", "0")[0] == before
    sure, unsure = map(json.loads, before.splitlines())
    assert unsure["score"] < 0.6 < sure["score"]
    lines = run(model, *texts, "--min-score", "0.6")[0]
    shown = [list(json.loads(line).items()) for line in lines.splitlines()]
    for line, label, one in zip(shown, ("sport", None), (sure, unsure), strict=True):
        rest = [("score", one["score"]), ("probabilities", one["probabilities"])]
        assert line == [("label", label), ("guess", one["label"]), *rest]
    folder = shutil.copytree(model, tmp_path / "model")
    said = json.loads((folder / "manifest.json").read_text()) | {"min_score": 0.6}
    (folder / "manifest.json").write_text(json.dumps(said))
    assert run(folder, *texts)[0] == lines
    assert run(folder, *texts, "--min_score", "0")[0] == before
    assert Classifier(folder, 1, min_score=unsure["score"]).min_score == unsure["score"]
    (exact,) = Classifier(folder, 1, min_score=unsure["score"]).predict(texts[1:], 64)
    assert exact["label"] == unsure["label"], "a label needs this score, and no more"


def test_texts_from_standard_input_in_their_order(model: Path) -> None:
    texts = ["goal match", "bank", "film actor director cinema", "loan", "coach"] * 300
    out, _ = run(model, stdin="\r\n".join(texts).encode())
    labels = [json.loads(line)["label"] for line in out.splitlines()]
    assert labels == ["sport", "money", "film", "money", "sport"] * 300


def test_softmax_of_large_logits() -> None:
    found = softmax(np.array([[1000, 1000], [0, np.log(3)]], dtype=np.float32))
    assert found == pytest.approx(np.array([[0.5, 0.5], [0.25, 0.75]]), abs=1e-7)


def test_bad_input_gets_one_sentence(model: Path, tmp_path: Path) -> None:
    _, err = run(model, stdin=b"goal\n\xff\n", code=1)
    assert "Standard input is not UTF-8, it has byte 0xff on line 2: convert" in err
    _, err = run(tmp_path, "goal", code=1)
    assert f"{tmp_path} has no manifest.json, so it is not an exported model" in err
    _, err = run(model.with_name(f"{model.name}x"), "goal", code=1)
    assert f"x does not exist, seen from {Path.cwd()} (did you mean '{model.name}'?): name" in err
    shutil.copytree(model, tmp_path / "exported/onnx-int8")
    _, err = run(tmp_path / "onnx-int8", "goal", code=1)
    assert "(did you mean 'exported/onnx-int8'?): name" in err
    _, err = run(model, "pyproject.toml.csv", code=0)
    _, err = run(model, str(ROOT / "docs/tutorial/tickets.csv"), code=1)
    assert "tickets.csv is a file: pass --input " in err
    _, err = run(model, "goal", "--batch_tokens", "0", code=1)
    assert "--batch_tokens is '0': expected a whole number at least 1; change it" in err
    for value in ("1", "-0.1", "nan", "none"):
        _, err = run(model, "goal", "--min_score", value, code=1)
        wanted = "expected model or a number at least 0 and below 1"
        assert f"--min_score is '{value}': {wanted}; change it" in err
    _, err = run(model, "--goal", code=1)
    assert "remove it on the command line, or put -- before texts." in err
    assert len(run(model, "--", "--goal")[0].splitlines()) == 1
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_one_flipped_bit_is_refused(name: str, model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"^{folder / name} is not the file that was exported"):
        Classifier(folder, threads=1)
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"^{folder / name} is missing"):
        Classifier(folder, threads=1)


@pytest.mark.parametrize(
    "change",
    [{"labels": "abc"}, {"files": {}}, {"max_length": None}, {"files": {"model.onnx": "0"}}, None],
)
def test_a_manifest_of_another_shape_is_refused(
    change: dict[str, object] | None, model: Path, tmp_path: Path
) -> None:
    manifest = json.loads((model / "manifest.json").read_text())
    text = json.dumps(manifest | change if change else [])
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=r"manifest.json.*: get the model again"):
        Classifier(tmp_path, threads=1)


def test_a_long_text_is_cut_before_it_is_tokenized(model: Path) -> None:
    classifier = Classifier(model, threads=1)
    start = "bank " * 200  # 1000 characters
    cut, whole = classifier.logits([start + "goal " * 1000, start], batch_tokens=1)
    assert list(cut) == list(whole)


@given(st.lists(st.integers(1, 60), max_size=50), st.integers(1, 200))
def test_batches_hold_every_text_once_sorted_and_within_the_budget(
    lengths: list[int], budget: int
) -> None:
    found = list(batches(lengths, budget))
    rows = [row for batch in found for row in batch]
    assert sorted(rows) == list(range(len(lengths)))
    assert [lengths[row] for row in rows] == sorted(lengths)
    for batch, following in zip(found, [*found[1:], []], strict=False):
        assert len(batch) == 1 or len(batch) * lengths[batch[-1]] <= budget
        assert not following or (len(batch) + 1) * lengths[following[0]] > budget, "none is wasted"


def test_options_stand_before_or_after_texts(model: Path) -> None:
    texts = ("goal match", "bank loan")
    expected = run(model, *texts)[0]
    assert expected.count("\n") == 2
    assert run(model, *texts, "--threads", "1")[0] == expected
    assert run(model, "--threads", "1", *texts)[0] == expected
    assert (
        run("--threads=1", model, "goal match", "--batch_tokens", "64", "bank loan")[0] == expected
    )
    assert run(model, "--threads", "1", "--", "--goal")[0].count("\n") == 1
    _, err = run(model, "--threads", "1025", "goal", code=1)
    assert "--threads is '1025': expected a whole number at least 1 and at most 1024; change" in err


def test_an_engine_that_is_not_there_gets_one_sentence(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = run(model, "goal", "--engine", "cuda", code=1)
    assert out == ""
    assert "--engine cuda needs an onnxruntime with CUDAExecutionProvider" in err
    assert "Traceback" not in err
    _, err = run(model, "goal", "--engine", "tpu", code=1)
    assert "--engine is 'tpu': expected one of auto, onnxruntime, openvino, cuda" in err
    with pytest.raises(InputError, match=r"OpenVINO .* TfIdf.*: use --engine onnx"):
        Classifier(model, 1, "openvino")  # it has no trees
    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    with (
        pytest.warns(UserWarning, match="CUDAExecutionProvider"),
        pytest.raises(InputError, match=r"^--engine cuda needs a GPU"),
    ):
        Classifier(model, 1, "cuda")
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match="`pip install openvino`, or use another"):
        Classifier(model, 1, "openvino")


def test_a_reader_that_leaves_early_is_no_error_of_ours(model: Path) -> None:
    command = f"yes goal | head -20000 | {sys.executable} -m src.predict {model} | head -1"
    done = subprocess.run(
        command,
        shell=True,
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["label"] == "sport"
    assert [line.split()[2] for line in done.stderr.splitlines()] == ["INFO"]
