"""Places of files: a path, a URL that fsspec opens, or standard input or output.

What its name says (format, packing) and how its bytes are opened stand here, once for all that
read. Paths take the standard library alone; URLs take fsspec.
"""

import bz2
import gzip
import io
import lzma
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

from src.core.errors import InputError, closest

Format = Literal["csv", "tsv", "json", "jsonl", "parquet"]
ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
PACKED = (".gz", ".bz2", ".xz", ".lzma", ".zst", ".zip")  # endings of compressed files
STANDARD = "-"  # standard input or output
BLOCK = 1 << 16  # bytes that are received or decompressed at a time

# What reading and decompressing raise, and the packages whose clients raise errors of their own.
UNREADABLE = (OSError, EOFError, ImportError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
UNKNOWN = (TypeError, ValueError)  # of fsspec, about a URL that lacks a part or is of no system
CLIENTS = {
    *("aiohttp", "backports", "botocore", "compression", "gcsfs", "google", "httpx2"),
    *("huggingface_hub", "pyarrow"),
}
# What files of other kinds begin with.
MAGIC = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a zip archive, as .xlsx is",
    b"PAR1": "parquet",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"%PDF": "PDF",
    b"\xd0\xcf\x11\xe0": "an old Office file, as .xls is",
    b"SQLite format 3": "an SQLite database",
}


@dataclass(frozen=True)
class Place:
    """A path, a URL, or ``-`` for standard input or output.

    Attributes:
        name: what the user and messages call it; its ending says its format.
        setting: the option or param that names it, such as ``--input``.
    """

    name: str
    setting: str

    def __str__(self) -> str:
        if self.name == STANDARD:
            return "standard input" if self.setting == "--input" else "standard output"
        return self.name

    @property
    def is_local(self) -> bool:
        """Tell whether it is a path of this machine."""
        return self.name != STANDARD and "://" not in self.name and "::" not in self.name

    @property
    def packing(self) -> str:
        """Return its ending, if that says that it is compressed; else ""."""
        suffix = PurePosixPath(self._bearer).suffix.lower()
        return suffix if suffix in PACKED else ""

    @property
    def suffix(self) -> str:
        """Return its ending before that of a compressed file; "" for none."""
        path = PurePosixPath(self._bearer)
        return (path.with_suffix("") if self.packing else path).suffix.lower()

    @property
    def format(self) -> Format | None:
        """Return the format that its ending names."""
        return ENDINGS.get(self.suffix)

    @property
    def _bearer(self) -> str:
        """The part that bears the ending: ``zip://inner.csv::outer.zip`` has it first."""
        first = next((part for part in self.name.split("::") if "://" in part), self.name)
        if "://" not in first:
            return first
        return urlsplit(first).path or urlsplit(first).netloc

    @contextmanager
    def open(self, seek: bool = False) -> Iterator["Stream"]:
        """Open it to be read, decompressed.

        Args:
            seek: the stream can be sought in; standard input is copied to a file for that.

        Raises:
            InputError: it can't be opened or, later, read to its end.
        """
        with ExitStack() as stack:
            with reaching(self, *UNKNOWN):
                stored = self._stored(stack)
                # Standard input may have been read in part by who handed it on.
                begin = stored.tell() if self.name == STANDARD and stored.seekable() else 0
                if seek and (begin or not stored.seekable()):
                    whole = stack.enter_context(tempfile.TemporaryFile())
                    shutil.copyfileobj(stored, whole)
                    whole.seek(0)
                    stored, begin = whole, 0
                plain = packed(stored, self, "rb")
            yield Stream(_Guarded(self, stored, plain, begin))

    def _stored(self, stack: ExitStack) -> Any:
        """Open the bytes as they are stored."""
        if self.name == STANDARD:
            return sys.stdin.buffer
        if not self.is_local:
            import fsspec

            return stack.enter_context(fsspec.open(self.name, "rb").open())
        path = Path(self.name)
        if not path.exists():
            near = closest(path.name, (other.name for other in path.parent.glob("*")))
            raise InputError(
                f"There is no file at {self.name}, seen from {Path.cwd()}{near}: correct "
                f"{self.setting}."
            )
        return stack.enter_context(path.open("rb"))

    def refuse_other_kinds(self, start: bytes, expected: str) -> None:
        """Stop if its first bytes are those of a web page or of a file that is not text."""
        if start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
            raise InputError(
                f"{self} is a web page, not {expected}: is the file shared with anyone who has "
                "the link?"
            )
        for magic, kind in MAGIC.items():
            if start.startswith(magic):
                raise InputError(
                    f"{self} is {kind} by its first bytes, not {expected}: give it the ending of "
                    "what it is, or save it again as csv."
                )


