"""The documents of a folder as passages that can be asked about."""

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from src.core.errors import InputError
from src.predict.foreign import one_line
from src.predict.reader.answers import Piece
from src.predict.reader.documents import READERS, is_document, passages, pieces
from src.predict.reader.index import Index

PASSAGE = 1200  # characters of a passage, which short paragraphs are joined to
LARGEST = 64 * 2**20  # bytes of a document

Files = list[tuple[str, int, int]]  # of each document: name, time of change, size

log = logging.getLogger("src.predict.reader.library")


@dataclass(frozen=True)
class Library:
    """Documents that were read once.

    Attributes:
        pieces: their passages, those of one beside each other.
        documents: their paths in the folder.
        skipped: why a document could not be read, by its path.
    """

    pieces: list[Piece]
    documents: list[str]
    skipped: Mapping[str, str]
    _index: Index

    def find(self, question: str, count: int) -> list[Piece]:
        """Return the passages that fit a question best, the best first; at most so many."""
        scores = self._index.scores(question)
        rows = (-scores).argsort(kind="stable")[:count].tolist()
        return [self.pieces[row] for row in rows if scores[row] > 0]


def read_library(place: Path) -> Library:
    """Read the documents of a folder and those below it, or a single one.

    What can't be read is left out with a warning, as are hidden files and links that lead out.

    Raises:
        InputError: there is no such folder or file, or no document that can be read.
    """
    if not place.exists():
        raise InputError(
            f"There is nothing at {place}, seen from {Path.cwd()}: name a folder of documents, or "
            "one of them."
        )
    if place.is_file() and not is_document(place.name):
        raise InputError(f"{place} is no document that can be read: expected {', '.join(READERS)}.")
    made: list[Piece] = []
    documents: list[str] = []
    skipped: dict[str, str] = {}
    for name, _, size in listed(place):
        path = place / name if place.is_dir() else place
        try:
            if size > LARGEST:
                raise InputError(f"{name} has more than {LARGEST} bytes: divide it.")
            found = pieces(passages(name, path.read_bytes()), PASSAGE)
        except InputError as error:
            skipped[name] = str(error)
        except OSError as error:
            skipped[name] = f"{name} can't be read, {error.strerror or one_line(error)}."
        else:
            documents.append(name)
            made += [Piece(name, one.place, one.text) for one in found]
    for reason in skipped.values():
        log.warning("left out: %s", reason)
    if not made:
        why = next(iter(skipped.values()), f"{place} has none of {', '.join(READERS)}.")
        raise InputError(f"There is no document to ask about: {why}")
    return Library(made, documents, skipped, Index([one.text for one in made]))


def listed(place: Path) -> Files:
    """List the documents of a folder and those below it, in the order of their names."""
    if place.is_file():
        stat = place.stat()
        return [(place.name, stat.st_mtime_ns, stat.st_size)]
    root = os.path.realpath(place)
    found: Files = []
    for folder, names, files in os.walk(place):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            inside = Path(os.path.realpath(path)).is_relative_to(root)
            if name.startswith(".") or not is_document(name) or not inside or not path.is_file():
                continue
            with contextlib.suppress(FileNotFoundError):  # it has just gone
                stat = path.stat()
                found.append((path.relative_to(place).as_posix(), stat.st_mtime_ns, stat.st_size))
    return sorted(found)
