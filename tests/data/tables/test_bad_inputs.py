"""Files that people feed a classifier: each case builds one and reads what is said of it."""

import gzip
import json
import random
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import QUALITY, SPLIT, TOPICS, make_texts
from loading import PACK, here, loaded, refused, rejected
from tokenizers import Tokenizer, models, pre_tokenizers

from src.core.errors import InputError
from src.core.markdown import plain
from src.tables import examples
from src.text import quality, split
from src.text.findings import sentence

TWO = "text,label\na,x\nb,y\n"
RUSSIAN = "Сегодня очень хорошая погода, и мы идём гулять в парк недалеко от дома".replace(",", "")


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def looked_over(checkpoint: Path, **params: Any) -> tuple[dict[str, Any], str]:
    """The figures and the page of what was loaded."""
    params = QUALITY | {"checkpoint": str(checkpoint)} | params
    quality.main(Path("raw"), Path("quality.json"), Path("quality.md"), **params)
    figures, page = json.loads(Path("quality.json").read_text()), Path("quality.md").read_text()
    assert figures["warnings"] == len(figures["findings"])
    assert all(f"\n- {plain(sentence(finding))}\n" in page for finding in figures["findings"])
    return figures, page


def not_divided(**params: Any) -> str:
    """The sentence that split ends with."""
    with pytest.raises(InputError) as raised:
        split.main(Path("raw"), Path("s"), **SPLIT | params)
    return str(raised.value)


def found(figures: dict[str, Any], code: str) -> list[dict[str, Any]]:
    """The findings of a code, without it."""
    return [
        {name: value for name, value in finding.items() if name != "code"}
        for finding in figures["findings"]
        if finding["code"] == code
    ]


def csv(text: str | bytes, name: str = "x.csv") -> str:
    data = text.encode() if isinstance(text, str) else text
    Path(name).write_bytes(data)
    return name


def jsonl(*lines: str) -> str:
    return csv("\n".join(lines) + "\n", "x.jsonl")


def many(count: int = 60, **column: str) -> list[dict[str, str]]:
    return [row | column for row in make_texts(count)]


def rows_as_csv(rows: list[dict[str, str]], name: str = "x.csv") -> str:
    pd.DataFrame(rows).to_csv(name, index=False)
    return name


