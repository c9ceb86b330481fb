"""Models that somebody else made, on a server: at worst they are refused."""

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import requests
from conftest import make_odd_model
from prometheus_client import generate_latest
from served import PATIENCE, served, wait_until

from src.core.errors import InputError
from src.predict import engines
from src.predict.classifier import Classifier
from src.predict.manifest import list_too
from src.serve import service as serving
from src.serve.app import Card
from src.serve.model_card import FRONT_MATTER
from src.serve.models import Model
from src.serve.request import Limits
from src.serve.service import Service


def put(folder: Path, name: str, content: str) -> None:
    """Write a file that the manifest has the sha256 of."""
    (folder / name).write_text(content, encoding="utf-8")
    list_too(folder, name)


def model_of(folder: Path) -> Model:
    return Model(folder, lambda path: Classifier(path, threads=1))


LEVELS = "".join(f"a{k + 1}: &a{k + 1} [{', '.join([f'*a{k}'] * 9)}]\n" for k in range(3))


@pytest.mark.parametrize(
    ("front_matter", "sentence"),
    [
        ("a0: &a0 [1]\n" + LEVELS, "it has an alias"),
        ("a: &a [*a]", "it has an alias"),
        ("a: [", "is not valid YAML"),
        ("a: " + "[" * 5000, "is not valid YAML"),
        ("a: 2024-99-99", "is not valid YAML"),
        ("a: !!int ''", "is not valid YAML"),
        ("a: !!timestamp b", "is not valid YAML"),
        ("a: !!binary '\xff'", "is not valid YAML"),
        ("a: !!python/object:os.system b", "is not valid YAML"),
        ("? {a: b}\n: c", "is not valid YAML"),
        ("a: " + "9" * 5000, "is not valid YAML"),
        ("? [a, b]\n: c", "is not valid YAML"),
        ('a: "\\ud800"', "what no answer can hold"),
        ('"\\ud800": [a]', "what no answer can hold"),
        ("a: " + "b" * FRONT_MATTER, f"has more than {FRONT_MATTER} characters"),
    ],
)
def test_front_matter_that_no_answer_can_hold_is_one_sentence(
    front_matter: str, sentence: str, folder: Path
) -> None:
    put(folder, "README.md", f"---\n{front_matter}\n---\n# A card\n")
    with pytest.raises(InputError, match=re.escape(sentence)) as found:
        model_of(folder)
    assert str(found.value).isprintable()


def test_other_front_matter_is_shown(folder: Path) -> None:
    said = "a: !!set {b}\nc: !!binary aGk=\nd: 2024-01-02\ne: .nan\nf: !!omap [g: 1]\n"
    said += f"no: {2**70}"
    put(folder, "README.md", f"---\n{said}\n---\n# A card\n")
    loaded = model_of(folder).now
    card = Card(
        **msgspec.structs.asdict(loaded.described()), front_matter=loaded.card, page="", manifest={}
    )
    assert json.loads(msgspec.json.encode(card))["front_matter"] == {
        "a": ["b"],
        "c": "aGk=",
        "d": "2024-01-02",
        "e": None,
        "f": [["g", 1]],
        "false": 2**70,
    }
    assert loaded.page == "# A card\n"


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ("[]", "config.json is not a JSON object"),
        ("[" * 100_000, "config.json is not JSON"),
        ('{"model_type": ["bert"]}', "config.json has a model_type that is no text"),
        ('{"model_type": "\\ud800"}', "what no answer can hold"),
    ],
)
def test_a_config_of_another_shape_is_one_sentence(
    config: str, sentence: str, folder: Path
) -> None:
    put(folder, "config.json", config)
    with pytest.raises(InputError, match=sentence):
        model_of(folder)


def test_files_that_the_manifest_does_not_list_are_not_read(folder: Path) -> None:
    os.mkfifo(folder / "README.md")  # reading one would not end
    (folder / "config.json").write_text('{"model_type": "of a stranger"}')
    loaded = model_of(folder).now
    assert (loaded.card, loaded.page, loaded.described().kind) == ({}, "", "tfidf")


def test_a_card_that_was_changed_is_refused(folder: Path) -> None:
    put(folder, "README.md", "# A card\n")
    assert model_of(folder).now.page == "# A card\n"
    (folder / "README.md").write_text("# A cart\n")
    with pytest.raises(InputError, match=r"README.md is not the file that was exported"):
        model_of(folder)


