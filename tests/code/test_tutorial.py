"""The tutorial, as a reader types it: an empty folder, one shell, every command of the page."""


import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT, Project, copy_project, set_params

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
# What the page leaves to the template is made small here; one thread, for tests run side by side.
SMALL = {
    "baseline.n_estimators": 30,
    "baseline.n_jobs": 1,
    "train.threads": 1,
    "export.threads": 1,
    "evaluate.threads": 1,
    "evaluate.resamples": 100,
    "compare.resamples": 100,
}
# In place of the packages that `make setup` would install, those that this test runs with.
INSTALLED = f"mkdir .venv; ln -s {Path(sys.prefix, 'bin')} .venv/bin; touch .venv/installed; "


def commands() -> list[str]:
    """What stands after a $ in the page's examples, each with the lines that it goes on with."""
    blocks = re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"^\$ ((?:.*\\\n)*.*)$", "".join(blocks), re.MULTILINE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that was empty, after all commands; and what they printed, each after its own."""
    template = copy_project(tmp_path_factory.mktemp("source") / "pedigree")
    set_params(template, SMALL)
    template.commit()
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "home").mkdir()
    script = ["set -euo pipefail", "export HOME=$PWD/home"]
    script += [f"git config --global user.{key} ann@example.org" for key in ("name", "email")]
    for command in commands():
        if command.startswith("TEMPLATE="):
            command = f"TEMPLATE=git+file://{template.root}"
        elif command == "make setup":
            command = INSTALLED + command
        script += [f"cat <<'COMMAND'\n$ {command}\nCOMMAND", command]
    printed = Project(folder).run("bash", "-c", "\n".join(script))
    return folder, printed
