"""Files that are whole or not there, and equal bytes for equal content."""

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """Make a folder beside ``path`` for unfinished work; what killed runs left is removed."""
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
    """Hash a file; the sha256 is in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
