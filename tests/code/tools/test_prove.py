"""A commit gives the same bits in a clean clone, and what would not is found and named."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import Project, copy_built

from src.core.errors import InputError
from src.tools import prove
from src.tools.prove import State


@pytest.fixture
def project(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The small project that has run; its clones are made in a folder beside it."""
    (tmp_path / "clones").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "clones"))
    return copy_built(built, tmp_path / "project")


def clones(project: Project) -> list[str]:
    folders = (project.root.parent / "clones").glob("prove-*/*")
    return sorted(folder.name for folder in folders)


def test_a_clean_clone_gives_the_committed_lock_byte_for_byte(project: Project) -> None:
    """With the run that made the lock: two runs of everything, elsewhere and at another time."""
    printed = project.run("python", "-m", "src.tools.prove", "--clones", "1")
    assert len(project.ran(printed)) == 20
    assert "INFO src.tools.prove: it is the committed one, byte for byte\n" in printed
    assert clones(project) == []
    assert project.git("status", "--porcelain") == ""


def test_a_stage_that_writes_the_time_is_named(project: Project) -> None:
    """Its source is added to DVC, so the clones have it from the cache here."""
    project.git("rm", "--quiet", "--cached", "data/source/small.jsonl")
    project.dvc("add", "data/source/small.jsonl")
    code = project.root / "src" / "text" / "load.py"
    text, written = code.read_text(), '"counts.json", {"source": source}'
    assert written in text
    text = text.replace(written, '"counts.json", {"source": source, "at": time.time_ns()}')
    code.write_text(text.replace("import os\n", "import os\nimport time\n"))

    printed = project.run("python", "-m", "src.tools.prove", "load", code=1)
    assert (
        "it lacks changes in data/source/small.jsonl, src/text/load.py, data/source/.gitignore, "
        "data/source/small.jsonl.dvc: commit or `git stash --include-untracked` them.\n"
    ) in printed
    project.commit()
    printed = project.run("python", "-m", "src.tools.prove", "load", code=1)
    assert project.ran(printed) == ["load", "load"]
    assert re.search(
        r"ERROR src.core.stage: Two clones of \w+ differ, load wrote data/raw "
        r"\(md5 \w{32}.dir and \w{32}.dir\): ",
        printed,
    )
    assert clones(project) == ["1", "2"]


def entry(**outs: str) -> dict[str, Any]:
    return {"cmd": "run", "outs": [{"path": path, "md5": md5} for path, md5 in outs.items()]}


def state(stages: dict[str, dict[str, Any]], capability: str = "AVX2") -> State:
    record = {"torch": {"cpu_capability": capability}, "md5": capability}
    return State({"dvc.lock": json.dumps(stages).encode()}, stages, {"models/m.json": record})


CHAIN: prove.Chain = {"load": set(), "train": {"load"}, "test": {"load", "train"}}
MADE = state({"load": entry(raw="1"), "train": entry(model="2"), "test": entry(score="3")})


def test_of_stages_that_differ_those_that_come_first_are_told() -> None:
    other = state({"load": entry(raw="1"), "train": entry(model="4"), "test": entry(score="5")})
    assert prove.difference(MADE, MADE, CHAIN) == ""
    assert prove.difference(MADE, other, CHAIN) == (
        "train wrote model (md5 2 and 4), which changed test"
    )
    renamed = {"load": entry(raw="1") | {"cmd": "walk"}, "train": entry(model="2")}
    assert prove.difference(MADE, state(renamed), CHAIN) == (
        "load ran with other command, which changed test"
    )


def test_another_lock_than_the_committed_one_is_no_failure_on_another_processor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    stages = {"load": entry(raw="1"), "train": entry(model="4"), "test": entry(score="3")}
    with pytest.raises(InputError, match=r"^The committed dvc.lock is another, train wrote"):
        prove.compare_with_committed(state(stages), MADE, CHAIN, alone=False)
    elsewhere = state(stages, "AVX512")
    prove.compare_with_committed(elsewhere, MADE, CHAIN, alone=False)
    (record,) = caplog.records
    assert record.getMessage() == (
        "the committed dvc.lock is another, as its models were trained elsewhere "
        "(cpu_capability of torch of models/m.json: AVX512 there, AVX2 here): "
        "train wrote model (md5 4 and 2)"
    )
    with pytest.raises(InputError, match=r"AVX512 there, AVX2 here.*--clones 2"):
        prove.compare_with_committed(elsewhere, MADE, CHAIN, alone=True)
