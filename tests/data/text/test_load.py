"""Rows that load makes of the files that people have."""

import gzip
import http.server
import json
import re
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loading import PACK, here, loaded, refused

from src.core.errors import InputError
from src.tables import examples

CSV = 'text,label,language\n"a, b",NA,en\nc d,01,fr\ne,None,en\n'
ROWS = [["a, b", "NA", "en"], ["c d", "01", "fr"], ["e", "None", "en"]]


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows_of(frame: pd.DataFrame) -> list[list[str]]:
    return frame[["text", "label", "language"]].to_numpy().tolist()


@pytest.mark.parametrize("ending", ["", *PACK])
def test_csv_compressed_or_not_keeps_labels_as_they_are_written(ending: str) -> None:
    if ending:
        Path(f"x.csv.{ending}").write_bytes(PACK[ending](CSV.encode()))
    else:
        Path("x.csv").write_text(CSV)
    frame = loaded(f"x.csv.{ending}".removesuffix("."))
    assert rows_of(frame) == ROWS
    assert list(frame.columns) == ["id", "text", "label", "language"]
    assert list(frame["id"]) == ["x:1", "x:2", "x:3"]


def test_other_formats_give_the_same_rows() -> None:
    names = ["text", "label", "language"]
    table = pd.DataFrame(ROWS, columns=names)
    table.to_csv("x.tsv", sep="\t", index=False)
    table.to_json("x.json", orient="records")
    table.to_json("x.jsonl", orient="records", lines=True)
    pq.write_table(pa.Table.from_pandas(table), "x.parquet")
    table.to_csv("semicolons.csv", sep=";", index=False)
    table.to_csv("headless.csv", header=False, index=False)
    assert rows_of(loaded("x.tsv")) == ROWS
    assert rows_of(loaded("x.json")) == ROWS
    assert rows_of(loaded("x.jsonl")) == ROWS
    assert rows_of(loaded("x.parquet")) == ROWS
    assert rows_of(loaded("semicolons.csv", delimiter=";")) == ROWS
    assert rows_of(loaded("headless.csv", column_names=names)) == ROWS
    Path("no-ending").write_bytes(Path("x.tsv").read_bytes())
    assert rows_of(loaded("no-ending", format="tsv")) == ROWS


def test_inside_a_zip() -> None:
    with zipfile.ZipFile("x.zip", "w") as archive:
        archive.writestr("inner/x.csv", CSV)
    assert rows_of(loaded("zip://inner/x.csv::x.zip")) == ROWS


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, args=[0.01], daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_over_http(server: str) -> None:
    Path("x.csv").write_text(CSV)
    assert rows_of(loaded(f"{server}/x.csv")) == ROWS
    assert "404" in refused(f"{server}/missing.csv")


def test_a_folder_of_texts_in_two_encodings() -> None:
    for label, name, text in [("tax", "1", "£5".encode()), ("art", "2", "£6".encode("cp1252"))]:
        Path("texts", label).mkdir(parents=True)
        Path("texts", label, f"{name}.txt").write_bytes(text)
    frame = loaded("texts", encoding=["utf-8", "cp1252"])
    assert frame[["id", "text", "label"]].to_numpy().tolist() == [
        ["art/2", "£6", "art"],
        ["tax/1", "£5", "tax"],
    ]
    told = refused("texts")
    assert told.startswith(
        f"{here('texts/art/2.txt')} is not utf-8: it has byte 0xa3 on line 1, at"
    )
    assert "at offset 0, which cp1252 reads as '£6'" in told


def test_a_stray_text_is_no_class() -> None:
    for name in ("texts/a/1.txt", "texts/a/2.txt", "texts/b/1.txt", "texts/readme.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"text of {name}")
    told = refused("texts")
    assert told.startswith(f"{here('texts/readme.txt')} is outside the folder of the other texts, ")
    assert f" {here('texts')}/<label>/<id>.txt" in told


def test_what_is_likely_a_mistake_but_legal_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "src")
    Path("x.csv").write_text('text,label\n"a\nb",Yes\nc,yes\nd,no\n')
    loaded("x.csv")
    assert "1 quoted rows span several lines" in caplog.text


