"""Write the answers into the new project, and make its first commit.

cookiecutter puts the answers into this file and runs it in the new folder, whose files are those
of the template, byte for byte. Equal answers to one commit must give equal files: `make update`
makes the project anew to see what the template changed.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

CONTEXT = json.loads(r"""{{ cookiecutter | jsonify }}""")
ANSWERS = {key: value for key, value in CONTEXT.items() if not key.startswith("_")}

CI = {"github": Path(".github"), "gitlab": Path(".gitlab-ci.yml")}
# What DVC needs for a remote; a report of CI installs it in place of dvc-s3.
IN_LOCK = {"ssh": "dvc-ssh", "webdav": "dvc-webdav"}
NOT_IN_LOCK = {"gs": "dvc-gs==3.1.0", "azure": "dvc-azure==3.1.1"}
# What a project without tables, conversations or questions has no use for.
TABLES = (
    *("tabular", "src/tabular", "data/tabular", "tests/tabular.yaml", "docs/tabular.md"),
    *("tests/tabular_model.py", "benchmarks/tabular.py", "benchmarks/tabular_peers.py"),
    *("benchmarks/tabular_ready.py", "benchmarks/tabular.txt"),
    ".dvc/plots/bar_with_spread.json",
    *("tests/code/tabular", "tests/data/tabular", "tests/model/tabular"),
)
CONVERSATIONS = (
    *("chat", "src/chat", "data/chat", "docs/chat.md", "tests/chat_model.py"),
    *("src/predict/chat", "src/serve/chat.py", "src/serve/playground/chat"),
    *("docs/chat-page.png", "tests/chat_served.py"),
    *("requirements-vllm.txt", "requirements-vllm.lock"),
    *("benchmarks/chat.py", "benchmarks/chat_peers.py", "benchmarks/chat_serve.py"),
    *("benchmarks/chat-llamafactory.txt", "benchmarks/chat-swift.txt"),
    *("tests/code/chat", "tests/data/chat", "tests/model/chat"),
)
QUESTIONS = (
    *("qa", "src/qa", "data/qa", "docs/qa.md", "tests/qa_model.py"),
    *("tests/code/qa", "tests/data/qa", "tests/model/qa"),
    *("benchmarks/qa.py", "benchmarks/qa_peers.py", "benchmarks/qa-peers.txt"),
)
LICENSES = {
    "apache-2.0": (
        "Licensed under the Apache License, Version 2.0; you may obtain a copy of it at\n"
        "http://www.apache.org/licenses/LICENSE-2.0"
    ),
    "none": "All rights reserved.",
}


class Dumper(yaml.SafeDumper):
    """Writes YAML 1.2 as DVC does, in which `no` is a text and needs no quotes."""

    def choose_scalar_style(self) -> str:
        """Double quotes around a single one, as DVC has them."""
        style: str = super().choose_scalar_style()
        single = style == "'" and self.analysis and "'" in self.analysis.scalar
        return '"' if single else style


Dumper.yaml_implicit_resolvers = {
    first: [entry for entry in entries if first not in "yYnNoO" or not entry[0].endswith(":bool")]
    for first, entries in yaml.SafeDumper.yaml_implicit_resolvers.items()
}
Dumper.add_implicit_resolver(  # numbers, which PyYAML takes for texts
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|0o[0-7]+"),
    [*"-+.0123456789"],
)


def set_param(text: str, name: str, value: str | list[str]) -> str:
    """The text of params.yaml with another value of ``section.key``, and every comment."""
    section, key = name.split(".")
    written = yaml.dump({key: value}, Dumper=Dumper, allow_unicode=True, width=10**6)
    indented = "".join(f"  {line}\n" for line in written.splitlines())
    entry = rf"(^{section}:\n(?:(?:  .*)?\n)*?)  {key}:.*\n(?:  - .*\n)*"
    text, count = re.subn(entry, lambda found: found[1] + indented, text, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"{name} stands {count} times in params.yaml")
    return text


def params() -> dict[str, str | list[str]]:
    """The params that the answers decide."""
    values: dict[str, str | list[str]] = {
        "load.source": [ANSWERS["data_source"]],
        "load.text_column": ANSWERS["text_column"],
        "load.label_column": ANSWERS["label_column"],
        "card.name": ANSWERS["project_name"],
        "card.license": ANSWERS["license"].replace("none", ""),
        "card.languages": re.findall("[a-z]+", ANSWERS["languages"].lower()),
    }
    checkpoint = ANSWERS["checkpoint"]
    if checkpoint != yaml.safe_load(Path("params.yaml").read_text())["probe"]["checkpoint"]:
        values |= {"probe.checkpoint": checkpoint, "quality.checkpoint": checkpoint}
        values["probe.sha256"] = ""  # of another file
    return values


def edit(name: str, *changes: tuple[str, str]) -> None:
    """Replace texts that stand once in a file; an answer may not go unheard."""
    path = Path(name)
    text = path.read_text(encoding="utf-8")
    for old, new in changes:
        if text.count(old) != 1:
            raise ValueError(f"{old!r} stands {text.count(old)} times in {name}")
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def cut(name: str, start: str, end: str) -> None:
    """Take out what stands from one text of a file up to another."""
    path = Path(name)
    text = path.read_text(encoding="utf-8")
    first = text.index(start)
    path.write_text(text[:first] + text[text.index(end, first + len(start)) :], encoding="utf-8")


def write_params() -> None:
    """Change what the answers say in params.yaml."""
    path = Path("params.yaml")
    text = path.read_text(encoding="utf-8")
    for name, value in params().items():
        text = set_param(text, name, value)
    path.write_text(text, encoding="utf-8")


def write_remote() -> None:
    """Make the answer the default remote, as `make remote` does, and the only one."""
    path = Path(".dvc/config")
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"^\['remote .*\]\n(?:(?!\[).*\n?)*", "", text, flags=re.MULTILINE)
    text = re.sub(r"^ *remote = .*\n", "", text, flags=re.MULTILINE)
    if ANSWERS["remote"] != "none":
        text = text.replace("[core]\n", "[core]\n    remote = storage\n")
        text += f"['remote \"storage\"']\n    url = {ANSWERS['remote_url']}\n    verify = true\n"
    path.write_text(text, encoding="utf-8")
    if package := NOT_IN_LOCK.get(ANSWERS["remote"]):
        for name in ("requirements.txt", "requirements.lock"):
            edit(name, ("\ndvc-s3", f"\n{package}\ndvc-s3"))


def keep_ci() -> None:
    """Keep the files of one service, with the protocol of the remote."""
    for service, path in CI.items():
        if service == ANSWERS["ci"]:
            if package := (IN_LOCK | NOT_IN_LOCK).get(ANSWERS["remote"]):
                report = path / "workflows" / "report.yml" if path.is_dir() else path
                edit(str(report), (" dvc-s3 ", f" {package} "))
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def take_out(pipeline: str, paths: Sequence[str], heading: str, page: str) -> None:
    """Take out the files of a pipeline, and what pyproject.toml and both READMEs say of it."""
    for name in paths:
        path = Path(name)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    contracts = Path("pyproject.toml")
    lines = contracts.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not re.match(rf' *"src[./]{pipeline}\b', line)]
    contracts.write_text("".join(kept), encoding="utf-8")
    edit("pyproject.toml", (f" | {pipeline}", ""))
    cut("README.md", f"## {heading}\n", "## ")
    cut("README.md", f"| `{pipeline}` |", "| `")
    cut("docs/README.md", f"- [{page}]", "- [")


def keep_pipelines() -> None:
    """Leave out the pipelines that were not asked for, and what names them."""
    if "conversations" not in ANSWERS["pipelines"]:
        take_out("chat", CONVERSATIONS, "Conversations", "Conversations")
        cut("Makefile", "# The pipeline of conversations", "# The pipeline of questions")
        cut("docs/commands.md", "| `make chat`", "| `make qa`")
        edit("Makefile", ("run chat bench-chat chat-parity vllm vllm-lock qa", "run qa"))
    if "questions" not in ANSWERS["pipelines"]:
        take_out("qa", QUESTIONS, "Questions", "Questions")
        cut("Makefile", "# The pipeline of questions", "# The pipeline of tables")
        cut("docs/commands.md", "| `make qa`", "| `make report")
        edit("Makefile", (" qa tabular bench-tabular", " tabular bench-tabular"))
    if "tables" not in ANSWERS["pipelines"]:
        take_out("tabular", TABLES, "Tables", "A pipeline of tables")
        cut("Makefile", "# The pipeline of tables", "setup: ")
        edit("Makefile", (" tabular bench-tabular setup", " setup"))


def write_license() -> None:
    """Put the project's licence before that of the template, which its code goes on to bear."""
    text = Path("LICENSE").read_text(encoding="utf-8")
    notice = re.search(r"^Copyright \(c\) (\d+) .*\n", text, re.MULTILINE)
    if not notice:
        raise ValueError("LICENSE has no copyright notice")
    own = f"Copyright (c) {notice[1]} The {ANSWERS['project_name']} authors\n"
    if ANSWERS["license"] == "mit":
        edit("LICENSE", (notice[0], own + notice[0]))
        return
    template = f"What comes from the template of this project is under this licence:\n\n{text}"
    Path("LICENSE").write_text(
        f"{own}\n{LICENSES[ANSWERS['license']]}\n\n{template}", encoding="utf-8"
    )