def test_01_a_file_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    csv(TWO, "texts.csv")
    told = refused("text.csv")
    assert f"at text.csv, seen from {Path.cwd()} (did you mean 'texts.csv'?): correct" in told
    assert "load.source" in told
    Path("pulled.csv.dvc").touch()
    assert "pulled.csv" in refused("pulled.csv")
    assert "`dvc pull`" in refused("pulled.csv")
    Path("empty").mkdir()
    assert refused("empty").endswith(f"at empty, seen from {Path.cwd()}: correct load.source.")

    def denied(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", "texts.csv")  # root may read anything

    monkeypatch.setattr(Path, "open", denied)
    assert refused("texts.csv") == (
        f"{here('texts.csv')} can't be read: [Errno 13] Permission denied: 'texts.csv'; check "
        "load.source."
    )


def test_02_an_empty_file() -> None:
    assert refused(csv("")).startswith(f"{here()} is empty (0 bytes)")
    Path("x.csv.gz").write_bytes(gzip.compress(b""))
    assert refused("x.csv.gz").startswith(f"{here('x.csv.gz')} holds 0 bytes once")


def test_03_a_header_without_rows() -> None:
    assert refused(csv("text,label\n")).startswith(f"{here()} has a header and no rows")


def test_04_a_column_that_is_missing() -> None:
    assert refused(csv("texts,label\na,x\n")) == (
        f"{here()} has no column 'text', but 'texts', 'label' (did you mean 'texts'?): set "
        "load.text_column to the right one."
    )
    told = refused(csv("text,class\na,x\n"))
    assert f"{here()} has no column 'label', but 'text', 'class': set load.label_column" in told


def test_05_a_header_in_other_case_or_with_spaces(caplog: pytest.LogCaptureFixture) -> None:
    assert list(loaded(csv("Text , Label\na,x\nb,y\n"))["label"]) == ["x", "y"]
    assert f"{here()}: column 'Text ' is taken for 'text'" in caplog.messages
    told = refused(csv("Text,TEXT,label\na,b,x\n", "two.csv"))
    assert told.startswith(f"{here('two.csv')} has no column 'text', but 'Text', 'TEXT', 'label'")
    assert "(did you mean 'TEXT'?): set load.text_column to" in told


def test_06_columns_of_one_name() -> None:
    told = refused(csv("text,label,text\na,x,b\n"))
    assert told.startswith(f"{here()} has several columns 'text', ")
    assert " 1 and 3: rename" in told


def test_07_a_byte_order_mark() -> None:
    assert list(loaded(csv(b"\xef\xbb\xbf" + TWO.encode()))["text"]) == ["a", "b"]
    items = '[{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]'
    assert list(loaded(csv(b"\xef\xbb\xbf" + items.encode(), "x.json"))["text"]) == ["a", "b"]


def test_08_another_encoding() -> None:
    row = "Le café est très agréable et la forêt près de l'hôtel aussi,x\nb,y\n"
    csv(f"text,label\n{3 * row}".encode("cp1252"))
    assert refused("x.csv") == (
        f"{here()} is not utf-8: it has byte 0xe9 on line 2, at offset 17, which cp1252 reads as "
        "'Le café est très agréable et la forê'; put the right encoding first in load.encoding."
    )
    assert loaded("x.csv", encoding=["cp1252"])["text"][0] == row.split(",")[0]
    for name, text in (("x.jsonl", '{{"text": {}}}\n'), ("x.json", '[{{"text": {}}}]')):
        csv(text.format('"a"').encode() + text.format('"é"').encode("cp1252"), name)
        assert refused(name).startswith(f"{here(name)} is not utf-8: it has byte 0xe9 on line ")
    csv(b"text,label\n" + b"a,x\n" * 100_000 + "é,y\n".encode("cp1252"))
    assert "byte 0xe9 on line 100002, at offset 400011" in refused("x.csv")
    csv("text,label\nforêt,x\nété,y\n".encode() + "café,x\n".encode("cp1252"))
    assert "byte 0xe9 on line 4, at offset 31, which cp1252 reads as 'café,x'," in refused("x.csv")
    assert "while other places are utf-8" in refused("x.csv")
    assert "which cp1251 reads as" in refused(csv(f"text,label\n{RUSSIAN},x\n".encode("cp1251")))


def test_09_utf_16() -> None:
    told = refused(csv(TWO.encode("utf-16")))
    assert told.startswith(f"{here()} has the byte-order mark of utf-16, not of utf-8")
    assert told.endswith("set load.encoding to [utf-16].")
    assert list(loaded("x.csv", encoding=["utf-16"])["text"]) == ["a", "b"]
    told = refused(csv(TWO), encoding=["utf-16"])
    assert told.startswith(f"{here()} is not utf-16: it has byte 0x74 on line 1, at offset 0")


def test_10_text_that_was_decoded_wrongly(checkpoint: Path) -> None:
    rows = many()
    rows[0]["text"] = "Le cafÃ© est trÃ¨s agrÃ©able"
    loaded(rows_as_csv(rows))
    figures, page = looked_over(checkpoint)
    assert figures["mojibake"] == 1
    assert found(figures, "mojibake") == [{"texts": 1}]
    assert "decoded wrongly (mojibake): 1. " in page
    assert "`Le cafÃ© est trÃ¨s agrÃ©able`" in page


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (gzip.compress(b"text", mtime=0), "gzip"),
        (b"PK\x03\x04rest", "a zip archive, as .xlsx is"),
        (b"PAR1rest", "parquet"),
        (b"SQLite format 3\x00", "an SQLite database"),
    ],
)
def test_11_a_file_of_another_kind(start: bytes, kind: str) -> None:
    told = refused(csv(start))
    assert told.startswith(f"{here()} is {kind} by its first bytes, not a csv file: give it the")


