"""The command line, the log, the exit and the outputs that all stages share."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from conftest import ROOT

from src.core.command_line import Count, Interval, bind
from src.core.errors import InputError, closest
from src.core.files import replacing, write_json


def main(
    source: Path,
    *,
    trees: Count,
    lr: Annotated[float, Interval(gt=0, lt=1)],
    kind: Literal["word", "char"],
    deep: bool,
    sizes: Annotated[list[int], Interval(ge=1)],
    depth: Literal["none"] | Count,
) -> None:
    """Do nothing."""


GOOD = {
    "trees": ["3"],
    "lr": ["3e-05"],
    "kind": ["word"],
    "deep": [],
    "sizes": ["1", "2"],
    "depth": ["none"],
}


def bound(**changes: list[str] | None) -> dict[str, Any]:
    words = ["data"]
    for key, value in (GOOD | changes).items():
        if value is not None:
            words += [f"--{key}", *value]
    positional, params = bind(main, "forest", True, words)
    assert positional == [Path("data")]
    return params


def test_words_become_typed_values() -> None:
    expected = {"trees": 3, "lr": 3e-5, "kind": "word", "deep": True, "sizes": [1, 2]}
    assert bound() == expected | {"depth": "none"}
    assert bound(depth=["7"])["depth"] == 7
    assert bound(sizes=None)["sizes"] == [], "DVC leaves empty lists out"


def test_on_a_command_dashes_are_underscores_and_in_params_they_are_not() -> None:
    def main(*, batch_size: int = 1, excel_safe: bool = False) -> None: ...

    words = ["--batch-size", "2", "--excel-safe"]
    assert bind(main, "command", False, words)[1] == {"batch_size": 2, "excel_safe": True}
    assert bind(main, "command", False, ["--excel_safe", "--no-excel-safe"])[1] == {
        "batch_size": 1,
        "excel_safe": False,
    }
    with pytest.raises(InputError, match=r"^forest.batch-size is not known"):
        bind(main, "forest", True, words)


def test_no_before_a_flag_is_false() -> None:
    words = ["data", "--trees", "3", "--lr", "0.1", "--kind", "char", "--no-deep", "--depth", "2"]
    assert bind(main, "forest", True, words)[1]["deep"] is False


WHOLE = "a whole number at least 1"
NUMBER = "a number above 0 and below 1"


@pytest.mark.parametrize(
    ("key", "words", "expected"),
    [
        ("trees", ["many"], WHOLE),
        ("trees", ["0"], WHOLE),
        ("trees", ["1.5"], WHOLE),
        ("lr", ["1"], NUMBER),
        ("lr", ["-1e-5"], NUMBER),
        ("lr", ["nan"], NUMBER),
        ("kind", ["wrod"], "one of word, char"),
        ("deep", ["maybe"], "true or false"),
        ("sizes", ["1", "0"], f"a list, each {WHOLE}"),
        ("depth", ["deep"], f"none or {WHOLE}"),
    ],
)
def test_a_wrong_param_gets_one_sentence(key: str, words: list[str], expected: str) -> None:
    with pytest.raises(InputError) as raised:
        bound(**{key: words})
    assert str(raised.value) == (
        f"forest.{key} is '{' '.join(words)}': expected {expected}; change it in params.yaml."
    )


@pytest.mark.parametrize(
    ("key", "words", "sentence"),
    [
        ("trees", [], f"forest.trees is 'true': expected {WHOLE}; change it in params.yaml."),
        ("lr", None, f"forest.lr is missing: expected {NUMBER}; set it in params.yaml."),
        (
            "treees",
            ["3"],
            "forest.treees is not known (did you mean 'trees'?): forest takes trees, lr, kind, "
            "deep, sizes, depth; rename or remove it in params.yaml.",
        ),
    ],
)
def test_a_stray_or_missing_param_gets_one_sentence(
    key: str, words: list[str] | None, sentence: str
) -> None:
    with pytest.raises(InputError) as raised:
        bound(**{key: words})
    assert str(raised.value) == sentence


def test_an_unknown_option_of_a_command_is_told_with_its_dashes() -> None:
    def main(*, min_score: float) -> None:
        """Do nothing."""

    with pytest.raises(InputError) as raised:
        bind(main, "predict", False, ["--min-scor", "1"])
    assert str(raised.value).startswith(
        "--min-scor is not known (did you mean '--min_score'?): predict takes --min_score; "
    )


def test_a_library_that_is_missing_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy/__init__.py").write_text("raise ModuleNotFoundError(name='numpy')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    words = [sys.executable, "-m", "src.predict", "models/shipped", "a"]
    done = subprocess.run(
        words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, check=False
    )
    assert done.returncode == 1
    assert "Traceback" in done.stderr, "what a library fails in keeps its traceback"
    words[1:3] = ["-S", "-m", "src.predict"]  # a Python without site-packages
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=ROOT, env={"PATH": "/"}, check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        f"{sys.executable} has no package 'numpy': activate the project's environment, "
        "`. .venv/bin/activate`, which `make setup` makes.\n"
    )


def test_an_interval_says_what_it_holds() -> None:
    both = Interval(ge=2, lt=5)
    assert str(both) == "at least 2 and below 5"
    assert [n in both for n in (1, 2, 4, 5)] == [False, True, True, False]


def test_an_output_is_replaced_only_by_a_finished_one(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with replacing(folder) as fresh:
        fresh.mkdir()
        (fresh / "old").touch()

    def fail_half_way() -> None:
        with replacing(folder) as fresh:
            fresh.mkdir()
            (fresh / "new").touch()
            raise InputError("Expected more.")

    with pytest.raises(InputError):
        fail_half_way()
    assert [path.name for path in folder.iterdir()] == ["old"]
    with replacing(folder) as fresh:
        fresh.mkdir()
        (fresh / "new").touch()
    assert [path.name for path in folder.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing is left beside it"
    (tmp_path / "plain").mkdir()
    assert folder.stat().st_mode == (tmp_path / "plain").stat().st_mode, "as readable as any"


STAGE = """
import logging
from pathlib import Path
from src.core import stage
from src.core.errors import InputError

