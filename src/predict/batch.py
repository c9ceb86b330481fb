"""Predict a table of any size: rows in batches, in order, and what they say in a table again.

A batch is a fixed number of rows of the input, and is always scored by itself: what a text is
padded with changes the last digits of its logits, and int8 models scale their activations by all
texts of a batch. So wherever a batch is scored, and however often a run was interrupted, the output
has the same bytes.
"""

import hashlib
import json
import logging
import os
import re
import socket
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from src.core.errors import InputError
from src.core.processes import lock
from src.predict import tables
from src.predict.classifier import Classifier, Engine, Logits, softmax
from src.predict.tables import STANDARD, Batch, Format, Input, Rejected

ROWS = 512  # of a batch
EVERY = 30  # seconds between two lines of the log
NAMED = 20  # rejected rows that the log names where no file takes them
CONNECT = 10  # seconds until a cluster must have answered
RETRIES = 10  # of a batch whose node or process is lost
AHEAD = 4  # batches a worker of Ray that wait for it or for their turn

log = logging.getLogger("src.predict.batch")


@dataclass(frozen=True)
class Options:
    """How a table is predicted, as ``src.predict`` takes it from the command line."""

    input: str
    output: str
    format: Format | Literal["auto"]
    text_column: str
    probabilities: bool
    prefix: str
    rejected: str
    excel_safe: bool
    resume: bool
    ray: str


class Scores(NamedTuple):
    """What became of a batch: its logits, how many texts were cut, and who computed it."""

    logits: Logits
    cut: int
    worker: str


Submit = Callable[[list[str]], Callable[[], Scores]]


@dataclass
class Counts:
    """What a run has done so far, in rows."""

    read: int = 0
    scored: int = 0
    rejected: int = 0
    truncated: int = 0
    resumed: int = 0


def predict(
    model: Path, options: Options, engine: Engine, threads: int, batch_tokens: int
) -> Counts:
    """Write the input's rows with ``label``, ``score`` and maybe probabilities to the output.

    Raises:
        InputError: the options contradict one another, the input can't be read, or no row of it
            has a text.
    """
    rejected = options.rejected
    if not rejected and options.output != STANDARD:
        rejected = f"{options.output}.rejected.csv"
    _refuse_contradictions(options, rejected)
    into = tables.format_of(options.input, options.format, None)
    out_of = tables.format_of(options.output, options.format, into)
    classifier = Classifier(model, threads, "onnxruntime" if options.ray else engine)
    added = _added(classifier.labels, options)
    counts = Counts()
    with ExitStack() as stack:
        verbatim = into == out_of == "jsonl"
        found = stack.enter_context(
            tables.reading(*(options.input, into, options.text_column, ROWS, verbatim, added.names))
        )
        journal = None
        if tables.is_local(options.output):
            key = _key(model, engine, threads, batch_tokens)
            journal = stack.enter_context(_journal(options, key, len(classifier.labels)))
        submit, ahead = stack.enter_context(
            _on_ray(options.ray, model, engine, threads, batch_tokens)
            if options.ray
            else nullcontext((_here(classifier, batch_tokens), 0))
        )
        if journal:
            submit = _remembered(submit, journal, counts)
        apart = stack.enter_context(_rejections(rejected, options.excel_safe))
        stream = stack.enter_context(_fresh(options.output))
        output = stack.enter_context(
            tables.writing(
                *(stream, options.output, out_of, found.schema, added, options.excel_safe)
            )
        )
        progress = stack.enter_context(_progress(counts, found))
        workers = set()
        for batch, scores in _in_order(found.batches, submit, ahead):
            for one in batch.rejected:
                apart(one)
            if batch.texts:
                columns = _columns(scores.logits, classifier.labels, options.probabilities)
                output.write(batch.rows, dict(zip(added.names, columns, strict=True)))
                workers.add(scores.worker)
            counts.read += batch.read
            counts.scored += len(scores.logits)
            counts.rejected += len(batch.rejected)
            counts.truncated += scores.cut
            progress()
        _check(counts, found.rows)
        if counts.rejected and not counts.scored:
            listed = f" (see {rejected})" if rejected else ""
            raise _NoTextError(
                f"Expected a text in a row of {options.input}, found all {counts.rejected} rejected"
                f"{listed}, the last one for: {batch.rejected[-1].reason}; correct the input."
            )
    if options.ray:
        workers.discard("")
        log.info("nodes of Ray that scored: %d", len(workers))
    _say(counts, options, rejected, classifier.max_length)
    return counts


