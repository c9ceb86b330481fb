"""Check that the work tree, the DVC cache and a remote hold exactly what dvc.lock says.

    python -m src.tools.verify
    python -m src.tools.verify models/onnx train data/splits/test.parquet
    python -m src.tools.verify --remote storage --download

Everything is read and hashed anew. DVC trusts its notes: it takes a file to be unchanged whose size
and time are, an object of the cache to be whole that is read-only, and a folder to have all its
files on a remote whose list of files is there. Damage passes all three.
"""

import os
import shlex
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from dvc.config import NoRemoteError, RemoteNotFoundError
from dvc.repo import Repo
from dvc.scm import NoSCM, SCMError
from dvc_data.hashfile.hash import file_md5
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from dvc_objects.errors import ObjectFormatError
from dvc_objects.fs.local import LocalFileSystem

from src.core import stage
from src.core.errors import InputError, closest
from src.project.graph import project, shown, upstream_first

SHOWN = 20
LOCAL = LocalFileSystem()  # type: ignore[no-untyped-call]

Key = tuple[str, ...]  # the path of a file inside of an out, () for an out that is a file


class Read(NamedTuple):
    """What came of reading a file: its hash and bytes, or else a fault such as "is missing"."""

    md5: str
    size: int
    fault: str = ""

    def is_of(self, oid: str) -> bool:
        """Whether this is the content that a hash of DVC names; .dir ends that of a folder."""
        return self.md5 == oid.removesuffix(".dir")


@dataclass(frozen=True)
class Finding:
    """A file or object that is not what dvc.lock says.

    Attributes:
        path: the file, or the object of the cache.
        fault: what is wrong, as the rest of a sentence that begins with the path.
        first: commands that take away what is in the way of the cure.
        cure: the command that then puts it right.
    """

    path: str
    fault: str
    first: tuple[str, ...]
    cure: str


@dataclass
class Report:
    """What was read, and what of it is wrong.

    Attributes:
        findings: in an order in which their commands can be run.
        files: files of the work tree that were read.
        objects: objects of the cache or the remote that were looked at.
        size: bytes of both.
        absent: objects that the cache does not have; they may never have been pulled.
    """

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    objects: int = 0
    size: int = 0
    absent: int = 0


@dataclass(frozen=True)
class Part:
    """An out, or the file or folder inside of it that a target names."""

    out: Any
    inside: Key = ()

    @property
    def name(self) -> str:
        """The path of the out, as one types it."""
        return shown(self.out.fs_path)

    @property
    def oid(self) -> str:
        """The hash of the out in dvc.lock, which ends in .dir for a folder."""
        return str(self.out.hash_info.value)

    def path(self, key: Key) -> str:
        """The path of a file of the out, as one types it."""
        return os.path.join(self.name, *key)  # noqa: PTH118 - DVC's paths are strings

    def has(self, key: Key) -> bool:
        """Whether a file of the out belongs to what was asked for."""
        return key[: len(self.inside)] == self.inside


def check(repo: Repo, targets: Sequence[str] = ()) -> Report:
    """Hash the files of outs in the work tree, and their objects in the cache.

    Args:
        repo: the project.
        targets: outs, files or folders inside of or around outs, or stages; none for all.

    Raises:
        InputError: a target is none of these.
    """
    report, seen = Report(), dict[str, Read]()
    wrong_files: list[Finding] = []
    for part in select(repo, targets):
        listing, files = files_of(repo, part)
        report.files += sum(not read.fault for read in files.values())
        report.size += sum(read.size for read in files.values())
        faults = _compare(part, listing, files)
        wanted = [part.oid, *(oid for key, oid in (listing or {}).items() if part.has(key))]
        objects = _objects(part, wanted, seen, report) if part.out.use_cache else {}
        complete = bool(objects)
        for oid, read in objects.items():
            if read.fault == "is missing":
                complete = False
            elif not read.is_of(oid):
                path = shown(part.out.cache.oid_to_path(oid))
                fault = f"of {part.name} {read.fault or 'is corrupt'}"
                cure = _cure_of_object(part, whole=listing is not None and not faults)
                report.findings.append(_finding(path, fault, (_rm(path),), cure))
                complete &= not cure.startswith("#")
        for key, fault in faults.items():
            first, cure = _cure_of_file(repo, part, key, fault, complete)
            wrong_files.append(_finding(part.path(key), fault, first, cure))
    # A sound cache comes first, for files are made from it.
    report.findings += wrong_files
    return report


