"""The HTTP server, asked by real clients over loopback."""

import asyncio
import csv
import gc
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import requests
import tritonclient.http as triton
from conftest import ROOT, make_model
from huggingface_hub import InferenceClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import to_builtins
from served import PATIENCE, served, wait_until
from tritonclient.utils import InferenceServerException

from src.predict.classifier import Classifier, Logits, softmax
from src.predict.manifest import list_too
from src.serve import upload
from src.serve.batching import Batcher, Outputs, OverloadError, ScoringError
from src.serve.explain import words_of
from src.serve.models import Model
from src.serve.request import Limits
from src.serve.scorers import TextScorer
from src.serve.server import Server, listen
from src.serve.service import Service
from src.serve.tei import ranked

LEAST = 0.6  # the score from which on the third model gives a label
UNSURE = "goal bank actor"  # a word of each topic
PRIVATE = "xylophone"  # a word of requests, which no log may have


class Running(NamedTuple):
    """A server of its own process."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


@contextmanager
def started(log: Path, *words: str | Path, **environment: str) -> Iterator[Running]:
    with served(log, *words, environment=environment) as (url, process):
        yield Running(url, process, log)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two models of other forests, the first with a card, and the first as one that may abstain."""
    place = tmp_path_factory.mktemp("models")
    found = []
    for seed, name in enumerate(("first", "second")):
        (place / name).mkdir()
        found.append(make_model(place / name, seed))
    (found[0] / "README.md").write_text("---\ntags:\n- onnx\nnull: {yes: 1}\n---\n# A card\n")
    list_too(found[0], "README.md")
    found.append(Path(shutil.copytree(found[0], place / "unsure")))
    list_too(found[2], "README.md", LEAST)
    return found


@pytest.fixture(scope="module")
def classifiers(folders: list[Path]) -> list[Classifier]:
    return [Classifier(folder, threads=1) for folder in folders]


@pytest.fixture(scope="module")
def server(folders: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("log") / "log.txt"
    limits = "--max_items 4 --max_characters 2000 --max_body 20000 --max_words 3 --max_rows 40"
    with started(log, *folders, *limits.split(), "--watch", "0") as running:
        yield running


def post(server: Running, path: str, body: object = None, **options: Any) -> requests.Response:
    return requests.post(server.url + path, json=body, timeout=PATIENCE, **options)


def get(server: Running, path: str, **options: Any) -> requests.Response:
    return requests.get(server.url + path, timeout=PATIENCE, **options)


def expected(classifier: Classifier, texts: Sequence[str]) -> list[list[dict[str, Any]]]:
    scores = softmax(classifier.logits(texts, 1024))
    return [to_builtins(ranked(classifier.labels, row)) for row in scores]


def test_predict_answers_as_text_embeddings_inference(
    server: Running, classifiers: list[Classifier]
) -> None:
    goal, bank = expected(classifiers[0], ["goal match", "bank loan"])
    assert (goal[0]["label"], bank[0]["label"]) == ("sport", "money")
    assert [one["score"] for one in goal] == sorted((p["score"] for p in goal), reverse=True)
    assert post(server, "/predict", {"inputs": "goal match"}).json() == goal
    assert post(server, "/predict", {"inputs": ["goal match"]}).json() == goal
    both = {"inputs": [["goal match"], ["bank loan"]], "of_a_newer_version": 1}
    assert post(server, "/predict", both).json() == [goal, bank]
    assert post(server, "/predict", both | {"truncate": None}).json() == [goal, bank]
    raw = post(server, "/predict", {"inputs": "goal match", "raw_scores": True}).json()
    logits = classifiers[0].logits(["goal match"], 1024)[0]
    assert [one["score"] for one in raw] == sorted(logits.tolist(), reverse=True)
    second = post(server, "/predict", {"inputs": "goal bank", "model": "second"}).json()
    assert second == expected(classifiers[1], ["goal bank"])[0]
    assert second != expected(classifiers[0], ["goal bank"])[0]


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/predict", b"{", 422, "The body is not valid JSON"),
        ("/predict", b"[", 422, "The body must be a JSON object"),
        ("/predict", b"[]", 422, "The body must be a JSON object"),
        ("/predict", b'"\xff"', 422, "The body is not valid JSON"),
        ("/predict", b'{"inputs": "a", "of_another": "\xff"}', 422, "The body is not valid JSON"),
        ("/predict", b'{"inputs": "a", "of_another": ' + b"[" * 3000, 422, "not valid JSON"),
        ("/predict", {}, 422, "inputs is missing:"),
        ("/predict", {"inpts": "a"}, 422, "inputs is missing:"),
        ("/explain", {"inpts": "a"}, 422, "inpts is not known (did you mean 'inputs'?)"),
        ("/predict", {"inputs": 1}, 422, "inputs must be a text"),
        ("/predict", {"inputs": []}, 422, "inputs must be a text"),
        ("/predict", {"inputs": ["a", "b"]}, 422, "inputs is a pair of texts"),
        ("/predict", {"inputs": [["a"], "b", 3]}, 422, "inputs[2] must be a text"),
        ("/predict", {"inputs": "a", "raw_scores": 1}, 422, "raw_scores must be true or false"),
        ("/predict", {"inputs": "a", "model": "frist"}, 404, "such model (did you mean 'first'?)"),
        ("/predict", {"inputs": [["a"]] * 5}, 413, "inputs has 5 texts: send at most 4"),
        ("/predict", {"inputs": "a" * 2001}, 413, "inputs[0] has 2001 characters"),
        ("/predict", {"inputs": "a" * 20000}, 413, "The body has more than 20000 bytes"),
        ("/predict", {"inputs": "a" * 1001, "truncate": False}, 413, "inputs[0] has more than"),
        (
            "/",
            {"inputs": "a", "parameters": {"top_k": 0}},
            422,
            "parameters.top_k must be a whole number of at",
        ),
        ("/", {"inputs": "a", "parameters": {"topk": 1}}, 422, "parameters.topk is not known (did"),
        ("/", {"inputs": [1]}, 422, "inputs[0] must be a text"),
        ("/explain", {"inputs": [["a"]]}, 422, "inputs[0] must be a text"),
        ("/v2/models/first/infer", {"inputs": []}, 422, "inputs must be a list of one tensor"),
        ("/v2/models/third/infer", {"inputs": []}, 404, "There is no such model"),
        ("/models", {}, 405, "This route takes another method"),
        ("/nothing", {}, 404, "There is no such route"),
    ],
)
def test_a_bad_request_is_told_which_field(
    server: Running, path: str, body: object, status: int, message: str
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = post(server, path, data=raw, headers={"Content-Type": "application/json"})
    assert (found.status_code, list(found.json())) == (status, ["error", "error_type"])
    assert message in found.json()["error"]
    kinds = {404: "NotFound", 405: "MethodNotAllowed"}
    assert found.json()["error_type"] == kinds.get(status, "Validation")


def test_another_kind_of_body_is_refused(server: Running) -> None:
    body = b'{"inputs": "a"}'
    assert post(server, "/predict", data=body).status_code == 415
    kind = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert post(server, "/predict", data=body, headers=kind).status_code == 415
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1], "data": ["goal"]}
    infer, body = "/v2/models/first/infer", json.dumps({"inputs": [tensor]}).encode()
    for headers, status in (
        ({}, 200),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "application/octet-stream"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=a"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Origin": "https://example.org"}, 415),
    ):
        assert post(server, infer, data=body, headers=headers).status_code == status


