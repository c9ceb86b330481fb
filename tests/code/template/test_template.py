"""Projects that cookiecutter makes of this repository, and updates to what the template gains."""

import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click import ClickException
from conftest import (
    PYTEST,
    ROOT,
    SMALL,
    Project,
    copy_project,
    digest,
    make_checkpoint,
    make_texts,
    serving,
    set_params,
)
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config
from dvc.config import Config
from dvc.utils.serialize import modify_yaml
from ruamel.yaml import YAML

from hooks import answers
from hooks.pre_prompt import LEFT_OUT
from src.core.errors import InputError
from src.tools import update as update_module

PROMPTS: dict[str, Any] = json.loads((ROOT / "cookiecutter.json").read_text())
PACKAGES = {
    "gs": "dvc-gs==3.1.0",
    "azure": "dvc-azure==3.1.1",
    "ssh": "dvc-ssh",
    "webdav": "dvc-webdav",
}
# Letters, quotes and words that YAML or Jinja could take for something of their own.
ODD = {
    "project_name": "Ann's tickets: {v2}, می\u200cخواهم",
    "slug": "tickets",
    "description": "Sorts {tickets} # by topic.",
    "data_source": "data/source/tickets.csv",
    "text_column": 'Body: "it\'s"',
    "label_column": "1e3",
    "languages": "no, ar",
    "checkpoint": "data/source/checkpoint",
    "license": "none",
    "ci": "none",
}


