"""What is told of a table that nobody described, and the params that it gets."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, make_table
from ruamel.yaml import YAML

from src.core.command_line import bind
from src.core.errors import InputError
from src.project import params
from src.tables.schema import Schema
from src.tabular import check, load

FILE = ROOT / "tabular/params.yaml"
pytestmark = pytest.mark.skipif(not FILE.exists(), reason="this clone has no pipeline of tables")


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a params.yaml of tables, of data that none of these tests has."""
    (tmp_path / "tabular").mkdir()
    (tmp_path / "tabular/params.yaml").write_text(FILE.read_text())
    monkeypatch.chdir(tmp_path)
    params.write(
        {"load.target": "gone", "split.strategy": "time", "split.column": "gone"}, check.PARAMS
    )


def looked_at(capsys: pytest.CaptureFixture[str], **options: Any) -> tuple[str, dict[str, Any]]:
    """The report, and the params of load that were written."""
    check.main("mine.csv", write=True, **options)
    found: dict[str, Any] = YAML(typ="safe").load(check.PARAMS)
    return capsys.readouterr().out, found


def bank() -> pd.DataFrame:
    """A table as a German bank might write it: ; and decimal commas, unknown for missing."""
    frame = make_table(800).drop(columns="fraud")
    draw = np.random.default_rng(5)
    frame["default"] = draw.choice(["yes", "no"], 800)  # a feature that is called like a target
    frame["job"] = draw.choice(["clerk", "müller", "unknown"], 800)
    frame["opened"] = pd.to_datetime(frame["opened"]).dt.strftime("%d.%m.%Y")
    frame["amount"] = [f"{value:.2f}".replace(".", ",") for value in frame["amount"]]
    frame["income"] = frame["income"].str.replace(".", ",")
    sold = draw.random(800) < 0.2
    frame.loc[draw.random(800) < 0.2, ["opened", "amount"]] = ""
    frame["amount_paid"] = [f"{k},5" for k in range(800)]  # no id, though it differs and ends so
    frame["duration"] = np.where(sold, draw.integers(300, 900, 800), draw.integers(5, 320, 800))
    frame["y"] = np.where(sold, "yes", "no")
    frame.insert(0, "customer_id", [f"c{k}" for k in range(800)])
    return frame


def test_what_a_person_said_of_columns_goes_on_to_hold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    frame = bank()
    frame.loc[::50, "amount"] = "k.A."
    frame.to_csv("mine.csv", sep=";", index=False)
    said = {
        "load.types": ["job category", "gone number"],
        "evaluate.slices": ["job", "gone", "duration", "opened (month)", "y"],
        "boosting.monotonic_cst": ["gone 1", "duration -1", "job 1", "amount 1", "opened (days) 1"],
    }
    params.write(said, check.PARAMS)
    _, first = looked_at(capsys, drop="duration")
    report, again = looked_at(capsys)
    assert first == again
    assert again["load"]["drop"] == ["duration"]
    assert again["load"]["types"] == ["job category"]
    assert again["evaluate"]["slices"] == ["job", "opened (month)"]
    assert again["boosting"]["monotonic_cst"] == ["amount 1", "opened (days) 1"]
    assert "k.A." in again["load"]["missing"]
    params.write({"load.keep": ["job", "y", "default", "duration"]}, check.PARAMS)
    _, found = looked_at(capsys, drop="job")
    assert (found["load"]["keep"], found["load"]["drop"]) == (["default", "duration"], ["job"])
    params.write({"load.keep": [], "load.drop": ["default"]}, check.PARAMS)
    _, found = looked_at(capsys, target="default")
    assert (found["load"]["target"], found["load"]["drop"]) == ("default", [])
    assert report.endswith("tabular/params.yaml has all params that this table needs.\n")


def test_params_of_a_positive_label_go_where_there_is_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    frame = make_table(600)
    frame["fraud"] = pd.qcut(frame["amount"], 3, labels=["low", "middle", "high"])
    frame.to_csv("mine.csv", index=False)
    params.write({"forest.class_weight": 20, "boosting.monotonic_cst": ["amount 1"]}, check.PARAMS)
    _, found = looked_at(capsys, target="fraud")
    assert found["forest"]["class_weight"] == "none"
    assert found["boosting"]["monotonic_cst"] == []


def test_an_empty_list_may_be_left_out_of_the_params(capsys: pytest.CaptureFixture[str]) -> None:
    text = check.PARAMS.read_text()
    for key in ("keep", "drop", "types", "slices", "monotonic_cst"):
        text = text.replace(f"  {key}: []\n", "")
    check.PARAMS.write_text(text)
    make_table(600).to_csv("mine.csv", index=False)
    _, found = looked_at(capsys, target="fraud", drop="amount")
    assert found["load"]["drop"] == ["amount"]
    assert "slices" not in found["evaluate"]
    check.PARAMS.write_text(check.PARAMS.read_text().replace("  max_bytes:", "  most_bytes:"))
    with pytest.raises(InputError, match=r"load\.max_bytes is missing in tabular/params\.yaml"):
        looked_at(capsys)


