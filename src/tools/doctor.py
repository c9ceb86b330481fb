"""Look for what makes DVC experiments lie, and say how to mend it.

    python -m src.tools.doctor            # before work is shared
    python -m src.tools.doctor --queue    # also before `dvc exp run --queue` or `--temp`

Each finding is one sentence; with any, the command exits with 1. Nothing is changed.
"""

import json
import logging
import os
import re
import shlex
import shutil
import site
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from dvc.config import Config
from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo

from src.core import stage
from src.core.errors import InputError
from src.tools.pedigree import changes
from src.tools.verify import upstream_first

OLDEST = (3, 11)  # the Python that the project asks for
PATIENCE = 60  # seconds for a remote to answer
SHOWN = 5  # names in a sentence

CONFIG = Path(".dvc/config")
LOCAL = Path(".dvc/config.local")
LOCK = Path("requirements.lock")
WRITTEN = ("dvc.lock", "dvc.yaml", "params.yaml", ".dvc/config")  # where git may leave markers

# Names of options whose value is a secret; their relatives that ask for one or run a command to get
# it are none.
SECRET = re.compile(
    r"password|passphrase|secret|token|connection_string|account_key|access_key_id|customer_key"
    r"|oss_key_id"
)
NO_SECRET = re.compile(r"^ask_|^exclude_|_command$")
IN_URL = re.compile(
    r"://[^/@]*:[^/@]+@|https?://[^/@]+@|[?&](?:sig|signature|token|password|secret)=",
    re.IGNORECASE,
)

log = logging.getLogger("src.tools.doctor")


@dataclass(frozen=True)
class Out:
    """An output that dvc.yaml or a .dvc file names, by its path from the root of the repository."""

    path: str
    cached: bool  # DVC keeps it, and git must not


def main(*, queue: bool = False) -> None:
    """List what makes experiments lie; --queue adds what matters to `dvc exp run --queue`."""
    findings = list(examine(queue))
    for finding in findings:
        log.error("%s", finding)
    if findings:
        raise InputError(
            f"Expected nothing that makes experiments lie, found {len(findings)}: do "
            "what each sentence above says."
        )
    log.info("All is well: nothing was found that makes experiments lie.")


def examine(queue: bool) -> Iterator[str]:
    """Yield a sentence for each thing that is wrong with the repository in this folder."""
    if not Path("dvc.yaml").exists():
        raise InputError(f"Expected dvc.yaml in {Path.cwd()}, found none: go to the repository.")
    if not shutil.which("git"):
        raise InputError("Expected git on the PATH, found none: install it.")
    yield from python()
    yield from shadows()
    broken = [*without_commits(), *conflicts()]
    yield from broken
    try:
        yield from secrets()
        yield from unverified()
        if broken:  # what follows reads the pipeline, and compares it with git
            return
        repo = Repo()
        outs = list(outs_of(repo))
        yield from kept_twice(outs)
        yield from out_of_date(repo)
        yield from not_pushed(repo)
        if queue:
            yield from not_committed(repo, outs)
    except DvcException as error:
        reasons = " ".join(str(error).split())
        yield f"Expected files that DVC can read, found: {reasons}; mend the one it names."


def python() -> Iterator[str]:
    """Another Python or other packages than dvc.lock was made with."""
    if sys.version_info < OLDEST:
        yield (
            f"Expected Python {'.'.join(map(str, OLDEST))} or newer, found "
            f"{sys.version.split()[0]}: run `make clean` and `make run PYTHON=python3.11`."
        )
    called = shutil.which("python")
    prefix = called and _run(called, "-c", "import sys; print(sys.prefix)").stdout.strip()
    if not prefix or not Path(prefix).samefile(sys.prefix):
        yield (
            f"Expected `python`, which the stages call, to be of {sys.prefix} as this one is, "
            f"found {prefix or 'none'}: put {sys.prefix}/bin first on your PATH, as "
            "`. .venv/bin/activate` does."
        )
    if not LOCK.exists():
        yield f"Expected the pinned packages in {LOCK}, found no such file: run `make lock`."
        return
    others = []
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", LOCK.read_text(), re.MULTILINE):
        try:
            found = metadata.version(name).partition("+")[0]  # without a variant, such as +cpu
        except metadata.PackageNotFoundError:
            found = "none"
        if found != version.partition("+")[0]:
            others.append(f"{name} {found} in place of {version}")
    if others:
        yield (
            f"Expected the packages of {LOCK}, found {listed(others)}: "
            f"`pip install --requirement {LOCK}`."
        )


