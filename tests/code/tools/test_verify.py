"""Damage of every kind is found and named, and the command that is named puts it right."""

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Project, copy_built, set_params
from dvc.repo import Repo
from ruamel.yaml import YAML

from src.core.command_line import bind
from src.core.errors import InputError
from src.core.files import sha256
from src.project.graph import shown
from src.tools import pedigree
from src.tools.verify import __main__ as verify
from src.tools.verify.outs import Finding, check, files_of, select
from src.tools.verify.remote import check_remote

# Of pygtrie, as DVC uses it.
pytestmark = pytest.mark.filterwarnings("ignore:_NoneStep.value will soon:DeprecationWarning")

FAULTS = 100
MODEL = Path("models/transformer/model.safetensors")
EXPORTED = Path("models/exported/onnx/model.onnx")


@pytest.fixture(scope="module")
def project(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project that has run, and all of it on a remote."""
    project = copy_built(built, tmp_path_factory.mktemp("verify") / "project")
    project.dvc("remote", "add", "--default", "storage", str(project.root.parent / "remote"))
    project.dvc("push")
    project.dvc("status")  # from here on DVC remembers the files
    project.commit()
    return project


@pytest.fixture(autouse=True)
def _inside(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)


def findings(*targets: str) -> list[Finding]:
    with Repo() as repo:
        return check(repo, targets).findings


def on_remote() -> list[Finding]:
    with Repo() as repo:
        return check_remote(repo, [], None, download=False)[0].findings


def trace(target: str) -> dict[str, Any]:
    with Repo() as repo:
        return pedigree.trace(repo, target)


def cure(project: Project, found: list[Finding]) -> list[str]:
    """Run the commands that come with findings, and return those that are not a removal."""
    first = dict.fromkeys(command for finding in found for command in finding.first)
    then = dict.fromkeys(finding.cure for finding in found if finding.cure)
    project.run("bash", "-e", "-c", "\n".join([*first, *then]))
    return list(then)


def damage(path: Path, draw: random.Random) -> None:
    """Flip a bit or cut off a byte as a bad disk does, which leaves time and mode as they are."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    if draw.random() < 0.5:
        content.pop()
    else:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flip(path: Path) -> None:
    damage(path, random.Random(2))  # which draws a number above a half: the size stays


def in_cache(out: Path, place: Path = Path(".dvc/cache")) -> Path:
    """The object of a file or folder of the work tree, by what dvc.lock and the file say."""
    with Repo() as repo:
        (part,) = select(repo, [str(out)])
        listing, _ = files_of(repo, part)
        oid = (listing or {})[part.inside] if part.inside else part.oid
    return place / "files" / "md5" / oid[:2] / oid[2:]


def test_a_sound_project_passes(project: Project) -> None:
    printed = project.run("python", "-m", "src.tools.verify")
    assert printed.startswith("Read ")
    assert printed.endswith(" bytes: all is what dvc.lock says.\n")
    with Repo() as repo:
        report = check(repo)
        outs = [Path(out.fs_path) for out in repo.index.outs]
    files = [f for out in outs for f in ([out] if out.is_file() else out.rglob("*")) if f.is_file()]
    assert report.files == len(files) > 50
    assert (report.absent, report.findings) == (0, [])


def test_a_folder_without_its_list_is_hashed_as_dvc_does() -> None:
    lists = list(Path(".dvc/cache/files").rglob("*.dir"))
    for path in lists:
        path.rename(path.with_suffix(".away"))
    with Repo() as repo:
        report = check(repo)
    assert report.findings == []
    assert report.absent == len(lists) > 10
    damage(MODEL, random.Random(1))
    (found,) = findings("train", "split")
    assert found.path == "models/transformer"
    assert "which file it is can't be told" in found.fault
    for path in lists:
        path.with_suffix(".away").rename(path)
    (found,) = findings("train", "split")
    assert found.path == str(MODEL)
    shutil.copyfile(in_cache(MODEL), MODEL)


def test_each_of_100_faults_is_named_and_nothing_else() -> None:
    draw = random.Random(0)
    places: dict[str, list[Path]] = {}  # of each out, so that no two faults hide each other
    with Repo() as repo:
        objects: set[Path] = set()
        for part in select(repo, []):
            listing, files = files_of(repo, part)
            oids = {part.oid, *(listing or {}).values()} if part.out.use_cache else set()
            own = {Path(shown(part.out.cache.oid_to_path(oid))) for oid in oids}
            paths = [*(Path(part.path(key)) for key in files), *sorted(own - objects)]
            objects |= own
            places[part.name] = [path for path in paths if path.stat().st_size]
            assert listing
        seen: set[Path] = set()
        for _ in range(FAULTS // 5):
            chosen = [draw.choice(places[out]) for out in draw.sample(sorted(places), 5)]
            kept = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in chosen}
            for path in chosen:
                damage(path, draw)
            found = check(repo).findings
            assert sorted(f.path for f in found) == sorted(map(str, chosen))
            for path, (content, time) in kept.items():
                path.chmod(0o644)
                path.write_bytes(content)
                os.utime(path, ns=(time, time))  # as DVC remembers it
                path.chmod(0o444 if ".dvc" in path.parts else 0o644)
            seen |= set(chosen)
        assert check(repo).findings == []
    assert {".dvc" in path.parts for path in seen} == {True, False}


def test_a_changed_file_that_dvc_takes_for_unchanged(project: Project) -> None:
    flip(MODEL)
    assert "up to date" in project.dvc("status")
    project.dvc("checkout", "--force", "models/transformer")
    printed = project.run("python", "-m", "src.tools.verify", "models/transformer", code=1)
    assert f"{MODEL} is not what dvc.lock says\n" in printed
    assert printed.endswith("  dvc checkout --force --relink models/transformer\n")
    cure(project, findings())
    assert findings() == []


def test_missing_and_additional_files(project: Project) -> None:
    Path("models/transformer/config.json").unlink()
    Path("models/transformer/left over").write_text("x")
    shutil.rmtree("data/splits")
    faults = {finding.path: finding.fault for finding in findings()}
    assert faults == {
        "data/splits": "is missing",
        "models/transformer/config.json": "is missing",
        "models/transformer/left over": "is not in dvc.lock",
    }
    assert findings("models/transformer/model.safetensors", "baseline") == []
    assert [f.path for f in findings("models/transformer/config.json")] == [
        "models/transformer/config.json"
    ]
    cure(project, findings())
    assert findings() == []


def test_a_corrupt_object_of_a_good_file(project: Project) -> None:
    for path in (MODEL, Path("models/transformer")):
        flip(in_cache(path))
    found = findings()
    assert {f.path for f in found} == {str(in_cache(path)) for path in (MODEL, MODEL.parent)}
    assert cure(project, found) == ["dvc commit models/transformer"]
    assert findings() == []
    assert project.git("status", "--porcelain") == ""


def test_object_and_file_are_both_corrupt(project: Project) -> None:
    flip(in_cache(MODEL))
    flip(MODEL)
    found = findings()
    assert cure(project, found) == [
        "dvc fetch models/transformer",
        "dvc checkout --force --relink models/transformer",
    ]
    assert findings() == []


def test_a_corrupt_file_that_the_cache_does_not_have(project: Project) -> None:
    in_cache(MODEL).unlink()
    flip(MODEL)
    assert cure(project, findings()) == ["dvc pull --force models/transformer"]
    assert findings() == []


def test_nothing_but_the_stage_itself_can_make_it_again(project: Project) -> None:
    project.dvc("remote", "default", "--unset")
    file = Path("data/splits/test.parquet")
    flip(in_cache(file))
    flip(file)
    assert cure(project, findings())[0].endswith("repro --force --no-run-cache --single-item split")
    assert findings() == []
    project.git("checkout", "--", ".")


def test_the_only_copy_of_a_source_stays(project: Project) -> None:
    project.dvc("remote", "default", "--unset")
    source = Path("source.txt")
    source.write_text("as it came\n")
    project.dvc("add", "--quiet", str(source))
    source.write_text("changed on purpose\n")
    (edited,) = findings(str(source))
    assert edited.cure.endswith("  # or, if the change is meant, `dvc commit source.txt`")
    flip(in_cache(source))
    for finding in findings(str(source)):
        assert (finding.first, finding.cure[:15]) == ((), "# put a good co")
    source.unlink()
    project.git("reset", "--quiet", "--hard")
    project.git("clean", "--quiet", "--force")


def test_an_out_that_git_keeps(project: Project) -> None:
    file = Path("dvclive/train/metrics.json")
    flip(file)
    assert cure(project, findings()) == [f"git checkout HEAD -- {file}"]
    assert findings() == []


def test_many_findings_are_counted_and_some_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    moved = [Path("dvclive/evaluate"), Path("data/predictions"), Path("dvclive/train")]
    for folder in moved:
        for file in [path for path in folder.rglob("*") if path.is_file()]:
            file.rename(file.with_name(f"{file.name}_"))
    with pytest.raises(SystemExit) as end:
        verify.main()
    assert end.value.code == 1
    count = len(findings())
    lines = capsys.readouterr().out.splitlines()
    assert lines[20] == f"... and {count - 20} more"
    assert f" bytes: {count} are not what dvc.lock says. To put them right:" in lines[21]
    for folder in moved:
        for file in [path for path in folder.rglob("*_") if path.is_file()]:
            file.rename(file.with_name(file.name[:-1]))
    assert findings() == []


def test_a_lost_object_of_a_pushed_folder(project: Project) -> None:
    there = in_cache(MODEL, project.root.parent / "remote")
    there.unlink()
    assert "in sync" in project.dvc("status", "--cloud")
    assert "up to date" in project.dvc("push")
    printed = project.run("python", "-m", "src.tools.verify", "--remote", code=1)
    assert f"{MODEL} has an object on the remote, {there}, that is missing\n" in printed
    assert cure(project, on_remote()) == ["dvc push models/transformer"]
    assert there.exists()
    assert on_remote() == []


def test_corrupt_objects_on_a_remote(project: Project) -> None:
    remote = project.root.parent / "remote"
    flip(in_cache(MODEL, remote))
    in_cache(Path("models/baseline"), remote).unlink()
    flip(in_cache(Path("data/splits"), remote))
    found = on_remote()
    assert {f.path for f in found} == {"data/splits", "models/baseline", str(MODEL)}
    cure(project, found)
    assert on_remote() == []


def test_nothing_is_taken_off_a_remote_that_the_cache_can_not_bring_back(project: Project) -> None:
    flip(in_cache(MODEL, project.root.parent / "remote"))
    in_cache(MODEL).rename("kept")
    (found,) = on_remote()
    assert found.first == ()
    assert found.cure.startswith("# run this again, and what it says, in a clone")
    Path("kept").rename(in_cache(MODEL))
    cure(project, on_remote())
    assert on_remote() == []


@pytest.fixture
def web(project: Project) -> Iterator[Path]:
    """A copy of the remote behind http://, which DVC reads as it does S3: not as local files."""
    folder = project.root.parent / "web"
    shutil.copytree(project.root.parent / "remote", folder)
    quiet = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    project.dvc("remote", "add", "web", f"http://127.0.0.1:{server.server_port}")
    yield folder
    server.shutdown()
    server.server_close()
    project.git("checkout", "--", ".dvc/config")


def test_a_remote_elsewhere_is_checked_for_objects_or_by_content(
    project: Project, web: Path
) -> None:
    there = in_cache(MODEL, web)
    flip(there)
    command = ("python", "-m", "src.tools.verify", "--remote", "web")
    assert "(--download reads them): all is what dvc.lock says." in project.run(*command)
    printed = project.run(*command, "--download", code=1)
    assert "that is corrupt\n" in printed
    url = f"http://.*/{there.parent.name}/{there.name}"
    assert re.search(rf"^  # delete {url}$", printed, re.MULTILINE)
    assert "  dvc push --remote web models/transformer\n" in printed
    there.unlink()
    printed = project.run(*command, code=1)
    assert re.search(
        rf"^{MODEL} has an object on the remote, {url}, that is missing$", printed, re.MULTILINE
    )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["model/transformer"],
            "'model/transformer' is no out of dvc.lock, nothing inside of one, and no stage "
            "(did you mean 'models/transformer'?): `dvc stage",
        ),
        (
            ["models/transformer/x"],
            "models/transformer/x is neither in dvc.lock nor in the work tree: ",
        ),
        (
            ["--remote", "storag"],
            "'storag' is not the name of a remote (did you mean 'storage'?) (remotes: storage):",
        ),
        (["--download"], "--download goes with --remote: add --remote."),
        (
            ["--remotes"],
            "--remotes is not known (did you mean '--remote'?): verify takes --remote, ",
        ),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    def run() -> None:
        targets, options = bind(verify.main, "verify", False, words)
        verify.main(*targets, **options)

    with pytest.raises(InputError) as error:
        run()
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_a_remote_with_nothing_on_it_and_a_project_without_outs(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.dvc("remote", "add", "empty", str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="Remote empty has not one of"):
        verify.main(remote="empty")
    project.git("checkout", "--", ".dvc/config")
    printed = project.run("python", "-m", "src.tools.verify", "--remote", "empty", code=1)
    assert "ERROR src.core.stage: 'empty' is not the name of a remote" in printed
    assert "Traceback" not in printed
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"you are not inside"):
        verify.main()


