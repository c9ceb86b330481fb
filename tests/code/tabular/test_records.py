"""Models of tables at work: tables in and out, records, and folders that anybody may have made."""

import csv
import json
import logging
import shutil
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_model
from onnx import TensorProto, helper
from tabular_model import PARAMS, make_table_model, table, typed

from src.core.errors import InputError
from src.core.files import sha256
from src.predict import __main__ as predict
from src.predict.foreign import SMALL
from src.predict.records import Records
from src.tables.schema import Schema
from src.tabular import features
from src.tabular.decision import Decision

ROWS = 1100  # two batches and a part of one
pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no pipeline of tables")

Row = dict[str, Any]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table_model(tmp_path_factory.mktemp("made"), ROWS)


@pytest.fixture(scope="module")
def expected(made: Path) -> np.ndarray:
    """What scikit-learn says of each row: the probability of a fraud."""
    frame = features.frame(
        Schema.read(made / "raw/schema.json"), pq.read_table(made / "raw/rows.parquet")
    )
    decision = Decision.read(made / "decision.json")
    pipeline = joblib.load(made / "forest/model.joblib")
    found: np.ndarray = decision.calibrated(pipeline.predict_proba(frame))[:, 1]
    return found


def read(path: Path) -> list[Row]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def rejected(output: Path) -> list[tuple[int, str]]:
    found = read(output.with_name(f"{output.name}.rejected.csv"))
    return [(int(row["line"]), row["reason"]) for row in found]


