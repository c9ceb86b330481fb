"""Write Markdown for people, with what users wrote shown as it is."""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from src.core.secrets import without_secrets


def code(value: object) -> str:
    """Show anything as code on one line, with invisible characters escaped."""
    text = " ".join(str(value).split())
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return "`" + shown.replace("`", "'").replace("|", "¦") + "`" if shown else "''"


def plain(text: str) -> str:
    """Write text in which no sign has a meaning: not that of a tag, a link, code or emphasis."""
    return re.sub(r"([\\`*<>|~]|\](?=[(\[]))", r"\\\1", text)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table; its cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Write a table whose columns also line up as plain text; the first row is its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [rows[0], ["-" * width for width in widths], *rows[1:]]
    lines = (" | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "".join(f"| {line} |\n" for line in lines)


def public(place: str) -> str:
    """Show a source or checkpoint without folders of a user and without secrets."""
    parts = []
    for part in place.split("::"):
        if PurePath(part).is_absolute() or part.startswith(("~", "file:")):
            parts.append(PurePath(part).name)
        else:
            parts.append(without_secrets(part))
    return "::".join(parts)
