"""Talk to a language model on a terminal: one behind a URL, or that of a folder.

    python -m src.predict.chat http://127.0.0.1:8000 --model lora
    python -m src.predict.chat models/chat/merged "Who are you?"
    python -m src.predict.chat models/chat/merged --input questions.jsonl --output answers.jsonl

Without a question it is a conversation; /help lists what else can be said in it. With --input it
answers the rows of a table.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from src.core import stage
from src.core.command_line import Count, Interval, Natural, Seed, Threads
from src.core.errors import InputError
from src.core.files import sha256
from src.predict.chat.batch import Ask, Options, answer_table
from src.predict.chat.client import RETRIES, Chat, Request, Said, Say, Way, opened
from src.predict.chat.models import EngineName, chat_models
from src.predict.chat.ray_workers import on_ray
from src.predict.chat.rows import Asked
from src.predict.formats import Dialect
from src.tables.places import STANDARD, Place

HELP = """\
/clear          forget what was said
/system TEXT    tell the model something before all, and forget what was said; without TEXT, nothing
/model NAME     have another model of the server answer; without NAME, list them
/multi          write several lines, up to one that is /end
/quit           end, as Ctrl-D does; Ctrl-C ends an answer"""

log = logging.getLogger("src.predict.chat")


def main(
    place: str,
    *question: str,
    model: str = "",
    base: str = "models/chat/base",
    engine: EngineName = "transformers",
    system: str = "",
    max_tokens: Count = 512,
    input: str = "",
    output: str = "-",
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = "auto",
    delimiter: str = ",",
    quote: str = '"',
    encoding: str = "utf-8",
    prefix: str = "",
    rejected: str = "",
    resume: bool = False,
    at_once: Count = 16,
    ray: str = "",
    temperature: Annotated[float, Interval(ge=0, le=2)] = 0.0,
    top_p: Annotated[float, Interval(gt=0, le=1)] = 1.0,
    top_k: Natural = 0,
    repetition_penalty: Annotated[float, Interval(gt=0)] = 1.0,
    seed: Seed = 42,
    threads: Threads = 2,
) -> None:
    """Print the answer to a question as it comes, begin a conversation, or answer a table.

    PLACE is the URL of a server, or the folder of a model or an adapter, for which an --engine is
    started that ends with the command; --base is the model that an adapter was trained on. --model
    names one of a server's models, by default its first. The key of a server is in the environment
    variable CHAT_API_KEY. With --temperature 0 each token is the likeliest, whatever follows.

    --input and --output are files or URLs of csv, tsv, jsonl or parquet, compressed if they end in
    .gz, .bz2, .xz or .zst, or - for standard input and output, whose format --format names;
    --delimiter, --quote and --encoding are how an input of csv is written. A row
    has messages and maybe tools as OpenAI's API, conversations as the pipeline keeps them, or a
    query; it gets the columns answer, calls, ended and tokens, their names after --prefix. Rows
    that can't be answered go to --rejected, by default OUTPUT.rejected.csv. --at_once are asked
    together. --resume continues an interrupted run. --ray starts an engine for the folder on each
    node of a Ray cluster: its address, auto for the one that this machine is part of, or local.
    """
    way = Way(max_tokens, temperature, top_p, top_k, repetition_penalty, seed)
    if not input:
        words = {"output": output != STANDARD, "resume": resume, "ray": ray, "prefix": prefix}
        words |= {"rejected": rejected, "format": format != "auto"}
        if name := next((name for name, given in words.items() if given), ""):
            raise InputError(f"--{name} is for tables: add --input, or leave it out.")
        with opened(place, base, engine, threads, log.info) as (url, key, own):
            chat = Chat(url, model or own, key, way)
            if question:
                _say(chat, Request(" ".join(question), (), system))
            else:
                _talk(chat, system)
        return
    if question:
        raise InputError(f"There are both a question and --input {input}: leave one out.")
    if not rejected and output != STANDARD:
        rejected = f"{output}.rejected.csv"
    refused = Place(rejected, "--rejected") if rejected else None
    places = Place(input, "--input"), Place(output, "--output"), refused
    dialect = Dialect(delimiter, quote, encoding)
    options = Options(*places, format, dialect, prefix, resume, at_once)
    if ray and model:
        raise InputError("--model is for a server, and --ray starts engines: leave one out.")
    engines = (
        on_ray(ray, place, base, engine, threads, way, at_once)
        if ray
        else _here(place, model, base, engine, threads, way)
    )
    answer_table(_asking(engines, place, base, way, system), options)


@contextmanager
def _here(
    place: str, model: str, base: str, engine: EngineName, threads: int, way: Way
) -> Iterator[tuple[Say, str]]:
    """Give what asks a server, or an engine for a folder, and the name of its model."""
    with opened(place, base, engine, threads, log.info) as (url, key, own):
        chat = Chat(url, model or own, key, way, RETRIES)
        yield chat.say, chat.model


@contextmanager
def _asking(
    engines: AbstractContextManager[tuple[Say, str]], place: str, base: str, way: Way, system: str
) -> Iterator[tuple[Ask, dict[str, Any]]]:
    """Give what asks a question of a table, and all that answers depend on but the rows."""
    # Of a server no more is known than where it is.
    used = [] if "://" in place else chat_models([Path(place)], Path(base))
    files = [path for one in used for path in sorted(one.folder.rglob("*")) if path.is_file()]
    of = [*map(sha256, files)] if used else place
    with engines as (say, name):
        depends = {"model": name, "system": system, **asdict(way), "of": of}
        yield partial(_ask, say, system), depends


def _ask(say: Say, system: str, asked: Asked) -> Said:
    """Ask a question of a table, with a system message unless it has one."""
    messages = asked.messages
    if system and messages[0]["role"] not in ("system", "developer"):
        messages = [{"role": "system", "content": system}, *messages]
    return say(messages, asked.tools)


def _talk(chat: Chat, system: str) -> None:
    """Answer what is typed, or comes by standard input, until it ends."""
    asks = sys.stdin.isatty()
    if asks:
        import readline  # noqa: F401, it gives `input` its keys and its history

        sys.stdout.write(f"Talking to {chat.model}; /help lists the commands.\n")
    start = Request("", (), system)
    for line in _lines("> " if asks else ""):
        word, _, rest = line.partition(" ")
        if word == "/quit":
            return
        if word.startswith("/"):
            start = _command(chat, start, word, rest.strip())
        elif line.strip():
            try:
                said = _say(chat, Request(line, start.history, start.system))
            except InputError as error:
                if not asks:
                    raise
                sys.stdout.write(f"{error}\n")
                continue
            start = Request("", (*start.history, (line, said)), start.system)


def _lines(prompt: str) -> Iterator[str]:
    """Yield what is typed, several lines as one after /multi."""
    try:
        while True:
            line = input(prompt)
            if line.strip() == "/multi":
                parts = iter(lambda: input("| " if prompt else ""), "/end")
                line = "\n".join(parts)
            yield line
    except EOFError:
        if prompt:
            sys.stdout.write("\n")


def _command(chat: Chat, start: Request, word: str, rest: str) -> Request:
    """Do what a line that begins with a stroke says, and return what the next question follows."""
    if word == "/clear":
        sys.stdout.write("Forgotten.\n")
        return Request("", (), start.system)
    if word == "/system":
        return Request("", (), rest)
    if word == "/model" and rest:
        try:
            chat.choose(rest)
        except InputError as error:
            sys.stdout.write(f"{error}\n")
            return start
        sys.stdout.write(f"{rest} answers from now on.\n")
    elif word == "/model":
        sys.stdout.write("".join(f"{one}\n" for one in chat.models))
    else:
        sys.stdout.write(f"{HELP}\n")
    return start


def _say(chat: Chat, request: Request) -> str:
    """Print an answer as it comes, up to a Ctrl-C, and return it."""
    said = ""
    pieces = chat.stream(request)
    try:
        for piece in pieces:
            said += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
    except KeyboardInterrupt:
        if not sys.stdin.isatty():
            raise
    sys.stdout.write("\n")
    return said


if __name__ == "__main__":
    stage.run(main, section=False)
