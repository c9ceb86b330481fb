"""A further pipeline, in a folder of its own, is served by every command without knowing it."""

import json
import re
import shutil
from pathlib import Path

import pytest
from conftest import PYTEST, Project, copy_built, set_params
from ruamel.yaml import YAML

FILE = "numbers/dvc.yaml"
# Stages and sections are named as some at the root are, and hold other params.
STAGES = """\
stages:
  split:
    desc: Write some numbers
    wdir: ..
    cmd: python -m src.numbers.split data/numbers/all.json ${split}
    deps:
    - src/numbers/split.py
    params:
    - numbers/params.yaml: [split]
    outs:
    - data/numbers/all.json

  train:
    desc: Add them up
    wdir: ..
    cmd: python -m src.numbers.train data/numbers/all.json models/numbers dvclive/numbers ${train}
    deps:
    - data/numbers/all.json
    - src/numbers/train.py
    params:
    - numbers/params.yaml: [train]
    outs:
    - models/numbers
    metrics:
    - dvclive/numbers/metrics.json:
        cache: false
"""
PARAMS = """\
split:
  # How many numbers.
  count: 3

train:
  # What the sum is multiplied by, a number.
  factor: 1.5
  # Whether the result is rounded.
  rounded: false
"""
SPLIT = '''\
"""Write some numbers."""

from pathlib import Path

from src.core import stage
from src.core.command_line import Count
from src.core.files import replacing, write_json


def main(target: Path, *, count: Count) -> None:
    """Write the numbers below ``count``."""
    with replacing(target) as fresh:
        write_json(fresh, [*range(count)])


if __name__ == "__main__":
    stage.run(main)
'''
TRAIN = '''\
"""Add numbers up."""

import json
from pathlib import Path

from src.core import stage
from src.core.files import replacing, write_json
from src.training import provenance


def main(numbers: Path, model: Path, live: Path, *, factor: float, rounded: bool) -> None:
    """Write a model that is the sum, and a metric of it."""
    total = factor * sum(json.loads(numbers.read_text()))
    with replacing(model) as folder:
        folder.mkdir()
        write_json(folder / "sum.json", round(total) if rounded else total)
    with replacing(live / "metrics.json") as file:
        write_json(file, {"sum": total})
    provenance.record(model, "dvc", params={"factor": factor, "rounded": rounded})


if __name__ == "__main__":
    stage.run(main)
'''
IGNORED = "/data/numbers\n!/models/numbers.json\n"


