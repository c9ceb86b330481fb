"""Hash anew what files and the objects of DVC's cache and remotes hold.

DVC trusts its notes: it takes a file to be unchanged whose size and time are, an object of the
cache to be whole that is read-only, and a folder to have all its files on a remote whose list of
files is there. Damage passes all three.
"""

import os
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from dvc.config import NoRemoteError, RemoteNotFoundError
from dvc.repo import Repo
from dvc.scm import NoSCM, SCMError
from dvc_data.hashfile.hash import file_md5
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.state import StateNoop
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError
from dvc_objects.fs.local import LocalFileSystem

from src.core.errors import InputError, closest
from src.project.graph import sentence

LOCAL = LocalFileSystem()  # type: ignore[no-untyped-call]

Key = tuple[str, ...]  # the path of a file inside of an out, () for an out that is a file


class Read(NamedTuple):
    """The result of reading a file: its hash and bytes, or else a fault such as "is missing"."""

    md5: str
    size: int
    fault: str = ""

    def is_of(self, oid: str) -> bool:
        """Tell whether a hash of DVC names this content; .dir ends that of a folder."""
        return self.md5 == oid.removesuffix(".dir")


def read(fs: Any, path: str, name: str) -> Read:
    """Hash a file of one of DVC's file systems; ``name`` is what DVC calls the kind of hash."""
    return _attempt(lambda: Read(file_md5(path, fs, name=name), fs.size(path) or 0))


def _attempt(look: Callable[[], Read]) -> Read:
    try:
        return look()
    except FileNotFoundError:
        return Read("", 0, "is missing")
    except OSError as error:  # as of a bad disk, which is what this is for
        return Read("", 0, f"cannot be read ({error.strerror or error})")


def read_all(fs: Any, paths: Collection[str], name: str) -> dict[str, Read]:
    """Hash files, several at a time."""
    with ThreadPoolExecutor(fs.jobs if fs.protocol != "local" else os.cpu_count()) as pool:
        return dict(zip(paths, pool.map(lambda path: read(fs, path, name), paths), strict=True))


def sizes(fs: Any, paths: Collection[str]) -> dict[str, Read]:
    """Look whether files are there, and how large they are, without a hash."""

    def look(path: str) -> Read:
        return _attempt(lambda: Read("", fs.info(path).get("size") or 0))

    with ThreadPoolExecutor(fs.jobs) as pool:
        return dict(zip(paths, pool.map(look, paths), strict=True))


def listing(odb: Any, oid: str) -> dict[Key, str] | None:
    """Return the files of an out and their hashes, if the object that lists them is whole."""
    if not oid.endswith(".dir"):
        return {(): oid}
    if not read(odb.fs, odb.oid_to_path(oid), odb.hash_name).is_of(oid):
        return None
    try:
        tree = Tree.load(odb, HashInfo(odb.hash_name, oid))
    except (FileNotFoundError, ObjectFormatError):  # it changed just now
        return None
    return {key: info.value for key, _, info in tree}


def folder_hash(name: str, hashes: Mapping[Key, str]) -> str:
    """Hash a folder as DVC does, from the hashes of its files."""
    tree: Any = Tree()  # type: ignore[no-untyped-call]
    for key, md5 in hashes.items():
        tree.add(key, None, HashInfo(name, md5))
    tree.digest()
    return str(tree.oid)


def walk(repo: Repo, folder: str) -> dict[Key, str]:
    """Return the paths of the files of a folder that DVC sees, by their place in it."""
    found: dict[Key, str] = {}
    for root, _, names in repo.dvcignore.walk(LOCAL, folder):
        inside = Path(root).relative_to(folder).parts
        found |= {(*inside, name): str(Path(root, name)) for name in names}
    return found


def forget(repo: Repo) -> None:
    """Let DVC hash files where it would remember their hashes."""
    for odb in (repo.cache.local, repo.cache.legacy):
        odb.state = StateNoop()


def head_has(repo: Repo, path: str, oid: str, name: str) -> bool:
    """Tell whether the last commit of git has the content that a hash names at a path."""
    if isinstance(repo.scm, NoSCM):
        return False
    place = Path(path).relative_to(repo.scm.root_dir).as_posix()
    try:
        return read(repo.scm.get_fs("HEAD"), place, name).is_of(oid)
    except SCMError:  # there is no commit yet
        return False


def remote(repo: Repo, name: str | None, hash_name: str) -> Any:
    """Open the objects of a remote; None is the default one.

    Raises:
        InputError: there is no such remote, or it can't be reached.
    """
    known = ", ".join(repo.config["remote"]) or "none"
    try:
        odb = repo.cloud.get_remote_odb(name, "verify", hash_name=hash_name)
    except NoRemoteError:
        raise InputError(
            f"No remote is the default one (remotes: {known}): name one after --remote, or add it "
            "with `dvc remote add --default NAME URL`."
        ) from None
    except RemoteNotFoundError:
        hint = closest(str(name), repo.config["remote"])
        raise InputError(
            f"{name!r} is not the name of a remote{hint} (remotes: {known}): put targets before "
            "--remote, or add it with `dvc remote add`."
        ) from None
    try:
        odb.fs.exists(odb.path)
    except Exception as error:
        # Each kind of remote has exceptions of its own for a wrong key, address or password.
        raise InputError(
            f"Remote {name or 'by default'} can't be reached ({type(error).__name__}: "
            f"{sentence(error)}): look at `dvc remote list` and `dvc config --list`."
        ) from error
    return odb