def shadows() -> Iterator[str]:
    """Places other than this folder that have a package src, which stages could import."""
    if sys.flags.safe_path:
        yield (
            "Expected Python to look for src in the current folder first, found that it does not: "
            "unset PYTHONSAFEPATH, and do without `python -P`."
        )
    elsewhere = sys.path if sys.flags.safe_path else sys.path[1:]  # the first is this folder
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find and find("src", elsewhere if finder is PathFinder else None)
        if not spec or not spec.origin:  # a mere folder of that name never comes before a package
            continue
        place = Path(spec.origin).parent
        yield (
            f"Expected src in this folder alone, found it in {place} too, {_because_of(place)}: "
            "a queued experiment may run that code in place of its own, and its result then "
            "stands for the wrong code in the run cache."
        )


def _because_of(place: Path) -> str:
    """Why Python looks into a folder, and what to do about it, as the part of a sentence."""
    named = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if place.parent in [Path(entry).resolve() for entry in named]:
        return "because of PYTHONPATH (`unset PYTHONPATH`)"
    for distribution in metadata.distributions():
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
        folder = Path(str(origin.get("url", "")).removeprefix("file://"))
        if origin.get("dir_info", {}).get("editable") and place.is_relative_to(folder):
            name = distribution.name
            return f"because {name} is installed as editable (`pip uninstall {name}`)"
    if str(place.parent) in site.getsitepackages():
        owners = metadata.packages_distributions().get("src", [])
        name = owners[0] if owners else "NAME"
        return f"where a package put it (`pip uninstall {name}`)"
    return "which a .pth file or sitecustomize.py names (remove that)"


def secrets() -> Iterator[str]:
    """Secrets where git keeps them, or would."""
    if CONFIG.exists():
        for section, options in Config.load_file(CONFIG).items():
            named = options if section in ("remote", "db") else {"": options}
            for name, values in named.items():
                where = f"{section} {name!r}" if name else section
                for key in _secret_keys(values):
                    option = ".".join(filter(None, (section, name, key)))
                    remedy = (
                        f"`dvc remote modify --local {name} {key} ...`"
                        if section == "remote"
                        else f"`dvc config --local {option} ...`"
                    )
                    yield (
                        f"Expected no secret in {CONFIG}, which is for git, found {key} of "
                        f"{where}: put it into {LOCAL} by {remedy}, remove it from {CONFIG}, and "
                        "change the secret itself if it was ever committed."
                    )
    if _git("ls-files", str(LOCAL)).stdout:
        yield (
            f"Expected {LOCAL}, which is for secrets, only on this machine, found it in git: "
            f"`git rm --cached {LOCAL}`, and change the secrets in it."
        )


def _secret_keys(values: Any) -> Iterator[str]:
    for key, value in values.items() if isinstance(values, dict) else ():
        named = SECRET.search(key) and not NO_SECRET.search(key)
        if named or (key == "url" and IN_URL.search(str(value))):
            yield key


def unverified() -> Iterator[str]:
    """Remotes whose files are taken as they come."""
    for name, options in Config(str(CONFIG.parent))["remote"].items():
        if (
            options.get("verify") is False
        ):  # DVC's default; some kinds of remotes have no such option
            yield (
                f"Expected verify = true of remote {name!r}, found that DVC takes its files "
                f"without a look at their hash: `dvc remote modify {name} verify true`."
            )


