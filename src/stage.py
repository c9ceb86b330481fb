"""What every stage shares: its command line, its log, its exit and its outputs.

The signature of a stage's ``main`` is the schema of both its command line and its section of
``params.yaml``: positional parameters are paths, keyword-only parameters are params, and none has
a default. DVC expands a section to ``--key value``, so a missing key, a stray key, a wrong type or
a value out of range stops the stage before any work is done.

Only the standard library is imported here, because what serves a model imports this module too.
"""

import argparse
import ctypes
import difflib
import errno
import hashlib
import inspect
import json
import logging
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

LOGS = Path("logs")
POLL = 0.5  # seconds between looks whether DVC is still there

log = logging.getLogger("src.stage")


class InputError(Exception):
    """A user's mistake, in one sentence: what was expected, what was found and what to do.

    ``run`` logs the sentence and exits with 1. Any other exception is a defect of the project and
    keeps its traceback.
    """


@dataclass(frozen=True)
class Interval:
    """The numbers a param may be, as in ``Annotated[float, Interval(gt=0, le=1)]``."""

    ge: float = -math.inf
    gt: float = -math.inf
    le: float = math.inf
    lt: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.ge <= value <= self.le and self.gt < value < self.lt

    def __str__(self) -> str:
        bounds = {"at least": self.ge, "above": self.gt, "at most": self.le, "below": self.lt}
        finite = [f"{words} {bound:.12g}" for words, bound in bounds.items() if abs(bound) < 1e300]
        return " and ".join(finite)


Count = Annotated[int, Interval(ge=1)]
Threads = Annotated[int, Interval(ge=1, le=1024)]
Share = Annotated[float, Interval(gt=0, lt=1)]
Seed = Annotated[int, Interval(ge=0, lt=2**32)]


def run(
    main: Callable[..., None],
    *,
    section: bool = True,
    alone: bool = True,
    arguments: Callable[[], Sequence[str]] = lambda: sys.argv[1:],
) -> None:
    """Call ``main`` with the typed values of the command line, and exit as a command should.

    Args:
        main: its positional parameters are arguments, its keyword-only ones are options.
        section: the options are the params.yaml section named after the module, and the run keeps
            a log file. False for a command that is not a stage.
        alone: a second process that runs the same stage on the same paths is refused.
        arguments: gives the words of the command line, for a command that gets its section from
            params.yaml itself.
    """
    name, start = Path(sys.argv[0]).stem, time.perf_counter()
    by_dvc = "DVC_STAGE" in os.environ  # which main may set for processes of its own
    _start_log(name, to_file=section)
    sys.excepthook = lambda *exception: log.critical("%s broke", name, exc_info=exception)
    try:
        positional, params = bind(main, name, section, arguments())
        if section:
            _die_with_parent()
            _expect_a_commit()
        with _alone(name, positional) if section and alone else nullcontext():
            main(*positional, **params)
        if section:
            log.info("%s took %.1f s%s", name, time.perf_counter() - start, _memory())
    except InputError as error:
        log.error("%s", error)
        if by_dvc:
            log.info(
                "`dvc checkout` brings back what this stage wrote before, and "
                "`git restore data/quality.* dvclive models` what git has of it."
            )
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if not _is_of_a_full_disk(error):
            raise
        log.error(
            "Expected room on the disk for what %s writes, found none left: free some and run it "
            "again; no data or model is half written (%s).",
            *(name, error),
        )
        sys.exit(1)
    except KeyboardInterrupt:
        log.error("Interrupted.")
        sys.exit(130)


def _die_with_parent() -> None:
    """Have this process end when DVC, which started it, is killed."""
    if "DVC_STAGE" in os.environ and sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was killed just before
            sys.exit(1)
        if _is_of_a_stage(parent):  # such as a shell that waits for us, and would outlive DVC
            threading.Thread(target=_die_after, args=[parent], daemon=True).start()


def _die_after(process: int) -> None:
    """End this process when the first ancestor is gone that is not of the stage: DVC."""
    while _is_of_a_stage(process):
        process = _stat(process)[1]
    while _stat(process)[0] not in "ZX":
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGKILL)


def _is_of_a_stage(process: int) -> bool:
    """Whether DVC started a process, or its parent; what other users run, it did not."""
    try:
        return b"\0DVC_STAGE=" in b"\0" + Path(f"/proc/{process}/environ").read_bytes()
    except OSError:
        return False


