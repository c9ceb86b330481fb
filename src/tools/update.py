"""Bring what the template has gained into a project that was made from it.

    python -m src.tools.update
    python -m src.tools.update --to v2

``.template.json`` says where the template is, which commit of it the project has, and the answers.
The project is made anew from that commit and from the newer one, both in a temporary folder, and
what changed between the two is merged into the work tree by git: a three-way merge, whose base is
the recorded commit. It needs nothing of the project's history, so a squashed update harms no later
one. Own changes stay, and where both sides changed one place, git's conflict markers say so.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from src.core import stage
from src.core.errors import InputError
from src.project import git

RECORD = Path(".template.json")
log = logging.getLogger("src.tools.update")


@dataclass(frozen=True)
class Record:
    """A project's record of its template."""

    template: str  # where it is, as cookiecutter takes it
    commit: str  # of the template that the project has
    answers: dict[str, str]  # to cookiecutter's prompts


def main(*, to: str = "") -> None:
    """Merge the template's newest commit, or the tag, branch or commit that --to names."""
    record = _read(RECORD)
    _expect_all_committed()
    with tempfile.TemporaryDirectory(prefix="update-") as place:
        new = _make(record, to, Path(place, "new"))
        commit = _read(new / RECORD).commit
        if commit == record.commit:
            log.info("the project has all of the template, up to %s", commit[:7])
            return
        if not to:
            _expect_progress(Path(place, "new"), record.commit, commit)
        old = _make(record, record.commit, Path(place, "old"))
        for project in (old, new):
            git.output("fetch", "--quiet", "--no-tags", str(project), "main")
        trees = [git.output("rev-parse", "HEAD^{tree}", cwd=project) for project in (old, new)]
    base = git.output("commit-tree", trees[0], "-m", f"Template at {record.commit[:7]}")
    _expect_no_other_files(*trees)
    title = f"Update from the template's {record.commit[:7]} to {commit[:7]}"
    _merge(git.output("commit-tree", trees[1], "-p", base, "-m", title))
    log.info("%s; `git show` has what it changed, `make test` and `dvc repro` come next", title)


def _read(path: Path) -> Record:
    try:
        record = Record(**json.loads(path.read_text(encoding="utf-8")))
        if not all(isinstance(answer, str) for answer in record.answers.values()):
            raise TypeError("an answer that is no text")
        record.answers["slug"]
    except FileNotFoundError:
        raise InputError(
            f"{path} is missing: go to the root of a project that cookiecutter made from a "
            "template; only such a project can be updated."
        ) from None
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(
            f"{path} doesn't hold template, commit and answers as JSON ({error}): `git restore "
            f"{path}`."
        ) from None
    return record


def _address(template: str) -> str:
    """Write the address at which cookiecutter finds the commits of a template."""
    folder = Path(template.removeprefix("file://"))
    # Of a folder, cookiecutter would take the work tree; and it knows no file://.
    return f"git+file://{folder.resolve()}" if template and folder.is_dir() else template


def _expect_all_committed() -> None:
    if above := git.output("rev-parse", "--show-prefix"):
        raise InputError(
            f"The project is {above} of another git repository: an update can be merged only into "
            "a repository of its own."
        )
    if Path(git.output("rev-parse", "--git-path", "CHERRY_PICK_HEAD")).exists():
        raise InputError(
            "A merge is unfinished, perhaps of an update: settle its conflicts and "
            "`git cherry-pick --continue`, or `git cherry-pick --abort`."
        )
    if changed := [path for _, path in git.status("--untracked-files=no")]:
        raise InputError(
            f"Changes are not committed, in {git.listed(changed)}: commit or stash them, so that "
            "the update can be undone."
        )


def _make(record: Record, revision: str, place: Path) -> Path:
    """Make the project anew in a folder, from one commit of the template, and give its path."""
    place.mkdir()
    config = place / "config.yaml"  # so that nothing of the user's own set-up is read or written
    folders = {"cookiecutters_dir": str(place / "clones"), "replay_dir": str(place / "replay")}
    config.write_text(json.dumps(folders), encoding="utf-8")
    answers = [f"{key}={answer}" for key, answer in record.answers.items()]
    project = place / "project"
    options = ["--no-input", "--config-file", str(config), "--output-dir", str(project)]
    if revision:
        options += ["--checkout", revision]
    done = subprocess.run(
        # -P: the hooks are those of the template, not a package `hooks` of the project.
        [sys.executable, "-P", "-m", "cookiecutter", *options, _address(record.template), *answers],
        # The record keeps the address as it is written there. Answers to prompts that are gone do
        # no harm; what cookiecutter leaves behind goes.
        env=os.environ
        | {"TEMPLATE_UPDATE": "1", "TEMPLATE_ADDRESS": record.template, "TMPDIR": str(place)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = f"{done.stdout}{done.stderr}".strip().splitlines() or ["it says nothing"]
        reason = next((line for line in said if line.startswith("fatal: ")), said[-1])  # git's
        raise InputError(
            f"cookiecutter can't make a project from {revision or 'the newest commit'} of "
            f"{record.template} ({reason}): correct TO, or the place or the answers in {RECORD}."
        )
    return project / record.answers["slug"]


def _expect_progress(place: Path, old: str, new: str) -> None:
    """Refuse what would take the project back, as from a branch to the main one."""
    (clone,) = (place / "clones").iterdir()
    if git.run("merge-base", "--is-ancestor", old, new, cwd=clone).returncode:
        raise InputError(
            f"The template's newest commit, {new[:7]}, does not follow {old[:7]}, which the "
            "project was made from: name a tag, a branch or a commit, as in `make update TO=v2`."
        )


def _expect_no_other_files(old: str, new: str) -> None:
    """Stop before git writes over files that it ignores, which it does without a word."""
    added = git.names("diff-tree", "-r", "--name-only", "--diff-filter=A", old, new)
    tracked = set(git.names("ls-files"))
    if here := [name for name in added if name not in tracked and os.path.lexists(name)]:
        raise InputError(
            f"The update adds {git.listed(here)}, and there are files of your own of these names "
            "that git does not have: move them away, or commit them."
        )


def _merge(commit: str) -> None:
    done = git.run("cherry-pick", commit)
    if not done.returncode:
        return
    conflicts = git.names("diff", "--name-only", "--diff-filter=U")
    if not conflicts:
        reason = " ".join(done.stderr.split())
        git.run("cherry-pick", "--abort")
        raise InputError(f"git can't merge the update ({reason}): correct what it names.")
    raise InputError(
        f"The template and you changed the same places of {', '.join(conflicts)}: settle them, "
        "`git add` (or `git rm` for what you removed) and `git cherry-pick --continue`, or "
        "`git cherry-pick --abort`."
    )


if __name__ == "__main__":
    stage.run(main, section=False)