@pytest.mark.parametrize("ending", PACK)
def test_12_a_file_that_breaks_off(ending: str) -> None:
    draw = random.Random(0)
    words = ("".join(draw.choices("abcdefgh", k=20)) for _ in range(30_000))
    rows = "".join(f"{word},x{k % 2}\n" for k, word in enumerate(words))
    csv(PACK[ending](f"text,label\n{rows}".encode())[:-100], f"x.csv.{ending}")
    sentence = refused(f"x.csv.{ending}")
    assert sentence.startswith(f"{here(f'x.csv.{ending}')} can't be read to its end: it is cut off")
    assert "ended before the end-of-stream marker was reached); get it again." in sentence
    if ending == "gz":
        assert int(sentence.split("after ")[1].split()[0]) > 100_000


def test_13_a_file_that_swells() -> None:
    csv(gzip.compress(b"text,label\n" + b"a,x\n" * 10**6), "x.csv.gz")
    told = refused("x.csv.gz", max_bytes=10**6)
    assert told.startswith(f"{here('x.csv.gz')} holds more than 1000000 bytes once it is decomp")
    assert "raise load.max_bytes" in told


def test_14_a_quote_that_is_never_closed() -> None:
    assert refused(csv('text,label\n"a\nb",x\nc,y\n"d,x\ne,y\n')) == (
        f"{here()}, line 5 can't be read: a quote that opens here and is never closed ('\"d,x'); "
        "double a quote inside a quoted text, or set load.quote to '' if quotes mean nothing there."
    )


def test_15_a_quote_in_the_wrong_place() -> None:
    told = refused(csv('text,label\na,x\n"a" b,y\n'))
    assert told.startswith(f"{here()}, line 3 can't be read: ',' expected after '\"'")
    assert "load.quote" in told
    assert loaded("x.csv", quote="")["text"][1] == '"a" b'


def test_16_too_many_or_too_few_fields() -> None:
    kept = loaded(csv('text,label\n"a\nb",x\nhello, world,y\nc,y\nd\n'))
    assert list(kept["text"]) == ["a\nb", "c"]
    assert rejected() == [
        ["x.csv", "4", "malformed: expected 2 fields, found 3", "hello, world,y"],
        ["x.csv", "6", "malformed: expected 2 fields, found 1", "d"],
    ]
    with pytest.raises(InputError) as raised:
        loaded("x.csv", max_dropped_fraction=0.05)
    assert str(raised.value) == (
        "2 of 4 rows would be dropped (2 malformed), more than load.max_dropped_fraction 0.05 "
        "allows: fix the rows that rejected.csv lists, or raise it."
    )
    assert len(rejected()) == 2


def test_17_line_ends_in_quotes() -> None:
    kept = loaded(csv('text,label\n"a\r\nb\n\nc",x\n" ",y\nd,y\n'))
    assert list(kept["text"]) == ["a\r\nb\n\nc", "d"]
    assert rejected() == [["x.csv", "6", "empty_text", " "]]


@pytest.mark.parametrize("ends", [("\r", "\r", "\r"), ("\r\n", "\n", "\r"), ("\n", "\r\n", "")])
def test_18_line_ends_of_all_kinds(ends: tuple[str, ...]) -> None:
    rows = zip(["text,label", "a,01", "b,1.0"], ends, strict=True)
    kept = loaded(csv("".join(row + end for row, end in rows)))
    assert list(kept["label"]) == ["01", "1.0"]


def test_19_another_delimiter() -> None:
    told = refused(csv("text;label\na;x\n"))
    assert told.startswith(f"{here()} has no column 'text' but one column only, 'text;label', with")
    assert told.endswith("with ';' in it 1 times: set load.delimiter to it.")
    assert refused(csv("text\tlabel\na\tx\n")).endswith(
        "with tab in it 1 times: set load.delimiter to it, or load.format to tsv."
    )


