"""Train a reader on questions, from a checkpoint or from another reader on."""

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dvclive.live import Live
from torch import nn
from transformers import set_seed

from src.core.errors import InputError
from src.core.files import replacing
from src.metrics import spans as scores
from src.predict.reader.index import Index
from src.predict.reader.reading import Asked
from src.qa import attention, learning, model
from src.qa.learning import Group, Objective
from src.qa.model import Reading, TorchReader, precision_of
from src.qa.squad import Question, Questions
from src.qa.trainer import ReaderTrainer, trainer_of
from src.training import provenance
from src.training.checkpoints import key_of
from src.training.recording import LiveCallback, keep_best
from src.training.shortcuts import CutVocabulary, replace_dropout

PACKAGES = ("torch", "transformers", "accelerate", "tokenizers", "bm25s", "numpy")
SETTINGS = ("precision", "threads", "seed")
JUDGED = 400  # validation questions that an epoch is judged by, evenly over all
BATCH_TOKENS = 4096  # of windows that are judged at once, padding included

log = logging.getLogger("src.qa.training")


@dataclass(frozen=True)
class Task:
    """What is to be learnt, and from where.

    Attributes:
        start: a checkpoint, or the folder of a reader.
        reading: how a checkpoint is to read; None for a reader, which says so itself.
        objective: of the training.
        negatives: paragraphs without the answer that are read beside each question's own.
        choose: whether the epoch that is best on the validation questions is kept, not the last.
        files: those that decide the result beside the code.
    """

    start: str
    reading: Reading | None
    objective: Objective
    negatives: int
    choose: bool
    files: Sequence[Path]


def refuse(params: Mapping[str, Any], section: str) -> None:
    """Raise an ``InputError`` if these params can't train here."""
    if params["precision"] == "fp16" and not torch.cuda.is_available():
        raise InputError(
            f"{section}.precision is 'fp16', which needs a GPU, and none is found: use auto, bf16 "
            "or no."
        )


def drawn(questions: Questions, most: int, like: Questions | None, seed: int) -> Questions:
    """Return at most ``most`` questions, with their paragraphs; 0 for all.

    Args:
        questions: to draw from.
        most: how many.
        like: those of the paragraphs are taken whose documents fit the ones of this set best, as
            BM25 has it; None draws at random.
        seed: of the draw.
    """
    if not most or most >= len(questions.questions):
        return questions
    if like is None:
        order = np.random.default_rng(seed).permutation(len(questions.questions))
        chosen = [questions.questions[k] for k in sorted(order[:most])]
    else:
        chosen = _similar(questions, like, most)
    return Questions(questions.paragraphs, chosen)


def _similar(questions: Questions, like: Questions, most: int) -> list[Question]:
    """Choose the questions of the documents that fit those of another set best."""
    names = questions.documents()
    texts = dict.fromkeys(names, "")
    for one in questions.paragraphs:
        texts[one.document] += f" {one.text}"
    index = Index([texts[name] for name in names])
    fit = sum(index.scores(text) / max(1, len(text)) for text in like.texts)
    rank = {names[row]: place for place, row in enumerate(np.argsort(-fit, kind="stable"))}
    ordered = sorted(
        range(len(questions.questions)),
        key=lambda k: (rank[questions.paragraphs[questions.questions[k].paragraph].document], k),
    )
    return [questions.questions[k] for k in sorted(ordered[:most])]


