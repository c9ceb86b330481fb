"""Classify texts with an exported model folder: onnxruntime, tokenizers and numpy, nothing else.

    python -m src.predict models/shipped "I love this movie!" "..."
    python -m src.predict models/shipped --threads 2 < texts.txt

prints one JSON object a text: its label, the label's probability, and all probabilities. With
``--engine openvino`` the same folder runs on OpenVINO, with ``--engine cuda`` on a GPU; ``auto`` is
OpenVINO where it is installed and computes the model in bf16, and onnxruntime elsewhere. With
``--min_score 0.8`` a text whose highest probability is lower gets no label but a guess.

    python -m src.predict models/shipped --input texts.parquet --output predictions.parquet

adds the label and its probability to each row of a table; this takes pyarrow and
fsspec too.
"""

import itertools
import json
import sys
from collections.abc import Iterator
from inspect import signature
from pathlib import Path
from typing import Any, Literal

from src.core import stage
from src.core.command_line import Count, Threads
from src.core.errors import InputError
from src.predict.classifier import Classifier
from src.predict.engines import EngineOption
from src.predict.levels import MinScore, Threshold
from src.predict.reader.manifest import refuse
from src.tables.places import STANDARD, Place

LINES = 512  # lines of standard input that are sorted by length together


def main(
    model: Path,
    *texts: str,
    input: str = "",
    output: str = "-",
    format: Literal["auto", "csv", "tsv", "jsonl", "parquet"] = "auto",
    delimiter: str = ",",
    quote: str = '"',
    encoding: str = "utf-8",
    text_column: str = "text",
    probabilities: bool = False,
    prefix: str = "",
    rejected: str = "",
    excel_safe: bool = False,
    resume: bool = False,
    ray: str = "",
    min_score: MinScore = "model",
    threshold: Threshold = "model",
    engine: EngineOption = "auto",
    threads: Threads = 1,
    batch_tokens: Count = 1024,
) -> None:
    """Classify texts of the command line, lines of standard input, or with --input a table.

    Texts and lines become a line of JSON each. An empty text is classified like any other; put --
    before texts that begin with two dashes. Below --min_score, by default that of the model, a text
    gets no label, and its best guess stands beside it.

    --input and --output are files or URLs of csv, tsv, jsonl or parquet, compressed if they end in
    .gz, .bz2, .xz or .zst, or - for standard input and output, whose format --format names.
    --delimiter, --quote and --encoding are how an input of csv is written; output has commas and
    is UTF-8. The
    output has the columns of the input, label and score, with --probabilities one for each label,
    their names after --prefix. Rows that can't be scored go to --rejected, by default
    OUTPUT.rejected.csv. --excel_safe writes a ' before cells of csv that a spreadsheet would run.
    A model of tables reads the columns that it was trained on, and gives the label and the
    probability of the positive one; from --threshold on, by default that of the model, it is that.
    --resume continues an interrupted run. --ray scores on a Ray cluster: its address, auto
    for the one that this machine is part of, or local.
    """
    table = {
        "output": output,
        "format": format,
        "delimiter": delimiter,
        "quote": quote,
        "encoding": encoding,
        "text_column": text_column,
        "probabilities": probabilities,
        "prefix": prefix,
        "rejected": rejected,
        "excel_safe": excel_safe,
        "resume": resume,
        "ray": ray,
        "threshold": threshold,
    }
    if input:
        if texts:
            raise InputError(
                f"There are both texts, {texts[0]!r:.60}, and --input {input}: leave one out."
            )
        table |= {"input": input, "min_score": min_score}
        _predict_table(model, table, engine, threads, batch_tokens)
        return
    given = [
        name for name, value in table.items() if value != signature(main).parameters[name].default
    ]
    if given:
        raise InputError(f"--{given[0]} is for tables: add --input, or leave it out.")
    if len(texts) == 1 and Place(texts[0], "--input").format and Path(texts[0]).is_file():
        raise InputError(
            f"{texts[0]} is a file: pass --input {texts[0]} for its rows; a text that is called "
            "like a file can come from standard input."
        )
    refuse(model)
    classifier = Classifier(model, threads, engine, min_score)
    # At a terminal each line is answered at once.
    lines_at_once = 1 if sys.stdin.isatty() else LINES
    source = map(_valid, texts) if texts else _lines()
    while chunk := list(itertools.islice(source, lines_at_once)):
        for prediction in classifier.predict(chunk, batch_tokens):
            print(json.dumps(prediction, ensure_ascii=False), flush=lines_at_once == 1)


def _predict_table(
    model: Path, table: dict[str, Any], engine: EngineOption, threads: int, batch_tokens: int
) -> None:
    """Predict a table, by modules that texts can do without."""
    refuse(model)
    try:
        from src.predict.batch import Options, predict
        from src.predict.formats import Dialect
    except ImportError as error:
        raise InputError(
            f"--input needs packages that texts do without ({error}): `pip install pyarrow fsspec`."
        ) from None
    rejected = table["rejected"]
    if not rejected and table["output"] != STANDARD:
        rejected = f"{table['output']}.rejected.csv"
    places = {
        "input": Place(table["input"], "--input"),
        "output": Place(table["output"], "--output"),
        "rejected": Place(rejected, "--rejected") if rejected else None,
    }
    dialect = Dialect(*(table.pop(name) for name in ("delimiter", "quote", "encoding")))
    options = Options(**table | places, dialect=dialect)
    predict(model, options, engine, threads, batch_tokens)


def _valid(text: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise InputError(f"{text!a:.60} is not UTF-8: convert the text first.")
    return text


def _lines() -> Iterator[str]:
    for number, line in enumerate(sys.stdin.buffer, 1):
        try:
            yield line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(
                f"Standard input is not UTF-8, it has byte 0x{line[error.start]:02x} on line "
                f"{number}: convert the text first, for example with iconv."
            ) from None


if __name__ == "__main__":
    stage.run(main, section=False)