def without_commits() -> Iterator[str]:
    """No git repository, or one that has nothing to compare with."""
    code = _git("rev-parse", "--verify", "--quiet", "HEAD").returncode
    if code:
        found, remedy = ("commit", "") if code == 1 else ("git repository", "`git init`, ")
        yield (
            f"Expected a {found}, as DVC compares commits, found none: {remedy}`git add --all` and "
            "`git commit`."
        )


def conflicts() -> Iterator[str]:
    """Files that a merge could not settle, or whose markers are still there."""
    unmerged = _git("diff", "--name-only", "--diff-filter=U", "-z").stdout.split("\0")[:-1]
    if unmerged:
        yield (
            f"Expected no conflict, found one in {listed(unmerged)}: settle the files that people "
            "write, such as params.yaml and dvc.yaml, by hand; take what stages write from either "
            "side by `git checkout --theirs dvc.lock dvclive data/quality.*`; then `dvc checkout`, "
            "`dvc repro` and `git add --all`."
        )
    marked = [name for name in WRITTEN if name not in unmerged and _marked(Path(name))]
    if marked:
        yield (
            f"Expected no conflict, found its markers in {listed(marked)}: settle by hand what "
            "people write, and take dvc.lock from a commit that is whole, as by "
            "`git checkout HEAD~1 dvc.lock`; then `dvc checkout` and `dvc repro`."
        )


def kept_twice(outs: Iterable[Out]) -> Iterator[str]:
    """Outputs that git would keep beside DVC, or that neither of them keeps."""
    paths = {out.path: out for out in outs}
    words = "\0".join(paths)
    matched = _git("check-ignore", "--no-index", "-z", "--stdin", text=words).stdout
    ignored = set(matched.split("\0"))
    tracked = {
        out
        for file in _git("ls-files", "-z", "--", *paths).stdout.split("\0")
        for out in paths
        if file == out or file.startswith(f"{out}/")
    }
    cached = {path for path, out in paths.items() if out.cached}
    if found := sorted(cached & tracked):
        yield (
            f"Expected outputs that DVC keeps to be out of git, found {listed(found)} in it: "
            f"`git rm -r --cached {shlex.join(found)}`, ignore them in .gitignore and commit."
        )
    if found := sorted(cached - ignored - tracked):
        yield (
            "Expected git to ignore what DVC keeps, found that it does not ignore "
            f"{listed(found)}: add them to .gitignore, or a failed run lets `git add --all` take "
            "them."
        )
    if found := sorted((paths.keys() & ignored) - cached - tracked):
        yield (
            f"Expected git to keep outputs with `cache: false`, found that it ignores "
            f"{listed(found)}, so that nothing keeps them: take them out of .gitignore, or "
            "`cache: false` out of dvc.yaml."
        )


def out_of_date(repo: Repo) -> Iterator[str]:
    """Stages whose record in dvc.lock is of other code, params or data than those here."""
    names = list(dict.fromkeys(name for name, _ in changes(repo, upstream_first(repo.index.graph))))
    if names:
        yield (
            "Expected dvc.lock to be of the code, params and data that are here, found that it is "
            f"not for {listed(names)}: `dvc repro`, and commit dvc.lock with the change."
        )


def not_pushed(repo: Repo) -> Iterator[str]:
    """Outputs of dvc.lock that the default remote lacks, if there is one."""
    name = repo.config["core"].get("remote")
    if not name:
        return
    # Remotes raise whatever their libraries raise, hang as long as these like, and ask the terminal
    # for passwords; a process of its own is ended, and has no terminal.
    command = [sys.executable, "-m", "dvc", "status", "--cloud", "--json"]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        said = f"no answer in {PATIENCE} s"
    else:
        if done.returncode == 0:
            yield from _missing(name, json.loads(done.stdout))
            return
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        said = (lines or done.stderr.strip().splitlines() or ["nothing"])[-1]
    yield (
        f"Expected to ask remote {name!r} what was pushed, found: {said.removeprefix('ERROR: ')}; "
        f"look at its url, at the network and at the credentials in {LOCAL}."
    )


