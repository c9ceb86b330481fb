"""Hugging Face's Trainer as the params of ``train`` ask for it."""

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from transformers import EvalPrediction, PrinterCallback, ProgressCallback, TrainingArguments

from src.metrics import classification
from src.metrics.calibration import temperature
from src.text import encoder
from src.text.encoder import Texts
from src.text.pooling import MeanClassifier
from src.training import launch
from src.training.checkpoints import ResumableTrainer
from src.training.recording import Progress

HEAD_LR = 10.0  # times train.lr, of a head that starts from a probe


def trainer_of(
    classifier: Any,
    tokenizer: Any,
    train: Texts,
    validation: Texts | None,
    params: Mapping[str, Any],
    checkpoints: Path,
    **changes: Any,
) -> ResumableTrainer:
    """Build the Trainer that the params ask for.

    Args:
        classifier: the model, with shortcuts or without.
        tokenizer: its tokenizer, which is saved with it.
        train: the texts to learn from.
        validation: the texts that choose the epoch.
        params: the section ``train``.
        checkpoints: the folder that gets them.
        changes: arguments of Trainer that differ from what the params make of them.
    """
    trainer = ResumableTrainer(
        classifier,
        TrainingArguments(**_arguments(params, checkpoints) | changes),
        train_dataset=train,
        eval_dataset=validation,
        data_collator=partial(_collate, pad_token_id=tokenizer.pad_token_id),
        processing_class=tokenizer,
        compute_metrics=_scores,
        compute_loss_func=encoder.loss_of(
            train.labels, params["class_weight"], params["label_smoothing"]
        ),
        folder=checkpoints,
        save_steps=params["save_steps"],
    )
    if isinstance(classifier, MeanClassifier):
        _raise_lr(trainer, {*classifier.classifier.parameters()})
    # The log lines are ours, on stderr and in the file; only the progress bar is Trainer's.
    trainer.remove_callback(PrinterCallback)
    if trainer.pop_callback(ProgressCallback):
        trainer.add_callback(Progress)
    return trainer


def _raise_lr(trainer: ResumableTrainer, head: set[Any]) -> None:
    """Let the head learn ``HEAD_LR`` times as fast as the encoder."""
    optimizer: Any = trainer.create_optimizer()
    for group in list(optimizer.param_groups):
        moved = [weight for weight in group["params"] if weight in head]
        group["params"] = [weight for weight in group["params"] if weight not in head]
        optimizer.add_param_group({**group, "params": moved, "lr": HEAD_LR * group["lr"]})


def _arguments(params: Mapping[str, Any], checkpoints: Path) -> dict[str, Any]:
    world = launch.world(params["processes"])
    gpu = torch.cuda.is_available()
    metric = params["metric_for_best_model"]
    return {
        "output_dir": str(checkpoints / "saving"),
        "learning_rate": params["lr"],
        "num_train_epochs": params["epochs"],
        "per_device_train_batch_size": params["batch_size"] // world,
        "per_device_eval_batch_size": 2 * params["batch_size"] // world,
        "gradient_accumulation_steps": params["gradient_accumulation_steps"],
        "activation_checkpointing": params["activation_checkpointing"],
        "lr_scheduler_type": params["lr_scheduler_type"],
        "warmup_steps": params["warmup_ratio"],  # below 1, a share of all steps
        "weight_decay": params["weight_decay"],
        "max_grad_norm": params["max_grad_norm"],
        "bf16": params["precision"] == "bf16",
        "fp16": params["precision"] == "fp16",
        "use_cpu": not gpu,
        "ddp_backend": None if gpu or not launch.shared_folder() else "gloo",
        # Else each process draws an order of its own, and texts are missed.
        "accelerator_config": {"use_seedable_sampler": False},
        "train_sampling_strategy": "group_by_length",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "restore_callback_states_from_checkpoint": True,
        "save_on_each_node": True,
        "load_best_model_at_end": True,
        "metric_for_best_model": metric,
        "greater_is_better": metric not in ("log_loss", "ece"),
        "logging_steps": params["logging_steps"],
        "logging_first_step": True,  # short trainings have a curve too
        "disable_tqdm": not (launch.is_first() and sys.stderr.isatty()),
        "report_to": "none",
        "seed": params["seed"],
    }


def _collate(rows: list[dict[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    batch = encoder.collate([row["input_ids"] for row in rows], pad_token_id)
    return batch | {"labels": torch.tensor([row["labels"] for row in rows])}


def figures_of(
    trainer: Any, labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float64]
) -> dict[str, float]:
    """Return what Trainer says of validation texts of these labels and logits, [texts, classes]."""
    outputs = {"logits": torch.from_numpy(logits)}
    loss = float(trainer.compute_loss_func(outputs, torch.from_numpy(labels)))
    scores = classification.summary(labels, softmax(logits, axis=1))
    return {"eval_loss": loss} | {f"eval_{name}": value for name, value in scores.items()}


def _scores(prediction: EvalPrediction) -> dict[str, float]:
    """Judge an epoch by what it would be once it is calibrated, as what is kept will be."""
    labels = np.asarray(prediction.label_ids)
    logits = np.asarray(prediction.predictions, np.float64)
    return classification.summary(labels, softmax(logits / temperature(labels, logits), axis=1))
