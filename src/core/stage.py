"""Run a stage or command: typed values in, a log, and an exit code out."""

import errno
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from src.core.command_line import bind, params_of, program
from src.core.errors import InputError
from src.core.processes import alone

LOGS = Path("logs")
ERROR_FILE = "STAGE_ERROR_FILE"  # the variable that names a file for the sentence of a failed stage

# Escape sequences and what turns the direction of writing; tabs and line ends stay.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

log = logging.getLogger("src.core.stage")


def run(
    main: Callable[..., None],
    *,
    section: bool = True,
    exclusive: bool = True,
    arguments: Callable[[], Sequence[str]] = lambda: sys.argv[1:],
) -> None:
    """Call ``main`` with the typed values of the command line, and exit as a command should.

    Args:
        main: its positional parameters are arguments, its keyword-only ones are options.
        section: the options are the params.yaml section named after the module, and the run keeps
            a log file. False for a command that is not a stage.
        exclusive: refuse a second process that runs the same stage on the same paths.
        arguments: gives the words of the command line, for a command that reads its section of
            params.yaml itself.
    """
    name, start = program().rpartition(".")[2], time.perf_counter()
    # chat/dvc.yaml:lora, or train of the root's pipeline; main may set it for its own processes
    by_dvc = os.environ.get("DVC_STAGE", "")
    _start_log(name, to_file=section)
    sys.excepthook = lambda *exception: log.critical("%s broke", name, exc_info=exception)
    try:
        positional, params = bind(main, name, section, arguments())
        if section:
            _expect_a_commit()
        lock, work = _lock_of(name, positional), f"runs {name} on these paths"
        with alone(lock, work) if section and exclusive else nullcontext():
            main(*positional, **params)
        if section:
            log.info("%s took %.1f s%s", name, time.perf_counter() - start, _memory())
    except InputError as error:
        _tell(str(error))
        if by_dvc:
            log.info(
                "`dvc checkout %s` brings back what this stage wrote before, and "
                "`git restore 'data/*quality.*' dvclive models` what git has of it; a param that "
                "`dvc exp run -S` set stays in %s until `git restore %s` at the root.",
                *(by_dvc.rpartition(":")[0] or "dvc.yaml", *[params_of(main)] * 2),
            )
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if not _is_of_a_full_disk(error):
            raise
        _tell(
            f"The disk is full, so {name} can't write: free some space and run it again; no data "
            f"or model is half written ({error})."
        )
        sys.exit(1)
    except KeyboardInterrupt:
        log.error("Interrupted.")
        sys.exit(130)


def _tell(sentence: str) -> None:
    """Log what stopped a stage, and hand it to a program that asks for it."""
    log.error("%s", sentence)
    if file := os.environ.get(ERROR_FILE):
        with suppress(OSError):  # the sentence may be about a full disk
            Path(file).write_text(sentence, encoding="utf-8")


def _expect_a_commit() -> None:
    """Refuse a git repository without commits, in which DVCLive fails; no repository is fine."""
    git = shutil.which("git")
    verify = [git or "", "rev-parse", "--verify", "--quiet", "HEAD"]
    # 0 where there is a commit, 128 where there is no repository
    if git and subprocess.run(verify, capture_output=True, check=False).returncode == 1:  # noqa: S603
        raise InputError(
            "This git repository has no commit, which DVC compares a run with: `git add --all` and "
            "`git commit` first."
        )


def _lock_of(name: str, paths: Sequence[object]) -> Path:
    which = hashlib.sha256(" ".join(map(str, paths)).encode()).hexdigest()[:8]
    return LOGS / f".{name}-{which}.lock"


def _is_of_a_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return tells_of_a_full_disk(str(error))


def tells_of_a_full_disk(text: str) -> bool:
    """Tell whether a message means a full disk; Rust, C++ and other processes have no errno."""
    return bool(re.search(r"No space left on device|\b(os error|code:) 28\b", text))


def _memory() -> str:
    """Word the most memory that this process held at once, as part of a sentence."""
    status = Path("/proc/self/status")  # where there is one; getrusage gives that of a parent too
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text() if status.exists() else "")
    return f" and at most {int(found[1]) // 1024} MiB" if found else ""


class _Formatter(logging.Formatter):
    """Lines in which no name or text of a stranger moves the cursor of a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return CONTROL.sub(lambda found: ascii(found[0])[1:-1], super().format(record))


def _start_log(name: str, *, to_file: bool) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if to_file:
        LOGS.mkdir(exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%S")
        # evaluate@onnx, where `name` is only evaluate; for a pipeline's, tabular/dvc.yaml:evaluate
        which = re.sub(r"[^\w@.-]+", "-", os.environ.get("DVC_STAGE", name))
        file = LOGS / f"{stamp}-{which}-{os.getpid()}.log"
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=handlers)
    logging.getLogger("src").setLevel(logging.INFO)  # of libraries, warnings only
    logging.captureWarnings(True)
