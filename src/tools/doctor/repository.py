"""Git, DVC and remotes: conflicts, secrets, what was kept twice, not committed or not pushed."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from src.core.secrets import secret_in, without_secrets
from src.project import git, graph
from src.project.git import listed
from src.tools.pedigree import changes

PATIENCE = 60  # seconds for a remote to answer

CONFIG = Path(".dvc/config")
LOCAL = Path(".dvc/config.local")

# Names of options whose value is a secret; their relatives that ask for one or run a command to get
# it are none.
SECRET = re.compile(
    r"password|passphrase|secret|token|connection_string|account_key|access_key_id|customer_key"
    r"|oss_key_id"
)
NO_SECRET = re.compile(r"^ask_|^exclude_|_command$")
URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s'\",]+(?<![\]}])", re.IGNORECASE)
# What people and DVC write URLs of data into, in any folder.
WITH_URLS = (graph.PIPELINE, graph.LOCK, "params.yaml", "*.dvc")


def without_commits() -> Iterator[str]:
    """Yield a sentence where there is no git repository, or one without commits."""
    code = git.run("rev-parse", "--verify", "--quiet", "HEAD").returncode
    if code == 1:
        yield "Git has no commit, and DVC compares commits: `git add --all` and `git commit`."
    elif code:
        yield (
            "This folder is in no git repository, and DVC compares commits: `git init`, "
            "`git add --all` and `git commit`."
        )


def conflicts() -> Iterator[str]:
    """Yield files that a merge could not settle, or whose markers are still there."""
    if git.run("rev-parse").returncode:
        return
    unmerged = git.names("diff", "--name-only", "--diff-filter=U")
    # Not by DVC, which can't read what has markers.
    anywhere = _anywhere(graph.PIPELINE, graph.LOCK, "params.yaml")
    ours = git.names("ls-files", "--deduplicate", *anywhere)
    locks = [name for name in ours if Path(name).name == graph.LOCK] or [graph.LOCK]
    if unmerged:
        yield (
            f"Conflicts are in {listed(unmerged)}: settle the files that people write, such as "
            "params.yaml and dvc.yaml, by hand; take what stages write from either side by `git "
            f"checkout --theirs {shlex.join(locks)} dvclive data/quality.*`; then `dvc checkout`, "
            "`dvc repro` and `git add --all`."
        )
    watched = [*ours, ".dvc/config"]
    marked = [name for name in watched if name not in unmerged and _marked(Path(name))]
    if marked:
        whole = [name for name in marked if Path(name).name == graph.LOCK] or [graph.LOCK]
        yield (
            f"Markers of a conflict are in {listed(marked)}: settle by hand what people write, and "
            "take dvc.lock from a commit that is whole, as by "
            f"`git checkout HEAD~1 {shlex.join(whole)}`; then `dvc checkout` and `dvc repro`."
        )


def _anywhere(*names: str) -> list[str]:
    """Return the patterns by which git lists files of these names in any folder."""
    return [f":(glob)**/{name}" for name in names]


def shallow() -> Iterator[str]:
    """Yield a sentence where git has only the last commits."""
    if git.run("rev-parse", "--is-shallow-repository").stdout.strip() == "true":
        yield (
            "This clone is shallow, and DVC loses experiments that run in a folder of their own "
            "there: `git fetch --unshallow`."
        )


def kept_twice(outs: Iterable[graph.Out]) -> Iterator[str]:
    """Yield the outputs that git would keep beside DVC, or that neither of them keeps."""
    paths = {out.path: out for out in outs}
    words = "\0".join(paths)
    matched = git.run("check-ignore", "--no-index", "-z", "--stdin", text=words).stdout
    ignored = set(matched.split("\0"))
    tracked = {
        out
        for file in git.names("ls-files", "--", *paths)
        for out in paths
        if file == out or file.startswith(f"{out}/")
    }
    cached = {path for path, out in paths.items() if out.cached}
    if found := sorted(cached & tracked):
        yield (
            f"Git has outputs that DVC keeps, {listed(found)}: "
            f"`git rm -r --cached {shlex.join(found)}`, ignore them in .gitignore and commit."
        )
    if found := sorted(cached - ignored - tracked):
        yield (
            f"Git does not ignore what DVC keeps, {listed(found)}: add them to .gitignore, or a "
            "failed run lets `git add --all` take them."
        )
    if found := sorted((paths.keys() & ignored) - cached - tracked):
        yield (
            f"Git ignores outputs with `cache: false`, {listed(found)}, so that nothing keeps "
            "them: take them out of .gitignore, or `cache: false` out of dvc.yaml."
        )


def out_of_date(repo: graph.Project) -> Iterator[str]:
    """Yield the stages that dvc.lock has of other code, params or data than are here."""
    names = list(dict.fromkeys(name for name, _ in changes(repo, graph.upstream_first(repo))))
    if names:
        yield (
            f"dvc.lock is of other code, params or data than are here for {listed(names)}: "
            f"`{graph.repro(names)}`, and commit dvc.lock with the change."
        )


def not_committed(repo: graph.Project, outs: Iterable[graph.Out]) -> Iterator[str]:
    """Yield what a queued experiment would not find, or its parent commit does not have."""
    yield from shallow()
    yield from not_kept(repo, outs)
    changed = [path for state, path in _uncommitted(repo, outs) if state not in ("??", "!!")]
    if changed:
        yield (
            f"Code has changes that are not committed, in {listed(changed)}: an experiment is "
            "shown under the last commit as if it had that code, so commit before you queue."
        )


def not_kept(repo: graph.Project, outs: Iterable[graph.Out]) -> Iterator[str]:
    """Yield code and data that an experiment in a folder of its own would not find there."""
    kept = {out.path for out in outs}
    absent = [
        path
        for state, path in _uncommitted(repo, outs)
        if state in ("??", "!!")
        and not graph.within(path.rstrip("/"), kept)
        and not repo.dvcignore.is_ignored(repo.fs, path)
    ]
    if absent:
        yield (
            f"Neither git nor DVC has {listed(absent)}, which stages read and an experiment in a "
            "folder of its own would run without: `git add` and commit them, or `dvc add` what is "
            "large."
        )


def _uncommitted(repo: graph.Project, outs: Iterable[graph.Out]) -> Iterator[tuple[str, str]]:
    """Yield what stages read and git has not, or not so: the state that git gives, and the path."""
    kept = {out.path for out in outs}
    deps = {
        graph.relative(dep.fs_path, repo)
        for dep in repo.index.deps
        # Params are shown beside each experiment, so what changed in them misleads nobody.
        if dep.protocol == "local" and not graph.is_params(dep)
    }
    read = {dep for dep in deps if dep and not graph.within(dep, kept)}
    watched = sorted({"src", *graph.pipelines(repo), *read})
    return git.status("--untracked-files=all", "--ignored=traditional", "--", *watched)


def _marked(path: Path) -> bool:
    pattern = r"^(?:<{7} |>{7} |={7}$)"  # the lines that git puts around a conflict
    return path.exists() and bool(re.search(pattern, path.read_text("utf-8"), re.MULTILINE))


def secrets() -> Iterator[str]:
    """Yield the secrets where git keeps them, or would."""
    for section, options in graph.settings(CONFIG).items() if CONFIG.exists() else ():
        named = options if section in ("remote", "db") else {"": options}
        for name, values in named.items():
            where = f"{section} {name!r}" if name else section
            for key in secret_keys(values):
                option = ".".join(filter(None, (section, name, key)))
                remedy = (
                    f"`dvc remote modify --local {name} {key} ...`"
                    if section == "remote"
                    else f"`dvc config --local {option} ...`"
                )
                yield (
                    f"{CONFIG}, which is for git, has a secret, {key} of {where}: put it into "
                    f"{LOCAL} by {remedy}, remove it from {CONFIG}, and change the secret itself "
                    "if it was ever committed."
                )
    if git.run("ls-files", str(LOCAL)).stdout:
        yield (
            f"{LOCAL}, which is for secrets, is in git: `git rm --cached {LOCAL}`, and change the "
            "secrets in it."
        )
    if git.run("rev-parse").returncode:
        return
    of_git = ("ls-files", "--deduplicate", "--cached", "--others", "--exclude-standard")
    for name in sorted(git.names(*of_git, *_anywhere(*WITH_URLS))):
        text = Path(name).read_text("utf-8", "replace") if Path(name).is_file() else ""
        for url in dict.fromkeys(URL.findall(text)):
            if part := secret_in(url):
                remedy = (
                    f"import it from a remote, whose secrets are in {LOCAL}"
                    if name.endswith(".dvc")
                    else "write $NAME in its place in params.yaml, and set the variable NAME where "
                    "stages run"
                )
                yield (
                    f"{name}, which is for git, has a secret in {without_secrets(url)}, {part}: "
                    f"{remedy}; change the secret itself if it was ever committed."
                )


def secret_keys(values: Any) -> Iterator[str]:
    """Yield the options of a section whose values are secrets."""
    for key, value in values.items() if isinstance(values, dict) else ():
        named = SECRET.search(key) and not NO_SECRET.search(key)
        if named or (key == "url" and secret_in(str(value))):
            yield key


def unverified() -> Iterator[str]:
    """Yield the remotes whose files DVC takes as they come, which is its default."""
    for name, options in graph.settings()["remote"].items():
        if options.get("verify") is False:  # some kinds of remotes have no such option
            yield (
                f"Remote {name!r} is not verified, so DVC takes its files without a look at their "
                f"hash: `dvc remote modify {name} verify true`."
            )


def not_pushed(repo: graph.Project) -> Iterator[str]:
    """Yield what dvc.lock names and the default remote lacks, if there is one."""
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
        f"Remote {name!r} can't be asked what was pushed ({said.removeprefix('ERROR: ')}): look at "
        f"its url, at the network and at the credentials in {LOCAL}."
    )


def _missing(remote: str, status: dict[str, str]) -> Iterator[str]:
    def outermost(state: str) -> list[str]:
        paths = {path for path, found in status.items() if found == state}
        return sorted(path for path in paths if not graph.within(path, paths - {path}))

    new, lost = outermost("new"), outermost("missing")
    if new:
        yield f"Remote {remote!r} lacks {listed(new)}, which dvc.lock names: `dvc push`."
    if lost:
        yield (
            f"The cache and remote {remote!r} both lack {listed(lost)}, which dvc.lock names: "
            "`dvc push` where they were made, or `dvc repro`."
        )