@pytest.fixture(scope="module")
def project(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project with a second pipeline, whose stages have not run."""
    project = copy_built(built, tmp_path_factory.mktemp("pipelines") / "project")
    root = project.root
    (root / "numbers").mkdir()
    (root / "src/numbers").mkdir()
    (root / "src/numbers/__init__.py").touch()
    (root / "src/numbers/split.py").write_text(SPLIT)
    (root / "src/numbers/train.py").write_text(TRAIN)
    (root / "numbers/params.yaml").write_text(PARAMS)
    (root / ".gitignore").write_text((root / ".gitignore").read_text() + IGNORED)
    yaml = YAML()
    shared = yaml.load(root / "dvc.yaml")["stages"]["baseline"]["deps"]
    shared = [path for path in shared if path.startswith(("src/core/", "src/training/"))]
    added = yaml.load(STAGES)
    added["stages"]["split"]["deps"] += [path for path in shared if "/core/" in path]
    added["stages"]["train"]["deps"] += shared
    yaml.dump(added, root / FILE)
    project.commit()
    return project


def contract(project: Project, code: int = 0) -> str:
    """The project's own contract test, asked of the second pipeline."""
    words = ("-k", "numbers", "tests/code/project/test_contract.py")
    return project.run(*PYTEST, "-p", "no:cacheprovider", *words, code=code)


def test_the_contract_is_asked_of_its_stages(project: Project) -> None:
    assert "3 passed" in contract(project)
    file = project.root / FILE
    text = file.read_text()
    file.write_text(text.replace("- numbers/params.yaml: [train]", "- train"))
    assert "1 failed, 2 passed" in contract(project, code=1), "it would record the root's params"
    file.write_text(text)


def test_it_runs_alone_and_changes_alone(project: Project) -> None:
    assert project.ran(project.dvc("repro")) == []
    names = [f"{FILE}:split", f"{FILE}:train"]
    assert project.ran(project.dvc("repro", FILE)) == names
    assert json.loads((project.root / "models/numbers/sum.json").read_text()) == 4.5
    project.commit()
    assert project.run(".ci/locked").endswith(", in all 2 pipelines.\n")
    printed = project.run("python", "-m", "src.tools.doctor", "--queue")
    assert printed.endswith("No problems found.\n")

    params = project.root / "numbers/params.yaml"
    params.write_text(PARAMS.replace("count: 3", "count: 4"))
    assert f"would run: {names[0]}" in project.run(".ci/locked", code=1)
    printed = project.run("python", "-m", "src.tools.doctor", code=1)
    assert f" for {names[0]}: `dvc repro {FILE}`" in printed
    inside = Project(project.root / "numbers")
    assert project.ran(inside.dvc("repro")) == ["split", "train"]
    assert project.ran(project.dvc("repro", FILE)) == []
    assert project.ran(project.dvc("repro")) == []
    project.commit()

    params.write_text(PARAMS.replace("count: 3", "count: 0"))
    printed = project.dvc("repro", FILE, code=255)
    assert "split.count is '0'" in printed
    assert "numbers/params.yaml" in printed
    project.git("restore", ".")
    project.dvc("checkout")


def test_the_card_of_the_root_is_of_the_params_of_the_root(project: Project) -> None:
    printed = project.dvc("repro", "--force", "--single-item", "card")
    assert project.ran(printed) == ["card"]
    assert project.git("status", "--porcelain") == ""


def test_its_files_are_verified_and_its_model_has_a_pedigree(project: Project) -> None:
    verify = ("python", "-m", "src.tools.verify", FILE)
    assert project.run(*verify).startswith("Read 3 files of the work tree and 3 objects")
    model = project.root / "models/numbers/sum.json"
    text = model.read_text()
    model.write_text("5\n")
    printed = project.run("python", "-m", "src.tools.verify", code=1)
    assert "models/numbers/sum.json is not what dvc.lock says\n" in printed
    project.run("bash", "-c", printed.splitlines()[-1])
    assert model.read_text() == text

    record = json.loads(project.run("python", "-m", "src.tools.pedigree", "models/numbers"))
    assert record["problems"] == []
    assert list(record["stages"]) == [f"{FILE}:split", f"{FILE}:train"]
    train = record["stages"][f"{FILE}:train"]
    assert train["params"] == {"numbers/params.yaml": {"train": {"factor": 1.5, "rounded": False}}}
    assert record["environment"][f"{FILE}:train"]["belongs_to_the_model"]


def test_a_report_shows_what_changed_in_it(project: Project) -> None:
    project.run("python", "-m", "src.tools.report", "HEAD~1", "HEAD")
    page = (project.root / "report/report.md").read_text()
    assert re.search(rf"^\| `{FILE}:split` \| `split\.count` \| 1 of 1 \|$", page, re.MULTILINE)
    assert re.search(
        rf"^\| `{FILE}:train` \| `data/numbers/all.json` \| 2 of 2 \|$", page, re.MULTILINE
    )
    assert re.search(r"^\| `.*split.count` \| `3` \| `4` \|$", page, re.MULTILINE)


def test_clean_clones_of_it_give_one_lock(project: Project) -> None:
    printed = project.run("python", "-m", "src.tools.prove", FILE)
    assert project.ran(printed) == [f"{FILE}:split", f"{FILE}:train"] * 2
    assert "agree on dvc.lock, numbers/dvc.lock\n" in printed
    assert "it is the committed one, byte for byte\n" in printed


def test_a_conflict_in_its_lock_is_found(project: Project) -> None:
    lock = project.root / "numbers/dvc.lock"
    text = lock.read_text()
    lock.write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> one\n")
    printed = project.run("python", "-m", "src.tools.doctor", code=1)
    assert "Markers of a conflict are in numbers/dvc.lock: " in printed
    assert "`git checkout HEAD~1 numbers/dvc.lock`" in printed
    lock.write_text(text)


def test_a_copy_of_the_root_alone_knows_one_pipeline(project: Project) -> None:
    for folder in ("numbers", "src/numbers"):
        shutil.rmtree(project.root / folder)
    project.commit()
    assert "pipelines" not in project.run(".ci/locked")
    set_params(project, {"compare.resamples": 51})
    assert "would run: compare" in project.run(".ci/locked", code=1)
