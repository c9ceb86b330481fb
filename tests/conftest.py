"""The project in a folder of its own, with data and a checkpoint small enough to run in seconds."""

import gc
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pandas as pd
import pytest
import torch
from configobj import ConfigObj
from filelock import FileLock
from hypothesis import settings
from ruamel.yaml import YAML
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast
from warm import FORKS, remember_yaml

from src.predict.manifest import write_manifest
from src.project.params import words_of
from src.tables import examples
from src.text import export_tfidf, probe, split
from src.text.forest import Forest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

ROOT = Path(__file__).parents[1]

# How long an example takes says nothing while other processes run.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
# A fork of it has some plugins already, in which it would rewrite what they assert.
PYTEST = ("python", "-m", "pytest", "-q", "-W", "ignore::pytest.PytestAssertRewriteWarning")

TOPICS = {
    "sport": ["goal", "match", "striker", "referee", "stadium", "league", "coach", "penalty"],
    "money": ["bank", "shares", "profit", "market", "investor", "loan", "currency", "budget"],
    "film": ["actor", "director", "cinema", "scene", "award", "script", "drama", "premiere"],
}
PARAMS: dict[str, dict[str, Any]] = YAML(typ="safe").load(ROOT / "tests" / "params.yaml")
# What a stage takes when a test calls it, without the places that differ from test to test.
LOAD, QUALITY, SPLIT, PROBE, TRAIN = (
    {key: value for key, value in PARAMS[name].items() if key not in ("source", "checkpoint")}
    for name in ("load", "quality", "split", "probe", "train")
)
TRAIN |= {"epochs": 2, "early_stopping_patience": 2}
# Of the pipeline of tables, where the project has it.
_tables = ROOT / "tests" / "tabular.yaml"
TABULAR: dict[str, dict[str, Any]] = YAML(typ="safe").load(_tables) if _tables.exists() else {}
SMALL = {f"{name}.{key}": value for name, values in PARAMS.items() for key, value in values.items()}


