"""Fine-tune the transformer classifier with Hugging Face Trainer."""

import copy
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
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
from src.text.encoder import Texts
from src.text.pooling import MeanClassifier, Pooling, settle
from src.text.probe import fit_head
from src.text.trainer import trainer_of
from src.training import launch, pretrained, provenance
from src.training.checkpoints import ResumableTrainer, key_of
from src.training.onnx_export import refuse_unexportable
from src.training.recording import LiveCallback, keep_best
from src.training.shortcuts import CutVocabulary, replace_dropout, shorten

SPLITS = ("train.parquet", "validation.parquet", "labels.json")
PACKAGES = (
    *("torch", "transformers", "accelerate", "tokenizers"),
    *("scikit-learn", "scipy", "numpy"),
)
WAIT = {"first": 1800, "mean": 4 * 3600}  # seconds for the first process, which may fit a head
PRECISION = 0.03  # of the largest logit, above the error of bf16
SETTINGS = ("precision", "processes", "threads", "seed")

log = logging.getLogger("src.text.train")


def main(
    splits: Path,
    model: Path,
    live: Path,
    *,
    checkpoint: str,
    sha256: str,
    max_length: Annotated[int, Interval(ge=4)],
    max_characters: Count,
    pooling: Pooling,
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
    """Train on the train split and keep the epoch that is best on the validation split.

    Args:
        splits: the folder with ``train.parquet``, ``validation.parquet`` and ``labels.json``.
        model: the folder that gets weights, config and tokenizer.
        live: the folder that gets loss and lr by step and validation metrics by epoch.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    refuse(params)
    start = pretrained.resolve(checkpoint, sha256, "train")
    shared = launch.shared_folder()
    settled = params | {"pooling": settle(pooling, start)}
    checkpoints = shared or _checkpoints(splits, model, start, settled)
    if launch.is_needed(processes):
        with replacing(model) as folder:
            words = [str(splits), str(folder), str(live), *options()]
            words.append(f"--pooling={settled['pooling']}")  # the last one counts
            launch.launch("src.text.train", processes, words, checkpoints)
    else:
        _train(splits, model, live, start, checkpoints, settled)
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


def _checkpoints(splits: Path, model: Path, start: str, params: Mapping[str, Any]) -> Path:
    """Name the folder of the checkpoints by all that decides the result."""
    code = Path(__file__)  # a process of its own has no module of that name
    started = [splits / name for name in SPLITS if (splits / name).exists()]
    machines = {"machines": os.environ.get("PET_NNODES", "1")}
    key = key_of({**params, **machines}, [code, *started, *pretrained.files_of(start)])
    return model.parent / ".checkpoints" / key


def _train(
    splits: Path, model: Path, live: Path, start: str, checkpoints: Path, params: Mapping[str, Any]
) -> None:
    """Train in this process, which saves the model if it is the first."""
    first = launch.is_first()
    if not first:
        logging.getLogger("src").setLevel(logging.CRITICAL)  # the first speaks for all
    torch.set_num_threads(params["threads"])
    labels = examples.read_labels(splits)
    classifier, tokenizer = _start(start, labels, params)
    train, validation = (
        _texts(splits / name, tokenizer, labels, params["max_characters"]) for name in SPLITS[:2]
    )
    if first:
        few = train.ids[:2]
        refuse_unexportable(classifier, encoder.collate(few, tokenizer.pad_token_id))
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
            *(classifier, tokenizer, train, validation.by_length(), params, checkpoints),
            ddp_timeout=WAIT[classifier.config.pooling],
        )
        if record:
            trainer.add_callback(LiveCallback(record))
        if patience := params["early_stopping_patience"]:
            trainer.add_callback(EarlyStoppingCallback(patience))
        head = partial(fit_head, classifier, train, tokenizer.pad_token_id, params["class_weight"])
        begin = head if first and isinstance(classifier, MeanClassifier) else None
        seconds = trainer.resume(begin).metrics["train_runtime"]
        log.info("%d steps, the last of them in %.1f s", trainer.state.global_step, seconds)
        figures = _calibrate(classifier, trainer)
        if cut:
            cut.restore()
        if record:
            keep_best(record, trainer.state, figures)
            _save(classifier, tokenizer, folder)


def _start(place: str, labels: list[str], params: Mapping[str, Any]) -> tuple[Any, Any]:
    set_seed(params["seed"])  # before the classification head gets its random weights
    classifier, tokenizer = encoder.load(
        place,
        new_head=True,
        pooling=params["pooling"],
        problem_type=None,  # of a head for something else; other tools would score by it
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: k for k, label in enumerate(labels)},
    )
    classifier.config.max_characters = params["max_characters"]
    readable = encoder.readable(classifier, tokenizer)
    if params["max_length"] > readable:
        raise InputError(
            f"train.max_length is {params['max_length']}: {params['checkpoint']} reads at most "
            f"{readable} tokens; lower it or choose another checkpoint."
        )
    tokenizer.model_max_length = params["max_length"]
    return classifier, tokenizer


def _texts(path: Path, tokenizer: Any, labels: list[str], max_characters: int) -> Texts:
    frame = examples.read(path)
    length = tokenizer.model_max_length
    ids = encoder.tokenize(tokenizer, list(frame["text"]), length, max_characters)
    encoder.refuse_unknown(tokenizer, ids)
    return Texts(ids, examples.label_ids(frame, labels))


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


def _calibrate(classifier: Any, trainer: ResumableTrainer) -> Mapping[str, float]:
    """Let a temperature that fits the validation texts be part of the head.

    Returns:
        Trainer's figures of the validation texts.
    """
    texts: Any = trainer.eval_dataset
    found = trainer.predict(texts, metric_key_prefix="eval")
    labels, logits = np.asarray(found.label_ids), np.asarray(found.predictions, np.float64)
    divisor = temperature(labels, logits)
    log.info("temperature: %.3f", divisor)
    before = copy.deepcopy(classifier.state_dict())
    encoder.divide_logits(classifier, divisor)
    figures = trainer.predict(texts, metric_key_prefix="eval")
    off = np.abs(np.asarray(figures.predictions) * divisor - logits).max()
    if off > PRECISION * np.abs(logits).max():
        classifier.load_state_dict(before)
        log.warning("left uncalibrated: no layer of this architecture gives the logits alone")
        figures = found
    return figures.metrics or {}


def _save(classifier: Any, tokenizer: Any, folder: Path) -> None:
    classifier.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.rglob("*.*"):
        file.chmod(0o644)  # the weights come with 0600, which no colleague could read


if __name__ == "__main__":
    launch.run(main)