def test_truncation_is_told(server: Running, classifiers: list[Classifier]) -> None:
    long = ["goal " * 101, "bank", "x" * 1001]
    found = post(server, "/predict", {"inputs": [[text] for text in long]})
    assert found.headers["X-Truncated"] == "0,2"
    # The server has batches of its own, and a logarithm depends on its place in one by a last bit.
    for row, wanted in zip(found.json(), expected(classifiers[0], long), strict=True):
        assert [one["label"] for one in row] == [one["label"] for one in wanted]
        scores = [one["score"] for one in wanted]
        assert [one["score"] for one in row] == pytest.approx(scores, abs=1e-6)
    assert "X-Truncated" not in post(server, "/predict", {"inputs": "goal " * 100}).headers


def test_a_score_that_is_too_low_is_no_answer(
    server: Running, classifiers: list[Classifier]
) -> None:
    texts = [UNSURE, "goal match coach", UNSURE]
    unsure, sure, _ = rows = expected(classifiers[0], texts)
    assert unsure[0]["score"] < LEAST < sure[0]["score"]

    def without_label() -> float:
        pattern = r'serve_unanswered_texts_total{model="unsure"} (.*)'
        found = re.search(pattern, get(server, "/metrics").text)
        return float(found[1]) if found else 0

    before = without_label()
    body = {"inputs": [[text] for text in texts], "model": "unsure"}
    found = post(server, "/predict", body)
    assert (found.headers["X-No-Answer"], found.json()) == ("0,2", rows)
    assert without_label() == before + 2
    raw = post(server, "/predict", body | {"raw_scores": True})
    assert raw.headers["X-No-Answer"] == "0,2", "of probabilities, not of logits"
    hub = {"inputs": texts, "parameters": {"function_to_apply": "sigmoid"}}
    assert post(server, "/models/unsure", hub).headers["X-No-Answer"] == "0,2"
    assert "X-No-Answer" not in post(server, "/predict", body | {"inputs": texts[1]}).headers
    assert "X-No-Answer" not in post(server, "/predict", body | {"model": "first"}).headers
    assert 'serve_unanswered_texts_total{model="first"}' not in get(server, "/metrics").text

    for text, best in zip(texts[:2], (unsure[0], sure[0]), strict=True):
        told = post(server, "/explain", {"inputs": text, "model": "unsure"})
        label = best["label"] if text != UNSURE else None
        assert [*told.json().items()][1:3] == [("label", label), ("guess", best["label"])]
        assert told.json()["score"] == pytest.approx(best["score"])
        assert told.headers.get("X-No-Answer") == (None if label else "0")
        same = post(server, "/explain", {"inputs": text}).json()
        assert "guess" not in same
        assert same["label"] == best["label"]
        assert same["words"] == told.json()["words"]

    file = "text\n" + "".join(f"{text}\n" for text in (*texts, '""'))
    kind = {"Content-Type": "text/csv"}
    scored = post(server, "/score?model=unsure&prefix=my_", data=file, headers=kind).text
    header, *lines = list(csv.reader(io.StringIO(scored)))
    assert header == ["text", "my_label", "my_guess", "my_score"]
    guess, label = unsure[0]["label"], sure[0]["label"]
    assert [line[1:3] for line in lines] == [["", guess], [label, label], ["", guess], ["", ""]]
    assert [float(line[3]) for line in lines[:3]] == pytest.approx([r[0]["score"] for r in rows])
    for model, status in (("unsure", 422), ("first", 200)):
        path = f"/score?model={model}"
        assert post(server, path, data="text,guess\na,b\n", headers=kind).status_code == status