def main(path: Path, *, fail: str) -> None:
    logging.getLogger("src.work").info("working on %s", path)
    if fail == "input":
        raise InputError("Expected a, found b: do c.")
    if fail == "defect":
        raise RuntimeError("oh")

if __name__ == "__main__":
    stage.run(main)
"""


def run_stage(tmp_path: Path, fail: str) -> tuple[int, str, str]:
    (tmp_path / "work.py").write_text(STAGE)
    words = [sys.executable, "work.py", "some\x1b[31m\u202ewhere", "--fail", fail]
    env = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    (file,) = (tmp_path / "logs").glob("*.log")
    assert "-work-" in file.name
    return done.returncode, done.stderr, file.read_text()


def test_a_run_logs_the_same_lines_to_stderr_and_its_own_file(tmp_path: Path) -> None:
    code, stderr, file = run_stage(tmp_path, "no")
    assert code == 0
    assert stderr == file
    assert r"INFO src.work: working on some\x1b[31m\u202ewhere" in file
    assert re.search(r"INFO src\.core\.stage: work took [\d.]+ s and at most \d+ MiB\n$", file)


def test_a_mistake_is_one_sentence_and_exit_code_1(tmp_path: Path) -> None:
    code, stderr, file = run_stage(tmp_path, "input")
    assert code == 1
    assert stderr == file
    assert file.endswith("ERROR src.core.stage: Expected a, found b: do c.\n")
    assert "Traceback" not in file


def test_a_defect_keeps_its_traceback(tmp_path: Path) -> None:
    code, stderr, file = run_stage(tmp_path, "defect")
    assert code == 1
    assert stderr == file
    assert "RuntimeError: oh" in file


def test_json_is_equal_for_equal_values(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, 0.5]})
    assert (tmp_path / "a.json").read_bytes() == '{\n  "é": [\n    1,\n    0.5\n  ]\n}\n'.encode()


def test_the_closest_name_is_found_whatever_its_case() -> None:
    assert closest(" TEXT", ["text", "label"]) == " (did you mean 'text'?)"
    assert closest("price", ["text", "label"]) == ""


def test_a_stage_ends_with_what_started_it_also_while_it_imports(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text(
        "import time\nprint('imports', flush=True)\ntime.sleep(20)\nprint('goes on', flush=True)"
    )
    script = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'src.text.load'])"
    environment = os.environ | {"DVC_STAGE": "load", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout
        assert starter.stdout.readline() == b"imports\n"
        starter.kill()
        assert starter.stdout.read() == b""


def test_a_stage_does_not_begin_when_what_started_it_has_gone(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("print('imports', flush=True)")
    code = "import os, sys, time\nwhile os.getppid() == {0}: time.sleep(0.01)\n"
    code += "os.getppid() == 1 or sys.exit('adopted')\n"  # by another than the first process
    code += "os.execv(sys.executable, [sys.executable, '-m', 'src.text.load', '--help'])"
    begin = f"[sys.executable, '-c', {code!r}.format(os.getpid())]"
    done = subprocess.run(
        [sys.executable, "-c", f"import os, subprocess, sys; subprocess.Popen({begin})"],
        cwd=tmp_path,
        env=os.environ | {"DVC_STAGE": "load", "PYTHONPATH": str(ROOT)},
        start_new_session=True,
        capture_output=True,
        check=False,
    )
    if done.stderr == b"adopted\n":
        pytest.skip("what loses its parent is adopted by another than the first process")
    assert done.stdout == b""
