"""Downloads over HTTP that go on where they broke, also of what is shared on Google Drive."""

import html
import logging
import re
import time
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from src.core.errors import InputError
from src.tables.places import BLOCK, Place, refuse

DRIVE_LINK = re.compile(r"https://drive\.google\.com/(?:file/d/|(?:open|uc)\?(?:.*&)?id=)([\w-]+)")
DRIVE_DOWNLOAD = "https://drive.usercontent.google.com/download?id={}&export=download"

ATTEMPTS = 5  # at a download, each from where the last one broke off
PAUSE = 1.0  # seconds before the second attempt; doubled before each further one
TIMEOUT = 60  # seconds that a server may be silent

log = logging.getLogger("src.tables.download")


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