@pytest.mark.parametrize("binary", [True, False])
def test_an_output_of_the_open_inference_protocol_is_the_guess(
    server: Running, classifiers: list[Classifier], binary: bool
) -> None:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    tensor = triton.InferInput("text", [2], "BYTES")
    tensor.set_data_from_numpy(np.array([UNSURE, "goal match coach"], dtype=object), binary)
    guesses = [row[0]["label"] for row in expected(classifiers[0], [UNSURE, "goal match coach"])]
    names = ["label", "guess", "score", "probabilities"]
    assert [one["name"] for one in client.get_model_metadata("unsure")["outputs"]] == names
    assert [one["name"] for one in client.get_model_metadata("first")["outputs"]] == [
        name for name in names if name != "guess"
    ]
    wanted = [triton.InferRequestedOutput(name, binary) for name in ("guess", "label")]
    for model, labels in (("unsure", ["", guesses[1]]), ("first", guesses)):
        found = client.infer(model, [tensor], outputs=wanted)
        for name, values in (("label", labels), ("guess", guesses)):
            texts = [one.decode() if binary else one for one in found.as_numpy(name)]
            assert texts == values
        given = client.infer(model, [tensor]).get_response()["outputs"]
        assert [one["name"] for one in given] == [
            name for name in names if name != "guess" or model == "unsure"
        ]


@pytest.mark.parametrize("binary", [True, False])
def test_a_client_of_the_open_inference_protocol(
    server: Running, classifiers: list[Classifier], binary: bool
) -> None:
    client = triton.InferenceServerClient(server.url.removeprefix("http://"))
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("second")
    assert client.is_model_ready("second", "1")
    assert not client.is_model_ready("second", "2")
    assert not client.is_model_ready("third")
    assert client.get_server_metadata()["name"] == "pedigree"
    slash = get(server, "/v2/", allow_redirects=False)
    assert (slash.status_code, slash.json()["name"]) == (200, "pedigree")
    described = client.get_model_metadata("second")
    assert described == client.get_model_metadata("second", *described["versions"])
    texts = ["goal match", "bänk loan", "goal " * 101]
    tensor = triton.InferInput("text", [3], described["inputs"][0]["datatype"])
    tensor.set_data_from_numpy(np.array(texts, dtype=object), binary_data=binary)
    outputs = [
        triton.InferRequestedOutput(output["name"], binary_data=binary)
        for output in described["outputs"]
    ]
    scores = softmax(classifiers[1].logits(texts, 1024))
    for wanted, version in ((outputs, ""), (None, "1")):
        found = client.infer("second", [tensor], version, outputs=wanted, request_id="7")
        labels = [value.decode() if binary else value for value in found.as_numpy("label")]
        if wanted or binary:
            assert labels == [classifiers[1].labels[k] for k in scores.argmax(axis=1)]
        np.testing.assert_allclose(found.as_numpy("probabilities"), scores, rtol=1e-6)
        np.testing.assert_allclose(found.as_numpy("score"), scores.max(axis=1), rtol=1e-6)
        assert found.get_response()["parameters"] == {"truncated": "[2]"}
        assert found.get_response()["id"] == "7"
    only = client.infer("second", [tensor], outputs=[triton.InferRequestedOutput("score")])
    assert [output["name"] for output in only.get_response()["outputs"]] == ["score"]
    wrong = triton.InferInput("txt", [3], "BYTES")
    wrong.set_data_from_numpy(np.array(texts, dtype=object), binary_data=binary)
    with pytest.raises(InferenceServerException, match=r"\[422\] inputs\[0\].name must be 'text'"):
        client.infer("second", [wrong])
    best = triton.InferRequestedOutput("probabilities", class_count=1)
    with pytest.raises(InferenceServerException, match=r"outputs\[0\].parameters.classification"):
        client.infer("second", [tensor], outputs=[best])
    with pytest.raises(InferenceServerException, match=r"outputs\[0\].name must be one of guess"):
        client.infer("second", [tensor], outputs=[triton.InferRequestedOutput("logits")])


@pytest.mark.parametrize(
    ("size", "tail", "message"),
    [
        (
            9,
            b"\x01\0\0\0a",
            "inputs[0] has 5 bytes after the JSON, but its binary_data_size says 9",
        ),
        (5, b"\x02\0\0\0a", "inputs[0] ends in the middle of a text"),
        (5, b"\x01\0\0\0\xff", "inputs[0] has bytes that are not UTF-8"),
        (10, b"\x01\0\0\0a" * 2, "inputs[0] has 2 texts, but its shape says 1"),
    ],
)
def test_a_broken_binary_tensor_is_refused(
    server: Running, size: int, tail: bytes, message: str
) -> None:
    tensor = {"name": "text", "datatype": "BYTES", "shape": [1]}
    head = json.dumps({"inputs": [tensor | {"parameters": {"binary_data_size": size}}]}).encode()
    wrong = "Inference-Header-Content-Length must"
    for length, told in ((str(len(head)), message), ("9999", wrong), ("9" * 5000, wrong)):
        headers = {"Inference-Header-Content-Length": length}
        found = post(server, "/v2/models/first/infer", data=head + tail, headers=headers)
        assert found.status_code == 422
        assert told in found.json()["error"]


