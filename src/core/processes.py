"""Processes: one at a time on the same paths, and none that outlives DVC."""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from src.core.errors import InputError

POLL = 0.5  # seconds between looks whether DVC is still there


def end_with_dvc() -> None:
    """Exit when DVC, which started this process, is killed, or has been."""
    if "DVC_STAGE" in os.environ and sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        parent = os.getppid()
        # Who takes over what others leave has a session of its own, and DVC is in ours.
        if parent == 1 and os.getsid(1) != os.getsid(0):
            sys.exit(1)
        if _is_of_a_stage(parent):  # such as a shell that waits for us, and would outlive DVC
            threading.Thread(target=_die_after, args=[parent], daemon=True).start()


def _die_after(process: int) -> None:
    """Exit when DVC, the nearest ancestor outside this stage, has gone."""
    while _is_of_a_stage(process):
        process = _stat(process)[1]
    while _stat(process)[0] not in "ZX":
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_of_a_stage(process: int) -> bool:
    """Tell whether DVC started a process or its parent; it started none of other users."""
    try:
        return b"\0DVC_STAGE=" in b"\0" + Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return False


def _stat(process: int) -> tuple[str, int]:
    """Read the state of a process, X if there is none, and its parent."""
    try:
        # What is before the bracket is the name of its program, which may hold spaces.
        state, parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "X", 0
    return state, int(parent)


def lock(file: IO[bytes]) -> bool:
    """Take the lock on an open file until it is closed; False if another process has it."""
    if sys.platform == "win32":  # which has no such locks
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def alone(path: Path, work: str) -> Iterator[None]:
    """Hold the lock at ``path`` while the block runs, and leave the id of this process in it.

    Args:
        path: a file of no other use; it is created, and stays.
        work: the rest of "Another process, 123, ...", such as "runs split on these paths".

    Raises:
        InputError: another process holds it.
    """
    with path.open("ab+") as file:
        if not lock(file):
            file.seek(0)
            other = file.read().decode()
            raise InputError(
                f"Another process, {other}, {work}: wait until it ends, or end it by "
                f"`kill {other}`."
            )
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        file.flush()
        yield
