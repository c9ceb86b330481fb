"""Find the files of a source, and bring those that are elsewhere to this machine.

A source is a path, a glob or a URL that fsspec opens (``https://``, ``s3://``, ``gs://``,
``hf://``, ``zip://inner.csv::outer.zip``), a Google Drive share link, or ``pkg://package/path``,
which is a file or folder that an installed Python package carries. A download over HTTP goes on
where it broke.
"""

import html
import logging
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from src.core import files as checksums
from src.core.errors import InputError, closest
from src.core.packages import package_path
from src.tables.places import File, Place, refuse
from src.tables.streams import BLOCK, UNKNOWN

CHUNK = 1 << 20  # bytes of a copy

DRIVE_LINK = re.compile(r"https://drive\.google\.com/(?:file/d/|(?:open|uc)\?(?:.*&)?id=)([\w-]+)")
DRIVE_DOWNLOAD = "https://drive.usercontent.google.com/download?id={}&export=download"

ATTEMPTS = 5  # at a download, each from where the last one broke off
PAUSE = 1.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = 60  # seconds that a server may be silent

log = logging.getLogger("src.tables.sources")


def find(
    sources: Sequence[str], folder: Path, sha256: str, max_bytes: int, setting: str = "load.source"
) -> list[File]:
    """Bring the files of all sources to this machine, in the order of their names.

    Args:
        sources: paths, globs and URLs.
        folder: what is not on this machine is copied here, whole or not at all.
        sha256: what the one file must have as it is stored; "" for any.
        max_bytes: what a file may hold once it is decompressed.
        setting: what messages call the list of sources.

    Raises:
        InputError: there are none, one is listed twice, or one can't be brought here whole.
    """
    if not sources or not all(source.strip() for source in sources):
        raise InputError(f"{setting} is empty: name a path or a URL of labelled texts.")
    found: dict[str, str] = {}
    files: list[File] = []
    for source in sources:
        fs, paths = _list(Place(source, setting))
        for path in paths:
            if path in found:
                raise InputError(
                    f"{path} is in {setting} twice, by {found[path]} and by {source}: take one "
                    "of them out."
                )
            found[path] = source
            target = folder / str(len(files))
            files.append(_bring(fs, File(path, setting, target, max_bytes), source))
    if sha256:
        _refuse_change(files, sha256)
    return files


def _refuse_change(files: Sequence[File], sha256: str) -> None:
    if len(files) != 1:
        raise InputError(
            f"load.sha256 is set, but load.source has {len(files)} files: set it to '', or pack "
            "them into one file."
        )
    found = checksums.sha256(files[0].path)
    if found != sha256:
        raise InputError(
            f"{files[0]} has changed: its sha256 is {found}, not {sha256}; set load.sha256 to the "
            "new one if that is meant."
        )


def _list(source: Place) -> tuple[AbstractFileSystem, list[str]]:
    url = package_path(download_link(source.name))
    try:
        fs, path = url_to_fs(url)
        if "http" in fs.protocol:
            return fs, [path]
        if any(character in path for character in "*?[") and not fs.exists(path):
            paths = fs.glob(path)
        else:
            paths = _files_at(fs, path)
    except Exception as error:
        refuse(source, error, *UNKNOWN)
    # Hidden files and folders, and DVC's own beside the data that it tracks, are no sources.
    named = len(re.split(r"[*?\[]", path)[0])
    paths = sorted(p for p in paths if not re.search(r"(^|/)\.|\.dvc$", p[named:]))
    paths = [p for p in paths if not PurePosixPath(p).name.startswith(".")]
    if not paths:
        names = {p.name for p in Path(url).parent.glob("*")}
        near = closest(Path(url).name, names - {Path(url).name})
        tracked = Path(f"{url}.dvc").exists()
        remedy = ": `dvc pull` brings it." if tracked else f"{near}: correct {source.setting}."
        raise InputError(f"There are no labelled texts at {source}, seen from {Path.cwd()}{remedy}")
    return fs, paths