@pytest.mark.parametrize("kind", ["csv", "tsv", "semicolon", "jsonl", "typed", "parquet"])
def test_rows_get_the_label_and_probability_of_scikit_learn(
    kind: str, made: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    frame = table(made)
    more: dict[str, Any] = {}
    source = tmp_path / f"in.{ {'semicolon': 'csv', 'typed': 'jsonl'}.get(kind, kind) }"
    if kind == "parquet":
        pd.DataFrame(typed(made)).assign(opened=pd.to_datetime(frame["opened"])).to_parquet(source)
    elif kind == "typed":
        source.write_text("".join(json.dumps(row) + "\n" for row in typed(made)))
    elif kind == "jsonl":
        frame.to_json(source, orient="records", lines=True)
    else:
        sign = {"csv": ",", "tsv": "\t", "semicolon": ";"}[kind]
        more = {"delimiter": sign} if kind == "semicolon" else {}
        frame.to_csv(source, index=False, sep=sign)
    output = tmp_path / "out.csv"
    predict.main(
        made / "model",
        input=str(source),
        output=str(output),
        probabilities=True,
        prefix="p_",
        **more,
    )
    rows = read(output)
    assert [row["shop"] for row in rows] == frame["shop"].tolist()
    threshold = Records(made / "model", 1).threshold
    assert [float(row["p_probability"]) for row in rows] == pytest.approx(expected, abs=1e-12)
    assert [row["p_label"] for row in rows] == [str(int(p >= threshold)) for p in expected]
    assert {row["p_label"] for row in rows} == {"0", "1"}
    assert float(rows[0]["p_probability_0"]) == pytest.approx(1 - expected[0])
    assert rejected(output) == []


def test_a_row_that_cannot_be_read_is_told_apart(
    made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    frame = table(made)[:8].drop(columns="fraud")
    frame.loc[1, "amount"] = "abc"
    frame.loc[2, "amount"] = "1e99"
    frame.loc[3, "opened"] = "yesterday"
    frame.loc[4, "member"] = "perhaps"
    frame.loc[5, ["amount", "opened", "member", "country"]] = ""
    frame.loc[6, "country"] = "nowhere yet"
    frame.loc[7, "country"] = "de"
    frame.to_csv(tmp_path / "in.csv", index=False)
    with (tmp_path / "in.csv").open("a") as stream:
        stream.write("1,2\n")
    output = tmp_path / "out.csv"
    predict.main(made / "model", input=str(tmp_path / "in.csv"), output=str(output), threshold=0.0)
    assert rejected(output) == [
        (3, "'abc' in 'amount', a number"),
        (4, "'1e99' in 'amount', a number"),
        (5, "'yesterday' in 'opened', a date"),
        (6, "'perhaps' in 'member', a boolean"),
        (10, "expected 6 fields, found 2"),
    ]
    rows = read(output)
    assert [row["country"] for row in rows] == [frame.loc[0, "country"], "", "nowhere yet", "de"]
    assert {row["label"] for row in rows} == {"1"}, "from 0 on, all are"
    assert "read 9 = scored 4 + rejected 5" in caplog.text
    assert "'1' from a probability of 0 on" in caplog.text


def test_records_of_json_are_judged_one_by_one(made: Path, tmp_path: Path) -> None:
    good = typed(made)[0]
    odd: list[Row] = [
        {"amount": True},
        {"amount": [1]},
        {"amount": 10**400},
        {"country": {"code": "de"}},
        {"amount": "12,5"},
        {"amount": " 1,234.5 "},
        {"member": "yes", "country": " de ", "income": "NA"},
        {"member": 1},
        {"country": "\u00fcber\u200b"},
    ]
    lines = [json.dumps(good), *(json.dumps(good | one) for one in odd)]
    lines.append(json.dumps({key: value for key, value in good.items() if key != "income"}))
    (tmp_path / "in.jsonl").write_text("\n".join(lines) + "\n")
    output = tmp_path / "out.jsonl"
    predict.main(made / "model", input=str(tmp_path / "in.jsonl"), output=str(output))
    assert rejected(output) == [
        (2, "'true' in 'amount', a number"),
        (3, "a list or object in 'amount', a number"),
        (4, f"'{'1' + '0' * 38} in 'amount', a number"),
        (5, "a list or object in 'country', a category"),
        (6, "'12,5' in 'amount', a number"),
    ]
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(found) == 6
    assert found[2]["country"] == " de ", "rows stay as they are"


def test_what_json_and_csv_hold_is_read_alike(made: Path) -> None:
    records = Records(made / "model", 1)
    rows = typed(made)
    plain = {name: [row[name] for row in rows] for name in rows[0]}
    texts = {str(name): tuple(values) for name, values in table(made).items()}
    fast, none = records.features(plain, ROWS)
    slow, nothing = records.features(texts, ROWS)
    assert {*none, *nothing} == {""}
    assert fast.keys() == slow.keys()
    for name in fast:
        assert fast[name].tolist() == pytest.approx(slow[name].tolist(), nan_ok=True) or (
            fast[name].tolist() == slow[name].tolist()
        )


def test_words_that_mean_missing_do_so_as_numbers_too(made: Path) -> None:
    def described(schema: Row) -> None:
        schema["writing"]["missing"] += ["-999"]

    records = Records(changed(made, "missing", described), 1)
    for values in (
        [-999, 5.0, -999.0],
        ("-999", "5", "-999"),
        pa.array([-999, 5, -999]),
        pa.array([-999.0, 5.0, -999.0]),
        pa.array([-999.0, 5.0, -999.0], pa.float32()),
    ):
        found, reasons = records.features({"amount": values}, 3)
        assert str(found["amount"].tolist()) == "[nan, 5.0, nan]"
        assert reasons == ["", "", ""]


def test_numbers_of_parquet_are_read_as_the_table_of_the_training_was(made: Path) -> None:
    def described(schema: Row) -> None:
        schema["writing"]["decimal"] = ","

    records = Records(changed(made, "comma", described), 1)
    for kind in (pa.float32(), pa.float64(), pa.decimal128(6, 3)):
        one, two = (Decimal("1.234"), Decimal("12.5")) if "decimal" in str(kind) else (1.234, 12.5)
        values = pa.array([one, two, None], kind)
        found, reasons = records.features({"amount": values}, 3)
        assert found["amount"].tolist()[:2] == [1.234, 12.5]
        assert reasons == ["", "", ""]
    absent = pa.array([np.nan, 1.0], pa.float32())
    found, reasons = records.features({"amount": absent, "country": absent}, 2)
    assert np.isnan(found["amount"][0])
    assert found["country"][0] == ""
    assert reasons == ["", ""]


def test_a_column_that_holds_no_values_is_refused(made: Path, tmp_path: Path) -> None:
    rows = [row | {"amount": [row["amount"]]} for row in typed(made)[:3]]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in.parquet")
    told = "has list<.*> in column 'amount', which is no value of a record: save it as numbers or"
    with pytest.raises(InputError, match=told):
        predict.main(
            made / "model", input=str(tmp_path / "in.parquet"), output=str(tmp_path / "o.csv")
        )


def test_names_of_numbered_classes_are_read(made: Path, tmp_path: Path) -> None:
    plain = pa.Table.from_pylist(typed(made)[:6])
    names = sorted({*plain["country"].to_pylist()})
    codes = pa.array([names.index(value) for value in plain["country"].to_pylist()])
    feature = {"country": {"_type": "ClassLabel", "names": names}}
    about = {"huggingface": json.dumps({"info": {"features": feature}})}
    at = plain.schema.get_field_index("country")
    numbered = plain.set_column(at, "country", codes).replace_schema_metadata(about)
    shares = []
    for name, one in (("plain", plain), ("numbered", numbered)):
        pq.write_table(one, tmp_path / f"{name}.parquet")
        output = tmp_path / f"{name}.csv"
        predict.main(made / "model", input=str(tmp_path / f"{name}.parquet"), output=str(output))
        shares.append([row["probability"] for row in read(output)])
    assert shares[0] == shares[1]


@pytest.mark.parametrize("text", ["", "\n\n", "{\n", "{\n[1]\n"])
def test_lines_without_a_record_are_told(text: str, made: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(text)
    words: Row = {"input": str(tmp_path / "in.jsonl"), "output": str(tmp_path / "o.jsonl")}
    if text.strip():
        with pytest.raises(InputError, match=r"has no row that can be scored, all . are rejected"):
            predict.main(made / "model", **words)
    else:
        predict.main(made / "model", **words)
        assert (tmp_path / "o.jsonl").read_bytes() == b""
    (tmp_path / "in.jsonl").write_text("{\n" * (Records.rows + 1) + '{"amounts": 3}\n')
    with pytest.raises(InputError, match=r"has no column 'opened'.* and 5 more, which the model"):
        predict.main(made / "model", **words)


def test_a_decimal_comma_is_the_way_of_texts_and_not_of_numbers(made: Path) -> None:
    def described(schema: Row) -> None:
        schema["writing"]["decimal"] = ","

    records = Records(changed(made, "comma", described), 1)
    found, _ = records.features({"amount": ["1.234,5", 7.25, 3, None]}, 4)
    assert found["amount"].tolist()[:3] == [1234.5, 7.25, 3.0]
    found, _ = records.features({"amount": [7.25, 0.5]}, 2)
    assert found["amount"].tolist() == [7.25, 0.5]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engine": "openvino"}, "--engine openvino runs no models of tables: leave it out"),
        ({"min_score": 0.5}, "--min_score is for models of texts, and .* is one of tables: use"),
        ({"input": "lacking.csv"}, "has no column 'amount' .did you mean 'amounts'.., which the"),
        ({"input": "one.csv"}, "has one column, 'a;b', by its format: pass --delimiter ';'"),
        ({"input": "two.csv"}, "has no column 'opened' and 5 more, which the model reads, but 'a'"),
        ({"input": "taken.csv"}, "has a column 'label', as the predictions have: set --prefix"),
    ],
)
def test_what_does_not_fit_the_model_is_one_sentence(
    options: dict[str, Any], sentence: str, made: Path, tmp_path: Path
) -> None:
    frame = table(made)[:3]
    frame.to_csv(tmp_path / "in.csv", index=False)
    frame.rename(columns={"amount": "amounts"}).to_csv(tmp_path / "lacking.csv", index=False)
    frame.assign(label="x").to_csv(tmp_path / "taken.csv", index=False)
    (tmp_path / "one.csv").write_text("a;b\n1;2\n")
    (tmp_path / "two.csv").write_text("a,b\n1,2\n")
    options = {"input": "in.csv"} | options
    options["input"] = str(tmp_path / options["input"])
    with pytest.raises(InputError, match=sentence):
        predict.main(made / "model", output=str(tmp_path / "out.csv"), **options)
    assert not (tmp_path / "out.csv").exists()


def test_the_two_kinds_of_models_are_not_taken_for_each_other(made: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="is a model of tables, which reads no texts: pass --input"
    ):
        predict.main(made / "model", "some text")
    (tmp_path / "texts").mkdir()
    texts = make_model(tmp_path / "texts")
    (tmp_path / "in.csv").write_text("text\na\n")
    with pytest.raises(InputError, match="--threshold is for models of tables"):
        predict.main(texts, input=str(tmp_path / "in.csv"), threshold=0.5)


def test_an_interrupted_run_continues_with_the_same_bytes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(Records, "rows", 512)
    words: Row = {"input": str(made / "x.csv"), "prefix": "p_"}
    predict.main(made / "model", output=str(tmp_path / "whole.parquet"), **words)
    real, calls = Records.probabilities, []

    def stops(self: Records, found: Any) -> Any:
        calls.append(len(next(iter(found.values()))))
        if len(calls) == 3:  # the first is a trial
            raise KeyboardInterrupt
        return real(self, found)

    monkeypatch.setattr(Records, "probabilities", stops)
    with pytest.raises(KeyboardInterrupt):
        predict.main(made / "model", output=str(tmp_path / "out.parquet"), **words)
    monkeypatch.setattr(Records, "probabilities", real)
    assert calls == [1, Records.rows, Records.rows]
    predict.main(made / "model", output=str(tmp_path / "out.parquet"), resume=True, **words)
    assert f"{Records.rows} of the rows were scored before the interruption" in caplog.text
    assert (tmp_path / "out.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.slow
def test_ray_scores_the_same(made: Path, tmp_path: Path) -> None:
    words: Row = {"input": str(made / "x.csv"), "prefix": "p_"}
    predict.main(made / "model", output=str(tmp_path / "here.csv"), **words)
    predict.main(made / "model", output=str(tmp_path / "there.csv"), ray="local", **words)
    assert (tmp_path / "there.csv").read_bytes() == (tmp_path / "here.csv").read_bytes()


def changed(
    made: Path,
    name: str,
    schema: Callable[[Row], None] = lambda _: None,
    manifest: Callable[[Row], None] = lambda _: None,
    graph: onnx.ModelProto | None = None,
) -> Path:
    """A copy of the model folder, changed and with the sha256 of what it holds then."""
    folder = made / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made / "model", folder)
    found = json.loads((folder / "schema.json").read_text())
    schema(found)
    (folder / "schema.json").write_text(json.dumps(found))
    if graph:
        onnx.save(graph, folder / "model.onnx")
    said = json.loads((folder / "manifest.json").read_text())
    said["files"] = {file: sha256(folder / file) for file in said["files"]}
    manifest(said)
    (folder / "manifest.json").write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found.pop("writing"),
        lambda found: found["writing"].update(missing=3),
        lambda found: found["writing"].update(decimal="x"),
        lambda found: found["writing"].update(date_formats=["%d%d"]),
        lambda found: found["writing"].update(missing=["\ud800"]),
        lambda found: found["writing"].update(missing=["x"] * 1001),
        lambda found: found["columns"][0].update(kind="code"),
        lambda found: found["columns"][0].update(name=["a"]),
        lambda found: found["columns"][0].pop("name"),
        lambda found: found["columns"][0].update(evil=1),
        lambda found: found["columns"].append(found["columns"][0]),
        lambda found: found.update(columns=[]),
        lambda found: found.update(columns=None),
    ],
)
def test_a_schema_that_is_none_is_refused(change: Callable[[Row], None], made: Path) -> None:
    with pytest.raises(
        InputError, match=r"schema\.json is not a schema \(.*\): get the model again"
    ):
        Records(changed(made, "odd", schema=change), 1)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m.update(positive="2"), "has the positive label '2', and the labels 0, 1"),
        (lambda m: m.update(labels=["0", "1", "2"]), "has the positive label '1', and the labels"),
        (lambda m: m.update(labels=["0", "0"]), "has no 'labels' as it was exported"),
        (lambda m: m.update(threshold="0.5"), "has no 'threshold' as it was exported"),
        (lambda m: m.update(threshold=-1), "has no 'threshold' as it was exported"),
        (lambda m: m["files"].update({"schema.json": "0" * 64}), "is not the file that was"),
        (lambda m: m["files"].update({"../x": "0" * 64}), "has no 'files' as it was exported"),
        (lambda m: m["files"].pop("model.onnx"), "does not list model.onnx: get the model again"),
        (lambda m: m.update(files=3), "has no 'max_length' as it was exported"),
    ],
)
def test_a_manifest_that_is_none_is_refused(
    change: Callable[[Row], None], sentence: str, made: Path, tmp_path: Path
) -> None:
    folder = changed(made, "odd", manifest=change)
    with pytest.raises(InputError, match=sentence):
        predict.main(folder, input=str(made / "x.csv"), output=str(tmp_path / "o.csv"), prefix="p_")


