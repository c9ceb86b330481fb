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
from src.predict.classifier import Answer, Classifier, Field, Probabilities, softmax
from src.predict.engines import Engine, EngineOption
from src.predict.files import fresh, refuse_not_a_file
from src.predict.formats import Dialect, Format, format_of, own_format
from src.predict.input import Batch, Input, reading
from src.predict.output import NoTextError, rejections, writing
from src.predict.ray_workers import on_ray
from src.predict.resume import journal_of, key_of, remembered_by
from src.predict.scoring import ROWS, Counts, Scores, Submit, score_here
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


def predict(
    model: Path, options: Options, engine: EngineOption, threads: int, batch_tokens: int
) -> Counts:
    """Write the input's rows with the answers and maybe probabilities to the output.

    Raises:
        InputError: the options contradict one another, the input can't be read, or no row of it
            has a text.
    """
    _refuse_contradictions(options)
    into = format_of(options.input, options.format, None)
    out_of = format_of(options.output, options.format, into)
    classifier, computing = _loaded(model, options, engine, threads)
    added = _added(classifier, options)
    counts = Counts()
    with ExitStack() as stack:
        verbatim = into == out_of == "jsonl"
        found = stack.enter_context(
            reading(
                *(options.input, into, options.dialect, options.text_column),
                *(ROWS, verbatim, added.names),
            )
        )
        journal = None
        if options.output.is_local:
            key = key_of(model, computing, threads, batch_tokens)
            classes = len(classifier.labels)
            journal = stack.enter_context(journal_of(options.output, key, classes, options.resume))
        submit, ahead = stack.enter_context(
            on_ray(options.ray, model, computing, threads, batch_tokens)
            if options.ray
            else nullcontext((score_here(classifier, batch_tokens), 0))
        )
        if journal:
            submit = remembered_by(submit, journal, counts)
        scored = _in_order(found.batches, submit, ahead)
        _write(scored, options, found, out_of, added, classifier, counts)
    _say(counts, options, classifier)
    return counts


def _loaded(
    model: Path, options: Options, engine: EngineOption, threads: int
) -> tuple[Classifier, Engine]:
    """Load the model here, to answer at least, and return the engine that will score."""
    if not options.ray:
        classifier = Classifier(model, threads, engine, options.min_score)
        return classifier, classifier.engine
    if engine == "auto":
        # What it comes to could differ from node to node, and with it the bytes of the output.
        log.info("computing with ONNX Runtime, since the nodes of Ray may differ")
        engine = "onnxruntime"
    return Classifier(model, threads, min_score=options.min_score), engine


def _write(
    scored: Iterator[tuple[Batch, Scores]],
    options: Options,
    found: Input,
    format: Format,
    added: pa.Schema,
    classifier: Classifier,
    counts: Counts,
) -> None:
    """Write rows with their predictions, and rejected ones to their own file, and count them."""
    workers = set()
    reason = ""
    with (
        rejections(options.rejected, options.excel_safe) as reject,
        fresh(options.output) as stream,
        writing(stream, options.output, format, found.schema, added, options.excel_safe) as output,
        _progress(counts, found) as progress,
    ):
        for batch, scores in scored:
            for one in batch.rejected:
                reject(one)
                reason = one.reason
            if batch.texts:
                shares = softmax(scores.logits)
                answers = classifier.answers(shares)
                counts.unanswered += sum(answer.label is None for answer in answers)
                wanted = shares if options.probabilities else None
                columns = _columns(answers, classifier.fields, wanted)
                output.write(batch.rows, dict(zip(added.names, columns, strict=True)))
                workers.add(scores.worker)
            counts.read += batch.read
            counts.scored += len(scores.logits)
            counts.rejected += len(batch.rejected)
            counts.truncated += scores.cut
            progress()
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
    if not output.name:
        raise InputError("--output is empty: name a file, or - for standard output.")
    if rejected and output.name == rejected.name == STANDARD:
        raise InputError("--output and --rejected are both -: name a file for one of them.")
    seen: dict[str, Place] = {}
    for place in (options.input, output, rejected):
        if place is None or place.name == STANDARD:
            continue
        same = os.path.realpath(place.name) if place.is_local else place.name
        if same in seen:
            raise InputError(
                f"{place.setting} is the same file as {seen[same].setting}, {place}: name another "
                "one."
            )
        seen[same] = place
        if place is options.input:
            continue
        if place.is_local:
            refuse_not_a_file(place)
        if place.packing not in WRITTEN:
            raise InputError(
                f"{place.setting} {place} can't be compressed as {place.packing}: let it end in "
                f"{', '.join(WRITTEN[1:-1])} or {WRITTEN[-1]}."
            )
    if options.resume and not output.is_local:
        raise InputError(
            f"--resume needs an --output that is a file of this machine, not {output}, since "
            "scores are kept beside it: leave --resume out, or write a file here and send it on."
        )


def _added(classifier: Classifier, options: Options) -> pa.Schema:
    """Return the columns that predictions add."""
    types = {name: pa.string() for name in classifier.fields} | {"score": pa.float64()}
    if options.probabilities:
        types |= {f"probability_{label}": pa.float64() for label in classifier.labels}
    return pa.schema([(f"{options.prefix}{name}", kind) for name, kind in types.items()])


def _columns(
    answers: Sequence[Answer], fields: Sequence[Field], probabilities: Probabilities | None
) -> Iterator[Sequence[Any]]:
    """Yield the values of these columns."""
    for name in fields:
        yield [getattr(answer, name) for answer in answers]
    if probabilities is not None:
        yield from probabilities.T.tolist()


def _in_order(
    batches: Iterator[Batch], submit: Submit, ahead: int
) -> Iterator[tuple[Batch, Scores]]:
    """Yield batches with their scores in the order of the input, at most ``ahead`` under way."""
    waiting: deque[tuple[Batch, Callable[[], Scores]]] = deque()
    for batch in batches:
        waiting.append((batch, submit(batch.texts)))
        if len(waiting) > ahead:
            first, scores = waiting.popleft()
            yield first, scores()
    for first, scores in waiting:
        yield first, scores()


def _say(counts: Counts, options: Options, classifier: Classifier) -> None:
    if counts.resumed:
        log.info("%d of the rows were scored before the interruption", counts.resumed)
    log.info(
        "read %d = scored %d + rejected %d%s",
        *(counts.read, counts.scored, counts.rejected),
        f", which {options.rejected} lists" if counts.rejected and options.rejected else "",
    )
    tokens = classifier.max_length
    reads = f", as the model reads {tokens} tokens of a text" if counts.truncated else ""
    log.info("truncated %d%s", counts.truncated, reads)
    if classifier.min_score > 0:
        log.info("no label %d, with a score below %g", counts.unanswered, classifier.min_score)
    if options.output.name != STANDARD:
        log.info("wrote %s", options.output)


@contextmanager
def _progress(counts: Counts, found: Input) -> Iterator[Callable[[], None]]:
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
