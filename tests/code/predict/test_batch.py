"""Tables in and out of the inference command."""

import bz2
import csv
import gzip
import http.server
import io
import json
import logging
import lzma
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from conftest import ROOT, make_model, make_texts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.core.errors import InputError
from src.predict import __main__ as predict
from src.predict import batch
from src.predict import input as reader
from src.predict.classifier import Classifier
from src.predict.scoring import Input
from src.predict.texts import Texts

ROWS = 1200  # two batches and a part of one
Row = dict[str, Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    made = [dict(row, number=k) for k, row in enumerate(make_texts(ROWS))]
    for row in made:
        row["topic"] = row.pop("label")
    made[3]["text"] = 'the "goal", he said,\n\tof the match'
    return made


@pytest.fixture(scope="module")
def expected(model: Path, rows: list[Row]) -> list[Row]:
    """What the command says of the same texts, one by one batch."""
    classifier = Classifier(model, 1)
    found: list[Row] = []
    for start in range(0, ROWS, predict.LINES):
        texts = [row["text"] for row in rows[start : start + predict.LINES]]
        found += [dict(p) for p in classifier.predict(texts, 1024)]
    return found


OPENERS: dict[str, Any] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": zstd.open,
}


def write(path: Path, rows: list[Row]) -> Path:
    """Rows as a file of what its ending says."""
    kind = path.suffixes[0]
    if kind == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=500)
        return path
    text = io.StringIO()
    if kind == ".jsonl":
        text.writelines(json.dumps(row) + "\n" for row in rows)
    else:
        out = csv.DictWriter(text, list(rows[0]), delimiter="\t" if kind == ".tsv" else ",")
        out.writeheader()
        out.writerows(rows)
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(path.stem, text.getvalue())
        return path
    with OPENERS.get(path.suffix, open)(path, "wb") as stream:
        stream.write(text.getvalue().encode())
    return path


def read(path: Path) -> list[Row]:
    kind = path.suffixes[0]
    if kind == ".parquet":
        table: list[Row] = pq.read_table(path).to_pylist()
        return table
    with OPENERS.get(path.suffix, open)(path, "rb") as stream:
        text = stream.read().decode()
    if kind == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(io.StringIO(text), delimiter="\t" if kind == ".tsv" else ","))


def rejected(output: Path) -> list[tuple[int, str]]:
    with output.with_name(f"{output.name}.rejected.csv").open(newline="") as stream:
        return [(int(row["line"]), row["reason"]) for row in csv.DictReader(stream)]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("in.csv", "out.csv"),
        ("in.tsv.xz", "out.parquet"),
        ("in.jsonl.bz2", "out.jsonl.zst"),
        ("in.jsonl", "out.tsv.bz2"),
        ("in.csv.zst", "out.jsonl.xz"),
        ("in.parquet", "out.parquet"),
        ("in.parquet", "out.csv.gz"),
        ("in.csv.zip", "out.csv"),
    ],
)
def test_every_column_is_kept_and_predictions_are_added(
    source: str, target: str, model: Path, rows: list[Row], expected: list[Row], tmp_path: Path
) -> None:
    predict.main(
        model,
        input=str(write(tmp_path / source, rows)),
        output=str(tmp_path / target),
        probabilities=True,
    )
    typed = ".parquet" in source or (".jsonl" in source and ".jsonl" in target)
    of_text = ".csv" in target or ".tsv" in target
    for row, before, prediction in zip(read(tmp_path / target), rows, expected, strict=True):
        shares = {f"probability_{k}": v for k, v in prediction["probabilities"].items()}
        added = {"label": prediction["label"], "score": prediction["score"]} | shares
        number = before["number"] if typed and not of_text else str(before["number"])
        wanted = {**before, "number": number, **added}
        if of_text:
            wanted |= {key: str(value) for key, value in added.items()}
        assert row == wanted
        assert list(row) == list(wanted)
    assert rejected(tmp_path / target) == []
    first = (tmp_path / target).read_bytes()
    predict.main(
        model, input=str(tmp_path / source), output=str(tmp_path / target), probabilities=True
    )
    assert (tmp_path / target).read_bytes() == first