class _NoTextError(InputError):
    """All rows are rejected."""


def _check(counts: Counts, rows: int | None) -> None:
    """See that no row is lost on its way; ``rows`` is what the input says of itself, if it does."""
    whole = counts.read if rows is None else rows
    if not whole == counts.read == counts.scored + counts.rejected:
        raise RuntimeError(f"the rows do not add up, of {rows} in the input: {counts}")


def _refuse_contradictions(options: Options, rejected: str) -> None:
    places = {"--input": options.input, "--output": options.output, "--rejected": rejected}
    endings = {tables.ending_of(options.input), tables.ending_of(options.output)}
    if options.format != "auto" and None not in endings and endings != {options.format}:
        raise InputError(
            f"Expected --format of what has no ending that says so, found {options.format} for "
            f"{options.input} and {options.output}: leave it out, or rename the file."
        )
    if not options.output:
        raise InputError("Expected a file for --output, found '': name one, or - for standard out.")
    if options.output == rejected == STANDARD:
        raise InputError(
            "Expected --output and --rejected to be two places, found - for both: name a file."
        )
    seen: dict[str, str] = {}
    for name, place in places.items():
        if place in ("", STANDARD):
            continue
        same = os.path.realpath(place) if tables.is_local(place) else place
        if same in seen:
            raise InputError(
                f"Expected {name} to be another file than {seen[same]}, found {place} for both: "
                "name another one."
            )
        seen[same] = name
        if name != "--input" and tables.is_local(place):
            _refuse_no_file(name, Path(place))
    if options.resume and not tables.is_local(options.output):
        raise InputError(
            f"Expected a file of this machine as --output of a run that --resume goes on with, "
            f"found {options.output}: what was scored is kept beside the output; leave --resume "
            "out, or write a file here and send it on."
        )


def _refuse_no_file(name: str, place: Path) -> None:
    with _reaching(place):
        if place.is_dir():
            raise InputError(f"Expected a file for {name}, found the folder {place}: name a file.")
        if place.exists() and not place.is_file():
            raise InputError(
                f"Expected a file for {name}, found {place}, a device, pipe or socket, which it "
                "would replace: name a file, or - for standard output."
            )


def _added(labels: Sequence[str], options: Options) -> pa.Schema:
    """The columns that predictions have."""
    prefix = options.prefix
    fields = [(f"{prefix}label", pa.string()), (f"{prefix}score", pa.float64())]
    if options.probabilities:
        fields += [(f"{prefix}probability_{label}", pa.float64()) for label in labels]
    return pa.schema(fields)


def _columns(logits: Logits, labels: Sequence[str], probabilities: bool) -> Iterator[Sequence[Any]]:
    shares = softmax(logits)
    best = shares.argmax(axis=1)
    yield [labels[k] for k in best]
    yield shares[np.arange(len(best)), best].tolist()
    if probabilities:
        yield from shares.T.tolist()


def _in_order(
    batches: Iterator[Batch], submit: Submit, ahead: int
) -> Iterator[tuple[Batch, Scores]]:
    """Batches with their scores, in the order of the input, with at most ``ahead`` under way."""
    waiting: deque[tuple[Batch, Callable[[], Scores]]] = deque()
    for batch in batches:
        waiting.append((batch, submit(batch.texts)))
        if len(waiting) > ahead:
            first, scores = waiting.popleft()
            yield first, scores()
    for first, scores in waiting:
        yield first, scores()


def _say(counts: Counts, options: Options, rejected: str, max_length: int) -> None:
    if counts.resumed:
        log.info("%d of the rows were scored before the interruption", counts.resumed)
    log.info(
        "read %d = scored %d + rejected %d%s",
        *(counts.read, counts.scored, counts.rejected),
        f", which {rejected} lists" if counts.rejected and rejected else "",
    )
    reads = f", as the model reads {max_length} tokens of a text" if counts.truncated else ""
    log.info("truncated %d%s", counts.truncated, reads)
    if options.output != STANDARD:
        log.info("wrote %s", options.output)


