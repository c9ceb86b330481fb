"""Train what proposes answers: a reader that is asked nothing learns what people ask about."""

from pathlib import Path
from typing import Annotated, Literal

from src.core import stage
from src.core.command_line import Count, Interval, Natural, Seed, Threads
from src.qa import training
from src.qa.squad import Answer, Question, Questions
from src.qa.training import Task


def main(
    sets: Path,
    reader: Path,
    model: Path,
    live: Path,
    *,
    max_paragraphs: Natural,
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
    """Train on the paragraphs of the train set, whose answers are all right.

    Args:
        sets: the folder with ``train.json`` and ``validation.json``.
        reader: the folder of the reader to go on from.
        model: the folder that gets the reader.
        live: the folder that gets loss and lr by step and validation metrics by epoch.

    Source: Alberti et al., Synthetic QA Corpora Generation with Roundtrip Consistency, 2019.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    files = [sets / f"{name}.json" for name in ("train", "validation")]
    train, validation = (unasked(Questions.read(file)) for file in files)
    files += sorted(path for path in reader.rglob("*") if path.is_file())
    training.train(
        Task(str(reader), None, "paragraph", 0, choose=False, files=files),
        training.drawn(train, max_paragraphs, None, seed),
        validation,
        *(model, live, "answers", params),
    )


def unasked(questions: Questions) -> Questions:
    """Return an empty question for each paragraph, to which all answers in it are right."""
    answers: dict[int, list[Answer]] = {}
    for one in questions.questions:
        answers.setdefault(one.paragraph, []).extend(one.answers)
    empty = [Question(str(row), "", row, tuple(of)) for row, of in answers.items() if of]
    return Questions(questions.paragraphs, empty)


if __name__ == "__main__":
    stage.run(main)
