"""Read, type and write a params.yaml; what a person wrote into it, comments too, stays."""

from collections.abc import Callable, Mapping
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.error import YAMLError

from src.core.command_line import bind
from src.core.errors import InputError, closest
from src.core.files import replacing

PARAMS = Path("params.yaml")  # of the pipeline at the root of the repository


def file_beside(pipeline: str) -> str:
    """Name the params.yaml beside a dvc.yaml."""
    return PurePosixPath(pipeline).with_name(PARAMS.name).as_posix()


class Section(dict[str, Any]):
    """The params of one section."""

    name: str
    path: Path  # of the params.yaml that it stands in

    def __missing__(self, key: str) -> Any:
        raise InputError(
            f"{self.name}.{key} is missing in {self.path}: `git log -p {self.path}` tells what it "
            "was."
        )


class Sections(dict[str, Section]):
    """The sections of the params.yaml at ``path``."""

    path: Path

    def __missing__(self, name: str) -> Section:
        raise InputError(f"{self.path} has no section {name!r}{closest(name, self)}: add it.")


def read(path: Path = PARAMS) -> Sections:
    """Read the sections of a params.yaml, as DVC does, by YAML 1.2.

    Raises:
        InputError: it is not there or holds something else than sections. Asking the result for a
            section or a param that is missing raises InputError, too.
    """
    sections = Sections()
    sections.path = path
    for name, values in _load(YAML(typ="safe"), path).items():
        section = sections[name] = Section(values)
        section.name, section.path = name, path
    return sections


def typed(schema: Callable[..., Any], section: Section) -> dict[str, Any]:
    """Type the params of a section by the keyword-only parameters of a function or dataclass.

    Raises:
        InputError: a param is missing, stray or not what it may be.
    """
    _, params = bind(schema, section.name, True, words_of(section), str(section.path))
    return params


def words_of(section: Mapping[str, Any]) -> list[str]:
    """Turn a section into the words that DVC makes of it on the command line of a stage.

    DVC leaves an empty list out. A test compares this with ``dvc.parsing``, which takes long to
    import.
    """
    words = []
    for key, value in section.items():
        if isinstance(value, bool):
            words.append(f"--{key}" if value else f"--no-{key}")
        elif isinstance(value, Mapping):
            words += words_of({f"{key}.{inner}": v for inner, v in value.items()})
        elif isinstance(value, list):
            if any(isinstance(item, list | Mapping) for item in value):
                raise InputError(f"{key} has a list or section in a list: write plain values.")
            words += [f"--{key}", *map(str, value)] if value else []
        else:
            words += [f"--{key}", str(value)]
    return words


def breaks_a_line(value: str) -> bool:
    """Tell whether a value can't stand in the command lines that DVC makes of the params."""
    return len(f"{value}.".splitlines()) > 1 or "\0" in value


def refuse_broken_lines(changes: Mapping[str, Any]) -> None:
    """Raise InputError if a param, by its name, would break the command line of a stage."""
    for name, new in changes.items():
        for value in new if isinstance(new, list) else [new]:
            if isinstance(value, str) and breaks_a_line(value):
                raise InputError(
                    f"{name} would be {value!r}, and DVC can't run a command with a line end or a "
                    "zero byte in it: rename that first."
                )


def write(changes: Mapping[str, Any], path: Path = PARAMS) -> None:
    """Give params, such as ``load.source``, other values in the file; InputError as of ``read``."""
    yaml = YAML()  # keeps comments, and writes as DVC does: its next change will be one line
    yaml.default_flow_style = False
    values = _load(yaml, path)
    for name, value in changes.items():
        section, _, key = name.partition(".")
        _put(values[section], key, value)
    text = StringIO()
    yaml.dump(values, text)
    end = "\r\n" if b"\r\n" in path.read_bytes() else "\n"  # which comments have kept
    with replacing(path) as fresh:
        whole = text.getvalue().replace("\r\n", "\n")
        fresh.write_text(whole, encoding="utf-8", newline=end)


def _load(yaml: YAML, path: Path) -> Any:
    try:
        values = yaml.load(path)
    except (OSError, YAMLError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path} can't be read ({reason}): correct it, or go to the root of the project."
        ) from None
    if not isinstance(values, Mapping):
        raise InputError(f"{path} has no sections: `git log -p {path}` tells what it had.")
    for name, section in values.items():
        if not isinstance(section, Mapping):
            raise InputError(f"{name} in {path} is {section!r}: write a section of params there.")
    return values


def _put(section: Any, key: str, value: Any) -> None:
    """Give a key another value; the comment over the next key hangs on the end of a list."""
    if isinstance(value, list):
        old, value = section.get(key, CommentedSeq()), CommentedSeq(value)
        tail = old.ca.items.get(len(old) - 1)
        if tail and value:
            value.ca.items[len(value) - 1] = tail
        elif tail:
            section.ca.items[key] = [None, None, tail[0], None]
        if not value:
            value.fa.set_flow_style()  # [], as DVC writes it
    section[key] = value
