"""Streams of bytes that may be compressed, and errors that are no defect of the project.

The standard library is enough for all but zstandard.
"""

import bz2
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, Literal

from src.core.errors import InputError
from src.core.secrets import without_secrets

PACKED = (".gz", ".bz2", ".xz", ".lzma", ".zst", ".zip")  # endings of compressed files
BLOCK = 1 << 16  # bytes that are received or decompressed at a time

# What reading and decompressing raise, and the packages whose clients raise errors of their own.
UNREADABLE = (OSError, EOFError, ImportError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
UNKNOWN = (
    IndexError,
    TypeError,
    ValueError,
)  # of fsspec, about a URL that lacks a part or is of no system
CLIENTS = {
    *("_pygit2", "aiohttp", "backports", "botocore", "compression", "gcsfs", "google", "httpx2"),
    *("huggingface_hub", "pyarrow", "urllib3"),
}


def reason_of(error: Exception, *further: type[Exception]) -> str:
    """Return what a system or its client said; raise an error that is a defect of the project.

    The kinds ``further`` are no defect where it was raised.
    """
    package = type(error).__module__.split(".")[0]
    known = isinstance(error, (*UNREADABLE, *further)) or package in CLIENTS
    if isinstance(error, InputError) or not known:
        raise error
    # fsspec says what to install, but only its cause says what the server answered.
    told = error if isinstance(error, ImportError) else error.__cause__ or error
    return without_secrets(" ".join(str(told).split())) or type(told).__name__


class _Guarded(io.RawIOBase):
    """Decompressed bytes, counted; an error while they are read names their file."""

    def __init__(
        self, stored: Any, plain: Any, begin: int, name: str, check: Callable[[int], None] | None
    ) -> None:
        self.bytes = 0
        self._name = name
        self._check = check
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
                f"{self._name} can't be read to its end: it is cut off or damaged after "
                f"{self.bytes} bytes ({reason_of(error)}); get it again."
            ) from error
        buffer[: len(data)] = data
        self.bytes += len(data)
        if self._check:
            self._check(self.bytes)
        return len(data)

    def share(self) -> float | None:
        """Return how much of the stored bytes has been read, from 0 to 1; None if unknown."""
        return (self._stored.tell() - self._begin) / self._left if self._left else None


class Stream(io.BufferedReader):
    """Decompressed bytes; what goes wrong while they are read becomes an InputError.

    Attributes:
        share: tells how much of it has been read, from 0 to 1; None where that is unknown.
    """

    def __init__(
        self, stored: Any, plain: Any, begin: int, name: str, check: Callable[[int], None] | None
    ) -> None:
        """Read from a file.

        Args:
            stored: its bytes as they are stored.
            plain: these bytes, decompressed.
            begin: where the stored bytes begin.
            name: what messages call the file.
            check: is told how many decompressed bytes have been read, and may stop it.
        """
        raw = _Guarded(stored, plain, begin, name, check)
        super().__init__(raw, BLOCK)
        self.share = raw.share


def packed(stream: Any, packing: str, name: str, mode: Literal["rb", "wb"]) -> Any:
    """Wrap a stream that is compressed as the ending ``packing`` says, or is not.

    Equal contents are compressed to equal bytes.

    Raises:
        InputError: the package for it is not installed, or an archive does not hold one file.
    """
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
                f"{name} needs the package backports.zstd, which is not installed: "
                "`pip install backports.zstd`."
            ) from None
        return zstd.ZstdFile(stream, mode)
    return _only_member(stream, name) if packing == ".zip" else stream


def _only_member(stream: Any, name: str) -> Any:
    archive = zipfile.ZipFile(stream)
    members = [member for member in archive.namelist() if not member.endswith("/")]
    if len(members) != 1:
        raise InputError(
            f"{name} holds {len(members)} files: name those to read, as in zip://*.csv::{name}."
        )
    try:
        return archive.open(members[0])
    except (NotImplementedError, RuntimeError) as error:  # another compression, or a password
        raise InputError(f"{name} can't be unpacked: {error}; unpack it first.") from error
