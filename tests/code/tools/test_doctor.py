"""Causes of lying experiments are found, in real repositories, and the remedies are right."""

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from conftest import Project, copy_built, set_params
from dvc.config_schema import REMOTE_SCHEMAS
from dvc.repo import Repo

from src.project.graph import outs_of
from src.tools.doctor import __main__ as doctor
from src.tools.doctor import repository

# DVC's own, of a package that it finds its way through the outputs with.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")

WELL = "No problems found."


@pytest.fixture
def project(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The small project that has run, as the current folder."""
    project = copy_built(built, tmp_path / "project")
    monkeypatch.chdir(project.root)
    return project


def ask(project: Project, *words: str, code: int = 0) -> list[str]:
    """The sentences that the command says."""
    printed = project.run("python", "-m", "src.tools.doctor", *words, code=code)
    assert "Traceback" not in printed
    return [line.split(": ", 1)[1] for line in printed.splitlines() if " src." in line]


def add_remote(project: Project, url: str) -> None:
    file = project.root / ".dvc/config"
    text = file.read_text().replace("[core]\n", "[core]\n    remote = storage\n")
    file.write_text(f"{text}['remote \"storage\"']\n    url = {url}\n")


def test_all_is_well_with_what_ran_and_was_committed(project: Project) -> None:
    assert ask(project, "--queue") == [WELL]


def test_every_finding_is_listed_also_when_the_lock_cannot_be_read(project: Project) -> None:
    add_remote(project, "/nowhere")
    (project.root / "dvc.lock").write_text("schema: '2.0'\nstages: [\n")
    said = ask(project, code=1)
    assert len(said) == 3
    assert said[0].startswith("Remote 'storage' is not verified")
    assert "unable to read: 'dvc.lock'" in said[1]
    assert said[2].startswith("2 problems found")
    assert ask(project, "--que", code=1)[0].startswith(
        "--que is not known (did you mean '--queue'?)"
    )


def test_a_folder_without_a_pipeline_is_refused(project: Project) -> None:
    (project.root / "dvc.yaml").unlink()
    (said,) = ask(project, code=1)
    assert said.startswith(f"{project.root} has no dvc.yaml: ")


def test_no_commit_and_no_repository(project: Project) -> None:
    shutil.rmtree(project.root / ".git")
    said = ask(project, code=1)[0]
    assert "no git repository" in said
    assert re.findall(r"`(.+?)`", said) == ["git init", "git add --all", "git commit"]
    project.git("init", "--quiet")
    said = ask(project, code=1)[0]
    assert "no commit" in said
    assert re.findall(r"`(.+?)`", said) == ["git add --all", "git commit"]
    printed = project.dvc("repro", "--force", "--single-item", "compare", code=255)
    assert "This git repository has no commit" in printed
    assert "Traceback" not in printed


# Other Python, packages and code


def test_a_package_of_another_version_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(doctor.python()) == ["requirements.lock is missing: run `make lock`."]
    torch = metadata.version("torch").partition("+")[0]
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"# pinned\ntorch=={torch}\n    # via x\n")
    assert list(doctor.python()) == [], "+cpu is a variant, and no other version"
    lock.write_text(f"torch=={torch}\nnumpy==1.0\n    # via x\nno-such-package==2.0\n")
    (said,) = doctor.python()
    assert f"numpy {metadata.version('numpy')} in place of 1.0, no-such-package none in pl" in said
    assert said.endswith(": `pip install --requirement requirements.lock`.")


def test_another_python_for_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OLDEST", (99, 1))
    monkeypatch.setenv("PATH", "/nowhere")
    said = list(doctor.python())
    assert said[0].startswith("This Python is 3.")
    assert "99.1 or newer" in said[0]
    assert "not found" in said[1]
    assert f"put {sys.prefix}/bin first on your PATH" in said[1]


def shadowed(project: Project, **variables: str) -> str:
    code = "from src.tools.doctor.__main__ import shadows; print(*shadows(), sep='\\n')"
    words, env = [sys.executable, "-c", code], os.environ | variables
    return subprocess.check_output(words, cwd=project.root, env=env, text=True).strip()


def test_another_src_that_python_would_find(project: Project, tmp_path: Path) -> None:
    assert shadowed(project) == ""
    other = tmp_path / "other"
    (other / "src").mkdir(parents=True)
    (other / "src/__init__.py").touch()
    found = f"{other}/src is another src that Python finds, "
    said = shadowed(project, PYTHONPATH=str(other))
    assert said.startswith(f"{found}because of PYTHONPATH (`unset PYTHONPATH`): a queued ")
    assert f"{project.root}/src is another" in shadowed(project, PYTHONPATH=str(project.root))

    # As `pip install --editable` leaves it: a path in a .pth file, and where it came from.
    site = tmp_path / "site"
    (site / "other-1.0.dist-info").mkdir(parents=True)
    (site / "other.pth").write_text(f"{other}\n")
    (site / "other-1.0.dist-info/METADATA").write_text("Name: other\nVersion: 1.0\n")
    origin = f'{{"url": "file://{other}", "dir_info": {{"editable": true}}}}'
    (site / "other-1.0.dist-info/direct_url.json").write_text(origin)
    (site / "sitecustomize.py").write_text(f"import site; site.addsitedir({str(site)!r})")
    said = shadowed(project, PYTHONPATH=str(site))
    assert said.startswith(f"{found}because other is installed as editable (`pip uninstall other`)")

    said = shadowed(project, PYTHONPATH=str(project.root), PYTHONSAFEPATH="1")
    assert "unset PYTHONSAFEPATH" in said


# Secrets and remotes


def test_every_option_of_dvc_that_holds_a_secret_is_known() -> None:
    options = {str(key) for schema in REMOTE_SCHEMAS.values() for key in schema}
    assert set(repository.secret_keys(dict.fromkeys(options, "x"))) == {
        *("access_key_id", "account_key", "client_secret", "connection_string"),
        *("gdrive_client_secret", "oss_key_id", "oss_key_secret", "passphrase", "password"),
        *("sas_token", "secret_access_key", "session_token", "sse_customer_key", "token"),
    }


def test_a_secret_in_the_config_that_git_keeps(project: Project) -> None:
    add_remote(project, "https://ann:hush@example.org/models")
    with (project.root / ".dvc/config").open("a") as file:
        file.write("    password = hush\n    ask_password = true\n    user = ann\n")
        file.write("[studio]\n    token = hush\n['db \"texts\"']\n    password = hush\n")
    said = list(repository.secrets())
    assert "url of remote 'storage'" in said[0]
    assert "`dvc remote modify --local storage url ...`" in said[0]
    assert "password of remote 'storage'" in said[1]
    assert "password of db 'texts': put it into .dvc/config.local by `dvc config" in said[2]
    assert "token of studio: put it into .dvc/config.local by `dvc config --local" in said[3]
    assert len(said) == 4
    assert "hush" not in "".join(said)


def test_the_local_config_in_git(project: Project) -> None:
    assert list(repository.secrets()) == []
    (project.root / ".dvc/config.local").write_text("")
    project.git("add", "--force", ".dvc/config.local")
    (said,) = repository.secrets()
    assert said.startswith(".dvc/config.local, which is for secrets, is in git: ")


def test_a_secret_in_a_url_of_data(project: Project) -> None:
    """Wherever people and DVC write one down, also in a further pipeline's folder."""
    url = "https://ann:hush@example.org/x.csv"
    (project.root / "qa").mkdir()
    (project.root / "qa/params.yaml").write_text("load: {source: 'https://h/x?token=hush&a=1'}\n")
    (project.root / "x.csv.dvc").write_text(f"deps:\n- path: {url}\nouts:\n- path: x.csv\n")
    lock = project.root / "dvc.lock"
    lock.write_text(lock.read_text().replace("data/source", url, 1))
    (project.root / "dvc.yaml").write_text("vars: [{x: https://h/x?id=hush&token=$TOKEN}]\n")
    said = list(repository.secrets())
    assert [one.split(",")[0] for one in said] == ["dvc.lock", "qa/params.yaml", "x.csv.dvc"]
    assert "has a secret in https://h/x, the parameter token: write $NAME in its place" in said[1]
    assert "hush" not in "".join(said)


def test_a_shallow_clone_loses_experiments(project: Project, tmp_path: Path) -> None:
    assert list(repository.shallow()) == []
    project.git("clone", "--quiet", "--depth=1", f"file://{project.root}", str(tmp_path / "clone"))
    os.chdir(tmp_path / "clone")
    with Repo() as repo:
        assert "`git fetch --unshallow`" in next(repository.not_committed(repo, []))
    search = ("python", "-m", "src.tools.tune", "--n_trials", "1")
    assert "This clone is shallow" in Project(tmp_path / "clone").run(*search, code=1)


def test_a_remote_that_is_not_verified(project: Project) -> None:
    add_remote(project, "s3://bucket/models")
    remedy = "dvc remote modify storage verify true"
    (said,) = repository.unverified()
    assert said.endswith(f": `{remedy}`.")
    project.run(*remedy.split())
    assert list(repository.unverified()) == []


def test_what_was_not_pushed(project: Project, tmp_path: Path) -> None:
    assert list(repository.not_pushed(Repo())) == [], "there is no remote"
    add_remote(project, str(tmp_path / "remote"))
    (said,) = repository.not_pushed(Repo())
    assert said.startswith(
        "Remote 'storage' lacks data/predictions/baseline, data/predictions/baseline-onnx, "
        "data/predictions/linear, data/predictions/linear-onnx, data/predictions/onnx and 26 "
    )
    assert said.endswith(": `dvc push`.")
    project.dvc("push")
    assert list(repository.not_pushed(Repo())) == []


def test_a_remote_that_does_not_answer(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        add_remote(project, f"ssh://127.0.0.1:{free.getsockname()[1]}/models")
        (said,) = repository.not_pushed(Repo())  # bound, but nobody listens
    assert said.startswith("Remote 'storage' can't be asked what was pushed (")
    assert "127.0.0.1" in said
    monkeypatch.setattr(repository, "PATIENCE", 0.1)
    (said,) = repository.not_pushed(Repo())
    assert "(no answer in 0.1 s): look at its url, at the network and at the cred" in said


# What git and DVC keep


def test_conflicts_and_how_to_settle_them(project: Project) -> None:
    """The commands of the sentence itself, after two branches that changed the same param."""
    for branch, resamples in (("one", 51), ("two", 52)):
        project.git("checkout", "--quiet", "-b", branch, "main")
        set_params(project, {"compare.resamples": resamples})
        project.dvc("repro", "--single-item", "compare")
        project.commit()
    project.run("git", "merge", "--quiet", "one", code=1)
    said = ask(project, code=1)
    assert len(said) == 2
    assert said[0].startswith(
        "Conflicts are in dvc.lock, dvclive/compare/comparison.md, "
        "dvclive/compare/metrics.json, params.yaml: settle the files that people write, such as "
    )
    text = (project.root / "params.yaml").read_text()
    settled = re.sub(r"<{7}.*?={7}\n(.*?)>{7}.*?\n", r"\1", text, flags=re.DOTALL)
    (project.root / "params.yaml").write_text(settled)
    commands = re.findall(r"`(.+?)`", said[0])
    assert [command.split()[1] for command in commands] == ["checkout", "checkout", "repro", "add"]
    for command in commands:
        project.run("sh", "-c", command)
    project.git("commit", "--quiet", "--no-edit")
    assert ask(project, "--queue") == [WELL]
    assert "resamples: 51" in (project.root / "params.yaml").read_text()


def test_markers_that_were_committed(project: Project) -> None:
    lock = project.root / "dvc.lock"
    text = lock.read_text()
    lock.write_text(f"<<<<<<< HEAD\n{text}=======\n{text}>>>>>>> one\n")
    project.commit()
    (said,) = repository.conflicts()
    assert said.startswith("Markers of a conflict are in dvc.lock: ")
    project.run(*re.findall(r"`(git .+?)`", said)[0].split())
    assert list(repository.conflicts()) == []
    assert lock.read_text() == text


def test_a_lock_of_other_code_or_params(project: Project, tmp_path: Path) -> None:
    clone = Repo(str(project.clone(tmp_path / "clone").root))
    assert list(repository.out_of_date(clone)) == [], "what is not pulled is not changed"
    with (project.root / "src/text/compare.py").open("a") as file:
        file.write("# changed\n")
    set_params(project, {"split.seed": 7})
    (said,) = repository.out_of_date(Repo())
    assert "for split, compare, card: `dvc repro`, and commit" in said


def test_outputs_that_git_keeps_or_does_not(project: Project) -> None:
    def found() -> list[str]:
        return list(repository.kept_twice(outs_of(Repo())))

    assert found() == []
    ignore = project.root / ".gitignore"
    ignore.write_text(ignore.read_text().replace("/models/*\n", "") + "data/quality.json\n")
    project.git("rm", "--cached", "--quiet", "data/quality.json")
    project.git("add", "models/shipped")
    twice, bare, lost = found()
    assert twice.startswith("Git has outputs that DVC keeps, models/shipped: ")
    assert bare.startswith(
        "Git does not ignore what DVC keeps, models/baseline, models/exported/baseline-onnx, "
    )
    assert lost.startswith("Git ignores outputs with `cache: false`, data/quality.json, ")
    project.run(*shlex.split(re.findall(r"`(.+?)`", twice)[0]))
    assert len(found()) == 2


def test_what_a_queued_experiment_would_not_find(project: Project) -> None:
    def found() -> list[str]:
        repo = Repo()
        return list(repository.not_committed(repo, outs_of(repo)))

    (project.root / "src/__pycache__").mkdir(exist_ok=True)
    (project.root / "src/__pycache__/x.pyc").touch()
    set_params(project, {"train.lr": 0.5})  # is shown beside the result
    (project.root / "data/source/large.jsonl").write_text("{}\n")
    project.dvc("add", "--quiet", "data/source/large.jsonl")
    project.git("add", "data/source")
    project.git("commit", "--quiet", "--message", "Add", "data/source")
    assert found() == []
    (project.root / "src/fresh.py").touch()
    (project.root / "data/source/more.jsonl").touch()
    with (project.root / "src/text/load.py").open("a") as file:
        file.write("# changed\n")
    absent, changed = found()
    assert absent.startswith("Neither git nor DVC has data/source/more.jsonl, src/fresh.py, which ")
    assert "not committed, in src/text/load.py: an experiment" in changed
