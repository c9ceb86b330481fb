"""Files of the work tree and objects of the cache against dvc.lock."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from src.core.errors import InputError
from src.project.graph import Project, shown
from src.project.hashes import Key, Read, head_has, read_all
from src.tools.verify.outs import Part, files_of, select


@dataclass(frozen=True)
class Finding:
    """A file or object that is not what dvc.lock says.

    Attributes:
        path: the file, or the object of the cache.
        fault: what is wrong, as the rest of a sentence that begins with the path.
        first: commands that take away what is in the way of the cure; one that only a person can
            do begins with #.
        cure: the command that then puts it right.
    """

    path: str
    fault: str
    first: tuple[str, ...]
    cure: str


@dataclass
class Report:
    """A count of what was read, and what of it is wrong.

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


def check(repo: Project, targets: Sequence[str] = ()) -> Report:
    """Hash the files of outs in the work tree, and their objects in the cache.

    Args:
        repo: the project.
        targets: as of ``outs.select``.

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
                report.findings.append(_finding(path, fault, (removal(path),), cure))
                complete &= not cure.startswith("#")
        for key, fault in faults.items():
            first, cure = _cure_of_file(repo, part, key, fault, complete)
            wrong_files.append(_finding(part.path(key), fault, first, cure))
    # A sound cache comes first, for files are made from it.
    report.findings += wrong_files
    return report


def removal(path: str) -> str:
    """Write the command that removes a file."""
    return f"rm {shlex.quote(path)}"


def _compare(
    part: Part, listing: Mapping[Key, str] | None, files: Mapping[Key, Read]
) -> dict[Key, str]:
    """Say what is wrong with files of the work tree, by their place in the out."""
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
            f"{part.path(part.inside)} is neither in dvc.lock nor in the work tree: look for the "
            f"right name with `ls {shlex.quote(part.name)}`."
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
    """Read objects of the cache; of those that another out had, only tell whether they are."""
    odb = part.out.cache
    paths = {oid: odb.oid_to_path(oid) for oid in dict.fromkeys(oids)}
    fresh = {oid: path for oid, path in paths.items() if path not in seen}
    seen |= read_all(odb.fs, list(fresh.values()), odb.hash_name)
    reads = {oid: seen[path] for oid, path in fresh.items()}
    report.objects += sum(not read.fault for read in reads.values())
    report.absent += sum(read.fault == "is missing" for read in reads.values())
    report.size += sum(read.size for read in reads.values())
    return {
        oid: seen[path] if oid in fresh else Read(oid.removesuffix(".dir"), 0)
        for oid, path in paths.items()
    }


def _finding(path: str, fault: str, first: tuple[str, ...], cure: str) -> Finding:
    """Make a finding, which removes nothing where only a person can bring something better."""
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
    repo: Project, part: Part, key: Key, fault: str, complete: bool
) -> tuple[tuple[str, ...], str]:
    name, path = shlex.quote(part.name), part.path(key)
    away = () if fault == "is missing" else (removal(path),)
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
    if not key and head_has(repo, part.out.fs_path, part.oid, part.out.hash_name):
        return away, f"git checkout HEAD -- {shlex.quote(path)}"
    return away, _again(part)


def _has_remote(part: Part) -> bool:
    return bool(part.out.remote or part.out.repo.config["core"].get("remote"))


def _again(part: Part) -> str:
    made_by = part.out.stage
    if made_by.cmd:
        return f"dvc repro --force --no-run-cache --single-item {made_by.addressing}"
    return f"# put a good copy in the place of {part.name}, then `dvc commit {part.name}`"