def write_record() -> None:
    """Record what `make update` needs: where the template is, its commit, and the answers."""
    template = re.sub(r"(https?://)[^/]*@", r"\1", CONTEXT["_template"])  # a user may be a token
    template = re.sub(r"(?<=://)([^/@:]*):[^/]*@", r"\1@", template)
    folder = Path(os.environ["TEMPLATE_SEEN_FROM"], template).resolve()
    if "://" not in template and folder.is_dir():
        template = f"git+file://{folder}"
    template = os.environ.get("TEMPLATE_ADDRESS", template)  # which may have moved since
    path = Path(".template.json")
    record = {"template": template, **json.loads(path.read_text()), "answers": ANSWERS}
    path.write_text(f"{json.dumps(record, indent=2, ensure_ascii=False)}\n", encoding="utf-8")


def write_documents() -> None:
    """Head the README, and leave out how projects are made: this is none to make others of."""
    head = f"# {ANSWERS['project_name']}\n\n{ANSWERS['description']}\n"
    edit("README.md", ("# Pedigree\n", head))
    edit("pyproject.toml", (', "hooks"]', "]"))
    for name, start, end in (
        ("README.md", "What it says about the models", "The page that `python"),
        ("README.md", "**Start your own.**", "\n\n"),
        ("CONTRIBUTING.md", "## To change what teams start from\n", "\n## "),
    ):
        text = Path(name).read_text(encoding="utf-8")
        first = text.index(start)
        own = text[first : text.index(end, first)]
        edit(name, (own + end, end.removeprefix("\n\n").removeprefix("\n")))