def check_remote(
    repo: Repo, targets: Sequence[str], name: str | None, download: bool
) -> tuple[Report, bool]:
    """Look for each object of the outs on a remote, and hash it if it is at hand.

    Args:
        repo: the project.
        targets: as of ``check``.
        name: the remote; None for that of the out, or else the default.
        download: read the contents from a remote that is no local folder, too.

    Returns:
        The report, and whether all contents were read: if not, sizes were compared.

    Raises:
        InputError: there is no such remote, or it can't be read.
    """
    report, seen, all_read = Report(), dict[str, Read](), True
    remotes: dict[tuple[str | None, str], Any] = {}
    for part in select(repo, targets):
        if not (part.out.use_cache and part.out.can_push):
            continue
        which = (name or part.out.remote, part.out.hash_name)
        odb = remotes[which] = remotes.get(which) or _remote(repo, *which)
        read_all = download or odb.fs.protocol == "local"
        all_read &= read_all
        listing = _listing(part.out.cache, part.oid) or _listing(odb, part.oid)
        if listing is None:
            listing, _ = files_of(repo, part)
        keys = [key for key in listing or {} if part.has(key)]
        oids = {part.oid: (), **{listing[key]: key for key in keys if listing}}
        paths = {oid: odb.oid_to_path(oid) for oid in oids}
        fresh = [path for path in paths.values() if path not in seen]
        seen |= _sizes(odb, fresh) if not read_all else _read_all(odb.fs, fresh, odb.hash_name)
        if not read_all:  # the list of files is what DVC goes by
            seen |= _read_all(odb.fs, [paths[part.oid]] * part.oid.endswith(".dir"), odb.hash_name)
        report.objects += sum(not seen[path].fault for path in fresh)
        report.size += sum(seen[path].size for path in fresh)
        reads = {oid: seen[path] for oid, path in paths.items()}
        faults = _faults_of(part, listing or {}, reads)
        for oid, fault in faults.items():
            at_hand = odb.fs.protocol == "local"
            where = paths[oid] if at_hand else odb.fs.unstrip_protocol(paths[oid])
            finding = f"has an object on the remote, {where}, that {fault}"
            bad = [o for o in {oid, part.oid} if reads[o].fault != "is missing"]
            first = tuple(_removal(odb, name or part.out.remote, o) for o in sorted(bad))
            cache = part.out.cache
            sources = {
                o: _read(LOCAL, cache.oid_to_path(o), cache.hash_name) for o in (oid, part.oid)
            }
            cure = f"dvc push{f' --remote {name}' if name else ''} {shlex.quote(part.name)}"
            if not all(read.is_of(o) for o, read in sources.items()):
                first = ()
                cure = f"# this again, and what it says, in a clone whose cache has {part.name}"
            report.findings.append(Finding(part.path(oids[oid]), finding, first, cure))
        if listing is None and not faults:
            fault = "has files that no list tells, neither here nor on the remote"
            report.findings.append(Finding(part.name, fault, (), f"dvc push {part.name}"))
    if report.findings and not report.objects:
        raise InputError(
            f"Expected objects on remote {name or 'by default'}, found not one of "
            f"{len(report.findings)}: look whether `dvc remote list` has its right address, or "
            "fill it with `dvc push`."
        )
    return report, all_read


def select(repo: Repo, targets: Sequence[str]) -> list[Part]:
    """The outs that targets mean, those first that others are made from.

    Raises:
        InputError: a target means none, or there are no outs yet.
    """
    stages = upstream_first(repo)
    outs = [out for s in stages for out in s.outs if out.is_in_repo and out.hash_info]
    if not outs:
        raise InputError("Expected outs in dvc.lock, found none: run `dvc repro` first.")
    if not targets:
        return [Part(out) for out in outs]
    found: dict[Part, None] = {}
    for target in targets:
        path = Path(os.path.abspath(target))  # noqa: PTH100 - which leaves links as they are
        matches = []
        for out in outs:
            place = Path(out.fs_path)
            stages_of_out = (out.stage.addressing, out.stage.addressing.split("@")[0])
            if target in stages_of_out or place.is_relative_to(path):
                matches.append(Part(out))
            elif path.is_relative_to(place):
                matches.append(Part(out, path.relative_to(place).parts))
        if not matches:
            names = [*(Part(out).name for out in outs), *(s.addressing for s in stages)]
            raise InputError(
                f"Expected an out of dvc.lock, what is inside of one, or a stage, found "
                f"{target!r}{closest(target, names)}: `dvc stage list` names them."
            )
        found |= dict.fromkeys(matches)
    return list(found)


