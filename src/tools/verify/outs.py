"""The outs that targets mean, and whether work tree and cache hold what dvc.lock says of them."""

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from src.core.errors import InputError, closest
from src.project.graph import Project, shown, upstream_first
from src.project.hashes import LOCAL, Key, Read, folder_hash, head_has, listing, read_all, walk


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
        """Write the path of a file of the out, as one types it."""
        return os.path.join(self.name, *key)  # noqa: PTH118 - DVC's paths are strings

    def has(self, key: Key) -> bool:
        """Tell whether a file of the out belongs to what was asked for."""
        return key[: len(self.inside)] == self.inside


def select(repo: Project, targets: Sequence[str]) -> list[Part]:
    """Find the outs that targets mean, those first that others are made from.

    Args:
        repo: the project.
        targets: outs, files or folders inside of or around outs, stages, or the dvc.yaml of a
            pipeline; none for all.

    Raises:
        InputError: a target means none, or there are no outs yet.
    """
    stages = upstream_first(repo)
    outs = [out for s in stages for out in s.outs if out.is_in_repo and out.hash_info]
    if not outs:
        raise InputError("dvc.lock has no outs: run `dvc repro` first.")
    if not targets:
        return [Part(out) for out in outs]
    found: dict[Part, None] = {}
    for target in targets:
        path = Path(os.path.abspath(target))  # noqa: PTH100 - which leaves links as they are
        matches = []
        for out in outs:
            place, stage = Path(out.fs_path), out.stage.addressing
            by_stage = (stage, stage.split("@")[0], shown(out.stage.path))
            if target in by_stage or place.is_relative_to(path):
                matches.append(Part(out))
            elif path.is_relative_to(place):
                matches.append(Part(out, path.relative_to(place).parts))
        if not matches:
            names = [*(Part(out).name for out in outs), *(s.addressing for s in stages)]
            raise InputError(
                f"{target!r} is no out of dvc.lock, nothing inside of one, and no stage"
                f"{closest(target, names)}: `dvc stage list --all` names them."
            )
        found |= dict.fromkeys(matches)
    return list(found)


def files_of(repo: Project, part: Part) -> tuple[dict[Key, str] | None, dict[Key, Read]]:
    """Return the hashes that the files of an out should have, if known, and what they are."""
    out = part.out
    expected = listing(out.cache, part.oid) if out.use_cache else None
    found: dict[Key, str] = {}
    if not part.oid.endswith(".dir"):
        expected = {(): part.oid}
        found = {(): out.fs_path} if os.path.lexists(out.fs_path) else {}
    else:
        found = walk(repo, out.fs_path)
    if expected is not None:
        found = {key: path for key, path in found.items() if part.has(key)}
    reads = read_all(LOCAL, list(found.values()), out.hash_name)
    files = {key: reads[path] for key, path in found.items()}
    if expected is None:  # files that add up to the folder's hash list themselves
        hashes = {key: read.md5 for key, read in files.items()}
        if folder_hash(out.hash_name, hashes) == part.oid:
            expected = hashes
    return expected, files


def reads_other(repo: Project, dep: Any) -> bool:
    """Tell whether a dependency that no stage makes is another than its stage ran with.

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
    files = walk(repo, dep.fs_path)
    reads = read_all(LOCAL, list(files.values()), dep.hash_name)
    hashes = {key: reads[path].md5 for key, path in files.items()}
    for out in absent:
        place = Path(out.fs_path).relative_to(inside).parts
        for key, oid in (listing(out.cache, out.hash_info.value) or {}).items():
            hashes[*place, *key] = oid
    now = hashes[()] if () in hashes else folder_hash(dep.hash_name, hashes)
    return now != str(dep.hash_info.value)


@dataclass(frozen=True)
class Finding:
    """A file or object that is not what dvc.lock says."""

    path: str  # the file, or the object of the cache
    fault: str  # what is wrong, as the rest of a sentence that begins with the path
    # Commands that take away what is in the way of the cure; one that only a person can do begins
    # with #.
    first: tuple[str, ...]
    cure: str  # the command that then puts it right


@dataclass
class Report:
    """A count of what was read, and what of it is wrong."""

    findings: list[Finding] = field(default_factory=list)  # in the order to run their commands in
    files: int = 0  # of the work tree that were read
    objects: int = 0  # of the cache or the remote that were looked at
    size: int = 0  # bytes of both
    absent: int = 0  # objects that the cache does not have; they may never have been pulled


def check(repo: Project, targets: Sequence[str] = ()) -> Report:
    """Hash the files of outs in the work tree, and their objects in the cache."""
    report, seen = Report(), dict[str, Read]()
    wrong_files: list[Finding] = []
    for part in select(repo, targets):
        expected, files = files_of(repo, part)
        report.files += sum(not read.fault for read in files.values())
        report.size += sum(read.size for read in files.values())
        faults = _compare(part, expected, files)
        wanted = [part.oid, *(oid for key, oid in (expected or {}).items() if part.has(key))]
        objects = _objects(part, wanted, seen, report) if part.out.use_cache else {}
        complete = bool(objects)
        for oid, read in objects.items():
            if read.fault == "is missing":
                complete = False
            elif not read.is_of(oid):
                path = shown(part.out.cache.oid_to_path(oid))
                fault = f"of {part.name} {read.fault or 'is corrupt'}"
                cure = _cure_of_object(part, whole=expected is not None and not faults)
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
    part: Part, expected: Mapping[Key, str] | None, files: Mapping[Key, Read]
) -> dict[Key, str]:
    """Say what is wrong with files of the work tree, by their place in the out."""
    if not os.path.lexists(part.out.fs_path):
        return {(): "is missing"}
    if expected is None:
        unread = {key: read.fault for key, read in files.items() if read.fault}
        return unread or {
            (): "is not what dvc.lock says; which file it is can't be told, for the list of files "
            "in the cache is gone or corrupt too"
        }
    keys = sorted(key for key in {*expected, *files} if part.has(key))
    if not keys:
        raise InputError(
            f"{part.path(part.inside)} is neither in dvc.lock nor in the work tree: look for the "
            f"right name with `ls {shlex.quote(part.name)}`."
        )
    faults = {}
    for key in keys:
        if key not in expected:
            faults[key] = "is not in dvc.lock"
        elif key not in files:
            faults[key] = "is missing"
        elif files[key].md5 != expected[key]:
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
