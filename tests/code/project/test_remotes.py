"""Push, clone, pull: against a folder and real servers of each protocol, on loopback."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import asyncssh
import pytest
from conftest import ROOT, Project, copy_built, digest, serving
from dvc.config import Config

from src.tools.doctor import repository

SHIPPED = "models/shipped"

# What a machine that only predicts has not: importing one of these raises.
PREDICT = """
import runpy, sys
sys.modules.update(torch=None, transformers=None, pandas=None, sklearn=None, dvc=None)
runpy.run_module("src.predict", run_name="__main__")
"""


def test_a_colleague_pulls_equal_bytes_predicts_and_reruns_nothing(
    built: Path, tmp_path: Path
) -> None:
    project = copy_built(built, tmp_path / "project")
    (project.root / ".venv").mkdir()
    (project.root / ".venv/installed").touch()  # as after `make run`
    project.run("make", "remote", f"REMOTE={tmp_path / 'a b'}")
    shown = project.dvc("config", "--list")
    assert f"remote.storage.url={tmp_path / 'a b'}\n" in shown
    assert "remote.storage.verify=true\n" in shown
    project.dvc("push")
    project.commit()

    colleague = project.clone(tmp_path / "clone")
    colleague.dvc("pull", SHIPPED)
    assert [path.name for path in (colleague.root / "models").glob("[!.]*/")] == ["shipped"]
    assert digest(colleague.root / SHIPPED) == digest(project.root / SHIPPED)
    answer = colleague.run("python", "-c", PREDICT, SHIPPED, "goal match")
    assert set(json.loads(answer.splitlines()[-1])["probabilities"]) == {"film", "money", "sport"}

    colleague.dvc("pull")
    for folder in ("data/raw", "data/splits", "data/predictions", "models", "dvclive"):
        assert digest(colleague.root / folder) == digest(project.root / folder), folder
    assert colleague.ran(colleague.dvc("repro")) == []
    assert colleague.git("status", "--porcelain") == ""

    # What has changed in the remote since is not taken.
    graph = (project.root / SHIPPED / "model.onnx").read_bytes()
    files = [path for path in (tmp_path / "a b").rglob("*") if path.is_file()]
    (stored,) = [file for file in files if file.read_bytes() == graph]
    stored.chmod(0o644)
    stored.write_bytes(graph[:-1] + b"x")
    another = project.clone(tmp_path / "another")
    another.dvc("pull", SHIPPED, code=1)
    assert not (another.root / SHIPPED / "model.onnx").exists()


@pytest.mark.parametrize(
    ("target", "variable"), [("remote", "REMOTE"), ("check-data", "FILE"), ("pedigree", "OUT")]
)
def test_a_target_of_make_names_what_it_lacks(target: str, variable: str) -> None:
    printed = Project(ROOT).run("make", "--always-make", "--dry-run", target, code=2)
    assert f"{variable} is missing: make {target} {variable}=" in printed


Remote = tuple[str, dict[str, str], dict[str, str], dict[str, str]]


@contextmanager
def over_ssh(folder: Path) -> Iterator[Remote]:
    """A remote's url, its options, its secrets and wrong ones."""
    keys = {name: str(folder / name) for name in ("right", "wrong")}
    for file in keys.values():
        key = asyncssh.generate_private_key("ssh-ed25519")
        key.write_private_key(file)
        key.write_public_key(f"{file}.pub")
    command: list[str | Path] = ["rclone", "serve", "sftp", "--cache-dir", folder]
    command += ["--user", "ann", "--authorized-keys", f"{keys['right']}.pub"]
    with serving(*command, folder / "served") as port:
        yield (
            f"ssh://127.0.0.1:{port}/team",
            {"user": "ann"},
            {"keyfile": keys["right"]},
            {"keyfile": keys["wrong"]},
        )


@contextmanager
def over_webdav(folder: Path) -> Iterator[Remote]:
    secret = ["--user", "ann", "--pass", "hush"]
    with serving("rclone", "serve", "webdav", *secret, folder / "served") as port:
        url = f"webdav://127.0.0.1:{port}/team"
        yield url, {"user": "ann"}, {"password": "hush"}, {"password": "wrong"}


@contextmanager
def over_s3(folder: Path) -> Iterator[Remote]:
    with serving("rclone", "serve", "s3", "--auth-key", "ann,hush", folder / "served") as port:
        options = {"endpointurl": f"http://127.0.0.1:{port}", "region": "us-east-1"}
        right = {"access_key_id": "ann", "secret_access_key": "hush"}
        yield "s3://team/models", options, right, right | {"secret_access_key": "wrong"}


@pytest.mark.parametrize("over", [over_ssh, over_webdav, over_s3])
def test_over_the_network_with_secrets_that_stay_here(
    over: Callable[[Path], AbstractContextManager[Remote]], built: Path, tmp_path: Path
) -> None:
    (tmp_path / "served/team").mkdir(parents=True)  # a bucket, or a folder that must be there
    project = copy_built(built, tmp_path / "project")
    with over(tmp_path) as (url, options, right, wrong):
        set_remote(project, "repo", {"url": url, "verify": "true"} | options)
        set_remote(project, "local", right)
        project.dvc("push", SHIPPED)
        project.commit()
        assert project.git("show", "--name-only", "--format=").split() == [".dvc/config"]

        colleague = project.clone(tmp_path / "clone")
        set_remote(colleague, "local", wrong)
        colleague.dvc("pull", SHIPPED, code=1)
        assert not (colleague.root / SHIPPED).exists()
        set_remote(colleague, "local", right)
        colleague.dvc("pull", SHIPPED)
    assert digest(colleague.root / SHIPPED) == digest(project.root / SHIPPED)
    assert "onnx" not in (colleague.root / ".dvc/config").read_text()
    for secret in right.values():
        assert project.run("git", "grep", "--fixed-strings", secret, "--", ".dvc", code=1) == ""


def set_remote(project: Project, level: str, options: dict[str, str]) -> None:
    """Set options as `dvc remote modify` does one by one: --local for the level local."""
    with Config(str(project.root / ".dvc"), validate=False).edit(level, validate=False) as config:
        config["core"] |= {"remote": "storage"} if level == "repo" else {}
        config["remote"].setdefault("storage", {}).update(options)


def test_this_repository_holds_no_secret_and_verifies_its_remotes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    assert [*repository.secrets(), *repository.unverified()] == []