@pytest.mark.parametrize("target", ["out.csv", "out.tsv", "out.jsonl", "out.parquet"])
def test_a_row_below_min_score_gets_a_guess_and_no_label(
    target: str,
    model: Path,
    rows: list[Row],
    expected: list[Row],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / target
    least = float(np.median([one["score"] for one in expected]))
    given: Row = {"input": str(source), "output": str(output), "prefix": "p_"}
    predict.main(model, **given, min_score=least, probabilities=True)
    found = read(output)
    few = sum(one["score"] < least for one in expected)
    assert 0 < few < ROWS
    assert f"no label {few}, with a score below {least:g}" in caplog.text
    missing = "" if target in ("out.csv", "out.tsv") else None
    for row, before, one in zip(found, rows, expected, strict=True):
        assert list(row)[: len(before) + 3] == [*before, "p_label", "p_guess", "p_score"]
        label = one["label"] if one["score"] >= least else missing
        assert (row["p_label"], row["p_guess"]) == (label, one["label"])
        assert float(row["p_score"]) == one["score"]
    given["input"] = str(write(tmp_path / "taken.csv", [{"text": "goal", "p_guess": "mine"}]))
    with pytest.raises(InputError, match="has a column 'p_guess', as the predictions have: set"):
        predict.main(model, **given, min_score=least)
    caplog.clear()
    predict.main(model, **given, min_score=0)
    assert list(read(output)[0]) == ["text", "p_guess", "p_label", "p_score"]
    assert "no label" not in caplog.text


def test_parquet_keeps_its_types(model: Path, tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": pa.array(["goal", "bank", None]).dictionary_encode(),
            "when": pa.array([0, 1, 2], pa.timestamp("us", "UTC")),
            "tags": pa.array([["a"], [], None], pa.list_(pa.string())),
            "image": pa.array([b"\xff", b"", b""]),
            "price": pa.array([1, 2, 3], pa.int32()).cast(pa.decimal128(12, 2)),
        }
    ).replace_schema_metadata({"made by": "hand"})
    pq.write_table(table, tmp_path / "in.parquet")
    output = tmp_path / "out.parquet"
    predict.main(model, input=str(tmp_path / "in.parquet"), output=str(output))
    found = pq.read_table(output)
    assert found.schema.metadata[b"made by"] == b"hand"
    assert found.column_names == [*table.column_names, "label", "score"]
    assert found.select(table.column_names).equals(table.slice(0, 2))
    assert rejected(output) == [(3, "no text")]
    with pytest.raises(InputError, match=r"'image' of binary has no form in csv and tsv"):
        predict.main(model, input=str(output), output=str(tmp_path / "o.csv"), prefix="p_")
    few = tmp_path / "few.parquet"
    pq.write_table(found.drop_columns(["image"]), few)
    predict.main(model, input=str(few), output=str(tmp_path / "o.jsonl"), prefix="p_")
    assert read(tmp_path / "o.jsonl")[0] | {"score": 0, "p_score": 0} == {
        "text": "goal",
        "when": "1970-01-01 00:00:00.000000Z",
        "tags": ["a"],
        "price": "1.00",
        "label": "sport",
        "score": 0,
        "p_label": "sport",
        "p_score": 0,
    }


BAD_CSV = b"""id,text
1,goal
2,"two
lines of a match"

3,too,many
4
5,"quoted" badly
6,  \n7,caf\xe9
8,"never closed
9,bank
"""
BAD_JSONL = b"""{"id": 1, "text": "goal", "score": 1.50, "text": "twice"}
{"id": 2, "text": "bank", "number": 1.50}

{"id": 3, "text": null}
{"id": 4, "text": ["a"]}
{"id": 5}
["goal"]
{"id": 6, "text": "goal"
{"id": 7, "text": "caf\xe9"}
{"id": 8, "text": "half \\ud800"}
{"id": NaN, "text": "goal"}
{"id": 9, "text": "goal"}
"""


def test_rows_that_cannot_be_scored_stand_apart_with_line_and_reason(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "in.csv").write_bytes(BAD_CSV)
    output = tmp_path / "out.csv"
    predict.main(model, input=str(tmp_path / "in.csv"), output=str(output))
    assert [row["id"] for row in read(output)] == ["1", "2", "9"]
    assert rejected(output) == [
        (6, "expected 2 fields, found 3"),
        (7, "expected 2 fields, found 1"),
        (8, "',' expected after '\"'"),
        (9, "no text"),
        (10, "not UTF-8: byte 0xe9"),
        (11, "a quote that opens here and is never closed"),
    ]
    assert f"read 9 = scored 3 + rejected 6, which {output}.rejected.csv lists" in caplog.text

    (tmp_path / "in.jsonl").write_bytes(BAD_JSONL)
    reasons = [
        (1, "key 'text' twice in one object"),
        (4, "no text"),
        (5, "expected text in 'text', found [\"a\"]"),
        (6, "no text"),
        (7, "not a JSON object"),
        (8, "not JSON: Expecting ',' delimiter, column 25"),
        (9, "not UTF-8: byte 0xe9"),
        (10, "half of a surrogate pair"),
        (11, "NaN, which is not JSON (null is)"),
    ]
    for name in ("out.jsonl", "out.parquet"):
        predict.main(
            model, input=str(tmp_path / "in.jsonl"), output=str(tmp_path / name), prefix="p_"
        )
        assert rejected(tmp_path / name) == reasons
        assert [int(row["id"]) for row in read(tmp_path / name)] == [2, 9]
    assert '"number": 1.50, "p_label": ' in (tmp_path / "out.jsonl").read_text()
    assert caplog.text.count("read 11 = scored 2 + rejected 9") == 2

    words = pa.array([b"goal", b"caf\xe9", b""]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": words}), tmp_path / "in.parquet")
    predict.main(model, input=str(tmp_path / "in.parquet"), output=str(tmp_path / "o.parquet"))
    assert rejected(tmp_path / "o.parquet") == [(2, "not UTF-8: byte 0xe9"), (3, "no text")]


def test_a_later_row_shadows_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Texts, "rows", 2)
    texts: list[Row] = [{"text": f"goal {k}"} for k in range(5)]
    texts[3]["score"], texts[4]["p_label"] = 1.5, "mine"
    source, output = write(tmp_path / "in.jsonl", texts), tmp_path / "out.jsonl"
    predict.main(model, input=str(source), output=str(output))
    assert rejected(output) == [(4, "a key 'score', as the predictions have: set --prefix")]
    assert read(output)[3]["p_label"] == "mine"
    predict.main(model, input=str(source), output=str(output), prefix="p_")
    assert rejected(output) == [(5, "a key 'p_label', as the predictions have: set --prefix")]
    assert read(output)[3]["score"] == 1.5


