"""Models of tables on the server, asked over loopback."""

import csv
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import requests
import tritonclient.http as triton
from conftest import make_model
from served import PATIENCE, served
from tabular_model import PARAMS, Row, make_table_model, table, typed
from tritonclient.utils import InferenceServerException

from src.core.errors import InputError
from src.predict.manifest import list_too
from src.predict.naming import named
from src.predict.records import Records
from src.serve import scorers
from src.serve.models import Model, TableModel

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no pipeline of tables")

ITEMS = 8  # records that a request may have


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table_model(tmp_path_factory.mktemp("made"), 600)


@pytest.fixture(scope="module")
def server(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of texts, and of tables."""
    folder = tmp_path_factory.mktemp("texts")
    words = ["--watch", "0", "--max_items", str(ITEMS), "--max_words", "4", "--max_rows", "700"]
    with served(folder / "log.txt", make_model(folder), made / "model", *words) as (url, _):
        yield url


@pytest.fixture(scope="module")
def rows(made: Path) -> list[Row]:
    """Records, the likeliest frauds first."""
    found = typed(made)
    order = np.argsort(-probabilities(made, found), kind="stable")
    return [found[k] for k in order]


def probabilities(made: Path, rows: list[Row]) -> np.ndarray:
    records = Records(made / "model", 1)
    features, _ = records.features(
        {name: [row[name] for row in rows] for name in rows[0]}, len(rows)
    )
    found: np.ndarray = records.probabilities(features)[:, 1]
    return found


def post(url: str, body: Any, path: str = "/predict") -> requests.Response:
    return requests.post(url + path, json=body, timeout=PATIENCE)


def test_records_get_label_and_probability(server: str, made: Path, rows: list[Row]) -> None:
    asked = [*rows[:3], *rows[-2:]]
    found = post(server, {"records": asked, "model": "model"}).json()
    expected = probabilities(made, asked)
    threshold = Records(made / "model", 1).threshold
    assert [one["probability"] for one in found] == expected.tolist()
    assert [one["label"] for one in found] == [str(int(p >= threshold)) for p in expected]
    assert found[0]["label"] == "1" != found[-1]["label"]
    assert found[0]["probabilities"]["0"] == pytest.approx(1 - expected[0])
    assert "changes" not in found[0]
    assert post(server, {"records": [], "model": "model"}).json() == []
    figures = requests.get(f"{server}/metrics", timeout=PATIENCE).text
    assert 'serve_texts_total{label="1",model="model"}' in figures


def test_what_pushed_a_record_is_told(server: str, made: Path, rows: list[Row]) -> None:
    body = {"records": rows[:1], "model": "model", "explain": True}
    (found,) = post(server, body).json()
    usual = json.loads((made / "model/usual.json").read_text())
    assert found["changes"][0]["column"] == "amount"
    assert found["columns_left"] == 2, "of six, as --max_words 4 says"
    sizes = [abs(one["change"]) for one in found["changes"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0.1
    for one in found["changes"]:
        without = probabilities(made, [rows[0] | {one["column"]: usual[one["column"]]}])[0]
        assert one["change"] == pytest.approx(found["probability"] - without)
        assert (one["value"], one["usual"]) == (rows[0][one["column"]], usual[one["column"]])


def test_the_columns_that_matter_most_are_tried(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made / "model", tmp_path / "model"))
    told = {"amount": 0.1, "opened (hour)": 0.05, "shop": 0.2}
    content = {name: {"importance": value, "spread": 0.0} for name, value in told.items()}
    (folder / "importance.json").write_text(json.dumps(content))
    list_too(folder, "importance.json")
    model = Model(folder, lambda path: Records(path, 1)).now
    assert isinstance(model, TableModel)
    assert [column.name for column in model.leading(4)] == ["shop", "amount", "opened", "income"]
    assert len(model.leading(64)) == 6


def test_a_model_of_three_labels_answers(tmp_path: Path) -> None:
    made = make_table_model(tmp_path, 600, labels=3)
    records = [row | {"amount": amount} for row in typed(made)[:1] for amount in (1.0, 1e3)]
    with served(tmp_path / "log.txt", made / "model") as (url, _):
        low, high = post(url, {"records": records}).json()
        assert (low["label"], high["label"]) == ("low", "high")
        assert sum(low["probabilities"].values()) == pytest.approx(1)
        for one in (low, high):
            assert one["probability"] == max(one["probabilities"].values())
        (told,) = post(url, {"records": records[1:], "explain": True}).json()
        first = told["changes"][0]
        assert first["column"] == "amount"
        assert first["change"] > 0.3, "of the label high"
        (model,) = requests.get(f"{url}/models", timeout=PATIENCE).json()
        assert (model["positive"], sorted(model["labels"])) == ("", ["high", "low", "middle"])
        scored = requests.post(
            f"{url}/score",
            table(made).head(50).to_csv(index=False),
            headers={"Content-Type": "text/csv"},
            timeout=PATIENCE,
        )
        found = pd.read_csv(io.StringIO(scored.text))
        assert (found["label"] == found["fraud"]).mean() > 0.9, scored.text


def test_models_are_described(server: str, made: Path) -> None:
    text, found = requests.get(f"{server}/models", timeout=PATIENCE).json()
    assert "columns" not in text
    assert "max_length" not in found
    assert found["kind"] == "table"
    assert found["positive"] == "1"
    assert found["threshold"] == Records(made / "model", 1).threshold
    columns = {one["name"]: one for one in found["columns"]}
    assert list(columns) == ["opened", "amount", "income", "country", "shop", "member"]
    assert columns["country"] == {"name": "country", "kind": "category", "usual": "de"}
    assert columns["amount"]["minimum"] <= columns["amount"]["usual"] < columns["amount"]["maximum"]
    assert columns["opened"]["usual"].startswith("2024-")
    card = requests.get(f"{server}/models/model/card", timeout=PATIENCE).json()
    assert card["manifest"]["labels"] == ["0", "1"]


def test_a_model_may_have_another_name_than_its_folder(made: Path) -> None:
    folders = [Path(f"frauds={made / 'model'}"), made / "model"]
    assert named(folders) == [("frauds", made / "model"), ("model", made / "model")]
    for words, told in (
        (["a*b=nowhere"], "'a\\*b' can't be the name of a model"),
        (["..=nowhere"], "can't be the name of a model"),
        ([f"a={made / 'model'}"] * 2, f"same name .a, a.: .* other={made / 'model'},"),
    ):
        with pytest.raises(InputError, match=told):
            named([Path(word) for word in words])
    assert named([Path("frauds=nowhere"), Path("my/frauds=")]) == [
        ("frauds", Path("nowhere")),
        ("frauds=", Path("my/frauds=")),
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[]", "does not tell the importance of features"),
        ('{"amount": {"importance": 2, "spread": 0}}', "does not tell the importance of features"),
        ('{"amount": {"importance": 0.2}}', "does not tell the importance of features"),
        ("", "is not the file that was exported: its sha256 is"),
        ('{"price": {"importance": 0.2, "spread": 0}}', "has 'price', which is no feature of"),
    ],
)
def test_an_importance_that_is_none_is_refused(
    content: str, sentence: str, made: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made / "model", tmp_path / "model"))
    told = folder / "importance.json"
    told.write_text("[]")
    list_too(folder, told.name)
    told.write_text(content)
    if content:
        list_too(folder, told.name)
    with pytest.raises(InputError, match=rf"importance\.json {sentence}.* get the model again"):
        Model(folder, lambda path: Records(path, 1))


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ({"amount": "abc"}, 422, "records[1] has 'abc' in 'amount', a number: correct it."),
        ({"opened": "soon"}, 422, "records[1] has 'soon' in 'opened', a date: correct it."),
        ({"member": 3}, 422, "records[1] has '3' in 'member', a boolean: correct it."),
        ({"amount": True}, 422, "records[1] has 'true' in 'amount', a number: correct it."),
        ({"amount": [1]}, 422, "records[1][...] must be a number, true, false, a text or null."),
        ({"shop": "x" * 100_001}, 413, "records[1] has 100001 characters in 'shop': send at most"),
        ({"shop": None, "income": None, "extra": 1}, 200, ""),
    ],
)
def test_a_value_that_cannot_be_read_is_refused(
    change: Row, status: int, sentence: str, server: str, rows: list[Row]
) -> None:
    answer = post(server, {"records": [rows[0], rows[1] | change], "model": "model"})
    assert answer.status_code == status, answer.text
    if sentence:
        assert sentence in answer.json()["error"]


def test_mistakes_get_one_sentence(server: str, rows: list[Row]) -> None:
    misspelt = {("amounts" if key == "amount" else key): value for key, value in rows[0].items()}
    bodies: list[tuple[Row, int, str]] = [
        (
            {"records": [misspelt]},
            422,
            "records[0] has no 'amount' (did you mean 'amounts'?): send",
        ),
        ({"records": rows[: ITEMS + 1]}, 413, "records has 9 records: send at most 8 at once."),
        ({"records": rows[:2], "explain": True}, 422, "explain is for one record, and there are 2"),
        ({"records": rows[:1], "inputs": "a"}, 422, "There are both inputs and records: send one"),
        (
            {"records": rows[:1], "model": "model0"},
            422,
            "is a model of texts: send inputs",
        ),
        ({"inputs": "some text"}, 422, "model is a model of tables: send records, or name"),
        ({}, 422, "inputs is missing: send it, or records to a model of tables, or a question"),
    ]
    text = requests.get(f"{server}/models", timeout=PATIENCE).json()[0]["name"]
    for body, status, sentence in bodies:
        named = body | {"model": text if body.get("model") == "model0" else "model"}
        answer = post(server, named)
        assert (answer.status_code, sentence in answer.json()["error"]) == (status, True), (
            answer.text
        )
    answer = post(server, {"inputs": "some text"}, "/models/model")
    assert "model is a model of tables: send records" in answer.json()["error"]
    answer = post(server, {"inputs": "some text", "model": "model"}, "/explain")
    assert "model is a model of tables: send records" in answer.json()["error"]


@pytest.mark.parametrize("binary", [True, False])
def test_a_client_of_the_open_inference_protocol(
    binary: bool, server: str, made: Path, rows: list[Row]
) -> None:
    client = triton.InferenceServerClient(server.removeprefix("http://"))
    described = client.get_model_metadata("model")
    assert {one["name"]: one["datatype"] for one in described["inputs"]} == {
        "opened": "BYTES",
        "amount": "FP64",
        "income": "FP64",
        "country": "BYTES",
        "shop": "BYTES",
        "member": "BOOL",
    }
    asked = [row | {"income": row["income"] or 41.5} for row in (*rows[:3], *rows[-2:])]
    types: Row = {"BYTES": object, "FP64": np.float64, "BOOL": bool}
    tensors = {}
    for one in described["inputs"]:
        tensor = triton.InferInput(one["name"], [5, 1], one["datatype"])
        values = [[row[one["name"]]] for row in asked]
        tensor.set_data_from_numpy(np.array(values, types[one["datatype"]]), binary_data=binary)
        tensors[one["name"]] = tensor
    outputs = [triton.InferRequestedOutput(o["name"], binary) for o in described["outputs"]]
    found = client.infer("model", [*tensors.values()], outputs=outputs, request_id="7")
    expected = probabilities(made, asked)
    assert found.as_numpy("probability").tolist() == expected.tolist()
    assert found.as_numpy("probabilities").shape == (5, 2)
    labels = [one.decode() if binary else one for one in found.as_numpy("label")]
    assert (labels[0], labels[-1]) == ("1", "0")
    assert found.get_response()["id"] == "7"
    only = client.infer(
        "model", [*tensors.values()], outputs=[triton.InferRequestedOutput("label")]
    )
    assert [one["name"] for one in only.get_response()["outputs"]] == ["label"]
    assert client.is_model_ready("model")
    lacking = [tensor for name, tensor in tensors.items() if name != "amount"]
    with pytest.raises(InferenceServerException, match=r"inputs has no tensor 'amount'.* send one"):
        client.infer("model", lacking)
    with pytest.raises(InferenceServerException, match="called 'shop', as one before it"):
        client.infer("model", [*tensors.values(), tensors["shop"]])
    other = triton.InferInput("amount", [4, 1], "FP64")
    other.set_data_from_numpy(np.zeros((4, 1)), binary_data=binary)
    with pytest.raises(InferenceServerException, match=r"shape must be \[5\] or \[5, 1\]"):
        client.infer("model", [*lacking, other])
    unknown = triton.InferInput("amount", [5, 1], "FP64")
    unknown.set_data_from_numpy(np.full((5, 1), np.nan), binary_data=True)
    assert len(client.infer("model", [*lacking, unknown]).as_numpy("probability")) == 5
    words = triton.InferInput("amount", [5, 1], "BYTES")
    words.set_data_from_numpy(np.array([["abc"]] * 5, object), binary_data=binary)
    with pytest.raises(InferenceServerException, match="'abc' in 'amount', a number: correct it"):
        client.infer("model", [*lacking, words])


def test_a_tensor_of_32_bits_is_read_by_its_shortest_text(server: str, rows: list[Row]) -> None:
    asked = rows[0] | {"amount": 0.1, "income": 3.3}
    shares = []
    for datatype in ("FP32", "FP64"):
        inputs, tail = [], b""
        for name, value in asked.items():
            tensor: Row = {"name": name, "datatype": "BYTES", "shape": [1], "data": [value]}
            if name in ("amount", "income"):
                kind = "<f4" if datatype == "FP32" else "<f8"
                tail += np.array([value], kind).tobytes()
                size = {"binary_data_size": np.dtype(kind).itemsize}
                tensor = {"name": name, "datatype": datatype, "shape": [1], "parameters": size}
            inputs.append(tensor)
        head = json.dumps({"inputs": inputs}).encode()
        answer = requests.post(
            f"{server}/v2/models/model/infer",
            data=head + tail,
            headers={"Inference-Header-Content-Length": str(len(head))},
            timeout=PATIENCE,
        )
        assert answer.status_code == 200, answer.text
        outputs = {one["name"]: one for one in answer.json()["outputs"]}
        shares.append(outputs["probability"]["data"])
        head = head.replace(b'"binary_data_size": ', b'"binary_data_size": -')
        answer = requests.post(
            f"{server}/v2/models/model/infer",
            data=head + tail,
            headers={"Inference-Header-Content-Length": str(len(head))},
            timeout=PATIENCE,
        )
        assert answer.status_code == 422
    assert shares[0] == shares[1]


def test_the_document_has_the_outputs_of_both_kinds(server: str) -> None:
    types = requests.get(f"{server}/openapi.json", timeout=PATIENCE).json()["components"]["schemas"]
    assert "score" in types["WantedOutput"]["properties"]["name"]["enum"]
    assert "probability" in types["WantedOfTable"]["properties"]["name"]["enum"]


def test_a_file_is_scored(server: str, made: Path) -> None:
    frame = table(made)
    frame.loc[1, "amount"] = "abc"
    kind = {"Content-Type": "text/csv"}
    address = f"{server}/score?model=model&prefix=p_"
    content = frame.to_csv(index=False)
    answer = requests.post(address, data=content, headers=kind, timeout=PATIENCE)
    assert answer.headers["X-Unscored-Rows"] == "1"
    found = list(csv.DictReader(io.StringIO(answer.text)))
    assert [*found[0]] == [*frame, "p_label", "p_probability"]
    assert (found[1]["p_label"], found[1]["p_probability"]) == ("", "")
    expected = probabilities(made, typed(made))
    for k in (0, 2, 500):
        assert float(found[k]["p_probability"]) == pytest.approx(expected[k], abs=1e-12)
    lacking = frame.rename(columns={"amount": "amounts"}).to_csv(index=False)
    answer = requests.post(address, data=lacking, headers=kind, timeout=PATIENCE)
    assert "The file has no column 'amount' (did you mean 'amounts'?)" in answer.json()["error"]


def test_a_server_of_tables_alone(made: Path, tmp_path: Path, rows: list[Row]) -> None:
    with served(tmp_path / "log.txt", made / "model", "--watch", "0") as (url, _):
        assert requests.get(f"{url}/info", timeout=PATIENCE).json()["max_input_length"] == 0
        assert post(url, {"records": rows[:1]}).json()[0]["label"] == "1"
        answer = post(url, {"inputs": "a text"})
        assert answer.json()["error"].startswith("model is a model of tables: send records")
        answer = post(url, {"inputs": "a text"}, "/")
        assert answer.json()["error"].startswith("model is a model of tables: send records")


def test_what_tables_need_is_told(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "src.predict.records", None)
    with pytest.raises(InputError, match=r"of tables, which needs packages .*pip install"):
        scorers.load(made / "model", 1, "auto", "model")