def test_files_of_one_glob_keep_the_name_of_their_file() -> None:
    for name in ("train", "dev"):
        Path(f"{name}.tsv").write_text(f"sentence\tlabel\n{name} one\t0\n{name} two\t1\n")
    frame = loaded("*.tsv", text_column="sentence")
    assert list(frame["file"]) == ["dev", "dev", "train", "train"]
    assert list(frame["id"]) == ["dev:1", "dev:2", "train:1", "train:2"]
    assert list(frame["label"]) == ["0", "1", "0", "1"]


def test_a_column_called_like_a_role_it_does_not_have_is_kept_under_another_name() -> None:
    Path("x.csv").write_text("text,label,label_text,key\na,0,no,k1\nb,1,yes,k2\n")
    frame = loaded("x.csv", label_column="label_text", id_column="key")
    assert frame.to_numpy().tolist() == [["k1", "a", "no", "0"], ["k2", "b", "yes", "1"]]
    assert list(frame.columns) == ["id", "text", "label", "source_label"]


def test_json_values_keep_their_text() -> None:
    lines = ['{"text": "a", "label": 1.50}', '{"text": "b", "label": true}']
    Path("x.jsonl").write_text("\n".join(lines))
    assert list(loaded("x.jsonl")["label"]) == ["1.50", "true"]


def test_a_table_is_read_in_the_first_encoding_alone() -> None:
    """cp1252 fits nearly any bytes, so a Russian table in it would be read as something else."""
    Path("x.csv").write_bytes("text,label\nпривет,да\nпока,нет\n".encode("cp1251"))
    assert "byte 0xef on line 2" in refused("x.csv", encoding=["utf-8", "cp1252"])
    assert list(loaded("x.csv", encoding=["cp1251"])["text"]) == ["привет", "пока"]
    assert refused("x.csv", encoding=[]).startswith("load.encoding is []")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_a_blank_first_line(end: str) -> None:
    Path("x.csv").write_text(end.join(["", "text,label", "a,01", "b,1.0", ""]), newline="")
    assert list(loaded("x.csv")["label"]) == ["01", "1.0"]


def test_quotes_that_mean_nothing_do_not_swallow_rows() -> None:
    Path("x.tsv").write_text('text\tlabel\n"so\t1\nb\t0\nc"\t1\nd\t0\n')
    sentence = refused("x.tsv")
    assert sentence.startswith(f'{here("x.tsv")} has several rows inside " on line 2, ')
    assert list(loaded("x.tsv", quote="")["text"]) == ['"so', "b", 'c"', "d"]
    Path("y.tsv").write_text('text\tlabel\n5" disk\t1\n"b\t0\nc\t1\n')
    assert "line 3 can't be read: a quote that opens here" in refused("y.tsv")
    assert len(loaded("y.tsv", quote="")) == 3


def test_a_text_on_two_sides_of_a_given_split_is_left_for_split_to_judge() -> None:
    Path("x.csv").write_text("text,label,split\na,x,train\na,x,train\na,x,test\nb,y,test\n")
    assert list(loaded("x.csv")["split"]) == ["train", "test", "test"]


def test_own_columns_and_ids_are_not_lost() -> None:
    for name in ("one", "two"):
        Path(f"{name}.csv").write_text(f"text,label,file\n{name} a,x,f1\n{name} b,y,f2\n")
    frame = loaded("*.csv")
    assert list(frame["source_file"]) == ["f1", "f2"] * 2
    assert list(frame["file"]) == ["one", "one", "two", "two"]
    Path("key.csv").write_text("key,text,label\n1,a,x\n1,b,y\n")
    assert refused("key.csv", id_column="key").startswith(
        f"The id '1' is in {here('key.csv')}, line 2 and in "
    )
    assert list(loaded("key.csv", id_column="#")["id"]) == ["key:1", "key:2"]
    row = '{"t": "%s", "label": "%s", "text": 1, "source_text": 2}\n'
    Path("two.jsonl").write_text(row % ("a", "x") + row % ("b", "y"))
    columns = list(loaded("two.jsonl", text_column="t").columns)
    assert columns == ["id", "text", "label", "source_source_text", "source_text"]