def test_the_pedigree_of_a_model(project: Project) -> None:
    record = json.loads(project.run("python", "-m", "src.tools.pedigree", "models/exported/onnx"))
    assert record["problems"] == []
    head = project.git("rev-parse", "HEAD").strip()
    assert record["git"] == {"revision": head, "dirty": False}
    assert record["requirements.lock"] == sha256(Path("requirements.lock"))
    assert set(record["stages"]) == {"load", "split", "probe", "train", "export"}
    train = record["stages"]["train"]
    assert "--lr 0.003" in " ".join(train["cmd"].split())
    assert train["params"]["params.yaml"]["train"]["seed"] == 1
    assert "data/splits" in {dep["path"] for dep in train["deps"]}
    assert record["files"][str(EXPORTED)] == sha256(EXPORTED)
    environment = record["environment"]["train"]
    assert environment["belongs_to_the_model"]
    assert environment["settings"] == {"precision": "no", "processes": 1, "threads": 1, "seed": 1}
    assert environment["torch"]["build"] == environment["packages"]["torch"]
    (out,) = [out for out in train["outs"] if out["path"] == "models/transformer"]
    assert environment["md5"] == out["md5"], "as DVC hashes the folder"
    text = Path("models/transformer.json").read_text()
    assert os.uname().nodename not in text
    assert str(project.root) not in text