def test_20_control_characters() -> None:
    csv(b"text,label\na\x00b,x\nc\x07,y\nd\te,x\nf,y\n")
    assert list(loaded("x.csv")["text"]) == ["ab", "c", "d\te", "f"]
    assert json.loads(Path("raw/counts.json").read_text())["stripped"] == 2
    assert list(loaded("x.csv", control_characters="drop")["text"]) == ["d\te", "f"]
    assert [row[1:3] for row in rejected()] == [
        ["2", "control_characters"],
        ["3", "control_characters"],
    ]


def test_21_a_huge_text() -> None:
    kept = loaded(csv(f"text,label\n{'a' * 2_000_000},x\nb,y\nc,x\n"))
    assert list(kept["text"]) == ["b", "c"]
    assert rejected() == [["x.csv", "2", "too_long: 2000000 characters", "a" * 200]]
    assert len(loaded("x.csv", max_characters=2_000_000)) == 3


def test_22_texts_without_a_letter() -> None:
    blank = ["", " \t", "\u200b\u200d", "\u3000\u00a0", "\ufeff"]
    kept = loaded(csv("text,label\n" + "".join(f'"{text}",x\n' for text in blank) + "a,x\nb,y\n"))
    assert list(kept["text"]) == ["a", "b"]
    assert [row[1:3] for row in rejected()] == [[str(k), "empty_text"] for k in range(2, 7)]


def test_23_labels_that_are_missing_or_look_so() -> None:
    csv("text,label\na,NA\nb,None\nc,null\nd,nan\ne, \n")
    assert refused("x.csv").startswith(f"{here()}, line 6 has no label: add one, or set load.miss")
    kept = loaded("x.csv", missing_labels="drop")
    assert list(kept["label"]) == ["NA", "None", "null", "nan"]
    assert rejected() == [["x.csv", "6", "no_label", "e"]]


def test_24_labels_that_are_equal_numbers(checkpoint: Path) -> None:
    rows = many()
    for k, label in enumerate(["01", "1", "1.0", "True", "true", "other"] * 10):
        rows[k]["label"] = label
    assert set(loaded(rows_as_csv(rows))["label"]) == {"01", "1", "1.0", "True", "true", "other"}
    figures, page = looked_over(checkpoint)
    assert figures["label_variants"] == 2
    alike = [["01", "1", "1.0"], ["True", "true"]]
    assert found(figures, "label_variants") == [{"labels": labels} for labels in alike]
    assert "['01', '1', '1.0'] may be one" in page
    assert "['True', 'true'] may be one" in page


def test_25_labels_that_differ_in_form(checkpoint: Path) -> None:
    rows = many()
    for k, label in enumerate(["Pos", "pos ", "pos", "caf\u00e9", "cafe\u0301", "pos"] * 10):
        rows[k]["label"] = label
    loaded(rows_as_csv(rows))
    figures, page = looked_over(checkpoint)
    alike = [["Pos", "pos", "pos "], ["cafe\u0301", "caf\u00e9"]]
    assert found(figures, "label_variants") == [{"labels": labels} for labels in alike]
    assert "['Pos', 'pos', 'pos '] may be one: load.normalize_labels " in page
    assert "['cafe\u0301', 'caf\u00e9'] may be one" in page
    assert set(loaded("x.csv", normalize_labels=True)["label"]) == {"pos", "caf\u00e9"}


def test_26_json_labels_of_many_types() -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": "b"}, {"text": "c", "label": True}]
    kept = loaded(jsonl(*map(json.dumps, rows)))
    assert list(kept["label"]) == ["1", "b", "true"]
    told = refused(jsonl('{"text": "a", "label": "x"}', '{"text": "b", "label": ["x"]}'))
    assert told.startswith(f"{here('x.jsonl')}, line 2 has a list in 'label', which is not text")
    sentence = refused(jsonl('{"text": "a", "label": "x"}', '{"text": "b", "label": null}'))
    assert sentence.startswith(f"{here('x.jsonl')}, line 2 has no label: ")


def test_27_text_that_is_nested() -> None:
    told = refused(jsonl('{"text": {"body": "a"}, "label": "x"}'))
    assert told.startswith(f"{here('x.jsonl')}, line 1 has a dict in 'text', which is not text")