@pytest.mark.parametrize(
    ("encoding", "quote"),
    [("cp1252", '"'), ("utf-16", "'"), ("latin-1", '"'), ("utf-8", ""), ("utf-16-le", "")],
)
def test_a_table_of_another_form(encoding: str, quote: str, model: Path, tmp_path: Path) -> None:
    """As load reads it: what German Excel saves, for one. The output has the usual form."""
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    cell = f"{quote}größte; bank{quote}" if quote else "größte' bank"
    source.write_text(f"id;text\r\n1;{cell}\r\n2;goal\r\n", encoding=encoding, newline="")
    form: Row = {"delimiter": ";", "quote": quote, "encoding": encoding}
    predict.main(model, input=str(source), output=str(output), **form)
    assert [row["text"] for row in read(output)] == [cell.strip(quote or None), "goal"]
    assert rejected(output) == []


def test_a_byte_that_another_encoding_has_not_is_named(model: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(b"text\ngoal\n\x81 bank\n")
    predict.main(model, input=str(source), output=str(output), encoding="cp1252")
    assert rejected(output) == [(3, "not CP1252: byte 0x81")]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_row_that_gets_lost_on_the_way_is_seen(
    kind: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def losing(*words: Any) -> Iterator[Input]:
        with reader.reading(*words) as found:
            batches = (
                replace(b, inputs=b.inputs[1:], count=b.count - 1, rows=b.rows[1:])
                for b in found.batches
            )
            yield replace(found, batches=batches)

    monkeypatch.setattr(batch, "reading", losing)
    source = write(tmp_path / f"in.{kind}", [{"text": "goal"}, {"text": "bank"}])
    with pytest.raises(RuntimeError, match=r"do not add up.*read=2, scored=1, rejected=0"):
        predict.main(model, input=str(source), output=str(tmp_path / "out.csv"))
    assert not (tmp_path / "out.csv").exists()


def test_a_row_that_is_too_long_takes_no_other_with_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "FIELD", 100)
    long = "goal " * 100
    lines = ["text,id", f"{long},1", "goal,2", '"opens', *["bank,3"] * 20, f"{long},4", "loan,5"]
    (tmp_path / "in.csv").write_text("\n".join(lines))
    output = tmp_path / "out.csv"
    predict.main(model, input=str(tmp_path / "in.csv"), output=str(output))
    assert [row["id"] for row in read(output)] == ["2", *["3"] * 20, "5"]
    assert rejected(output) == [
        (2, "a line of more than 100 characters"),
        (4, "a quote that opens here and is never closed"),
        (25, "a line of more than 100 characters"),
    ]
    (tmp_path / "in.tsv").write_text('text\tid\n"goal\t1\nbank\t2\nloan"\t3\nprofit\t4\n')
    predict.main(model, input=str(tmp_path / "in.tsv"), output=str(tmp_path / "out.tsv"))
    assert rejected(tmp_path / "out.tsv") == [(2, "a quote that opens here takes in further rows")]
    assert [row["id"] for row in read(tmp_path / "out.tsv")] == ["2", "3", "4"]


PARTS = b'" , \t \n \r\n goal \xff {"text":"bank"} { \\'.split(b" ")


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(["csv", "tsv", "jsonl"]),
    parts=st.lists(st.sampled_from(PARTS), max_size=20),
)
def test_whatever_the_lines_none_is_lost(
    kind: str, parts: list[bytes], model: Path, tmp_path: Path
) -> None:
    """Each line has a row of its own, or is part of one, or is blank."""
    path = tmp_path / f"in.{kind}"
    head = b"" if kind == "jsonl" else b"text\n"
    path.write_bytes(head + b'{"text": "goal"}\n' + b"".join(parts))
    output = tmp_path / "out.jsonl"
    predict.main(model, input=str(path), output=str(output))
    found = len(read(output)) + len(rejected(output))
    lines = path.read_bytes().decode("latin-1").splitlines()[bool(head) :]
    assert found <= len([line for line in lines if line.strip("\r\n")])
    if not any(part == b'"' for part in parts) and kind != "jsonl":
        assert found == len([line for line in lines if line])
    if kind == "jsonl":
        assert found == len([line for line in lines if line.strip()])
    with output.with_name("out.jsonl.rejected.csv").open(newline="") as stream:
        come_out = output.read_text() + "".join(row["row"] for row in csv.DictReader(stream))
    for word in ("goal", "bank"):
        assert come_out.count(word) == path.read_bytes().decode("latin-1").count(word)


