"""Answer the questions of a table of any size, in their order and many at once.

Answers are written to a journal beside the output as they come, so that a run that is interrupted
goes on where it was; the output takes its place when it is whole.
"""

import itertools
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal

import pyarrow as pa

from src.core.errors import InputError
from src.predict.batch import progress, refuse_same_places
from src.predict.chat.client import RefusedError, Said
from src.predict.chat.journal import Answer, Journal, journal_of
from src.predict.chat.rows import Asked, AskedRows
from src.predict.files import fresh
from src.predict.formats import Dialect, Format, format_of
from src.predict.input import reading
from src.predict.output import NoTextError, rejections, writing
from src.predict.scoring import Batch, Counts, Input
from src.tables.lines import Broken
from src.tables.places import STANDARD, Place

ROWS = 128  # of a batch; the columns of JSON lines that become a table are those of the first
AHEAD = 4  # rows that wait for each that is being answered, as a long answer holds up the others

log = logging.getLogger("src.predict.chat.batch")

Ask = Callable[[Asked], Said]  # raises RefusedError for what the model can't be asked


@dataclass(frozen=True)
class Options:
    """The options of a table to answer, from the command line of ``src.predict.chat``."""

    input: Place
    output: Place
    rejected: Place | None
    format: Format | Literal["auto"]
    dialect: Dialect
    prefix: str
    resume: bool
    at_once: int


def answer_table(
    model: AbstractContextManager[tuple[Ask, Mapping[str, Any]]], options: Options
) -> Counts:
    """Write the input's rows with the model's answers to the output.

    Args:
        model: gives what asks it, in any thread, and all that answers depend on but the rows; it is
            entered once the input is known to be a table.
        options: of the command line.

    Raises:
        InputError: the input can't be read, no row of it can be answered, or the server is gone;
            what was answered by then is kept.
    """
    options.dialect.refuse_unknown()
    refuse_same_places(options.input, options.output, options.rejected)
    if options.resume and not options.output.is_local:
        raise InputError(
            f"--resume needs an --output that is a file of this machine, not {options.output}."
        )
    into = format_of(options.input, options.format, None)
    out_of = format_of(options.output, options.format, into)
    names = [f"{options.prefix}{name}" for name in ("answer", "calls", "ended", "tokens")]
    types = [pa.string(), pa.string(), pa.bool_(), pa.int64()]
    added = pa.schema([*zip(names, types, strict=True)])
    counts = Counts()
    with ExitStack() as stack:
        verbatim = into == out_of == "jsonl"
        found = stack.enter_context(
            reading(options.input, into, options.dialect, AskedRows(), ROWS, verbatim, names)
        )
        ask, key = stack.enter_context(model)
        journal = stack.enter_context(
            journal_of(options.output, key, options.resume)
            if options.output.is_local
            else nullcontext(None)
        )
        answered = _in_order(found.batches, ask, options.at_once, journal, counts)
        _write(answered, options, found, out_of, added, counts)
    _say(counts, options)
    return counts


def _write(
    answered: Iterator[tuple[Batch, list[Answer]]],
    options: Options,
    found: Input,
    format: Format,
    added: pa.Schema,
    counts: Counts,
) -> None:
    reason = ""
    with (
        rejections(options.rejected, excel_safe=False) as reject,
        fresh(options.output) as stream,
        writing(stream, options.output, format, found.schema, added, excel_safe=False) as output,
        progress(counts, found) as move,
    ):
        for batch, answers in answered:
            refused = _refused(batch, answers)
            for one in sorted([*batch.rejected, *refused], key=lambda one: one.line):
                reject(one)
                reason = one.reason
            if said := [answer for answer in answers if isinstance(answer, Said)]:
                good = [isinstance(answer, Said) for answer in answers]
                columns = _columns(said, format == "jsonl")
                output.write(_kept(batch.rows, good), dict(zip(added.names, columns, strict=True)))
            counts.scored += len(said)
            counts.read += batch.read
            counts.rejected += len(batch.rejected) + len(refused)
            if options.output.name == STANDARD:
                stream.flush()
            move()
        if counts.rejected and not counts.scored:
            listed = f" (see {options.rejected})" if options.rejected else ""
            raise NoTextError(
                f"{options.input} has no row that can be answered, all {counts.rejected} are "
                f"rejected{listed}, the last one for: {reason}; correct the input."
            )


