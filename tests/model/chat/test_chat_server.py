"""The server of chat models: what it refuses, what it serves, and how it ends."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from chat_model import PARAMS, make_conversations, make_started, tuned
from chat_served import WAIT, Started, free_port, say
from conftest import ROOT

from src.core.errors import InputError
from src.predict.chat import models as chat_models
from src.predict.chat.models import EngineOptions, command

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

OPTIONS = EngineOptions("127.0.0.1", 8000, 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_started(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with adapters."""
    divided = make_conversations(tmp_path_factory.mktemp("divided"))
    folder = tmp_path_factory.mktemp("made")
    for method, lr in (("lora", 0.1), ("ptuning", 0.5)):
        tuned(method, base, divided, folder, lr=lr)
    return folder


@pytest.fixture
def server(base: Path, made: Path, tmp_path: Path) -> Iterator[Started]:
    words = base, made / "lora", f"prefix={made / 'ptuning'}"
    started = Started(tmp_path, words, SERVE_API_KEY="tell me")
    with started.ending():
        yield started
    assert started.is_gone()


def test_models_are_served_to_those_who_have_the_key_until_it_is_told_to_end(
    server: Started,
) -> None:
    assert server.said(rf"serving base, lora, prefix at http://127\.0\.0\.1:{server.port}/v1")
    client = server.client("tell me")
    assert [one.id for one in client.models.list()] == ["base", "lora", "prefix"]
    for model in ("base", "lora", "prefix"):
        assert say(client, model).usage.completion_tokens > 0
    with pytest.raises(openai.AuthenticationError, match="The key is missing or wrong"):
        server.client("tell").models.list()
    url = f"http://127.0.0.1:{server.port}"
    assert "<title>Talk · Pedigree</title>" in requests.get(url, timeout=20).text
    assert requests.get(f"{url}/feedback", timeout=20).status_code == 401
    key = {"Authorization": "Bearer tell me"}
    assert requests.get(f"{url}/feedback", headers=key, timeout=20).json() == {"open": False}
    there = ["curl", "-s", f"http://127.0.0.1:{server.port}/v1/models", "-H", "Host: elsewhere.org"]
    found = json.loads(subprocess.run(there, capture_output=True, check=True).stdout)
    assert "does not answer to this host" in found["error"]["message"]
    pieces = client.chat.completions.create(
        model="lora",
        messages=[{"role": "user", "content": "who?"}],
        stream=True,
        max_tokens=200,
        temperature=1,
        seed=5,
    )
    first = next(iter(pieces))
    server.process.send_signal(signal.SIGTERM)
    rest = list(pieces)
    assert first.id == rest[-1].id
    assert rest[-1].choices[0].finish_reason, "what had begun was answered to its end"
    assert server.process.wait(WAIT) == 0
    assert server.said(r"src\.serve\.chat: ended")


def test_a_server_whose_engine_is_killed_says_so_and_ends(server: Started) -> None:
    assert server.said("serving base")
    (engine,) = server.engines()
    client = server.client("tell me")
    hot = {"temperature": 1, "max_tokens": 490}
    with ThreadPoolExecutor(6) as pool:
        asked = [pool.submit(say, client, "base", seed=seed, **hot) for seed in range(6)]
        pieces = say(client, "lora", stream=True, seed=1, **hot)
        next(iter(pieces))
        os.kill(engine, signal.SIGKILL)
        with pytest.raises(Exception, match=r"[Cc]onnection|peer"):
            list(pieces)
        errors = [one.exception(60) for one in asked]
    assert any(errors)
    assert all(error is None or isinstance(error, openai.APIError) for error in errors)
    assert server.process.wait(WAIT) == 1
    assert server.said(r"ERROR .*The engine has ended, and the server with it \(signal 9: ")
    assert "Traceback" not in server.log.read_text()


def test_an_engine_ends_with_a_server_that_is_killed(server: Started) -> None:
    assert server.said("serving base")
    assert server.engines()
    server.process.kill()
    assert server.is_gone()