class Template:
    """The repository as a template, and a place for what is made of it."""

    def __init__(self, source: Path, place: Path) -> None:
        self.source, self.place = Project(source), Project(place)
        place.mkdir(exist_ok=True)
        folders = {"cookiecutters_dir": str(place / "clones"), "replay_dir": str(place / "replay")}
        (place / "config.yaml").write_text(json.dumps(folders))

    @property
    def url(self) -> str:
        return f"git+file://{self.source.root}"

    def cookiecutter(
        self, *words: str, template: str = "", code: int = 0, text: str | None = None
    ) -> str:
        command = [sys.executable, "-m", "cookiecutter", "--config-file", "config.yaml"]
        return self.place.run(*command, template or self.url, *words, code=code, text=text)

    def make(self, **given: str) -> Project:
        self.cookiecutter("--no-input", *(f"{key}={value}" for key, value in given.items()))
        return Project(self.place.root / given.get("slug", "text-classifier"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of the template, as it is in the work tree."""
    return copy_project(tmp_path_factory.mktemp("source") / "pedigree").root


@pytest.fixture
def template(source: Path, tmp_path: Path) -> Template:
    return Template(source, tmp_path)


def files_of(project: Project) -> set[str]:
    return set(project.git("-c", "core.quotePath=false", "ls-files").split("\n")) - {""}


def differing(project: Project, template: Template) -> set[str]:
    """The files that a project has in another form than the template, or alone."""
    ours, theirs = digest(project.root), digest(template.source.root)
    return {name for name in files_of(project) if ours[name] != theirs.get(name)}


def paths_of(pipeline: str) -> list[str]:
    """What a project without a pipeline has no use for."""
    places = (ROOT.glob(f"*/{pipeline}"), ROOT.glob(f"tests/*/{pipeline}"), [ROOT / pipeline])
    found = [path.relative_to(ROOT).as_posix() for path in itertools.chain(*places)]
    further = [
        f"docs/{pipeline}.md",
        f"docs/{pipeline}-*",
        f"tests/{pipeline}_*.py",
        f"benchmarks/{pipeline}*",
    ]
    further += [f"src/*/{pipeline}/*", f"src/*/{pipeline}.py"]
    own = {"chat": ["requirements-vllm.*"]}
    return [*found, *further, *own.get(pipeline, [])]


def test_a_project_has_the_files_of_the_template_byte_for_byte(template: Template) -> None:
    project = template.make()
    assert differing(project, template) == {
        ".template.json",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "docs/README.md",
        "docs/commands.md",
        "params.yaml",
        "pyproject.toml",
    }
    left = files_of(template.source) - files_of(project)
    tables = [*paths_of("tabular"), "tests/tabular.yaml", ".dvc/plots"]
    chat, qa = paths_of("chat"), paths_of("qa")
    expected = [*LEFT_OUT, *tables, *chat, *qa]
    assert left - {".gitlab-ci.yml"} == set(template.source.git("ls-files", *expected).split())
    for pipelines, without in (
        ("text and tables", [*chat, *qa]),
        ("text and conversations", [*tables, *qa]),
        ("text and questions", [*tables, *chat]),
        ("text, tables and conversations", qa),
        ("text, tables, conversations and questions", []),
    ):
        slug = re.sub(r"\W+", "-", pipelines)
        other = template.make(slug=f"other-{slug}", pipelines=pipelines)
        gone = files_of(template.source) - files_of(other) - {".gitlab-ci.yml"}
        assert gone == set(template.source.git("ls-files", *LEFT_OUT, *without).split())
        for name, title in (
            ("tabular", "## Tables\n"),
            ("chat", "## Conversations\n"),
            ("qa", "## Questions\n"),
        ):
            kept = name not in without
            makefile = (other.root / "Makefile").read_text()
            assert (f"\n{name}: " in makefile) == (f" {name} " in makefile) == kept
            readme = (other.root / "README.md").read_text()
            assert (title in readme) == (f"| `{name}` |" in readme) == kept
            assert (f"({name}.md)" in (other.root / "docs/README.md").read_text()) == kept
            if name != "tabular":
                assert (f"make {name}`" in (other.root / "docs/commands.md").read_text()) == kept
            assert (f"src.{name}." in (other.root / "pyproject.toml").read_text()) == kept
    assert {"hooks/pre_prompt.py", "dvc.lock", "tests/code/template/test_template.py"} <= left
    stages = [each.git("ls-files", "--stage", ".ci") for each in (project, template.source)]
    assert stages[0] == stages[1], "what can be run stays so"
    assert project.git("status", "--porcelain") == ""
    assert project.git("log", "--format=%s %D").strip() == "Start Text classifier HEAD -> main"
    record = json.loads((project.root / ".template.json").read_text())
    assert record["template"] == template.url
    assert record["commit"] == template.source.git("rev-parse", "HEAD").strip()
    assert list(record["answers"]) == sorted(key for key in PROMPTS if key[0] != "_")


def test_answers_change_their_lines_alone(template: Template) -> None:
    project = template.make(**ODD)
    before = YAML(typ="safe").load(ROOT / "params.yaml")
    after = YAML(typ="safe").load(project.root / "params.yaml")
    before["load"] |= {"source": ["data/source/tickets.csv"], "text_column": ODD["text_column"]}
    before["load"]["label_column"] = "1e3"
    before["card"] |= {"name": ODD["project_name"], "license": "", "languages": ["no", "ar"]}
    before["probe"] |= {"checkpoint": "data/source/checkpoint", "sha256": ""}
    before["quality"]["checkpoint"] = "data/source/checkpoint"
    assert after == before
    written = (project.root / "params.yaml").read_text()
    comments = re.findall("^ *#.*", (ROOT / "params.yaml").read_text(), re.MULTILINE)
    assert re.findall("^ *#.*", written, re.MULTILINE) == comments
    with modify_yaml(str(project.root / "params.yaml")):
        pass
    assert (project.root / "params.yaml").read_text() == written, "as DVC writes it"
    readme = (project.root / "README.md").read_text()
    head = f"# {ODD['project_name']}\n\n{ODD['description']}\n"
    assert readme.startswith(head)
    kept = (ROOT / "README.md").read_text().removeprefix("# Pedigree\n")
    first, figures = kept.split("What it says about the models")  # on other data than theirs
    between, own = figures[figures.index("The page that `python") :].split("**Start your own.**")
    rest = re.sub(r"\| `(tabular|chat|qa)` .*\n", "", own.split("\n\n", 1)[1])
    for title in ("## Tables\n", "## Conversations\n", "## Questions\n"):
        without, cut = rest.split(title)
        rest = without + cut[cut.index("## ") :]
    assert readme == head + first + between + rest, "but for how projects are made"
    assert "cookiecutter <this" not in readme
    rules = (project.root / "CONTRIBUTING.md").read_text()
    whole = (ROOT / "CONTRIBUTING.md").read_text()
    before, after = whole.split("## To change what teams start from\n")
    assert rules == before + "## " + after.split("\n## ", 1)[1]
    types = (project.root / "pyproject.toml").read_text()
    texts = (ROOT / "pyproject.toml").read_text().replace(', "hooks"]', "]")
    texts = re.sub(r' *"src[./](tabular|chat|qa)\b.*\n', "", texts)
    texts = texts.replace("text | tabular | qa | chat |", "text |")
    assert types == texts
    licence = (project.root / "LICENSE").read_text()
    assert licence.endswith((ROOT / "LICENSE").read_text())
    assert "All rights reserved." in licence


@pytest.mark.parametrize(
    ("remote", "url", "ci"),
    [
        ("none", "", "github"),
        ("local", "/mnt/team", "gitlab"),
        ("s3", "s3://bucket/models", "none"),
        ("gs", "gs://bucket/models", "github"),
        ("azure", "azure://container/models", "gitlab"),
        ("ssh", "ssh://ann@host:22/srv/team", "gitlab"),
        ("webdav", "webdavs://host:8443/team", "github"),
    ],
)
def test_every_remote_and_every_service(template: Template, remote: str, url: str, ci: str) -> None:
    project = template.make(remote=remote, remote_url=url, ci=ci, license="apache-2.0")
    config = Config(str(project.root / ".dvc"))
    expected = {"storage": (url, True)} if url else {}
    found = {name: (entry["url"], entry["verify"]) for name, entry in config["remote"].items()}
    assert found == expected
    assert config["core"].get("remote") == ("storage" if url else None)
    assert config["parsing"]["bool"] == "boolean_optional", "what stood there stays"
    files = {"github": ".github/workflows/report.yml", "gitlab": ".gitlab-ci.yml"}
    for service, file in files.items():
        assert (project.root / file).exists() == (service == ci)
    if ci != "none":
        before, after = (root / files[ci] for root in (ROOT, project.root))
        package = PACKAGES.get(remote, "dvc-s3")
        assert after.read_text() == before.read_text().replace(" dvc-s3 ", f" {package} ")
    for name in ("requirements.txt", "requirements.lock"):
        lines = (project.root / name).read_text().splitlines()
        added = set(lines) - set((ROOT / name).read_text().splitlines())
        assert added == ({PACKAGES[remote]} if remote in ("gs", "azure") else set())
    assert "http://www.apache.org/licenses/LICENSE-2.0" in (project.root / "LICENSE").read_text()


def test_every_prompt_is_asked_with_its_sentence(template: Template) -> None:
    typed = "\n" * 9 + "6\n" + "\n" * 3  # Enter takes a default
    printed = template.cookiecutter(text=typed)
    assert "with a first commit" in printed
    words = " ".join(printed.split())
    for key, prompt in PROMPTS["__prompts__"].items():
        sentence = prompt["__prompt__"] if isinstance(prompt, dict) else prompt
        assert sentence in words, key
    record = json.loads((template.place.root / "text-classifier/.template.json").read_text())
    assert record["answers"]["remote_url"] == "ssh://host/srv/dvc/text-classifier"


@pytest.mark.parametrize("remote", PROMPTS["remote"])
def test_the_default_of_each_prompt_is_an_answer(remote: str) -> None:
    context = generate_context(str(ROOT / "cookiecutter.json"), extra_context={"remote": remote})
    given = prompt_for_config(context, no_input=True)
    assert given["remote"] == remote
    assert answers.check(given)


def test_the_defaults_are_the_params_of_the_template() -> None:
    params = YAML(typ="safe").load(ROOT / "params.yaml")
    assert PROMPTS["data_source"] in params["load"]["source"]
    for key in ("text_column", "label_column"):
        assert PROMPTS[key] == params["load"][key]
    assert PROMPTS["checkpoint"] == params["probe"]["checkpoint"]


def test_every_prompt_has_a_sentence() -> None:
    asked = {key for key in PROMPTS if not key.startswith("_")}
    assert set(PROMPTS["__prompts__"]) == asked
    for key in asked:
        if isinstance(PROMPTS[key], list):
            assert list(PROMPTS["__prompts__"][key]) == ["__prompt__", *PROMPTS[key]]
    assert set(answers.REMOTES) == set(PROMPTS["remote"])


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        ("project_name", "12"),
        ("project_name", "x" * 61),
        ("project_name", "two\nlines"),
        ("slug", "../up"),
        ("slug", "Tickets"),
        ("slug", "t" * 101),
        ("description", ""),
        ("description", "Sorts {{ tickets }}"),
        ("data_source", "/etc/passwd"),
        ("data_source", "data/source/../../x.csv"),
        ("data_source", "ftp://host/x.csv"),
        ("data_source", "https://ann:hush@host/x.csv"),
        ("data_source", "zip://x.csv::https://hush@host/x.zip"),
        ("data_source", "https://host/x.csv?a=b&X-Amz-Signature=hush"),
        ("data_source", "https://host/x.csv?api_key=hush"),
        ("data_source", "https://host/x.csv?id=7&key=hush"),
        ("data_source", "https://host/x.csv#token=hush"),
        ("data_source", "https://host/x.csv?token=$TOKENhush"),
        ("data_source", "https://host/x.csv;password=hush"),
        ("description", "caf\udce9"),
        ("text_column", ""),
        ("label_column", "text"),
        ("languages", "english"),
        ("checkpoint", "a/b/c"),
        *(
            ("checkpoint", "."),
            ("checkpoint", ".."),
            ("checkpoint", "../x"),
            ("checkpoint", "x/.."),
        ),
        ("remote_url", "/mnt/team"),
        ("remote_url", "ssh://ann:secret@host/x"),
    ],
)
def test_a_bad_answer_is_refused(key: str, answer: str) -> None:
    good: dict[str, object] = {"remote": "ssh", "text_column": "text", key: answer}
    with pytest.raises(ClickException, match=rf"^{key} is .*: expected .*; answer anew\.$"):
        answers.check(good)


@pytest.mark.parametrize(
    ("key", "answer"),
    [
        *(("slug", "tickets"), ("project_name", "Équipe\u00a0B"), ("data_source", "data/source/")),
        *(
            ("slug", "2024-tickets"),
            ("languages", "EN, de"),
            ("data_source", "https://host/x.csv?sheet=2"),
            ("data_source", "https://host/x.csv?token=$TOKEN&sheet=2"),
            ("data_source", "https://drive.google.com/file/d/1a-B_c/view?usp=sharing"),
            ("data_source", "s3://bucket/part-?.csv"),
            ("checkpoint", "org/a..b.c"),
        ),
        *(("data_source", "zip://b.csv::https://host/x@2.zip"), ("remote_url", "/mnt/Team Drive")),
    ],
)
def test_an_answer_that_may_be(key: str, answer: str) -> None:
    assert answers.check({"remote": "local", key: answer})


@pytest.mark.parametrize("answer", ["slug=Tickets", "languages=english", "remote_url=/mnt/team"])
def test_a_bad_answer_is_one_sentence_and_leaves_nothing(template: Template, answer: str) -> None:
    before = set(template.place.root.iterdir())
    printed = template.cookiecutter("--no-input", answer, code=1)
    key, value = answer.split("=")
    last = printed.strip().splitlines()
    assert len(last) == 1
    assert last[0].startswith(f"Error: {key} is {value!r}: expected ")
    assert {path.name for path in set(template.place.root.iterdir()) - before} <= {"clones"}


def test_no_secret_of_the_address_is_committed(template: Template) -> None:
    address = "https://ann:ghp@hush@example.org/team/pedigree.git"
    template.place.git(
        "config", "--file", "gitconfig", f"url.{template.url[4:]}.insteadOf", address
    )
    config = str(template.place.root / "gitconfig")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", config)
        for key in ("name", "email"):
            template.place.git("config", "--global", f"user.{key}", "ann@example.org")
        template.cookiecutter("--no-input", template=address)
    record = json.loads((template.place.root / "text-classifier/.template.json").read_text())
    assert record["template"] == "https://example.org/team/pedigree.git"


@pytest.mark.parametrize("remote", ["none", "local"])
def test_the_remote_of_the_template_is_not_that_of_a_project(later: Template, remote: str) -> None:
    later.source.dvc("remote", "add", "--default", "storage", "s3://theirs/x")
    later.source.dvc("remote", "add", "other", "s3://theirs/y")
    later.source.commit()
    project = later.make(remote=remote)
    config = Config(str(project.root / ".dvc"))
    mine = {"none": {}, "local": {"storage": "/srv/dvc/text-classifier"}}[remote]
    assert {name: entry["url"] for name, entry in config["remote"].items()} == mine
    assert config["core"].get("remote") == ("storage" if mine else None)


def test_a_replay_makes_the_same_and_an_edited_one_is_checked(template: Template) -> None:
    first = template.make(**ODD, remote="local")
    replay = template.place.root / "replay" / "pedigree.json"
    first.root.rename(template.place.root / "first")
    template.cookiecutter("--replay", text="y\n")  # it may clone anew
    trees = [
        Project(template.place.root / name).git("rev-parse", "HEAD^{tree}")
        for name in ("first", "tickets")
    ]
    assert trees[0] == trees[1]
    replay.write_text(replay.read_text().replace("/srv/dvc/tickets", "tickets"))
    (template.place.root / "tickets").rename(template.place.root / "second")
    assert "remote_url is 'tickets': expected a folder" in template.cookiecutter(
        "--replay", text="y\n", code=1
    )
    assert not (template.place.root / "tickets").exists()


def test_a_folder_with_files_is_left_alone(template: Template) -> None:
    mine = template.place.root / "text-classifier" / "data" / "mine.csv"
    mine.parent.mkdir(parents=True)
    mine.write_text("text,label\n")
    printed = template.cookiecutter("--no-input", "--overwrite-if-exists", code=1)
    assert " has files: answer with another slug" in printed
    assert set(digest(template.place.root / "text-classifier")) == {"data/mine.csv"}


def test_a_folder_that_is_no_repository_is_refused(template: Template, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    (bare / "hooks").mkdir(parents=True)
    for name in ("cookiecutter.json", "hooks/pre_prompt.py"):
        (bare / name).write_bytes((ROOT / name).read_bytes())
    assert "no git repository with a commit" in template.cookiecutter(template=str(bare), code=1)


def test_a_local_folder_is_recorded_as_what_can_be_cloned(template: Template) -> None:
    """As `cookiecutter .` in a clone."""
    words = ["--no-input", "--output-dir", str(template.place.root), "--config-file"]
    config = str(template.place.root / "config.yaml")
    template.source.run(sys.executable, "-m", "cookiecutter", ".", *words, config)
    record = (template.place.root / "text-classifier" / ".template.json").read_text()
    assert json.loads(record)["template"] == template.url


@pytest.mark.parametrize("pipelines", ["text", "text, tables and conversations"])
def test_a_project_passes_its_checks(template: Template, pipelines: str) -> None:
    """Its tests that look at what the answers and the template leave otherwise."""
    project = template.make(**ODD, remote="local", pipelines=pipelines)
    project.run("ruff", "check", ".")
    project.run("ruff", "format", "--check", ".")
    chosen = "params or documents or figures or services or comment or merge_request"
    files = ["code/project/test_contract.py", "code/tools/test_report.py", "model/text"]
    command = [*PYTEST, "-rs", "-p", "no:xdist", "-k", chosen]
    printed = project.run(*command, *(f"tests/{file}" for file in files))
    assert "there are none before the first `dvc repro`" in printed
    assert "the project is not on GitHub" in printed
    assert "the project is not on GitLab" in printed
    assert re.search(r"\d\d passed, 4 skipped", printed), printed


def test_its_tests_are_the_same_with_any_data(template: Template) -> None:
    project = template.make(**ODD, remote="local")
    copy = "from conftest import *; print(copy_project(Path('../copy')).dvc('remote', 'list'))"
    words = f"import sys; sys.path[:0] = ['.', 'tests']; {copy}"
    assert project.run(sys.executable, "-c", words).strip() == "", "none reaches the team's remote"
    project.run(sys.executable, "-m", "src.text.check", "docs/tutorial/tickets.csv", "--write")
    changed = (project.root / "params.yaml").read_text()
    set_params(project, SMALL)
    set_params(template.source, SMALL)
    found, expected = (
        YAML(typ="safe").load(each.root / "params.yaml") for each in (project, template.source)
    )
    template.source.git("checkout", "--", "params.yaml")
    assert "text_column: message" in changed
    assert found == expected


def test_a_project_runs_on_its_own_data_and_pushes(template: Template) -> None:
    """To a server that speaks S3, and to a folder."""
    project = template.make(
        data_source="data/source/tickets.csv",
        text_column="Body",
        label_column="Topic",
        checkpoint="data/source/checkpoint",
        remote="s3",
        remote_url="s3://team/models",
    )
    frame = pd.DataFrame(make_texts(60)).rename(columns={"text": "Body", "label": "Topic"})
    frame.to_csv(project.root / "data/source/tickets.csv", index=False)
    make_checkpoint(project.root / "data/source/checkpoint")
    small = {key: value for key, value in SMALL.items() if key.startswith(("baseline.", "split."))}
    set_params(project, small | {"quality.max_length": 16, "probe.max_length": 16})
    ran = project.ran(project.dvc("repro", "quality", "baseline"))
    assert sorted(ran) == ["baseline", "load", "quality", "split"]
    project.commit()

    served = template.place.root / "served"
    (served / "team").mkdir(parents=True)
    with serving("rclone", "serve", "s3", "--auth-key", "ann,hush", served) as port:
        (project.root / ".dvc" / "config.local").write_text(
            f"['remote \"storage\"']\n    endpointurl = http://127.0.0.1:{port}\n"
            "    region = us-east-1\n    access_key_id = ann\n    secret_access_key = hush\n"
        )
        assert "files pushed" in project.dvc("push", "baseline")
    assert any(path.is_file() for path in served.rglob("*"))
    assert project.git("status", "--porcelain") == ""

    (project.root / ".dvc" / "config.local").unlink()
    folder = template.place.root / "remote"
    local = template.make(slug="local", remote="local", remote_url=str(folder))
    config = (local.root / ".dvc" / "config").read_text()
    (project.root / ".dvc" / "config").write_text(config)
    project.commit()
    assert "files pushed" in project.dvc("push", "baseline")
    clone = project.clone(template.place.root / "clone")
    clone.dvc("pull", "models/baseline")
    assert digest(clone.root / "models/baseline") == digest(project.root / "models/baseline")


def change(repository: Project, name: str, old: str, new: str) -> None:
    path = repository.root / name
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def later(template: Template) -> Template:
    """A template of its own, which a test may change."""
    clone = template.source.clone(template.place.root / "source")
    return Template(clone.root, template.place.root)


def update(project: Project, *words: str, code: int = 0) -> str:
    return project.run(sys.executable, "-m", "src.tools.update", *words, code=code)


def set_up_git(place: Path, project: Project, patch: pytest.MonkeyPatch) -> None:
    """A user's own git, which signs, refuses and overlooks: not so the commits of nobody."""
    hooks = place / "git-hooks"
    hooks.mkdir()
    (hooks / "pre-commit").write_text("#!/bin/sh\nexit 1\n")
    (hooks / "pre-commit").chmod(0o755)
    (place / "overlooked").write_text("*.md\n")
    (place / "temporary").mkdir()
    config = {
        "user.name": "Ann",
        "user.email": "ann@example.org",
        "commit.gpgsign": "true",
        "gpg.program": "false",
        "core.hooksPath": str(hooks),
        "core.excludesFile": str(place / "overlooked"),
    }
    patch.setenv("GIT_CONFIG_GLOBAL", str(place / "gitconfig"))
    for key, value in config.items():
        project.git("config", "--global", key, value)
    project.git("config", "commit.gpgsign", "false")


def test_an_update_brings_what_is_new_and_keeps_what_is_ours(later: Template) -> None:
    project = later.make(**ODD)
    made = project.git("rev-parse", "HEAD")
    (project.root / "hooks").mkdir()
    (project.root / "hooks" / "__init__.py").touch()  # of its own, not those of the template
    change(project, "params.yaml", "\n  epochs: 3\n", "\n  epochs: 5\n")
    change(project, "README.md", "## Use\n", "## How we use it\n")
    (project.root / "docs" / "ours.md").write_text("# Ours\n")
    (project.root / "docs" / "registry.md").unlink()
    project.commit()
    change(later.source, "params.yaml", "\n  lr: 0.00005\n", "\n  lr: 0.0002\n")
    change(later.source, "README.md", "## What runs\n", "## What is run\n")
    (later.source.root / "src" / "added.py").write_text('"""New."""\n')
    (later.source.root / "benchmarks" / "noop.py").unlink()
    (later.source.root / "dvc.lock").unlink(missing_ok=True)
    later.source.commit()
    later.source.git("tag", "v2")
    later.source.git("switch", "--quiet", "--create", "next")
    (later.source.root / "src" / "added.py").write_text('"""Newer."""\n')
    later.source.commit()

    change(project, "README.md", "## How we use it\n", "## Use\n")
    assert "Changes are not committed, in " in update(project, code=1)
    project.git("checkout", "--", "README.md")
    mine = project.root / "src" / "added.py"
    mine.write_text("mine")  # which git would write over, as it ignores it
    (project.root / ".git/info/exclude").write_text("added.py\n")
    assert "The update adds src/added.py, and there are files of" in update(project, code=1)
    assert mine.read_text() == "mine"
    mine.unlink()
    with pytest.MonkeyPatch.context() as patch:
        set_up_git(later.place.root, project, patch)
        patch.setenv("TMPDIR", str(later.place.root / "temporary"))
        update(project, "--to", "v2")
        assert list((later.place.root / "temporary").iterdir()) == []
    changed = set(project.git("diff", "--name-only", "HEAD~1").split())
    assert changed == {
        ".template.json",
        "README.md",
        "benchmarks/noop.py",
        "params.yaml",
        "src/added.py",
    }
    params = YAML(typ="safe").load(project.root / "params.yaml")
    assert (params["train"]["epochs"], params["train"]["lr"]) == (5, 0.0002)
    assert params["card"]["name"] == ODD["project_name"]
    readme = (project.root / "README.md").read_text()
    assert "## How we use it\n" in readme
    assert "## What is run\n" in readme
    assert (project.root / "src" / "added.py").read_text() == '"""New."""\n'
    assert not (project.root / "docs" / "registry.md").exists()
    assert project.git("rev-list", "--max-parents=0", "HEAD") == made, "no second history"
    assert project.git("status", "--porcelain") == ""
    assert "the project has all of the template" in update(project, "--to", "v2")
    record = project.root / ".template.json"
    moved = later.source.root.rename(later.place.root / "moved")
    later.source = Project(moved)
    text = record.read_text().replace('"slug"', '"gone": "x",\n    "slug"')
    record.write_text(re.sub('"template": ".*"', f'"template": "file://{moved}"', text))
    project.commit()
    update(project)
    assert (project.root / "src" / "added.py").read_text() == '"""Newer."""\n'
    assert json.loads(record.read_text())["template"] == f"file://{moved}"
    later.source.git("switch", "--quiet", "--create", "other", "HEAD~2")
    assert "does not follow" in update(project, code=1)
    assert "cookiecutter can't make a project from v3 of " in update(project, "--to", "v3", code=1)


def test_a_conflict_is_one_of_git_also_in_a_squashed_history(later: Template) -> None:
    project = later.make()
    change(project, "params.yaml", "\n  lr: 0.00005\n", "\n  lr: 0.0007\n")
    project.commit()
    mine = project.git("commit-tree", "HEAD^{tree}", "-m", "Squash").strip()
    project.git("reset", "--quiet", "--hard", mine)
    change(later.source, "params.yaml", "\n  lr: 0.00005\n", "\n  lr: 0.0002\n")
    change(later.source, "params.yaml", "\n  batch_size: 32\n", "\n  batch_size: 64\n")
    later.source.commit()
    printed = update(project, code=1)
    assert "the same places of params.yaml: settle them" in printed
    assert "Traceback" not in printed
    assert "UU params.yaml" in project.git("status", "--porcelain")
    assert "A merge is unfinished" in update(project, code=1)
    text = (project.root / "params.yaml").read_text()
    found = re.search(r"<<<<<<< HEAD\n(.*)\n=======\n(.*)\n>>>>>>> .*\n", text)
    assert found
    assert found.groups() == ("  lr: 0.0007", "  lr: 0.0002")
    (project.root / "params.yaml").write_text(text.replace(found[0], f"{found[1]}\n"))
    project.git("add", "params.yaml")
    project.git("-c", "core.editor=true", "cherry-pick", "--continue")
    params = YAML(typ="safe").load(project.root / "params.yaml")["train"]
    assert (params["lr"], params["batch_size"]) == (0.0007, 64)
    assert "the project has all of the template" in update(project)
    later.source.root.rename(later.place.root / "gone")
    assert " (fatal: '" in update(project, code=1)


def test_what_no_template_made_is_not_updated(template: Template) -> None:
    """The template itself, for one."""
    printed = template.source.run(sys.executable, "-m", "src.tools.update", code=1)
    assert ".template.json is missing" in printed
    assert [path.name for path in template.place.root.iterdir()] == ["config.yaml"]
    nested = template.make()
    template.place.git("init", "--quiet")
    (nested.root / ".git").rename(template.place.root / "away")
    printed = nested.run(sys.executable, "-m", "src.tools.update", code=1)
    assert "The project is text-classifier/ of another git repository" in printed


@pytest.mark.parametrize("answers", ["{}", '["a"]', '{"slug": 1}', "3", "{"])
def test_a_damaged_record_is_one_sentence(
    answers: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".template.json").write_text(f'{{"template": "x", "commit": "y", "answers": {answers}}}')
    with pytest.raises(InputError, match=r"template\.json doesn't hold template, commit"):
        update_module.main()


def test_the_readme_shows_the_figures_of_the_last_run() -> None:
    readme = (ROOT / "README.md").read_text()
    shown = re.findall(r"^\| `([\w-]+)`, .*? \| (.*?) \| (.*?) \| (.*?) \|", readme, re.MULTILINE)
    # As committed: another processor gives other last digits, and `make run` writes them.
    page = Project(ROOT).git("show", "HEAD:dvclive/compare/comparison.md")
    rows = [line.split("|") for line in page.splitlines() if "|" in line]
    cells = [[row[k].strip() for k in (1, 4, 5, 6)] for row in rows]
    assert [row[0] for row in shown] == ["baseline", "linear", "probe", "onnx", "onnx-int8"]
    assert all([*row] in cells for row in shown)
