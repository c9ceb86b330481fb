"""Serve exported model folders over HTTP: onnxruntime and tokenizers, without torch or DVC.

    python -m src.serve models/shipped --port 8000

answers at http://127.0.0.1:8000; docs/serving.md describes the routes and the limits.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from src.core import stage
from src.core.command_line import Count, Interval, Threads
from src.core.errors import InputError
from src.predict.engines import EngineOption
from src.predict.levels import MinScore
from src.predict.naming import named
from src.serve.batching import END
from src.serve.connections import most_connections
from src.serve.models import Model, ReaderModel
from src.serve.request import Limits
from src.serve.scorers import load
from src.serve.server import Server, give_back_memory, in_address, listen, serve
from src.serve.service import Service
from src.serve.upload import SLICE

if TYPE_CHECKING:
    from src.serve.documents import Documents  # which needs more than texts do

log = logging.getLogger("src.serve")

KEY = "SERVE_API_KEY"  # the environment variable that may hold the key of the clients


def main(
    model: Path,
    *more: Path,
    host: str = "127.0.0.1",
    port: Annotated[int, Interval(ge=0, le=65535)] = 8000,
    engine: EngineOption = "auto",
    threads: Threads = 2,
    min_score: MinScore = "model",
    batch_tokens: Count = 1024,
    max_texts: Count = 512,
    max_items: Count = 32,
    max_characters: Count = 100_000,
    max_body: Count = 2**20,
    max_words: Count = 64,
    max_rows: Count = 2000,
    max_upload: Count = 8 * 2**20,
    auto_truncate: bool = True,
    deadline: Annotated[float, Interval(gt=0, le=3600)] = 5.0,
    upload_deadline: Annotated[float, Interval(gt=0, le=3600)] = 300.0,
    drain: Annotated[float, Interval(ge=0, le=3600)] = 30.0,
    max_connections: Count = 512,
    patience: Annotated[float, Interval(gt=0, le=3600)] = 10.0,
    watch: Annotated[float, Interval(ge=0, le=3600)] = 2.0,
    hosts: str = "localhost,127.0.0.1,[::1]",
    api_key_file: str = "",
    documents: str = "",
    passages: Count = 10,
    feedback: str = "",
) -> None:
    """Serve model folders over HTTP until SIGTERM; the first is that of requests that name none.

    A model has the name of its folder, or another, as in frauds=models/tabular/shipped.
    --min_score is the least score with which a label is given, by default that of each model.
    --drain is the time, in seconds, that requests in progress then have to finish; a second signal
    ends them at once. The key that clients must send is in --api_key_file or, without that, in the
    environment variable SERVE_API_KEY; with neither, no key is needed. --watch is the time, in
    seconds, between checks for changed models, 0 for never; SIGHUP reloads them at any time.
    --patience is the time, in seconds, in which a client must send the head of a request, each
    16 KiB of a body and the next request, and read each 16 KiB of an answer; at --max_connections,
    the client that is awaited for longest is closed.
    --documents is a folder of txt, md, html and pdf files, or one of them, that readers are asked
    about, read again when they change; they read --passages of them for a question, those that BM25
    finds. --feedback is the file that gets what people think of answers, by which a reader can be
    trained on; what was wrong goes to FILE.down.jsonl beside it.
    --hosts are the names that clients may use for the server, separated by commas, or * for any.
    """
    give_back_memory()
    key = read_key(api_key_file)
    how = partial(load, threads=threads, engine=engine, min_score=min_score)
    loaded = [Model(folder, how, name) for name, folder in named([model, *more])]
    _check_max_texts(max_texts, max_items, max_words)
    listening = listen(host, port)
    limits = Limits(
        max_body, max_items, max_characters, max_words, max_rows, max_upload, auto_truncate
    )
    service = Service(
        loaded,
        limits,
        *(batch_tokens, max_texts, deadline, upload_deadline),
        _documents(documents, loaded),
        _feedback(feedback, loaded),
        passages,
    )
    names = [in_address(name.strip().lower()) for name in (*hosts.split(","), host)]
    server = Server(service, names, key, drain, most_connections(max_connections), patience)
    asyncio.run(serve(server, listening, watch))
    _leave_what_never_ends()


def _documents(place: str, models: Sequence[Model]) -> "Documents | None":
    """Read the documents that readers are asked about."""
    if not place:
        return None
    _expect_reader("documents", models)
    try:
        from src.serve.documents import Documents
    except ImportError as error:
        raise InputError(
            f"--documents needs packages that texts do without ({error}): `pip install bm25s "
            "markdown-it-py pypdf`."
        ) from None
    return Documents(Path(place))


def _feedback(file: str, models: Sequence[Model]) -> Path | None:
    """Check the file that gets feedback before there is any."""
    if not file:
        return None
    _expect_reader("feedback", models)
    place = Path(file)
    if place.suffix != ".jsonl" or place.is_dir() or not place.parent.is_dir():
        raise InputError(
            f"--feedback {file} can't be written: name a file that ends in .jsonl, in a folder "
            "that is there."
        )
    return place


def _expect_reader(option: str, models: Sequence[Model]) -> None:
    if not any(isinstance(model.now, ReaderModel) for model in models):
        raise InputError(
            f"--{option} is for readers, and none is served: name the folder of one, such as "
            "models/qa/shipped, or leave it out."
        )


def _leave_what_never_ends() -> None:
    """End the process at once if a model is still loaded or computed, which nothing can stop."""
    busy = [t for t in threading.enumerate() if t.name.startswith(("load", "score", "tokenize"))]
    for thread in busy:
        thread.join(END)
    if any(thread.is_alive() for thread in busy):
        log.warning("ended while a model was still being loaded or computed")
        os._exit(0)


def _check_max_texts(max_texts: int, max_items: int, max_words: int) -> None:
    largest = max(max_items, max_words + 1, SLICE)
    if max_texts < largest:
        raise InputError(
            f"--max_texts is {max_texts}, but must be at least {largest}: raise it, or lower what "
            f"one request may have: --max_items {max_items} texts, --max_words {max_words} and one "
            f"more for an explanation, {SLICE} for a part of a file."
        )


def read_key(file: str) -> bytes:
    """Read the key that clients must send; b"" lets everybody in."""
    place = file or f"the environment variable {KEY}"
    try:
        found = Path(file).read_bytes() if file else os.environb.get(KEY.encode(), b"")
    except OSError as error:
        raise InputError(
            f"Can't read {place}, {error.strerror}: write the key of the clients there."
        ) from None
    key = found.strip()
    if not key and (file or found):
        raise InputError(f"The key in {place} is empty: write the key of the clients there.")
    return key


if __name__ == "__main__":
    stage.run(main, section=False)