def train(
    task: Task,
    questions: Questions,
    validation: Questions,
    model_folder: Path,
    live: Path,
    section: str,
    params: Mapping[str, Any],
) -> None:
    """Train, and write the folder of the reader, its record, and loss and figures by step.

    Args:
        task: what is learnt, and from where.
        questions: to learn from.
        validation: to judge each epoch by.
        model_folder: the folder that gets the reader.
        live: the folder that gets ``metrics.json`` and plots.
        section: the name of the params.
        params: those of the stage, with what ``trainer`` needs.
    """
    refuse(params, section)
    named = {**params, "task": str(task), "precision": precision_of(params["precision"])}
    key = key_of(named, [*task.files, Path(__file__)])
    checkpoints = model_folder.parent / ".checkpoints" / key
    torch.set_num_threads(params["threads"])
    set_seed(params["seed"])
    reader = model.load(task.start, task.reading)
    groups = learning.groups(questions, reader.pairs, task.objective, task.negatives)
    if not groups:
        raise InputError(
            "No answer lies within a window that the reader reads: raise reader.max_length."
        )
    half = replace(reader, half=precision_of(params["precision"]) == "bf16")
    log.info(
        "%d questions become %d windows in %d groups, learnt in %s",
        *(len(questions.questions), sum(len(group.targets) for group in groups), len(groups)),
        precision_of(params["precision"]),
    )
    judged = _spread(validation)
    set_dropout(reader, params["dropout"])
    restore = take_shortcuts(reader, groups, judged) if params["shortcuts"] else None
    with (
        replacing(model_folder) as folder,
        Live(str(live), dvcyaml=False, save_dvc_exp=False) as record,
    ):
        last_one = {} if task.choose else {"load_best_model_at_end": False}
        trainer = trainer_of(
            reader,
            groups,
            lambda: {} if _is_new(task, trainer) else _judged(half, judged),
            params,
            checkpoints,
            **last_one,
        )
        trainer.add_callback(LiveCallback(record))
        seconds = trainer.resume().metrics["train_runtime"]
        log.info("%d steps; those of this run took %.1f s", trainer.state.global_step, seconds)
        last = params["epochs"] * trainer.epoch_steps()
        step, figures = trainer.best() if task.choose else (last, trainer.latest())
        if task.choose and step == last:
            log.info("the last epoch was the best: with more %s.epochs it may get better", section)
        if restore:
            restore()
        keep_best(record, step, last, figures)
        reader.save(folder)
    settings = {name: params[name] for name in SETTINGS}
    provenance.record(model_folder, *PACKAGES, params=params, **settings)
    shutil.rmtree(checkpoints)


def _is_new(task: Task, trainer: ReaderTrainer) -> bool:
    """Tell whether nothing has been learnt yet, of which there is nothing to be judged."""
    return task.reading is not None and trainer.state.global_step == 0


def _spread(validation: Questions) -> Questions:
    step = max(1, len(validation.questions) // JUDGED)
    return Questions(validation.paragraphs, validation.questions[::step][:JUDGED])


def set_dropout(reader: TorchReader, share: float) -> None:
    """Let training zero this share of activations."""
    for part in reader.model.modules():
        if isinstance(part, nn.Dropout):
            part.p = share


def take_shortcuts(
    reader: TorchReader, groups: Sequence[Group], judged: Questions
) -> Callable[[], None]:
    """Let a reader learn the same with less work.

    Returns:
        what makes it whole again.
    """
    learner = reader.model
    if not attention.shorten(learner):
        log.info("no shorter layers are known for %s", learner.config.model_type)
    replace_dropout(learner)
    if not CutVocabulary.suits(learner, reader.pad):
        log.info("the embeddings of %s are trained as a whole", learner.config.model_type)
        return lambda: None
    embeddings = learner.get_input_embeddings()
    windows = [target.window.ids for group in groups for target in group.targets]
    tokens = [one.ids for one in reader.pairs.texts([*judged.texts, *map(_text, judged.questions)])]
    whole = np.arange(embeddings.num_embeddings, dtype=np.int32)
    vocabulary = CutVocabulary(learner, np.unique(np.concatenate([*windows, *tokens])))
    # Whoever reads gives the ids of the whole table.
    rows = torch.from_numpy(vocabulary.ids(whole)).long()
    hook = embeddings.register_forward_pre_hook(
        lambda _, given: (rows.to(given[0].device)[given[0]],)
    )

    def restore() -> None:
        hook.remove()
        vocabulary.restore()

    return restore


def _text(question: Question) -> str:
    return question.text


def _judged(reader: TorchReader, questions: Questions) -> dict[str, float]:
    """Return how many answers are right when each question has its paragraph."""
    asked = [Asked(one.text, one.paragraph) for one in questions.questions]
    found = reader.spans(questions.texts, asked, 1, BATCH_TOKENS)
    unit = scores.unit_of(questions.texts)
    totals = np.zeros(2)
    for one, spans in zip(questions.questions, found, strict=True):
        text = questions.paragraphs[one.paragraph].text
        answer = text[spans[0].start : spans[0].end] if spans else ""
        totals += (
            scores.exact_match(answer, one.references, unit),
            scores.f1(answer, one.references, unit),
        )
    exact_match, f1 = totals / max(1, len(questions.questions))
    return {"exact_match": float(exact_match), "token_f1": float(f1)}
