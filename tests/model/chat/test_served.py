"""What is served, by vLLM and by transformers, beside what was trained."""

import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
import requests
from chat_model import PARAMS, make_conversations, make_family, make_started, tuned
from chat_served import Started, say
from conftest import ROOT

from src.chat import served
from src.core.errors import InputError
from src.predict.chat.client import started

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

VLLM = ROOT / ".venv-vllm"
# It takes minutes and gigabytes to install, so that only some have it; where CI has not, it fails.
with_vllm = pytest.mark.skipif(
    not VLLM.exists() and not os.environ.get("CI"), reason="`make vllm` was not run"
)
# A model of 32 bits is served as it was trained but for the order of sums.
EXACT: dict[str, Any] = {"rows": 4, "max_new_tokens": 12, "tolerance": 0.01, "tie": 0.05}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base whose heads are of a size that vLLM knows, and adapters of it."""
    folder = tmp_path_factory.mktemp("models")
    base = make_started(folder, make_family(folder / "made", "llama", head_dim=32))
    (folder / "divided").mkdir()
    divided = make_conversations(folder / "divided")
    for method, lr in (("lora", 0.1), ("ptuning", 0.5)):
        tuned(method, base, divided, folder, lr=lr)
    return folder


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, from which vLLM is found as it is from the root."""
    (tmp_path / ".venv-vllm").symlink_to(VLLM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def compared(out: str) -> list[list[str]]:
    return [line.strip("|").replace(" ", "").split("|") for line in out.splitlines()[2:]]


@pytest.mark.usefixtures("cwd")
def test_what_transformers_serves_is_what_was_trained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = folder / "base", folder / "lora", folder / "ptuning"
    served.main(*models, divided=str(folder / "divided"), engine="transformers", **EXACT)
    lines = compared(capsys.readouterr().out)
    assert [line[0] for line in lines] == [m for m in ("base", "lora", "ptuning") for _ in "123"]
    assert [line[1] for line in lines[:3]] == ["alone", "8atonce", "not,butinfloat32"]
    for line in lines:
        assert line[2] == "all"
        assert float(line[3]) <= float(line[4]) < 0.001
        assert float(line[6]) < 0.001


@pytest.mark.parametrize("what", ["model", "template"])
def test_another_model_or_template_is_found(
    what: str,
    folder: Path,
    cwd: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As if a server took one model for another, or another template than in training."""

    @contextmanager
    def wrong(models: Any, *further: Any) -> Iterator[Any]:
        base, *adapters = models
        if what == "model":
            adapters = [replace(one, folder=folder / "ptuning") for one in adapters]
        else:
            other = shutil.copytree(base.folder, cwd / "base")
            template = other / "chat_template.jinja"
            template.write_text("{{ 'x' }}" + template.read_text())
            base = replace(base, folder=other)
        with started([base, *adapters], *further) as found:
            yield found

    monkeypatch.setattr(served, "started", wrong)
    models = [folder / "base"] + [folder / "lora"] * (what == "model")
    with pytest.raises(InputError, match="What transformers serves is not what was train") as told:
        served.main(*models, divided=str(folder / "divided"), engine="transformers", **EXACT)
    if what == "model":
        assert re.search(r"lora, alone: a token's log-probability differs by \d", str(told.value))
        assert "base, " not in str(told.value)
    else:
        assert "base, 8 at once: 4 prompts are other tokens than in training" in str(told.value)
    assert capsys.readouterr().out.startswith("| model |")


@with_vllm
@pytest.mark.slow
@pytest.mark.usefixtures("cwd")
def test_what_vllm_serves_is_what_was_trained(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also of a base in one batch with its adapter, and of prompts that are scored there."""
    served.main(folder / "base", folder / "lora", divided=str(folder / "divided"), **EXACT)
    lines = compared(capsys.readouterr().out)
    assert [line[0] for line in lines] == ["base"] * 3 + ["lora"] * 3
    assert all(line[2] == "all" and float(line[3]) < 0.01 for line in lines)


@with_vllm
@pytest.mark.slow
def test_vllm_serves_until_it_is_told_to_end(folder: Path, cwd: Path) -> None:
    server = Started(
        cwd, [folder / "base", f"mine={folder / 'lora'}"], engine="vllm", SERVE_API_KEY="tell me"
    )
    with server.ending():
        assert server.said(rf"serving base, mine at http://127\.0\.0\.1:{server.port}/v1")
        client = server.client("tell me")
        assert [one.id for one in client.models.list()] == ["base", "mine"]
        answers = [say(client, model).choices[0].message.content for model in ("base", "mine")]
        assert answers[0] != answers[1]
        url = f"http://127.0.0.1:{server.port}"
        assert requests.get(f"{url}/v1/models", timeout=20).status_code == 401
        assert "<title>Talk · Pedigree</title>" in requests.get(url, timeout=20).text
        elsewhere = requests.get(url, headers={"Host": "elsewhere.org"}, timeout=20)
        assert elsewhere.status_code == 421
        pieces = client.chat.completions.create(
            model="mine",
            messages=[{"role": "user", "content": "who?"}],
            stream=True,
            max_tokens=200,
            extra_body={"ignore_eos": True},
        )
        first = next(iter(pieces))
        server.process.send_signal(signal.SIGTERM)
        rest = list(pieces)
        assert first.id == rest[-1].id
        assert rest[-1].choices[0].finish_reason == "length", "what had begun was answered"
        assert server.process.wait(60) == 0
        assert server.is_gone()


@with_vllm
@pytest.mark.slow
def test_clients_of_vllm_are_told_when_its_engine_is_killed(folder: Path, cwd: Path) -> None:
    server = Started(cwd, [folder / "base"], engine="vllm")
    with server.ending():
        assert server.said("serving base")
        (main,) = server.engines()
        engine = next(
            one for one in psutil.Process(main).children(recursive=True) if "Engine" in one.name()
        )
        with ThreadPoolExecutor(4) as pool:
            engine.suspend()  # so that it has not answered yet
            asked = [pool.submit(say, server.client(), "base") for _ in range(4)]
            time.sleep(1)
            engine.kill()
            errors = [one.exception(60) for one in asked]
        assert all(isinstance(error, openai.APIError) for error in errors), errors
        assert server.process.wait(60) == 1
        assert server.said(r"ERROR .*The engine has ended, and .* \(.*\.EngineDeadError: ")
        assert "Traceback" not in server.log.read_text()
        assert server.is_gone()