def _files_at(fs: AbstractFileSystem, path: str) -> list[str]:
    try:
        is_folder = fs.info(path)["type"] == "directory"
    except FileNotFoundError:
        return []
    return list(fs.find(path)) if is_folder else [path]


def _bring(fs: AbstractFileSystem, file: File, source: str) -> File:
    """Copy a file to its path, unless it is on this machine."""
    if "file" in fs.protocol:
        return replace(file, path=Path(file.name))
    if "http" in fs.protocol:
        return replace(file, name=download(Place(file.name, file.setting), file.path))
    log.info("copying %s of %s", file, source)
    try:
        with fs.open(file.name) as stream, file.path.open("wb") as copy:
            while chunk := stream.read(CHUNK):
                copy.write(chunk)
                if "zip" in fs.protocol:
                    file.refuse_excess(copy.tell())
        size = fs.info(file.name).get("size")
    except Exception as error:
        refuse(Place(source, file.setting), error, *UNKNOWN)
    found = file.path.stat().st_size
    if size is not None and size != found:
        raise InputError(f"{file} came with {found} of {size} bytes: run again.")
    return file


def download_link(url: str) -> str:
    """Return what a Google Drive share link downloads from; any other URL as it is."""
    drive = DRIVE_LINK.match(url)
    return DRIVE_DOWNLOAD.format(drive[1]) if drive else url


def download(place: Place, target: Path) -> str:
    """Copy a URL to ``target`` whole, and return the name that the file has at its server.

    A connection that breaks is taken up again where it broke, if the server can do that and the
    file is still the same.

    Raises:
        InputError: it isn't there, or broke too often.
    """
    session = requests.Session()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _continue(session, place.name, target)
        except requests.exceptions.RequestException as error:
            answer = error.response
            final = answer is not None and answer.status_code < 500 and answer.status_code != 429
            if final or attempt == ATTEMPTS or isinstance(error, ValueError):
                refuse(place, error)
            pause = PAUSE * 2 ** (attempt - 1)
            log.warning("%s; trying again in %g s", error, pause)
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _continue(session: requests.Session, url: str, target: Path) -> str:
    """Try once, from the bytes that are there already."""
    have = target.stat().st_size if target.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # so that the length is that of the file
    if have and "If-Range" in session.headers:
        headers["Range"] = f"bytes={have}-"
    get = partial(session.get, headers=headers, stream=True, timeout=TIMEOUT)
    with get(url) as answer:
        answer.raise_for_status()
        if form := _confirmation(answer):
            action, fields = form
            with get(action, params=fields) as confirmed:
                confirmed.raise_for_status()
                return _receive(session, confirmed, target, url)
        return _receive(session, answer, target, url)


def _receive(session: requests.Session, answer: Any, target: Path, url: str) -> str:
    """Write what follows the bytes that are there, or all of it, and check that it is complete."""
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    start = 0
    if answer.status_code == requests.codes.partial_content:
        start = target.stat().st_size
        place = answer.headers.get("Content-Range", "")
        if tag != session.headers["If-Range"] or not place.startswith(f"bytes {start}-"):
            target.unlink()
            raise requests.exceptions.ConnectionError(f"{url} has changed since")
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
            f"{url} broke off after {received} of {expected} bytes"
        )
    log.info("downloaded %s, %d bytes", url, target.stat().st_size)
    named = re.search(r'filename="?([^";]+)', answer.headers.get("Content-Disposition", ""))
    return PurePosixPath(named[1]).name if named else urlsplit(url).path


def _confirmation(answer: Any) -> tuple[str, dict[str, str]] | None:
    """Return where Google Drive's page about large files leads; None if the answer is no page."""
    if not answer.headers.get("Content-Type", "").startswith("text/html"):
        return None
    page = answer.text
    form = re.search(r'<form[^>]*id="download-form"[^>]*action="([^"]+)"', page)
    if form is None:
        raise InputError(
            f"{answer.url} is a web page, not a file: is it shared with anyone who has the link?"
        )
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
    return urljoin(answer.url, html.unescape(form[1])), dict(fields)