def run(*words: object, stdin: bytes = b"", code: int = 0) -> tuple[bytes, str]:
    done = subprocess.run(
        [sys.executable, "-m", "src.predict", *map(str, words)],
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        check=False,
    )
    assert done.returncode == code, done.stderr.decode()
    return done.stdout, done.stderr.decode()


def test_standard_input_and_output(model: Path, rows: list[Row], tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", rows)
    predict.main(model, input=str(source), output=str(tmp_path / "out.csv"))
    out, err = run(model, "--input", "-", "--format", "csv", stdin=source.read_bytes() + b"\n1\n")
    assert out == (tmp_path / "out.csv").read_bytes()
    assert "line 1204 is rejected: expected 4 fields, found 1: '1'" in err
    assert f"read {ROWS + 1} = scored {ROWS} + rejected 1" in err
    whole = write(tmp_path / "in.parquet", rows).read_bytes()
    words = ("--input", "-", "--output", "-", "--format", "parquet")
    found = pq.read_table(pa.BufferReader(run(model, *words, stdin=whole)[0]))
    assert found["score"].to_pylist() == [float(r["score"]) for r in read(tmp_path / "out.csv")]
    command = f"{sys.executable} -m src.predict {model} --input {source} | head -1"
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, check=True)
    assert done.stdout == b"text,language,number,topic,label,score\n"
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        """Say nothing."""


