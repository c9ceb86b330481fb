"""Encodings of text: byte-order marks, and what is said of bytes that do not fit."""

import codecs
import io
import logging
from collections.abc import Sequence
from typing import NoReturn

from src.core.errors import InputError
from src.tables.places import File
from src.tables.streams import Stream

MARKS = {  # that of utf-32 begins with that of utf-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
GUESSED = 32  # bytes from which an encoding can be guessed
SAMPLE = 1 << 16  # bytes around a wrong one that its encoding is guessed from
EXCERPT = 30  # bytes before and after a wrong one that are shown
WESTERN = "cp1252"  # the likeliest where little is known

log = logging.getLogger("src.tables.encodings")


def text_of(stream: Stream, encoding: str, errors: str = "strict") -> io.TextIOWrapper:
    """Decode a stream; a byte-order mark of UTF-8 is skipped, and line ends stay as they are."""
    name = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    return io.TextIOWrapper(stream, name, errors=errors, newline="")


def mark_of(start: bytes) -> str:
    """Return the encoding whose byte-order mark a file begins with, "" for none or UTF-8's."""
    return next((name for mark, name in MARKS.items() if start.startswith(mark)), "")


def why_not_text(value: str, encoding: str = "utf-8") -> str:
    """Return why a string is not text, "" if it is.

    By ``errors="surrogateescape"``, a byte that does not fit ``encoding`` is half of a surrogate
    pair.
    """
    if value.isascii():
        return ""
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        if 0xDC80 <= code <= 0xDCFF:
            return f"not {encoding.upper()}: byte 0x{code - 0xDC00:02x}"
        return "half of a surrogate pair"
    return ""


def refuse_other_files(stream: Stream, kind: str, encoding: str, file: File) -> None:
    """Stop if a file of text begins with what is not text, or is in another encoding."""
    if not (start := stream.peek(64)):
        raise InputError(
            f"{file} holds 0 bytes once it is decompressed: get it again, or correct "
            f"{file.setting}."
        )
    file.refuse_other_kinds(start, f"a {kind} file")
    name = mark_of(start)
    if name and not codecs.lookup(encoding).name.startswith(name):
        raise InputError(
            f"{file} has the byte-order mark of {name}, not of {encoding}: set load.encoding to "
            f"[{name}]."
        )


def decode(data: bytes, file: File, encodings: Sequence[str]) -> str:
    """Decode a file by the first of the encodings that all of it fits."""
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeError:
            continue
        if encoding != encodings[0]:
            log.warning("%s is not %s, read as %s", file, encodings[0], encoding)
        return text.removeprefix("\ufeff")
    return refuse_encoding(file, encodings)


def refuse_encoding(file: File, encodings: Sequence[str]) -> NoReturn:
    """Name the line and the offset of the first byte that does not fit the first encoding."""
    decoder = codecs.getincrementaldecoder(encodings[0])()
    offset = lines = 0
    with file.open() as stream:
        while chunk := stream.read(SAMPLE):
            pending = decoder.getstate()[0]
            try:
                lines += decoder.decode(chunk).count("\n")
            except UnicodeError as error:
                whole = pending + chunk
                start = getattr(error, "start", 0)
                line = lines + whole.count(b"\n", 0, start) + 1
                around = whole[start:] + stream.read(SAMPLE)
                raise InputError(
                    f"{file} is not {' or '.join(encodings)}: it has byte 0x{whole[start]:02x} on "
                    f"line {line}, at offset {offset - len(pending) + start}"
                    f"{_likely(whole[:start], around, encodings[0])}"
                ) from None
            offset += len(chunk)
        raise InputError(
            f"{file} is not {' or '.join(encodings)}: it ends inside a character; get it again."
        )


def _likely(before: bytes, wrong: bytes, encoding: str) -> str:
    """End a sentence about bytes that do not fit an encoding by one that they may fit."""
    from charset_normalizer import from_bytes  # which prediction does without

    tail = before.rsplit(b"\n")[-1][-EXCERPT:]
    excerpt = tail + wrong[:EXCERPT].split(b"\n")[0]
    guesses = [WESTERN] if len(wrong) + len(before) < GUESSED else []
    guesses = guesses or [guess.encoding for guess in from_bytes(before[-SAMPLE:] + wrong)]
    if WESTERN in guesses or "latin_1" in guesses:  # which read most bytes alike
        guesses = [WESTERN, *guesses]
    shown = ""
    for guess in guesses[:1]:
        shown = f", which {guess} reads as {excerpt.decode(guess, 'replace')!r}"
    # Bytes that are not ASCII and still of the encoding show that the rest of the file is.
    rest = (before + wrong).decode(encoding, "ignore")
    valid = sum(not character.isascii() for character in rest)
    invalid = (before + wrong).decode(encoding, "replace").count("\ufffd")
    if codecs.lookup(encoding).name == "utf-8" and valid > invalid:
        return (
            f"{shown}, while other places are {encoding}: correct these places and save the file "
            f"as {encoding}."
        )
    return f"{shown}; put the right encoding first in load.encoding."
