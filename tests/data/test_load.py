"""What load makes of the files that people have."""

import bz2
import gzip
import http.server
import json
import lzma
import threading
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from src import examples, load, sources
from src.stage import InputError

PARAMS: dict[str, Any] = {
    "format": "auto",
    "text_column": "text",
    "label_column": "label",
    "id_column": "",
    "encoding": ["utf-8"],
    "delimiter": ",",
    "quote": '"',
    "column_names": [],
}
CSV = 'text,label,language\n"a, b",NA,en\nc d,01,fr\ne,None,en\n'
ROWS = [["a, b", "NA", "en"], ["c d", "01", "fr"], ["e", "None", "en"]]


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(source: str, **params: Any) -> pd.DataFrame:
    raw, quality = Path("raw"), Path("quality.json")
    load.main(Path("watched"), raw, quality, source=source, **(PARAMS | params))
    frame = examples.read(raw / "examples.parquet")
    counts = json.loads(quality.read_text())
    assert counts["rows"] == counts["kept"] + sum(counts["dropped"].values())
    assert counts["kept"] == len(frame) == sum(counts["classes"].values())
    return frame


def refused(source: str, **params: Any) -> str:
    with pytest.raises(InputError) as raised:
        loaded(source, **params)
    return str(raised.value)


def rows_of(frame: pd.DataFrame) -> list[list[str]]:
    return frame[["text", "label", "language"]].to_numpy().tolist()


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.compress,
}


@pytest.mark.parametrize("ending", ["", *COMPRESSIONS])
def test_csv_compressed_or_not_keeps_labels_as_they_are_written(ending: str) -> None:
    if ending:
        Path(f"x.csv.{ending}").write_bytes(COMPRESSIONS[ending](CSV.encode()))
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
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_over_http(server: str) -> None:
    Path("x.csv").write_text(CSV)
    Path("page.csv").write_text("<!DOCTYPE html><html></html>")
    assert rows_of(loaded(f"{server}/x.csv")) == ROWS
    assert "404" in refused(f"{server}/missing.csv")
    assert "onnect" in refused("http://127.0.0.1:1/x.csv")
    assert "found a web page" in refused(f"{server}/page.csv")


def test_a_drive_share_link_becomes_its_download() -> None:
    link = "https://drive.google.com/file/d/1a-B_c/view?usp=sharing"
    expected = "https://drive.usercontent.google.com/download?id=1a-B_c&export=download&confirm=t"
    assert sources.download_link(link) == expected
    assert sources.download_link("https://drive.google.com/open?id=1a-B_c") == expected
    assert sources.download_link("https://example.org/x.csv") == "https://example.org/x.csv"


def test_a_folder_of_texts_in_two_encodings() -> None:
    for label, name, text in [("tax", "1", "£5".encode()), ("art", "2", "£6".encode("cp1252"))]:
        Path("texts", label).mkdir(parents=True)
        Path("texts", label, f"{name}.txt").write_bytes(text)
    frame = loaded("texts", encoding=["utf-8", "cp1252"])
    assert frame[["id", "text", "label"]].to_numpy().tolist() == [
        ["art/2", "£6", "art"],
        ["tax/1", "£5", "tax"],
    ]
    assert refused("texts") == (
        f"Expected utf-8 in {Path('texts/art/2.txt').resolve()}, found byte 0xa3 on line 1: "
        "put the right one first in load.encoding."
    )


def test_a_stray_text_is_no_class() -> None:
    for name in ("texts/a/1.txt", "texts/a/2.txt", "texts/b/1.txt", "texts/readme.txt"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(f"text of {name}")
    assert refused("texts") == (
        f"Expected texts as <label>/<id>.txt in one folder, found {here('texts/readme.txt')} "
        "outside it: move the file, or point load.source at the folder of the labels."
    )


def test_what_is_likely_a_mistake_but_legal_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "src")
    Path("x.csv").write_text('text,label\n"a\nb",Yes\nc,yes\nd,no\n')
    loaded("x.csv")
    assert "1 quoted texts span several lines" in caplog.text
    assert "labels that differ in case, spaces or Unicode form alone: ['Yes', 'yes']" in caplog.text


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
    assert "found byte 0xef on line 2" in refused("x.csv", encoding=["utf-8", "cp1252"])
    assert list(loaded("x.csv", encoding=["cp1251"])["text"]) == ["привет", "пока"]
    assert refused("x.csv", encoding=[]).startswith("load.encoding is []")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_a_blank_first_line(end: str) -> None:
    Path("x.csv").write_text(end.join(["", "text,label", "a,01", "b,1.0", ""]), newline="")
    assert list(loaded("x.csv")["label"]) == ["01", "1.0"]


