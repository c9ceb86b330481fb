"""Files kept by their sha256, beside what wheels gave: sources are looked up there first."""

import shutil
from pathlib import Path

from src.core.errors import InputError
from src.core.files import replacing, sha256
from src.core.packages import cache


def kept(digest: str) -> Path | None:
    """Return the file of the cache that has a sha256, None if it has none that is whole."""
    folder = cache() / digest
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return next((file for file in files if file.is_file() and sha256(file) == digest), None)


def keep(file: Path, name: str) -> Path:
    """Put a copy of a file into the cache under a name, and return where it is.

    Raises:
        InputError: the cache can't be written to.
    """
    digest = sha256(file)
    if there := kept(digest):
        return there
    place = cache() / digest / name
    try:
        with replacing(place) as fresh:
            shutil.copyfile(file, fresh)
    except PermissionError:
        raise InputError(
            f"{cache()} can't be written to, and is to keep {name}: let PEDIGREE_CACHE, a variable "
            "of the environment, name another folder."
        ) from None
    return place
