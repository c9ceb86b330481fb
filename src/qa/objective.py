"""Go on training a reader by one of the objectives, which tell whether an answer is there."""

from pathlib import Path
from typing import Annotated, Literal

from src.core import stage
from src.core.command_line import Count, Interval, Natural, Seed, Threads
from src.core.errors import InputError
from src.qa import training
from src.qa.learning import OBJECTIVES
from src.qa.squad import Questions
from src.qa.training import Task


def main(
    sets: Path,
    reader: Path,
    model: Path,
    live: Path,
    *,
    max_questions: Natural,
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
    """Train on questions of the train set by the objective that ``model`` is named after.

    Args:
        sets: the folder with ``train.json`` and ``validation.json``.
        reader: the folder of the reader to go on from.
        model: the folder that gets the reader: paragraph, no_answer or shared.
        live: the folder that gets loss and lr by step and validation metrics by epoch.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    if model.name not in OBJECTIVES:
        raise InputError(f"{model} is named after no objective: {', '.join(OBJECTIVES)}.")
    objective = next(one for one in OBJECTIVES if one == model.name)
    files = [sets / f"{name}.json" for name in ("train", "validation")]
    train, validation = map(Questions.read, files)
    files += sorted(path for path in reader.rglob("*") if path.is_file())
    # As many windows are read for each objective: for one without negatives, further questions.
    most = max_questions * (1 + negatives) if objective == "paragraph" else max_questions
    training.train(
        Task(str(reader), None, objective, negatives, choose=False, files=files),
        training.drawn(train, most, None, seed),
        validation,
        *(model, live, "objective", params),
    )


if __name__ == "__main__":
    stage.run(main)