def test_rows_are_numbered_in_place_of_ids_that_repeat() -> None:
    Path("x.csv").write_text("ID,text,label\n1,a,x\n1,b,y\n2,a,x\n")
    told = refused("x.csv")
    assert told.endswith("are all different, or to '#' to number the rows instead.")
    frame = loaded("x.csv", id_column="#")
    assert frame[["id", "text", "ID"]].to_numpy().tolist() == [["x:1", "a", "1"], ["x:2", "b", "1"]]


def test_an_own_column_tells_rows_apart_whatever_it_is_called() -> None:
    Path("x.csv").write_text("text,label,source_id\nok,pos,A\nok,neg,B\nbad,neg,A\n")
    assert list(loaded("x.csv")["source_id"]) == ["A", "B", "A"]
    Path("x.csv").write_text("text,label,source_id,id\nok,pos,A,1\nok,neg,B,1\nok,neg,B,2\n")
    frame = loaded("x.csv", id_column="#")
    assert list(frame["source_id"]) == ["A", "B"], "the third is the second under another id"
    assert list(frame["source_source_id"]) == ["1", "1"]


def test_a_column_may_be_called_as_what_numbers_rows() -> None:
    Path("x.csv").write_text("#,text,label\n7,ok,pos\n8,bad,neg\n")
    assert list(loaded("x.csv", id_column="#")["id"]) == ["7", "8"]
    Path("x.csv").write_text("#,text,label\n7,ok,pos\n7,bad,neg\n")
    assert "or rename that column, and then set it to '#'" in refused("x.csv", id_column="#")


def test_texts_of_one_id_are_files_to_rename() -> None:
    Path("texts/pos").mkdir(parents=True)
    for name, text in (("a", "good"), ("a.txt", "fine")):
        Path("texts/pos", name).write_text(text)
    told = refused("texts", format="folder")
    assert told.endswith(f"in {here('texts/pos/a.txt')}, line 1: rename one of the files.")


def test_unusable_rows_are_dropped_and_counted_by_reason() -> None:
    rows = ["a,x", "b,y", "a,x", " \u200b,x", "c,", "d,x", "d,y"]
    Path("x.csv").write_text("text,label\n" + "\n".join(rows))
    assert list(loaded("x.csv", missing_labels="drop")["text"]) == ["a", "b"]
    counts = json.loads(Path("raw/counts.json").read_text())
    found = {reason: count for reason, count in counts["dropped"].items() if count}
    assert found == {"empty_text": 1, "no_label": 1, "conflicting_label": 2, "duplicate": 1}
    assert (counts["rows"], counts["kept"], counts["classes"]) == (7, 2, {"x": 1, "y": 1})


def test_a_source_that_dvc_does_not_watch_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Path("watched").mkdir()
    for place, warned in [("watched/x.csv", False), ("watched", False), ("*.csv", True)]:
        Path("watched/x.csv").write_text(CSV)
        Path("x.csv").write_text(CSV)
        Path("rejected.csv").unlink(missing_ok=True)
        caplog.clear()
        loaded(place)
        assert ("DVC can't see" in caplog.text) == warned, place


VALUES = st.tuples(
    st.sampled_from(["", " ", "a", "A", "a ", "b", "\ufeff", "c\x00", "d" * 30]),
    st.sampled_from(["", "x", "y", "NA", "X"]),
    st.sampled_from(["en", "fr"]),
)


