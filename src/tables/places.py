"""Places of files: a path, a URL that fsspec opens, or standard input or output.

What its name says (format, packing) and how its bytes are opened stand here, once for all that
read. Paths take the standard library alone; URLs take fsspec.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

from src.core.errors import InputError, closest
from src.core.secrets import filled, without_secrets
from src.tables.streams import PACKED, UNKNOWN, Stream, packed, reason_of

Format = Literal["csv", "tsv", "json", "jsonl", "parquet"]
ENDINGS: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
}
STANDARD = "-"  # standard input or output

ARROW = (b"\xff\xff\xff\xff", b"ARROW1")

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
    **dict.fromkeys(ARROW, "an Arrow file"),
}


@dataclass(frozen=True)
class Place:
    """A path, a URL, or ``-`` for standard input or output."""

    name: str  # as the user and messages call it; its ending says its format
    setting: str  # the option or param that names it, such as ``--input``

    def __str__(self) -> str:
        if self.name == STANDARD:
            return "standard input" if self.setting == "--input" else "standard output"
        return without_secrets(self.name)

    @property
    def url(self) -> str:
        """Return the name with the variables of the environment that it has, as ``$NAME``."""
        return filled(self.name, self.setting)

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
    def open(self, seek: bool = False) -> Iterator[Stream]:
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
                plain = packed(stored, self.packing, str(self), "rb")
            # What is stored as it is has the size that anybody sees.
            check = self.refuse_excess if self.packing else None
            yield Stream(stored, plain, begin, str(self), check)

    def _stored(self, stack: ExitStack) -> Any:
        if self.name == STANDARD:
            return sys.stdin.buffer
        if not self.is_local:
            import fsspec

            return stack.enter_context(fsspec.open(self.url, "rb").open())
        path = Path(self.name)
        if not path.exists():
            near = closest(path.name, (other.name for other in path.parent.glob("*")))
            raise InputError(
                f"There is no file at {self.name}, seen from {Path.cwd()}{near}: correct "
                f"{self.setting}."
            )
        return stack.enter_context(path.open("rb"))

    def refuse_excess(self, found: int) -> None:
        """Stop if there are more decompressed bytes than it may hold."""

    def refuse_other_kinds(self, start: bytes, expected: str) -> None:
        """Stop if its first bytes are those of a web page or of a file that is not text."""
        if start.lstrip()[:15].lower().startswith((b"<!doctype html", b"<html")):
            raise InputError(
                f"{self} is a web page, not {expected}: is the file shared with anyone who has "
                "the link?"
            )
        for magic, kind in MAGIC.items():
            if start.startswith(magic):
                remedy = (
                    "save it again as parquet, what save_to_disk of Hugging Face wrote by "
                    "load_from_disk and then to_parquet"
                    if magic in ARROW
                    else "give it the ending of what it is, or save it again as csv"
                )
                raise InputError(f"{self} is {kind} by its first bytes, not {expected}: {remedy}.")


@dataclass(frozen=True)
class File(Place):
    """A file of a source that has been brought to this machine."""

    path: Path
    max_bytes: int  # that it may hold once it is decompressed
    # Of all its rows, as its folders name them.
    columns: Mapping[str, str | None] = field(default_factory=dict, hash=False)

    def _stored(self, stack: ExitStack) -> Any:
        return stack.enter_context(self.path.open("rb"))

    def refuse_excess(self, found: int) -> None:
        """Stop if there are more decompressed bytes than it may hold."""
        if found > self.max_bytes:
            raise InputError(
                f"{self} holds more than {self.max_bytes} bytes once it is decompressed: raise "
                "load.max_bytes if the file can be trusted."
            )


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
