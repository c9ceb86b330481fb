"""The card of a served model, README.md in its folder: its front matter, and its page."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from src.core.errors import InputError
from src.predict.foreign import refusing

FRONT_MATTER = 2**16  # characters of a card's front matter, which is decoded in Python


class _Loader(yaml.SafeLoader):
    """A loader without aliases, a few of which make gigabytes of a few lines, or a circle."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias, *, which is not read")
        return super().compose_node(parent, index)


def front_matter(text: str, path: Path) -> tuple[dict[str, Any], str]:
    """Read the YAML between two lines of three dashes at the top of a model card, and the rest.

    Raises:
        InputError: it is too long, or no YAML, or has an alias.
    """
    page = text.replace("\r\n", "\n")
    match = re.match(r"---\n(.*?)\n---\n(.*)", page, re.DOTALL)
    if match is None:
        return {}, page
    if len(match[1]) > FRONT_MATTER:
        raise InputError(
            f"The top of {path} has more than {FRONT_MATTER} characters: shorten it, and export "
            "the model again."
        )
    with refusing(f"The top of {path} is not valid YAML"):
        found = yaml.load(match[1], _Loader)  # noqa: S506, it is a SafeLoader
        named = _named(found)
    return (named, match[2]) if isinstance(named, dict) else ({}, page)


def _named(value: Any) -> Any:
    """Replace keys of YAML that JSON can't have by texts."""
    if isinstance(value, dict):
        return {
            json.dumps(key) if key is None or isinstance(key, bool) else key: _named(one)
            for key, one in value.items()
        }
    return [_named(one) for one in value] if isinstance(value, list) else value