# Where the rows go


@contextmanager
def _reaching(place: Path) -> Iterator[None]:
    """Turn what is in the way of a file here into one sentence."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"Expected to write {place}, found: {error.strerror}; see to that, or name another."
        ) from error


def _beside(place: str, ending: str) -> Path:
    """A hidden file beside the one that ``place`` is, or is a link to; its folder is made."""
    path = Path(os.path.realpath(place) if Path(place).is_symlink() else place)
    with _reaching(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{path.name}.{ending}")


@contextmanager
def _fresh(place: str) -> Iterator[IO[bytes]]:
    """Where to write to; it becomes ``place`` only if the block ends well."""
    if place == STANDARD:
        # A copy, so that what is left in it when something breaks closes that and no more.
        with os.fdopen(os.dup(1), "wb") as stream:
            yield stream
    elif tables.is_local(place):
        # What a killed run left there is written over; the journal has the lock on the output.
        unfinished = _beside(place, "unfinished")
        with _reaching(Path(place)):
            opened = unfinished.open("wb")
        try:
            with opened as stream:
                yield stream
            with _reaching(Path(place)):
                unfinished.replace(os.path.realpath(place))
        finally:
            unfinished.unlink(missing_ok=True)
    else:
        with tempfile.TemporaryDirectory() as folder:
            whole = Path(folder, "output")
            with whole.open("wb") as stream:
                yield stream
            tables.send(whole, place)


@contextmanager
def _rejections(place: str, excel_safe: bool) -> Iterator[Callable[[Rejected], None]]:
    """What takes the rows that can't be scored: a file, or the log if there is none."""
    if place:
        with _fresh(place) as stream:
            schema = pa.schema([(name, pa.string()) for name in ("line", "reason", "row")])
            with tables.writing(stream, place, "csv", schema, pa.schema([]), excel_safe) as output:

                def write(one: Rejected) -> None:
                    row = {"line": [str(one.line)], "reason": [one.reason], "row": [one.row]}
                    output.write(pa.table(row, schema=schema), {})

                failed = None
                try:
                    yield write
                except _NoTextError as error:  # for which this file is the place to look
                    failed = error
        if failed:
            raise failed
        return
    told = 0

    def tell(one: Rejected) -> None:
        nonlocal told
        told += 1
        if told <= NAMED:
            log.warning("line %d is rejected: %s: %.60r", one.line, one.reason, one.row)
        if told == NAMED:
            log.warning("further rows that are rejected are counted; --rejected PATH lists them")

    yield tell


# What is scored already


def _key(model: Path, engine: Engine, threads: int, batch_tokens: int) -> dict[str, Any]:
    """All that logits depend on, but for the texts and the processor."""
    names = ("openvino" if engine == "openvino" else "onnxruntime", "tokenizers")
    packages = [getattr(sys.modules.get(name), "__version__", "") for name in names]
    return {
        "model": hashlib.sha256((model / "manifest.json").read_bytes()).hexdigest(),
        "engine": engine,
        "threads": threads,
        "batch_tokens": batch_tokens,
        "packages": packages,
    }


