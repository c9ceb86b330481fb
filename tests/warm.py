"""Commands of Python that begin at once: each is forked from a process that has done its imports.

The tests call `dvc` and `python -m` some two hundred times, and imports take most of the time of
such a call. What is forked has the arguments, folder, environment and outputs of a process of its
own, and ends as one. A test that is about the process, as one that kills it, starts a real one.
"""

import atexit
import gc
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

# What `dvc` and the commands of src import on their way. Nothing of src itself: each copy of the
# project has its own.
MODULES = (
    "dvc.cli.parser",
    "dvc.repo.open_repo",
    "dvc.repo.experiments.run",
    "dvc.repo.experiments.show",
    "dvc.repo.experiments.queue.celery",
    "dvc.utils.hydra",
    "dvc.utils.strictyaml",
    "dvc_data.index.push",
    "dvc_task.app.filesystem",
    "celery.app.amqp",
    "kombu.transport.filesystem",
    "networkx",
    "scmrepo.git.backend.pygit2.filter",
    "pandas",
    "pyarrow.parquet",
    "sklearn.metrics",
)
LIMIT = 2**20  # bytes of a request


class Warm:
    """The process that others are forked from, one after the other."""

    def __init__(self) -> None:
        self.requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )

    def run(self, command: Sequence[str], folder: Path) -> tuple[int, str]:
        """Run a command, and return its exit code and what it printed on both outputs."""
        request = {"words": command, "folder": str(folder), "environment": dict(os.environ)}
        with tempfile.TemporaryFile() as printed:
            message = json.dumps(request).encode()
            socket.send_fds(self.requests, [message], [printed.fileno()])
            code = int(self.requests.recv(LIMIT))
            printed.seek(0)
            return code, printed.read().decode()

    def end(self) -> None:
        self.requests.close()
        self.process.wait()


def variables() -> dict[str, str]:
    """Return what the environment tells Python itself, which reads it as it starts."""
    return {name: value for name, value in os.environ.items() if name.startswith("PYTHON")}


STARTED_WITH = variables()


def accepts(command: Sequence[str]) -> bool:
    """Tell whether a command is `dvc`, or one of src, that a fork runs as a new process does."""
    ours = command[0] in ("python", sys.executable) and command[1] == "-m"
    known = command[0] == "dvc" or (ours and command[2].startswith("src."))
    return known and sys.platform == "linux" and variables() == STARTED_WITH


def wait_for_requests(requests: socket.socket) -> list[str]:
    """Fork for every request, and return, in the fork alone, the words of its command."""
    while True:
        message, fds, *_ = socket.recv_fds(requests, LIMIT, 1)
        if not message:
            sys.exit()  # who asks has ended
        if child := os.fork():
            os.close(fds[0])
            _, status = os.waitpid(child, 0)
            requests.send(str(os.waitstatus_to_exitcode(status)).encode())
            continue
        request = json.loads(message)
        for fd in (sys.stdout.fileno(), sys.stderr.fileno()):
            os.dup2(fds[0], fd)
        os.close(fds[0])
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        words: list[str] = request["words"]
        return words


def become(words: list[str]) -> None:
    """Run a command in this process, as Python does in a new one."""
    tempfile.tempdir = None  # the environment may name another one
    if words[0] == "dvc":
        script = str(shutil.which("dvc"))
        sys.path[0], sys.argv = str(Path(script).parent), [script, *words[1:]]
        runpy.run_path(script, run_name="__main__")
    else:
        sys.path[0], sys.argv = str(Path.cwd()), ["-m", *words[3:]]
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)


def end_with(words: list[str]) -> None:
    """Run a command, and end this process as Python does, but for taking apart what is loaded."""
    code = 0
    try:
        become(words)
    except SystemExit as ended:
        if isinstance(ended.code, int):
            code = ended.code
        elif ended.code is not None:
            sys.stderr.write(f"{ended.code}\n")
            code = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for module in MODULES:
        import_module(module)
    gc.collect()
    gc.freeze()  # so that a fork does not copy all of it by looking for garbage
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        words = wait_for_requests(requests)
    end_with(words)
