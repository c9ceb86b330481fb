"""The journal beside a table of answers, with which an interrupted run goes on."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from src.core.errors import InputError
from src.predict.chat.client import RefusedError, Said
from src.predict.chat.rows import Asked
from src.predict.files import beside
from src.predict.output import NoTextError
from src.predict.resume import locked, refuse_other_run
from src.tables.places import Place

log = logging.getLogger("src.predict.chat.journal")

Answer = Said | RefusedError


class Journal:
    """The answers so far, in a file that outlives a run that is interrupted.

    Its first line tells what answers depend on. Each answer follows as soon as there is one, with
    the number of its question and a digest of what was asked. Only half an answer is ever removed.

    Attributes:
        rows: how many are here, of this run or the one before.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        """Count the answers that follow the first line of ``file``."""
        self._file, self._path, self._lock = file, path, threading.Lock()
        self._next = self._end = file.tell()  # where those begin that were not looked at yet
        self.rows = 0
        while file.readline().endswith(b"\n"):
            self.rows, self._end = self.rows + 1, file.tell()
        file.truncate(self._end)
        self._seen: dict[int, dict[str, Any]] = {}  # those of later questions, which are few

    def find(self, number: int, asked: Asked) -> Answer | None:
        """Return the answer to a question, None if it is not here.

        Raises:
            InputError: another question had this number.
        """
        with self._lock:
            self._file.seek(self._next)
            while number not in self._seen and self._next < self._end:
                found = json.loads(self._file.readline())
                self._next = self._file.tell()
                self._seen[found["number"]] = found
        if number not in self._seen:
            return None
        found = self._seen.pop(number)
        if found["asked"] != _digest(asked):
            raise InputError(
                f"This input is not the one of the interrupted run: question {number} is another "
                f"one than was answered in {self._path}. Pass that input to --resume, or delete "
                "the file to start over."
            )
        if "refused" in found:
            return RefusedError(*found["refused"])
        said = found["said"]
        return Said(said["text"], tuple(said["calls"]), said["ended"], said["tokens"])

    def keep(self, number: int, asked: Asked, answer: Answer) -> None:
        """Add the answer to a question, in any thread."""
        said = {"said": asdict(answer)} if isinstance(answer, Said) else {"refused": answer.args}
        line = json.dumps({"number": number, "asked": _digest(asked)} | said).encode() + b"\n"
        with self._lock:
            if self._file.closed:  # the run has ended by an error, and this came too late
                return
            self._file.seek(0, os.SEEK_END)
            self._file.write(line)
            self._file.flush()
            self.rows += 1


def _digest(asked: Asked) -> str:
    return hashlib.sha256(json.dumps([asked.messages, asked.tools]).encode()).hexdigest()


@contextmanager
def journal_of(output: Place, key: Mapping[str, Any], resume: bool) -> Iterator[Journal]:
    """Open the journal beside the output, and remove it when the run ends well.

    Raises:
        InputError: an interrupted run left one that is not to be resumed, or is of another model
            or other options, or another process writes the output.
    """
    path, first = beside(output, "answers"), json.dumps(key).encode() + b"\n"
    with locked(path, output) as file:
        line = file.readline()
        resumes = line.endswith(b"\n") and bool(file.read(1))
        if resumes:
            file.seek(len(line))
            refuse_other_run(line, key, resume, path, "answers")
        elif line and not line.startswith(b'{"'):
            refuse_other_run(b"", key, resume, path, "answers")
        else:  # new, or killed before the first answer
            file.seek(0)
            file.truncate()
            file.write(first)
        journal = Journal(file, path)
        try:
            yield journal
        except BaseException as error:
            if journal.rows and not isinstance(error, NoTextError):
                log.info(
                    "%d rows are answered, and kept in %s: --resume continues with them",
                    *(journal.rows, path),
                )
            else:
                path.unlink()
            raise
        path.unlink()