@given(st.lists(VALUES, max_size=30), st.sampled_from(["drop", "majority"]))
def test_every_row_is_kept_as_it_is_or_dropped_for_one_reason(
    rows: list[tuple[str, str, str]], conflicts: str
) -> None:
    rows = [("k1", "x", "en"), ("k2", "y", "en"), ("k3", "x", "en"), ("k4", "y", "en"), *rows]
    frame = pd.DataFrame(rows, columns=["text", "label", "language"])
    frame.to_csv("x.csv", index=False)
    params = {"missing_labels": "drop", "max_characters": 20, "control_characters": "drop"}
    kept = loaded("x.csv", conflicting_labels=conflicts, **params)
    rejected = pd.read_csv("rejected.csv", dtype=str, keep_default_na=False)
    found = Counter(kept[["text", "label", "language"]].itertuples(index=False, name=None))
    assert max(found.values()) == 1
    assert found <= Counter(rows), "neither text nor label changes"
    lines = [int(line) for line in rejected["line"]]
    assert sorted([*lines, *(int(i.removeprefix("x:")) + 1 for i in kept["id"])]) == list(
        range(2, len(rows) + 2)
    )
    assert kept[["text", "language"]].duplicated().sum() == 0
    usable = [row for row in rows if row[1] and row[0][:1] in set("aAbk")]
    for text, label, language in usable:
        votes = Counter(row[1] for row in usable if (row[0], row[2]) == (text, language))
        wins = [n for n in votes if votes[n] == max(votes.values())]
        stays = len(votes) == 1 or (conflicts == "majority" and wins == [label])
        assert ((text, label, language) in found) == stays


def test_what_is_not_there_is_named_with_the_likeliest_name() -> None:
    Path("reviews.csv").write_text(CSV)
    assert " at review.csv, seen from" in refused("review.csv")
    assert "(did you mean 'reviews.csv'?): correct load.source." in refused("review.csv")
    Path("pulled.csv.dvc").touch()
    assert "`dvc pull`" in refused("pulled.csv")
    assert "the Python package 'no_such_package'" in refused("pkg://no_such_package/data")
    assert "Protocol not known: xyz" in refused("xyz://bucket/x.csv")
    assert "Please install gcsfs" in refused("gs://bucket/x.csv")


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (
            {"encoding": ["utf-9"]},
            "load.encoding has 'utf-9': expected a name that Python knows, "
            "such as utf-8, cp1252 or utf-16.",
        ),
        ({"delimiter": "||"}, "load.delimiter is '||': expected one ASCII character, such as ','."),
        ({"quote": "''"}, "load.quote is \"''\": expected one ASCII character, or '' for none."),
        ({"encoding": []}, "load.encoding is []: name at least one, such as [utf-8]."),
    ],
)
def test_a_bad_param_gets_one_sentence(params: dict[str, Any], sentence: str) -> None:
    Path("x.csv").write_text(CSV)
    assert refused("x.csv", **params) == sentence
    assert not Path("raw").exists()


def test_an_item_that_is_no_object_gets_one_sentence() -> None:
    Path("x.jsonl").write_text('["a", "x"]\n')
    told = refused("x.jsonl")
    assert told.startswith(f"{here('x.jsonl')}, line 1 can't be read: not a JSON object ('[\"a\",")
    assert "{'text': '...', 'label': '...'}" in told


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ('{"text": "a"}', 1, "an object in place of a list of objects"),
        ("[", 1, "not JSON: Expecting value, column 1"),
        ('[{"text": "a", "label": "x"}', 1, "the end of the file in place of ',' or ']'"),
        ('[\n{"text": "a", "label": "x"}\n{', 3, "'{' in place of ',' or ']'"),
        ('[{"text": "a", "label": "x"},\n{"text" "b"}]', 2, "not JSON: .*, column 9"),
        ('[{"text": "a", "label": "x"},\n["b"]]', 2, "not a JSON object"),
    ],
)
def test_a_list_that_is_none_gets_one_sentence(content: str, line: int, reason: str) -> None:
    Path("x.json").write_text(content)
    place = f"^{re.escape(here('x.json'))}, line {line} can't be read: "
    assert re.match(place + reason, refused("x.json"))


