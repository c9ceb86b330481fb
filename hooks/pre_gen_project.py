"""Refuse a bad answer with one sentence, before anything is written.

cookiecutter puts the answers into this file and runs it in the new, empty folder.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | jsonify }}""")

BELOW_SOURCE = r"data/source/(?!.*\.\.)[^\s/].*"
COLUMN = (r"\S(.*\S)?", "the name of a column")
# A pattern for the whole answer, and what it stands for.
CHECKS = {
    "project_name": (r"(?=.*[^\W\d_])\S(.{0,58}\S)?", "up to 60 characters with a letter"),
    "slug": (r"[a-z][a-z0-9_-]*", "lower-case letters, digits, - and _, a letter first"),
    "description": (r"\S.{0,299}", "a sentence of up to 300 characters"),
    "data_source": (
        rf"(pkg|https?|s3|gs|hf|zip)://\S+|{BELOW_SOURCE}",
        "a path below data/source/, or what begins with https://, s3://, gs://, hf://, zip:// or "
        "pkg://",
    ),
    "text_column": COLUMN,
    "label_column": COLUMN,
    "languages": (r"([a-z]{2,3}( *, *[a-z]{2,3})*)?", "codes of ISO 639 such as en, ar"),
    "checkpoint": (
        rf"pkg://\S+|[\w.-]+(/[\w.-]+)?|{BELOW_SOURCE}",
        "a Hugging Face name, a folder below data/source/, or pkg://package/path",
    ),
}
REMOTES = {
    "none": (r"", "no URL for no remote"),
    "local": (r"/[\w./@:+=-]+", "a folder from the root on, such as /mnt/team"),
    "s3": (r"s3://[\w./+=-]+", "s3://bucket/path"),
    "gs": (r"gs://[\w./+=-]+", "gs://bucket/path"),
    "azure": (r"azure://[\w./+=-]+", "azure://container/path"),
    "ssh": (r"ssh://([\w.-]+@)?[\w.-]+(:\d+)?/[\w./+=-]*", "ssh://host/path without a password"),
    "webdav": (
        r"webdavs?://[\w.-]+(:\d+)?(/[\w./+=-]*)?",
        "webdavs://host/path without user and password",
    ),
}


def main() -> None:
    """Look at every answer, at the folder, and whether git can commit."""
    for key, (pattern, expected) in (CHECKS | {"remote_url": REMOTES[ANSWERS["remote"]]}).items():
        answer = str(ANSWERS[key])
        if not (answer.isprintable() and re.fullmatch(pattern, answer)):
            sys.exit(f"{key} is {answer!r}: expected {expected}; answer anew.")
    if ANSWERS["text_column"] == ANSWERS["label_column"]:
        sys.exit(
            f"label_column is {ANSWERS['label_column']!r}: expected another column than that of "
            "the texts; answer anew."
        )
    if any(Path().iterdir()):
        sys.exit(
            f"Expected no folder {Path.cwd()} or an empty one, found files in it: answer with "
            "another slug; `make update` in there brings a newer template into a project."
        )
    ident = subprocess.run(["git", "var", "GIT_COMMITTER_IDENT"], capture_output=True, check=False)
    if ident.returncode:
        sys.exit(
            "Expected git to know who commits, found nobody: "
            "git config --global user.name NAME; git config --global user.email ADDRESS."
        )


if __name__ == "__main__":
    main()
