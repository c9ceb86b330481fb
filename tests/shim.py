"""Stands as `python` and `dvc` in front of PATH, and has what warm.py accepts forked there.

It begins in a hundredth of a second, as it imports nothing that is written in Python. All that the
server does not take, and all of it when there is none, is run by the real command.
"""

import _socket
import marshal
import os
import sys
from array import array

FOLDER, _, NAME = sys.argv[0].rpartition("/")
ARGUMENTS = sys.argv[1:]
MODULES = ("cookiecutter", "dvc", "pytest")  # and those of src
WORDS = [NAME, *ARGUMENTS[ARGUMENTS[:1] == ["-u"] :]]  # torchrun gives it


def forked() -> int | None:
    """Return the exit code that the fork ended with, or None if there was no fork."""
    module = WORDS[2] if WORDS[1:2] == ["-m"] and len(WORDS) > 2 else ""
    if NAME == "python" and module not in MODULES and not module.startswith("src."):
        return None
    server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        server.connect(f"{FOLDER}/socket")
        request = marshal.dumps((WORDS, os.getcwd(), dict(os.environ)))  # noqa: PTH109
        fds = array("i", (0, 1, 2)).tobytes()
        server.sendmsg([request], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fds)])
        answer = server.recv(64)
    except OSError:
        return None
    if answer == b"refused":
        return None
    return int(answer or 1)  # 1 if the server is gone


code = forked()
if code is None:
    real = f"{sys.executable.rpartition('/')[0]}/{NAME}"
    os.execv(real, [real, *ARGUMENTS])  # noqa: S606
if code < 0:
    os.kill(os.getpid(), -code)
os._exit(code)
