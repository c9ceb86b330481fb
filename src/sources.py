"""Where the files of a source are, and how they are opened.

A source is a path, a glob or a URL that fsspec opens (``https://``, ``s3://``, ``gs://``,
``hf://``, ``zip://inner.csv::outer.zip``), a Google Drive share link, or ``pkg://package/path``,
which is a file or folder that an installed Python package carries.
"""

import lzma
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.core import OpenFile, url_to_fs

from src.packages import package_path
from src.stage import InputError, closest

DRIVE_LINK = re.compile(r"https://drive\.google\.com/(?:file/d/|(?:open|uc)\?(?:.*&)?id=)([\w-]+)")
DRIVE_DOWNLOAD = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"

# What reading and decompressing raise, and the packages whose clients raise errors of their own.
UNREADABLE = (
    OSError,
    EOFError,
    ImportError,
    TypeError,  # a protocol that needs more than a URL
    ValueError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
)
CLIENTS = {"aiohttp", "botocore", "gcsfs", "google", "httpx2", "huggingface_hub", "zstandard"}


def find(source: str) -> list[OpenFile]:
    """The files of a source in the order of their names, decompressed by their endings.

    Raises:
        InputError: there are none, or the place can't be reached.
    """
    if not source.strip():
        raise InputError("load.source is empty: expected a path or a URL of labelled texts.")
    url = package_path(download_link(source))
    with _opening(source):
        fs, path = url_to_fs(url)
        if "http" in fs.protocol:
            paths = [path]
        elif any(character in path for character in "*?["):
            paths = fs.glob(path)
        else:
            paths = _files_at(fs, path)
    # Hidden files, and DVC's own beside the data that it tracks, are no sources.
    paths = sorted(p for p in paths if not re.search(r"(^|/)\.[^/]*$|\.dvc$", p))
    if not paths:
        near = closest(Path(url).name, (p.name for p in Path(url).parent.glob("*")))
        tracked = Path(f"{url}.dvc").exists()
        remedy = ": `dvc pull` brings it." if tracked else f"{near}: correct load.source."
        raise InputError(
            f"Expected labelled texts at {source} (seen from {Path.cwd()}), found nothing{remedy}"
        )
    return [OpenFile(fs, p, "rb", compression="infer") for p in paths]


def _files_at(fs: AbstractFileSystem, path: str) -> list[str]:
    try:
        is_folder = fs.info(path)["type"] == "directory"
    except FileNotFoundError:
        return []
    return list(fs.find(path)) if is_folder else [path]


def content(file: OpenFile) -> bytes:
    """All bytes of a file; InputError if it can't be read to its end."""
    with _opening(file.path), file as stream:
        everything: bytes = stream.read()
        return everything


@contextmanager
def _opening(source: str) -> Iterator[None]:
    """Turn what goes wrong between here and the source into one sentence."""
    try:
        yield
    except Exception as error:
        package = type(error).__module__.split(".")[0]
        if not isinstance(error, UNREADABLE) and package not in CLIENTS:
            raise
        # fsspec says what to install, but only its cause says what the server answered.
        told = error if isinstance(error, ImportError) else error.__cause__ or error
        reason = str(told) or type(told).__name__
        remedy = "and run again" if isinstance(error, ImportError) else "check load.source"
        raise InputError(f"Expected to read {source}, found: {reason}; {remedy}.") from error


def download_link(url: str) -> str:
    """What a Google Drive share link downloads from; any other URL as it is."""
    drive = DRIVE_LINK.match(url)
    return DRIVE_DOWNLOAD.format(drive[1]) if drive else url
