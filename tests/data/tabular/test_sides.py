"""Rows on three sides: by class, by time, by group, and equal rows together."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import TABULAR, make_table

from src.core.errors import InputError
from src.tables.schema import Schema
from src.tabular import load, split


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    make_table(600).to_csv(folder / "x.csv", index=False)
    params = TABULAR["load"] | {"source": [str(folder / "x.csv")]}
    load.main(folder, folder / "raw", folder / "rejected.csv", **params)
    return folder / "raw"


def divided(raw: Path, target: Path, **params: Any) -> dict[str, pd.DataFrame]:
    split.main(raw, target, **TABULAR["split"] | params)
    return {
        side: pq.read_table(target / f"{side}.parquet").to_pandas()
        for side in ("train", "validation", "test")
    }


def refused(raw: Path, target: Path, **params: Any) -> str:
    with pytest.raises(InputError) as raised:
        divided(raw, target, **params)
    assert not target.exists()
    return str(raised.value)


def test_every_row_is_on_one_side_and_classes_keep_their_shares(raw: Path, tmp_path: Path) -> None:
    sides = divided(raw, tmp_path / "s", strategy="stratified", column="")
    every = pd.concat(sides.values())
    assert sorted(every["#"]) == sorted(pq.read_table(raw / "rows.parquet")["#"].to_pylist())
    share = (every["fraud"] == "1").mean()
    for frame in sides.values():
        assert (frame["fraud"] == "1").mean() == pytest.approx(share, abs=0.02)
    again = divided(raw, tmp_path / "again", strategy="stratified", column="")
    assert all(frame.equals(again[side]) for side, frame in sides.items())
    other = divided(raw, tmp_path / "other", strategy="stratified", column="", seed=7)
    assert not sides["test"].equals(other["test"])


def test_rows_are_divided_alike_however_many_are_read_at_once(raw: Path, tmp_path: Path) -> None:
    parts = tmp_path / "raw"
    parts.mkdir()
    table = pq.read_table(raw / "rows.parquet")
    bare = pa.array([None] * 599 + [1.0])  # whose one value is a training one, or is not
    table = table.set_column(table.column_names.index("income"), "income", bare)
    (parts / "schema.json").write_bytes((raw / "schema.json").read_bytes())
    ways = [("stratified", ""), ("time", "opened"), ("group", "shop"), ("hash", "")]
    for strategy, column in ways:
        found = []
        for rows in (600, 7):
            pq.write_table(table, parts / "rows.parquet", row_group_size=rows)
            target = tmp_path / f"{strategy}{rows}"
            sides = divided(parts, target, strategy=strategy, column=column)
            schema = (target / "schema.json").read_text()
            assert ("income" in Schema.read(target / "schema.json").left_out) == (
                sides["train"]["income"].isna().all()
            )
            found.append((schema, {side: frame.to_csv() for side, frame in sides.items()}))
        assert found[0] == found[1]


def test_a_table_without_features_is_refused(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    table = pq.read_table(raw / "rows.parquet").select(["#", "fraud", "shop"])
    pq.write_table(table, tmp_path / "raw/rows.parquet")
    schema = Schema.read(raw / "schema.json")
    shop = tuple(one for one in schema.columns if one.name == "shop")
    replace(schema, columns=shop).write(tmp_path / "raw/schema.json")
    told = refused(tmp_path / "raw", tmp_path / "s", strategy="group", column="shop")
    assert told.startswith("No column is left to learn from but that of the split")


def test_the_last_rows_by_time_are_the_test(raw: Path, tmp_path: Path) -> None:
    sides = divided(raw, tmp_path / "s", strategy="time", column="opened")
    times = [sides[side]["opened"] for side in ("train", "validation", "test")]
    assert times[0].max() < times[1].min()
    assert times[1].max() < times[2].min()
    assert len(times[2]) == pytest.approx(600 * TABULAR["split"]["test_size"], abs=20)


def test_a_group_is_on_one_side(raw: Path, tmp_path: Path) -> None:
    sides = divided(raw, tmp_path / "s", strategy="group", column="shop")
    shops = [set(frame["shop"]) for frame in sides.values()]
    assert all(not a & b for k, a in enumerate(shops) for b in shops[k + 1 :])


def test_equal_rows_are_on_one_side(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    table = pq.read_table(raw / "rows.parquet")
    twice = pa.concat_tables([table, table.slice(0, 300)])
    pq.write_table(twice, tmp_path / "raw/rows.parquet")
    (tmp_path / "raw/schema.json").write_bytes((raw / "schema.json").read_bytes())
    for strategy in ("stratified", "hash"):
        sides = divided(tmp_path / "raw", tmp_path / strategy, strategy=strategy, column="")
        names = [set(frame["#"]) for frame in sides.values()]
        assert all(not a & b for k, a in enumerate(names) for b in names[k + 1 :])


def test_a_row_keeps_its_side_by_hash_when_others_come(raw: Path, tmp_path: Path) -> None:
    before = divided(raw, tmp_path / "a", strategy="hash", column="")
    (tmp_path / "raw").mkdir()
    table = pq.read_table(raw / "rows.parquet")
    pq.write_table(table.slice(0, 500), tmp_path / "raw/rows.parquet")
    (tmp_path / "raw/schema.json").write_bytes((raw / "schema.json").read_bytes())
    after = divided(tmp_path / "raw", tmp_path / "b", strategy="hash", column="")
    for side, frame in after.items():
        assert set(frame["#"]) <= set(before[side]["#"])
        assert len(frame)


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"strategy": "time", "column": ""}, "expected a column for time, group and predefined"),
        ({"strategy": "hash", "column": "shop"}, "and '' for the others"),
        (
            {"strategy": "time", "column": "openned"},
            "(did you mean 'opened'?): correct split.column",
        ),
        ({"strategy": "time", "column": "country"}, "'country' holds no numbers or dates"),
        ({"strategy": "time", "column": "income"}, "Column 'income' is empty in "),
        ({"strategy": "time", "column": "member"}, "holds no numbers or dates"),
        ({"strategy": "predefined", "column": "country"}, "Expected one of train, training, "),
        ({"validation_size": 0.5, "test_size": 0.5}, "leave no rows to train on"),
    ],
)
def test_what_divides_nothing_is_one_sentence(
    raw: Path, tmp_path: Path, params: dict[str, Any], sentence: str
) -> None:
    assert sentence in refused(raw, tmp_path / "s", **params)


def test_the_column_of_time_is_a_feature_only_if_it_is_to_be(raw: Path, tmp_path: Path) -> None:
    by = {"strategy": "time", "column": "opened"}
    divided(raw, tmp_path / "s", **by)
    schema = Schema.read(tmp_path / "s/schema.json")
    assert schema.left_out["opened"] == "the rows are divided by it"
    assert "opened" not in {column.name for column in schema.columns}
    divided(raw, tmp_path / "t", **by, learn_from_column=True)
    assert "opened" in {column.name for column in Schema.read(tmp_path / "t/schema.json").columns}


def test_equal_rows_that_the_source_puts_on_two_sides_stop_or_are_left_out(tmp_path: Path) -> None:
    frame = (
        make_table(300)
        .drop(columns="opened")
        .assign(part=["train", "validation", "test"] * 100, amount=[k % 5 for k in range(300)])
    )
    frame = frame[["amount", "part", "fraud"]].assign(fraud=[k % 5 // 4 for k in range(300)])
    frame.to_csv(tmp_path / "x.csv", index=False)
    params = TABULAR["load"] | {"source": [str(tmp_path / "x.csv")]}
    load.main(tmp_path, tmp_path / "raw", tmp_path / "rejected.csv", **params)
    by = {"strategy": "predefined", "column": "part"}
    told = refused(tmp_path / "raw", tmp_path / "s", **by)
    assert "Column 'part' has 200 rows that are on a later side too, such as 'x:1'" in told
    frame = frame.assign(amount=range(300))
    frame.to_csv(tmp_path / "x.csv", index=False)
    load.main(
        tmp_path,
        tmp_path / "raw",
        tmp_path / "rejected.csv",
        **params | {"types": ["amount number"]},
    )
    sides = divided(tmp_path / "raw", tmp_path / "s", **by)
    assert [len(frame) for frame in sides.values()] == [100, 100, 100]
    left = Schema.read(tmp_path / "s/schema.json")
    assert [column.name for column in left.columns] == ["amount"]
    assert left.left_out["part"] == "the rows are divided by it"


def test_a_side_without_a_label_and_a_column_without_training_values(tmp_path: Path) -> None:
    frame = make_table(400).assign(new=[""] * 300 + ["1", "2"] * 50)
    frame["fraud"] = [1] * 20 + [0] * 380
    frame.to_csv(tmp_path / "x.csv", index=False)
    params = TABULAR["load"] | {"source": [str(tmp_path / "x.csv")]}
    load.main(tmp_path, tmp_path / "raw", tmp_path / "rejected.csv", **params)
    told = refused(tmp_path / "raw", tmp_path / "s")
    assert told.startswith("The split leaves no row of '1' for validation: make the sizes larger")
    frame["fraud"] = [0, 1] * 200
    frame.to_csv(tmp_path / "x.csv", index=False)
    load.main(tmp_path, tmp_path / "raw", tmp_path / "rejected.csv", **params)
    divided(tmp_path / "raw", tmp_path / "s")
    left_out = Schema.read(tmp_path / "s/schema.json").left_out
    assert left_out["new"] == "it has no value in the training rows"


def test_a_missing_boolean_changes_the_side_of_no_other_row(tmp_path: Path) -> None:
    found = []
    for name, member in (("a", "no"), ("b", "")):
        frame = make_table(300)
        frame.loc[299, "member"] = member
        frame.to_csv(tmp_path / "x.csv", index=False)
        params = TABULAR["load"] | {"source": [str(tmp_path / "x.csv")]}
        load.main(tmp_path, tmp_path / "raw", tmp_path / "rejected.csv", **params)
        sides = divided(tmp_path / "raw", tmp_path / name, strategy="hash", column="")
        found.append({row: side for side, f in sides.items() for row in f["#"] if row != "x:300"})
    assert found[0] == found[1]
