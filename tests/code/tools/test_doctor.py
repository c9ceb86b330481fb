"""What makes experiments lie is found, in real repositories, and its remedy is the right one."""

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

from src.tools import doctor

# DVC's own, of a package that it finds its way through the outputs with.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")

WELL = "All is well: nothing was found that makes experiments lie."


@pytest.fixture
def project(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The small project that has run, as the current folder."""
    project = copy_built(built, tmp_path / "project")
    project.git("config", "user.name", "A")
    project.git("config", "user.email", "a@example.org")
    monkeypatch.chdir(project.root)
    return project


def ask(project: Project, *words: str, code: int = 0) -> list[str]:
    """What the command says: a list of sentences."""
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
    assert said[0].startswith("Expected verify = true of remote 'storage', found that DVC takes")
    assert said[1].startswith("Expected files that DVC can read, found: unable to read: 'dvc.lock'")
    assert said[2] == (
        "Expected nothing that makes experiments lie, found 2: do what each sentence above says."
    )
    assert ask(project, "--que", code=1)[0].startswith("--que is not known (did you mean 'queue'?)")


def test_a_folder_without_a_pipeline_is_refused(project: Project) -> None:
    (project.root / "dvc.yaml").unlink()
    (said,) = ask(project, code=1)
    assert said == f"Expected dvc.yaml in {project.root}, found none: go to the repository."


def test_no_commit_and_no_repository(project: Project) -> None:
    shutil.rmtree(project.root / ".git")
    assert ask(project, code=1)[0] == (
        "Expected a git repository, as DVC compares commits, found none: `git init`, "
        "`git add --all` and `git commit`."
    )
    project.git("init", "--quiet")
    assert ask(project, code=1)[0] == (
        "Expected a commit, as DVC compares commits, found none: `git add --all` and `git commit`."
    )
    printed = project.dvc("repro", "--force", "--single-item", "compare", code=255)
    assert "This git repository has no commit" in printed
    assert "Traceback" not in printed


# Other Python, packages and code


def test_a_package_of_another_version_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(doctor.python()) == [
        "Expected the pinned packages in requirements.lock, found no such file: run `make lock`."
    ]
    torch = metadata.version("torch").partition("+")[0]
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"# pinned\ntorch=={torch}\n    # via x\n")
    assert list(doctor.python()) == [], "+cpu is a variant, and no other version"
    lock.write_text(f"torch=={torch}\nnumpy==1.0\n    # via x\nno-such-package==2.0\n")
    assert list(doctor.python()) == [
        f"Expected the packages of requirements.lock, found numpy {metadata.version('numpy')} in "
        "place of 1.0, no-such-package none in place of 2.0: "
        "`pip install --requirement requirements.lock`."
    ]


def test_another_python_for_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "OLDEST", (99, 1))
    monkeypatch.setenv("PATH", "/nowhere")
    said = list(doctor.python())
    assert said[0].startswith("Expected Python 99.1 or newer, found 3.")
    assert said[1] == (
        f"Expected `python`, which the stages call, to be of {sys.prefix} as this one is, found "
        f"none: put {sys.prefix}/bin first on your PATH, as `. .venv/bin/activate` does."
    )


def shadowed(project: Project, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from src import doctor; print(*doctor.shadows(), sep='\\n')"],
        cwd=project.root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_another_src_that_python_would_find(project: Project, tmp_path: Path) -> None:
    assert shadowed(project) == ""
    other = tmp_path / "other"
    (other / "src").mkdir(parents=True)
    (other / "src/__init__.py").touch()
    found = f"Expected src in this folder alone, found it in {other}/src too, "
    said = shadowed(project, PYTHONPATH=str(other))
    assert said.startswith(f"{found}because of PYTHONPATH (`unset PYTHONPATH`): a queued ")
    assert f"{project.root}/src too" in shadowed(project, PYTHONPATH=str(project.root))

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
    assert said.startswith("Expected Python to look for src in the current folder first, found ")


# Secrets and remotes


def test_every_option_of_dvc_that_holds_a_secret_is_known() -> None:
    options = {str(key) for schema in REMOTE_SCHEMAS.values() for key in schema}
    assert set(doctor._secret_keys(dict.fromkeys(options, "x"))) == {
        "access_key_id",
        "account_key",
        "client_secret",
        "connection_string",
        "gdrive_client_secret",
        "oss_key_id",
        "oss_key_secret",
        "passphrase",
        "password",
        "sas_token",
        "secret_access_key",
        "session_token",
        "sse_customer_key",
        "token",
    }


def test_a_secret_in_the_config_that_git_keeps(project: Project) -> None:
    add_remote(project, "https://ann:hush@example.org/models")
    with (project.root / ".dvc/config").open("a") as file:
        file.write("    password = hush\n    ask_password = true\n    user = ann\n")
        file.write("[studio]\n    token = hush\n['db \"texts\"']\n    password = hush\n")
    said = list(doctor.secrets())
    assert said[0] == (
        "Expected no secret in .dvc/config, which is for git, found url of remote 'storage': put "
        "it into .dvc/config.local by `dvc remote modify --local storage url ...`, remove it from "
        ".dvc/config, and change the secret itself if it was ever committed."
    )
    assert "found password of remote 'storage'" in said[1]
    assert "found password of db 'texts': put it into .dvc/config.local by `dvc config" in said[2]
    assert "found token of studio: put it into .dvc/config.local by `dvc config --local" in said[3]
    assert len(said) == 4
    assert "hush" not in "".join(said)


def test_the_local_config_in_git(project: Project) -> None:
    assert list(doctor.secrets()) == []
    (project.root / ".dvc/config.local").write_text("")
    project.git("add", "--force", ".dvc/config.local")
    (said,) = doctor.secrets()
    assert said.startswith("Expected .dvc/config.local, which is for secrets, only on this machine")


def test_a_remote_that_is_not_verified(project: Project) -> None:
    add_remote(project, "s3://bucket/models")
    remedy = "dvc remote modify storage verify true"
    (said,) = doctor.unverified()
    assert said.endswith(f"without a look at their hash: `{remedy}`.")
    project.run(*remedy.split())
    assert list(doctor.unverified()) == []


def test_what_was_not_pushed(project: Project, tmp_path: Path) -> None:
    assert list(doctor.not_pushed(Repo())) == [], "there is no remote"
    add_remote(project, str(tmp_path / "remote"))
    (said,) = doctor.not_pushed(Repo())
    assert said == (
        "Expected remote 'storage' to have what dvc.lock names, found that it lacks "
        "data/predictions/baseline, data/predictions/baseline-onnx, data/predictions/onnx, "
        "data/predictions/onnx-int8, data/predictions/transformer and 17 more: `dvc push`."
    )
    project.dvc("push")
    assert list(doctor.not_pushed(Repo())) == []


def test_a_remote_that_does_not_answer(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        add_remote(project, f"ssh://127.0.0.1:{free.getsockname()[1]}/models")
        (said,) = doctor.not_pushed(Repo())  # bound, but nobody listens
    assert said.startswith("Expected to ask remote 'storage' what was pushed, found: ")
    assert "127.0.0.1" in said
    monkeypatch.setattr(doctor, "PATIENCE", 0.1)
    (said,) = doctor.not_pushed(Repo())
    assert "found: no answer in 0.1 s; look at its url, at the network and at the cred" in said


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
        "Expected no conflict, found one in dvc.lock, dvclive/compare/comparison.md, "
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
    (said,) = doctor.conflicts()
    assert said.startswith("Expected no conflict, found its markers in dvc.lock: settle by hand ")
    project.run(*re.findall(r"`(git .+?)`", said)[0].split())
    assert list(doctor.conflicts()) == []
    assert lock.read_text() == text


def test_a_lock_of_other_code_or_params(project: Project, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    project.run("git", "clone", "--quiet", str(project.root), str(clone))
    assert list(doctor.out_of_date(Repo(str(clone)))) == [], "what is not pulled is not changed"
    with (project.root / "src/text/compare.py").open("a") as file:
        file.write("# changed\n")
    set_params(project, {"split.seed": 7})
    (said,) = doctor.out_of_date(Repo())
    assert said == (
        "Expected dvc.lock to be of the code, params and data that are here, found that it is not "
        "for split, compare, card@onnx-int8, card@onnx: `dvc repro`, and commit dvc.lock with the "
        "change."
    )


def test_outputs_that_git_keeps_or_does_not(project: Project) -> None:
    def found() -> list[str]:
        return list(doctor.kept_twice(doctor.outs_of(Repo())))

    assert found() == []
    ignore = project.root / ".gitignore"
    ignore.write_text(ignore.read_text().replace("/models/*\n", "") + "data/quality.json\n")
    project.git("rm", "--cached", "--quiet", "data/quality.json")
    project.git("add", "models/onnx")
    twice, bare, lost = found()
    assert twice.startswith(
        "Expected outputs that DVC keeps to be out of git, found models/onnx in"
    )
    assert bare.startswith(
        "Expected git to ignore what DVC keeps, found that it does not ignore models/baseline, "
        "models/baseline-onnx, models/exported/onnx, "
    )
    assert lost.startswith(
        "Expected git to keep outputs with `cache: false`, found that it ignores data/quality.json"
    )
    project.run(*shlex.split(re.findall(r"`(.+?)`", twice)[0]))
    assert len(found()) == 2


def test_what_a_queued_experiment_would_not_find(project: Project) -> None:
    def found() -> list[str]:
        repo = Repo()
        return list(doctor.not_committed(repo, doctor.outs_of(repo)))

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
    assert "found neither has data/source/more.jsonl, src/fresh.py, which an ex" in absent
    assert changed.startswith("Expected committed code, found changes in src/text/load.py: an exp")
