"""params.yaml for commands that change it: what a person wrote into it, comments too, stays."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import YAMLError

from src.core.errors import InputError
from src.core.files import replacing

PARAMS = Path("params.yaml")
SECTIONS = ("load", "quality", "split", "baseline", "train", "evaluate", "card")  # at least


class Section(dict[str, Any]):
    """The params of a section; one that is not there is a mistake in params.yaml."""

    name = ""

    def __missing__(self, key: str) -> Any:
        raise InputError(
            f"{self.name}.{key} is missing: expected it in params.yaml; `git log -p params.yaml` "
            "tells what it was."
        )


def read() -> dict[str, Section]:
    """The sections of params.yaml.

    Raises:
        InputError: it is not here, or has no such sections; or a param is asked for that it lacks.
    """
    found = {}
    for name, values in _load()[1].items():
        found[name] = Section(values)
        found[name].name = name
    return found


def write(changes: Mapping[str, Any]) -> None:
    """Give params, such as ``load.source``, other values, in the file as it is now.

    Raises:
        InputError: as of ``read``.
    """
    yaml, values = _load()
    for name, value in changes.items():
        section, _, key = name.partition(".")
        _put(values[section], key, value)
    with replacing(PARAMS) as fresh:
        yaml.dump(values, fresh)


def _load() -> tuple[YAML, Any]:
    yaml = YAML()  # of YAML 1.2, as DVC reads and writes it: its next change will be one line
    yaml.default_flow_style = False
    try:
        values = yaml.load(PARAMS)
        if not isinstance(values, Mapping):
            raise TypeError("no sections")
        for name in dict.fromkeys([*SECTIONS, *values]):
            if not isinstance(values.get(name), Mapping):
                raise TypeError(f"{values[name]!r} as {name}" if name in values else f"no {name}")
    except (OSError, YAMLError, TypeError) as error:
        raise InputError(
            f"Expected params.yaml with the sections {', '.join(SECTIONS)} in {Path.cwd()}, "
            f"found: {' '.join(str(error).split())}; go to the root of the project, or correct it."
        ) from None
    return yaml, values


def _put(section: Any, key: str, value: Any) -> None:
    """Give a key another value; the comment over the next key hangs on the end of a list."""
    if isinstance(value, list):
        old, value = section[key], CommentedSeq(value)
        tail = old.ca.items.get(len(old) - 1)
        if tail and value:
            value.ca.items[len(value) - 1] = tail
        elif tail:
            section.ca.items[key] = [None, None, tail[0], None]
        if not value:
            value.fa.set_flow_style()  # [], as DVC writes it
    section[key] = value