class _Journal:
    """The scores of the batches so far, in a file that outlives a run that is interrupted.

    A line tells what the scores depend on. Each batch follows as its number of rows, a digest of
    its texts, its scores, how many texts were cut, and a digest of all that, so that neither
    another input nor half a batch is taken for it. Nothing but half a batch is ever removed.

    Attributes:
        rows: how many this run has scored, or found here.
    """

    def __init__(self, file: IO[bytes], path: Path, classes: int) -> None:
        self.rows = 0
        self._path = path
        self._file = file
        self._classes = classes
        self._places: dict[bytes, tuple[int, int]] = {}
        end = file.tell()
        while len(head := file.read(36)) == 36 and (rows := int.from_bytes(head[:4])) <= ROWS:
            record, check = head + file.read(rows * classes * 4 + 4), file.read(32)
            if len(check) < 32:
                break
            if check == hashlib.sha256(record).digest():
                self._places[head[4:]] = end, len(record)
            end = file.tell()
        file.truncate(end)

    def find(self, texts: Sequence[str]) -> Scores | None:
        """The scores of a batch, if it is here.

        Raises:
            InputError: the first batch is not, so this is another input than was interrupted.
        """
        place = self._places.get(_digest(texts))
        if place:
            self._file.seek(place[0])
            record = self._file.read(place[1])
            self.rows += len(texts)
            logits = np.frombuffer(record[36:-4], np.float32).reshape(-1, self._classes)
            return Scores(logits, int.from_bytes(record[-4:]), "")
        if self._places and not self.rows:
            raise InputError(
                "Expected --resume to get the input of the interrupted run, found other texts in "
                f"its first rows than those scored in {self._path}: give it that input, or "
                "remove the file to start anew."
            )
        return None

    def keep(self, texts: Sequence[str], scores: Scores) -> None:
        """Add a batch."""
        record = len(texts).to_bytes(4) + _digest(texts) + scores.logits.tobytes()
        record += scores.cut.to_bytes(4)
        self._file.seek(0, os.SEEK_END)
        self._file.write(record + hashlib.sha256(record).digest())
        self._file.flush()
        self.rows += len(texts)


def _digest(texts: Sequence[str]) -> bytes:
    found = hashlib.sha256()
    for text in texts:
        raw = text.encode()
        found.update(len(raw).to_bytes(8, "little") + raw)
    return found.digest()


@contextmanager
def _journal(options: Options, key: dict[str, Any], classes: int) -> Iterator[_Journal]:
    """The journal beside the output, which is removed when the run ends well.

    Raises:
        InputError: an interrupted run left one that is not to be resumed, or is of another model
            or other options, or another process writes it.
    """
    path = _beside(options.output, "scores")
    with _reaching(path):
        opened = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
    with opened as file:
        if not lock(file):
            raise InputError(
                f"Another process writes {options.output}: wait until it ends, or name another "
                "--output."
            )
        line = file.readline()
        if not (line.endswith(b"\n") and file.read(1)):  # nothing was scored
            file.seek(0)
            file.truncate()
            file.write(json.dumps(key).encode() + b"\n")
            file.flush()
            resumes = False
        else:
            file.seek(len(line))
            _refuse_other_run(json.loads(line), key, options, path)
            resumes = True
        journal = _Journal(file, path, classes)
        try:
            yield journal
        except BaseException:
            if journal.rows:
                log.info(
                    "%d rows are scored, and kept in %s: --resume goes on with them",
                    *(journal.rows, path),
                )
            elif not resumes:
                path.unlink()
            raise
        path.unlink()


def _refuse_other_run(
    found: dict[str, Any], key: dict[str, Any], options: Options, path: Path
) -> None:
    if not options.resume:
        raise InputError(
            f"Expected to know what becomes of an interrupted run's scores, found them in {path}: "
            "add --resume to go on with them, or remove the file to start anew."
        )
    if other := [name for name in key if found.get(name) != key[name]]:
        name = other[0]
        raise InputError(
            f"Expected to resume a run with {name} {key[name]}, found scores with "
            f"{found.get(name)} in {path}: run it as before, or remove the file to start anew."
        )


def _remembered(submit: Submit, journal: _Journal, counts: Counts) -> Submit:
    """Score what the journal does not have, and keep it there."""

    def remembered(texts: list[str]) -> Callable[[], Scores]:
        if not texts:
            return submit(texts)
        known = journal.find(texts)
        if known is not None:
            counts.resumed += len(texts)
            return lambda: known
        scores = submit(texts)

        def wait() -> Scores:
            found = scores()
            journal.keep(texts, found)
            return found

        return wait

    return remembered


# Who scores


def _score(classifier: Classifier, batch_tokens: int, texts: list[str], worker: str) -> Scores:
    ids, cut = classifier.encode(texts)
    return Scores(classifier.score(ids, batch_tokens), sum(cut), worker)


def _here(classifier: Classifier, batch_tokens: int) -> Submit:
    return lambda texts: lambda: _score(classifier, batch_tokens, texts, "")