def _rm(path: str) -> str:
    return f"rm {shlex.quote(path)}"


def _read(fs: Any, path: str, name: str) -> Read:
    try:
        return Read(file_md5(path, fs, name=name), fs.size(path) or 0)
    except FileNotFoundError:
        return Read("", 0, "is missing")
    except OSError as error:  # as of a bad disk, which is what this is for
        return Read("", 0, f"cannot be read ({error.strerror or error})")


def _read_all(fs: Any, paths: Collection[str], name: str) -> dict[str, Read]:
    with ThreadPoolExecutor(fs.jobs if fs.protocol != "local" else os.cpu_count()) as pool:
        return dict(zip(paths, pool.map(lambda path: _read(fs, path, name), paths), strict=True))


def _listing(odb: Any, oid: str) -> dict[Key, str] | None:
    """The files of an out and their hashes, if the object that lists them is whole."""
    if not oid.endswith(".dir"):
        return {(): oid}
    if not _read(odb.fs, odb.oid_to_path(oid), odb.hash_name).is_of(oid):
        return None
    try:
        tree = Tree.load(odb, HashInfo(odb.hash_name, oid))
    except (FileNotFoundError, ObjectFormatError):  # it changed just now
        return None
    return {key: info.value for key, _, info in tree}


def files_of(repo: Repo, part: Part) -> tuple[dict[Key, str] | None, dict[Key, Read]]:
    """The hashes that the files of an out should have, if they can be known, and what they are."""
    out = part.out
    listing = _listing(out.cache, part.oid) if out.use_cache else None
    found: dict[Key, str] = {}
    if not part.oid.endswith(".dir"):
        listing = {(): part.oid}
        found = {(): out.fs_path} if os.path.lexists(out.fs_path) else {}
    else:
        found = _walk(repo, out.fs_path)
    if listing is not None:
        found = {key: path for key, path in found.items() if part.has(key)}
    reads = _read_all(LOCAL, list(found.values()), out.hash_name)
    files = {key: reads[path] for key, path in found.items()}
    if listing is None:  # files that add up to the folder's hash list themselves
        hashes = {key: read.md5 for key, read in files.items()}
        if _folder_hash(out.hash_name, hashes) == part.oid:
            listing = hashes
    return listing, files


def reads_other(repo: Repo, dep: Any) -> bool:
    """Whether a dependency that no stage makes is another than its stage ran with.

    Files of it that DVC keeps and that were not pulled are taken for what their .dvc files say.
    """
    inside = Path(dep.fs_path)
    absent = [
        out
        for out in repo.index.outs
        if Path(out.fs_path).is_relative_to(inside) and not os.path.lexists(out.fs_path)
    ]
    if not absent:
        return bool(dep.workspace_status())
    files = _walk(repo, dep.fs_path)
    reads = _read_all(LOCAL, list(files.values()), dep.hash_name)
    hashes = {key: reads[path].md5 for key, path in files.items()}
    for out in absent:
        place = Path(out.fs_path).relative_to(inside).parts
        for key, oid in (_listing(out.cache, out.hash_info.value) or {}).items():
            hashes[*place, *key] = oid
    now = hashes[()] if () in hashes else _folder_hash(dep.hash_name, hashes)
    return now != str(dep.hash_info.value)


def _walk(repo: Repo, folder: str) -> dict[Key, str]:
    """The paths of the files of a folder that DVC sees, by their place in it."""
    found: dict[Key, str] = {}
    for root, _, names in repo.dvcignore.walk(LOCAL, folder):
        inside = Path(root).relative_to(folder).parts
        found |= {(*inside, name): str(Path(root, name)) for name in names}
    return found


def _folder_hash(name: str, hashes: Mapping[Key, str]) -> str:
    """The hash of a folder, from those of its files."""
    tree: Any = Tree()  # type: ignore[no-untyped-call]
    for key, md5 in hashes.items():
        tree.add(key, None, HashInfo(name, md5))
    tree.digest()
    return str(tree.oid)