def refused(folder: Path, *words: object) -> str:
    command = [sys.executable, "-m", "src.serve.chat", *map(str, words)]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def test_what_stands_in_the_way_is_told_before_models_are_loaded(
    base: Path, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        words = base, "--engine", "transformers", "--port", port
        assert f"Can't listen at 127.0.0.1:{port}" in refused(tmp_path, *words)
    assert "There is no .venv-vllm/bin/python: run `make vllm`" in refused(tmp_path, base)
    for name, told in (("none/a.jsonl", "can't be written (No such file"), ("a", "ends in .jsonl")):
        words = base, "--engine", "transformers", "--feedback", name
        assert told in refused(tmp_path, *words)
    (tmp_path / ".venv-vllm/bin").mkdir(parents=True)
    (tmp_path / ".venv-vllm/bin/python").touch()
    assert "GiB and" in refused(tmp_path, base, "--kv_space", 10**6)
    vllm = "--engine", "transformers", "--max_length", 9
    assert "--max_length is for --engine vllm: leave it out" in refused(tmp_path, base, *vllm)
    broken = Path(shutil.copytree(base, tmp_path / "broken"))
    (broken / "model.safetensors").write_bytes(b"nothing")
    told = refused(tmp_path, broken, "--engine", "transformers", "--port", free_port())
    assert "The engine ended while it loaded (exit code 1: " in told


def test_folders_that_cant_be_served_together_are_told(
    base: Path, made: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(base, tmp_path / "other"))
    record = json.loads((other / "base.json").read_text())
    (other / "base.json").write_text(json.dumps(record | {"sha256": {"a": "b"}}))
    spoilt = Path(shutil.copytree(made / "lora", tmp_path / "spoilt"))
    (spoilt / "adapter_config.json").write_text("{")
    cases: list[tuple[list[Path | str], str]] = [
        ([tmp_path / "none"], "There is no model in .*none, which is no folder: name another"),
        ([made], r"There is no model in .*: name one of those in it, .*/lora, .*/ptuning\."),
        ([base, other], "are both whole models: serve one with its adapters"),
        ([other, made / "lora"], "whose weights are not the same by their sha256"),
        (
            [base, made / "lora", made / "lora"],
            "Two folders have the same name \\(base, lora, lora\\)",
        ),
        ([base, f"a*b={made / 'lora'}"], "'a\\*b' can't be the name of a model"),
        ([base, spoilt], "adapter_config.json can't be read"),
    ]
    for folders, told in cases:
        with pytest.raises(InputError, match=told):
            chat_models.chat_models([Path(one) for one in folders], base)
    alone = chat_models.chat_models([made / "lora"], base)
    assert [one.name for one in alone] == ["base", "lora"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"peft_type": "PREFIX_TUNING"}, "such as P-Tuning, which vLLM can't serve: serve it by"),
        ({"use_dora": True}, "DoRA, which vLLM can't serve"),
        ({"r": 600}, "has rank 600, and vLLM serves at most 512"),
    ],
)
def test_what_vllm_cant_serve_is_told(
    change: dict[str, Any], told: str, base: Path, made: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made / "lora", tmp_path / "lora"))
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | change))
    with pytest.raises(InputError, match=told):
        command(chat_models.chat_models([base, folder], base), "vllm", OPTIONS)


def test_weights_packed_by_bitsandbytes_are_not_for_vllm(base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "packed"))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="packed by bitsandbytes, for which vLLM has no loader"):
        command(chat_models.chat_models([folder], base), "vllm", OPTIONS)


def test_vllm_gets_the_adapters_with_room_for_their_rank(
    base: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.touch()
    monkeypatch.setattr(chat_models, "VLLM", python)
    found = chat_models.chat_models([base, made / "lora", Path(f"tool={made / 'lora'}")], base)
    words, variables = command(found, "vllm", OPTIONS)
    text = " ".join(words)
    assert text.startswith(f"{python} -m vllm.entrypoints.openai.api_server --model {base} ")
    assert "--enable-lora --max-loras 3 --max-lora-rank 8 --lora-target-modules down_proj" in text
    assert "lm_head" not in text
    assert "--shutdown-timeout 30" in text
    assert f"lora={made / 'lora'} tool={made / 'lora'}" in text
    assert "--enable-auto-tool-choice --tool-call-parser hermes" in text
    assert text.endswith("--middleware src.predict.chat.front.Front")
    assert variables["VLLM_CPU_KVCACHE_SPACE"] == "1"