def test_28_the_same_row_twice() -> None:
    assert list(loaded(csv("text,label\na,x\nb,y\na,x\na,x\n"))["id"]) == ["x:1", "x:2"]
    assert rejected() == [["x.csv", "4", "duplicate", "a"], ["x.csv", "5", "duplicate", "a"]]


def test_29_one_text_and_several_labels() -> None:
    csv("text,label\na,x\na,y\na,x\nb,x\nb,y\nc,y\nd,x\n")
    assert list(loaded("x.csv")["text"]) == ["c", "d"]
    assert [row[1:] for row in rejected()] == [
        [str(line), "conflicting_label", text]
        for line, text in zip(range(2, 7), "aaabb", strict=True)
    ]
    kept = loaded("x.csv", conflicting_labels="majority")
    assert kept[["text", "label"]].to_numpy().tolist() == [["a", "x"], ["c", "y"], ["d", "x"]]
    assert [row[1:3] for row in rejected()] == [
        ["3", "conflicting_label"],
        ["4", "duplicate"],
        ["5", "conflicting_label"],
        ["6", "conflicting_label"],
    ]


def test_29_one_text_and_several_labels_in_rows_that_differ_elsewhere(checkpoint: Path) -> None:
    rows = many(30)
    again = rows[0] | {"language": "de"}
    other = rows[1] | {"language": "de", "label": rows[0]["label"]}
    assert len(loaded(rows_as_csv([*rows, again, other]))) == 32
    figures, page = looked_over(checkpoint)
    assert (figures["repeated"], figures["conflicting"]) == (2, 1)
    assert found(figures, "repeated") == [{"texts": 2, "conflicting": 1}]
    assert "in an earlier row too: 2, 1 of them with another label; " in page
    one, two = rows[0]["label"], rows[1]["label"]
    assert f"## Examples: repeated\n\n- `x:1 ({one}) and x:31 ({one}): {rows[0]['text']}`" in page
    assert (
        f"## Examples: conflicting\n\n- `x:2 ({two}) and x:32 ({one}): {rows[1]['text']}`" in page
    )


def test_30_one_text_on_two_sides() -> None:
    rows = many(30) + [row | {"text": row["text"].upper() + " "} for row in many(30)]
    loaded(rows_as_csv(rows))
    split.main(Path("raw"), Path("splits"), **SPLIT)
    sides = [
        set(examples.read(Path(f"splits/{s}.parquet"))["text"].map(examples.fold))
        for s in examples.SPLITS
    ]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 30
    own = ["train"] * 30 + ["test"] * 30
    loaded(rows_as_csv([row | {"part": part} for row, part in zip(rows, own, strict=True)]))
    told = not_divided(strategy="predefined", column="part")
    assert told.startswith("Column 'part' has 30 texts that are on a later side too, such as ")
    assert f"{rows[0]['text']!r}: set split.overlap to drop " in told


def test_31_texts_that_are_nearly_the_same(checkpoint: Path) -> None:
    rows = many()
    story = " ".join(f"word{k}" for k in range(100))
    rows += [{"text": story, "label": "film", "language": "en"}]
    rows += [{"text": story.replace("word50", "other"), "label": "film", "language": "en"}]
    loaded(rows_as_csv(rows))
    figures, page = looked_over(checkpoint)
    assert figures["near_duplicates"] == 1
    assert found(figures, "near_duplicates") == [{"texts": 1, "of": 62}]
    assert "nearly the same as an earlier one: 1 of 62; " in page
    short = ["the parcel number is " + name for name in ("alpha", "beta", "gamma", "delta")]
    loaded(rows_as_csv([*many(), *({"text": text, "label": "film"} for text in short)]))
    assert looked_over(checkpoint)[0]["near_duplicates"] == 0, "a third of their sequences"
    again = [row | {"language": "de", "text": row["text"].upper()} for row in many()[:5]]
    loaded(rows_as_csv([*many(), *again]))
    assert looked_over(checkpoint)[0]["near_duplicates"] == 0, "equal texts are counted elsewhere"
    assert "near_duplicates" not in looked_over(checkpoint, near_duplicates=0.0)[0]