def test_urls_in_and_out(
    model: Path, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in.csv.gz", rows)
    predict.main(model, input=str(source), output=str(tmp_path / "out.parquet"))
    handler = partial(_Quiet, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            predict.main(model, input=f"{url}/in.csv.gz", output="memory://here/out.parquet")
            with pytest.raises(InputError, match=f"^{url}/no.csv can't be read: "):
                predict.main(model, input=f"{url}/no.csv", output="memory://out.csv")
        finally:
            server.shutdown()
            thread.join()
    memory = fsspec.filesystem("memory")
    assert memory.cat("/here/out.parquet") == (tmp_path / "out.parquet").read_bytes()
    assert sorted(memory.ls("/here", detail=False)) == [
        "/here/out.parquet",
        "/here/out.parquet.rejected.csv",
    ]
    predict.main(model, input="memory://here/out.parquet", output="memory://b.csv", prefix="p_")
    assert memory.cat("/b.csv").startswith(b"text,language,number,topic,label,score,p_label,p_sc")
    memory.rm("/here", recursive=True)
    with pytest.raises(InputError, match=r"^nosuch://a.csv can't be read: Protocol not"):
        predict.main(model, input="nosuch://a.csv", output="memory://b.csv")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=r"^gs://a/b.csv can't be read: .*gcsfs.*; inst"):
        predict.main(model, input="gs://a/b.csv", output="memory://b.csv")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"input": "qqqqqqqqq.csv"}, "no file at .*qqqqqqqqq.csv, seen from .*: correct --input"),
        ({"input": "inn.csv"}, r"inn.csv, .* \(did you mean 'in.csv'\?\): correct --input"),
        ({"input": "in.txt"}, "format of .*in.txt .*: pass --format, one of csv, tsv, jsonl, parq"),
        ({"output": "out.xlsx"}, "format of .*out.xlsx .*: pass --format, one of csv, tsv, jsonl,"),
        ({"input": "-"}, "the format of standard input"),
        ({"text_column": "texts"}, r"no column 'texts', but 'text', 'label' \(did you mean 'text'"),
        ({"prefix": ""}, "has a column 'label', as the predictions have: set --prefix"),
        ({"output": "in.csv"}, "--output is the same file as --input, .*in.csv"),
        ({"rejected": "in.csv"}, "--rejected is the same file as --input"),
        ({"output": "../in"}, "--output .*in is a folder"),
        ({"output": "pipe"}, "--output .*pipe is a device, pipe or socket"),
        ({"rejected": "pipe"}, "--rejected .*pipe is a device, pipe or socket"),
        ({"output": "in.txt/out.csv"}, "in.txt/out.csv can't be written: File exists"),
        ({"output": "in.txt/a/o.csv"}, "can't be written: Not a directory"),
        ({"rejected": "in.txt/r.csv"}, "in.txt/r.csv can't be written: File exists"),
        ({"output": "n" * 300}, "nnn can't be written: File name too long"),
        ({"output": ""}, "--output is empty: name a file, or - for standard output"),
        ({"output": "-", "rejected": "-"}, "--output and --rejected are both -"),
        ({"format": "jsonl"}, "--format jsonl contradicts the endings of .*in.csv and .*out.csv"),
        ({"output": "o.parquet.gz"}, "as parquet is compressed inside: leave .gz out"),
        ({"output": "o.csv.zip"}, "--output .*o.csv.zip can't be compressed as .zip: let it end"),
        (
            {"output": "-", "resume": True},
            "--resume needs an --output that is a file .* not standard out",
        ),
        ({"input": "semicolon.csv"}, "has one column, 'text;label', .*pass --delimiter ';'"),
        ({"input": "double.csv"}, "has 2 columns 'text'"),
        ({"input": "empty.csv"}, "empty.csv has no header"),
        ({"input": "utf16.csv"}, "has the byte-order mark of utf-16, .*: pass --encoding utf-16"),
        ({"input": "utf16.csv", "encoding": "utf-16"}, "utf16.csv is not utf-16 .*truncated data"),
        ({"input": "in.csv", "encoding": "utf-16"}, "in.csv is not utf-16 .*BOM"),
        ({"encoding": "utf-8\0"}, "--encoding is 'utf-8.x00', which Python does not know"),
        ({"input": "sep.csv", "delimiter": ";"}, "'sep=;', which only Excel .* --delimiter ';'"),
        ({"delimiter": ";;"}, "--delimiter is ';;': give one ASCII character"),
        ({"quote": ","}, "--quote is ',': give one ASCII character that is not the delimiter"),
        ({"encoding": "cp125"}, "--encoding is 'cp125', which Python does not know"),
        ({"input": "bad.parquet"}, "bad.parquet can't be read as parquet: .*[Pp]arquet"),
        ({"input": "number.parquet"}, "has int64 in column 'text', which is not text: save it"),
        ({"input": "blank.csv"}, "all 2 are rejected \\(see .*rejected.csv\\), the last one for"),
        ({"input": "cut.csv.gz"}, "cut.csv.gz can't be read to its end: .*Compressed file ended"),
        ({"input": "damaged.jsonl.zst"}, "damaged.jsonl.zst can't be read to its end: "),
        ({"input": "broken.csv.zip"}, "broken.csv.zip can't be read: File is not a zip file"),
        ({"input": "zip://in.csv::broken.csv.zip"}, "can't be read: File is not a zip file"),
        ({"input": "several.csv.zip"}, "several.csv.zip holds 2 files: name those to read"),
        ({"input": "table.csv"}, "table.csv is parquet by its first bytes, not a csv file"),
        ({"ray": "127.0.0.1"}, "--ray 127.0.0.1 can't be reached: "),
        ({"ray": "127.0.0.1:1"}, "--ray 127.0.0.1:1 can't be reached: .*refused; start a cluster"),
    ],
)
def test_a_mistake_is_one_sentence_and_loses_nothing(
    options: Row, sentence: str, model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "in.csv").write_text("text,label\ngoal,sport\n")
    (folder / "in.txt").write_text("goal\n")
    (folder / "semicolon.csv").write_text("text;label\ngoal;sport\n")
    (folder / "double.csv").write_text("text,text\ngoal,sport\n")
    (folder / "empty.csv").write_text("")
    (folder / "utf16.csv").write_bytes("text,label\ngoal,a\n".encode("utf-16") + b"x")
    (folder / "sep.csv").write_text("sep=;\ntext;label\ngoal;sport\n")
    (folder / "bad.parquet").write_text("text\ngoal\n")
    pq.write_table(pa.table({"text": [1]}), folder / "number.parquet")
    (folder / "blank.csv").write_text("text,id\n,1\n ,2\n")
    draw = np.random.default_rng(0)
    noise = "".join(f"goal {number}\n" for number in draw.random(3000))
    (folder / "cut.csv.gz").write_bytes(gzip.compress(b"text\n" + noise.encode())[:9000])
    (folder / "damaged.jsonl.zst").write_bytes(zstd.compress(noise.encode())[:100] + b"goal")
    (folder / "broken.csv.zip").write_text("text\ngoal\n")
    with zipfile.ZipFile(folder / "several.csv.zip", "w") as archive:
        archive.writestr("a.csv", "text\ngoal\n")
        archive.writestr("b.csv", "text\ngoal\n")
    (folder / "table.csv").write_bytes((folder / "number.parquet").read_bytes())
    (folder / "out.csv").write_text("precious")
    os.mkfifo(folder / "pipe")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    given: Row = {"input": "in.csv", "output": "out.csv", "prefix": "p_"} | options
    for name in ("input", "output", "rejected"):
        if given.get(name, "-") not in ("-", ""):
            inner, mark, path = given[name].rpartition("::")
            given[name] = f"{inner}{mark}{folder / path}"
    with pytest.raises(InputError, match=sentence):
        predict.main(model, **given)
    assert (folder / "pipe").is_fifo()
    after = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    after.pop(".out.csv.scores", None)  # of what came before the damage
    if options == {"input": "blank.csv"}:
        side = after.pop("out.csv.rejected.csv")
        assert side == b'line,reason,row\n2,no text,",1"\n3,no text," ,2"\n'
    assert after == before


