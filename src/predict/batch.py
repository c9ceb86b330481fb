"""Predict a table of any size: score its rows in batches, in order, and write them to a table.

A batch is a fixed number of rows of the input, and is always scored by itself: what a text is
padded with changes the last digits of its logits, and int8 models scale their activations by all
texts of a batch. So wherever a batch is scored, and however often a run was interrupted, the output
has the same bytes.
"""

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from src.core.errors import InputError
from src.predict.engines import Engine, EngineOption
from src.predict.files import fresh, refuse_not_a_file
from src.predict.formats import Dialect, Format, format_of, own_format
from src.predict.input import reading
from src.predict.output import NoTextError, rejections, writing
from src.predict.ray_workers import on_ray
from src.predict.resume import journal_of, remembered_by
from src.predict.scoring import (
    Batch,
    Counts,
    Input,
    Probabilities,
    Scores,
    Submit,
    Work,
    score_here,
)
from src.predict.work import load
from src.tables.places import STANDARD, Place

EVERY = 30  # seconds between two lines of the log
WRITTEN = ("", ".gz", ".bz2", ".xz", ".zst")  # how output may be compressed

log = logging.getLogger("src.predict.batch")


@dataclass(frozen=True)
class Options:
    """The options of a table to predict, from the command line of ``src.predict``."""

    input: Place
    output: Place
    format: Format | Literal["auto"]
    dialect: Dialect
    text_column: str
    probabilities: bool
    prefix: str
    rejected: Place | None
    excel_safe: bool
    resume: bool
    ray: str
    min_score: float | Literal["model"]
    threshold: float | Literal["model"]


def predict(
    model: Path, options: Options, engine: EngineOption, threads: int, batch_tokens: int
) -> Counts:
    """Write the input's rows with the answers and maybe probabilities to the output.

    Raises:
        InputError: the options contradict one another, the input can't be read, or no row of it
            can be scored.
    """
    _refuse_contradictions(options)
    into = format_of(options.input, options.format, None)
    out_of = format_of(options.output, options.format, into)
    nodes: Engine = "onnxruntime" if engine == "auto" else engine
    if options.ray and engine == "auto":
        # What it comes to could differ from node to node, and with it the bytes of the output.
        log.info("computing with ONNX Runtime, since the nodes of Ray may differ")
    here = "onnxruntime" if options.ray else engine  # to answer at least; nodes may have a GPU
    further = options.text_column, options.min_score, options.threshold
    work = load(model, threads, here, batch_tokens, *further)
    if options.ray:
        work.computing["engine"] = nodes
    added = _added(work, options)
    counts = Counts()
    with ExitStack() as stack:
        verbatim = into == out_of == "jsonl"
        found = stack.enter_context(
            reading(
                *(options.input, into, options.dialect, work),
                *(work.rows, verbatim, added.names),
            )
        )
        journal = None
        if options.output.is_local:
            journal = stack.enter_context(journal_of(options.output, model, work, options.resume))
        submit, ahead = stack.enter_context(
            on_ray(options.ray, model, nodes, threads, batch_tokens)
            if options.ray
            else nullcontext((score_here(work), 0))
        )
        if journal:
            submit = remembered_by(submit, journal, counts)
        scored = _in_order(found.batches, submit, ahead)
        _write(scored, options, found, out_of, added, work, counts)
    _say(counts, options, work)
    return counts


def _write(
    scored: Iterator[tuple[Batch, Scores | None]],
    options: Options,
    found: Input,
    format: Format,
    added: pa.Schema,
    work: Work,
    counts: Counts,
) -> None:
    """Write rows with their predictions, and rejected ones to their own file, and count them."""
    workers = set()
    reason = ""
    with (
        rejections(options.rejected, options.excel_safe) as reject,
        fresh(options.output) as stream,
        writing(stream, options.output, format, found.schema, added, options.excel_safe) as output,
        progress(counts, found) as move,
    ):
        for batch, scores in scored:
            for one in batch.rejected:
                reject(one)
                reason = one.reason
            if batch.count and scores:
                shares = work.shares(scores.outputs)
                answers = work.answers(shares)
                counts.unanswered += sum(answer.label is None for answer in answers)
                wanted = shares if options.probabilities else None
                columns = _columns(answers, work.fields, wanted)
                output.write(batch.rows, dict(zip(added.names, columns, strict=True)))
                workers.add(scores.worker)
                counts.scored += len(scores.outputs)
                counts.truncated += scores.cut
            counts.read += batch.read
            counts.rejected += len(batch.rejected)
            move()
        _check(counts, found.rows)
        if counts.rejected and not counts.scored:
            listed = f" (see {options.rejected})" if options.rejected else ""
            raise NoTextError(
                f"{options.input} has no row that can be scored, all {counts.rejected} are rejected"
                f"{listed}, the last one for: {reason}; correct the input."
            )
    if options.ray:
        log.info("nodes of Ray that scored: %d", len(workers - {""}))