def test_quotes_that_mean_nothing_do_not_swallow_rows() -> None:
    Path("x.tsv").write_text('text\tlabel\n"so\t1\nb\t0\nc"\t1\nd\t0\n')
    assert refused("x.tsv").startswith(f"Expected one row a line in {here('x.tsv')}, found several")
    assert list(loaded("x.tsv", quote="")["text"]) == ['"so', "b", 'c"', "d"]
    Path("y.tsv").write_text('text\tlabel\n5" disk\t1\n"b\t0\nc\t1\n')
    assert "line 3, found: unexpected end of data" in refused("y.tsv")
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
    assert refused("key.csv", id_column="key") == (
        "Expected an id of its own for each row, found '1' more than once: correct load.id_column, "
        "or rename files that have the same name."
    )
    Path("two.jsonl").write_text('{"t": "a", "label": "x", "text": 1, "source_text": 2}\n' * 2)
    assert "source_source_text" in load._freed(
        pd.DataFrame(columns=["text", "source_text"]), ["text"]
    )


def test_unusable_rows_are_dropped_and_counted_by_reason() -> None:
    rows = ["a,x", "b,y", "a,x", " \u200b,x", "c,", "d,x", "d,y"]
    Path("x.csv").write_text("text,label\n" + "\n".join(rows))
    assert list(loaded("x.csv")["text"]) == ["a", "b"]
    assert json.loads(Path("quality.json").read_text()) == {
        "rows": 7,
        "kept": 2,
        "dropped": {"empty_text": 1, "no_label": 1, "conflicting_label": 2, "duplicate": 1},
        "classes": {"x": 1, "y": 1},
    }


def test_a_source_that_dvc_does_not_watch_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Path("watched").mkdir()
    for place, warned in [("watched/x.csv", False), ("watched", False), ("*.csv", True)]:
        Path("watched/x.csv").write_text(CSV)
        Path("x.csv").write_text(CSV)
        caplog.clear()
        loaded(place)
        assert ("DVC can't see" in caplog.text) == warned, place


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", " ", "a", "A", "a ", "b", "\ufeff"]) | st.none(),
            st.sampled_from(["", "x", "y", "NA"]) | st.none(),
        ),
        max_size=12,
    )
)
def test_every_row_is_kept_or_dropped_for_one_reason(rows: list[tuple[str, str]]) -> None:
    frame = pd.DataFrame(rows, columns=["text", "label"], dtype="str")
    reasons = load.drop_reasons(frame)
    assert set(reasons) <= {"", *load.REASONS}
    kept = frame[reasons == ""]
    assert kept["text"].is_unique
    usable = {(t, n) for t, n in rows if t and t.strip(" \ufeff") and n and n.strip()}
    texts = [text for text, _ in usable]
    expected = {(text, label) for text, label in usable if texts.count(text) == 1}
    assert set(kept.itertuples(index=False, name=None)) == expected


def here(name: str) -> str:
    return str(Path(name).resolve())


def test_what_is_not_there_is_named_with_the_likeliest_name() -> None:
    Path("reviews.csv").write_text(CSV)
    assert refused("review.csv") == (
        f"Expected labelled texts at review.csv (seen from {Path.cwd()}), found nothing "
        "(did you mean 'reviews.csv'?): correct load.source."
    )
    Path("pulled.csv.dvc").touch()
    assert refused("pulled.csv").endswith("found nothing: `dvc pull` brings it.")
    assert refused("pkg://no_such_package/data").startswith(
        "Expected an installed package 'no_such_package'"
    )
    assert "Protocol not known: xyz" in refused("xyz://bucket/x.csv")
    assert "Install s3fs" in refused("s3://bucket/x.csv")