@dataclass(frozen=True)
class File(Place):
    """A file of a source that has been brought to this machine.

    Attributes:
        path: where it lies.
        max_bytes: what it may hold once it is decompressed.
    """

    path: Path
    max_bytes: int

    def _stored(self, stack: ExitStack) -> Any:
        return stack.enter_context(self.path.open("rb"))

    def refuse_excess(self, found: int) -> None:
        """Stop if there are more decompressed bytes than it may hold."""
        if found > self.max_bytes:
            raise InputError(
                f"{self} holds more than {self.max_bytes} bytes once it is decompressed: raise "
                "load.max_bytes if the file can be trusted."
            )


class _Guarded(io.RawIOBase):
    """The decompressed bytes of a place, counted; an error while they are read names the place."""

    def __init__(self, place: Place, stored: Any, plain: Any, begin: int) -> None:
        self.bytes = 0
        self._place = place
        self._stored = stored
        self._plain = plain
        self._read = getattr(plain, "read1", plain.read)  # so that a pipe gives what it has
        self._begin = begin
        size = getattr(stored, "size", None)  # of a remote file
        if size is None and stored.seekable():
            size = stored.seek(0, os.SEEK_END)
            stored.seek(begin)
        self._left = size - begin if size else 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._plain.seekable())

    def seek(self, position: int, whence: int = 0) -> int:
        return int(self._plain.seek(position, whence))

    def tell(self) -> int:
        return int(self._plain.tell())

    def readinto(self, buffer: Any) -> int:
        try:
            # A small part at a time, so that little is lost of what breaks.
            data = self._read(min(len(buffer), BLOCK))
        except Exception as error:
            raise InputError(
                f"{self._place} can't be read to its end: it is cut off or damaged after "
                f"{self.bytes} bytes ({reason_of(error)}); get it again."
            ) from error
        buffer[: len(data)] = data
        self.bytes += len(data)
        if isinstance(self._place, File) and self._place.packing:
            self._place.refuse_excess(self.bytes)
        return len(data)

    def share(self) -> float | None:
        """Return how much of the stored bytes has been read, from 0 to 1; None if unknown."""
        return (self._stored.tell() - self._begin) / self._left if self._left else None


class Stream(io.BufferedReader):
    """The decompressed bytes of a place.

    Attributes:
        share: tells how much of it has been read, from 0 to 1; None where that is unknown.
    """

    def __init__(self, raw: _Guarded) -> None:
        """Buffer the bytes."""
        super().__init__(raw, BLOCK)
        self.share = raw.share


def packed(stream: Any, place: Place, mode: Literal["rb", "wb"]) -> Any:
    """Wrap a stream that is compressed as the ending of its place says.

    Equal contents are compressed to equal bytes.

    Raises:
        InputError: the package for it is not installed, or an archive does not hold one file.
    """
    packing = place.packing
    if packing == ".gz":
        return gzip.GzipFile("", mode, 6, stream, mtime=0)
    if packing == ".bz2":
        return bz2.BZ2File(stream, mode)
    if packing in (".xz", ".lzma"):
        return lzma.LZMAFile(stream, mode)
    if packing == ".zst":
        try:
            from backports import zstd
        except ImportError:
            raise InputError(
                f"{place} needs the package backports.zstd, which is not installed: "
                "`pip install backports.zstd`."
            ) from None
        return zstd.ZstdFile(stream, mode)
    return _only_member(stream, place) if packing == ".zip" else stream


def _only_member(stream: Any, place: Place) -> Any:
    archive = zipfile.ZipFile(stream)
    names = [name for name in archive.namelist() if not name.endswith("/")]
    if len(names) != 1:
        raise InputError(
            f"{place} holds {len(names)} files: name those to read, as in zip://*.csv::{place}."
        )
    try:
        return archive.open(names[0])
    except (NotImplementedError, RuntimeError) as error:  # another compression, or a password
        raise InputError(f"{place} can't be unpacked: {error}; unpack it first.") from error


def reason_of(error: Exception, *further: type[Exception]) -> str:
    """Return what a system or its client said; raise an error that is a defect of the project.

    Args:
        error: what was raised.
        further: kinds of errors that are no defect where it was raised.
    """
    package = type(error).__module__.split(".")[0]
    known = isinstance(error, (*UNREADABLE, *further)) or package in CLIENTS
    if isinstance(error, InputError) or not known:
        raise error
    # fsspec says what to install, but only its cause says what the server answered.
    told = error if isinstance(error, ImportError) else error.__cause__ or error
    return " ".join(str(told).split()) or type(told).__name__


def refuse(
    place: Place, error: Exception, *further: type[Exception], doing: str = "read"
) -> NoReturn:
    """Turn what went wrong between here and a place into one sentence; a defect stays as it is."""
    reason = reason_of(error, *further)
    remedy = "install it" if isinstance(error, ImportError) else f"check {place.setting}"
    raise InputError(f"{place} can't be {doing}: {reason}; {remedy}.") from error


@contextmanager
def reaching(place: Place, *further: type[Exception], doing: str = "read") -> Iterator[None]:
    """Do as ``refuse`` with what the block raises."""
    try:
        yield
    except Exception as error:
        refuse(place, error, *further, doing=doing)
