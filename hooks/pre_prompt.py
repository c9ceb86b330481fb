"""Make the template out of the last commit of this repository: there is one copy of the code.

cookiecutter runs this in a temporary copy of the repository, before it asks anything.
"""

import json
import subprocess
import sys
from pathlib import Path

TEMPLATE = Path("{{ cookiecutter.slug }}")
# What a project of somebody else's has no use for: what makes and tests the template, and what was
# measured here or is of a run on the default data. A list here, and not `export-ignore` in
# .gitattributes, which would also take the files out of the archives that GitHub offers.
LEFT_OUT = [
    "cookiecutter.json",
    "hooks",
    "tests/code/template",
    "benchmarks/results",
    "data/quality.*",
    "data/tabular/quality.*",
    "data/chat/quality.*",
    "data/qa/quality.*",
    "dvc.lock",
    "tabular/dvc.lock",
    "chat/dvc.lock",
    "qa/dvc.lock",
    "dvclive",
    "models/*.json",
]


def git(*words: str) -> bytes:
    """The output of a git command; one sentence if it can't run."""
    try:
        return subprocess.run(["git", *words], check=True, capture_output=True).stdout
    except FileNotFoundError:
        sys.exit("git is not on the PATH: install it.")
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().replace("\n", " ")
        sys.exit(
            f"The template is no git repository with a commit ({reason}): give cookiecutter the "
            "URL of the repository, or git+file:// and the path of a clone."
        )


def main() -> None:
    """Unpack the last commit into the folder that cookiecutter copies."""
    commit = git("rev-parse", "HEAD").decode().strip()
    ident = subprocess.run(["git", "var", "GIT_COMMITTER_IDENT"], capture_output=True, check=False)
    if ident.returncode:
        sys.exit(
            "git does not know who commits: git config --global user.name NAME; "
            "git config --global user.email ADDRESS."
        )
    archive = git("archive", commit, "--", ".", *(f":(exclude){path}" for path in LEFT_OUT))
    TEMPLATE.mkdir()
    subprocess.run(["tar", "-x", "-C", TEMPLATE], input=archive, check=True)
    (TEMPLATE / ".template.json").write_text(json.dumps({"commit": commit}))


if __name__ == "__main__":
    main()