def test_a_list_larger_than_what_is_read_at_once() -> None:
    rows = [{"text": f"{k} " + "word " * 2000, "label": "xy"[k % 2]} for k in range(40)]
    Path("x.json").write_text(json.dumps(rows, indent=1))
    assert list(loaded("x.json")["text"]) == [row["text"] for row in rows]


def test_an_object_a_row_may_have_columns_of_its_own() -> None:
    """Rows of later batches too, which were not known when the first were written."""
    rows = [{"text": f"t{k}", "label": "xy"[k % 2]} for k in range(10_001)]
    rows[-1]["late"] = "yes"
    Path("x.jsonl").write_text("\n".join(map(json.dumps, rows)))
    late = loaded("x.jsonl")["late"]
    assert late.isna().sum() == 10_000
    assert late.iloc[-1] == "yes"


def test_rows_of_one_text_that_differ_elsewhere_are_kept() -> None:
    Path("x.csv").write_text("text,label,date\na,x,1\na,x,2\na,y,2\nb,y,1\n")
    assert list(loaded("x.csv")["date"]) == ["1", "1"]
    for name, rows in (("train", "a,x\nb,y\n"), ("test", "a,x\nc,y\n")):
        Path(f"{name}.csv").write_text(f"text,label\n{rows}")
    frame = loaded("t*.csv")
    assert list(frame["file"]) == ["test", "test", "train", "train"], "two sides of a split, maybe"


def test_the_order_of_columns_does_not_matter() -> None:
    Path("x.jsonl").write_text(
        '{"text": "a", "label": "x", "m": "1", "n": null}\n'
        '{"n": null, "m": "1", "label": "x", "text": "a"}\n'
        '{"text": "a", "m": "1", "label": "x"}\n{"text": "b", "label": "y"}\n'
    )
    assert list(loaded("x.jsonl")["text"]) == ["a", "b"]


def test_a_file_of_whole_batches_and_another() -> None:
    for name, count in (("a", 10_000), ("b", 3)):
        rows = "".join(f"{name} {k},{'xy'[k % 2]}\n" for k in range(count))
        Path(f"{name}.csv").write_text(f"text,label\n{rows}")
    assert loaded("*.csv")["file"].value_counts().to_dict() == {"a": 10_000, "b": 3}


def test_ids_of_dropped_rows_do_not_matter() -> None:
    Path("x.csv").write_text("id,text,label\n1,a,x\n2,b,y\n3,c\n1,a,x\n,d,x\n4,e,y,z\n")
    assert list(loaded("x.csv")["id"]) == ["1", "2", "x:5"]
    Path("y.csv").write_text("id,text,label\n1,a,x\n1,b,y\n")
    assert refused("y.csv").startswith(
        f"The id '1' is in {here('y.csv')}, line 2 and in {here('y.csv')}, line 3: set load.id_col"
    )


def test_names_with_dots_and_brackets() -> None:
    for name in ("r.2023.csv", "r.2024.csv", "data [v2].csv"):
        Path(name).write_text(f"text,label\n{name} a,x\n{name} b,y\n")
    assert list(loaded("r.*.csv")["id"]) == ["r.2023:1", "r.2023:2", "r.2024:1", "r.2024:2"]
    assert len(loaded("data [v2].csv")) == 2


def test_a_list_and_nothing_after_it() -> None:
    one = '[{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]\n'
    Path("x.json").write_text(one + one)
    told = refused("x.json")
    assert told.startswith(f"{here('x.json')}, line 2 can't be read: '[' after the end of the list")


def test_keys_in_another_case_are_judged_alike() -> None:
    Path("x.jsonl").write_text('{"Text": "a", "Label": "x"}\n{"Text": "b", "Label": ["y"]}\n')
    told = refused("x.jsonl")
    assert told.startswith(f"{here('x.jsonl')}, line 2 has a list in 'Label', which is not text")
    lines = [json.dumps({"text": f"t{k}"}) for k in range(10_000)]
    lines += ['{"text": "a", "label": "x"}'] * 2
    Path("y.jsonl").write_text('{"text": "b", "label": "y"}\n' + "\n".join(lines))
    assert list(loaded("y.jsonl", missing_labels="drop")["text"]) == ["b", "a"]


