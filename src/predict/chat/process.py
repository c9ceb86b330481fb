"""The process of an engine: started, awaited until it answers, and ended."""

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

from src.core.errors import InputError

POLL = 0.1  # seconds between looks whether it answers
TELL = 10.0  # seconds between two lines that say that it does not yet
END = 10.0  # seconds that it has to end after it was told so, beside what its requests have
LAST = 2**16  # bytes of its log in which to look for what it said last
# An error that a line tells, with what Python or a logger writes before it.
ERROR = re.compile(r"(?:^|[\s\])])([\w.]*(?:Error|Exception): .+)")


class EngineProcess:
    """An engine that was started.

    Attributes:
        log: the file of what it says.
    """

    def __init__(self, words: Sequence[str], variables: Mapping[str, str], log: Path) -> None:
        """Start it.

        Args:
            words: its command.
            variables: of its environment, beside those of this process.
            log: the file that gets what it says.
        """
        self.log = log
        log.parent.mkdir(exist_ok=True)
        with log.open("wb") as file:
            self._process = _start(words, {**os.environ, **variables}, file)

    def __enter__(self) -> Self:
        """Leave it to a block, behind which it has ended."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.end(0)

    @property
    def code(self) -> int | None:
        """Return its exit code, None while it runs; below 0 for the signal that ended it."""
        return self._process.poll()

    def has_ended(self) -> bool:
        """Tell whether it has ended, or is about to: its clients may know sooner."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        return self.code is not None

    def wait_until_ready(
        self, health: str, tell: Callable[[str], None], given_up: Callable[[], bool]
    ) -> None:
        """Wait until it answers.

        Args:
            health: the URL to ask.
            tell: gets a line now and then, on how it is coming along.
            given_up: tells whether to wait no longer.

        Raises:
            InputError: it has ended.
        """
        start = told = time.monotonic()
        while not (given_up() or _answers(health)):
            if self.code is not None:
                raise InputError(f"The engine ended while it loaded ({self.why()})")
            if time.monotonic() - told > TELL:
                told = time.monotonic()
                tell(f"the engine loads its models: {told - start:.0f} s so far")
            time.sleep(POLL)

    def why(self) -> str:
        """Say how it has ended, and where more of it is said, as the rest of a sentence."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LAST))
            lines = [one.strip() for one in file.read().decode(errors="replace").splitlines()]
        killed = self.code is not None and self.code < 0
        errors = [found[1] for one in lines if not killed and (found := ERROR.search(one))]
        causes = [one for one in errors if "root cause" not in one]  # which stands above them
        told = causes or errors or [one for one in lines if one]
        last = told[-1] if told else "it said nothing"
        code = self.code
        how = "" if code is None else f"signal {-code}: " if code < 0 else f"exit code {code}: "
        return f"{how}{last[:300].rstrip('.')}); {self.log} has more."

    def end(self, drain: float) -> None:
        """Tell it to end, and end it by force if it does not.

        Args:
            drain: seconds that its requests have for their answers.
        """
        if self.code is None:
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(drain + END)
        with suppress(ProcessLookupError):  # whatever it has left of its own processes
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _start(
    words: Sequence[str], variables: Mapping[str, str], file: IO[bytes]
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(  # noqa: S603
        words,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=file,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a Ctrl-C is for us, who tell it
        preexec_fn=_end_with_parent,  # no thread has been started yet
    )


def _end_with_parent() -> None:
    """Be told to end when the process that started this one is gone, even if it was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _answers(health: str) -> bool:
    try:
        with urllib.request.urlopen(health, timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
