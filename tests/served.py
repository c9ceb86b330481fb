"""A server in a process of its own, as a person starts it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from conftest import ROOT

PATIENCE = 60  # seconds for what is going to come


def wait_until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise TimeoutError(condition)


@contextmanager
def served(
    log: Path,
    *words: str | Path,
    files: int = 1024,
    end: Callable[[subprocess.Popen[bytes]], None] = subprocess.Popen.terminate,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run `python -m src.serve` with a log and so many files; its address, and its process."""
    command = [sys.executable, "-m", "src.serve", *map(str, words), "--port", "0"]
    limited = ["sh", "-c", f'ulimit -S -n {files} && exec "$@"', "sh", *command]
    with log.open("wb") as file:
        process = subprocess.Popen(
            limited, cwd=ROOT, env={**os.environ, **environment}, stderr=file
        )

    def address() -> str:
        assert process.poll() is None, log.read_text()
        found = re.search(r"at (http://\S+)\n", log.read_text())
        return found[1] if found else ""

    try:
        yield wait_until(address), process
    finally:
        end(process)
        process.wait(PATIENCE)
