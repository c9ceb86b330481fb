"""What folders tell: the labels of texts, as ``<label>/<id>.txt``, or the value of a column."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote

from src.core.errors import InputError
from src.tables.encodings import decode, refuse_other_files
from src.tables.examples import fold
from src.tables.places import ENDINGS, File
from src.tables.streams import PACKED

log = logging.getLogger("src.tables.folders")


class LabelledText(NamedTuple):
    """A text, its id ``<label>/<id>``, its label, and the name of its file."""

    id: str
    text: str
    label: str
    name: str


def columns_of(
    folders: Sequence[Sequence[str]], names: Sequence[str]
) -> list[dict[str, str | None]]:
    """Return the columns that folders name, as in ``label=ham/part-0.parquet``, of each file.

    They are those that all files have, and never one of ids, which differ by row.

    Args:
        folders: those between the source and each of its files.
        names: of the files, for messages.
    """
    found = []
    for parts in folders:
        pairs = [part.partition("=") for part in parts]
        found.append(
            {
                key: None if value == "__HIVE_DEFAULT_PARTITION__" else unquote(value)
                for key, sign, value in pairs
                if sign and key.isidentifier() and fold(key) != "id"
            }
        )
    for key in sorted({key for columns in found for key in columns}):
        if odd := [name for name, columns in zip(names, found, strict=True) if key not in columns]:
            log.warning(
                "Folders %s=... are not read as a column, since %s is in none: move it into one, "
                "or leave it out",
                *(key, odd[0]),
            )
            for columns in found:
                columns.pop(key, None)
    return found


def stems(names: Sequence[str]) -> dict[str, str]:
    """Shorten names of files, to more where the last part of several is the same."""
    found = {name: stem(name) for name in names}
    for parts in range(2, 1 + max((len(PurePosixPath(name).parts) for name in names), default=0)):
        count = Counter(found.values())
        for name in [name for name, short in found.items() if count[short] > 1]:
            folders = PurePosixPath(name).parts[-parts:-1]
            found[name] = "/".join([*folders, stem(name)])
    return found


def stem(name: str) -> str:
    """Take the folders, and the endings that tell the format, off the name of a file."""
    found = PurePosixPath(name).name
    while (suffix := PurePosixPath(found).suffix.lower()) and suffix in (*ENDINGS, ".txt", *PACKED):
        found = found[: -len(suffix)]
    return found


def root_of(files: Sequence[File]) -> str:
    """Return the folder of the labels' folders; InputError if there are several."""
    paths = [PurePosixPath(file.name) for file in files]
    root, _ = Counter(path.parent.parent for path in paths).most_common(1)[0]
    for file, path in zip(files, paths, strict=True):
        if path.parent.parent != root:
            raise InputError(
                f"{path} is outside the folder of the other texts, {root}/<label>/<id>.txt: move "
                f"it, or point {file.setting} at the folder of the labels."
            )
    return str(root)


def texts_of(files: Sequence[File], encodings: Sequence[str]) -> Iterator[LabelledText]:
    """Read texts, each in the first encoding that fits it."""
    for file in files:
        path = PurePosixPath(file.name)
        with file.open() as stream:
            refuse_other_files(stream, "txt", encodings[0], file)
            text = decode(stream.read(), file, encodings)
        label = path.parent.name
        yield LabelledText(f"{label}/{path.name.removesuffix('.txt')}", text, label, file.name)
