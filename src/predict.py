"""Classify texts with an exported model folder: onnxruntime, tokenizers and numpy, nothing else.

    python -m src.predict models/onnx "I love this movie!" "..."
    python -m src.predict models/onnx --threads 2 < texts.txt

prints one JSON object a text: its label, the label's probability, and all probabilities. With
``--engine openvino`` the same folder runs on OpenVINO, with ``--engine cuda`` on a GPU.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from src import stage
from src.classifier import Classifier, Engine
from src.stage import Count, InputError, Threads

LINES = 512  # lines of standard input that are sorted by length together


def main(
    model: Path,
    *texts: str,
    engine: Engine = "onnxruntime",
    threads: Threads = 1,
    batch_tokens: Count = 1024,
) -> None:
    """Print a JSON line for each text of the command line, or for each line of standard input.

    An empty text is classified like any other; put -- before texts that begin with two dashes.
    """
    classifier = Classifier(model, threads, engine)
    # At a terminal each line is answered at once.
    lines_at_once = 1 if sys.stdin.isatty() else LINES
    source = map(_valid, texts) if texts else _lines()
    while chunk := list(itertools.islice(source, lines_at_once)):
        for prediction in classifier.predict(chunk, batch_tokens):
            print(json.dumps(prediction, ensure_ascii=False), flush=lines_at_once == 1)


def _valid(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"Expected UTF-8 text, found {text!a:.60}: convert the text first.")
    return text


def _lines() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(
                f"Expected UTF-8 on standard input, found byte 0x{line[error.start]:02x} on line "
                f"{number}: convert the text first, for example with iconv."
            ) from None


if __name__ == "__main__":
    stage.run(main, section=False)
