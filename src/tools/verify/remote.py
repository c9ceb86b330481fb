"""Objects of a remote against dvc.lock."""

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from src.core.errors import InputError
from src.project.graph import Project
from src.project.hashes import LOCAL, Read, listing, read, read_all, remote, sizes
from src.tools.verify.outs import Finding, Part, Report, files_of, removal, select


@dataclass
class Remote:
    """A remote, and what was found of its objects."""

    odb: Any  # the objects, as DVC has them
    contents: bool  # they are read and hashed; else it is only seen whether they are there
    seen: dict[str, Read] = field(default_factory=dict)  # what was found, by path

    def look(self, oids: Iterable[str], report: Report) -> dict[str, Read]:
        """Look at objects, and count those that are new to the report."""
        paths = {oid: self.odb.oid_to_path(oid) for oid in oids}
        fresh = [path for path in paths.values() if path not in self.seen]
        if self.contents:
            self.seen |= read_all(self.odb.fs, fresh, self.odb.hash_name)
        else:  # the list of the files of a folder is what DVC goes by
            lists = [path for oid, path in paths.items() if oid.endswith(".dir")]
            self.seen |= sizes(self.odb.fs, fresh)
            self.seen |= read_all(self.odb.fs, lists, self.odb.hash_name)
        report.objects += sum(not self.seen[path].fault for path in fresh)
        report.size += sum(self.seen[path].size for path in fresh)
        return {oid: self.seen[path] for oid, path in paths.items()}

    def place(self, oid: str) -> str:
        """Write the path or URL of an object."""
        path = str(self.odb.oid_to_path(oid))
        return path if self._is_folder else str(self.odb.fs.unstrip_protocol(path))

    def removal(self, oid: str) -> str:
        """Write how an object is removed: `dvc push` leaves one alone that is there."""
        place = self.place(oid)
        return removal(place) if self._is_folder else f"# delete {place}"

    @property
    def _is_folder(self) -> bool:
        return bool(self.odb.fs.protocol == "local")


def check_remote(
    repo: Project, targets: Sequence[str], name: str | None, download: bool
) -> tuple[Report, bool]:
    """Look for each object of the outs on a remote, and hash it if it is at hand.

    Args:
        repo: the project.
        targets: as of ``outs.select``.
        name: the remote; None for that of the out, or else the default.
        download: read the contents from a remote that is no local folder, too.

    Returns:
        The report, and whether all contents were read.

    Raises:
        InputError: there is no such remote, it can't be read, or nothing is on it.
    """
    report = Report()
    remotes: dict[tuple[str | None, str], Remote] = {}
    for part in select(repo, targets):
        if not (part.out.use_cache and part.out.can_push):
            continue
        which = (name or part.out.remote, part.out.hash_name)
        if which not in remotes:
            odb = remote(repo, *which)
            remotes[which] = Remote(odb, download or odb.fs.protocol == "local")
        report.findings += _check_part(repo, part, remotes[which], name, report)
    if report.findings and not report.objects:
        raise InputError(
            f"Remote {name or 'by default'} has not one of {len(report.findings)} objects: look "
            "whether `dvc remote list` has its right address, or fill it with `dvc push`."
        )
    return report, all(one.contents for one in remotes.values())


def _check_part(
    repo: Project, part: Part, there: Remote, name: str | None, report: Report
) -> list[Finding]:
    cache = part.out.cache
    expected = listing(cache, part.oid) or listing(there.odb, part.oid)
    if expected is None:
        expected, _ = files_of(repo, part)
    keys = {oid: key for key, oid in (expected or {}).items() if part.has(key)}
    keys = {part.oid: (), **keys}
    reads, findings = there.look(keys, report), []
    for oid, found in reads.items():
        fault = found.fault or ("is corrupt" if found.md5 and not found.is_of(oid) else "")
        if not fault:
            continue
        both = {oid, part.oid}
        if all(read(LOCAL, cache.oid_to_path(o), cache.hash_name).is_of(o) for o in both):
            bad = sorted(o for o in both if reads[o].fault != "is missing")
            first = tuple(there.removal(o) for o in bad)
            option = f" --remote {name}" if name else ""
            cure = f"dvc push{option} {shlex.quote(part.name)}"
        else:
            first = ()
            cure = f"# run this again, and what it says, in a clone whose cache has {part.name}"
        fault = f"has an object on the remote, {there.place(oid)}, that {fault}"
        findings.append(Finding(part.path(keys[oid]), fault, first, cure))
    if expected is None and not findings:
        fault = "has files that no list tells, neither here nor on the remote"
        findings.append(Finding(part.name, fault, (), f"dvc push {shlex.quote(part.name)}"))
    return findings
