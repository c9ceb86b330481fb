"""Files as other programs write them are read alike by load, check and prediction."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_texts
from loading import here, loaded, refused, rejected

from src.core.errors import InputError
from src.predict.formats import Dialect, own_format
from src.predict.input import reading
from src.predict.scoring import Batch
from src.predict.texts import TextColumn
from src.tables import lines, parquet_rows
from src.tables import rows as rows_of_sources
from src.tables.places import Place
from src.text import evaluate

TEXTS = make_texts(60)


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scored(name: str) -> tuple[list[str], list[tuple[int, str]]]:
    """The texts that prediction reads, and the line and reason of each row that it rejects."""
    place = Place(name, "--input")
    with reading(
        place, own_format(place) or "csv", Dialect(), TextColumn("text"), 100, False, []
    ) as table:
        batches: list[Batch] = list(table.batches)
    texts = [text for batch in batches for text in batch.inputs]
    return texts, [(one.line, one.reason) for batch in batches for one in batch.rejected]


def rows(end: str) -> str:
    """Two lines of a header and a text that another one follows, in lines that end so."""
    return end.join(["text,label", "first half\rsecond half,x", '"a\rb\r",y', "c,x", ""])


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
@pytest.mark.parametrize("quote", ['"', ""])
def test_a_carriage_return_within_a_line_is_part_of_its_text(end: str, quote: str) -> None:
    Path("x.csv").write_text(rows(end), newline="")
    texts = ["first half\rsecond half", "a\rb\r" if quote else '"a\rb\r"', "c"]
    assert list(loaded("x.csv", quote=quote)["text"]) == texts
    Path("x.tsv").write_text(rows(end).replace(",", "\t"), newline="")
    assert list(loaded("x.tsv", quote=quote)["text"]) == texts
    if quote:
        assert scored("x.csv") == scored("x.tsv") == (texts, [])
    Path("y.csv").write_text(rows(end).replace("c,x", "c"), newline="")
    loaded("y.csv", quote=quote)
    assert [row[1] for row in rejected()] == ["4"], "the number of the line in an editor"


def test_lines_of_an_old_mac_end_in_a_carriage_return(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "AHEAD", 100)  # so that the file is longer than what is looked at
    texts = [f"text {k}" for k in range(60)]
    for last in ("\r", ""):
        body = "\r".join(f"{text},{'xy'[k % 2]}" for k, text in enumerate(texts))
        Path("x.csv").write_text(f"text,label\r{body}{last}", newline="")
        assert list(loaded("x.csv")["text"]) == scored("x.csv")[0] == texts
        objects = "\r".join(f'{{"text": "{text}", "label": "{text[-1]}"}}' for text in texts)
        Path("x.jsonl").write_text(objects + last, newline="")
        assert list(loaded("x.jsonl")["text"]) == scored("x.jsonl")[0] == texts


def test_objects_may_have_a_carriage_return_between_their_values() -> None:
    Path("x.jsonl").write_text(
        '{"text": "a",\r"label": "x"}\n{"text": "b",\r "label": "y"}\n', newline=""
    )
    assert list(loaded("x.jsonl")["text"]) == scored("x.jsonl")[0] == ["a", "b"]


def test_carriage_returns_are_quoted_in_what_is_written() -> None:
    Path("x.csv").write_text("text,label\na\rb,x\na\rb,x\nc,y\n", newline="")
    loaded("x.csv")
    with Path("rejected.csv").open(newline="") as stream:
        written = stream.read()
    assert written.count("\n") == 2, "no row ends in CR LF"
    assert list(csv.reader(io.StringIO(written, newline="")))[1] == [
        *("x.csv", "3", "x:2", "duplicate", "x", "a\rb")
    ]


def test_mistakes_quote_carriage_returns(tmp_path: Path) -> None:
    import numpy as np

    frame = pd.DataFrame({"id": ["1", "2"], "label": ["x", "y"], "text": ["a\rb", 'c "d", e']})
    sure = np.array([[0.25, 0.75], [0.9, 0.1]])
    evaluate._write_predictions(tmp_path, frame, np.array([0, 1]), sure, ["x", "y"], 50)
    assert (tmp_path / "mistakes.csv").read_bytes() == (
        b'id,label,predicted,score,text\n2,y,x,0.9,"c ""d"", e"\n1,x,y,0.75,"a\rb"\n'
    )


def parquet(columns: dict[str, pa.Array], features: dict[str, Any] | None = None) -> str:
    """A file with the metadata that Hugging Face writes."""
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else {}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), "x.parquet")
    return "x.parquet"


def test_classes_that_the_metadata_names_are_no_numbers(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    kind = {"names": ["ham", "spam"], "_type": "ClassLabel"}
    features = {"label": kind, "side": {"names": ["l", "r"], "_type": "ClassLabel"}, "text": {}}
    columns = {"text": pa.array(["a", "b", "c", "d"]), "side": pa.array([0, 1, None, 0], pa.int8())}
    labels = pa.array([0, 1, -1, 0])
    name = parquet(columns | {"label": labels, "n": labels}, features)
    kept = loaded(name, missing_labels="drop")
    assert list(kept["label"]) == ["ham", "spam", "ham"]
    assert list(kept["side"]) == ["l", "r", "l"]
    assert list(kept["n"]) == ["0", "1", "0"]
    told = f"{here(name)}: the numbers in column 'label' are read as their names: ham, spam"
    assert caplog.messages.count(told) == 1
    assert refused(name) == (
        f"{here(name)}, line 3 has no label: add one, or set load.missing_labels to drop to leave "
        "such rows out."
    )
    wrong = parquet(columns | {"label": pa.array([0, 1, 2, 0])}, features)
    assert refused(wrong) == (
        f"{here(name)} has 2 in column 'label', and its metadata names 2 classes, from 0 on: "
        "correct it, or save the names as strings."
    )
    words = parquet(columns | {"label": pa.array(["x", "y", "x", "y"])}, features)
    assert list(loaded(words)["label"]) == ["x", "y", "x", "y"]
    parquet(columns | {"label": pa.array([0, 1, 0, 1])}, {"label": {"names": 2}})
    assert list(loaded(name)["label"]) == ["0", "1", "0", "1"]


def test_categories_are_their_names() -> None:
    for kind in ("category", "string"):
        frame = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]}).astype(kind)
        frame.to_parquet("x.parquet")
        assert list(loaded("x.parquet")["label"]) == ["x", "y"]
        assert scored("x.parquet") == (["a", "b"], [])
    pd.DataFrame({"text": ["a", "b"], "label": [7, 8]}).astype("category").to_parquet("x.parquet")
    assert list(loaded("x.parquet")["label"]) == ["7", "8"]


TEXT_TYPES = [
    *(pa.string(), pa.large_string(), pa.string_view()),
    *(pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(3)),
    *(pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.binary())),
]


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
def test_texts_of_every_type_of_parquet(kind: pa.DataType) -> None:
    def column(*values: str | None) -> pa.Array:
        plain = pa.array([v and v.encode() for v in values], pa.binary())
        if not pa.types.is_dictionary(kind):
            plain = plain if kind != pa.binary(3) else pa.array(plain.to_pylist(), kind)
            return plain if kind == pa.binary(3) else plain.cast(kind)
        return plain.cast(kind.value_type).dictionary_encode().cast(kind)

    parquet({"text": column("abc", None, "dé", "   "), "label": column("x y", "y x", "y x", "x x")})
    assert list(loaded("x.parquet")["text"]) == ["abc", "dé"]
    assert list(loaded("x.parquet")["label"]) == ["x y", "y x"]
    assert scored("x.parquet") == (["abc", "dé"], [(2, "no text"), (4, "no text")])


def test_views_inside_of_other_columns_are_no_hindrance_to_prediction() -> None:
    views = pa.array([["a"], ["b"]], pa.list_(pa.string_view()))
    objects = pa.array([{"k": "a"}, {"k": "b"}], pa.struct([("k", pa.string_view())]))
    parquet({"text": pa.array(["a", ""]), "label": pa.array(["x", "y"]), "v": views, "o": objects})
    assert scored("x.parquet") == (["a"], [(2, "no text")])


def test_bytes_that_are_not_utf_8_break_their_row_alone() -> None:
    odd = pa.array([b"abc", b"\xff\xfe", b"d"])
    parquet({"text": odd, "label": pa.array(["x", "y", "y"]), "image": odd})
    assert scored("x.parquet") == (["abc", "d"], [(2, "not UTF-8: byte 0xff")])
    kept = loaded("x.parquet")
    assert list(kept["text"]) == ["abc", "d"]
    assert "image" not in kept
    assert [row[1:3] for row in rejected()] == [["2", "malformed: not UTF-8: byte 0xff in 'text'"]]


def test_a_value_that_is_no_text_by_its_length_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_of_sources, "FIELD", 10)
    for text in (
        pa.array(["é" * 10, "b" * 11]),
        pa.array(["é" * 10, "b" * 11]).dictionary_encode(),
    ):
        parquet({"text": text, "label": pa.array(["x", "y"])})
        assert refused("x.parquet") == (
            f"{here('x.parquet')}, row 2 can't be read: a value of more than 10 characters in "
            "column 'text'; cut it, or leave the row out."
        )
    parquet({"text": pa.array(["é" * 10, "b" * 10]), "label": pa.array(["x", "y"])})
    assert len(loaded("x.parquet")) == 2
    parquet({"text": pa.array(["a", "b" * (parquet_rows.CELL + 1)])})
    with pytest.raises(InputError, match=r"^x\.parquet, row 2 can't be read: a value of more than"):
        scored("x.parquet")


@pytest.mark.parametrize(
    "several", ["['a', 'b']", '["a", "b"]', "('a', 'b')", "{'b', 'a'}", "['a' 'b']"]
)
def test_lists_that_a_program_printed_are_no_labels(several: str) -> None:
    frame = pd.DataFrame({"text": ["t", "u", "v"], "label": ["['a']", "['b']", several]})
    frame.to_csv("x.csv", index=False)
    assert refused("x.csv") == (
        f"Column 'label' has lists of labels, such as {several}, and this pipeline takes one label "
        "a text: keep one of each, or give each combination a name of its own."
    )


@pytest.mark.parametrize("one", ["['{}']", '["{}"]', "('{}',)", "{{'{}'}}", '["it\'s {}"]'])
def test_lists_of_one_label_are_refused_as_those_of_json_are(one: str) -> None:
    labels = [one.format("a"), one.format("b")]
    pd.DataFrame({"text": ["t", "u"], "label": labels}).to_csv("x.csv", index=False)
    assert refused("x.csv") == (
        f"Column 'label' has lists of one label each, such as {labels[0]}: write the label alone, "
        "without brackets and quotes."
    )


def test_brackets_and_quotes_may_be_part_of_a_label() -> None:
    labels = ["[urgent]", "(a, b)", "'quoted'", "a;b", "[1]", "['a'] or b"]
    pd.DataFrame({"text": [*"tuvwxy"], "label": labels}).to_csv("x.csv", index=False)
    assert list(loaded("x.csv")["label"]) == labels


def test_a_column_of_lists_in_parquet_is_told_to_hold_them() -> None:
    parquet({"text": pa.array(["a"]), "label": pa.array([["x"]])})
    told = refused("x.parquet")
    assert "in column 'label', which is not text: save it as strings, one a row" in told


def test_names_of_rows_that_r_writes_are_no_malformed_rows() -> None:
    for sign in ",;":
        body = "\n".join(f'"{k}"{sign}"text {k}"{sign}"{"xy"[k % 2]}"' for k in range(60))
        Path("x.csv").write_text(f'"text"{sign}"label"\n{body}\n')
        told = (
            f"{here()} has one field more in each row than in its header, as R writes names of "
            "rows: save it with row.names = FALSE, or name every field in the header."
        )
        assert refused("x.csv", delimiter=sign) == told
    Path("x.csv").write_text("text,label\na,x\nb, c,y\nd, e,y\nf,y\n")
    loaded("x.csv")
    assert [row[2] for row in rejected()] == ["malformed: expected 2 fields, found 3"] * 2


def test_ids_that_start_anew_in_each_file_get_the_name_of_their_file(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for name in ("train", "dev"):
        Path(f"{name}.csv").write_text(f"id,text,label\n0,{name} a,x\n1,{name} b,y\n,{name} c,x\n")
    ids = list(loaded("*.csv")["id"])
    assert ids == ["dev:0", "dev:1", "dev:3", "train:0", "train:1", "train:3"]
    assert "Ids start anew in each file: each gets the name of its file before it" in caplog.text
    Path("dev.csv").write_text("id,text,label\n0,a,x\n0,b,y\n")
    assert refused("*.csv").startswith(f"The id '0' is in {here('dev.csv')}, line 2 and in ")
    Path("a").mkdir()
    Path("b").mkdir()
    for name in ("a", "b"):
        Path(name, "train.csv").write_text(f"text,label\n{name} a,x\n{name} b,y\n")
    both = loaded("a/train.csv", "b/train.csv")
    assert list(both["id"]) == ["a/train:1", "a/train:2", "b/train:1", "b/train:2"]
    assert list(both["file"]) == ["a/train", "a/train", "b/train", "b/train"]


@pytest.mark.parametrize(
    "name", ["_SUCCESS", "LICENSE", "README.md", "Thumbs.db", ".DS_Store", "x.csv.crc"]
)
def test_what_stands_beside_the_files_of_a_folder_is_left_out(name: str) -> None:
    Path("texts").mkdir()
    Path("texts", name).write_bytes(b"\x00\x01 no table")
    Path("texts/part-0.csv").write_text("text,label\na,x\nb,y\n")
    assert list(loaded("texts")["text"]) == list(loaded("texts/*")["text"]) == ["a", "b"]
    if not name.startswith("."):
        assert "Can't tell the format" in refused(f"texts/{name}"), "what is named is read"


def test_a_file_that_begins_with_an_underscore_may_be_a_table() -> None:
    Path("texts").mkdir()
    Path("texts/_train.csv").write_text("text,label\na,x\nb,y\n")
    assert list(loaded("texts")["text"]) == ["a", "b"]


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_folders_of_a_partitioned_table_are_its_columns(kind: str) -> None:
    frame = pd.DataFrame({"text": ["a", "b", "c"], "label": ["x y", "z", None], "lang": "en"})
    write: dict[str, Callable[[pd.DataFrame, Path], object]] = {
        "parquet": pd.DataFrame.to_parquet,
        "csv": partial(pd.DataFrame.to_csv, index=False),
        "jsonl": partial(pd.DataFrame.to_json, orient="records", lines=True),
    }
    for name, part in (("x%20y", [0]), ("z", [1]), ("__HIVE_DEFAULT_PARTITION__", [2])):
        folder = Path("texts/lang=en", f"label={name}")
        folder.mkdir(parents=True)
        write[kind](frame.loc[part, ["text"]], folder / f"part-0.{kind}")
    kept = loaded("texts", missing_labels="drop").sort_values("text")
    assert kept[["text", "label", "lang"]].to_numpy().tolist() == [
        ["a", "x y", "en"],
        ["b", "z", "en"],
    ]
    assert rejected()[0][2:] == ["no_label", "c"]


def test_folders_are_columns_where_all_files_of_a_source_are_in_such(
    caplog: pytest.LogCaptureFixture,
) -> None:
    table = "text,label\n{0},x\nmore {0},y\n"
    for folder in ("run=3/all", "run=3/all/lang=fr", "run=3/all/lang=de", "run=3/all/id=7"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, "train.csv").write_text(table.format(folder))
    own = ["id", "text", "label"]
    assert list(loaded("run=3/all")) == [*own, "file"]
    assert f"since {here('run=3/all/id=7/train.csv')} is in none: move it" in caplog.text
    assert list(loaded("run=3/all/lang=*/*.csv")) == [*own, "lang", "file"]
    each = [f"run=3/all/lang={lang}/train.csv" for lang in ("fr", "de")]
    assert list(loaded(*each)["lang"]) == ["fr", "fr", "de", "de"]
    assert list(loaded(each[0])) == own, "its folders are above the source"
    kept = loaded("run=3/all/id=*/*.csv")
    assert list(kept) == own
    with zipfile.ZipFile("x.zip", "w") as archive:
        for lang in ("fr", "de"):
            archive.writestr(f"lang={lang}/x.csv", table.format(lang))
    assert set(loaded("zip://*/x.csv::x.zip")["lang"]) == {"fr", "de"}
    assert kept["id"].is_unique


def test_a_row_of_json_has_its_own_value_or_that_of_its_folder() -> None:
    for lang in ("fr", "de"):
        Path(f"texts/lang={lang}").mkdir(parents=True)
        texts: list[dict[str, Any]] = [
            {"text": f"{lang} {k}", "label": "xy"[k % 2]} for k in range(4)
        ]
        texts[0]["lang"] = "en"
        texts[1]["lang"] = None
        Path(f"texts/lang={lang}/x.jsonl").write_text("\n".join(map(json.dumps, texts)))
    kept = loaded("texts").sort_values("text")
    de, fr = ["en", "", "de", "de"], ["en", "", "fr", "fr"]
    assert list(kept["lang"].fillna("")) == [*de, *fr]


def test_a_file_without_labels_is_told_to_be_left_out() -> None:
    Path("a.csv").write_text("text,label\na,x\nb,y\n")
    Path("b.csv").write_text("text,id\na,1\n")
    assert refused("*.csv") == (
        f"{here('a.csv')} has a column 'label' that {here('b.csv')} lacks: rename or remove "
        f"it, or leave {here('b.csv')} out if its texts have no labels."
    )


def test_a_dataset_that_hugging_face_saved_is_told_what_it_is() -> None:
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"]})
    with pa.OSFile("x.arrow", "wb") as stream, pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile("y.arrow", "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    for name in ("x.arrow", "y.arrow"):
        assert refused(name, format="csv") == (
            f"{here(name)} is an Arrow file by its first bytes, not a csv file: save it again as "
            "parquet, what save_to_disk of Hugging Face wrote by load_from_disk and then "
            "to_parquet."
        )