def _compare(
    part: Part, listing: Mapping[Key, str] | None, files: Mapping[Key, Read]
) -> dict[Key, str]:
    """What is wrong with files of the work tree, by their place in the out."""
    if not os.path.lexists(part.out.fs_path):
        return {(): "is missing"}
    if listing is None:
        unread = {key: read.fault for key, read in files.items() if read.fault}
        return unread or {
            (): "is not what dvc.lock says; which file it is can't be told, for the list of files "
            "in the cache is gone or corrupt too"
        }
    keys = sorted(key for key in {*listing, *files} if part.has(key))
    if not keys:
        raise InputError(
            f"Expected {part.path(part.inside)} among the files of {part.name}, found it neither "
            "in dvc.lock nor in the work tree: look for the right name with `ls`."
        )
    faults = {}
    for key in keys:
        if key not in listing:
            faults[key] = "is not in dvc.lock"
        elif key not in files:
            faults[key] = "is missing"
        elif files[key].md5 != listing[key]:
            faults[key] = files[key].fault or "is not what dvc.lock says"
    return faults


def _objects(
    part: Part, oids: Iterable[str], seen: dict[str, Read], report: Report
) -> dict[str, Read]:
    """What the objects of the cache are; of those that another out had, only whether they are."""
    odb = part.out.cache
    paths = {oid: odb.oid_to_path(oid) for oid in dict.fromkeys(oids)}
    fresh = {oid: path for oid, path in paths.items() if path not in seen}
    seen |= _read_all(odb.fs, list(fresh.values()), odb.hash_name)
    reads = {oid: seen[path] for oid, path in fresh.items()}
    report.objects += sum(not read.fault for read in reads.values())
    report.absent += sum(read.fault == "is missing" for read in reads.values())
    report.size += sum(read.size for read in reads.values())
    return {
        oid: seen[path] if oid in fresh else Read(oid.removesuffix(".dir"), 0)
        for oid, path in paths.items()
    }


def _finding(path: str, fault: str, first: tuple[str, ...], cure: str) -> Finding:
    """A finding, which takes nothing away where only a person can bring something better."""
    return Finding(path, fault, () if cure.startswith("#") else first, cure)


def _cure_of_object(part: Part, whole: bool) -> str:
    name, made_by = shlex.quote(part.name), part.out.stage
    # DVC asks a person before it commits what was made from something else than it is now.
    if whole and not any(made_by.changed_entries()):
        return f"dvc commit {name}"
    if _has_remote(part):
        return f"dvc fetch {name}"
    return _again(part)


def _cure_of_file(
    repo: Repo, part: Part, key: Key, fault: str, complete: bool
) -> tuple[tuple[str, ...], str]:
    name, path = shlex.quote(part.name), part.path(key)
    away = () if fault == "is missing" else (_rm(path),)
    if complete:
        # Without --relink DVC leaves a file alone whose size and time it knows.
        back = f"dvc checkout --force --relink {name}"
        meant = "" if part.out.stage.cmd else f"  # or, if the change is meant, `dvc commit {name}`"
        return (), back + meant
    if part.out.use_cache:
        away = away if key else ()
        return away, f"dvc pull --force {name}" if _has_remote(part) else _again(part)
    if fault == "is not in dvc.lock":
        return away, ""
    if not key and _in_head(repo, part):
        return away, f"git checkout HEAD -- {shlex.quote(path)}"
    return away, _again(part)


def _has_remote(part: Part) -> bool:
    return bool(part.out.remote or part.out.repo.config["core"].get("remote"))


def _again(part: Part) -> str:
    made_by = part.out.stage
    if made_by.cmd:
        return f"dvc repro --force --no-run-cache --single-item {made_by.addressing}"
    return f"# put a good copy in the place of {part.name}, then `dvc commit {part.name}`"


def _in_head(repo: Repo, part: Part) -> bool:
    """Whether the last commit has the file that dvc.lock means."""
    if isinstance(repo.scm, NoSCM):
        return False
    path = Path(part.out.fs_path).relative_to(repo.scm.root_dir).as_posix()
    try:
        return _read(repo.scm.get_fs("HEAD"), path, part.out.hash_name).is_of(part.oid)
    except SCMError:  # there is no commit yet
        return False