def test_a_pedigree_in_doubt_says_why(project: Project) -> None:
    set_params(project, {"train.lr": 0.1})
    flip(Path("data/source/small.jsonl"))  # which neither git nor DVC sees
    Path("src/text/split.py").write_text(f"{Path('src/text/split.py').read_text()}\n")
    flip(EXPORTED)
    lock = Path("dvc.lock").read_text()
    first = lock.index("path: data/raw\n", lock.index("  split:\n"))
    digest = lock.index("md5: ", first)
    Path("dvc.lock").write_text(lock[: digest + 5] + "0" * 32 + lock[digest + 37 :])
    record = trace("models/exported/onnx")
    assert record["git"]["dirty"]
    assert record["problems"] == [
        f"{EXPORTED} is not what dvc.lock says.",
        "load ran with another data/source than the present one.",
        "split ran with another data/raw than load made last.",
        "split ran with another src/text/split.py than the present one.",
        "train ran with other params than these: train.",
    ]
    Path("data/source/small.jsonl").unlink()
    project.git("checkout", "--", ".")
    shutil.copyfile(in_cache(EXPORTED), EXPORTED)
    for model in ("onnx", "baseline-onnx", "linear-onnx"):
        assert trace(f"models/exported/{model}")["problems"] == [], model


def test_a_list_of_one_may_be_written_as_what_is_in_it(project: Project) -> None:
    set_params(project, {"probe.C": 10.0})
    assert project.ran(project.dvc("repro", "probe")) == ["probe"]
    assert json.loads(Path("models/probe.json").read_text())["params"]["C"] == [10.0]
    assert trace("models/probe")["problems"] == []


