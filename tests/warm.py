"""Commands of Python that begin at once: each is forked from a process that has done its imports.

The tests call `dvc` and `python -m` some two hundred times, DVC calls stages as often, and imports
take most of the time of such a call. What is forked has the arguments, folder, environment, inputs
and outputs of a process of its own, and ends as one. A test that is about the process, as one that
kills it, starts a real one.
"""

import atexit
import ctypes
import gc
import hashlib
import marshal
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

# What `dvc` and the commands of src import on their way. Nothing of src itself, since each copy of
# the project has its own, and nothing that starts threads, which a fork would not have.
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
    "sklearn.ensemble",
    "sklearn.feature_extraction.text",
    "torch",
    "transformers.trainer",
    "transformers.models.bert.modeling_bert",
    "dvclive.live",
    "onnxscript",
)
# What libraries read as they are imported. A command for which it differs is not forked.
READ_AT_IMPORT = ("PYTHON", "HF_", "TRANSFORMERS_", "OMP_", "GOMP_", "MKL_", "OPENBLAS_", "LD_")
READ_LATER = {"PYTHONBREAKPOINT"}  # which ray sets in the process that imports it
LIMIT = 2**20  # bytes of a request

Request = tuple[list[str], str, dict[str, str]]  # the command, its folder and its environment


class Forks:
    """The way to the server, which all processes of the tests share, and which ends with them."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.server: socket.socket | None = None

    def environment(self) -> dict[str, str]:
        """Return the environment in which `python` and `dvc` are forked, if there is a folder."""
        if not self.folder:
            return dict(os.environ)
        self.server = self.server or self._connect(self.folder)
        return os.environ | {"PATH": f"{self.folder}{os.pathsep}{os.environ['PATH']}"}

    def _connect(self, folder: Path) -> socket.socket:
        """Connect with the server for as long as there are commands; start it if there is none."""
        path = str(folder / "socket")
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with FileLock(folder / "lock"):
            try:
                server.connect(path)
            except OSError:
                Path(path).unlink(missing_ok=True)
                self._start(folder, path)
                server.connect(path)
        return server

    def _start(self, folder: Path, path: str) -> None:
        script = f"#!{sys.executable} -IS\n{Path(__file__).with_name('shim.py').read_text()}"
        for name in ("python", "dvc"):
            (folder / name).write_text(script)
            (folder / name).chmod(0o755)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen(64)
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(listener.fileno()), str(folder / "python")],
                pass_fds=[listener.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt ends it by ending the tests
            )

    def end(self) -> None:
        if self.server:
            self.server.close()


FORKS = Forks()  # those of this process


def read_at_import(environment: Mapping[str, str]) -> dict[str, str]:
    names = (name for name in environment if name.startswith(READ_AT_IMPORT))
    return {name: environment[name] for name in names if name not in READ_LATER}


STARTED_WITH = read_at_import(os.environ)  # to which imports add


def wait_for_requests(listener: socket.socket) -> Request:
    """Fork for every request, and return it, in the fork alone.

    Each command has a connection, and is killed when that is closed, as who asks for it is. Those
    of the tests ask for nothing: the server ends when the last of them has been closed.
    """
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    while True:
        (key, _), *_ = selector.select()
        source = key.fileobj
        if source is listener:
            selector.register(listener.accept()[0], selectors.EVENT_READ)
        elif isinstance(source, int):  # which tells that a fork has ended
            child, connection = key.data
            selector.unregister(source)
            os.close(source)
            _, status = os.waitpid(child, 0)
            if connection.fileno() >= 0:
                selector.modify(connection, selectors.EVENT_READ)
                with suppress(OSError):
                    connection.send(str(os.waitstatus_to_exitcode(status)).encode())
        elif isinstance(source, socket.socket):
            message, fds = receive(source)
            request: Request | None = marshal.loads(message) if message else None  # noqa: S302
            if not request:
                selector.unregister(source)
                source.close()
                if key.data is not None:
                    signal.pidfd_send_signal(key.data, signal.SIGKILL)
            elif read_at_import(request[2]) != STARTED_WITH:
                with suppress(OSError):
                    source.send(b"refused")
            elif child := os.fork():
                ended = os.pidfd_open(child)
                selector.modify(source, selectors.EVENT_READ, ended)
                selector.register(ended, selectors.EVENT_READ, (child, source))
            else:
                for number, fd in enumerate(fds):
                    os.dup2(fd, number)
                    os.close(fd)
                for kept in list(selector.get_map().values()):  # whose ends are to be seen
                    file = kept.fileobj
                    file.close() if isinstance(file, socket.socket) else os.close(kept.fd)
                return request
            for fd in fds:
                os.close(fd)
        if len(selector.get_map()) == 1:
            sys.exit()


def remember_yaml(folder: Path) -> None:
    """Let DVC parse each text of YAML once in all processes: it is most of what DVC still does.

    The parser is written in Python, and reads params.yaml anew for every stage. What it makes of a
    text depends on nothing else.
    """
    from dvc.utils import strictyaml
    from dvc.utils.serialize import _yaml

    parse = _yaml.parse_yaml

    def parse_once(text: str, path: str, typ: str = "safe") -> Any:
        if typ != "safe":  # what DVC changes and writes again, with comments
            return parse(text, path, typ)
        file = folder / hashlib.sha256(text.encode()).hexdigest()
        if file.exists():
            return marshal.loads(file.read_bytes())  # noqa: S302
        parsed = parse(text, path, typ)
        with suppress(ValueError):  # it holds what is no value of JSON
            fresh = file.with_suffix(f".{os.getpid()}")
            fresh.write_bytes(marshal.dumps(parsed))
            fresh.rename(file)
        return parsed

    _yaml.parse_yaml = strictyaml.parse_yaml = parse_once


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """Return a request and its inputs and outputs, or nothing if the other end is closed."""
    try:
        return socket.recv_fds(connection, LIMIT, 3)[:2]
    except ConnectionResetError:
        return b"", []


def become(request: Request, shim: str) -> None:
    """Run a command in this process, as Python does in a new one."""
    words, folder, environment = request
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: it ends with the server
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    np.random.seed()  # noqa: NPY002 -- of its own, as that of `random` is after a fork
    tempfile.tempdir = None  # the environment may name another one
    real = Path(sys.executable)
    sys.executable = shim  # what it starts by that name is forked as well
    if words[0] == "dvc":
        script = str(real.with_name("dvc"))
        sys.path[0], sys.argv = str(real.parent), [script, *words[1:]]
        runpy.run_path(script, run_name="__main__")
    else:
        sys.path[0], sys.argv = folder, ["-m", *words[3:]]
        runpy.run_module(words[2], run_name="__main__", alter_sys=True)


def end_with(request: Request, shim: str) -> None:
    """Run a command, and end this process as Python does, but for taking apart what is loaded."""
    code = 0
    try:
        become(request, shim)
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
    remember_yaml(Path(sys.argv[2]).parent)
    gc.collect()
    gc.freeze()  # so that a fork does not copy all of it by looking for garbage
    request = wait_for_requests(socket.socket(fileno=int(sys.argv[1])))
    end_with(request, sys.argv[2])
