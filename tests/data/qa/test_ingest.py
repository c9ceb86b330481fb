"""From files of other makers to sets of questions."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from qa_model import PAGES, PARAMS, ingested, make_facts, squad, write

from src.core import kept
from src.core.errors import InputError
from src.core.files import sha256
from src.tools import fetch

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

if PARAMS:
    from src.qa import reading
    from src.qa.squad import Questions
    from src.tables.places import File

CONTEXT = "The fee is two euros. It falls due in May."


def file_of(path: Path) -> "File":
    return File(str(path), "ingest.source", path, 10**9)


def found(path: Path, content: Any) -> "reading.Found":
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8", newline="")
    else:
        write(path, content)
    return reading.read([file_of(path)], 0.5)


def test_a_source_and_a_target_become_sets(tmp_path: Path) -> None:
    sets = ingested(tmp_path, make_facts(10), squad())
    made = {path.stem: Questions.read(path) for path in sets.glob("*.json")}
    assert set(made) == {"train", "validation", "adapt", "test", "documents"}
    assert len(made["train"].questions) + len(made["validation"].questions) == 40
    documents = [set(made[name].documents()) for name in ("train", "validation")]
    assert not documents[0] & documents[1]
    assert sorted(made["adapt"].documents() + made["test"].documents()) == sorted(PAGES)
    for one in made.values():
        for asked in one.questions:
            text = one.paragraphs[asked.paragraph].text
            assert all(text.startswith(each.text, each.start) for each in asked.answers)
    figures = json.loads((tmp_path / "quality.json").read_text())
    assert figures["sets"]["train"]["questions"] == len(made["train"].questions)
    assert figures["sources"]["ingest.target"] == {"questions": 12, "repaired": {}, "rejected": {}}
    assert "| `test` | of the target, for judging |" in (tmp_path / "quality.md").read_text()
    again = ingested(tmp_path / "again", make_facts(10), squad())
    assert [(again / p.name).read_bytes() for p in sets.iterdir()] == [
        p.read_bytes() for p in sets.iterdir()
    ]


ROWS: list[dict[str, Any]] = [
    {"id": "1", "question": "What is the fee?", "context": CONTEXT, "title": "Fees",
     "answers": {"text": ["two euros"], "answer_start": [11]}},
    {"id": "2", "question": "When?", "context": CONTEXT, "title": "Fees",
     "answers": {"text": ["May", "in May"], "answer_start": [38, 35]}},
]  # fmt: skip


def forms(folder: Path) -> dict[str, Path]:
    flat = [
        {"id": row["id"], "question": row["question"], "context": CONTEXT, "title": "Fees",
         "answer": row["answers"]["text"][0], "answer_start": row["answers"]["answer_start"][0]}
        for row in ROWS
    ]  # fmt: skip
    paths = {name: folder / name for name in ("a.jsonl", "b.json", "c.parquet", "d.csv", "e.tsv")}
    paths["a.jsonl"].write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    write(paths["b.json"], {"data": ROWS})
    pd.DataFrame(ROWS).to_parquet(paths["c.parquet"])
    pd.DataFrame(flat).to_csv(paths["d.csv"], index=False)
    pd.DataFrame(flat).to_csv(paths["e.tsv"], index=False, sep="\t")
    paths["f.jsonl.gz"] = folder / "f.jsonl.gz"
    paths["f.jsonl.gz"].write_bytes(gzip.compress(paths["a.jsonl"].read_bytes()))
    return paths


@pytest.mark.parametrize("name", ["a.jsonl", "b.json", "c.parquet", "d.csv", "e.tsv", "f.jsonl.gz"])
def test_every_form_says_the_same(name: str, tmp_path: Path) -> None:
    read = reading.read([file_of(forms(tmp_path)[name])], 0.5)
    assert (read.read, read.rejected, len(read.questions.paragraphs)) == (2, [], 1)
    first, second = read.questions.questions
    assert (first.id, first.text, first.references) == ("1", "What is the fee?", ["two euros"])
    assert second.references[0] == "May"
    assert read.questions.paragraphs[0].document == "Fees"


def test_answers_are_repaired_and_counted(tmp_path: Path) -> None:
    rows = [
        {"question": "a?", "context": CONTEXT, "answers": [{"text": " two", "answer_start": 10}]},
        {"question": "b?", "context": CONTEXT, "answers": [{"text": "May", "answer_start": 0}]},
        {"question": "c?", "context": CONTEXT, "answers": "TWO EUROS"},
        {"question": "d?", "context": CONTEXT, "answer": "two of the euros"},
        {"question": "e?", "context": CONTEXT, "is_impossible": True, "answers": ["two"]},
        {"question": "f?", "context": CONTEXT},
        {"question": "g?", "context": CONTEXT, "answers": ["unheard of"]},
    ]
    read = found(tmp_path / "x.json", rows)
    assert dict(read.repaired) == {"moved": 1, "respelt": 1, "mapped": 1, "dropped": 1}
    assert [one.references for one in read.questions.questions] == [
        ["two"],
        ["May"],
        ["two euros"],
        ["two euros"],
        [],
        [],
    ]
    (rejected,) = read.rejected
    assert (rejected.code, rejected.place) == ("answer_not_found", "[6]")
    assert "nothing in the context is like the answer 'unheard of'" in rejected.reason


BAD_ROWS: list[tuple[Any, str, str]] = [
    ({"context": CONTEXT}, "no_question", "question is empty or absent"),
    ({"question": " ", "context": CONTEXT}, "no_question", "question is empty or absent"),
    ({"question": "a?", "context": ""}, "no_context", "context is empty or absent"),
    ({"question": 3, "context": CONTEXT}, "wrong_type", "question is int, not text"),
    ({"question": "a?", "context": ["x"]}, "wrong_type", "context is list, not text"),
    ({"question": "a\ud800", "context": CONTEXT}, "not_text", "question has half of a surrogate"),
    ({"question": "a?", "context": CONTEXT, "answers": 3}, "wrong_type", "answers are int"),
    ({"question": "a?", "context": CONTEXT, "answers": [3]}, "wrong_type", "answer has no text"),
    ({"question": "a?", "context": CONTEXT, "answers": [{"text": ""}]}, "wrong_type", "no text"),
    (
        {"question": "a?", "context": CONTEXT, "answers": {"text": ["x"], "answer_start": []}},
        "wrong_type",
        "differ in length",
    ),
    (
        {"question": "a?", "context": CONTEXT, "answers": [{"text": "x", "answer_start": "1"}]},
        "wrong_type",
        "answer_start is '1', not a whole number",
    ),
    (
        {"question": "a?", "context": CONTEXT, "answers": [{"text": "x", "answer_start": -1}]},
        "wrong_type",
        "answer_start is -1",
    ),
    ("a row", "no_object", "not a JSON object"),
    ({"id": "1", "question": "again?", "context": CONTEXT}, "repeated_id", "the id '1' is of"),
]


@pytest.mark.parametrize(("row", "code", "reason"), BAD_ROWS)
def test_a_bad_row_is_told_apart_and_the_others_are_read(
    row: Any, code: str, reason: str, tmp_path: Path
) -> None:
    good = {"id": "1", "question": "b?", "context": CONTEXT, "answers": ["May"]}
    read = found(tmp_path / "x.json", [good, row, {**good, "id": "3"}])
    assert [one.id for one in read.questions.questions] == ["1", "3"]
    (rejected,) = read.rejected
    assert (rejected.code, rejected.place) == (code, "[1]")
    assert reason in rejected.reason


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("x.json", b"", "x.json is empty .0 bytes.: get it again"),
        ("x.json", b"{", "x.json is not JSON .*: get it again"),
        ("x.json", b"\xff\xfe", "x.json is not UTF-8: save it as UTF-8"),
        ("x.json", b"[" * 100_000, "x.json has values nested too deep"),
        ("x.json", b'{"version": 1}', "x.json has version: expected SQuAD's JSON"),
        ("x.json", b"3", "x.json has int: expected SQuAD's JSON"),
        ("x.json", b'{"data": []}', "x.json has no questions"),
        ("x.json", b'{"data": [{"paragraphs": 3}, 4]}', "x.json has no questions"),
        ("x.json", b"<!doctype html><p>Sign in", "x.json is a web page, not JSON"),
        ("x.json", b"PK\x03\x04", "x.json is a zip archive, as .xlsx is by its first bytes"),
        ("x.jsonl", b"\n\n", "x.jsonl has no questions"),
        ("x.csv", b"question,text\na,b\n", "x.csv has no column context.*it has question, text"),
        ("x.csv", b"qestion,context\na,b\n", "no column question .did you mean 'qestion'"),
        ("x.parquet", b"PAR1", "x.parquet can't be read as parquet"),
        ("x.xml", b"<a/>", "Can't tell the format of .*x.xml from its name: give it the ending"),
    ],
)
def test_a_bad_file_is_told_in_a_sentence(
    name: str, content: bytes, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        found(tmp_path / name, content)


def test_a_broken_line_is_told_apart(tmp_path: Path) -> None:
    text = (
        '{"question": "a?", "context": "May."}\n{"question"\n3\n{"question": "b?", "context": "x"}'
    )
    read = found(tmp_path / "x.jsonl", text)
    assert [one.place for one in read.rejected] == ["line 2", "line 3"]
    assert len(read.questions.questions) == 2
    text = 'question,context,answer\na?,"x\ny",x\nb?,z\nc?,"w",w\n'
    read = found(tmp_path / "x.csv", text)
    assert [(one.place, one.reason) for one in read.rejected] == [
        ("line 4", "2 fields in place of 3")
    ]
    assert [one.references for one in read.questions.questions] == [["x"], ["w"]]


def test_too_many_losses_stop_it_and_are_listed(tmp_path: Path) -> None:
    source = make_facts(10)
    source["data"][0]["paragraphs"][0]["qas"][0]["answers"] = [{"text": "zz", "answer_start": 0}]
    with pytest.raises(
        InputError, match=r"1 of 40 questions of ingest\.source can't be used .1 an"
    ):
        ingested(tmp_path, source, squad(), max_dropped_fraction=0.01)
    with (tmp_path / "rejected.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["place"], row["code"]) == ("data[0].paragraphs[0].qas[0]", "answer_not_found")
    ingested(tmp_path, source, squad())
    figures = json.loads((tmp_path / "quality.json").read_text())
    assert figures["sources"]["ingest.source"]["rejected"] == {"answer_not_found": 1}


def test_what_is_tested_is_not_learnt_from(tmp_path: Path) -> None:
    source = make_facts(10)
    source["data"][0]["paragraphs"][0]["context"] = squad()["data"][0]["paragraphs"][0]["context"]
    source["data"][0]["paragraphs"][0]["qas"] = []
    both = {"adapt_size": 0.0}
    sets = ingested(tmp_path, source, squad(), **both)
    figures = json.loads((tmp_path / "quality.json").read_text())
    assert sum(figures["tested_too"].values()) == 0, "a paragraph without questions is not learnt"
    source["data"][0]["paragraphs"][0]["qas"] = squad()["data"][0]["paragraphs"][0]["qas"][:1]
    sets = ingested(tmp_path, source, squad(), **both)
    figures = json.loads((tmp_path / "quality.json").read_text())
    assert sum(figures["tested_too"].values()) == 1
    names = ("train", "validation")
    left = sum(len(Questions.read(sets / f"{name}.json").questions) for name in names)
    assert left == 39
    sets = ingested(tmp_path, source, squad(), leaks="keep", **both)
    left = sum(len(Questions.read(sets / f"{name}.json").questions) for name in names)
    assert left == 40
    with pytest.raises(InputError, match=r"All that ingest\.source has is in a test as well"):
        ingested(tmp_path, squad(), squad(), **both)


def test_further_tests_and_documents_are_sets_too(tmp_path: Path) -> None:
    path = write(tmp_path / "more.json", make_facts(2, 50))
    (tmp_path / "fees.md").write_text(
        "# Fees\n\nTwo euros each.\n\n" + "A long sentence here. " * 9
    )
    sets = ingested(
        tmp_path,
        make_facts(10),
        squad(),
        further=[f"more {path}"],
        documents=[str(tmp_path / "fees.md")],
        document_paragraph=100,
    )
    assert len(Questions.read(sets / "more.json").questions) == 8
    documents = Questions.read(sets / "documents.json")
    assert documents.documents() == ["fees.md"]
    assert documents.paragraphs[0].text.startswith("Two euros each.")
    assert max(map(len, documents.texts)) <= 100


@pytest.mark.parametrize(
    "entry", ["more", "early_stop x.json", "Test x.json", "test x.json", "a b", "x/y z.json"]
)
def test_a_further_test_has_a_name_and_a_place(entry: str, tmp_path: Path) -> None:
    sentence = r"ingest\.further has .*: expected a name of its own|There is no file at b"
    with pytest.raises(InputError, match=sentence):
        ingested(tmp_path, make_facts(10), squad(), further=[entry])


def test_one_document_can_not_be_divided(tmp_path: Path) -> None:
    one = squad({"Cache": PAGES["Cache"]})
    with pytest.raises(InputError, match=r"ingest\.validation_size is 0\.2, and .* on 1 documents"):
        ingested(tmp_path, one, squad())


def test_a_source_is_looked_up_by_its_sha256_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PEDIGREE_CACHE", str(tmp_path / "cache"))
    path = write(tmp_path / "facts.json", make_facts(10))
    digest = sha256(path)
    url = f"https://nowhere.invalid/facts.json#sha256={digest}"
    sentence = r"https://nowhere\.invalid/facts\.json can't be read: .*, or get the file by other"
    monkeypatch.setattr("src.tables.download.ATTEMPTS", 1)
    with pytest.raises(InputError, match=sentence):
        ingested(tmp_path, {}, squad(), source=[url])
    fetch.main(str(path))
    assert kept.kept(digest) == tmp_path / "cache" / digest / "facts.json"
    sets = ingested(tmp_path, {}, squad(), source=[url])
    assert len(Questions.read(sets / "train.json").questions) >= 30
    (tmp_path / "cache" / digest / "facts.json").write_text("{}")
    with pytest.raises(InputError, match=sentence):
        ingested(tmp_path, {}, squad(), source=[url])
    with pytest.raises(InputError, match=r"Name the files, such as `python -m src\.tools\.fetch"):
        fetch.main()


@pytest.mark.parametrize(
    ("pin", "sentence"),
    [
        (
            "0" * 64,
            r"facts\.json has changed: its sha256 is .*, not 0{64}; write the new one after",
        ),
        ("abc", r"has no sha256 after #sha256=, 64 digits from 0 to f: correct ingest\.source"),
    ],
)
def test_a_source_of_another_sha256_is_refused(pin: str, sentence: str, tmp_path: Path) -> None:
    path = write(tmp_path / "facts.json", make_facts(10))
    with pytest.raises(InputError, match=sentence):
        ingested(tmp_path, {}, squad(), source=[f"{path}#sha256={pin}"])
    right = f"{path}#sha256={sha256(path)}"
    assert ingested(tmp_path, {}, squad(), source=[right]).is_dir()