def test_what_a_link_points_at_is_written(model: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", [{"text": "goal"}, {"text": ""}])
    away = tmp_path / "away"
    away.mkdir()
    (away / "old.csv").write_text("old")
    links = {tmp_path / "out.csv": away / "old.csv", tmp_path / "side.csv": away / "new.csv"}
    for link, target in links.items():
        link.symlink_to(target)
    output, side = map(str, links)
    predict.main(model, input=str(source), output=output, rejected=side)
    assert all(link.is_symlink() for link in links)
    assert [row["label"] for row in read(away / "old.csv")] == ["sport"]
    assert [row["line"] for row in read(away / "new.csv")] == ["3"]
    assert {path.name for path in away.iterdir()} == {"old.csv", "new.csv"}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_standard_input_goes_on_where_it_stands(
    kind: Literal["csv", "parquet"], model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write(tmp_path / f"in.{kind}", [{"text": "goal"}]).read_bytes()
    (tmp_path / "both").write_bytes(b"a line before it\n" + table)
    with (tmp_path / "both").open("rb", buffering=0) as file:
        file.readline()
        standard = os.fdopen(file.fileno(), "rb", closefd=False)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=standard))
        predict.main(model, input="-", format=kind, output=str(tmp_path / "out.csv"))
    assert [row["text"] for row in read(tmp_path / "out.csv")] == ["goal"]


def test_options_of_tables_go_with_tables(model: Path) -> None:
    with pytest.raises(InputError, match=r"^--excel_safe is for tables: add --input"):
        predict.main(model, "goal", excel_safe=True)
    with pytest.raises(InputError, match=r"both texts, 'goal', and --input a.csv"):
        predict.main(model, "goal", input="a.csv")


@pytest.mark.parametrize("target", ["out.csv", "out.tsv"])
def test_no_cell_runs_in_a_spreadsheet(target: str, model: Path, tmp_path: Path) -> None:
    begins = ["=1+1", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "1-1", "'x"]
    made = [{"text": f"goal {k}", "=evil": cell} for k, cell in enumerate(begins)]
    source = write(tmp_path / "in.parquet", made)
    predict.main(model, input=str(source), output=str(tmp_path / target), excel_safe=True)
    found = [row["'=evil"] for row in read(tmp_path / target)]
    assert found == [f"'{cell}" for cell in begins[:6]] + begins[6:]
    predict.main(model, input=str(source), output=str(tmp_path / target))
    assert [row["=evil"] for row in read(tmp_path / target)] == begins