def main() -> None:
    """Edit, commit, and say what comes next."""
    write_documents()
    write_params()
    write_license()
    keep_ci()
    keep_pipelines()
    write_remote()
    write_record()
    # Commits of an update are nobody's, so they ask for no passphrase.
    unsigned = ["-c", "commit.gpgsign=false"] if "TEMPLATE_UPDATE" in os.environ else []
    title = f"Start {ANSWERS['project_name']}"
    for words in (
        ["init", "--quiet", "--initial-branch=main"],
        ["add", "--all", "--force"],
        [*unsigned, "commit", "--quiet", "--no-verify", "--message", title],
    ):
        if subprocess.run(["git", *words], check=False).returncode:
            sys.exit("git can't commit the new project, see above: correct what it names.")
    print(f"Made {Path.cwd()}, with a first commit.")
    if ANSWERS["data_source"].startswith("data/"):
        print(
            f"Put your texts into {ANSWERS['data_source']} there; after `make setup`, "
            f"`python -m src.text.check {shlex.quote(ANSWERS['data_source'])}` says what they need."
        )
    if package := NOT_IN_LOCK.get(ANSWERS["remote"]):
        print(f"{package} is in requirements.lock; `make lock` there pins what it needs, too.")
    print("`make run` there runs the pipeline; README.md has the rest.")


if __name__ == "__main__":
    main()