def constant(made: Path, value: Any, rename: str = "") -> onnx.ModelProto:
    """A graph that reads what the model reads and answers with a constant of [1, 2]."""
    model = onnx.load(made / "model/model.onnx")
    inputs = [*model.graph.input]
    if rename:
        inputs[0].name = rename
    shape = helper.make_node("Shape", [inputs[0].name], ["rows"], end=1)
    two = helper.make_node("Constant", [], ["two"], value_ints=[2])
    both = helper.make_node("Concat", ["rows", "two"], ["shape"], axis=0)
    held = helper.make_node("Constant", [], ["held"], value=onnx.numpy_helper.from_array(value))
    spread = helper.make_node("Expand", ["held", "shape"], ["probabilities"])
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    output = helper.make_tensor_value_info("probabilities", kind, None)
    graph = helper.make_graph([shape, two, both, held, spread], "g", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize(
    ("value", "rename", "sentence"),
    [
        (np.array([[0.5, np.nan]]), "", "gives what are no probabilities"),
        (np.array([[0.5, 1.5]]), "", "gives what are no probabilities"),
        (np.array([[0.5, 0.5]], np.float32), "", "of shape .* and type float32, not "),
        (np.array([[[0.5, 0.5]]] * 2), "", "outputs of shape .2, 1, 2. and type float64"),
        (np.array([[0.5, 0.5]]), "other", "does not read what schema.json beside it names"),
    ],
)
def test_a_graph_that_is_no_model_is_refused(
    value: np.ndarray, rename: str, sentence: str, made: Path
) -> None:
    assert Records(changed(made, "fine", graph=constant(made, np.array([[0.25, 0.75]]))), 1)
    with pytest.raises(InputError, match=sentence):
        Records(changed(made, "odd", graph=constant(made, value, rename)), 1)


def test_values_that_lie_elsewhere_are_not_read(made: Path) -> None:
    model = onnx.load(made / "model/model.onnx")
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "/etc/passwd"
    tensor.ClearField("raw_data")
    with pytest.raises(InputError, match="has values that lie in another file, which is not read"):
        Records(changed(made, "odd", graph=model), 1)


def test_a_schema_has_a_limit(made: Path) -> None:
    folder = changed(made, "odd")
    with (folder / "schema.json").open("r+b") as file:
        file.truncate(SMALL + 1)
    with pytest.raises(InputError, match=f"schema.json has more than {SMALL} bytes: get the model"):
        Records(folder, 1)