def _check(counts: Counts, rows: int | None) -> None:
    """Check that no row is lost on its way; ``rows`` is how many the input says it has."""
    whole = counts.read if rows is None else rows
    if not whole == counts.read == counts.scored + counts.rejected:
        raise RuntimeError(f"the rows do not add up, of {rows} in the input: {counts}")


def _refuse_contradictions(options: Options) -> None:
    output, rejected = options.output, options.rejected
    endings = {own_format(options.input), own_format(output)}
    if options.format != "auto" and None not in endings and endings != {options.format}:
        raise InputError(
            f"--format {options.format} contradicts the endings of {options.input} and {output}: "
            "leave it out, or rename the file."
        )
    options.dialect.refuse_unknown()
    refuse_same_places(options.input, output, rejected)
    if options.resume and not output.is_local:
        raise InputError(
            f"--resume needs an --output that is a file of this machine, not {output}, since "
            "scores are kept beside it: leave --resume out, or write a file here and send it on."
        )


def refuse_same_places(input: Place, output: Place, rejected: Place | None) -> None:
    """Stop if two places are the same file, or one can't be written.

    Raises:
        InputError: names both, or what is in the way.
    """
    if not output.name:
        raise InputError("--output is empty: name a file, or - for standard output.")
    if rejected and output.name == rejected.name == STANDARD:
        raise InputError("--output and --rejected are both -: name a file for one of them.")
    seen: dict[str, Place] = {}
    for place in (input, output, rejected):
        if place is None or place.name == STANDARD:
            continue
        same = os.path.realpath(place.name) if place.is_local else place.name
        if same in seen:
            raise InputError(
                f"{place.setting} is the same file as {seen[same].setting}, {place}: name another "
                "one."
            )
        seen[same] = place
        if place is input:
            continue
        if place.is_local:
            refuse_not_a_file(place)
        if place.packing not in WRITTEN:
            raise InputError(
                f"{place.setting} {place} can't be compressed as {place.packing}: let it end in "
                f"{', '.join(WRITTEN[1:-1])} or {WRITTEN[-1]}."
            )


def _added(work: Work, options: Options) -> pa.Schema:
    """Return the columns that predictions add."""
    *texts, number = work.fields
    types = {name: pa.string() for name in texts} | {number: pa.float64()}
    if options.probabilities:
        types |= {f"probability_{label}": pa.float64() for label in work.labels}
    return pa.schema([(f"{options.prefix}{name}", kind) for name, kind in types.items()])


def _columns(
    answers: Sequence[Any], fields: Sequence[str], probabilities: Probabilities | None
) -> Iterator[Sequence[Any]]:
    """Yield the values of these columns."""
    for name in fields:
        yield [getattr(answer, name) for answer in answers]
    if probabilities is not None:
        yield from probabilities.T.tolist()


def _in_order(
    batches: Iterator[Batch], submit: Submit, ahead: int
) -> Iterator[tuple[Batch, Scores | None]]:
    """Yield batches with their scores in the order of the input, at most ``ahead`` under way.

    A batch of rejected rows alone has none.
    """
    waiting: deque[tuple[Batch, Callable[[], Scores | None]]] = deque()
    for batch in batches:
        waiting.append((batch, submit(batch.inputs, batch.count) if batch.count else _no_scores))
        if len(waiting) > ahead:
            first, scores = waiting.popleft()
            yield first, scores()
    for first, scores in waiting:
        yield first, scores()


def _no_scores() -> None:
    return None


def _say(counts: Counts, options: Options, work: Work) -> None:
    if counts.resumed:
        log.info("%d of the rows were scored before the interruption", counts.resumed)
    log.info(
        "read %d = scored %d + rejected %d%s",
        *(counts.read, counts.scored, counts.rejected),
        f", which {options.rejected} lists" if counts.rejected and options.rejected else "",
    )
    if work.truncates:
        reads = f", as {work.truncates}" if counts.truncated else ""
        log.info("truncated %d%s", counts.truncated, reads)
    for note in work.notes(counts):
        log.info("%s", note)
    if options.output.name != STANDARD:
        log.info("wrote %s", options.output)


@contextmanager
def progress(counts: Counts, found: Input) -> Iterator[Callable[[], None]]:
    """Give what is called after each batch: it moves a bar on a terminal, or writes to the log."""
    start = told = time.monotonic()

    def total() -> int | None:
        share = found.share()
        return found.rows or (int(counts.read / share) if share else None)

    if sys.stderr.isatty():
        from tqdm import tqdm

        with tqdm(unit=" rows", dynamic_ncols=True) as bar:

            def move() -> None:
                bar.total = total()
                bar.update(counts.read - bar.n)

            yield move
        return

    def tell() -> None:
        nonlocal told
        if (now := time.monotonic()) - told < EVERY:
            return
        told = now
        rate = (counts.read - counts.resumed) / (now - start)
        whole = total()
        left = f", {(whole - counts.read) / rate / 60:.0f} min left" if whole and rate else ""
        log.info("%d rows, %.0f a second%s", counts.read, rate, left)

    yield tell
