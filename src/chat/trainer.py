"""TRL's trainer as the params of a training ask for it, and one that resumes."""

import math
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, ProgressCallback
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from src.chat import scoring
from src.chat.optimizer import Doubled
from src.chat.rendering import Row
from src.training import launch
from src.training.checkpoints import ResumableTrainer
from src.training.recording import Progress


class Tuner(ResumableTrainer, SFTTrainer):
    """An SFTTrainer whose head computes the learnt tokens alone, and which resumes.

    Args:
        watched: the rows that an epoch is judged by, by the log-probability of a learnt token.
        batch_tokens: of those that are judged at once, padding included.
        words: further arguments of ``ResumableTrainer`` and of SFTTrainer.
    """

    def __init__(self, *args: Any, watched: Sequence[Row], batch_tokens: int, **words: Any) -> None:
        """Wrap both trainers."""
        super().__init__(*args, **words)
        self._watched = watched
        self._batch_tokens = batch_tokens

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Return the cross-entropy of learnt tokens, divided by those of the whole step."""
        logits, tokens = scoring.logits(model, inputs)
        total: torch.Tensor = scoring.CrossEntropy.apply(logits, tokens)  # type: ignore[no-untyped-call]
        if num_items_in_batch is None:
            return total / max(1, len(tokens))
        # Processes sum up their gradients and divide them by their number.
        return total / num_items_in_batch * self.accelerator.num_processes

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Judge the weights by all learnt tokens of the watched rows, each weighing the same.

        Every process does the same: what is watched is small.
        """
        started = time.time()
        model: Any = self.model
        was_training = model.training
        model.eval()
        with self.compute_loss_context_manager():
            found = scoring.log_probabilities(
                self.model_wrapped,
                self._watched,
                self._tokenizer.pad_token_id,
                self._batch_tokens,
            )
        model.train(was_training)
        loss = -float(torch.cat(found).double().mean())
        figures = {"eval_loss": loss, "eval_perplexity": math.exp(min(loss, 700.0))}
        self.log(figures | {"eval_runtime": time.time() - started})
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, figures
        )
        return figures

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: the stage ``card`` knows more."""

    def _send_telemetry(self) -> None:
        """Tell nobody that a model is trained here."""


def trainer_of(
    model: Any,
    tokenizer: Any,
    train: Sequence[Row],
    watched: Sequence[Row],
    params: Mapping[str, Any],
    checkpoints: Path,
    **changes: Any,
) -> Tuner:
    """Build the trainer that the params ask for.

    Args:
        model: with what an adapter adds to it.
        tokenizer: its tokenizer.
        train: the rows to learn from.
        watched: the rows that choose the epoch.
        params: the section of the method.
        checkpoints: the folder that gets them.
        changes: arguments of SFTConfig that differ from what the params make of them.
    """
    with warnings.catch_warnings(action="ignore"):  # of what TRL does that transformers drops
        # A model in 16 bits computes in them by itself, and so do plain adapters beside it.
        alone = model.dtype == torch.bfloat16 and not torch.cuda.is_available()
        alone &= not (params.get("dropout") or params.get("use_dora"))
        arguments = SFTConfig(**_arguments(params, checkpoints, autocast=not alone) | changes)
        how = SFTTrainer.get_optimizer_cls_and_kwargs(arguments)[1]
        learn = [weight for weight in model.parameters() if weight.requires_grad]
        doubled = (Doubled, how) if any(weight.itemsize == 2 for weight in learn) else None
        trainer = Tuner(
            model=model,
            args=arguments,
            train_dataset=_dataset(train),
            eval_dataset=_dataset(watched),
            processing_class=tokenizer,
            folder=checkpoints,
            save_steps=params["save_steps"],
            watched=watched,
            batch_tokens=arguments.per_device_train_batch_size * params["max_length"],
            optimizer_cls_and_kwargs=doubled,
        )
    # The log lines are ours, on stderr and in the file; only the progress bar is Trainer's.
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback):
        trainer.add_callback(Progress)
    return trainer


def _dataset(rows: Sequence[Row]) -> Dataset:
    ids, labels = ([row.ids for row in rows], [scoring.labels_of(row) for row in rows])
    return Dataset.from_dict({"input_ids": ids, "labels": labels})


def _arguments(params: Mapping[str, Any], checkpoints: Path, autocast: bool) -> dict[str, Any]:
    gpu = torch.cuda.is_available()
    packing = params.get("packing", False)
    return {
        "output_dir": str(checkpoints / "saving"),
        "learning_rate": params["lr"],
        "num_train_epochs": params["epochs"],
        "per_device_train_batch_size": params["batch_size"] // launch.world(params["processes"]),
        "gradient_accumulation_steps": params["gradient_accumulation_steps"],
        "gradient_checkpointing": params.get("activation_checkpointing", False),
        "lr_scheduler_type": params["lr_scheduler_type"],
        "warmup_steps": params["warmup_ratio"],  # below 1, a share of all steps
        "weight_decay": params["weight_decay"],
        "max_grad_norm": params["max_grad_norm"],
        "max_length": params["max_length"] if packing else None,  # the rows are cut already
        "packing": packing,
        "eval_packing": False,
        "dataset_kwargs": {"skip_prepare_dataset": not packing},
        "bf16": params["precision"] == "bf16" and autocast,
        "fp16": params["precision"] == "fp16",
        "use_cpu": not gpu,
        "ddp_backend": None if gpu or not launch.shared_folder() else "gloo",
        "ddp_find_unused_parameters": False,
        # Else each process draws an order of its own, and rows are missed.
        "accelerator_config": {"use_seedable_sampler": False},
        "train_sampling_strategy": "group_by_length",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "restore_callback_states_from_checkpoint": True,
        "save_on_each_node": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "greater_is_better": False,
        "logging_steps": params["logging_steps"],
        "logging_first_step": True,  # short trainings have a curve too
        "disable_tqdm": not (launch.is_first() and sys.stderr.isatty()),
        "report_to": "none",
        "seed": params["seed"],
    }
