"""Refuse what the prompts could not see: a replay that was edited, and a folder with files in it.

cookiecutter puts the answers into this file and runs it in the new folder.
"""

import json
import sys
from pathlib import Path

from click import ClickException

CONTEXT = json.loads(r"""{{ cookiecutter | jsonify }}""")
sys.path.insert(0, CONTEXT["_repo_dir"])

from hooks.answers import check  # noqa: E402

if any(Path().iterdir()):
    sys.exit(
        f"The folder {Path.cwd()} has files: answer with another slug, or run `make update` in "
        "there to bring a newer template into a project."
    )
try:
    check(CONTEXT)
except ClickException as error:
    sys.exit(error.message)
