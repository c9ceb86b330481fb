"""Tables of people, good and bad, to typed rows and a schema."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TABULAR

from src.core.errors import InputError
from src.tables.schema import Schema, features_of
from src.tabular import load


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("source").mkdir()


def rows(count: int = 40, **columns: Any) -> pd.DataFrame:
    """A table with an amount, a colour and a label, and further columns."""
    frame = pd.DataFrame(
        {
            "amount": [f"{k * 1.5}" for k in range(count)],
            "colour": [("red", "green", "blue")[k % 3] for k in range(count)],
            "late": ["no", "yes"] * (count // 2),
        }
    )
    return frame.assign(**columns)


def loaded(frame: pd.DataFrame | str, **params: Any) -> pd.DataFrame:
    if isinstance(frame, str):
        Path("x.csv").write_text(frame)
    else:
        frame.to_csv("x.csv", index=False)
    values = TABULAR["load"] | {"source": ["x.csv"], "target": "late"} | params
    load.main(Path("source"), Path("raw"), Path("rejected.csv"), **values)
    found: pd.DataFrame = pq.read_table("raw/rows.parquet").to_pandas()
    return found


def schema() -> Schema:
    return Schema.read(Path("raw/schema.json"))


def kinds() -> dict[str, str]:
    return {column.name: column.kind for column in schema().columns}


def refused(frame: pd.DataFrame | str, **params: Any) -> str:
    with pytest.raises(InputError) as raised:
        loaded(frame, **params)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def rejected() -> list[str]:
    found: list[str] = pd.read_csv("rejected.csv", dtype=str)["reason"].tolist()
    return found


def test_kinds_are_found_and_values_read() -> None:
    frame = loaded(
        rows(
            opened=[f"2024-01-{1 + k % 28:02d}" for k in range(40)],
            seen=[f"2024-01-01T{k % 24:02d}:30:00+01:00" for k in range(40)],
            member=["True", "False"] * 20,
            zip=[f"0{1000 + k % 7}" for k in range(40)],
            small=["1e+05", " 2.5", "+3", "1,234.5"] * 10,
        )
    )
    assert kinds() == {
        "amount": "number",
        "colour": "category",
        "opened": "date",
        "seen": "date",
        "member": "boolean",
        "zip": "category",
        "small": "number",
    }
    assert frame["small"].tolist()[:4] == [100_000.0, 2.5, 3.0, 1234.5]
    assert frame["zip"][0] == "01000"
    assert frame["seen"][0] == pd.Timestamp("2023-12-31 23:30:00")
    assert frame["member"].tolist()[:2] == [True, False]
    assert frame["#"].tolist()[:2] == ["x:1", "x:2"]
    assert list(frame["late"][:2]) == ["no", "yes"]
    assert schema().positive == "yes"


def test_a_kind_can_be_fixed_and_a_decimal_comma_read() -> None:
    frame = rows(
        price=["1.234,5", "7,25"] * 20, code=["1", "2"] * 20, day=["31.12.2023", "1.2.24"] * 20
    )
    frame = frame.assign(amount=[str(k) + ",5" for k in range(40)])
    found = loaded(
        frame, decimal=",", types=["code category"], date_formats=["%d.%m.%Y", "%d.%m.%y"]
    )
    assert found["price"].tolist()[:2] == [1234.5, 7.25]
    assert kinds()["code"] == "category"
    assert found["day"][1] == pd.Timestamp("2024-02-01")


def test_what_means_missing_is_null_and_counted() -> None:
    found = loaded(
        rows(income=["12", "NA", "?", "", "  "] * 8, job=["a", "unknown"] * 20),
        missing=["NA", "?", "unknown"],
    )
    assert found["income"].isna().sum() == 32
    assert found["job"].isna().sum() == 20
    (income, job) = (c for c in schema().columns if c.name in ("income", "job"))
    assert (income.missing, income.minimum, income.maximum) == (32, 12.0, 12.0)
    assert (job.missing, job.values) == (20, 1)


def test_columns_that_tell_nothing_or_everything_are_left_out() -> None:
    loaded(
        rows(
            200,
            same="x",
            empty="",
            row=[str(k + 1) for k in range(200)],
            name=[f"person {k}" for k in range(200)],
            given=[f"text {k}" for k in range(200)],
        ),
        types=["given category"],
    )
    left_out = schema().left_out
    assert "it has one value in all rows, 'x'" in left_out["same"]
    assert "no value in any row" in left_out["empty"]
    assert "it numbers the rows" in left_out["row"]
    assert "most rows have a value of their own" in left_out["name"]
    assert set(kinds()) == {"amount", "colour", "given"}


@pytest.mark.parametrize(
    ("values", "params", "sentence"),
    [
        (["1,5", "20,25"], {}, "has '1,5': if these are numbers, set load.decimal to ','"),
        (["1.5", "20.25"], {"decimal": ","}, "has '1.5': if these are numbers, set load.decimal"),
        (["31.12.2023", "1.2.2024"], {}, "to load.date_formats, such as '%d.%m.%Y', or add 'odd "),
        (["12/31/2023", "1/2/2024"], {}, "to load.date_formats, such as '%m/%d/%Y', or add"),
        (["31.12.2023 08:15", "1.2.2024 10:00"], {}, "such as '%d.%m.%Y %H:%M'"),
    ],
)
def test_numbers_and_dates_in_another_form_are_no_categories(
    values: list[str], params: dict[str, Any], sentence: str
) -> None:
    frame = rows(odd=values * 20)
    if params:
        frame["amount"] = [f"{k},5" for k in range(40)]
    with pytest.raises(InputError) as raised:
        loaded(frame, **params)
    assert sentence in str(raised.value)
    assert str(raised.value).startswith("Column 'odd' has ")
    loaded(frame, types=["odd category"], **params)
    assert kinds()["odd"] == "category"


def test_another_delimiter_is_told_by_the_one_column() -> None:
    table = "amount;colour;late\n" + "".join(f"{k},5;red;{'yn'[k % 2]}\n" for k in range(40))
    with pytest.raises(
        InputError, match=r"has one column only, 'amount;colour;late', with ';' in "
    ):
        loaded(table)


def test_a_column_without_a_name_is_left_out() -> None:
    frame = rows()
    frame[""] = [str(k * 7 % 40) for k in range(40)]
    loaded(frame)
    assert schema().left_out[""] == "it has no name"
    assert set(kinds()) == {"amount", "colour"}


def test_a_column_that_is_called_as_a_part_of_a_date_is_refused() -> None:
    frame = rows(t=[f"2024-01-{1 + k % 28:02d}" for k in range(40)])
    frame["t (hour)"] = [str(k % 5) for k in range(40)]
    with pytest.raises(InputError, match=r"Column 't \(hour\)' is called as a part of a date is"):
        loaded(frame)


def test_columns_are_kept_and_dropped_by_name() -> None:
    loaded(rows(a=["1", "2"] * 20, b=["3", "4"] * 20), keep=["a", "amount"])
    assert set(kinds()) == {"a", "amount"}
    loaded(rows(a=["1", "2"] * 20), drop=["a"])
    assert set(kinds()) == {"amount", "colour"}
    found = loaded(rows(key=[f"k{k}" for k in range(40)]), id_column="key")
    assert found["#"][3] == "k3"
    assert set(kinds()) == {"amount", "colour"}


def test_a_row_that_cannot_be_used_is_told_apart() -> None:
    frame = rows(60)
    frame.loc[4, "amount"] = "abc"
    frame.loc[5, "amount"] = "1e999"
    frame.loc[6, "late"] = ""
    frame.loc[7] = frame.loc[9]
    frame.to_csv("x.csv", index=False)
    text = Path("x.csv").read_text() + "1,red\n"
    found = loaded(
        text,
        unreadable="drop",
        missing_labels="drop",
        duplicates="drop",
        max_dropped_fraction=0.2,
    )
    assert sorted(rejected()) == [
        "duplicate",
        "malformed: expected 3 fields, found 2",
        "no_label",
        "unreadable: '1e999' in 'amount', a number",
        "unreadable: 'abc' in 'amount', a number",
    ]
    counts = json.loads(Path("raw/counts.json").read_text())
    assert counts["rows"] == 61
    assert counts["kept"] == len(found) == 56
    assert sum(counts["dropped"].values()) == 5
    assert counts["classes"] == {"no": 28, "yes": 28}


def test_several_files_and_formats() -> None:
    frame = rows()
    frame.to_csv("a.csv", index=False)
    frame.astype({"amount": float}).to_parquet("b.parquet", index=False)
    frame.to_json("c.jsonl", orient="records", lines=True)
    found = loaded(frame, source=["a.csv", "b.parquet", "c.jsonl"])
    assert len(found) == 120
    assert found["amount"][:40].tolist() == found["amount"][40:80].tolist()
    assert found["#"].is_unique


@pytest.mark.parametrize(
    ("change", "params", "sentence"),
    [
        (
            {},
            {"target": "Late"},
            "has no column 'Late', but 'amount', 'colour', 'late' (did you mean",
        ),
        ({}, {"drop": ["colr"]}, "(did you mean 'colour'?): correct load.drop."),
        ({}, {"drop": ["late"]}, "load.drop has 'late', which is load.target: take it out of one."),
        (
            {},
            {"keep": ["amount"], "drop": ["amount"]},
            "load.keep and load.drop both have 'amount'",
        ),
        ({}, {"types": ["amount"]}, "load.types has 'amount': write a column and one of number, "),
        ({}, {"types": ["amount float"]}, "such as 'zip category'."),
        (
            {},
            {"types": ["colour number"]},
            "line 2 has 'red' in column 'colour', which holds a number",
        ),
        (
            {},
            {"positive": "maybe"},
            "load.positive is 'maybe', which no row has: choose among no, yes",
        ),
        ({}, {"id_column": "colour"}, "The id 'red' is in column 'colour' twice"),
        ({}, {"missing": ["yes"]}, "x.csv, line 3 has no label in column 'late': add one, or set"),
        (
            {"late": [str(k * 0.1) for k in range(40)]},
            {},
            "Column 'late' has 40 different values",
        ),
        ({"late": ["a", "b"] * 20}, {}, "The labels are 'a' and 'b': set load.positive to the one"),
        (
            {"late": ["a", "b", "c", "d"] * 10},
            {"positive": "a"},
            "but there are 4 labels: set it to",
        ),
        ({"late": "no"}, {}, "must have at least 2 classes, and has 1 in the 40 rows kept"),
        (
            {"amount": ["12"] * 39 + ["twelve"]},
            {},
            "x.csv, line 41 has 'twelve' in column 'amount', which holds a number in 39 of 40 "
            "rows: correct it, add it to load.missing, or add 'amount category' to load.types",
        ),
        ({"amount": ["12"] * 39 + ["-inf"]}, {}, "line 41 has '-inf' in column 'amount'"),
        ({"#": ["a", "b"] * 20}, {}, "has a column '#', as the one of the rows' names is called"),
        ({}, {"date_formats": ["%d.%q.%Y"]}, "load.date_formats has '%d.%q.%Y', which is no form"),
        ({}, {"date_formats": ["%d.%d.%Y"]}, "which is no form of a date"),
        ({"late": ""}, {"missing_labels": "drop"}, "No row has both a label in column 'late' and"),
        ({"amount": ["1"] * 39 + ["1e39"]}, {}, "line 41 has '1e39' in column 'amount'"),
        ({"amount": "1", "colour": "x"}, {}, "No column but 'late' tells the rows apart"),
    ],
)
def test_what_makes_no_table_is_one_sentence(
    change: dict[str, Any], params: dict[str, Any], sentence: str
) -> None:
    frame = rows().assign(**change)
    assert sentence in refused(frame, **params)
    assert not Path("raw").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "x.csv is empty (0 bytes)"),
        ("amount,late\n", "x.csv has a header and no rows"),
        ("amount,amount,late\n1,2,no\n", "several columns 'amount'"),
        ('amount,late\n"1,no\n2,yes\n', "x.csv, line 2 can't be read"),
        ("amount;late\n1;no\n2;yes\n", "with ';' in it 1 times: set load.delimiter to it"),
    ],
)
def test_a_file_that_is_no_table_is_one_sentence(text: str, sentence: str) -> None:
    assert sentence in refused(text)


def test_objects_may_lack_a_key() -> None:
    objects = [{"x": k, "late": "no" if k % 2 else "yes"} for k in range(12_000)]
    for row in objects[10_500:]:
        del row["late"]
    objects[11_000]["y"] = 1
    Path("x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in objects))
    params = {"source": ["x.jsonl"], "missing_labels": "drop", "max_dropped_fraction": 0.5}
    assert len(loaded("", **params, types=["x number"], drop=["y"])) == 10_500


def test_dates_at_the_ends_of_time() -> None:
    until = ["9999-12-31", "1600-01-01", "2024-02-03", "2024-02-04"] * 10
    late = [*until[:-1], "9999-12-31T23:59:59-05:00"]
    told = refused(rows(until=late))
    assert "'9999-12-31T23:59:59-05:00' in column 'until', which holds a date" in told
    found = loaded(rows(until=until))
    arrays = features_of(schema().columns[-1], pa.array(found["until"], pa.timestamp("us")))
    assert arrays["until (days)"][0] == 2_932_896
    assert arrays["until (month)"][:3].tolist() == [12, 1, 2]


def test_the_label_that_is_looked_for_is_one_that_is_kept() -> None:
    frame = rows(late=["No", "yes"] * 19 + ["maybe", "maybe"])
    loaded(frame, positive="", min_class_rows=3, max_dropped_fraction=0.5)
    assert schema().positive == "yes"


def test_losses_stop_and_are_listed() -> None:
    frame = rows()
    frame.loc[:9, "late"] = ""
    told = refused(frame, missing_labels="drop")
    assert told.startswith("10 of 40 rows would be dropped (10 no_label), more than ")
    assert rejected() == ["no_label"] * 10
