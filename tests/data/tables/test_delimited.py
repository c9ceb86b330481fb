"""The reader of CSV that load, prediction and the server stand on."""

import io
import subprocess
import sys

from conftest import ROOT

from src.tables.delimited import Record, Records
from src.tables.lines import Lines

CSV = 'id,text\r\n1,"two\nlines"\r\n\r\n2,"quoted" badly\n3,"never closed\n4,"a,b"\n'


def test_rows_have_their_physical_lines_and_broken_ones_take_no_other_with_them() -> None:
    found = list(Records(Lines(io.StringIO(CSV, newline=""), 1000), ","))
    whole = [(row.line, row.fields) for row in found if isinstance(row, Record)]
    broken = [(row.line, row.reason, row.row) for row in found if not isinstance(row, Record)]
    assert whole == [(1, ["id", "text"]), (2, ["1", "two\nlines"]), (7, ["4", "a,b"])]
    assert broken == [
        (5, "',' expected after '\"'", '2,"quoted" badly'),
        (6, "a quote that opens here and is followed by: ',' expected after '\"'",
         '3,"never closed'),
    ]  # fmt: skip


def test_what_serves_can_read_csv_without_other_packages() -> None:
    code = "import sys, src.tables.delimited; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert not {"pyarrow", "pandas", "numpy", "fsspec", "torch"} & {*loaded}
