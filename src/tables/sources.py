"""Where the files of a source are, and how they are brought here and opened.

A source is a path, a glob or a URL that fsspec opens (``https://``, ``s3://``, ``gs://``,
``hf://``, ``zip://inner.csv::outer.zip``), a Google Drive share link, or ``pkg://package/path``,
which is a file or folder that an installed Python package carries.
"""

import hashlib
import html
import io
import logging
import lzma
import re
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from urllib.parse import urljoin, urlsplit

import fsspec.utils
import requests
import urllib3
from backports import zstd  # with it, fsspec sees where a file breaks off
from fsspec import AbstractFileSystem
from fsspec.core import OpenFile, url_to_fs

from src.core.errors import InputError, closest
from src.core.packages import package_path

DRIVE_LINK = re.compile(r"https://drive\.google\.com/(?:file/d/|(?:open|uc)\?(?:.*&)?id=)([\w-]+)")
DRIVE_DOWNLOAD = "https://drive.usercontent.google.com/download?id={}&export=download"

ATTEMPTS = 5  # at a download, each from where the last one broke off
PAUSE = 1.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = 60  # seconds that a server may be silent
CHUNK = 1 << 20  # bytes of a copy
BLOCK = 1 << 16  # bytes that are received or decompressed at a time

# What files of other kinds begin with.
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a zip archive, such as .xlsx is",
    b"PAR1": "parquet",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"%PDF": "PDF",
    b"\xd0\xcf\x11\xe0": "an old Office file, such as .xls is",
    b"SQLite format 3": "an SQLite database",
}

# What reading and decompressing raise, and the packages whose clients raise errors of their own.
UNREADABLE = (
    OSError,
    EOFError,
    ImportError,
    TypeError,  # a protocol that needs more than a URL
    ValueError,
    zlib.error,
    lzma.LZMAError,
    zstd.ZstdError,
    zipfile.BadZipFile,
)
CLIENTS = {"aiohttp", "botocore", "gcsfs", "google", "httpx2", "huggingface_hub"}
PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")  # endings of compressed files