def test_32_one_class_only() -> None:
    assert refused(csv("text,label\na,x\nb,x\n")) == (
        "Column 'label' must have at least 2 classes, and has 1 in the 2 rows kept of 2: add texts "
        "of another class, or correct load.label_column."
    )


def test_33_a_class_of_too_few_texts(checkpoint: Path) -> None:
    rows = [*many(30), {"text": "one", "label": "rare", "language": "en"}]
    loaded(rows_as_csv(rows))
    assert not_divided() == (
        "Class 'rare' has 1 different texts, and needs at least 3, one for each side of the split: "
        "add some, or leave the class out by load.min_class_texts."
    )
    figures, page = looked_over(checkpoint)
    assert found(figures, "small_classes") == [{"classes": 1, "fewest": 3, "example": "rare"}]
    assert "split: 1, such as 'rare'; load.min_class_texts leaves them out." in page
    loaded(rows_as_csv([*many(30), {"text": "one", "label": "SPORT ", "language": "en"}], "y.csv"))
    assert "join it with 'sport' by load.normalize_labels, or leave" in not_divided()
    assert set(loaded("x.csv", min_class_texts=2)["label"]) == set(TOPICS)
    assert rejected() == [["x.csv", "32", "rare_class", "one"]]


def test_34_a_class_without_training_texts() -> None:
    rows = [row | {"part": "train"} for row in many(30)]
    rows += [{"text": f"t{k}", "label": "new", "language": "en", "part": "test"} for k in range(4)]
    loaded(rows_as_csv(rows))
    assert not_divided(strategy="predefined", column="part") == (
        "Classes of test have no training texts ({'new': 4}): add some, leave the classes out, or "
        "change split.strategy."
    )


def test_35_classes_of_very_different_sizes(checkpoint: Path) -> None:
    rows = [{"text": f"text {k}", "label": "x" if k else "y"} for k in range(102)]
    loaded(rows_as_csv(rows))
    figures, page = looked_over(checkpoint)
    assert figures["imbalance"] == 101.0
    assert found(figures, "imbalance") == [{"times": 101.0}]
    assert "has 101 times the texts of the smallest: macro F1 says more " in page
    numbers = [{"text": f"text {k}", "label": str(k / 7)} for k in range(40)]
    assert refused(rows_as_csv(numbers)) == (
        "Column 'label' has 40 classes in 40 texts, so it may be a number or an id: correct "
        "load.label_column."
    )


def test_35_more_classes_with_one_text_than_others(checkpoint: Path) -> None:
    rows = [{"text": f"text {k}", "label": "x" if k < 60 else str(k)} for k in range(70)]
    loaded(rows_as_csv(rows))
    figures, page = looked_over(checkpoint)
    assert found(figures, "single_texts") == [{"classes": 10, "of": 11}]
    assert "- 10 of 11 classes have one text each: is " in page


def test_36_a_text_that_holds_its_label(checkpoint: Path) -> None:
    rows = many()
    for row in rows:
        row["text"] += f" category{row['label']}"
    loaded(rows_as_csv(rows))
    figures, page = looked_over(checkpoint)
    assert figures["leaks"] == 3
    (leaks,) = found(figures, "leaks")
    assert leaks["words"][0] == {"word": "categoryfilm", "label": "film"}
    assert "'categoryfilm' for 'film', 'categorymoney' for 'money', " in page
    short = [row | {"text": f"{'abc'[k % 3]} {row['text']}"} for k, row in enumerate(many())]
    loaded(rows_as_csv(short))
    assert looked_over(checkpoint)[0]["leaks"] == 3, "a word of one letter too"
    ids = [{"text": f"A-{k:05}", "label": "xy"[k % 2]} for k in range(40)]
    loaded(rows_as_csv(ids))
    figures, page = looked_over(checkpoint)
    assert found(figures, "id_like") == [{"example": "A-00000"}]
    assert "look like ids, such as 'A-00000': is load.text_column the right one?" in page


