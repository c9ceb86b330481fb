"""Pages for people: what users wrote, shown in Markdown as it is."""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath


def code(value: object) -> str:
    """Anything on one line, no sign of it with a meaning in Markdown, nothing invisible."""
    text = " ".join(str(value).split())
    shown = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    return "`" + shown.replace("`", "'").replace("|", "¦") + "`" if shown else "''"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; its cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def without_secrets(text: str) -> str:
    """Text in which links have lost what may let one in: before an @, and after a question mark."""
    text = re.sub(r"(?<=://)[^/@\s]*@", "", text)
    return re.sub(r"(://[^\s'\"?]*)\?[^\s'\"]*", r"\1", text)


def public(place: str) -> str:
    """A source or checkpoint without what names a user or lets one in."""
    parts = []
    for part in place.split("::"):
        if PurePath(part).is_absolute() or part.startswith(("~", "file:")):
            parts.append(PurePath(part).name)
        else:
            parts.append(without_secrets(part))
    return "::".join(parts)