def test_a_reload_chooses_the_engine_anew(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_has_bf16", lambda: True)
    monkeypatch.setattr(engines, "_openvino_has_bf16", lambda: True)
    folder = Path(shutil.copytree(exported[0], tmp_path / "model"))
    model = Model(folder, lambda path: Classifier(path, 1, "auto"))

    async def reload() -> str:
        service = Service([model], Limits(9, 9, 9, 9, 9, 9, True), 9, 9, 9, 9)
        shutil.copytree(exported[1], folder, dirs_exist_ok=True)
        await service.reload(only_changed=False)
        service.batcher.close()
        return generate_latest(service.metrics.registry).decode()

    before = model.now.engine
    figures = asyncio.run(asyncio.wait_for(reload(), PATIENCE))
    assert (before, model.now.engine) == ("openvino", "onnxruntime")
    assert re.findall(r"serve_model{engine=\"(\w+)\"", figures) == ["onnxruntime"]


def test_a_load_that_hangs_keeps_no_other_model_from_being_loaded(
    good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go, begun = threading.Event(), threading.Event()

    def load(path: Path) -> Classifier:
        if path.name == "first" and begun.is_set():
            assert go.wait(PATIENCE)
        return Classifier(path, threads=1)

    folders = [Path(shutil.copytree(good, tmp_path / name)) for name in ("first", "second")]
    models = [Model(folder, load) for folder in folders]
    begun.set()
    monkeypatch.setattr(serving, "LONG", 0.01)

    async def reload() -> None:
        service = Service(models, Limits(9, 9, 9, 9, 9, 9, True), 9, 9, 9, 9)
        first, second = (model.now for model in models)
        await service.reload(only_changed=False)
        await service.reload(only_changed=False)
        while models[1].now is second:
            await asyncio.sleep(0.01)
        assert models[0].now is first
        go.set()
        while models[0].now is first:
            await asyncio.sleep(0.01)
        first = models[0].now
        monkeypatch.setattr(serving, "LONG", PATIENCE)
        await service.reload(only_changed=False)
        assert models[0].now is not first
        service.batcher.close()

    caplog.set_level("INFO")
    asyncio.run(asyncio.wait_for(reload(), PATIENCE))
    assert caplog.text.count("first has been loading for 0.01 s and is served as it was") == 1
    assert "first is still being loaded, and not loaded once more" in caplog.text


class Running:
    """A server of its own process."""

    def __init__(self, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.url = url
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        assert self.process.poll() is None, self._log.read_text()
        return self._log.read_text()

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=PATIENCE)

    def ask(self, text: str) -> requests.Response:
        return requests.post(f"{self.url}/predict", json={"inputs": text}, timeout=PATIENCE)

    def reloads(self, outcome: str) -> int:
        pattern = rf'serve_reloads_total{{model="model",outcome="{outcome}"}} (\d+)'
        return sum(map(int, re.findall(pattern, self.get("/metrics").text)))


@contextmanager
def started(folder: Path, *words: str) -> Iterator[Running]:
    """Run a server, and kill it at the end, as it may be busy with what never ends."""
    log = folder.parent / "log.txt"
    with served(log, folder, *words, end=subprocess.Popen.kill) as (url, process):
        yield Running(url, process, log)


def replace(folder: Path, make: Callable[[Path], object]) -> None:
    """Put a folder in the place of another at once."""
    new = folder.with_name("new")
    new.mkdir()
    make(new)
    folder.rename(folder.with_name(f"old-{time.monotonic_ns()}"))
    new.rename(folder)


def copied(
    good: Path, name: str = "", change: Callable[[str], str] = str
) -> Callable[[Path], None]:
    """What makes a copy of a folder in which a file is another, with the right sha256."""

    def make(folder: Path) -> None:
        shutil.copytree(good, folder, dirs_exist_ok=True)
        if name:
            put(folder, name, change((folder / name).read_text()))

    return make


def test_a_good_model_is_served_on_after_each_bad_one(good: Path, folder: Path) -> None:
    def panicking(text: str) -> str:
        broken = {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}
        return json.dumps(json.loads(text) | broken)

    def piped(new: Path) -> None:
        copied(good)(new)
        (new / "tokenizer.json").unlink()
        os.mkfifo(new / "tokenizer.json")

    def described(new: Path) -> None:
        copied(good)(new)
        put(new, "README.md", "---\na: &a [*a]\n---\n")

    def labelled(new: Path) -> None:
        copied(good)(new)
        path = new / "manifest.json"
        path.write_text(path.read_text().replace('"film"', '"\\ud800"'))

    bad = [copied(good, "tokenizer.json", panicking), piped, described, labelled]
    with started(folder, "--watch", "0.05") as server:
        answer = server.ask("goal").json()
        for count, make in enumerate(bad, 1):
            replace(folder, make)
            wait_until(lambda count=count: server.reloads("failed") == count)  # type: ignore[misc]
            assert server.ask("goal").json() == answer
        assert "Traceback" not in server.log
        replace(folder, copied(good))
        wait_until(lambda: server.reloads("loaded") == 1)
        assert server.ask("goal").json() == answer


def test_a_text_that_a_model_fails_on_gets_an_error(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    make_odd_model(folder)
    regex = {
        "type": "Split",
        "pattern": {"Regex": "(a+)+$"},
        "behavior": "Isolated",
        "invert": False,
    }
    tokenizer = json.loads((folder / "tokenizer.json").read_text()) | {"pre_tokenizer": regex}
    put(folder, "tokenizer.json", json.dumps(tokenizer))
    with started(folder) as server:
        right = server.ask("text").json()
        for text in ("nan", "far", "a" * 40 + "!", "a" * 40 + "!" * 4000):
            found = server.ask(text)
            assert (found.status_code, found.json()["error_type"]) == (424, "Backend")
        assert server.ask("text").json() == right
        assert server.get("/healthz").status_code == 200
        assert server.log.count("a batch of 1 texts broke by ") == 2
        assert server.log.count("a tokenizer broke by PanicException") == 2


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_load_without_end_ends_with_the_server(stop: signal.Signals, folder: Path) -> None:
    with started(folder, "--watch", "0") as server:
        replace(folder, lambda new: make_odd_model(new, endless="[UNK]"))
        threads = Path(f"/proc/{server.process.pid}/task")
        before = len([*threads.iterdir()])
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len([*threads.iterdir()]) > before)
        assert server.get("/healthz").status_code == 200
        assert server.ask("goal").status_code == 200
        server.process.send_signal(stop)
        assert server.process.wait(PATIENCE) == 0


def test_a_batch_without_end_ends_with_the_server(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    make_odd_model(folder)
    with started(folder, "--deadline", "1") as server:
        assert server.ask("text").status_code == 200
        assert server.ask("loop").status_code == 504
        assert server.get("/healthz").status_code == 200
        server.process.terminate()
        assert server.process.wait(PATIENCE) == 0