def test_37_characters_beyond_the_usual(checkpoint: Path) -> None:
    odd = [
        "👩\u200d👩\u200d👧 ❤️",
        "مرحبا \u202bعالم",
        "evil\u202etxt",
        "tag\U000e0041",
        "e\u0301ক্ষ",
    ]
    rows = many()
    for k, text in enumerate(odd):
        rows[k]["text"] = text
    kept = loaded(rows_as_csv(rows))
    assert list(kept["text"][:5]) == odd
    split.main(Path("raw"), Path("splits"), **SPLIT)
    divided = [examples.read(Path(f"splits/{side}.parquet"))["text"] for side in examples.SPLITS]
    assert set(odd) < set(pd.concat(divided))
    figures, page = looked_over(checkpoint)
    assert figures["directed"] == 3
    assert found(figures, "directed") == [{"texts": 3}]
    assert "turn the direction of writing or hide text: 3." in page
    assert "`evil\\u202etxt`" in page


def test_38_half_of_a_surrogate_pair() -> None:
    texts = {"a\ud800": "x", "b": "y", "😀": "x"}
    kept = loaded(jsonl(*(json.dumps({"text": t, "label": n}) for t, n in texts.items())))
    assert list(kept["text"]) == ["b", "😀"]
    assert rejected() == [
        ["x.jsonl", "1", "malformed: half of a surrogate pair in 'text'", "a\\ud800"]
    ]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "b" "label": "y"}', "not JSON: Expecting ',' delimiter, column 14"),
        ('{"text": "b", "label": "y",}', "not JSON: .*, column 2"),  # by the version of Python
        ('{"text": "b", "label": NaN}', r"NaN, which is not JSON \(null is\)"),
        ('{"text": "b", "text": "c", "label": "y"}', "key 'text' twice in one object"),
    ],
)
def test_39_json_that_is_none(line: str, reason: str) -> None:
    sentence = refused(jsonl('{"text": "a", "label": "x"}', line))
    assert re.match(f"{here('x.jsonl')}, line 2 can't be read: {reason}", sentence)