def test_an_archive_of_several_files_is_no_table() -> None:
    with zipfile.ZipFile("x.csv.zip", "w") as archive:
        archive.writestr("a.csv", CSV)
    assert rows_of(loaded("x.csv.zip")) == ROWS
    with zipfile.ZipFile("x.csv.zip", "a") as archive:
        archive.writestr("b.csv", CSV)
    told = refused("x.csv.zip")
    assert told.startswith(f"{here('x.csv.zip')} holds 2 files")
    assert f"zip://*.csv::{here('x.csv.zip')}" in told
    Path("y.csv").write_text(CSV.replace("a, b", "other"))
    rows = loaded("y.csv", "zip://b.csv::x.csv.zip")
    assert set(rows["file"]) == {"y", "b"}
    refusal = refused("zip://b.csv::x.csv.zip", max_bytes=20)
    assert refusal.startswith("b.csv holds more than 20 bytes once it is decompressed")


def test_odd_columns() -> None:
    Path("x.csv").write_text("text,label,.line,.file\na,x,1,2\nb,y,3,4\n")
    assert list(loaded("x.csv")[".line"]) == ["1", "3"]
    told = refused("x.csv", label_column="text")
    assert told.startswith("load.text_column, label_column and id_column are ['text', 'text']")
    table = pa.table({"text": ["a", "b", "c"], "label": [1.0, float("nan"), 2.0]})
    pq.write_table(table, "x.parquet")
    assert list(loaded("x.parquet", missing_labels="drop")["text"]) == ["a", "c"]


def test_a_folder_of_texts_in_utf_16() -> None:
    for label in ("a", "b"):
        Path("texts", label).mkdir(parents=True)
        Path("texts", label, "1.txt").write_bytes(f"hello {label}".encode("utf-16"))
    assert "the byte-order mark of utf-16" in refused("texts", encoding=["utf-8", "cp1252"])
    assert list(loaded("texts", encoding=["utf-16"])["text"]) == ["hello a", "hello b"]
    Path("x.csv").write_bytes(CSV.encode("utf-32"))
    assert rows_of(loaded("x.csv", encoding=["utf-32"])) == ROWS


def test_a_failed_load_leaves_the_last_outputs() -> None:
    Path("x.csv").write_text(CSV)
    before = loaded("x.csv")
    Path("x.csv").write_text("text,label\na,x\n")
    with pytest.raises(InputError):
        loaded("x.csv")
    assert examples.read(Path("raw/examples.parquet")).equals(before)


def test_broken_files_get_one_sentence() -> None:
    Path("x.parquet").write_bytes(b"PAR1 no")
    assert refused("x.parquet").startswith(f"{here('x.parquet')} can't be read as parquet: ")
    Path("x.csv.gz").write_bytes(gzip.compress(CSV.encode())[:-9])
    assert refused("x.csv.gz").startswith(f"{here('x.csv.gz')} can't be read to its end")
    Path("x.csv").write_text(CSV)
    assert "File is not a zip file" in refused("zip://x.csv::x.csv")
    Path("deep.json").write_text("[" * 100_000)
    assert "nested too deep" in refused("deep.json")
    Path("empty.jsonl").write_text("\n")
    assert refused("empty.jsonl").startswith(f"{here('empty.jsonl')} has no rows")
    assert "no-such-package" in refused("pkg://no-such-package")
    assert refused("  ").startswith("load.source is empty")


def test_equal_sources_give_equal_bytes() -> None:
    Path("x.csv").write_text(CSV)
    loaded("x.csv")
    first = Path("raw/examples.parquet").read_bytes()
    loaded("x.csv")
    assert Path("raw/examples.parquet").read_bytes() == first