def test_the_client_of_the_hugging_face_hub(
    server: Running, classifiers: list[Classifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # it asks loopback alone
    for place, classifier in (("", classifiers[0]), ("/models/second", classifiers[1])):
        client = InferenceClient(base_url=server.url + place)
        found = [(one.label, one.score) for one in client.text_classification("goal bank")]
        scores = expected(classifier, ["goal bank"])[0]
        assert found == [(one["label"], one["score"]) for one in scores]
        assert len(client.text_classification("goal bank", top_k=1)) == 1
        raw = client.text_classification("goal bank", function_to_apply="none")
        assert raw[0].score == classifier.logits(["goal bank"], 1024).max()


def test_explain_leaves_each_word_out(server: Running, classifiers: list[Classifier]) -> None:
    text = "Goal, bank's loan of the coach"
    found = post(server, "/explain", {"inputs": text, "model": "second"}).json()
    texts = [text, ", bank's loan of the coach", "Goal,  loan of the coach"]
    scores = softmax(classifiers[1].logits(texts, 1024))
    best = int(scores[0].argmax())
    assert found["label"] == classifiers[1].labels[best]
    assert [one["word"] for one in found["words"]] == ["Goal", "bank's", "loan"]
    assert [one["change"] for one in found["words"]][:2] == pytest.approx(
        (scores[1:, best] - scores[0, best]).tolist()
    )
    assert [text[one["start"] : one["end"]] for one in found["words"]] == ["Goal", "bank's", "loan"]
    assert (found["words_left"], found["truncated"]) == (3, False)
    assert post(server, "/explain", {"inputs": "goal " * 200}).json()["truncated"] is True
    assert words_of("मुझे किताब", 9) == ([(0, 4), (5, 10)], 0)
    assert words_of("映画を, a_b", 9) == ([(0, 1), (1, 2), (2, 3), (5, 6), (7, 8)], 0)


def test_a_file_comes_back_with_labels_and_scores(
    server: Running, classifiers: list[Classifier]
) -> None:
    rows = [[str(k), text] for k, text in enumerate(['a "goal",\nmatch', "bänk", ""] * 12)]
    file = io.StringIO()
    csv.writer(file).writerows([["id", "body"], *rows])
    path = "/score?text_column=body&model=second&prefix=my_"
    kind = {"Content-Type": "text/csv"}
    found = post(server, path, data=file.getvalue().encode("utf-8-sig"), headers=kind)
    assert found.status_code == 200, found.text
    header, *scored = list(csv.reader(io.StringIO(found.content.decode(), newline="")))
    assert header == ["id", "body", "my_label", "my_score"]
    assert [row[:2] for row in scored] == rows
    for row, one in zip(scored, expected(classifiers[1], [row[1] for row in rows]), strict=True):
        if not row[1]:
            assert row[2:] == ["", ""]
            continue
        assert row[2] == one[0]["label"]
        assert float(row[3]) == pytest.approx(one[0]["score"])
    mistyped = post(server, "/score?modle=second", data=b"text\na\n", headers=kind)
    assert mistyped.status_code == 422
    assert mistyped.json()["error"].startswith("modle is not known (did you mean 'model'?): send ")
    for content, status, message in (
        (b"id,txt\n", 422, "text_column must be one of the file's columns, 'id', 'txt' ("),
        (b"id;text\n1;a\n", 422, "The file has one column, 'id;text': save it with commas in"),
        (b"text,label\n", 422, "The file has a column 'label' already: set prefix"),
        (b"text,a,text\n", 422, "The file has two columns 'text': rename one"),
        (b"text" + b",a" * 1000, 413, "The file has 1001 columns: send at most 1000"),
        (b"text" + b"," * 400_001, 413, "The file has more than 400000 commas and line ends"),
        (b"id,text\n1,a\n2\n", 422, "Line 3 has 1 fields, but the header has 2"),
        (b'text\n"a"b\n', 422, "Line 2 is not valid CSV"),
        (b'text\n"a\nb\nc\n', 422, "Line 2 is not valid CSV (a quote that opens here"),
        (b"text\n\xff\n", 422, "Byte 5 of the file is not UTF-8"),
        (b"text\n" + b"a\n" * 41, 413, "The file has more than 40 rows"),
        (b"text\n" + b"a" * 2001, 413, "Row 1 has a text of 2001 characters"),
        (b"text\n" + b"a" * 131_073, 413, "Row 1 has a text of 131073 characters"),
    ):
        bad = post(server, "/score", data=content, headers=kind)
        assert (bad.status_code, bad.json()["error"][: len(message)]) == (status, message)


def test_what_it_says_of_its_models(server: Running, folders: list[Path]) -> None:
    manifest = json.loads((folders[0] / "manifest.json").read_text())
    first, second, unsure = get(server, "/models").json()
    assert [one["min_score"] for one in (first, second, unsure)] == [0, 0, LEAST]
    assert get(server, "/models/unsure/card").json()["min_score"] == LEAST
    assert (first["name"], first["labels"]) == ("first", ["film", "money", "sport"])
    assert first["sha256"] == manifest["files"]["model.onnx"] != second["sha256"]
    card = get(server, "/models/first/card").json()
    assert card == first | {
        "front_matter": {"tags": ["onnx"], "null": {"true": 1}},
        "page": "# A card\n",
        "manifest": manifest,
    }
    assert get(server, "/models/second/card").json()["front_matter"] == {}
    kind = get(server, "/info").json()["model_type"]["classifier"]
    assert kind["id2label"] == {"0": "film", "1": "money", "2": "sport"}
    assert server.log.read_text().count("computing with ONNX Runtime, as all models do that") == 3


def test_it_says_what_computes(exported: tuple[Path, Path], tmp_path: Path) -> None:
    words = ("--engine", "openvino", "--min_score", "0.9")
    with started(tmp_path / "log.txt", exported[0], *words) as server:
        assert get(server, "/models").json()[0]["min_score"] == 0.9
        assert get(server, "/info").json()["engine"] == "openvino"
        assert get(server, "/v2/models/fp32").json()["platform"] == "openvino_onnx"
        assert 'serve_model{engine="openvino",model="fp32",' in get(server, "/metrics").text


def test_its_pages_run_no_script_of_others(server: Running) -> None:
    for path in ("/docs", "/", "/healthz", "/nothing"):
        found = get(server, path)
        policy = found.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert found.headers["X-Content-Type-Options"] == "nosniff"
    page = get(server, "/docs").text
    assert "<code>POST /predict</code>" in page
    assert 'href="openapi.json"' in page  # a proxy may serve it under another path
    assert not re.search("<script|<style|https?://", page)


def test_figures_for_prometheus(server: Running) -> None:
    def given() -> float:
        found = re.findall(r"serve_texts_total{.*} (.*)", get(server, "/metrics").text)
        return sum(map(float, found))

    post(server, "/predict", {"inputs": "goal " * 101})
    post(server, "/predict", {"inputs": 1})
    before = given()
    assert len(post(server, "/explain", {"inputs": "goal match bank"}).json()["words"]) == 3
    assert given() == before + 1, "those without a word are no texts of clients"
    figures = get(server, "/metrics").text
    for pattern in (
        r'serve_requests_total\{route="/predict",status="422"\} [1-9]',
        r'serve_request_seconds_count\{route="/predict"\} [1-9]',
        r'serve_texts_total\{label="sport",model="first"\} [1-9]',
        r'serve_truncated_texts_total\{model="first"\} [1-9]',
        r"serve_batch_texts_count [1-9]",
        r"serve_waiting_texts 0",
        r'serve_model\{engine="onnxruntime",model="first",sha256="\w{64}"\} 1',
    ):
        assert re.search(pattern, figures), pattern


def test_no_5xx_by_what_its_openapi_document_allows(server: Running, tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "schemathesis")
    # A schema can't say that a tensor has as many texts as its shape, or a file a column.
    options = "--seed 1 --phases coverage --no-shrink "
    options += "--exclude-checks positive_data_acceptance "
    options += "--exclude-path-regex /versions/"  # the same as those above them
    done = subprocess.run(
        [program, "run", f"{server.url}/openapi.json", *options.split()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "Tested: 23" in done.stdout


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(
            st.sampled_from(["inputs", "model", "parameters", "name", "shape", "data", "outputs"]),
            inner,
        )
    ),
    max_leaves=20,
)
REST = b" HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
HEADS = (
    b"POST /predict" + REST + b"application/json\r\n",
    b"POST /v2/models/first/infer" + REST + b"application/json\r\n",
    b"POST /score" + REST + b"text/csv\r\n",
    b"GET /models/%00/card" + REST + b"\r\n",
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(HEADS),
    st.binary(max_size=300)
    | st.builds(lambda value: json.dumps(value, ensure_ascii=True).encode(), ANY),
    st.binary(max_size=30),
    st.booleans(),
)
def test_no_5xx_by_any_bytes(
    server: Running, head: bytes, body: bytes, noise: bytes, broken: bool
) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    length = b"Content-Length: %d\r\nConnection: close\r\n" % len(body)
    with socket.create_connection((host, int(port)), PATIENCE) as client:
        client.sendall(head + (noise if broken else b"") + length + b"\r\n" + body)
        if broken:
            client.shutdown(socket.SHUT_WR)
        found = b""
        try:
            while piece := client.recv(65536):
                found += piece
        except ConnectionResetError:
            assert broken
    assert broken or found
    assert not re.match(rb"HTTP/1.1 5", found), found
    assert get(server, "/healthz").status_code == 200


def test_its_log_has_no_text(server: Running) -> None:
    post(server, "/predict", {"inputs": PRIVATE, "truncate": PRIVATE})
    post(server, "/predict", {PRIVATE: PRIVATE})
    get(server, f"/{PRIVATE}?{PRIVATE}")
    post(server, "/predict", {"inputs": PRIVATE})
    assert "serving first, second, unsure at http" in server.log.read_text()
    assert PRIVATE not in server.log.read_text()


class Held(Classifier):
    """A model that waits before it scores, until it is let go; it knows what it scored."""

    def __init__(self, folder: Path) -> None:
        """Load the folder; let go at first."""
        self.go = threading.Event()
        self.go.set()
        self.began = threading.Event()
        self.scored: list[int] = []
        self.broken = False
        super().__init__(folder, threads=1)

    def score(self, ids: Sequence[list[int]], batch_tokens: int) -> Logits:
        self.began.set()
        assert self.go.wait(PATIENCE)
        if self.broken:
            raise ValueError(PRIVATE)
        self.scored += [len(row) for row in ids]
        return super().score(ids, batch_tokens)


@contextmanager
def holding(folder: Path) -> Iterator[tuple[str, Held, Service]]:
    """A server in this process, whose model is held: no batch ends before it is let go."""
    made: list[Held] = []

    def load(path: Path) -> Classifier:
        made.append(Held(path))
        return made[0]

    limits = Limits(10**6, 8, 10**5, 8, 100, 10**6, True)
    service = Service([Model(folder, load)], limits, 20, 10, PATIENCE, PATIENCE)
    server = Server(service, ["127.0.0.1"], b"")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, args=[[listening]])
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        held = made[0]
        held.began.clear()
        held.scored.clear()
        held.go.clear()
        try:
            yield url, held, service
        finally:
            held.go.set()
            server.should_exit = True
            thread.join(PATIENCE)
            service.batcher.close()


def ask(url: str, text: str, times: int = 1) -> requests.Response:
    body = {"inputs": [[text]] * times}
    return requests.post(f"{url}/predict", json=body, timeout=PATIENCE)


def test_it_answers_while_it_computes_and_refuses_what_is_too_much(folders: list[Path]) -> None:
    with holding(folders[0]) as (url, held, service), ThreadPoolExecutor(4) as pool:
        first = pool.submit(ask, url, "goal")
        assert held.began.wait(PATIENCE)
        # The model is at work, and will be until it is let go.
        assert requests.get(f"{url}/healthz", timeout=PATIENCE).json() == {"status": "ok"}
        assert "serve_waiting_texts 1.0" in requests.get(f"{url}/metrics", timeout=PATIENCE).text
        waiting = pool.submit(ask, url, "bank loan", 8)
        wait_until(lambda: service.batcher.texts == 9)
        refused = ask(url, "goal", 2)
        assert (refused.status_code, refused.json()["error_type"]) == (429, "Overloaded")
        assert int(refused.headers["Retry-After"]) >= 1
        assert not first.done()
        held.go.set()
        assert first.result().json()[0][0]["label"] == "sport"
        assert waiting.result().json()[7][0]["label"] == "money"
        assert held.scored == [1] + [2] * 8
        assert service.batcher.texts == 0
        assert ask(url, "goal", 8).status_code == 200


def test_files_that_come_slowly_keep_no_others_out(folders: list[Path]) -> None:
    with holding(folders[0]) as (url, held, service), ThreadPoolExecutor(4) as pool:

        def send() -> requests.Response:
            kind = {"Content-Type": "text/csv"}
            return requests.post(f"{url}/score", b"text\ngoal\n", headers=kind, timeout=PATIENCE)

        host, port = url.removeprefix("http://").split(":")
        head = b"POST /score HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/csv\r\n"
        with ExitStack() as clients:
            for _ in range(2):
                client = socket.create_connection((host, int(port)), PATIENCE)
                clients.enter_context(client)
                client.sendall(head + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 100"), "it waits for the body"
            files = [pool.submit(send) for _ in range(2)]
            wait_until(lambda: service.batcher.texts == 2)
            busy = send()
            assert (busy.status_code, busy.json()["error_type"]) == (429, "Overloaded")
            held.go.set()
            for file in files:
                assert file.result().text.startswith("text,label,score\r\ngoal,sport,")


def test_a_file_waits_for_the_reading_of_another_until_its_deadline(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    began, go, read = threading.Event(), threading.Event(), upload.read_table

    def held_read(content: bytes, *rest: Any) -> upload.Table:
        if b"slow" in content:
            began.set()
            assert go.wait(PATIENCE)
        return read(content, *rest)

    monkeypatch.setattr(upload, "read_table", held_read)
    with holding(folders[0]) as (url, held, service), ThreadPoolExecutor(4) as pool:
        held.go.set()

        def send(content: bytes) -> requests.Response:
            kind = {"Content-Type": "text/csv"}
            return requests.post(f"{url}/score", content, headers=kind, timeout=PATIENCE)

        slow = pool.submit(send, b"text\nslow\n")
        assert began.wait(PATIENCE)
        service.upload_deadline = 0.3
        assert send(b"text\ngoal\n").json()["error_type"] == "Deadline"
        go.set()
        assert slow.result().status_code == 200
        began.clear()
        go.clear()
        bad = pool.submit(send, b"text\nslow,too,many\n")
        assert began.wait(PATIENCE)
        time.sleep(0.5)  # its deadline passes, and its thread can't be stopped
        assert not bad.done()
        go.set()
        assert bad.result().json()["error_type"] == "Deadline"
        service.upload_deadline = PATIENCE
        assert send(b"text\ngoal\n").status_code == 200
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_what_is_past_its_deadline_or_not_awaited_is_not_computed(folders: list[Path]) -> None:
    with holding(folders[0]) as (url, held, service), ThreadPoolExecutor(4) as pool:
        service.deadline = PATIENCE
        scored = pool.submit(ask, url, "goal match coach")
        assert held.began.wait(PATIENCE)
        # That batch has begun, so no other text is in it.
        service.deadline = 0.5
        late = ask(url, "goal match")
        assert (late.status_code, late.json()["error_type"]) == (504, "Deadline")
        host, port = url.removeprefix("http://").split(":")
        kind = b"Content-Type: application/json\r\nContent-Length: "
        with socket.create_connection((host, int(port)), PATIENCE) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n" + kind + b"9\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 408"), "the body does not come"
        held.go.set()
        service.deadline = PATIENCE
        assert ask(url, "goal bank loan actor").status_code == 200
        assert scored.result().status_code == 200
        assert held.scored == [3, 4]

        held.go.clear()
        held.began.clear()
        first = pool.submit(ask, url, "goal")
        assert held.began.wait(PATIENCE)
        body = b'{"inputs": "goal match coach league bank"}'
        with socket.create_connection((host, int(port)), PATIENCE) as client:
            length = b"%d\r\n\r\n" % len(body)
            head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n" + kind + length
            client.sendall(head + body)
            wait_until(lambda: service.batcher.texts == 2)
        wait_until(lambda: service.batcher.texts == 1)  # it has gone
        held.go.set()
        assert first.result().status_code == 200
        assert ask(url, "goal bank").status_code == 200
        assert 5 not in held.scored
        figures = requests.get(f"{url}/metrics", timeout=PATIENCE).text
        assert 'serve_requests_total{route="/predict",status="499"} 1.0' in figures


def test_a_model_that_breaks_answers_424(
    folders: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with holding(folders[0]) as (url, held, _):
        held.go.set()
        held.broken = True
        found = ask(url, "goal")
        assert (found.status_code, found.json()["error_type"]) == (424, "Backend")
        held.broken = False
        assert ask(url, "goal").status_code == 200
    assert "a batch of 1 texts broke" in caplog.text
    assert PRIVATE not in caplog.text


def test_texts_of_many_requests_get_their_own_answers(classifiers: list[Classifier]) -> None:
    draw = np.random.default_rng(0)
    words = ["goal", "bank", "actor", "match", "loan", "scene"]
    asked = [
        [" ".join(draw.choice(words, draw.integers(0, 30))) for _ in range(draw.integers(0, 6))]
        for _ in range(40)
    ]
    sizes: list[int] = []

    async def all_at_once() -> list[Outputs]:
        batcher = Batcher(60, 1000, lambda texts, _: sizes.append(texts))
        until = time.monotonic() + PATIENCE
        scorers = [TextScorer(classifier) for classifier in classifiers]
        chosen = [scorers[k % 2] for k in range(len(asked))]
        work = [batcher.outputs(c, t, until) for c, t in zip(chosen, asked, strict=True)]
        try:
            return [found for found, _ in await asyncio.gather(*work)]
        finally:
            batcher.close()

    for k, found in enumerate(asyncio.run(all_at_once())):
        alone = classifiers[k % 2].logits(asked[k], 1024)
        np.testing.assert_allclose(found, alone, rtol=1e-5)  # a batch changes the last bits
    assert sum(sizes) == sum(map(len, asked))
    assert len(sizes) < sum(map(len, asked)), "texts of several requests share a batch"


def test_what_would_wait_for_too_long_is_refused_at_once(folders: list[Path]) -> None:
    held = Held(folders[0])
    scorer = TextScorer(held)

    async def crowd() -> None:
        batcher = Batcher(20, 1000, lambda *_: None)
        now = time.monotonic()
        try:
            await batcher.outputs(scorer, ["goal"] * 9, now + PATIENCE)
            held.go.clear()
            first = asyncio.ensure_future(batcher.outputs(scorer, ["goal"], now + PATIENCE))
            while not held.began.is_set() or not batcher.texts:
                await asyncio.sleep(0)
            # The model is known to need a moment a text, which is more than half of no time.
            with pytest.raises(OverloadError, match=r"try again in 1 s"):
                await batcher.outputs(scorer, ["goal"], now)
            held.broken = True
            held.go.set()
            with pytest.raises(ScoringError):
                await first
        finally:
            held.go.set()
            batcher.close()

    asyncio.run(crowd())


def test_a_changed_folder_is_served_once_it_is_whole(folders: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(folders[0], folder)
    old = json.loads((folders[0] / "manifest.json").read_text())["files"]["model.onnx"]
    new = json.loads((folders[1] / "manifest.json").read_text())["files"]["model.onnx"]

    with started(tmp_path / "log.txt", folder, "--watch", "0.1") as server:

        def served() -> str:
            return str(get(server, "/models").json()[0]["sha256"])

        def reloads(outcome: str) -> str:
            pattern = rf'serve_reloads_total{{model="model",outcome="{outcome}"}} (\d+)'
            found = re.search(pattern, get(server, "/metrics").text)
            return found[1] if found else "0"

        shutil.copy(folders[1] / "model.onnx", folder)  # which is not that of the manifest
        wait_until(lambda: reloads("failed") == "1")
        assert "model is still served as it was, since its folder" in server.log.read_text()
        assert f"{folder / 'model.onnx'} is not the file" in server.log.read_text()
        assert "Traceback" not in server.log.read_text()
        assert served() == old
        assert post(server, "/predict", {"inputs": "goal"}).status_code == 200
        shutil.copy(folders[1] / "manifest.json", folder)
        wait_until(lambda: reloads("loaded") == "1")
        assert served() == new
        assert (
            post(server, "/predict", {"inputs": "goal bank"}).json()
            == expected(Classifier(folders[1], threads=1), ["goal bank"])[0]
        )
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: reloads("loaded") == "2")
        assert f'sha256="{new}"}} 1' in get(server, "/metrics").text
        assert old not in get(server, "/metrics").text
        assert "X-No-Answer" not in post(server, "/predict", {"inputs": UNSURE}).headers
        list_too(folder, "model.onnx", 0.99)
        wait_until(lambda: reloads("loaded") == "3")
        assert post(server, "/predict", {"inputs": UNSURE}).headers["X-No-Answer"] == "0"


def test_sigterm_lets_requests_end(folders: list[Path], tmp_path: Path) -> None:
    with started(tmp_path / "log.txt", folders[0]) as server:
        host, port = server.url.removeprefix("http://").split(":")
        body = b'{"inputs": "goal match"}'
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection((host, int(port)), PATIENCE) as client:
            client.sendall(head + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body))
            assert client.recv(1000).startswith(b"HTTP/1.1 100"), "it waits for the body"
            server.process.terminate()

            def refused() -> bool:
                with socket.socket() as probe:
                    return probe.connect_ex((host, int(port))) != 0

            wait_until(refused)
            client.sendall(body)
            found = b""
            while piece := client.recv(65536):
                found += piece
        assert found.startswith(b"HTTP/1.1 200")
        assert b'"label":"sport"' in found
        assert server.process.wait(PATIENCE) == 0
        assert "ended after every request had its answer" in server.log.read_text()


@pytest.mark.parametrize("again", [True, False])
def test_sigterm_waits_for_no_client_without_end(
    folders: list[Path], tmp_path: Path, again: bool
) -> None:
    drain = str(3600 if again else 0.5)
    with started(tmp_path / "log.txt", folders[0], "--drain", drain) as server:
        host, port = server.url.removeprefix("http://").split(":")
        with ExitStack() as clients:
            idle, client = (
                clients.enter_context(socket.create_connection((host, int(port)), PATIENCE))
                for _ in range(2)
            )
            head = b"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/csv\r\n"
            client.sendall(head + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 100"), "it waits for the body"
            server.process.terminate()
            assert idle.recv(1000) == b"", "it has begun to end"
            if again:
                server.process.terminate()
            assert client.recv(1000) == b"", "it is closed, without an answer"
        assert server.process.wait(PATIENCE) == 0
    log = server.log.read_text()
    assert "connections closed before their answer was sent: 1" in log
    assert "Traceback" not in log


def loopback() -> str:
    """The newer address, where the machine has it."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return "127.0.0.1"
    return "::1"


def test_key_and_hosts(folders: list[Path], tmp_path: Path) -> None:
    words = (folders[0], "--host", loopback(), "--hosts", "localhost,::1")
    with started(tmp_path / "log.txt", *words, SERVE_API_KEY="sésame\n") as server:
        assert server.url.startswith(("http://[::1]:", "http://127.0.0.1:"))
        body = {"inputs": "goal"}
        for given, status in (
            (None, 401),
            ("Bearer sesame", 401),
            ("Basic sésame", 401),
            ("Bearer sésame", 200),
            ("bearer  sésame", 200),
        ):
            headers = {"Authorization": given.encode()} if given else {}
            assert post(server, "/predict", body, headers=headers).status_code == status
        assert post(server, "/", body).status_code == 401
        assert get(server, "/metrics").headers["WWW-Authenticate"] == "Bearer"
        for path in ("/healthz", "/v2/health/live", "/v2/health/ready", "/", "/docs"):
            assert get(server, path).status_code == 200
        for host, status in (("evil.example", 421), ("localhost:1", 401), ("[::1]:8000", 401)):
            assert get(server, "/models", headers={"Host": host}).status_code == status
        assert get(server, "/healthz", headers={"Host": "10.0.0.1:8000"}).status_code == 200
        assert get(server, "/openapi.json").json()["info"]["title"] == "Pedigree"
        assert "sésame" not in server.log.read_text()


def refused(*words: str | Path, **environment: str) -> str:
    command = [sys.executable, "-m", "src.serve", *map(str, words)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_it_does_not_start_on_a_mistake(
    folders: list[Path], server: Running, tmp_path: Path
) -> None:
    folder = tmp_path / "first"
    shutil.copytree(folders[0], folder)
    port = server.url.rsplit(":", 1)[1]
    assert f"listen at 127.0.0.1:{port}, Address already" in refused(folder, "--port", port)
    few = "--max_texts is 64, but must be at least 65"
    assert few in refused(folder, "--max_texts", "64")
    blank = "The key in the environment variable SERVE_API_KEY is empty"
    assert blank in refused(folder, SERVE_API_KEY=" ")
    below = "--min_score is '1': expected model or a number at least 0 and below 1"
    assert below in refused(folder, "--min_score", "1")
    message = f"Can't read {tmp_path / 'key'}, No such file"
    assert message in refused(folder, "--api_key_file", str(tmp_path / "key"))
    told = "Two folders have the same name (first, first): give one another, as in other="
    assert told in refused(folder, folders[0])
    with (folder / "tokenizer.json").open("a") as file:
        file.write(" ")
    assert f"{folder / 'tokenizer.json'} is not the file" in refused(folder)


def test_what_is_sent_waits_for_no_acknowledgement() -> None:
    """Without this option an answer of two writes takes 40 ms longer."""
    with listen("127.0.0.1", 0) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