@pytest.mark.parametrize(
    ("content", "params", "sentence"),
    [
        ("", {}, "Expected labelled texts in {file}, found an empty file (0 bytes)."),
        (
            "text,label\n",
            {},
            "Expected rows in {file}, found only its header: add labelled texts.",
        ),
        (
            "Text,label\na,x\n",
            {},
            "Expected column 'text' in {file}, found 'Text', 'label' (did you mean 'Text'?): "
            "set load.text_column to the right one.",
        ),
        (
            "text;label\na;x\n",
            {},
            "Expected column 'text' in {file}, found 'text;label', and with one column only, "
            "load.delimiter may be another: set load.text_column to the right one.",
        ),
        (
            "text,label\na,x\nb,x\n",
            {},
            "Expected at least 2 classes in column 'label' of x.csv, found 1 in the 2 rows kept "
            "of 2: add texts of another class, or correct load.label_column.",
        ),
        (
            "text,label,text\na,x,b\n",
            {},
            "Expected columns of different names in {file}, found 'text' 2 times: "
            "rename one of them.",
        ),
        (
            'text,label\n"a\nb",x\nhello, world,y\n',
            {},
            "Expected 2 fields in {file}, line 4, found 3: 'hello, world,y'; "
            "quote a text that holds ','.",
        ),
        (
            'text,label\na,x\n"b,y\n',
            {},
            "Expected well-formed quotes in {file}, line 3, found: unexpected end of data; "
            "double a quote inside a quoted text, or make load.quote '' if quotes mean nothing "
            "there.",
        ),
        (
            "text,label\na,x\n",
            {"encoding": ["utf-9"]},
            "load.encoding has 'utf-9': expected a name that Python knows, "
            "such as utf-8, cp1252 or utf-16.",
        ),
        (
            "text,label\na,x\n",
            {"delimiter": "||"},
            "load.delimiter is '||': expected one ASCII character, such as ','.",
        ),
    ],
)
def test_a_bad_table_gets_one_sentence(content: str, params: dict[str, Any], sentence: str) -> None:
    Path("x.csv").write_text(content)
    assert refused("x.csv", **params) == sentence.format(file=here("x.csv"))
    assert not Path("raw").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            '{"text": "a", "label": "x"}\n{"text": "b" "label": "y"}\n',
            "Expected JSON in {file}, line 2, column 14: Expecting ',' delimiter; mend the line.",
        ),
        (
            '{"text": "a", "label": ["x"]}\n',
            "Expected text in 'label' of {file}, line 1, found a list: give each row one value.",
        ),
        (
            '["a", "x"]\n',
            "Expected an object such as {{'text': ..., 'label': ...}} in {file}, line 1, "
            "found ['a', 'x'].",
        ),
        (
            '{"text": "\\ud800", "label": "x"}\n',
            "Expected valid Unicode in {file}, found half of a surrogate pair ('\\ud800'): "
            "remove it from the file.",
        ),
    ],
)
def test_bad_json_gets_one_sentence(content: str, sentence: str) -> None:
    Path("x.jsonl").write_text(content)
    assert refused("x.jsonl") == sentence.format(file=here("x.jsonl"))


def test_a_failed_load_leaves_the_last_outputs() -> None:
    Path("x.csv").write_text(CSV)
    before = loaded("x.csv")
    Path("x.csv").write_text("text,label\na,x\n")
    refused("x.csv")
    assert examples.read(Path("raw/examples.parquet")).equals(before)


def test_broken_files_get_one_sentence() -> None:
    Path("x.parquet").write_bytes(b"PAR1 no")
    assert refused("x.parquet").startswith(f"Expected a parquet file in {here('x.parquet')}: ")
    Path("x.csv.gz").write_bytes(gzip.compress(CSV.encode())[:-9])
    assert refused("x.csv.gz").startswith(f"Expected to read {here('x.csv.gz')}, found: ")
    Path("x.csv").write_text(CSV)
    assert "File is not a zip file" in refused("zip://x.csv::x.csv")
    Path("deep.json").write_text("[" * 100_000)
    assert "nested too deep" in refused("deep.json")
    Path("empty.jsonl").write_text("\n")
    assert refused("empty.jsonl").startswith("Expected rows in")
    assert "found none" in refused("pkg://no-such-package")
    assert refused("  ").startswith("load.source is empty")


def test_equal_sources_give_equal_bytes() -> None:
    Path("x.csv").write_text(CSV)
    loaded("x.csv")
    first = Path("raw/examples.parquet").read_bytes()
    loaded("x.csv")
    assert Path("raw/examples.parquet").read_bytes() == first
