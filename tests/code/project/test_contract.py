"""dvc.yaml, params.yaml and the signatures of the stages say the same thing."""

import ast
import inspect
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from conftest import PARAMS as SMALL
from conftest import ROOT, Project
from dvc.repo import Repo
from dvc.utils.hydra import apply_overrides
from ruamel import yaml

from src.core.command_line import bind
from src.project.params import file_beside, read, typed, words_of
from src.text import card_facts
from src.tools.report.change import Gate
from src.tools.tune import __main__ as tune
from src.tools.tune.trials import read_space

STAGES = [
    *("load", "quality", "split", "baseline", "linear", "probe", "train"),
    *("export_tfidf", "export", "evaluate", "compare", "card"),
]
ALL_TABLES = [
    *("load", "split", "quality", "linear", "forest", "boosting"),
    *("decide", "export", "evaluate", "compare", "card"),
]
TABLES = ALL_TABLES if (ROOT / "tabular").exists() else []  # none in a project of texts alone
ALL_CHAT = [
    *("base", "data", "lora", "ptuning", "full", "merge", "quantize"),
    *("general", "evaluate", "parity", "compare", "card"),
]
CHAT = ALL_CHAT if (ROOT / "chat").exists() else []
ALL_QA = [
    *("ingest", "lexical", "reader", "objective", "answers", "questions"),
    *("adapt", "evaluate", "export", "compare", "card"),
]
QA = ALL_QA if (ROOT / "qa").exists() else []
MODULES = [
    ".".join(path.with_suffix("").relative_to(ROOT).parts)
    for path in sorted((ROOT / "src").rglob("*.py"))
    if path.name != "__init__.py"
]
# Commands of a person, no part of the pipeline, with a section of params.yaml of their own.
COMMANDS = ["report", "tune"]
YAML = yaml.YAML(typ="safe")  # of YAML 1.2, as DVC reads it
PIPELINE: dict[str, Any] = YAML.load(ROOT / "dvc.yaml")
for group in PIPELINE["stages"].values():  # a stage for each key of a foreach is written once
    group.update(group.get("do", {}))
