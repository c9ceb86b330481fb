"""Adapt a reader to the target's documents, by one of four kinds of questions."""

from pathlib import Path
from typing import Annotated, Literal

from src.core import stage
from src.core.command_line import Count, Interval, Natural, Seed, Threads
from src.core.errors import InputError
from src.qa import training
from src.qa.learning import Objective
from src.qa.squad import Questions
from src.qa.training import Task

STRATEGIES = ("synthetic", "mixed", "source", "labelled")


def main(
    sets: Path,
    made: Path,
    reader: Path,
    model: Path,
    live: Path,
    *,
    max_questions: Natural,
    source_ratio: Annotated[float, Interval(gt=0)],
    objective: Objective,
    negatives: Natural,
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
    """Train on the questions that ``model`` is named after.

    ``synthetic`` are made ones, ``mixed`` these and questions of the source (SynNet's mix, Golub et
    al., 2017), ``source`` as many as both of the source alone, which is the control of what more
    training does by itself, and ``labelled`` those of people on the target, the upper bound.

    Args:
        sets: the folder with ``train.json``, ``validation.json`` and ``adapt.json``.
        made: the folder with ``questions.json``, those that were made.
        reader: the folder of the reader to go on from.
        model: the folder that gets the reader: synthetic, mixed, source or labelled.
        live: the folder that gets loss and lr by step and validation metrics by epoch.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    if model.name not in STRATEGIES:
        raise InputError(f"{model} is named after no strategy: {', '.join(STRATEGIES)}.")
    files = [sets / f"{name}.json" for name in ("train", "validation", "adapt")]
    files.append(made / "questions.json")
    train, validation, labelled, synthetic = map(Questions.read, files)
    files += sorted(path for path in reader.rglob("*") if path.is_file())
    synthetic = training.drawn(synthetic, max_questions, None, seed)
    beside = max(1, round(source_ratio * len(synthetic.questions)))
    match model.name:
        case "synthetic":
            questions = synthetic
        case "mixed":
            questions = synthetic.with_(training.drawn(train, beside, None, seed))
        case "source":
            as_many = len(synthetic.questions) + beside
            questions = training.drawn(train, as_many, None, seed)
        case _:
            questions = training.drawn(labelled, max_questions, None, seed)
    if not questions.questions:
        raise InputError(
            "No question of the target is set apart to adapt to: set ingest.adapt_size above 0."
        )
    training.train(
        Task(str(reader), None, objective, negatives, choose=False, files=files),
        questions,
        validation,
        *(model, live, "adapt", params),
    )


if __name__ == "__main__":
    stage.run(main)
