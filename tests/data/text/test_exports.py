"""Files as other programs write them are read alike by load, check and prediction."""

import csv
import io
from pathlib import Path

import pandas as pd
import pytest
from conftest import make_texts
from loading import loaded, rejected

from src.predict.input import Batch, reading
from src.tables import lines
from src.tables.places import Place
from src.text import evaluate

TEXTS = make_texts(60)


@pytest.fixture(autouse=True)
def _in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def scored(name: str) -> tuple[list[str], list[tuple[int, str]]]:
    """The texts that prediction reads, and the line and reason of each row that it rejects."""
    place = Place(name, "--input")
    with reading(place, place.format or "csv", "text", 100, False, []) as table:
        batches: list[Batch] = list(table.batches)
    texts = [text for batch in batches for text in batch.texts]
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
