"""Guess the encoding of files that nobody described, by the bytes that they hold."""

import codecs
import io
import itertools
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from charset_normalizer import from_bytes

from src.core.errors import InputError
from src.tables.encodings import GUESSED, MARKS, SAMPLE, WESTERN
from src.tables.places import File

PARQUET = b"PAR1"
LINES = 1000  # of other characters than ASCII that an encoding is guessed from


def is_parquet(file: File) -> bool:
    """Tell whether a file is one of parquet, by its first bytes."""
    return _first_bytes(file).startswith(PARQUET)


def is_folder(files: Sequence[File]) -> bool:
    """Tell whether files are texts in the folders of their labels, by endings or by none."""
    names = [PurePosixPath(file.name) for file in files]
    if all(name.suffix.lower() == ".txt" for name in names):
        return True
    roots, labels = {name.parent.parent for name in names}, {name.parent for name in names}
    return not any(file.format for file in files) and len(roots) == 1 < len(labels)


def _first_bytes(file: File) -> bytes:
    with file.open() as stream:
        return stream.peek(64)[:64]  # it gives all that it has


def encodings(files: Sequence[File], present: list[str]) -> list[str]:
    """Return the params' encodings if the first fits the files, or else the one that does."""
    for file in files:
        start = _first_bytes(file)
        if start.startswith(PARQUET):
            return present
        file.refuse_other_kinds(start, "labelled texts")
        if marks := [name for mark, name in MARKS.items() if start.startswith(mark)]:
            return marks[:1]
        if b"\0" in start:
            raise InputError(
                f"{file.name} has zero bytes, as binary files have: save it as csv in utf-8."
            )
    # Hardly any file in another encoding is valid UTF-8.
    odd = [file for file in files if not _fits(file, "utf-8")]
    if any(map(_is_nearly_utf_8, odd)):
        return ["utf-8"]  # so that what reads it says which bytes are wrong
    folder = is_folder(files)  # of texts, mixed
    known = ["utf-8"] if not odd or (folder and len(odd) < len(files)) else []
    for encoding in _guesses(odd, present) if odd else known:
        if all(_fits(file, encoding) for file in odd):
            found = list(dict.fromkeys([*known, encoding]))
            return present if found == present[: len(found)] else found
    raise InputError(f"{odd[0].name} has bytes that fit no encoding: save it as csv in utf-8.")


def _fits(file: File, encoding: str) -> bool:
    try:
        with file.open() as stream:
            for _ in io.TextIOWrapper(stream, encoding):
                pass
    except UnicodeError:
        return False
    return True


def _is_nearly_utf_8(file: File) -> bool:
    """Tell whether most lines with other characters than ASCII are UTF-8, though not all are."""
    well = odd = 0
    with file.open() as stream:
        for line in stream:
            if not line.isascii():
                fits = "\ufffd" not in line.decode("utf-8", "replace")
                well, odd = well + fits, odd + (not fits)
    return well > odd


def _guesses(files: Sequence[File], present: Sequence[str]) -> Iterator[str]:
    """Yield encodings that the lines of other characters than ASCII may be in, the likeliest first.

    Many read the same bytes as letters of one language or another; so those of the params go first,
    and then the most common one, as `load` says when it finds a wrong byte.
    """
    sample = b""
    for file in files:
        with file.open() as stream:
            lines = itertools.islice((line for line in stream if not line.isascii()), LINES)
            sample += b"".join(lines)[:SAMPLE]
    matches = list(from_bytes(sample)) if len(sample) >= GUESSED else []
    alike = list(itertools.chain(*(match.could_be_from_charset for match in matches)))
    likely = {codecs.lookup(name).name for name in alike} or {WESTERN}
    if "iso8859-1" in likely:  # which is nearly the same
        likely.add(WESTERN)
    first = [*present, WESTERN] if matches else [WESTERN, *present]
    yield from (name for name in first if codecs.lookup(name).name in likely)
    yield from alike
    yield from present


def guessed(files: Sequence[File], encodings: Sequence[str]) -> str:
    """Show the first line of other characters than ASCII as a guessed encoding reads it.

    Returns:
        The part of a sentence, "" for files that are UTF-8, have a byte-order mark, or are no text.
    """
    for file in files:
        if _first_bytes(file).startswith((PARQUET, *MARKS)) or _fits(file, "utf-8"):
            continue
        encoding = next(name for name in encodings if _fits(file, name))
        with file.open() as stream:
            line = next(line for line in stream if not line.isascii()).decode(encoding, "replace")
        first = next((k for k, sign in enumerate(line) if not sign.isascii()), 0)
        shown = line[max(0, first - 30) :][:60].strip()
        return f"encoding {encoding} is a guess, by which a line has {shown!r}"
    return ""