def test_a_few_bad_rows_make_no_other_delimiter(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [f"{k},{k % 7},{'yes' if k % 3 else 'no'}\n" for k in range(300)]
    rows[::60] = ["1,2,3,4,5\n"] * 5
    Path("mine.csv").write_text("a,b,label\n" + "".join(rows))
    report, found = looked_at(capsys)
    assert (found["load"]["delimiter"], found["load"]["target"]) == (",", "label")
    assert "'malformed': 5" in report


def test_one_name_of_two_columns_is_named() -> None:
    Path("mine.csv").write_text("a,b,a,label\n" + "1,2,3,yes\n1,3,2,no\n" * 20)
    with pytest.raises(InputError, match=r"mine\.csv has several columns 'a', numbers 1 and 3"):
        check.main("mine.csv")


@pytest.mark.parametrize("end", ["\n", "\r", "\0"])
def test_what_no_command_line_can_name_is_refused(
    end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make_table(200).rename(columns={"fraud": f"my{end}label"}).to_parquet("mine.parquet")
    before = check.PARAMS.read_bytes()
    with pytest.raises(InputError) as raised:
        check.main("mine.parquet", target=f"my{end}label", write=True)
    assert str(raised.value) == (
        f"load.target would be {f'my{end}label'!r}, and DVC can't run a command with a line end or "
        "a zero byte in it: rename that first."
    )
    assert capsys.readouterr().out == ""
    assert check.PARAMS.read_bytes() == before


def test_a_table_of_a_german_excel_is_read_and_its_leak_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bank().to_csv("mine.csv", sep=";", index=False, encoding="cp1252")
    printed, found = looked_at(capsys)
    section = found["load"]
    assert section["source"] == ["mine.csv"]
    assert (section["encoding"], section["delimiter"]) == (["cp1252"], ";")
    assert (section["decimal"], section["date_formats"]) == (",", ["%d.%m.%Y"])
    assert (section["target"], section["positive"]) == ("y", "yes")
    assert section["id_column"] == "customer_id"
    assert section["missing"][-1] == "unknown"
    assert section["sha256"] == ""
    assert (found["split"]["strategy"], found["split"]["column"]) == ("stratified", "")
    assert "label   y: 'no' " in printed
    assert "'yes' is looked for" in printed
    assert "Columns each of which tells the label alone (ROC AUC): 'duration' 0.9" in printed
    assert "Rows have dates, in 'opened': split.strategy time with split.column opened" in printed
    assert "  amount: number" in printed
    text = check.PARAMS.read_text()
    assert "# The label that is looked for" in text, "comments stay"
    words = ["x", "raw", "rejected.csv", *params.words_of(section)]
    paths, typed = bind(load.main, "load", True, words)
    load.main(*paths, **typed)
    kinds = {column.name: column.kind for column in Schema.read(Path("raw/schema.json")).columns}
    assert kinds["amount"] == kinds["income"] == kinds["duration"] == "number"
    assert (kinds["opened"], kinds["default"], kinds["job"]) == ("date", "boolean", "category")
    check.main("mine.csv")
    assert "has all params that this table needs" in capsys.readouterr().out


def test_what_is_named_is_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    bank().to_csv("mine.csv", index=False)
    printed, found = looked_at(capsys, target="default", positive="no", drop="duration, y")
    assert (found["load"]["target"], found["load"]["positive"]) == ("default", "no")
    assert found["load"]["drop"] == ["duration", "y"]
    assert "duration" not in printed.split("Params that")[0]


def test_without_write_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    make_table(200).to_csv("mine.csv", index=False)
    before = check.PARAMS.read_bytes()
    check.main("mine.csv")
    assert check.PARAMS.read_bytes() == before
    printed = capsys.readouterr().out
    assert "load.target: 'gone' -> 'fraud'" in printed
    assert "Nothing was written; --write writes them" in printed


@pytest.mark.parametrize("name", ["mine.parquet", "mine.jsonl"])
def test_other_formats(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    frame = make_table(200)
    if name.endswith("parquet"):
        frame.to_parquet(name, index=False)
    else:
        frame.to_json(name, orient="records", lines=True)
    check.main(name)
    printed = capsys.readouterr().out
    assert "load.target: 'gone' -> 'fraud'" in printed
    assert "  member: boolean" in printed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"target": "frauds"}, "--target is 'frauds', which is no column: .*did you mean 'fraud'"),
        ({"positive": "2"}, "--positive is '2', and the labels are '0', '1'.*: name one of them"),
        ({"files": ["min.csv"]}, "min.csv .*does not exist .did you mean 'mine.csv'.*: correct"),
        ({"files": ["none.jsonl"]}, "none.jsonl has no rows: add some"),
        ({"files": []}, "No file is named: name the one to look at"),
        ({"files": ["free.csv"]}, "Can't tell which column has the labels: pass --target, one of"),
        ({"drop": "fraud"}, "load.drop has 'fraud', which is load.target: take it out of one"),
    ],
)
def test_mistakes_get_one_sentence(options: dict[str, Any], sentence: str) -> None:
    make_table(200).to_csv("mine.csv", index=False)
    Path("none.jsonl").write_text("\n\n")
    pd.DataFrame({"a": range(50), "b": [k * 1.5 for k in range(50)]}).to_csv(
        "free.csv", index=False
    )
    files = options.pop("files", ["mine.csv"])
    with pytest.raises(InputError, match=sentence):
        check.main(*files, **options)
