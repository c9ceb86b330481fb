"""Ask a reader questions about documents, or about a text.

    python -m src.predict.ask "Who pays for it?" --documents handbook/
    python -m src.predict.ask "Who pays for it?" --context "The bill is paid by the city."

It answers with words of the documents, where they stand, how sure it is, and the sentence around.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any, Literal

from src.core import stage
from src.core.command_line import Count, Threads
from src.core.errors import InputError
from src.predict.engines import EngineOption
from src.predict.levels import Threshold
from src.predict.reader import answers
from src.predict.reader.answers import Answer, Piece
from src.predict.reader.library import Library, read_library
from src.predict.reader.model import Reader

BOLD = ("\x1b[1m", "\x1b[22m")

log = logging.getLogger("src.predict.ask")


def main(
    question: str,
    *more: str,
    documents: str = "",
    context: str = "",
    model: str = "models/qa/shipped",
    top_k: Count = 3,
    threshold: Threshold = "model",
    passages: Count = 10,
    format: Literal["text", "json"] = "text",
    engine: EngineOption = "auto",
    threads: Threads = 2,
    batch_tokens: Count = 1024,
) -> None:
    """Print the answers to each question, the best first.

    --documents is a folder of txt, md, html and pdf files, or one of them; --context is a text in
    its place. --model is the folder of an exported reader. At most --top_k answers are printed, and
    none of a probability below --threshold, by default that of the model: then there is none, and
    the passage that fits best is shown. --passages are read of the documents, those that BM25
    finds. --format json prints a line of JSON for each question.
    """
    questions = [_valid(text) for text in (question, *more)]
    if bool(documents) == bool(context):
        raise InputError(
            "Name what is asked about, once: --documents with a folder, or --context with a text."
        )
    library = read_library(Path(documents)) if documents else None
    reader = Reader(Path(model), threads, engine)
    if library:
        log.info("%d documents, %d passages", len(library.documents), len(library.pieces))
    for asked in questions:
        pieces = library.find(asked, passages) if library else [Piece("", "", context)]
        asking = answers.ask(reader, asked, pieces)
        if asking.is_cut:
            most = reader.manifest.max_question
            log.warning("only the first %d tokens of the question are read: %.60s", most, asked)
        logits = reader.logits(asking.windows, batch_tokens)
        found = asking.answers(logits, top_k, threshold)
        write = _json if format == "json" else _text
        sys.stdout.write(write(asked, found, pieces, library) + "\n")


def _valid(text: str) -> str:
    if not text.strip():
        raise InputError("A question is empty: write one.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"{text!a:.60} is not UTF-8: convert the question first.")
    return text.strip()


def _text(asked: str, found: list[Answer], pieces: list[Piece], library: Library | None) -> str:
    lines = [asked]
    for number, one in enumerate(found, 1):
        place = ", ".join(filter(None, one.piece[:2]))
        start, end = one.sentence
        before, after = one.piece.text[start : one.start], one.piece.text[one.end : end]
        bold = BOLD if sys.stdout.isatty() else ("", "")
        around = " ".join(f"{before}{bold[0]}{one.text}{bold[1]}{after}".split())
        said = f"{number}. {' '.join(one.text.split())}  (probability {one.probability:.2f}"
        lines += [f"{said}, score {one.score:.1f}{f'; {place}' if place else ''})", f"   {around}"]
    if not found:
        lines.append("None found.")
        if library and pieces:
            near = pieces[0]
            lines.append(f"The nearest passage: {', '.join(near[:2])}")
            lines.append(f"   {' '.join(near.text.split())}")
    return "\n".join(lines)


def _json(asked: str, found: list[Answer], pieces: list[Piece], library: Library | None) -> str:
    shown: dict[str, Any] = {"question": asked, "answers": [described(one) for one in found]}
    if not found and library and pieces:
        shown["nearest"] = pieces[0]._asdict()
    return json.dumps(shown, ensure_ascii=False)


def described(one: Answer) -> dict[str, Any]:
    """Return an answer as JSON has it."""
    start, end = one.sentence
    return {
        "text": one.text,
        "score": one.score,
        "probability": one.probability,
        "document": one.piece.document,
        "place": one.piece.place,
        "start": one.start,
        "end": one.end,
        "sentence": one.piece.text[start:end],
    }


if __name__ == "__main__":
    stage.run(main, section=False)
