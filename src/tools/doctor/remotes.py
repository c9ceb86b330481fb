"""Remotes: secrets in git, files that nothing verifies, and outputs that were not pushed."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.project import git
from src.project.git import listed
from src.project.graph import Project, settings, within

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
IN_URL = re.compile(
    r"://[^/@]*:[^/@]+@|https?://[^/@]+@|[?&](?:sig|signature|token|password|secret)=",
    re.IGNORECASE,
)


def secrets() -> Iterator[str]:
    """Yield the secrets where git keeps them, or would."""
    for section, options in settings(CONFIG).items() if CONFIG.exists() else ():
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


def secret_keys(values: Any) -> Iterator[str]:
    """Yield the options of a section whose values are secrets."""
    for key, value in values.items() if isinstance(values, dict) else ():
        named = SECRET.search(key) and not NO_SECRET.search(key)
        if named or (key == "url" and IN_URL.search(str(value))):
            yield key


def unverified() -> Iterator[str]:
    """Yield the remotes whose files DVC takes as they come, which is its default."""
    for name, options in settings()["remote"].items():
        if options.get("verify") is False:  # some kinds of remotes have no such option
            yield (
                f"Remote {name!r} is not verified, so DVC takes its files without a look at their "
                f"hash: `dvc remote modify {name} verify true`."
            )


def not_pushed(repo: Project) -> Iterator[str]:
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
        return sorted(path for path in paths if not within(path, paths - {path}))

    new, lost = outermost("new"), outermost("missing")
    if new:
        yield f"Remote {remote!r} lacks {listed(new)}, which dvc.lock names: `dvc push`."
    if lost:
        yield (
            f"The cache and remote {remote!r} both lack {listed(lost)}, which dvc.lock names: "
            "`dvc push` where they were made, or `dvc repro`."
        )
