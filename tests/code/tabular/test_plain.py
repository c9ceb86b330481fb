"""Blocks of CSV that Arrow splits, and what is left to Python's reader."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.predict import plain
from src.predict.formats import Dialect
from src.predict.input import reading
from src.predict.scoring import Values
from src.tables.places import Place

LONGEST = 1 << 24


class Everything:
    """Takes all columns as they are."""

    shown = ""

    def __init__(self, columnar: bool) -> None:
        self.columnar = columnar
        self.columns: list[str] = []

    def refuse_columns(self, found: Sequence[str], place: Place, types: pa.Schema | None) -> None:
        pass

    def take(self, columns: Mapping[str, Values], rows: int) -> tuple[None, list[str]]:
        first = next(iter(columns.values()))
        values = first.to_pylist() if isinstance(first, pa.Array) else first
        return None, ["odd" if value == "odd" else "" for value in values]


def rows_of(path: Path, columnar: bool, sign: str = ",") -> tuple[list[Any], list[Any], int]:
    """The rows, the rejected ones with line and text, and how many were read."""
    place = Place(str(path), "--input")
    found: list[Any] = []
    rejected: list[Any] = []
    count = 0
    with reading(
        place, "csv", Dialect(delimiter=sign), Everything(columnar), 7, False, []
    ) as table:
        for batch in table.batches:
            assert isinstance(batch.rows, pa.Table)
            found += batch.rows.to_pylist()
            rejected += [(one.line, one.reason, one.row) for one in batch.rejected]
            count += batch.read
    return found, rejected, count


FIELD = st.text(st.sampled_from('ab1 ";,\t\r\n\u00e9\0'), max_size=4)
LINE = st.lists(st.one_of(FIELD, st.sampled_from(["odd", '"odd"', '"a,b"', "12.5"])), min_size=1)
END = st.sampled_from(["\n", "\r\n", "\n\n"])


@given(st.lists(st.tuples(LINE, END), max_size=12), st.booleans())
@settings(max_examples=300)
def test_rows_are_those_of_pythons_reader(lines: list[tuple[list[str], str]], last: bool) -> None:
    text = "x,y\n" + "".join(",".join(fields[:2]) + end for fields, end in lines)
    check(text if last else text.removesuffix("\n"))


def check(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.csv")
        path.write_bytes(text.encode())
        assert rows_of(path, columnar=True) == rows_of(path, columnar=False)


@pytest.mark.parametrize("size", [1, 40, 1 << 22])
def test_blocks_end_at_lines_and_give_way_to_the_reader(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "BLOCK", size)
    rows = [f"{k},name {k}" for k in range(50)]
    rows[20] = "odd,name"
    rows[30] = '31,"a ""quoted"" name"'
    rows[40] = "odd,after it"
    check("x,y\n" + "\n".join(rows) + "\n")
    check("x,y\r\n" + "\r\n".join(rows))
    check("x,y\r" + "\r".join(rows))


def test_plain_blocks_need_no_reader_of_rows() -> None:
    text = plain.Text(io.StringIO('1,"a, b"\n2,c\n3,"d"\n'), LONGEST)
    (block,) = text.blocks(["x", "y"], ",", '"', 2)
    assert block.table.to_pydict() == {"x": ["1", "2", "3"], "y": ["a, b", "c", "d"]}
    assert text.readline() == ""
    text = plain.Text(io.StringIO('1,a\n2,"b\nc"\n'), LONGEST)
    assert list(text.blocks(["x", "y"], ",", '"', 2)) == []
    assert [text.readline() for _ in range(4)] == ["1,a\n", '2,"b\n', 'c"\n', ""]


def test_a_long_file_of_an_old_mac_keeps_its_rows() -> None:
    check("x,y\r" + "".join(f"{k},name {k}\r" for k in range(120_000)))


def test_a_block_that_is_not_plain_comes_again_line_by_line() -> None:
    text = plain.Text(io.StringIO('1,"a""b"\r\n2,c\r\n3,d', newline=""), LONGEST)
    assert list(text.blocks(["x", "y"], ",", '"', 2)) == []
    assert [text.readline(4) for _ in range(3)] == ['1,"a', '""b"', "\r\n"]
    assert [text.readline() for _ in range(3)] == ["2,c\r\n", "3,d", ""]
