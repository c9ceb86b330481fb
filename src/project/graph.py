"""DVC's stages, outs and locks. Only ``src/project`` uses DVC's Python internals."""

import copy
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import networkx as nx
from dvc.config import Config
from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.utils import exp_refs
from dvc.scm import Git
from dvc.utils.serialize import load_yaml
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from src.core.errors import InputError

Project = Repo

PIPELINE = "dvc.yaml"  # the name of the file that defines the stages of a pipeline
LOCK = "dvc.lock"  # the file beside it that says what they ran with and made


@dataclass(frozen=True)
class Out:
    """An output that a dvc.yaml or .dvc file names, by its path from the root of the repository."""

    path: str
    cached: bool  # DVC keeps it, and git must not


@contextmanager
def project() -> Iterator[Repo]:
    """Open the DVC project of this folder; InputError if there is none that DVC can read."""
    try:
        with Repo() as repo:
            yield repo
    except DvcException as error:
        raise InputError(unreadable(error)) from error


def unreadable(error: DvcException) -> str:
    """Say that DVC can't read a project, in one sentence."""
    return (
        f"DVC can't read this project ({sentence(error)}): correct the file that it names, or go "
        "to the root of the repository."
    )


def sentence(error: BaseException) -> str:
    """Put the message of another library's exception on one line, without its last dot."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def shown(path: str) -> str:
    """Write a path as one types it here."""
    return os.path.relpath(path)


def pipelines(repo: Repo) -> list[str]:
    """List every dvc.yaml that has stages, by its path from the root, that of the root first."""
    return sorted(
        {relative(s.path, repo) for s in repo.index.stages if Path(s.path).name == PIPELINE},
        key=lambda path: (path.count("/"), path),
    )


def modules(pipeline: str) -> dict[str, str]:
    """Name the module that each stage of a dvc.yaml runs; those that run none are left out."""
    found = {}
    for name, entry in YAML(typ="safe").load(Path(pipeline))["stages"].items():
        command = entry.get("cmd")  # which may be several, or is in the `do` of a foreach
        words = command.split() if isinstance(command, str) else []
        if words[:2] == ["python", "-m"]:
            found[name] = words[2]
    return found


def address(stage: str, pipeline: str) -> str:
    """Name a stage of a dvc.yaml as DVC does from the root."""
    return stage if pipeline == PIPELINE else f"{pipeline}:{stage}"


def lock_of(pipeline: str) -> str:
    """Name the dvc.lock beside a dvc.yaml."""
    return PurePosixPath(pipeline).with_name(LOCK).as_posix()


def relative(path: str, repo: Repo) -> str:
    """Write a path from the root of the repository, with slashes; "" if it lies outside."""
    root = Path(repo.root_dir)
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else ""


def within(path: str, folders: Iterable[str]) -> bool:
    """Tell whether a path is one of some others or lies below one."""
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def repro(stages: Iterable[str]) -> str:
    """Write the command that brings the pipelines of some stages up to date."""
    files = dict.fromkeys(name.rpartition(":")[0] or PIPELINE for name in stages)
    return "dvc repro" if [*files] == [PIPELINE] else f"dvc repro {shlex.join(files)}"


def settings(file: Path | None = None) -> Mapping[str, Any]:
    """Read DVC's configuration, all that holds here or what one file of it says."""
    found: Mapping[str, Any] = Config.load_file(file) if file else Config(".dvc")
    return found


def use_cache(folder: Path, cache: Path, remotes: Mapping[str, str]) -> None:
    """Give the project in a folder a cache, and remotes by name, on this machine alone."""
    with Config(str(folder / ".dvc")).edit("local") as config:
        config["cache"]["dir"] = str(cache)
        config["remote"] |= {name: {"url": url} for name, url in remotes.items()}


def upstream_first(repo: Repo, of: Any = None) -> list[Any]:
    """List all stages, or one and what it waits for, those first that others wait for."""
    graph = repo.index.graph
    if of is not None:
        graph = graph.subgraph({of, *nx.descendants(graph, of)})
    return [*reversed([*nx.lexicographical_topological_sort(graph, key=lambda s: s.addressing)])]


def chain(repo: Repo) -> dict[str, set[str]]:
    """Name the stages, upstream first, with all that each waits for."""
    graph = repo.index.graph
    return {
        s.addressing: {before.addressing for before in nx.descendants(graph, s)}
        for s in upstream_first(repo)
    }


def is_params(dep: Any) -> bool:
    """Tell whether a dependency of a stage is some params, and not a file."""
    return isinstance(dep, ParamsDependency)


def outs_of(repo: Repo) -> Iterator[Out]:
    """Yield the outputs of the pipelines and of .dvc files."""
    for out in repo.index.outs:
        if out.protocol == "local" and (path := relative(out.fs_path, repo)):
            yield Out(path, out.use_cache)


def stages_of_lock(text: str, path: str = LOCK) -> dict[str, dict[str, Any]]:
    """Read the entries of the dvc.lock at ``path`` by what DVC calls their stages from the root.

    A stage of tabular/dvc.lock is tabular/dvc.yaml:train.

    Raises:
        InputError: it is no YAML, as with the markers of a conflict, or has no stages.
    """
    try:
        found = YAML(typ="safe").load(text)
    except YAMLError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("stages"), dict):
        raise InputError(
            f"{path} has no stages that can be read: `make doctor` tells how to settle a conflict; "
            "else run `dvc repro`."
        )
    pipeline = PurePosixPath(path).with_name(PIPELINE).as_posix()
    return {address(name, pipeline): entry for name, entry in found["stages"].items()}


def locked(stage: Any) -> dict[str, Any] | None:
    """Return what DVC wrote of a stage when it ran: cmd, params, deps and outs, with their hashes.

    Of a .dvc file, that is the file; None if the stage has not run.
    """
    path = Path(stage.path)
    if path.suffix == ".dvc":
        imported: dict[str, Any] = load_yaml(str(path))
        return imported
    ran: dict[str, dict[str, Any]] = load_yaml(str(path.with_name(LOCK)))["stages"]
    return ran.get(stage.name)


def changed(repo: Repo) -> list[str]:
    """Name the stages that differ from when they ran by more than files that are not here."""
    kept = {out.path for out in outs_of(repo) if out.cached}

    def absent(path: str, state: str) -> bool:
        return path in kept and state in ("deleted", "not in cache") and not Path(path).exists()

    def differs(why: list[Any]) -> bool:
        """Tell whether DVC names another command, params, or a file that is not just absent."""
        return any(
            isinstance(entry, str)
            or any(
                not absent(path, state) for paths in entry.values() for path, state in paths.items()
            )
            for entry in why
        )

    return sorted(name for name, why in repo.status().items() if differs(why))


def experiments() -> set[str]:
    """Name the DVC experiments of this repository."""
    return {str(ref.name) for ref in exp_refs(Git())}


def values_of(deps: Iterable[Any]) -> Mapping[str, Any]:
    """Return what dependencies are now: params by section, and the hashes of files by path.

    Raises:
        InputError: one is missing.
    """
    found: dict[str, Any] = {}
    try:
        for dep in deps:
            value = dep.read_params() if is_params(dep) else {str(dep): dep.get_hash().value}
            found |= copy.deepcopy(value)
    except (DvcException, FileNotFoundError) as error:
        raise InputError(f"A dependency can't be read: {sentence(error)}.") from error
    return found