def _refused(batch: Batch, answers: Sequence[Answer]) -> list[Broken]:
    """Return the rows that the server would not answer."""
    rows = batch.rows if isinstance(batch.rows, list) else [""] * batch.count
    return [
        Broken.of(line, answer.reason, row)
        for line, row, answer in zip(batch.lines, rows, answers, strict=True)
        if isinstance(answer, RefusedError)
    ]


def _kept(rows: Any, good: list[bool]) -> Any:
    if isinstance(rows, pa.Table):
        return rows.filter(pa.array(good))
    return [*itertools.compress(rows, good)]


def _columns(said: Sequence[Said], objects: bool) -> Iterator[Sequence[Any]]:
    """Yield the values of the columns that are added; calls are objects in JSON lines alone."""
    yield [one.text for one in said]
    calls = [[*one.calls] for one in said]
    yield calls if objects else [json.dumps(c, ensure_ascii=False) if c else None for c in calls]
    yield [one.ended for one in said]
    yield [one.tokens for one in said]


def _in_order(
    batches: Iterator[Batch], ask: Ask, at_once: int, journal: Journal | None, counts: Counts
) -> Iterator[tuple[Batch, list[Answer]]]:
    """Yield batches with their answers, in the order of the input."""
    pool, numbers = _Pool(at_once), itertools.count(1)

    def begun(asked: Asked) -> "Future[Answer]":
        number = next(numbers)
        known = journal.find(number, asked) if journal else None
        if known is None:
            return pool.submit(lambda: _answer(ask, asked, number, journal))
        counts.resumed += 1
        found: Future[Answer] = Future()
        found.set_result(known)
        return found

    try:
        waiting: deque[tuple[Batch, list[Future[Answer]]]] = deque()
        rows = 0  # that wait, with those between them that can't be asked
        for batch in batches:
            waiting.append((batch, [begun(asked) for asked in batch.inputs]))
            rows += batch.read
            while rows > max(AHEAD * at_once, batch.read):
                first, futures = waiting.popleft()
                rows -= first.read
                yield first, [one.result() for one in futures]
        for first, futures in waiting:
            yield first, [one.result() for one in futures]
    finally:
        pool.forget()


def _answer(ask: Ask, asked: Asked, number: int, journal: Journal | None) -> Answer:
    answer: Answer
    try:
        answer = ask(asked)
    except RefusedError as error:  # this row's own fault, and the next one is asked
        answer = error
    if journal:
        journal.keep(number, asked, answer)
    return answer


class _Pool:
    """Threads that nobody waits for at the end, as one may wait for a server for minutes."""

    def __init__(self, threads: int) -> None:
        self._tasks: SimpleQueue[tuple[Future[Answer], Callable[[], Answer]] | None] = SimpleQueue()
        self._threads = threads
        for _ in range(threads):
            threading.Thread(target=self._work, daemon=True).start()

    def submit(self, task: Callable[[], Answer]) -> "Future[Answer]":
        future: Future[Answer] = Future()
        self._tasks.put((future, task))
        return future

    def forget(self) -> None:
        """Begin none of those that wait, and let the threads end."""
        with suppress(Empty):
            while True:
                self._tasks.get_nowait()
        for _ in range(self._threads):
            self._tasks.put(None)

    def _work(self) -> None:
        while found := self._tasks.get():
            future, task = found
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)


def _say(counts: Counts, options: Options) -> None:
    if counts.resumed:
        log.info("%d of the rows were answered before the interruption", counts.resumed)
    listed = f", which {options.rejected} lists" if counts.rejected and options.rejected else ""
    figures = counts.read, counts.scored, counts.rejected, listed
    log.info("read %d = answered %d + rejected %d%s", *figures)
    if options.output.name != STANDARD:
        log.info("wrote %s", options.output)
