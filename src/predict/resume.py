"""Resume an interrupted run: the scores of its batches are kept beside the output."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from src.core.errors import InputError
from src.core.files import sha256
from src.core.processes import lock
from src.predict.files import beside, writing_to
from src.predict.scoring import Counts, Inputs, Scores, Submit, Work
from src.tables.places import Place

log = logging.getLogger("src.predict.resume")


def key_of(model: Path, work: Work) -> dict[str, Any]:
    """Return all that outputs depend on, but for the rows and the processor.

    So ``--min_score`` is not in it: a run that goes on with another one answers anew from the same
    outputs, also for the rows before the interruption.
    """
    return {"model": sha256(model / "manifest.json")} | work.computing


class Journal:
    """The scores of the batches so far, in a file that outlives a run that is interrupted.

    Its first line tells what the scores depend on. Each batch follows as its number of rows, a
    digest of its inputs, its scores, how many texts were cut, and a digest of all that, so that
    neither another input nor half a batch is taken for it. Only half a batch is ever removed.

    Attributes:
        rows: how many this run has scored, or found here.
    """

    def __init__(self, file: IO[bytes], path: Path, work: Work) -> None:
        """Find the batches that follow the first line of ``file``."""
        self.rows = 0
        self._path = path
        self._file = file
        self._work = work
        self._type = np.dtype(work.outputs_type)
        row = len(work.labels) * self._type.itemsize
        self._places: dict[bytes, tuple[int, int]] = {}
        end = file.tell()
        while len(head := file.read(36)) == 36 and (rows := int.from_bytes(head[:4])) <= work.rows:
            record, check = head + file.read(rows * row + 4), file.read(32)
            if len(check) < 32:
                break
            if check == hashlib.sha256(record).digest():
                self._places[head[4:]] = end, len(record)
            end = file.tell()
        file.truncate(end)

    def find(self, inputs: Inputs, rows: int) -> Scores | None:
        """Return the scores of a batch, None if they are not here.

        Raises:
            InputError: the first batch is not here: this is another input than was interrupted.
        """
        place = self._places.get(self._work.digest(inputs))
        if place:
            self._file.seek(place[0])
            record = self._file.read(place[1])
            self.rows += rows
            found = np.frombuffer(record[36:-4], self._type).reshape(-1, len(self._work.labels))
            return Scores(found, int.from_bytes(record[-4:]), "")
        if self._places and not self.rows:
            raise InputError(
                "This input is not the one of the interrupted run: its first rows hold other values"
                f" than those scored in {self._path}. Pass that input to --resume, or delete the "
                "file to start over."
            )
        return None

    def keep(self, inputs: Inputs, rows: int, scores: Scores) -> None:
        """Add a batch."""
        outputs = scores.outputs.astype(self._type, copy=False)
        record = rows.to_bytes(4) + self._work.digest(inputs) + outputs.tobytes()
        record += scores.cut.to_bytes(4)
        self._file.seek(0, os.SEEK_END)
        self._file.write(record + hashlib.sha256(record).digest())
        self._file.flush()
        self.rows += rows


@contextmanager
def journal_of(output: Place, model: Path, work: Work, resume: bool) -> Iterator[Journal]:
    """Open the journal beside the output, and remove it when the run ends well.

    Raises:
        InputError: an interrupted run left one that is not to be resumed, or is of another model
            or other options, or another process writes the output.
    """
    path, key = beside(output, "scores"), key_of(model, work)
    with locked(path, output) as file:
        line = file.readline()
        scored = line.endswith(b"\n") and file.read(1)
        if not scored and (not line or line.startswith(b'{"')):  # killed before the first batch
            file.seek(0)
            file.truncate()
            file.write(json.dumps(key).encode() + b"\n")
            file.flush()
            resumes = False
        else:
            file.seek(len(line))
            refuse_other_run(line, key, resume, path, "scores")
            resumes = True
        journal = Journal(file, path, work)
        try:
            yield journal
        except BaseException:
            if journal.rows:
                log.info(
                    "%d rows are scored, and kept in %s: --resume continues with them",
                    *(journal.rows, path),
                )
            elif not resumes:
                path.unlink()
            raise
        path.unlink()


@contextmanager
def locked(path: Path, output: Place) -> Iterator[IO[bytes]]:
    """Open a journal, maybe a new one, that no other process has.

    Raises:
        InputError: another process writes the output, or the file can't be written.
    """
    with writing_to(path):
        opened = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    with opened as file:
        if not lock(file):
            raise InputError(
                f"Another process writes {output}: wait until it ends, or name another --output."
            )
        yield file


def refuse_other_run(
    line: bytes, key: Mapping[str, Any], resume: bool, path: Path, what: str
) -> None:
    """Stop if a journal is not to be resumed, or not by this run.

    Args:
        line: its first, which tells what the run before it depended on.
        key: what this one does.
        resume: whether it is to go on.
        path: of the journal.
        what: it holds.

    Raises:
        InputError: says which.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InputError(
            f"{path} is not what an interrupted run leaves: move it away, or name another --output."
        )
    if not resume:
        raise InputError(
            f"{path} holds the {what} of an interrupted run: add --resume to continue it, or "
            "delete the file to start over."
        )
    if other := [name for name in key if found.get(name) != key[name]]:
        name = other[0]
        raise InputError(
            f"{path} holds {what} with {name} {found.get(name)}, not {key[name]}: run it as "
            "before, or delete the file to start over."
        )


def remembered_by(submit: Submit, journal: Journal, counts: Counts) -> Submit:
    """Return what scores the batches that the journal does not have, and keeps them there."""

    def remembered(inputs: Inputs, rows: int) -> Callable[[], Scores]:
        known = journal.find(inputs, rows)
        if known is not None:
            counts.resumed += rows
            return lambda: known
        scores = submit(inputs, rows)

        def wait() -> Scores:
            found = scores()
            journal.keep(inputs, rows, found)
            return found

        return wait

    return remembered
