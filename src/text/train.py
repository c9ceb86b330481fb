"""Fine-tune the transformer classifier with Hugging Face Trainer, from the probe on."""

import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from dvclive.live import Live
from transformers import EarlyStoppingCallback, set_seed

from src.core.command_line import Count, Interval, Natural, Seed, Threads, options
from src.core.errors import InputError
from src.core.files import replacing
from src.metrics.calibration import temperature
from src.tables import examples
from src.text import encoder
from src.text.encoder import Texts, Tokens
from src.text.trainer import figures_of, trainer_of
from src.training import launch, provenance
from src.training.checkpoints import ResumableTrainer, key_of
from src.training.recording import LiveCallback, keep_best
from src.training.shortcuts import CutVocabulary, replace_dropout, shorten

SPLITS = ("train.parquet", "validation.parquet", "labels.json")
PACKAGES = (
    *("torch", "transformers", "accelerate", "tokenizers"),
    *("scikit-learn", "scipy", "numpy"),
)
SETTINGS = ("precision", "processes", "threads", "seed")

log = logging.getLogger("src.text.train")


def main(
    splits: Path,
    probe: Path,
    model: Path,
    live: Path,
    *,
    lr: Annotated[float, Interval(gt=0, lt=1)],
    epochs: Count,
    batch_size: Count,
    gradient_accumulation_steps: Count,
    activation_checkpointing: bool,
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"],
    warmup_ratio: Annotated[float, Interval(ge=0, lt=1)],
    weight_decay: Annotated[float, Interval(ge=0, lt=1)],
    max_grad_norm: Annotated[float, Interval(gt=0)],
    label_smoothing: Annotated[float, Interval(ge=0, lt=1)],
    class_weight: Literal["none", "balanced"],
    precision: Literal["no", "bf16", "fp16"],
    shortcuts: bool,
    metric_for_best_model: Literal["accuracy", "macro_f1", "weighted_f1", "log_loss", "ece"],
    early_stopping_patience: Natural,
    logging_steps: Count,
    save_steps: Natural,
    processes: Count,
    threads: Threads,
    seed: Seed,
) -> None:
    """Train on the train split, and keep the epoch or the probe, what validation says is best.

    Args:
        splits: the folder with ``train.parquet``, ``validation.parquet`` and ``labels.json``.
        probe: the folder of the model to start from.
        model: the folder that gets weights, config and tokenizer.
        live: the folder that gets loss and lr by step and validation metrics by epoch.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    refuse(params)
    shared = launch.shared_folder()
    checkpoints = shared or _checkpoints(splits, probe, model, params)
    if launch.is_needed(processes):
        with replacing(model) as folder:
            words = [*map(str, (splits, probe, folder, live)), *options()]
            launch.launch("src.text.train", processes, words, checkpoints)
    else:
        _train(splits, probe, model, live, checkpoints, params)
    if not shared:
        settings = {name: params[name] for name in SETTINGS}
        provenance.record(model, *PACKAGES, params=params, **settings)
        shutil.rmtree(checkpoints)


def refuse(params: Mapping[str, Any]) -> None:
    """Raise an ``InputError`` if these params can't train here."""
    if params["precision"] == "fp16" and not torch.cuda.is_available():
        raise InputError(
            "train.precision is 'fp16', which needs a GPU, and none is found: use 'bf16' or 'no'."
        )
    world = launch.world(params["processes"])
    if params["batch_size"] % world:
        raise InputError(
            f"train.batch_size is {params['batch_size']}: expected a multiple of the {world} "
            "processes that share it; change it or train.processes."
        )


def _checkpoints(splits: Path, probe: Path, model: Path, params: Mapping[str, Any]) -> Path:
    """Name the folder of the checkpoints by all that decides the result."""
    code = Path(__file__)  # a process of its own has no module of that name
    started = [splits / name for name in SPLITS if (splits / name).exists()]
    started += sorted(path for path in probe.rglob("*") if path.is_file())
    machines = {"machines": os.environ.get("PET_NNODES", "1")}
    key = key_of({**params, **machines}, [code, *started])
    return model.parent / ".checkpoints" / key


