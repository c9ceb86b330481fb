"""Versions and stages of a model, as tags in git, and their users who have no clone."""

import json
from pathlib import Path

import pytest
from conftest import Project, copy_built, set_params


class Registry:
    """A project with a version in production and a newer one, pushed, and a place beside it."""

    def __init__(self, built: Path, place: Path) -> None:
        self.hub = place / "models.git"
        self.user = Project(place / "user")
        self.user.root.mkdir()
        self.project = copy_built(built, place / "project")
        project, storage = self.project, place / "storage"
        project.git("init", "--quiet", "--bare", "--initial-branch=main", str(self.hub))
        project.git("remote", "add", "origin", str(self.hub))
        project.dvc("remote", "add", "--default", "storage", str(storage))
        self._share()
        project.run("gto", "register", "classifier", "--version", "v1.0.0", "--push")
        project.run(
            *("gto", "assign", "classifier", "--version", "v1.0.0", "--stage", "prod", "--push")
        )
        set_params(project, {"card.name": "The second"})
        project.dvc("repro", "card")
        self._share()
        project.run("gto", "register", "classifier", "--bump-minor", "--push")

    def _share(self) -> None:
        self.project.commit()
        self.project.dvc("push", "models/shipped")
        self.project.git("push", "--quiet", "origin", "main")

    def get(self, name: str, *which: str, out: str, code: int = 0) -> str:
        """Fetch an artifact as someone does who has no clone."""
        return self.user.dvc("artifacts", "get", str(self.hub), name, *which, "-o", out, code=code)

    def title(self, out: str) -> str:
        card = (self.user.root / out / "README.md").read_text()
        return next(line for line in card.splitlines() if line.startswith("# "))


@pytest.fixture(scope="module")
def registry(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    return Registry(built, tmp_path_factory.mktemp("registry"))


def test_a_stage_is_fetched_by_name_and_predicts(registry: Registry) -> None:
    registry.get("classifier", "--stage", "prod", out="served")
    folder = registry.user.root / "served"
    assert registry.title("served") == "# Text classifier"
    assert (folder / "model.onnx").read_bytes() == (
        registry.project.root / "models/shipped/model.onnx"
    ).read_bytes()
    answer = registry.project.run("python", "-m", "src.predict", str(folder), "goal match")
    assert set(json.loads(answer.splitlines()[-1])["probabilities"]) == {"film", "money", "sport"}


def test_a_version_is_fetched_by_number_while_another_is_in_production(registry: Registry) -> None:
    shown = registry.project.run("gto", "show")
    assert [word for word in shown.split() if word.startswith("v")] == ["v1.1.0", "v1.0.0"]
    registry.get("classifier", "--rev", "v1.1.0", out="tried")
    assert registry.title("tried") == "# The second"


def test_production_moves_on_and_back(registry: Registry) -> None:
    for version, title in (("v1.1.0", "# The second"), ("v1.0.0", "# Text classifier")):
        assign = ("gto", "assign", "classifier", "--version", version, "--stage", "prod", "--push")
        registry.project.run(*assign, "--force")  # it wants that for a version that was there
        registry.get("classifier", "--stage", "prod", out=version)
        assert registry.title(version) == title


def test_a_stage_without_a_version_is_refused(registry: Registry) -> None:
    printed = registry.get("classifier", "--stage", "canary", out="none", code=1)
    assert "Unable to find artifact 'classifier @ canary'" in printed
    assert not (registry.user.root / "none").exists()


def test_one_pull_brings_the_model_and_its_card(registry: Registry, tmp_path: Path) -> None:
    clone = registry.project.clone(tmp_path / "clone", registry.hub)
    clone.dvc("pull", "models/shipped")
    found = {path.name for path in (clone.root / "models/shipped").iterdir()}
    assert {"README.md", "model.onnx", "tokenizer.json", "manifest.json"} <= found
    assert not (clone.root / "models/exported").exists()
    answer = clone.run("python", "-m", "src.predict", "models/shipped", "goal match")
    assert set(json.loads(answer.splitlines()[-1])["probabilities"]) == {"film", "money", "sport"}