def shared(factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of one test run share."""
    place = factory.getbasetemp()
    return place.parent if "PYTEST_XDIST_WORKER" in os.environ else place


@pytest.fixture(scope="session", autouse=True)
def _environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Find `python` and `dvc` where the tests' own are, and look nothing up on a hub."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["DVC_NO_ANALYTICS"] = "1"
    if sys.platform == "linux":
        FORKS.folder = shared(tmp_path_factory) / "forks"
        FORKS.folder.mkdir(exist_ok=True)
        remember_yaml(FORKS.folder)
    yield
    FORKS.end()


# Fixtures that train or bake the template. A test that uses one, directly or not, is slow.
SLOW = {"built", "ran", "source", "undisturbed"}
LONGEST = ("behaviour", "tutorial", "encoder", "template", "faults", "tabular", "experiments")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow, and begin with the longest files, so that none is left at the end."""
    for item in items:
        if isinstance(item, pytest.Function) and SLOW & {*item.fixturenames}:
            item.add_marker(pytest.mark.slow)
    order = {f"test_{name}.py": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish() -> None:
    """Keep what is imported by now from being looked through for garbage, time and again."""
    gc.collect()
    gc.freeze()


class Project:
    """A copy of the project in a git repository of its own, and the commands that users type."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, *command: str, code: int = 0, text: str | None = None) -> str:
        """Run a command, expect its exit code, and return what it printed on both outputs."""
        done = subprocess.run(
            ["python" if word == sys.executable else word for word in command],
            cwd=self.root,
            env=FORKS.environment(),
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        told = f"{' '.join(command)} gave {done.returncode}:\n{done.stdout}"
        assert done.returncode == code, told
        return done.stdout

    def dvc(self, *command: str, code: int = 0) -> str:
        return self.run("dvc", *command, code=code)

    def git(self, *command: str) -> str:
        return self.run("git", "-c", "user.name=A", "-c", "user.email=a@example.org", *command)

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", "Change")

    def clone(self, target: Path, source: str | Path = ".") -> "Project":
        """A clone of this repository, or of another one as it is seen from here."""
        self.git("clone", "--quiet", str(source), str(target))
        return Project(target)

    def ran(self, printed: str) -> list[str]:
        """The stages that `dvc repro` says it ran."""
        return [line.split("'")[1] for line in printed.splitlines() if line.startswith("Running")]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_texts(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Rows with a text of its topic's words and a language, as many of each topic."""
    draw = random.Random(seed)
    rows = []
    for number in range(count):
        label = list(TOPICS)[number % len(TOPICS)]
        words = " ".join(draw.choices(TOPICS[label], k=6))
        language = "en" if number % 2 else "fr"
        rows.append({"text": f"{words} {number}", "label": label, "language": language})
    return rows


def make_table(count: int, seed: int = 0) -> pd.DataFrame:
    """Rows of mixed kinds with missing values, in the order of time, of which 5 % are frauds."""
    draw = np.random.default_rng(seed)
    amount = draw.lognormal(3, 1, count)
    country = draw.choice(["de", "fr", "in", "br"], count, p=[0.5, 0.3, 0.15, 0.05])
    member = draw.random(count) < 0.5
    odds = amount / 40 + 2 * (country == "br") - 1.5 * member + draw.normal(0, 0.3, count)
    fraud = odds > np.quantile(odds, 0.95)
    income = pd.Series(draw.normal(50, 10, count).round(2).astype(str))
    income[draw.random(count) < 0.1] = "NA"
    start = pd.Timestamp("2024-01-01")
    return pd.DataFrame(
        {
            "opened": [(start + pd.Timedelta(hours=3 * k)).isoformat() for k in range(count)],
            "amount": amount.round(2),
            "income": income,
            "country": country,
            "shop": [f"shop {k}" for k in draw.integers(0, 30, count)],
            "member": np.where(member, "yes", "no"),
            "fraud": fraud.astype(int),
        }
    )


def make_model(folder: Path, seed: int = 0) -> Path:
    """Write an exported model folder, from a baseline since that is quick to make."""
    import onnx
    from sklearn.feature_extraction.text import TfidfVectorizer

    rows = make_texts(60)
    tfidf = TfidfVectorizer()
    features = tfidf.fit_transform([row["text"] for row in rows])
    forest = Forest(20, random_state=seed).fit(features, [r["label"] for r in rows])
    words = sorted(tfidf.vocabulary_)
    ids = {word: k for k, word in enumerate([*words, export_tfidf.UNKNOWN])}
    export_tfidf.tokenizer(tfidf, ids).save(str(folder / "tokenizer.json"))
    onnx.save(export_tfidf.graph(tfidf, forest, ids), folder / "model.onnx")
    write_manifest(
        folder,
        labels=list(forest.classes_),
        max_length=100,
        max_characters=1000,
        pad_token_id=len(words),
    )
    return folder


def make_odd_model(folder: Path, endless: str = "loop") -> Path:
    """Write a model folder that fails on the texts "nan" and "far", and never ends on another."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    words = {"[PAD]": 0, "a": 1, "text": 2, "nan": 3, "loop": 4, "[UNK]": 5, "far": 1000}
    tokenizer = Tokenizer(models.WordLevel(words, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    # Of the words, but for the one that is too far.
    rows = np.array([[0, 0], [0, 1], [1, 0], [np.nan, 0], [0, 0], [0, 0]], dtype=np.float32)
    info, node = helper.make_tensor_value_info, helper.make_node
    body = helper.make_graph(
        [node("Identity", ["on"], ["still_on"]), node("Identity", ["value"], ["same_value"])],
        "body",
        [
            info("turn", TensorProto.INT64, []),
            info("on", TensorProto.BOOL, []),
            info("value", TensorProto.FLOAT, []),
        ],
        [info("still_on", TensorProto.BOOL, []), info("same_value", TensorProto.FLOAT, [])],
    )
    constants = {
        "rows": rows,
        "endless": np.array(words[endless]),
        "one": np.array([1]),
        "zero": np.float32(0),
    }
    graph = helper.make_graph(
        [
            node("Gather", ["rows", "input_ids"], ["each"]),
            node("ReduceSum", ["each", "one"], ["sum"], keepdims=0),
            node("Equal", ["input_ids", "endless"], ["is_endless"]),
            node("Cast", ["is_endless"], ["found"], to=TensorProto.INT64),
            node("ReduceMax", ["found"], ["any_found"], keepdims=0),
            node("Cast", ["any_found"], ["begin"], to=TensorProto.BOOL),
            node("Loop", ["", "begin", "zero"], ["nothing"], body=body),
            node("Add", ["sum", "nothing"], ["logits"]),
        ],
        "odd",
        [
            info(name, TensorProto.INT64, ["texts", "tokens"])
            for name in ("input_ids", "attention_mask")
        ],
        [info("logits", TensorProto.FLOAT, ["texts", 2])],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    write_manifest(
        folder, labels=["odd", "even"], max_length=100, max_characters=1000, pad_token_id=0
    )
    return folder


def make_checkpoint(folder: Path, kind: str = "bert", text: str = "", **config: Any) -> Path:
    """Save a tiny classifier of an architecture with random weights, and its tokenizer.

    The tokenizer knows the words of the topics and those of ``text``.
    """
    words = sorted({word for topic in TOPICS.values() for word in topic} | {*text.lower().split()})
    pad = 1 if "roberta" in kind else 0  # as the real ones have it
    vocabulary = ["[PAD]", "[CLS]", "[SEP]", "[MASK]", *words]
    vocabulary.insert(1 - pad, "[UNK]")
    tokenizer = Tokenizer(models.WordLevel({w: k for k, w in enumerate(vocabulary)}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+"), "removed")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=40,
    ).save_pretrained(folder)
    small = {
        "vocab_size": len(vocabulary),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 48,
        "pad_token_id": pad,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "initializer_range": 0.2,  # so that the first token makes something of the others
    }
    torch.manual_seed(0)
    settings = AutoConfig.for_model(kind, **small | config)
    model = AutoModelForSequenceClassification.from_config(settings)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def texts() -> list[dict[str, str]]:
    return make_texts(60)


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder, to be copied."""
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A model folder to be changed."""
    return Path(shutil.copytree(good, tmp_path / "model"))


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="session")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of an untrained transformer in fp32 and in 8 bits, of all processes of a run."""
    from src.text.export import quantize
    from src.training.onnx_export import OPSET, to_onnx

    place = shared(tmp_path_factory)
    fp32, int8 = place / "exported" / "fp32", place / "exported" / "int8"
    with FileLock(place / "exported.lock"):
        if (int8 / "manifest.json").exists():
            return fp32, int8
        model = AutoModelForSequenceClassification.from_pretrained(checkpoint)
        for folder in (fp32, int8):
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkpoint / "tokenizer.json", folder)
        to_onnx(model, fp32 / "model.onnx", OPSET)
        quantize(fp32 / "model.onnx", int8 / "model.onnx")
        about = {"max_length": 40, "max_characters": 1000, "pad_token_id": 0}
        for folder in (fp32, int8):
            write_manifest(folder, labels=["film", "money"], **about)
    return fp32, int8


def copy_project(target: Path) -> Project:
    """The files of the project that git knows or would add, committed to a new repository.

    The copy has no DVC remote: a test must not reach the team's.
    """
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(words, cwd=ROOT, text=True).split("\n"):
        if name and (ROOT / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    config = ConfigObj(str(target / ".dvc" / "config"))
    config["core"].pop("remote", None)
    for section in [section for section in config if section.strip("'").startswith("remote ")]:
        del config[section]
    config.write()
    project = Project(target)
    project.git("init", "--quiet", "--initial-branch=main")
    for key in ("name", "email"):  # for what commits and tags by itself
        project.git("config", f"user.{key}", "a@example.org")
    project.commit()
    return project


def set_params(project: Project, params: dict[str, Any]) -> None:
    yaml = YAML()  # of YAML 1.2, as DVC writes it
    file = project.root / "params.yaml"
    values = yaml.load(file)
    for name, value in params.items():
        section, key = name.split(".")
        assert key in values[section]
        values[section][key] = value
    yaml.dump(values, file)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small project after its first `dvc repro`, committed; to be copied.

    All processes of one test run share it. Beside it, ``repro.log`` has what was printed, and
    ``new.txt`` what git saw before the commit.
    """
    place = shared(tmp_path_factory)
    root, log = place / "built", place / "repro.log"
    with FileLock(place / "built.lock"):
        if not log.exists():
            shutil.rmtree(root, ignore_errors=True)  # of another process that failed
            project = copy_project(root)
            source = root / "data" / "source"
            write_rows(source / "small.jsonl", make_texts(60))
            make_checkpoint(source / "checkpoint")
            set_params(project, SMALL)
            # Further pipelines have tests of their own.
            for name in ("tabular", "models/tabular", "chat", "models/chat", "qa", "models/qa"):
                shutil.rmtree(root / name, ignore_errors=True)
            records = ("data/quality.json", "data/quality.md", *root.glob("models/*.json"))
            for name in ("dvc.lock", *map(str, records)):
                (root / name).unlink(missing_ok=True)
            shutil.rmtree(root / "dvclive", ignore_errors=True)
            project.commit()
            printed = project.dvc("repro")
            new = project.git("ls-files", "--others", "--exclude-standard")
            (place / "new.txt").write_text(new)
            project.commit()
            log.write_text(printed)
    return root


def copy_built(built: Path, target: Path) -> Project:
    """A copy of the small project that has run, with its DVC cache and a git history of its own."""
    shutil.copytree(built, target, symlinks=True)
    return Project(target)


@pytest.fixture(scope="module")
def project(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project that has run, in a folder of its own for each file of tests."""
    return copy_built(built, tmp_path_factory.mktemp("project") / "project")


def digest(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a folder, by its path in there."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def serving(*command: str | Path) -> Iterator[int]:
    """Run a server that ends with ``--addr``, and give the port of loopback that it listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    words = [*map(str, command), "--addr", f"127.0.0.1:{port}"]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="session")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 texts, divided."""
    folder = tmp_path_factory.mktemp("data")
    frame = pd.DataFrame(make_texts(300)).assign(id=[str(k) for k in range(300)])
    examples.write(frame, folder / "examples.parquet")
    split.main(folder, folder / "splits", **SPLIT | {"test_size": 0.2})
    return folder / "splits"


def probed(splits: Path, target: Path, checkpoint: Path, **changes: Any) -> Path:
    """The model that training into ``target`` starts from."""
    chosen = PROBE | {"checkpoint": str(checkpoint)} | changes
    name = zlib.crc32(repr((splits, chosen)).encode())  # made once for those that go on
    place = target.with_name(f"{target.name}-probe") / f"{name:x}"
    if not place.exists():
        probe.main(splits, place / "model", place / "live", **chosen)
    return place / "model"


def apart(changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The changes of params that are the probe's, and all that training takes."""
    probes = {key: value for key, value in changes.items() if key in PROBE}
    return probes, TRAIN | {key: value for key, value in changes.items() if key in TRAIN}


def train_command(splits: Path, target: Path, checkpoint: Path, **changes: Any) -> list[str]:
    """The command that DVC makes of the params, for a process of its own, once there is a probe."""
    probes, params = apart(changes)
    start = probed(splits, target, checkpoint, **probes)
    places = (splits, start, target / "model", target / "live")
    return [sys.executable, "-m", "src.text.train", *map(str, places), *words_of(params)]


def run_train(
    splits: Path, target: Path, checkpoint: Path, *, forked: bool = False, **changes: Any
) -> subprocess.CompletedProcess[str]:
    """The stage in a process of its own, which runs in the folder that ``target`` lies in.

    It is a new one, as those are that it starts, or all of them are forks that begin at once.
    """
    words = train_command(splits, target, checkpoint, **changes)
    env = os.environ | {"PYTHONPATH": f"{target.parent}:{ROOT}"}
    if forked:  # which the server refuses with a PYTHONPATH
        words[0], env = "python", FORKS.environment()
        (target.parent / "src").symlink_to(ROOT / "src")
    return subprocess.run(
        words, cwd=target.parent, env=env, check=False, capture_output=True, text=True
    )


def errors_in(log: str) -> list[str]:
    """The sentences that a stage has ended with."""
    return [line.split("src.core.stage: ")[1] for line in log.splitlines() if "ERROR" in line]


def is_running(pid: int) -> bool:
    """Tell whether a process has not ended; one that nobody waited for has."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER_PATIENCE = 20_000  # milliseconds for what is going to come


def no_browser() -> NoReturn:
    told = f"found none of {', '.join(CHROMIUM)}: `apt-get install chromium`"
    if "CI" in os.environ:
        pytest.fail(f"Expected a browser for the playground, {told}")
    pytest.skip(f"no browser for the playground, {told}")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """A Chromium."""
    from playwright.sync_api import expect, sync_playwright

    path = next(filter(None, map(shutil.which, CHROMIUM)), None) or no_browser()
    expect.set_options(timeout=BROWSER_PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path)
        yield browser
        browser.close()


@pytest.fixture
def errors() -> list[str]:
    """What the browser complains of; a test that expects something takes it out."""
    return []


def violations(page: "Page") -> str:
    """What axe finds wrong with a page; "" for nothing."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page)
    return str(found.generate_report()) if found.violations_count else ""


@pytest.fixture
def blank(browser: "Browser", errors: list[str]) -> Iterator["Page"]:
    """A page of its own, with neither errors nor breaches of the content security policy."""
    context = browser.new_context(accept_downloads=True)
    context.set_default_timeout(BROWSER_PATIENCE)
    page = context.new_page()

    def note(said: "ConsoleMessage") -> None:
        if said.type == "error":
            errors.append(said.text)

    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)