def test_texts_that_the_model_cuts_are_counted(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    texts = ["goal " * 99, "goal " * 100, "goal " * 101, "x" * 1000, "x" * 1001]
    source = write(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    predict.main(model, input=str(source), output=str(tmp_path / "out.jsonl"))
    assert "truncated 2, as the model reads 100 tokens of a text" in caplog.text
    assert Classifier(model, 1).encode(texts)[1] == [False, False, True, False, True]


def test_a_run_that_breaks_goes_on_with_the_same_bytes(
    model: Path, rows: list[Row], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = write(tmp_path / "in.csv.gz", rows)
    whole = source.read_bytes()
    predict.main(model, input=str(source), output=str(tmp_path / "whole.csv.gz"))
    output = tmp_path / "out.csv.gz"
    output.write_text("precious")
    given: Row = {"input": str(source), "output": str(output)}
    source.write_bytes(whole[:-9])
    with pytest.raises(InputError, match="Compressed file ended before the end-of-stream"):
        predict.main(model, **given)
    assert output.read_text() == "precious"
    journal = tmp_path / ".out.csv.gz.scores"
    assert f"1024 rows are scored, and kept in {journal}: --resume" in caplog.text
    scores = journal.read_bytes()

    source.write_bytes(whole)
    with pytest.raises(InputError, match=r"\.scores holds the scores of .*: add --resume"):
        predict.main(model, **given)
    with pytest.raises(InputError, match="scores with batch_tokens 1024, not 64"):
        predict.main(model, **given, resume=True, batch_tokens=64)
    assert journal.read_bytes() == scores
    predict.main(model, **given, resume=True)
    assert output.read_bytes() == (tmp_path / "whole.csv.gz").read_bytes()
    assert "1024 of the rows were scored before the interruption" in caplog.text
    assert not journal.exists()

    # The least score is asked of each row, also of those that were scored without it.
    journal.write_bytes(scores)
    predict.main(model, **given, resume=True, min_score=0.8)
    resumed = output.read_bytes()
    predict.main(model, **given, min_score=0.8)
    assert output.read_bytes() == resumed != (tmp_path / "whole.csv.gz").read_bytes()
    assert {row["label"] for row in read(output)[:1024]} > {""}
    assert caplog.text.count("1024 of the rows were scored before the interruption") == 2

    # Neither half a batch, nor a damaged one, nor one of other texts is taken for scores.
    damaged = bytearray(scores)
    damaged[-100] ^= 1
    for left in (scores[:-1], bytes(damaged)):
        journal.write_bytes(left)
        predict.main(model, **given, resume=True)
        assert output.read_bytes() == (tmp_path / "whole.csv.gz").read_bytes()
    assert caplog.text.count("512 of the rows were scored before") == 2


@pytest.mark.parametrize(
    "head", [b"abc", b"abc\n", b"abc\nx", b"[1]\nx", b'"x"\nx', b"[" * 100_000 + b"\nx", b"\xff\n"]
)
def test_a_file_that_is_no_journal_is_kept(head: bytes, model: Path, tmp_path: Path) -> None:
    source, output = write(tmp_path / "in.jsonl", [{"text": "a"}]), tmp_path / "out.jsonl"
    mine = tmp_path / ".out.jsonl.scores"
    mine.write_bytes(head)
    for resume in (False, True):
        with pytest.raises(InputError, match=r"\.scores is not what an interrupted run leaves"):
            predict.main(model, input=str(source), output=str(output), resume=resume)
    assert mine.read_bytes() == head
    assert not output.exists()


def test_what_an_address_keeps_secret_is_in_no_sentence(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = "http://ann:hunter2@127.0.0.1:9/in.csv?token=s3cret"
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1:9/in\.csv can't be read") as raised:
        predict.main(model, input=address, output=str(tmp_path / "out.csv"))
    for told in (str(raised.value), caplog.text, *(path.name for path in tmp_path.iterdir())):
        assert "hunter2" not in told
        assert "s3cret" not in told


def test_another_input_costs_no_scores(model: Path, rows: list[Row], tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl.gz", tmp_path / "out.jsonl"
    journal = tmp_path / ".out.jsonl.scores"

    def interrupted(rows: list[Row], resume: bool) -> bytes:
        source.write_bytes(write(source, rows).read_bytes()[:-9])
        with pytest.raises(InputError, match="ended before the end-of-stream"):
            predict.main(model, input=str(source), output=str(output), resume=resume)
        return journal.read_bytes()

    scores = interrupted(rows, False)
    for other in (rows[1:], rows[:100]):  # by mistake
        write(source, other)
        with pytest.raises(InputError, match=r"not the one of the interrupted run: .*\.scores"):
            predict.main(model, input=str(source), output=str(output), resume=True)
        assert journal.read_bytes() == scores
    # A row that was mended changes its batch, and the scores of the others stay.
    mended = [row | {"text": "goal"} if k == 600 else row for k, row in enumerate(rows)]
    more = interrupted(mended, True)
    assert more.startswith(scores)
    assert len(more) - len(scores) == RECORD
    assert interrupted(rows, True) == more


@contextmanager
def started(model: Path, *words: str, **pipes: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command while it runs; what is left of it at the end is killed."""
    command = [sys.executable, "-m", "src.predict", str(model), *words]
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(path: Path, size: int, process: subprocess.Popen[bytes]) -> None:
    """Until a file is as large as that."""
    while not path.exists() or path.stat().st_size < size:
        assert process.poll() is None
        time.sleep(0.01)


RECORD = 36 + 512 * 3 * 4 + 4 + 32  # bytes of a batch in the journal


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_same_bytes(
    model: Path, rows: list[Row], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = write(tmp_path / "in.csv", rows)
    predict.main(model, input=str(source), output=str(tmp_path / "whole.parquet"))
    output = tmp_path / "out.parquet"
    words = ["--input", "-", "--format", "csv", "--output", str(output)]
    with started(model, *words, stdin=subprocess.PIPE) as process:
        assert process.stdin
        process.stdin.write(b"".join(source.read_bytes().splitlines(keepends=True)[:700]))
        process.stdin.flush()
        wait_for(tmp_path / ".out.parquet.scores", RECORD, process)
        with pytest.raises(InputError, match=rf"Another process writes {output}"):
            predict.main(model, input=str(source), output=str(output), resume=True)
    assert not output.exists()
    predict.main(model, input=str(source), output=str(output), resume=True)
    assert "512 of the rows were scored before the interruption" in caplog.text
    assert output.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    names = {path.name for path in tmp_path.iterdir()}
    assert not [name for name in names if name.startswith(".")]


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(
    model: Path,
    rows: list[Row],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(batch, "EVERY", 0)
    source = write(tmp_path / "in.parquet", rows)
    predict.main(model, input=str(source), output=str(tmp_path / "out.csv"))
    lines = [line for line in caplog.messages if " rows, " in line]
    assert [line.split()[0] for line in lines] == ["512", "1024", "1200"]
    assert all(" a second, 0 min left" in line for line in lines)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    predict.main(model, input=str(tmp_path / "out.csv"), output=str(tmp_path / "o.csv"), prefix="p")
    assert "1200/1200 [" in capsys.readouterr().err


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}")
ABSENT = ["torch", "transformers", "dvc", "dvclive", "pandas", "sklearn", "ray", "requests"]
ABSENT += ["charset_normalizer", "urllib3"]
sys.meta_path.insert(0, Absent())
from pathlib import Path
from src.predict.__main__ import main
"""


def test_what_tables_need_is_not_what_trains(model: Path, tmp_path: Path) -> None:
    """Neither torch nor transformers, DVC nor pandas."""
    source, output = write(tmp_path / "in.csv", [{"text": "goal"}]), tmp_path / "o.parquet"
    code = f"""
{WITHOUT}
main(Path({str(model)!r}), input={str(source)!r}, output={str(output)!r})
try:
    main(Path({str(model)!r}), input={str(source)!r}, output="-", ray="auto")
except Exception as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--ray needs the package ray, which is not installed: `pip install ray`" in done.stdout
    assert read(output)[0]["label"] == "sport"


def test_the_files_that_the_readme_names_predict_texts_elsewhere(
    model: Path, tmp_path: Path
) -> None:
    sentence = re.search(
        r"copy `models/shipped` and (.*?) of `src`", (ROOT / "README.md").read_text()
    )
    assert sentence
    (tmp_path / "src").mkdir()
    names = re.findall(r"`([\w.]+)`", sentence[1])
    for name in names:
        if (ROOT / "src" / name).is_dir():
            shutil.copytree(ROOT / "src" / name, tmp_path / "src" / name)
        else:
            shutil.copy(ROOT / "src" / name, tmp_path / "src")
    code = f"""
{WITHOUT}
ABSENT += ["pyarrow", "fsspec", "tqdm"]
main(Path({str(model)!r}), "goal")
try:
    main(Path({str(model)!r}), input="in.csv")
except Exception as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])["label"] == "sport"
    assert "`pip install pyarrow fsspec`" in done.stdout
    assert names == ["__init__.py", "core", "tables", "predict"]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.cluster_utils import Cluster
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield made
    made.shutdown()  # type: ignore[no-untyped-call]


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_writes_the_same_bytes(
    model: Path, tmp_path: Path, cluster: Any
) -> None:
    node = cluster.add_node(num_cpus=1)
    many = [{"text": row["text"], "number": k} for k, row in enumerate(make_texts(20_000))]
    source = write(tmp_path / "in.parquet", many)
    output = tmp_path / "out.parquet"
    words = ["--input", str(source), "--output", str(output), "--ray", cluster.address]
    words += ["--min_score", "0.8"]
    with started(model, *words, stderr=subprocess.PIPE) as process:
        wait_for(tmp_path / ".out.parquet.scores", 10 * RECORD, process)
        # Its workers stand still, so that what they have can't be done before the node is gone.
        raylet = node.all_processes["raylet"][0].process.pid
        workers = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
        for worker in workers:
            os.kill(int(worker), signal.SIGSTOP)
        cluster.remove_node(node, allow_graceful=False)
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(int(worker), signal.SIGKILL)
        _, err = process.communicate()
    assert process.returncode == 0, err.decode()
    assert b"nodes of Ray that scored: 2" in err
    assert b"computing with ONNX Runtime, since the nodes of Ray may differ" in err
    whole = tmp_path / "whole.parquet"
    predict.main(model, input=str(source), output=str(whole), min_score=0.8)
    assert output.read_bytes() == whole.read_bytes()
    assert 0 < pq.read_table(whole)["label"].null_count < len(many)
