"""git, as commands of this project use it."""

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from src.core.errors import InputError

SHOWN = 5  # names in a sentence


def run(
    *words: str, cwd: Path | None = None, text: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run git, with ``text`` as its input, and return its exit code and outputs.

    Raises:
        InputError: git is not installed.
    """
    try:
        return subprocess.run(
            ["git", *words], cwd=cwd, input=text, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        if cwd and not cwd.exists():
            raise
        raise InputError("git is not on the PATH: install it.") from None


def output(*words: str, cwd: Path | None = None) -> str:
    """Return what a git command prints, without the line end; InputError if it fails."""
    done = run(*words, cwd=cwd)
    if done.returncode:
        told = " ".join(done.stderr.split())
        raise InputError(f"`git {words[0]}` failed ({told}): `make doctor` says what git needs.")
    return done.stdout.rstrip("\n")


def names(*words: str, cwd: Path | None = None) -> list[str]:
    """Return the paths that a git command lists with ``-z``, as they are."""
    return output(words[0], "-z", *words[1:], cwd=cwd).split("\0")[:-1]


def status(*words: str) -> Iterator[tuple[str, str]]:
    """Yield the state of each change, two letters as of ``git status --porcelain``, and path."""
    entries = iter(names("status", "--porcelain", *words))
    for entry in entries:
        state, path = entry[:2], entry[3:]
        if state[0] in "RC":
            next(entries)  # the name it had before
        yield state, path


def listed(names: Sequence[str]) -> str:
    """Name the first of many, as part of a sentence."""
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
