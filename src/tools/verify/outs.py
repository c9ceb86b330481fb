"""The outs that targets mean, and the files of each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.core.errors import InputError, closest
from src.project.graph import Project, shown, upstream_first
from src.project.hashes import LOCAL, Key, Read, folder_hash, listing, read_all, walk


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
