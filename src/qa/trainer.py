"""Hugging Face's Trainer as the params of a reader ask for it."""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, TrainingArguments

from src.qa import learning
from src.qa.learning import Group, Groups
from src.qa.model import TorchReader, precision_of
from src.training.checkpoints import ResumableTrainer
from src.training.recording import Progress


class ReaderTrainer(ResumableTrainer):
    """A trainer that judges a reader by the answers that it gives, after each epoch.

    Args:
        judge: returns the figures of the validation questions, as the reader is now.
    """

    def __init__(self, *args: Any, judge: Callable[[], dict[str, float]], **words: Any) -> None:
        """Wrap the trainer."""
        super().__init__(*args, **words)
        self._judge = judge

    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Judge the validation questions; a new head has nothing to be judged yet."""
        figures = {f"{metric_key_prefix}_{name}": value for name, value in self._judge().items()}
        self.log(figures)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, figures
        )
        return figures

    def latest(self) -> dict[str, float]:
        """Return the figures that were found last."""
        found = (entry for entry in reversed(self.state.log_history) if "eval_token_f1" in entry)
        return dict(next(found))


def trainer_of(
    reader: TorchReader,
    groups: Sequence[Group],
    judge: Callable[[], dict[str, float]],
    params: Mapping[str, Any],
    checkpoints: Path,
    **changes: Any,
) -> ReaderTrainer:
    """Build the trainer that the params ask for.

    Args:
        reader: with shortcuts or without.
        groups: to learn from.
        judge: as of ``ReaderTrainer``.
        params: the section of the stage.
        checkpoints: the folder that gets them.
        changes: arguments of Trainer that differ from what the params make of them.
    """
    trainer = ReaderTrainer(
        reader.model,
        TrainingArguments(**_arguments(params, checkpoints) | changes),
        train_dataset=Groups(groups),
        eval_dataset=Groups(groups[:1]),  # Trainer wants one; ``evaluate`` has its own
        data_collator=partial(learning.collate, pad=reader.pad, has_types=reader.has_types),
        processing_class=reader.tokenizer,
        compute_loss_func=lambda outputs, labels, **_: learning.loss(outputs, labels),
        folder=checkpoints,
        save_steps=params["save_steps"],
        judge=judge,
    )
    # The log lines are ours, on stderr and in the file; only the progress bar is Trainer's.
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback):
        trainer.add_callback(Progress)
    return trainer


def _arguments(params: Mapping[str, Any], checkpoints: Path) -> dict[str, Any]:
    precision = precision_of(params["precision"])
    return {
        "output_dir": str(checkpoints / "saving"),
        "learning_rate": params["lr"],
        "num_train_epochs": params["epochs"],
        "per_device_train_batch_size": params["batch_size"],
        "lr_scheduler_type": params["lr_scheduler_type"],
        "warmup_steps": params["warmup_ratio"],  # below 1, a share of all steps
        "weight_decay": params["weight_decay"],
        "max_grad_norm": params["max_grad_norm"],
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "use_cpu": not torch.cuda.is_available(),
        "train_sampling_strategy": "group_by_length",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "restore_callback_states_from_checkpoint": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": "token_f1",
        "greater_is_better": True,
        "logging_steps": params["logging_steps"],
        "logging_first_step": True,  # short trainings have a curve too
        "disable_tqdm": not sys.stderr.isatty(),
        "report_to": "none",
        "seed": params["seed"],
        "remove_unused_columns": False,
    }
