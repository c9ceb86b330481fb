"""Put files into the cache, where a source with a sha256 is looked up by it: no network is needed.

    python -m src.tools.fetch FILE...

A machine without internet gets the files by other means, and runs on the same params as all others.
"""

import logging
import tempfile
from pathlib import Path, PurePosixPath

from src.core import kept, stage
from src.core.errors import InputError
from src.tables import sources

LARGEST = 10**12  # bytes of a file

log = logging.getLogger("src.tools.fetch")


def main(*files: str) -> None:
    """Copy files, from a path or a URL, into the cache, and say where each is.

    Args:
        files: paths, globs and URLs.
    """
    if not files:
        raise InputError("Name the files, such as `python -m src.tools.fetch xquad.en.json`.")
    with tempfile.TemporaryDirectory() as folder:
        for file in sources.find(files, Path(folder), "", LARGEST, "the command line"):
            there = kept.keep(file.path, PurePosixPath(file.name).name)
            log.info("%s: add #sha256=%s to its URL; it is at %s", file, there.parent.name, there)


if __name__ == "__main__":
    stage.run(main, section=False)