def _missing(remote: str, status: dict[str, str]) -> Iterator[str]:
    def outermost(state: str) -> list[str]:
        paths = {path for path, found in status.items() if found == state}
        return sorted(path for path in paths if not _within(path, paths - {path}))

    new, lost = outermost("new"), outermost("missing")
    if new:
        yield (
            f"Expected remote {remote!r} to have what dvc.lock names, found that it lacks "
            f"{listed(new)}: `dvc push`."
        )
    if lost:
        yield (
            f"Expected what dvc.lock names in the cache or in remote {remote!r}, found that both "
            f"lack {listed(lost)}: `dvc push` where they were made, or `dvc repro`."
        )


def not_committed(repo: Repo, outs: Iterable[Out]) -> Iterator[str]:
    """Code and data that a queued experiment would not find, or that its parent does not have."""
    yield from not_kept(repo, outs)
    changed = [path for state, path in _uncommitted(repo, outs) if state not in ("??", "!!")]
    if changed:
        yield (
            f"Expected committed code, found changes in {listed(changed)}: an experiment is shown "
            "under the last commit as if it had that code, so commit the changes before you queue."
        )


def not_kept(repo: Repo, outs: Iterable[Out]) -> Iterator[str]:
    """Code and data that an experiment in a folder of its own would not find there."""
    kept = {out.path for out in outs}
    absent = [
        path
        for state, path in _uncommitted(repo, outs)
        if state in ("??", "!!")
        and not _within(path.rstrip("/"), kept)
        and not repo.dvcignore.is_ignored(repo.fs, path)
    ]
    if absent:
        yield (
            f"Expected git or DVC to have the code and data that stages read, found neither has "
            f"{listed(absent)}, which an experiment in a folder of its own would run without: "
            "`git add` and commit them, or `dvc add` what is large."
        )


def _uncommitted(repo: Repo, outs: Iterable[Out]) -> Iterator[tuple[str, str]]:
    """What stages read and git has not, or not so: the state that git gives, and the path."""
    kept = {out.path for out in outs}
    root = Path(repo.root_dir)
    deps = {
        _relative(dep.fs_path, root)
        for dep in repo.index.deps
        # Params are shown beside each experiment, so what changed in them misleads nobody.
        if dep.protocol == "local" and not isinstance(dep, ParamsDependency)
    }
    watched = sorted({"src", "dvc.yaml", *(dep for dep in deps if dep and not _within(dep, kept))})
    words = ["status", "--porcelain", "-z", "--untracked-files=all", "--ignored=traditional"]
    entries = iter(_git(*words, "--", *watched).stdout.split("\0")[:-1])
    for entry in entries:
        state, path = entry[:2], entry[3:]
        if state[0] in "RC":
            next(entries)  # the name it had before
        yield state, path


def outs_of(repo: Repo) -> Iterator[Out]:
    """The outputs of the pipeline and of .dvc files."""
    root = Path(repo.root_dir)
    for out in repo.index.outs:
        if out.protocol == "local" and (path := _relative(out.fs_path, root)):
            yield Out(path, out.use_cache)


def _relative(path: str, root: Path) -> str:
    """A path from the root, with slashes; "" if it lies outside."""
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else ""


def _within(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def _marked(path: Path) -> bool:
    """Whether a file has the lines that git puts around a conflict."""
    pattern = r"^(?:<{7} |>{7} |={7}$)"
    return path.exists() and bool(re.search(pattern, path.read_text("utf-8"), re.MULTILINE))


def _git(*words: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return _run("git", *words, text=text)


def _run(*command: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def listed(names: list[str]) -> str:
    """Names in a sentence, the first of many."""
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


if __name__ == "__main__":
    stage.run(main, section=False)