def _remote(repo: Repo, name: str | None, hash_name: str) -> Any:
    known = ", ".join(repo.config["remote"]) or "none"
    try:
        odb = repo.cloud.get_remote_odb(name, "verify", hash_name=hash_name)
    except NoRemoteError:
        raise InputError(
            f"Expected a default remote, found none (remotes: {known}): name one after --remote, "
            "or add it with `dvc remote add --default NAME URL`."
        ) from None
    except RemoteNotFoundError:
        hint = closest(str(name), repo.config["remote"])
        raise InputError(
            f"Expected the name of a remote after --remote, found {name!r}{hint} (remotes: "
            f"{known}): put targets before --remote, or add it with `dvc remote add`."
        ) from None
    try:
        odb.fs.exists(odb.path)
    except Exception as error:
        # Each kind of remote has exceptions of its own for a wrong key, address or password.
        raise InputError(
            f"Expected to reach remote {name or 'default'}, found {type(error).__name__}: "
            f"{' '.join(str(error).split())}; see `dvc remote list` and `dvc config --list`."
        ) from error
    return odb


def _sizes(odb: Any, paths: Collection[str]) -> dict[str, Read]:
    def size(path: str) -> Read:
        try:
            return Read("", odb.fs.info(path).get("size") or 0)
        except FileNotFoundError:
            return Read("", 0, "is missing")
        except OSError as error:
            return Read("", 0, f"cannot be read ({error.strerror or error})")

    with ThreadPoolExecutor(odb.fs.jobs) as pool:
        return dict(zip(paths, pool.map(size, paths), strict=True))


def _faults_of(part: Part, listing: Mapping[Key, str], reads: Mapping[str, Read]) -> dict[str, str]:
    """What is wrong with objects on a remote, by hash or, where only that is known, by size."""
    faults = {oid: read.fault for oid, read in reads.items() if read.fault}
    for oid, read in reads.items():
        if read.md5 and not read.is_of(oid):
            faults[oid] = "is corrupt"
    unread = {key: oid for key, oid in listing.items() if oid in reads and not reads[oid].md5}
    expected = part.out.meta.size
    found = sum(reads[oid].size for oid in unread.values())
    if faults or not unread or part.inside or expected is None or found == expected:
        return faults
    for oid in unread.values():
        info = Path(part.out.cache.oid_to_path(oid))
        if info.exists() and info.stat().st_size != reads[oid].size:
            faults[oid] = f"has {reads[oid].size} bytes, and not {info.stat().st_size}"
    fault = f"lists files of {expected} bytes, and {found} are there"
    return faults or {part.oid: fault if part.oid.endswith(".dir") else f"has {found} bytes"}


def _removal(odb: Any, name: str | None, oid: str) -> str:
    """The command that takes an object off a remote; of a folder's, so that DVC looks at all."""
    if odb.fs.protocol == "local":
        return _rm(odb.oid_to_path(oid))
    code = f"from dvc.repo import Repo; Repo().cloud.get_remote_odb({name!r}).delete({oid!r})"
    return f'python -c "{code}"'


def main(*targets: str, remote: str | bool = False, download: bool = False) -> None:
    """Check that files, DVC's cache or a remote hold what dvc.lock says; exit with 1 if not.

    The targets are outs, files or folders inside of or around outs, or stages; without any,
    everything is checked. --remote checks a remote, by its name, or else the default one;
    --download reads the contents there, wherever they are.
    """
    if download and remote is False:
        raise InputError("--download goes with --remote: add --remote.")
    with project() as repo:
        if remote is False:
            report = check(repo, targets)
            summary = (
                f"Read {report.files} files of the work tree and {report.objects} objects of "
                f"the cache, {report.size:,} bytes"
            )
            if report.absent:
                summary += f"; {report.absent} objects are not in the cache"
        else:
            report, contents = check_remote(
                repo, targets, remote if isinstance(remote, str) else None, download
            )
            summary = (
                f"Found {report.objects} objects on the remote, {report.size:,} bytes"
                f"{', and read them' if contents else ' (--download reads them)'}"
            )
    _print(report, summary)


def _print(report: Report, summary: str) -> None:
    if not report.findings:
        print(f"{summary}: all is what dvc.lock says.")
        return
    for finding in report.findings[:SHOWN]:
        print(f"{finding.path} {finding.fault}")
    if len(report.findings) > SHOWN:
        print(f"... and {len(report.findings) - SHOWN} more")
    are = "is" if len(report.findings) == 1 else "are"
    print(f"{summary}: {len(report.findings)} {are} not what dvc.lock says. To put them right:")
    listed = report.findings[:SHOWN]
    commands = [command for finding in listed for command in finding.first]
    for command in dict.fromkeys([*commands, *(f.cure for f in listed if f.cure)]):
        print(f"  {command}")
    sys.exit(1)


if __name__ == "__main__":
    stage.run(main, section=False)
