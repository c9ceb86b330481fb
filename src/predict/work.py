"""The model of a folder as what scores tables, whatever it reads."""

from pathlib import Path
from typing import Literal

from src.core.errors import InputError
from src.predict.classifier import Classifier
from src.predict.engines import EngineOption
from src.predict.manifest import (
    kind_of,
)
from src.predict.records import Records
from src.predict.scoring import Work
from src.predict.texts import Texts


def load(
    folder: Path,
    threads: int,
    engine: EngineOption,
    batch_tokens: int,
    text_column: str = "text",
    min_score: float | Literal["model"] = "model",
    threshold: float | Literal["model"] = "model",
) -> Work:
    """Load a model of texts or of tables.

    Args:
        folder: what an export stage wrote.
        threads: how many CPU threads a batch is computed on.
        engine: what computes.
        batch_tokens: the tokens of texts that are scored together, padding included.
        text_column: the column of the texts.
        min_score: the least probability with which a model of texts gives a label.
        threshold: the least probability of the positive label for a model of tables to give it.

    Raises:
        InputError: the folder can't be used, or an option is of the other kind of model.
    """
    if kind_of(folder) == "text":
        if threshold != "model":
            raise InputError(
                f"--threshold is for models of tables, and {folder} is one of texts: use "
                "--min_score, or leave it out."
            )
        return Texts(
            Classifier(folder, threads, engine, min_score), threads, batch_tokens, text_column
        )
    if min_score != "model":
        raise InputError(
            f"--min_score is for models of texts, and {folder} is one of tables: use --threshold, "
            "or leave it out."
        )
    return Records(folder, threads, engine, threshold)
