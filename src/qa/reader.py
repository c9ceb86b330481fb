"""Train a reader, which points at answers in paragraphs, from a checkpoint on."""

from pathlib import Path
from typing import Annotated, Literal

from src.core import stage
from src.core.command_line import Count, Interval, Natural, Seed, Threads
from src.qa import training
from src.qa.learning import Objective
from src.qa.model import Reading
from src.qa.squad import Questions
from src.qa.training import Task
from src.training import pretrained


def main(
    sets: Path,
    reader: Path,
    live: Path,
    *,
    checkpoint: str,
    sha256: str,
    max_questions: Natural,
    select: Literal["drawn", "similar"],
    objective: Objective,
    negatives: Natural,
    max_length: Count,
    stride: Natural,
    max_question: Count,
    max_answer: Count,
    lr: Annotated[float, Interval(gt=0, lt=1)],
    epochs: Count,
    batch_size: Count,
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"],
    warmup_ratio: Annotated[float, Interval(ge=0, lt=1)],
    weight_decay: Annotated[float, Interval(ge=0, lt=1)],
    max_grad_norm: Annotated[float, Interval(gt=0)],
    dropout: Annotated[float, Interval(ge=0, lt=1)],
    precision: Literal["auto", "no", "bf16", "fp16"],
    shortcuts: bool,
    logging_steps: Count,
    save_steps: Natural,
    threads: Threads,
    seed: Seed,
) -> None:
    """Train on the train set, and keep the epoch that is best on the validation set.

    Args:
        sets: the folder with ``train.json``, ``validation.json`` and ``test.json``, whose
            paragraphs alone are looked at.
        reader: the folder that gets weights, config and tokenizer.
        live: the folder that gets loss and lr by step and validation metrics by epoch.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    place = pretrained.resolve(checkpoint, sha256, "reader")
    files = [sets / f"{name}.json" for name in ("train", "validation", "test")]
    train, validation, test = map(Questions.read, files)
    files += sorted(path for path in Path(place).rglob("*") if path.is_file())
    training.train(
        Task(
            place,
            Reading(max_length, stride, max_question, max_answer),
            *(objective, negatives),
            choose=True,
            files=files,
        ),
        training.drawn(train, max_questions, test if select == "similar" else None, seed),
        validation,
        *(reader, live, "reader", params),
    )


if __name__ == "__main__":
    stage.run(main)