def test_40_parquet_of_other_types() -> None:
    csv(b"PAR1 no", "x.parquet")
    assert refused("x.parquet").startswith(f"{here('x.parquet')} can't be read as parquet: ")
    table = pa.table({"text": [b"a", b"b"], "label": pa.array(["x", "y"]).dictionary_encode()})
    pq.write_table(table, "y.parquet")
    assert loaded("y.parquet")[["text", "label"]].to_numpy().tolist() == [["a", "x"], ["b", "y"]]
    pq.write_table(pa.table({"text": [["a"], ["b"]], "label": ["x", "y"]}), "z.parquet")
    sentence = refused("z.parquet")
    assert sentence.startswith(f"{here('z.parquet')} has list<")
    assert " in column 'text', which is not text: save it as strings" in sentence
    words = pa.array([b"a", b"caf\xe9", b"c"]).cast(pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": words, "label": ["x", "y", "y"]}), "w.parquet")
    assert list(loaded("w.parquet")["text"]) == ["a", "c"]
    assert rejected() == [
        ["w.parquet", "2", "malformed: not UTF-8: byte 0xe9 in 'text'", "caf\\udce9"]
    ]


def test_41_more_rows_than_a_batch() -> None:
    """Rows beyond the first batches are compared with them, and come out in their order."""
    rows = [f"text {k % 25_000},{'xyz'[k % 25_000 % 3]}" for k in range(25_010)]
    kept = loaded(csv("text,label\n" + "\n".join(rows)))
    assert list(kept["text"]) == [f"text {k}" for k in range(25_000)]
    assert [row[1] for row in rejected()] == [str(25_002 + k) for k in range(10)]
    split.main(Path("raw"), Path("splits"), **SPLIT | {"test_size": 0.2})
    parts = [examples.read(Path(f"splits/{side}.parquet")) for side in examples.SPLITS]
    assert [len(part) for part in parts] == [14_998, 5_001, 5_001]


def test_42_texts_longer_than_the_model_reads(checkpoint: Path) -> None:
    rows = many()
    rows[0]["text"] = "goal " * 98
    loaded(rows_as_csv(rows))
    figures, page = looked_over(checkpoint, max_length=50)
    tokens = figures["tokens"]
    assert tokens["over_max_length"] == pytest.approx(1 / 60, abs=1e-6)
    assert tokens["lost"] == pytest.approx(50 / (100 + 59 * 9), abs=1e-6)
    told = {"share": tokens["over_max_length"], "lost": tokens["lost"], "max_length": 50}
    assert found(figures, "over_max_length") == [told]
    assert "- 1.7 % of the texts have more than 50 tokens, and 7.9 % of all tokens are not " in page


def test_a_tokenizer_that_leaves_nothing_of_the_texts(tmp_path: Path) -> None:
    """As a byte-level one without its vocabulary, which has no token for the unknown either."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    (tmp_path / "empty").mkdir()
    tokenizer.save(str(tmp_path / "empty/tokenizer.json"))
    loaded(rows_as_csv(many()))
    figures, _ = looked_over(tmp_path / "empty")
    assert {finding["share"] for finding in found(figures, "unknown_tokens")} == {1.0}


def test_43_texts_of_other_languages(checkpoint: Path) -> None:
    rows = many()
    for row in rows[:20]:
        row["text"], row["language"] = "привет мир " + row["text"].split()[-1], "ru"
    loaded(rows_as_csv(rows))
    figures, page = looked_over(checkpoint, slices=["language"], scripts=["Latin"])
    assert figures["tokens"]["unknown"]["language=ru"] == pytest.approx(3 / 5)
    (unknown,) = [part for part in found(figures, "unknown_tokens") if "ru" in part["part"]]
    assert unknown == {"part": "language=ru", "share": 0.6, "checkpoint": str(checkpoint)}
    assert "- 60.0 % of the tokens of language 'ru' are unknown to the tokenizer of " in page
    assert figures["scripts"]["CYRILLIC"] > 0.1
    (others,) = found(figures, "other_scripts")
    assert (others["scripts"], others["expected"]) == (["CYRILLIC"], ["Latin"])
    assert "not of quality.scripts ['Latin'], but of CYRILLIC." in page
    for row in rows[:20]:
        row["text"] = " ".join(row["text"].replace("o", "0").encode().hex())
    loaded(rows_as_csv(rows))
    figures, page = looked_over(checkpoint, slices=["language"])
    assert (
        figures["tokens"]["characters"]["language=ru"]
        < 1.5
        < figures["tokens"]["characters"]["all"]
    )
    (letters,) = found(figures, "letter_by_letter")
    assert letters["part"] == "language=ru"
    assert letters["characters"] == figures["tokens"]["characters"]["language=ru"]
    assert f"{checkpoint} reads language 'ru' nearly letter by letter, " in page


def test_44_files_that_do_not_fit_together(caplog: pytest.LogCaptureFixture) -> None:
    csv(TWO)
    told = refused("x.csv", "*.csv")
    assert told.startswith(f"{here()} is in load.source twice, by x.csv and by *.csv")
    csv("text,label,extra\nc,x,1\n", "y.csv")
    told = refused("x.csv", "y.csv")
    assert told.startswith(f"{here('y.csv')} has a column 'extra' that {here()} lacks")
    jsonl(*(json.dumps({"text": t, "label": t}) for t in "ab"))
    csv('{"text": "c", "label": "a", "note": "n"}\n', "y.jsonl")
    assert list(loaded("x.jsonl", "y.jsonl")["note"].fillna("")) == ["", "", "n"]
    assert "y.jsonl do not have the same keys: note" in caplog.text


@pytest.mark.parametrize("name", ["no/such/folder", "nowhere"])
def test_a_tokenizer_that_is_not_there(name: str) -> None:
    loaded(rows_as_csv(many()))
    with pytest.raises(InputError, match=rf"tokenizer\.json of .*{name} \(.+quality\.checkp"):
        looked_over(Path(name))


def test_every_case_has_a_test() -> None:
    numbers = {name[5:7] for name in globals() if name.startswith("test_") and name[5:7].isdigit()}
    assert numbers == {f"{k:02}" for k in range(1, 45)}
