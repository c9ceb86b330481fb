"""Tiny chat models behind OpenAI's API, in the process of the tests or as a person starts them."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn
from chat_model import make_conversations, make_started, tuned
from conftest import ROOT

from src.chat.api.__main__ import application
from src.chat.conversations import Conversation, Turn
from src.chat.engine import Engine
from src.chat.generation import Generation
from src.chat.scheduler import Scheduler

WAIT = 300  # seconds for a server to start; vLLM compiles a model that it has not seen


class Served:
    """Models behind the API, in this process."""

    def __init__(self, engines: dict[str, Engine], folder: Path, *middleware: Any) -> None:
        self.engines, self.folder = engines, folder
        self.scheduler = Scheduler(engines, 16384, 64)
        listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            application(self.scheduler, *middleware), log_level="warning", lifespan="off"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([listening],), daemon=True)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        self.client = openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0)

    def close(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(10)
        self.scheduler.close()

    def say(self, text: str, **how: Any) -> Any:
        given: dict[str, Any] = {"model": "base", "temperature": 0, "max_tokens": 12} | how
        messages: Any = [{"role": "user", "content": text}]
        return self.client.chat.completions.create(messages=messages, **given)


@contextmanager
def serving(folder: Path, *middleware: Any) -> Iterator[Served]:
    """Serve a base, a LoRA adapter and a prefix, behind classes of ASGI middleware."""
    (folder / "base").mkdir()
    base = make_started(folder / "base")
    (folder / "divided").mkdir()
    divided = make_conversations(folder / "divided")
    engines = {"base": Engine(base, threads=1)}
    for method, lr in (("lora", 0.02), ("ptuning", 0.5)):
        tuned(method, base, divided, folder / "made", lr=lr)
        engines[method] = Engine.of(base, folder / "made" / method, 1)
    found = Served(engines, folder, *middleware)
    yield found
    found.close()


def expected(engine: Engine, text: str) -> str:
    prompt = engine.renderer.prompt(Conversation((Turn("user", text, False),)), 1)
    return engine.answers([prompt], Generation(12), 1000)[0].text


def script(
    served: Served, monkeypatch: pytest.MonkeyPatch, *texts: str, seconds: float = 0
) -> None:
    """Have the base say these, one after the other, with some seconds for each token."""
    engine = served.engines["base"]
    end = sorted(engine.ends)[:1]
    said = [engine.tokenizer(text, add_special_tokens=False)["input_ids"] + end for text in texts]
    desk = served.scheduler._desks["base"]
    begun: dict[int, int] = {}
    batch = engine.batch

    class Scripted:
        def __init__(self) -> None:
            self.inner = batch()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def draw(self) -> list[int]:
            time.sleep(seconds)
            self.inner.draw()
            for going in self.inner.going:
                place = begun.setdefault(id(going), len(begun) % len(said))
                going.made[-1] = said[place][len(going.made) - 1]
            return [going.made[-1] for going in self.inner.going]

    monkeypatch.setattr(desk, "_batch", Scripted())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Started:
    """A server that was started as a person does."""

    def __init__(
        self,
        folder: Path,
        words: Sequence[object],
        *,
        engine: str = "transformers",
        **variables: str,
    ) -> None:
        self.port = free_port()
        self.log = folder / "server.log"
        command = [sys.executable, "-m", "src.serve.chat", *map(str, words)]
        command += ["--engine", engine, "--port", str(self.port), "--threads", "1"]
        with self.log.open("wb") as file:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
                stdout=file,
                stderr=file,
            )

    def said(self, pattern: str) -> bool:
        until = time.monotonic() + WAIT
        while time.monotonic() < until:
            if re.search(pattern, self.log.read_text()):
                return True
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        return bool(re.search(pattern, self.log.read_text()))

    def client(self, key: str = "none") -> openai.OpenAI:
        url = f"http://127.0.0.1:{self.port}/v1"
        return openai.OpenAI(base_url=url, api_key=key, max_retries=0)

    def engines(self) -> list[int]:
        """Return the processes of the engine."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            module = {b"src.chat.api", b"vllm.entrypoints.openai.api_server"} & {*words}
            if module and str(self.port).encode() in words:
                found.append(int(place.name))
        return found

    def is_gone(self) -> bool:
        until = time.monotonic() + 30
        while self.engines() and time.monotonic() < until:
            time.sleep(0.1)
        return not self.engines()

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Kill it behind a block."""
        try:
            yield
        finally:
            self.process.kill()
            self.process.wait()


def say(client: openai.OpenAI, model: str, **how: Any) -> Any:
    given: dict[str, Any] = {"model": model, "max_tokens": 5, "temperature": 0} | how
    messages: Any = [{"role": "user", "content": "who?"}]
    return client.chat.completions.create(messages=messages, **given)