def test_a_stage_that_was_run_by_hand_is_told_from_what_is_committed(project: Project) -> None:
    lock = YAML(typ="safe").load(Path("dvc.lock"))["stages"]["baseline"]
    command = shlex.split(lock["cmd"].replace("--n_estimators 10", "--n_estimators 12"))
    assert lock["params"]["params.yaml"]["baseline"]["n_estimators"] == 10
    project.run(*command)
    project.dvc("commit", "--force", "baseline")
    (problem,) = trace("models/baseline")["problems"]
    assert problem.startswith("baseline ran with other params than dvc.lock says, by its record ")
    assert "models/baseline.json: n_estimators; it was started by hand" in problem
    project.git("checkout", "--", ".")
    project.dvc("checkout", "--force")
    assert trace("models/baseline")["problems"] == []


def test_a_record_of_another_training_is_told_from_that_of_the_model(project: Project) -> None:
    """The run cache restores the model, and not what no stage may declare."""
    mine = Path("models/baseline.json").read_text()
    set_params(project, {"baseline.n_estimators": 11})
    project.dvc("repro", "baseline")
    assert Path("models/baseline.json").read_text() != mine
    project.git("checkout", "--", "params.yaml")
    assert "Stage 'baseline' is cached" in project.dvc("repro", "baseline")
    (problem,) = trace("models/baseline")["problems"]
    assert problem.startswith("models/baseline.json is the record of another training than that of")
    assert not trace("models/baseline")["environment"]["baseline"]["belongs_to_the_model"]
    Path("models/baseline.json").unlink()
    record = trace("models/baseline")
    assert record["environment"] == {"baseline": None}
    assert record["problems"][0].startswith("baseline left no record of the environment")
    project.git("checkout", "--", ".")
    project.dvc("checkout")
    assert trace("models/baseline")["problems"] == []


def test_a_pedigree_is_of_one_out() -> None:
    with pytest.raises(InputError, match="models is more than one out: name one of models/"):
        pedigree.main("models")


def test_recording_loads_no_torch() -> None:
    code = "import sys, src.training.provenance; sys.exit(bool({'torch', 'dvc'} & {*sys.modules}))"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
