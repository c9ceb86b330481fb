"""Downloads over HTTP that go on where they broke, also of what is shared on Google Drive."""

import html
import logging
import re
import time
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from src.core.errors import InputError
from src.tables.places import File, refuse
from src.tables.streams import BLOCK, reason_of

DRIVE_LINK = re.compile(r"https://drive\.google\.com/(?:file/d/|(?:open|uc)\?(?:.*&)?id=)([\w-]+)")
DRIVE_DOWNLOAD = "https://drive.usercontent.google.com/download?id={}&export=download"
DRIVE_HOST = "drive.usercontent.google.com"  # the one whose page about large files is followed

ATTEMPTS = 5  # at a download, each from where the last one broke off
PAUSE = 1.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = 60  # seconds that a server may be silent, or take for the next SLOWEST bytes
SLOWEST = 1 << 16
PAGE = 1 << 20  # bytes of a page that are looked at

log = logging.getLogger("src.tables.download")


def download_link(url: str) -> str:
    """Return what a Google Drive share link downloads from; any other URL as it is."""
    drive = DRIVE_LINK.match(url)
    return DRIVE_DOWNLOAD.format(drive[1]) if drive else url


def download(file: File) -> str:
    """Copy a URL to ``file.path`` whole, and return the name that the file has at its server.

    A connection that breaks is taken up again where it broke, if the server can do that and the
    file is still the same.

    Raises:
        InputError: it isn't there, holds more than ``file.max_bytes``, or broke too often.
    """
    session = requests.Session()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _continue(session, file)
        except (requests.exceptions.RequestException, urllib3.exceptions.HTTPError) as error:
            answer = getattr(error, "response", None)
            final = answer is not None and answer.status_code < 500 and answer.status_code != 429
            if final or attempt == ATTEMPTS or isinstance(error, ValueError):
                refuse(file, error)
            pause = PAUSE * 2 ** (attempt - 1)
            log.warning("%s: %s; trying again in %g s", file, reason_of(error), pause)
            time.sleep(pause)
    raise AssertionError("the last attempt returns or raises")


def _continue(session: requests.Session, file: File) -> str:
    """Try once, from the bytes that are there already."""
    have = file.path.stat().st_size if file.path.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # so that the length is that of the file
    if have and "If-Range" in session.headers:
        headers["Range"] = f"bytes={have}-"
    url = download_link(file.url)
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        answer.raise_for_status()
        if form := _confirmation(answer, file):
            action, fields = form
            with session.get(
                action, params=fields, headers=headers, stream=True, timeout=TIMEOUT
            ) as confirmed:
                confirmed.raise_for_status()
                return _receive(session, confirmed, file)
        return _receive(session, answer, file)


def _receive(session: requests.Session, answer: Any, file: File) -> str:
    """Write what follows the bytes that are there, or all of it, and check that it is complete."""
    target = file.path
    tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
    start = 0
    if answer.status_code == requests.codes.partial_content:
        start = target.stat().st_size if target.exists() else 0
        place = answer.headers.get("Content-Range", "")
        known = session.headers.get("If-Range")
        if known is None or tag != known or not place.startswith(f"bytes {start}-"):
            target.unlink(missing_ok=True)
            raise requests.exceptions.ConnectionError("it has changed since")
    if tag:  # of the file that the bytes are from
        session.headers["If-Range"] = tag
    expected = answer.headers.get("Content-Length", "")
    since, due = time.monotonic(), SLOWEST
    try:
        with target.open("ab" if start else "wb") as copy:
            while chunk := answer.raw.read1(BLOCK, decode_content=False):
                copy.write(chunk)
                file.refuse_excess(copy.tell())
                if copy.tell() - start >= due:
                    since, due = time.monotonic(), copy.tell() - start + SLOWEST
                elif time.monotonic() - since > TIMEOUT:
                    raise requests.exceptions.ConnectionError(
                        f"it sends less than {SLOWEST} bytes in {TIMEOUT} s"
                    )
    except urllib3.exceptions.HTTPError as error:
        raise requests.exceptions.ConnectionError(str(error)) from error
    received = target.stat().st_size - start
    if expected.isdecimal() and received != int(expected):
        raise requests.exceptions.ConnectionError(
            f"it broke off after {received} of {expected} bytes"
        )
    log.info("downloaded %s, %d bytes", file, target.stat().st_size)
    named = re.search(r'filename="?([^";]+)', answer.headers.get("Content-Disposition", ""))
    return PurePosixPath(named[1]).name if named else urlsplit(file.name).path


def _confirmation(answer: Any, file: File) -> tuple[str, dict[str, str]] | None:
    """Return where Google Drive's page about large files leads; None if the answer is no page."""
    if not answer.headers.get("Content-Type", "").startswith("text/html"):
        return None
    page = answer.raw.read(PAGE, decode_content=True).decode(errors="replace")
    form = re.search(r'<form[^>]*id="download-form"[^>]*action="([^"]+)"', page)
    action = urljoin(answer.url, html.unescape(form[1])) if form else ""
    # Any other host's page could have this machine ask what only it can reach.
    if {urlsplit(url).hostname for url in (answer.url, action)} != {DRIVE_HOST}:
        raise InputError(
            f"{file} is a web page, not a file: is it shared with anyone who has the link?"
        )
    fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
    return action, dict(fields)
