"""Files of output that take their place when they are whole."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from src.core.errors import InputError
from src.tables.places import STANDARD, Place, reaching
from src.tables.streams import UNKNOWN


@contextmanager
def writing_to(place: Place | Path) -> Iterator[None]:
    """Turn what is in the way of a file here into one sentence.

    Raises:
        InputError: names the file and what the system said.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{place} can't be written: {error.strerror}; change that, or name another file."
        ) from error


def refuse_not_a_file(place: Place) -> None:
    """Stop if a local place is a folder, device, pipe or socket, which output would replace."""
    path = Path(place.name)
    with writing_to(place):
        if path.is_dir():
            raise InputError(f"{place.setting} {place} is a folder: name a file.")
        if path.exists() and not path.is_file():
            raise InputError(
                f"{place.setting} {place} is a device, pipe or socket, which would be replaced: "
                "name a file, or - for standard output."
            )


def beside(place: Place, ending: str) -> Path:
    """Name a hidden file beside a local place, or beside what that links to; make its folder."""
    path = Path(place.name)
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{ending}")


@contextmanager
def fresh(place: Place) -> Iterator[IO[bytes]]:
    """Open a place to be written; it gets the bytes only if the block ends well.

    Raises:
        InputError: it can't be written.
    """
    if place.name == STANDARD:
        # A copy, so that what is left in it when something breaks closes that and no more.
        with os.fdopen(os.dup(1), "wb") as stream:
            yield stream
    elif place.is_local:
        # What a killed run left there is written over; the journal has the lock on the output.
        unfinished = beside(place, "unfinished")
        with writing_to(place):
            opened = unfinished.open("wb")
        try:
            with opened as stream:
                yield stream
            with writing_to(place):
                unfinished.replace(os.path.realpath(place.name))
        finally:
            unfinished.unlink(missing_ok=True)
    else:
        import fsspec

        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, "output")
            with whole.open("wb") as stream:
                yield stream
            with reaching(place, *UNKNOWN, doing="written"):
                fs, path = fsspec.core.url_to_fs(place.url)
                fs.put_file(str(whole), path)