def _stat(process: int) -> tuple[str, int]:
    """The state of a process, X if there is none, and its parent."""
    try:
        # What is before the bracket is the name of its program, which may hold spaces.
        state, parent = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return "X", 0
    return state, int(parent)


def _expect_a_commit() -> None:
    """Refuse a git repository without commits, in which DVCLive breaks; none at all will do."""
    git = shutil.which("git")
    verify = [git or "", "rev-parse", "--verify", "--quiet", "HEAD"]
    # 0 where there is a commit, 128 where there is no repository
    if git and subprocess.run(verify, capture_output=True, check=False).returncode == 1:  # noqa: S603
        raise InputError(
            "Expected a commit in git, which DVC compares this run with, found none: `git add "
            "--all` and `git commit` first."
        )


@contextmanager
def _alone(name: str, paths: Sequence[object]) -> Iterator[None]:
    """Hold the lock of a stage on its paths; another process that wants it is refused.

    Raises:
        InputError: names the process that holds it.
    """
    if sys.platform == "win32":  # which has no such locks
        yield
        return
    import fcntl

    which = hashlib.sha256(" ".join(map(str, paths)).encode()).hexdigest()[:8]
    with (LOGS / f".{name}-{which}.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = file.read()
            raise InputError(
                f"Expected to be the only process that runs {name} on these paths, found process "
                f"{other} at it: wait until it ends, or end it by `kill {other}`."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _is_of_a_full_disk(error: BaseException) -> bool:
    """Whether an exception is, or tells, that a disk or a quota is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return tells_of_a_full_disk(str(error))


def tells_of_a_full_disk(text: str) -> bool:
    """Whether a message is of a full disk; Rust, C++ and other processes have no errno."""
    return bool(re.search(r"No space left on device|\b(os error|code:) 28\b", text))


def _memory() -> str:
    """The part of a sentence about the most memory that this process held at once."""
    status = Path("/proc/self/status")  # where there is one; getrusage gives that of a parent too
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text() if status.exists() else "")
    return f" and at most {int(found[1]) // 1024} MiB" if found else ""


def options() -> list[str]:
    """The options of this command line as they came, for processes that a stage starts."""
    first = next((k for k, word in enumerate(sys.argv) if word.startswith("--")), len(sys.argv))
    return sys.argv[first:]


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A folder beside ``path`` for what is not finished; what killed runs left of it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        if not _is_running(left.name.split(".")[-3]):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{path.name}.{os.getpid()}.", suffix=".tmp", dir=path.parent
    ) as folder:
        yield Path(folder)


def _is_running(pid: str) -> bool:
    if sys.platform == "win32":  # where this would end the process
        return False
    try:
        os.kill(int(pid), 0)
    except PermissionError:  # somebody else's
        return True
    except (ProcessLookupError, ValueError):
        return False
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write a file or folder to; it becomes ``path`` only if the block ends well."""
    with scratch(path) as holder:
        fresh = holder / path.name
        yield fresh
        if path.is_dir():
            path.rename(holder / "old")
        fresh.replace(path)


def write_json(path: Path, value: object) -> None:
    """Write ``value`` as JSON that is equal, byte for byte, for equal values."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def closest(word: str, among: Iterable[str]) -> str:
    """The sentence part that points at the likeliest spelling: " (did you mean 'text'?)" or ""."""
    lower = {candidate.lower(): candidate for candidate in among}
    match = difflib.get_close_matches(word.lower().strip(), lower, n=1)
    return f" (did you mean {lower[match[0]]!r}?)" if match else ""


def _start_log(name: str, *, to_file: bool) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if to_file:
        LOGS.mkdir(exist_ok=True)
        stamp = time.strftime("%Y%m%dT%H%M%S")
        which = os.environ.get("DVC_STAGE", name)  # evaluate@onnx, where `name` is only evaluate
        file = LOGS / f"{stamp}-{which}-{os.getpid()}.log"
        handlers.append(logging.FileHandler(file, encoding="utf-8"))
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=handlers,
    )
    logging.getLogger("src").setLevel(logging.INFO)  # of libraries, warnings only
    logging.captureWarnings(True)


class Parser(argparse.ArgumentParser):
    """A parser of a command line whose mistakes are an ``InputError``."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where to look."""
        raise InputError(f"{message}; `python -m src.{self.prog} --help` lists what it takes.")


def bind(
    main: Callable[..., None], name: str, section: bool, arguments: Sequence[str]
) -> tuple[list[Any], dict[str, Any]]:
    """Parse ``arguments`` by the signature of ``main``: positional values, then options by name."""
    parser = Parser(prog=name, description=inspect.getdoc(main), allow_abbrev=False)
    parameters = inspect.signature(main, eval_str=True).parameters.values()
    options = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
    arguments_of_main = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    for p in arguments_of_main:
        if p.kind is p.VAR_POSITIONAL:
            parser.add_argument(p.name, type=p.annotation, nargs="*", default=[])
        else:
            parser.add_argument(p.name, type=p.annotation)
    for p in options.values():
        # DVC writes lists as many words; on a command of our own, words after a value are texts.
        words: dict[str, Any] = {"nargs": "*" if section else 1}
        if p.annotation is bool and not section:
            words = {"action": "store_const", "const": []}
        # On a command of our own, --text-column is --text_column; params have the one name only.
        names = [p.name] if section else list(dict.fromkeys([p.name, p.name.replace("_", "-")]))
        flags = [f"--{name}" for name in names]
        parser.add_argument(*flags, dest=p.name, help=_describe(p.annotation), **words)
        if p.annotation is bool:
            flags = [f"--no-{name}" for name in names]
            parser.add_argument(*flags, dest=p.name, action="store_const", const=["no"])
    # argparse takes -1 for a value but -1e-5 for an option; here only two dashes start an option.
    parser._negative_number_matcher = re.compile("-[^-]")
    parse = parser.parse_known_args if section else parser.parse_known_intermixed_args
    given, unknown = parse(arguments)
    where = (f"{name}.", "in params.yaml") if section else ("--", "on the command line")
    if unknown:
        key = unknown[0].removeprefix("--no-").removeprefix("--")
        hint = closest(key, options)
        raise InputError(
            f"{where[0]}{key} is not known{hint}: {name} takes {', '.join(options) or 'none'}; "
            f"rename or remove it {where[1]}{'' if section else ', or put -- before texts'}."
        )
    positional: list[Any] = []
    for p in arguments_of_main:
        value = getattr(given, p.name)
        positional.extend(value if isinstance(value, list) else [value])
    params = {p.name: value_of(p, getattr(given, p.name), *where) for p in options.values()}
    return positional, params


def value_of(p: inspect.Parameter, words: list[str] | None, prefix: str, place: str) -> Any:
    """The typed value of one option from its words.

    Raises:
        InputError: the words are no such value.
    """
    if words is None and p.default is not p.empty:
        return p.default
    kind = get_args(p.annotation)[0] if get_origin(p.annotation) is Annotated else p.annotation
    if words is None and get_origin(kind) is list:
        return []  # DVC leaves an empty list out of the command line
    expected = f"expected {_describe(p.annotation)}"
    if words is None:
        raise InputError(f"{prefix}{p.name} is missing: {expected}; set it {place}.")
    try:
        return _parse(p.annotation, words)
    except ValueError:
        # An option without words is what DVC makes of `key: true`.
        found = " ".join(words) if words else "true"
        raise InputError(f"{prefix}{p.name} is {found!r}: {expected}; change it {place}.") from None


def _parse(kind: Any, words: Sequence[str]) -> Any:
    """Turn the words of one option into a value of ``kind``; ValueError if they are not one."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        value = _parse(parts[0], words)
        if any(
            number not in parts[1] for number in (value if isinstance(value, list) else [value])
        ):
            raise ValueError(words)
        return value
    if origin is list:
        return [_parse(parts[0], [word]) for word in words]
    if origin in (Union, UnionType):
        for part in parts:
            try:
                return _parse(part, words)
            except ValueError:
                continue
        raise ValueError(words)
    if kind is bool and words in ([], ["no"]):
        return words == []
    if kind is bool or len(words) != 1:
        raise ValueError(words)
    if origin is Literal:
        return parts[parts.index(words[0])]
    value = kind(words[0])
    if kind is float and not math.isfinite(value):
        raise ValueError(words)
    return value


def _describe(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return f"{_describe(parts[0])} {parts[1]}"
    if origin is list:
        return f"a list, each {_describe(parts[0])}"
    if origin in (Union, UnionType):
        return " or ".join(map(_describe, parts))
    if origin is Literal:
        return "one of " + ", ".join(parts) if len(parts) > 1 else str(parts[0])
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    return names[kind]