_loaded: dict[str, Classifier] = {}  # of a worker of Ray, for all of its batches


def _there(
    name: str,
    files: list[Any],
    engine: Engine,
    threads: int,
    batch_tokens: int,
    texts: list[str],
) -> Scores:
    """Score a batch on a worker of Ray; ``files`` is a reference to those of the model."""
    import ray

    if name not in _loaded:
        with tempfile.TemporaryDirectory() as folder:
            for file, content in ray.get(files[0]).items():
                Path(folder, file).write_bytes(content)
            _loaded[name] = Classifier(Path(folder), threads, engine)
    return _score(_loaded[name], batch_tokens, texts, ray.get_runtime_context().get_node_id())


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """Ray, on a cluster that is there or on a local one for as long as the block lasts.

    Raises:
        InputError: there is no Ray, or no cluster.
    """
    try:
        import ray
    except ImportError:
        raise InputError(
            "Expected the package ray for --ray, found none: `pip install ray`, or leave it out."
        ) from None
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a local cluster would tell its makers
    with redirect_stdout(sys.stderr):  # Ray prints what happens to nodes
        try:
            if at := re.fullmatch(r"(?:ray://)?([^/:]+):(\d+)", address):
                # Ray itself would try for minutes.
                socket.create_connection((at[1], int(at[2])), timeout=CONNECT).close()
            ray.init(
                address=address,
                runtime_env={"py_modules": [str(Path(__file__).parent)]},
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).split("\n")[0]
            raise InputError(
                f"Expected a Ray cluster at --ray {address}, found: {reason}; start one with `ray "
                "start --head`, or use --ray local."
            ) from None
        try:
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def _on_ray(
    address: str, model: Path, engine: Engine, threads: int, batch_tokens: int
) -> Iterator[tuple[Submit, int]]:
    """Score on a Ray cluster, a task a batch; a task whose node is lost runs on another.

    Plain tasks and not Ray Data, which cuts its blocks by their size and reads files itself: the
    batches would depend on the cluster, and with them the last digits of the scores.

    Raises:
        InputError: as of ``_cluster``, or no node can run a task.
    """
    with _cluster(address) as ray:
        needs = {"CPU": threads} | ({"GPU": 1} if engine == "cuda" else {})
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        at_once = sum(
            min(int(node.get(kind, 0) // count) for kind, count in needs.items()) for node in nodes
        )
        if not at_once:
            raise InputError(
                f"Expected a node of the Ray cluster with {needs}, found {len(nodes)} without: "
                "lower --threads, or add a node."
            )
        manifest = (model / "manifest.json").read_bytes()
        names = ["manifest.json", *json.loads(manifest)["files"]]
        files = ray.put({name: (model / name).read_bytes() for name in names})
        key = hashlib.sha256(manifest).hexdigest()
        task = ray.remote(_there).options(
            num_cpus=threads, num_gpus=needs.get("GPU", 0), max_retries=RETRIES
        )

        def submit(texts: list[str]) -> Callable[[], Scores]:
            if not texts:
                return lambda: Scores(np.empty((0, 0), np.float32), 0, "")
            # In a list, a reference is passed on as one, and each worker fetches the model once.
            result = task.remote(key, [files], engine, threads, batch_tokens, texts)
            return lambda: _fetched(result)

        yield submit, AHEAD * at_once


def _fetched(result: Any) -> Scores:
    import ray

    try:
        scores: Scores = ray.get(result)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise InputError(f"On a node of Ray: {error.cause}") from None
        if isinstance(error.cause, ImportError):
            raise InputError(
                f"Expected the packages of prediction on every node of Ray, found: {error.cause}; "
                "install there what is installed here."
            ) from None
        raise
    except ray.exceptions.RayError as error:
        reason = str(error).split("\n")[0]
        raise InputError(
            f"Expected Ray to score a batch, found: {reason}; see to the cluster, and go on with "
            "--resume."
        ) from None
    return scores


# How far it is


@contextmanager
def _progress(counts: Counts, found: Input) -> Iterator[Callable[[], None]]:
    """What is called after each batch: it moves a bar on a terminal, or writes to the log."""
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