PARAMS: dict[str, Any] = YAML.load(ROOT / "params.yaml")
PIPELINES = subprocess.run(
    ["git", "ls-files", ":(glob)**/dvc.yaml"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.split()
ENTRIES: dict[str, dict[str, Any]] = dict(PIPELINE["stages"])  # of all pipelines, as DVC calls them
for pipeline in PIPELINES:
    if pipeline != "dvc.yaml":
        further = YAML.load(ROOT / pipeline)["stages"]
        ENTRIES |= {
            f"{pipeline}:{key}": entry | entry.get("do", {}) for key, entry in further.items()
        }


def paths_of(entry: dict[str, Any], *kinds: str) -> set[str]:
    listed = [item for kind in kinds for item in entry.get(kind, [])]
    return {next(iter(item)) if isinstance(item, dict) else item for item in listed}


def folder_of(name: str) -> Path:
    """The folder of a pipeline, from one of the names of its stages."""
    return Path(name.rpartition(":")[0]).parent


def section_of(entry: dict[str, Any]) -> str:
    """The name of the section that a stage takes, which stands last in its command."""
    found = re.search(r" \$\{(\w+)\}$", entry["cmd"].rstrip())
    assert found, "the section stands last"
    return found[1]


def file_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


def imported(module: str) -> set[str]:
    """The first-party modules that a module imports, wherever in its text."""
    found = set()
    for node in ast.walk(ast.parse(file_of(module).read_text())):
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.startswith("src.") and file_of(name).exists()}


def imported_transitively(module: str) -> set[str]:
    seen, waiting = {module}, [module]
    while waiting:
        new = imported(waiting.pop()) - seen
        seen |= new
        waiting.extend(new)
    return seen


def test_every_module_is_in_a_room_and_every_stage_has_one() -> None:
    assert [path.name for path in (ROOT / "src").glob("*.py")] == ["__init__.py"]
    assert set(PIPELINE["stages"]) == set(STAGES)
    assert {f"src.text.{name}" for name in STAGES} <= set(MODULES)
    assert set(PARAMS) == {*STAGES, *COMMANDS}


def test_the_params_of_tests_are_params() -> None:
    for name, values in SMALL.items():
        assert values.keys() <= PARAMS[name].keys(), name
    for name in ("load", "quality", "split", "probe", "train"):  # which tests call by themselves
        assert SMALL[name].keys() == PARAMS[name].keys(), name


def test_the_gate_of_a_report_takes_the_params_of_its_section() -> None:
    for pipeline in PIPELINES:
        stages = YAML.load(ROOT / pipeline)["stages"]
        section = read(ROOT / file_beside(pipeline))["report"]
        assert list(inspect.signature(Gate).parameters) == list(section)
        assert typed(Gate, section) == section
        judged = stages["evaluate"]["foreach"]
        assert section["models"]
        assert set(section["models"]) <= set(judged)


def test_the_search_takes_the_params_of_its_section() -> None:
    place, *parameters = inspect.signature(tune.main, eval_str=True).parameters.values()
    assert place.name == "pipeline"
    assert all(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
    for pipeline in PIPELINES:
        sections = read(ROOT / file_beside(pipeline))
        assert [p.name for p in parameters] == list(sections["tune"])
        _, values = bind(tune.main, "tune", True, [pipeline, *words_of(sections["tune"])])
        assert values == sections["tune"]
        target = sections[values["target"]]
        space = read_space(values["space"], values["target"], target, str(ROOT / pipeline))
        assert len(space) == len(values["space"])


def test_git_keeps_the_bytes_of_sources() -> None:
    """A table with CRLF would have another hash in a clone than the one in dvc.lock."""
    for path in ("data/source/a.csv", "data/tabular/source/a.csv", "data/qa/source/b/a.csv"):
        told = Project(ROOT).git("check-attr", "text", path)
        assert told == f"{path}: text: unset\n"
    assert Project(ROOT).git("check-attr", "text", "src/a.py") == "src/a.py: text: auto\n"


def test_every_pipeline_is_found() -> None:
    stages = Repo(str(ROOT)).index.stages
    files = {Path(s.path).relative_to(ROOT).as_posix() for s in stages if s.cmd}
    assert sorted(files) == sorted(PIPELINES)
    assert len(PIPELINES) == 1 + bool(TABLES) + bool(CHAT) + bool(QA)


@pytest.mark.parametrize("name", ENTRIES)
def test_a_stage_takes_the_paths_of_its_command_and_the_params_of_its_section(name: str) -> None:
    entry, folder = ENTRIES[name], folder_of(name)
    words, section = entry["cmd"].split(), section_of(entry)
    assert words[:2] == ["python", "-m"]
    assert words[2].startswith(f"src.{folder.name or 'text'}.")
    paths = words[3:-1]
    main = import_module(words[2]).main
    parameters = list(inspect.signature(main, eval_str=True).parameters.values())
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    repeated = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    assert len(paths) > len(positional) if repeated else len(paths) == len(positional)
    params = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
    assert [p.name for p in params] == list(YAML.load(ROOT / folder / "params.yaml")[section])
    assert all(p.default is p.empty for p in parameters)
    others: tuple[str, ...] = ()  # what a card tells of the stages before
    if section == "card":
        others = import_module(words[2]).SECTIONS if folder.name else card_facts.SECTIONS
    if folder.name:  # a plain section would be that of the root under `wdir: ..`
        assert entry["wdir"] == ".."
        assert entry["params"] == [{f"{folder}/params.yaml": [*others, section]}]
    else:
        assert words[2] == f"src.text.{name}"
        assert entry["params"] == [*others, section]
        assert section == name


def test_the_quality_page_counts_the_tokens_that_training_reads() -> None:
    shared = PARAMS["quality"].keys() & PARAMS["probe"].keys()
    assert shared == {"checkpoint", "max_length", "max_characters"}
    assert all(PARAMS["quality"][key] == PARAMS["probe"][key] for key in shared)


def test_paths_in_commands_are_deps_or_outs_and_back() -> None:
    checked = 0
    for name, entry in ENTRIES.items():
        command = set(entry["cmd"].split()[3:-1])
        declared = paths_of(entry, "deps", "outs", "metrics", "plots")
        data = {path for path in declared if not path.startswith("src/")}
        for path in command:
            assert any(d == path or d.startswith(f"{path}/") for d in data), (name, path)
        for path in data:
            assert any(path == c or path.startswith(f"{c}/") for c in command), (name, path)
        checked += len(command) + len(data)
    assert checked == 141 + 106 * bool(TABLES) + 137 * bool(CHAT) + 159 * bool(QA)


def test_imported_modules_are_deps_and_back() -> None:
    checked = 0
    for name, entry in ENTRIES.items():
        modules = imported_transitively(entry["cmd"].split()[2])
        needed = {str(file_of(module).relative_to(ROOT)) for module in modules}
        assert needed == {p for p in paths_of(entry, "deps") if p.startswith("src/")}, name
        checked += len(needed)
    assert checked >= 90


HEAVY = {"torch", "transformers", "sklearn", "onnxruntime", "openvino", "onnx", "dvclive", "pandas"}
LIGHT = {
    "src.predict.__main__",
    "src.predict.batch",
    "src.tools.doctor.__main__",
    "src.tools.tune.__main__",
}
# What a stage may load. A process imports several, each of which may load what those before it do.
IMPORTS = [
    {
        "src.text.load": {"pandas"},
        "src.text.split": {"pandas"},
        "src.text.quality": {"pandas", "sklearn"},
        "src.text.baseline": {"pandas", "sklearn", "dvclive"},
        "src.text.linear": {"pandas", "sklearn", "dvclive"},
        "src.text.evaluate": {"pandas", "sklearn", "dvclive"},
        "src.text.compare": {"pandas", "sklearn", "dvclive"},
        "src.text.probe": {"pandas", "sklearn", "dvclive", "torch", "transformers"},
        "src.text.train": {"pandas", "sklearn", "dvclive", "torch", "transformers"},
    },
    {
        "src.text.card": {"pandas", "sklearn", "onnx"},
        "src.text.export_tfidf": {"pandas", "sklearn", "dvclive", "onnx", "onnxruntime"},
    },
    {"src.text.export": {"pandas", "dvclive", "torch", "transformers", "onnx", "onnxruntime"}},
]
IMPORT = """
import logging, sys
from importlib import import_module
sys.path.insert(0, sys.argv[1])
for name in sys.argv[2:]:
    import_module(name)
    print(name, *{module.split(".")[0] for module in sys.modules})
assert not logging.root.handlers and not logging.getLogger("src").level
"""


def loaded_by(folder: Path, *names: str) -> dict[str, set[str]]:
    """Import modules one after the other; all packages loaded after each, by its name."""
    words = [sys.executable, "-c", IMPORT, str(ROOT), *names]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    lines = (line.split() for line in done.stdout.splitlines())
    return {name: set(packages) for name, *packages in lines}


@pytest.mark.parametrize("allowed", IMPORTS, ids=lambda allowed: "-".join(allowed))
def test_importing_loads_no_library_that_can_be_done_without_and_leaves_no_trace(
    allowed: dict[str, set[str]], tmp_path: Path
) -> None:
    # What else there is may load anything.
    rest = {*MODULES} - LIGHT - {*allowed} if "src.text.train" in allowed else set()
    loaded = loaded_by(tmp_path, *sorted(LIGHT), *allowed, *sorted(rest))
    for name in LIGHT:
        assert not HEAVY & loaded[name], name
    for name, heavy in allowed.items():
        assert HEAVY & loaded[name] <= heavy, name
    assert list(tmp_path.iterdir()) == []


def test_every_stage_is_imported() -> None:
    assert {name for allowed in IMPORTS for name in allowed} == {f"src.text.{s}" for s in STAGES}


def test_commands_hold_only_whole_sections_and_names_written_in_the_pipeline() -> None:
    expressions = 0
    for entry in PIPELINE["stages"].values():
        for expression in re.findall(r"\$\{(.*?)\}", entry["cmd"]):
            expressions += 1
            if expression in PARAMS:
                continue
            # The shell sees these unquoted, so they are plain words of dvc.yaml, not params.
            assert expression in ("key", "item")
            values = [*entry["foreach"]]
            if isinstance(entry["foreach"], dict):
                values += entry["foreach"].values()
            assert all(re.fullmatch(r"[a-z0-9/-]+", value) for value in values)
    assert expressions == 12 + 3 + 3


def test_dvc_expands_params_to_what_the_signatures_accept() -> None:
    checked = 0
    for planned in Repo(str(ROOT)).index.stages:
        _, _, module, *arguments = shlex.split(planned.cmd)
        file = Path(planned.path).relative_to(ROOT).as_posix()
        key = planned.name.partition("@")[0]
        name = section_of(ENTRIES[key if file == "dvc.yaml" else f"{file}:{key}"])
        _, params = bind(import_module(module).main, name, True, arguments)
        section = YAML.load(Path(planned.path).with_name("params.yaml"))[name]
        for key, value in params.items():
            written = section[key]
            assert value == written
            checked += 1
    of_stages = sum(len(PARAMS[name]) for name in STAGES)
    again = [("evaluate", 7), ("export_tfidf", 1)]  # of a foreach
    of_stages += sum(times * len(PARAMS[name]) for name, times in again)
    tables = YAML.load(ROOT / "tabular/params.yaml") if TABLES else {}
    assert [*tables] == [*TABLES, *COMMANDS * bool(TABLES)]
    again = [("decide", 2), ("export", 2), ("evaluate", 2)] if TABLES else []
    of_stages += sum(len(tables[name]) for name in TABLES)
    chat = YAML.load(ROOT / "chat/params.yaml") if CHAT else {}
    assert [*chat] == [*CHAT, *COMMANDS * bool(CHAT)]
    of_stages += sum(len(chat[name]) for name in CHAT) + 5 * len(chat.get("evaluate", []))
    qa = YAML.load(ROOT / "qa/params.yaml") if QA else {}
    assert [*qa] == [*QA, *COMMANDS * bool(QA)]
    of_stages += sum(len(qa[name]) for name in QA)
    of_stages += 2 * len(qa.get("objective", [])) + 3 * len(qa.get("adapt", []))
    of_stages += 8 * len(qa.get("evaluate", []))
    assert checked == of_stages + sum(times * len(tables[name]) for name, times in again)


@pytest.mark.parametrize(
    ("file", "change", "line", "count"),
    [
        ("params.yaml", "train.lr=3e-5", "  lr: 3e-05", 15),
        *[("tabular/params.yaml", "forest.max_depth=12", "  max_depth: 12", 12)] * bool(TABLES),
        *[("chat/params.yaml", "data.name=Ada", "  name: Ada", 9)] * bool(CHAT),
        *[("qa/params.yaml", "reader.epochs=3", "  epochs: 3", 10)] * bool(QA),
    ],
)
def test_an_experiment_changes_its_lines_of_params_alone(
    file: str, change: str, line: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dvc exp run -S` writes the file in a form of its own, and no comment after a list."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / file, tmp_path / "params.yaml")
    before = (ROOT / file).read_text().splitlines()
    values = YAML.load(ROOT / file)

    apply_overrides("params.yaml", [change])
    after = Path("params.yaml").read_text().splitlines()
    changed = [b for a, b in zip(before, after, strict=True) if a != b]
    assert changed == [line]

    lists = [
        f"{section}.{key}"
        for section, params in values.items()
        for key, value in params.items()
        if isinstance(value, list)
    ]
    for value in ("[a,b]", "[]"):
        apply_overrides("params.yaml", [f"{name}={value}" for name in lists])
        after = Path("params.yaml").read_text().splitlines()
        comments = [line for line in after if not line or line.lstrip().startswith("#")]
        assert comments == [line for line in before if not line or line.lstrip().startswith("#")]
    assert len(lists) == count


@pytest.mark.parametrize("file", [name.replace("dvc", "params") for name in PIPELINES])
def test_every_param_has_a_sentence_over_it_and_no_null(file: str) -> None:
    text, values = (ROOT / file).read_text(), YAML.load(ROOT / file)
    checked = []
    for section, body in re.findall(r"^(\w+):\n((?:  .*\n)+)", text, re.MULTILINE):
        for sentences, written in re.findall(r"((?:  # .*\n)+)((?:  [^#\n].*\n)+)", body):
            assert sentences.endswith(".\n")
            keys = re.findall(r"^  (\w+):", written, re.MULTILINE)
            named = re.findall(r"^  # (\w+): ", sentences, re.MULTILINE)
            assert len(keys) == 1 or named == keys
            checked += [f"{section}.{key}" for key in keys]
    assert checked == [f"{name}.{key}" for name, section in values.items() for key in section]
    assert not [k for section in values.values() for k, value in section.items() if value is None]


def test_every_stage_says_what_it_does() -> None:
    assert all(entry["desc"][0].isupper() for entry in ENTRIES.values())


def test_git_ignores_every_output_that_dvc_keeps() -> None:
    outs = [out for out in Repo(str(ROOT)).index.outs if out.use_cache]
    for out in outs:
        path = Path(out.fs_path).relative_to(ROOT)
        words = ["git", "check-ignore", "--verbose", "--no-index", str(path)]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.stdout.startswith(".gitignore:"), f"{path} is not ignored up front"
    tables = (2 + 1 + 3 * 2 + 3 * 1 + 3 * 1 + 3 * 2 + 1) * bool(TABLES)
    chat = (1 + 2 + 3 * 2 + 1 + 1 + 1 + 6 + 1) * bool(CHAT)
    qa = (2 + 1 + 2 + 3 * 2 + 2 + 1 + 4 * 2 + 9 * 2 + 2 + 1 + 1) * bool(QA)
    assert len(outs) == 3 + 2 + 2 + 1 + 2 + 2 + 2 + 2 * 8 + 1 + tables + chat + qa


def test_documents_link_to_files_and_name_every_stage() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    outs = [Path(out.fs_path) for out in Repo(str(ROOT)).index.outs]  # made by the first run
    links = 0
    for document in documents:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            path = (document.parent / link).resolve()
            assert path.exists() or path in outs, f"{document.name} links to {link}"
            links += 1
    assert links >= 6
    page = (ROOT / "docs" / "how-it-works.md").read_text().partition("## The stages\n")[2]
    table = re.findall(r"^\| `(\w+)` \|", page.partition("\n## ")[0], re.MULTILINE)
    assert sorted(table) == sorted(STAGES)


def test_plots_and_artifacts_are_outputs_of_stages() -> None:
    outs = {str(Path(out.fs_path).relative_to(ROOT)) for out in Repo(str(ROOT)).index.outs}
    drawn = [file for plot in PIPELINE["plots"] for file in next(iter(plot.values()))["y"]]
    kept = [artifact["path"] for artifact in PIPELINE["artifacts"].values()]
    for path in [*drawn, *kept]:
        assert any(path == out or path.startswith(f"{out}/") for out in outs), path
    assert (len(drawn), len(kept)) == (5 + 4 * 5 + 8, 1)


def test_dvc_is_known_to_the_project_room_by_more_than_its_api() -> None:
    """`lint-imports` sees one package, however deep an import reaches into it."""
    found: dict[str, set[str]] = {}
    for module in MODULES:
        for node in ast.walk(ast.parse(file_of(module).read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if deep := [name for name in names if re.match(r"dvc(_\w+)?(\.|$)", name)]:
                found.setdefault(module, set()).update(deep)
    for module, reached in found.items():
        if not module.startswith("src.project."):
            assert reached <= {"dvc.api", "dvc.exceptions"}, module
    assert "src.project.graph" in found


def test_the_contract_of_stages_names_all_of_them() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (stages,) = (c["modules"] for c in contracts["contracts"] if c["type"] == "independence")
    tables = [name for name in (f"src.tabular.{table}" for table in ALL_TABLES) if name in MODULES]
    chat = [f"src.chat.{name}" for name in CHAT]
    qa = [f"src.qa.{name}" for name in QA]
    assert stages == [f"src.text.{name}" for name in STAGES] + tables + chat + qa


def test_the_core_stands_on_the_standard_library_alone() -> None:
    """The other floors are for `lint-imports`, by the contracts of pyproject.toml."""
    found = set()
    for path in (ROOT / "src" / "core").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                found.add(str(node.module))
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    others = {name for name in found if name.split(".")[0] not in sys.stdlib_module_names}
    assert others
    assert all(name.startswith("src.core.") for name in others)


def test_prediction_loads_three_packages_and_serving_what_its_own_requirements_bring(
    tmp_path: Path,
) -> None:
    three = ("numpy", "onnxruntime", "tokenizers")
    loaded = loaded_by(tmp_path, "sys", *three, "src.predict.__main__", "src.serve.__main__")
    added = loaded["src.predict.__main__"] - loaded[three[-1]]
    assert added - set(sys.stdlib_module_names) == {"src"}

    lock = (ROOT / "requirements-serve.lock").read_text()
    brought = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    assert len(brought) <= 25
    owners = packages_distributions()
    served = loaded["src.serve.__main__"] - loaded["sys"]
    names = {name.lower().replace("_", "-") for one in served for name in owners.get(one, [])}
    assert {"starlette", "uvicorn", "onnxruntime", "tokenizers", "pyyaml"} <= names
    assert names - brought <= {"sniffio"}  # which anyio takes where it is there


def packages(name: str = "requirements.txt") -> Iterator[str]:
    for line in (ROOT / name).read_text().splitlines():
        if match := re.match(r"([\w.-]+)", line):
            yield re.sub(r"[-_.]+", "-", match[0].lower())  # as the lock writes it


def test_every_package_is_pinned_in_the_lock() -> None:
    lock = (ROOT / "requirements.lock").read_text().lower()
    names = list(packages())
    for name in names:
        assert re.search(rf"^{re.escape(name)}(\[.*\])?==", lock, re.MULTILINE), name
    assert "torch==2.13.0\n" in lock
    assert len(names) >= 20


def test_the_server_alone_has_the_versions_of_the_whole() -> None:
    whole, serve = (
        dict(re.findall(r"^([\w.-]+)(?:\[.*\])?==(\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for name in ("requirements.lock", "requirements-serve.lock")
    )
    assert set(packages("requirements-serve.txt")) <= set(serve)
    assert {name: whole.get(name) for name in serve} == serve