log = logging.getLogger("src.tables.sources")


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes:
        name: what messages call it; its ending says its format.
        path: where it lies on this machine.
        max_bytes: what it may hold once it is decompressed.
    """

    name: str
    path: Path
    max_bytes: int

    @property
    def compression(self) -> str | None:
        """How the ending says that it is compressed."""
        kind: str | None = fsspec.utils.infer_compression(self.name)
        return kind

    @contextmanager
    def open(self) -> Iterator[io.BufferedReader]:
        """Its bytes, decompressed; what goes wrong while they are read becomes an InputError."""
        if self.compression == "zip":
            self._refuse_several_members()
        raw = OpenFile(fsspec.filesystem("file"), str(self.path), "rb", self.compression)
        try:
            stream = raw.open()
        except Exception as error:
            _refuse(self.name, error)
        with stream:
            yield io.BufferedReader(_Counted(stream, self), BLOCK)

    def _refuse_several_members(self) -> None:
        try:
            with zipfile.ZipFile(self.path) as archive:
                names = [name for name in archive.namelist() if not name.endswith("/")]
        except UNREADABLE as error:
            _refuse(self.name, error)
        if len(names) != 1:
            raise InputError(
                f"Expected one file in {self.name}, found {len(names)}: name those to read, as in "
                f"zip://*.csv::{self.name}."
            )

    def refuse_other_kinds(self, start: bytes, expected: str) -> None:
        """Stop if the file begins like one of another kind than text."""
        if start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
            raise InputError(
                f"Expected labelled texts in {self.name}, found a web page: "
                "is the file shared with anyone who has the link?"
            )
        for magic, kind in MAGIC.items():
            if start.startswith(magic):
                raise InputError(
                    f"Expected {expected} in {self.name}, found {kind} by its first bytes: give "
                    "it the ending of what it is, or save it anew as csv."
                )


class _Counted(io.RawIOBase):
    """A stream that counts its bytes, and stops where there are more than a file may hold."""

    def __init__(self, stream: Any, file: File) -> None:
        self._stream = stream
        self._file = file
        self.bytes = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._stream.seekable())

    def seek(self, position: int, whence: int = 0) -> int:
        return int(self._stream.seek(position, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def readinto(self, buffer: Any) -> int:
        try:
            # A small part at a time, so that little is lost of what breaks.
            data = self._stream.read(min(len(buffer), BLOCK))
        except UNREADABLE as error:
            raise InputError(
                f"Expected to read {self._file.name} to its end, found it broken off or damaged "
                f"after {self.bytes} bytes ({str(error) or type(error).__name__}): bring it anew."
            ) from error
        buffer[: len(data)] = data
        self.bytes += len(data)
        if self._file.compression:
            _refuse_excess(self._file.name, self.bytes, self._file.max_bytes)
        return len(data)


def _refuse_excess(name: str, found: int, most: int) -> None:
    if found > most:
        raise InputError(
            f"Expected at most {most} bytes in {name} once it is decompressed, found more: raise "
            "load.max_bytes if the file can be trusted."
        )


def find(sources: Sequence[str], folder: Path, sha256: str, max_bytes: int) -> list[File]:
    """The files of all sources, brought to this machine, in the order of their names.

    Args:
        sources: paths, globs and URLs.
        folder: what is not on this machine is copied here, whole or not at all.
        sha256: what the one file must have as it is stored; "" for any.
        max_bytes: what a file may hold once it is decompressed.

    Raises:
        InputError: there are none, one is listed twice, or one can't be brought here whole.
    """
    if not sources or not all(source.strip() for source in sources):
        raise InputError("load.source is empty: expected a path or a URL of labelled texts.")
    found: dict[str, str] = {}
    files: list[File] = []
    for source in sources:
        fs, paths = _list(source)
        for path in paths:
            if path in found:
                raise InputError(
                    f"Expected each file once, found {path} in {found[path]} and in {source}: "
                    "take it out of load.source once."
                )
            found[path] = source
            files.append(_bring(fs, path, source, folder / str(len(files)), max_bytes))
    if sha256:
        _refuse_change(files, sha256)
    return files


def _refuse_change(files: Sequence[File], sha256: str) -> None:
    if len(files) != 1:
        raise InputError(
            f"load.sha256 is set: expected one file in load.source, found {len(files)}; make it "
            "'', or pack them into one file."
        )
    with files[0].path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise InputError(
            f"Expected sha256 {sha256} of {files[0].name}, found {found}: the source has changed; "
            "set load.sha256 to the new one if that is meant."
        )


def _list(source: str) -> tuple[AbstractFileSystem, list[str]]:
    url = package_path(download_link(source))
    try:
        fs, path = url_to_fs(url)
        if "http" in fs.protocol:
            return fs, [path]
        if any(character in path for character in "*?[") and not fs.exists(path):
            paths = fs.glob(path)
        else:
            paths = _files_at(fs, path)
    except Exception as error:
        _refuse(source, error)
    # Hidden files and folders, and DVC's own beside the data that it tracks, are no sources.
    named = len(re.split(r"[*?\[]", path)[0])
    paths = sorted(p for p in paths if not re.search(r"(^|/)\.|\.dvc$", p[named:]))
    paths = [p for p in paths if not PurePosixPath(p).name.startswith(".")]
    if not paths:
        names = {p.name for p in Path(url).parent.glob("*")}
        near = closest(Path(url).name, names - {Path(url).name})
        tracked = Path(f"{url}.dvc").exists()
        remedy = ": `dvc pull` brings it." if tracked else f"{near}: correct load.source."
        raise InputError(
            f"Expected labelled texts at {source} (seen from {Path.cwd()}), found nothing{remedy}"
        )
    return fs, paths


def _files_at(fs: AbstractFileSystem, path: str) -> list[str]:
    try:
        is_folder = fs.info(path)["type"] == "directory"
    except FileNotFoundError:
        return []
    return list(fs.find(path)) if is_folder else [path]


def _bring(fs: AbstractFileSystem, path: str, source: str, target: Path, max_bytes: int) -> File:
    if "file" in fs.protocol:
        return File(path, Path(path), max_bytes)
    if "http" in fs.protocol:
        return File(_download(path, target), target, max_bytes)
    log.info("copying %s of %s", path, source)
    try:
        with fs.open(path) as stream, target.open("wb") as copy:
            while chunk := stream.read(CHUNK):
                copy.write(chunk)
                if "zip" in fs.protocol:
                    _refuse_excess(path, copy.tell(), max_bytes)
        size = fs.info(path).get("size")
    except Exception as error:
        _refuse(source, error)
    if size is not None and size != target.stat().st_size:
        raise InputError(
            f"Expected {size} bytes of {path}, found {target.stat().st_size}: run again."
        )
    return File(path, target, max_bytes)


def _download(url: str, target: Path) -> str:
    """Bring ``url`` to ``target`` whole, and return the name that the file has at its server.

    A connection that breaks is taken up again where it broke, if the server can do that and the
    file is still the same.
    """
    session = requests.Session()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _continue(session, url, target)
        except requests.exceptions.RequestException as error:
            answer = error.response
            final = answer is not None and answer.status_code < 500 and answer.status_code != 429
            if final or attempt == ATTEMPTS or isinstance(error, ValueError):
                _refuse(url, error)
            pause = PAUSE * 2 ** (attempt - 1)
            log.warning("%s; trying again in %g s", error, pause)
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _continue(session: requests.Session, url: str, target: Path) -> str:
    """One attempt at a download, after the bytes that are there already."""
    have = target.stat().st_size if target.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # so that the length is that of the file
    if have and "If-Range" in session.headers:
        headers["Range"] = f"bytes={have}-"
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        if form := _confirmation(answer):
            action, fields = form
            with session.get(
                action, params=fields, headers=headers, stream=True, timeout=TIMEOUT
            ) as confirmed:
                confirmed.raise_for_status()
                return _receive(session, confirmed, target, url)
        return _receive(session, answer, target, url)


def _receive(session: requests.Session, answer: Any, target: Path, url: str) -> str:
    """Write what comes after what is there, or anew, and see that it is all."""
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    start = 0
    if answer.status_code == requests.codes.partial_content:
        start = target.stat().st_size
        place = answer.headers.get("Content-Range", "")
        if tag != session.headers["If-Range"] or not place.startswith(f"bytes {start}-"):
            target.unlink()
            raise requests.exceptions.ConnectionError(f"{url} has changed meanwhile")
    if tag:  # of the file that the bytes are from
        session.headers["If-Range"] = tag
    expected = answer.headers.get("Content-Length")
    try:
        with target.open("ab" if start else "wb") as copy:
            for chunk in answer.raw.stream(BLOCK, decode_content=False):
                copy.write(chunk)
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ConnectionError(str(error)) from error
    received = target.stat().st_size - start
    if expected is not None and received != int(expected):
        raise requests.exceptions.ConnectionError(
            f"Expected {expected} bytes of {url}, found {received}"
        )
    log.info("downloaded %s, %d bytes", url, target.stat().st_size)
    named = re.search(r'filename="?([^";]+)', answer.headers.get("Content-Disposition", ""))
    return PurePosixPath(named[1]).name if named else urlsplit(url).path


def _confirmation(answer: Any) -> tuple[str, dict[str, str]] | None:
    """Where Google Drive's page that asks about large files leads, if the answer is that page."""
    if not answer.headers.get("Content-Type", "").startswith("text/html"):
        return None
    page = answer.text
    form = re.search(r'<form[^>]*id="download-form"[^>]*action="([^"]+)"', page)
    if form is None:
        raise InputError(
            f"Expected labelled texts at {answer.url}, found a web page: "
            "is the file shared with anyone who has the link?"
        )
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
    return urljoin(answer.url, html.unescape(form[1])), dict(fields)


def _refuse(source: str, error: Exception) -> NoReturn:
    """Turn what went wrong between here and a source into one sentence; a defect stays as it is."""
    package = type(error).__module__.split(".")[0]
    if isinstance(error, InputError) or not (isinstance(error, UNREADABLE) or package in CLIENTS):
        raise error
    # fsspec says what to install, but only its cause says what the server answered.
    told = error if isinstance(error, ImportError) else error.__cause__ or error
    reason = str(told) or type(told).__name__
    remedy = "and run again" if isinstance(error, ImportError) else "check load.source"
    raise InputError(f"Expected to read {source}, found: {reason}; {remedy}.") from error


def download_link(url: str) -> str:
    """What a Google Drive share link downloads from; any other URL as it is."""
    drive = DRIVE_LINK.match(url)
    return DRIVE_DOWNLOAD.format(drive[1]) if drive else url