def _train(
    splits: Path, probe: Path, model: Path, live: Path, checkpoints: Path, params: Mapping[str, Any]
) -> None:
    """Train in this process, which saves the model if it is the first."""
    first = launch.is_first()
    if not first:
        logging.getLogger("src").setLevel(logging.CRITICAL)  # the first speaks for all
    torch.set_num_threads(params["threads"])
    set_seed(params["seed"])
    classifier, tokenizer = encoder.load(str(probe), new_head=False)
    labels = examples.read_labels(splits)
    examples.expect_labels(probe, encoder.labels_of(classifier), labels)
    train, validation = (
        Texts.read(splits / name, tokenizer, labels, classifier.config.max_characters)
        for name in SPLITS[:2]
    )
    cut = take_shortcuts(classifier, tokenizer, train, validation) if params["shortcuts"] else None

    # The parent of several processes has made the folder's place, and will move it.
    place: AbstractContextManager[Path] = (
        nullcontext(model) if launch.shared_folder() else replacing(model)
    )
    recording: AbstractContextManager[Live | None] = (
        Live(str(live), dvcyaml=False, save_dvc_exp=False) if first else nullcontext()
    )
    with place as folder, recording as record:
        trainer = trainer_of(
            classifier, tokenizer, train, validation.by_length(), params, checkpoints
        )
        if record:
            trainer.add_callback(LiveCallback(record))
        if patience := params["early_stopping_patience"]:
            trainer.add_callback(EarlyStoppingCallback(patience))
        seconds = trainer.resume().metrics["train_runtime"]
        log.info("%d steps; those of this run took %.1f s", trainer.state.global_step, seconds)
        step, figures = trainer.best()
        last = params["epochs"] * trainer.epoch_steps()  # unless it is stopped early
        if step == last:
            log.warning("the last epoch was the best: with more train.epochs it may get better")
        if step:
            figures = _calibrate(classifier, trainer, train.ids[0])
        else:
            log.warning("no epoch was better than the probe, whose weights are kept")
        if cut:
            cut.restore()
        if record:
            keep_best(record, step, last, figures)
            if step:
                encoder.save(classifier, tokenizer, folder)
            else:
                shutil.copytree(probe, folder, copy_function=shutil.copyfile)


def take_shortcuts(classifier: Any, tokenizer: Any, *datasets: Texts) -> CutVocabulary | None:
    """Let the classifier learn the same with less work; the ids of the texts become others."""
    if not shorten(classifier):
        log.info("no shorter layers are known for %s", classifier.config.model_type)
    replace_dropout(classifier)
    if not CutVocabulary.suits(classifier, tokenizer.pad_token_id):
        log.info("the embeddings of %s are trained as a whole", classifier.config.model_type)
        return None
    every = np.concatenate([np.unique(np.concatenate(texts.ids)) for texts in datasets])
    vocabulary = CutVocabulary(classifier, every)
    for texts in datasets:
        texts.ids = [vocabulary.ids(row) for row in texts.ids]
    return vocabulary


def _calibrate(classifier: Any, trainer: ResumableTrainer, text: Tokens) -> dict[str, float]:
    """Let a temperature that fits the validation texts be part of the head.

    Returns:
        Trainer's figures of the validation texts.
    """
    texts: Any = trainer.eval_dataset
    found = trainer.predict(texts, metric_key_prefix="eval")
    labels, logits = np.asarray(found.label_ids), np.asarray(found.predictions, np.float64)
    head = encoder.head_of(classifier, text)
    if not head:
        log.warning("left uncalibrated: no layer of this architecture gives the logits alone")
        return figures_of(trainer, labels, logits)
    divisor = temperature(labels, logits)
    log.info("temperature: %.3f", divisor)
    encoder.divide(head, divisor)
    return figures_of(trainer, labels, logits / divisor)


if __name__ == "__main__":
    launch.run(main)
