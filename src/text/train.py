"""Fine-tune the transformer classifier with Hugging Face Trainer."""

import errno
import logging
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from dvclive.live import Live
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    ProgressCallback,
    TrainingArguments,
    set_seed,
)

from src.core import stage
from src.core.command_line import Count, Interval, Seed, Threads, options
from src.core.errors import InputError
from src.core.files import replacing
from src.core.stage import tells_of_a_full_disk
from src.metrics import classification
from src.metrics.classification import Integers
from src.tables import examples
from src.text import encoder
from src.text.encoder import Tokens
from src.training import provenance
from src.training.checkpoints import ResumableTrainer, key_of
from src.training.recording import LiveCallback, Progress, keep_best
from src.training.shortcuts import CutVocabulary, replace_dropout, shorten

Natural = Annotated[int, Interval(ge=0)]

LAUNCHED = "PEDIGREE_LAUNCHED"  # for the processes that share a training: where checkpoints are

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
    settings = {name: params[name] for name in ("precision", "processes", "threads", "seed")}
    packages = ("torch", "transformers", "accelerate", "tokenizers", "numpy")
    if precision == "fp16" and not torch.cuda.is_available():
        raise InputError(
            "train.precision is 'fp16', which needs a GPU, and none is found: use 'bf16' or 'no'."
        )
    launched = LAUNCHED in os.environ
    if "WORLD_SIZE" in os.environ and not launched:
        raise InputError(
            "Expected to start processes myself, found WORLD_SIZE set as torchrun does: unset it, "
            "and set train.processes, or PET_NNODES for several machines."
        )
    world = int(os.environ.get("WORLD_SIZE", processes))
    if batch_size % world:
        raise InputError(
            f"train.batch_size is {batch_size}: expected a multiple of the {world} processes that "
            "share it; change it or train.processes."
        )
    start = encoder.resolve(checkpoint, sha256)
    names = ("train.parquet", "validation.parquet", "labels.json")
    started = [splits / name for name in names if (splits / name).exists()]
    if launched:
        checkpoints = Path(os.environ[LAUNCHED])
    else:
        machines = {"machines": os.environ.get("PET_NNODES", "1")}
        code = Path(__file__)  # which is no module of that name in a process of its own
        key = key_of(params | machines, [code, *started, *encoder.files_of(start)])
        checkpoints = model.parent / ".checkpoints" / key
    if not launched and (processes > 1 or "PET_NNODES" in os.environ):
        os.environ[LAUNCHED] = str(checkpoints.absolute())
        with replacing(model) as folder:
            _launch(processes, [str(splits), str(folder), str(live), *options()])
        provenance.record(model, *packages, **settings)
        shutil.rmtree(checkpoints)
        return
    first = int(os.environ.get("LOCAL_RANK", 0)) == 0  # of this machine: the one that writes
    if not first:
        logging.getLogger("src").setLevel(logging.CRITICAL)  # the first speaks for all
    torch.set_num_threads(threads)
    labels = examples.read_labels(splits)

    set_seed(seed)  # before the classification head gets its random weights
    classifier, tokenizer = encoder.from_pretrained(
        start,
        new_head=True,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: k for k, label in enumerate(labels)},
    )
    classifier.config.max_characters = max_characters
    readable = _readable(classifier, tokenizer)
    if max_length > readable:
        raise InputError(
            f"train.max_length is {max_length}: {checkpoint} reads at most {readable} tokens; "
            "lower it or choose another checkpoint."
        )
    tokenizer.model_max_length = max_length
    train, validation = (
        _texts(splits / name, tokenizer, labels, max_characters)
        for name in ("train.parquet", "validation.parquet")
    )
    vocabulary = _take_shortcuts(classifier, tokenizer, train, validation) if shortcuts else None

    # The parent of several processes has made the folder's place, and will move it.
    place: AbstractContextManager[Path] = nullcontext(model) if launched else replacing(model)
    recording: AbstractContextManager[Live | None] = (
        Live(str(live), dvcyaml=False, save_dvc_exp=False) if first else nullcontext()
    )
    with place as folder, recording as record:
        trainer = ResumableTrainer(
            classifier,
            TrainingArguments(
                output_dir=str(checkpoints / "saving"),
                learning_rate=lr,
                num_train_epochs=epochs,
                per_device_train_batch_size=batch_size // world,
                per_device_eval_batch_size=2 * batch_size // world,
                gradient_accumulation_steps=gradient_accumulation_steps,
                activation_checkpointing=activation_checkpointing,
                lr_scheduler_type=lr_scheduler_type,
                warmup_steps=warmup_ratio,  # below 1, a share of all steps
                weight_decay=weight_decay,
                max_grad_norm=max_grad_norm,
                bf16=precision == "bf16",
                fp16=precision == "fp16",
                use_cpu=not torch.cuda.is_available(),
                ddp_backend=None if torch.cuda.is_available() or not launched else "gloo",
                # Else each process draws an order of its own, and texts are missed.
                accelerator_config={"use_seedable_sampler": False},
                train_sampling_strategy="group_by_length",
                eval_strategy="epoch",
                save_strategy="epoch",
                restore_callback_states_from_checkpoint=True,
                save_on_each_node=True,
                load_best_model_at_end=True,
                metric_for_best_model=metric_for_best_model,
                greater_is_better=metric_for_best_model not in ("log_loss", "ece"),
                logging_steps=logging_steps,
                logging_first_step=True,  # short trainings have a curve too
                disable_tqdm=not (first and sys.stderr.isatty()),
                report_to="none",
                seed=seed,
            ),
            train_dataset=train,
            eval_dataset=validation.by_length(),
            data_collator=partial(_collate, pad_token_id=tokenizer.pad_token_id),
            processing_class=tokenizer,
            compute_metrics=_scores,
            compute_loss_func=_loss(train.labels, class_weight, label_smoothing),
            folder=checkpoints,
            save_steps=save_steps,
        )
        # The log lines are ours, on stderr and in the file; only the progress bar is Trainer's.
        trainer.remove_callback(PrinterCallback)
        if trainer.pop_callback(ProgressCallback):
            trainer.add_callback(Progress)
        if record:
            trainer.add_callback(LiveCallback(record))
        if early_stopping_patience:
            trainer.add_callback(EarlyStoppingCallback(early_stopping_patience))
        seconds = trainer.resume().metrics["train_runtime"]
        log.info("%d steps, the last of them in %.1f s", trainer.state.global_step, seconds)
        if vocabulary:
            vocabulary.restore()
        if record:
            keep_best(record, trainer.state)
            _save(trainer, folder)
    if not launched:
        provenance.record(model, *packages, **settings)
        shutil.rmtree(checkpoints)


def _launch(processes: int, arguments: list[str]) -> None:
    """Run this stage in ``processes`` processes of this machine, which share each batch.

    torchrun's own variables, such as PET_NNODES and PET_RDZV_ENDPOINT, add other machines.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    alone = [] if "PET_NNODES" in os.environ else ["--standalone"]
    words = [*alone, f"--nproc-per-node={processes}", "--module", "src.text.train", *arguments]
    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # the processes speak
    os.environ.setdefault("DVC_STAGE", "train")  # they end with this process
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # spares a warning; train.threads is what counts
    try:
        run.run(run.parse_args(words))  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        # What a process has told us is a dict; what torchrun says of one that was killed, a str.
        told = failure.message["message"] if isinstance(failure.message, dict) else ""
        if told.startswith(prefix := f"{InputError.__name__}: "):
            raise InputError(told.removeprefix(prefix)) from error
        if tells_of_a_full_disk(told):
            raise OSError(errno.ENOSPC, told) from error
        raise InputError(
            f"Expected {processes} processes to train, found that process {rank} ended with exit "
            f"code {failure.exitcode}: mend what its message above says, or, without one, look for "
            "what killed it, such as a lack of memory."
        ) from error
    except SignalException as error:
        raise KeyboardInterrupt from error
    except (RendezvousError, ValueError) as error:
        raise InputError(
            f"Expected the machines to meet, found: {' '.join(str(error).split())}; look at "
            "PET_NNODES, PET_RDZV_BACKEND and PET_RDZV_ENDPOINT."
        ) from error


class Texts(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenized texts, and the id of the label of each."""

    def __init__(self, ids: Sequence[Tokens], labels: Integers) -> None:
        """Hold one array of token ids a text."""
        self.ids = ids
        self.labels = labels

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"input_ids": self.ids[row], "labels": self.labels[row]}

    def by_length(self) -> "Texts":
        """The same with neighbours of like length, which pad less."""
        order = np.argsort([len(row) for row in self.ids], kind="stable")
        return Texts([self.ids[k] for k in order], self.labels[order])


def _texts(path: Path, tokenizer: Any, labels: list[str], max_characters: int) -> Texts:
    frame = examples.read(path)
    length = tokenizer.model_max_length
    ids = encoder.tokenize(tokenizer, list(frame["text"]), length, max_characters)
    return Texts(ids, examples.label_ids(frame, labels))


def _collate(rows: list[dict[str, Any]], pad_token_id: int) -> dict[str, torch.Tensor]:
    batch = encoder.collate([row["input_ids"] for row in rows], pad_token_id)
    return batch | {"labels": torch.tensor([row["labels"] for row in rows])}


def _take_shortcuts(classifier: Any, tokenizer: Any, *datasets: Texts) -> CutVocabulary | None:
    """Let the classifier learn the same with less work; the ids of the texts become others."""
    if not shorten(classifier):
        log.info("no shorter last layer is known for %s", classifier.config.model_type)
    replace_dropout(classifier)
    if not CutVocabulary.suits(classifier, tokenizer.pad_token_id):
        log.info("the embeddings of %s are trained as a whole", classifier.config.model_type)
        return None
    every = np.concatenate([np.unique(np.concatenate(texts.ids)) for texts in datasets])
    vocabulary = CutVocabulary(classifier, every)
    for texts in datasets:
        texts.ids = [vocabulary.ids(row) for row in texts.ids]
    return vocabulary


def _readable(classifier: Any, tokenizer: Any) -> int:
    """The longest text that the checkpoint reads, in tokens."""
    positions = getattr(classifier.config, "max_position_embeddings", tokenizer.model_max_length)
    embeddings = getattr(classifier.base_model, "embeddings", None)
    # RoBERTa's positions begin after that of padding.
    positions -= getattr(embeddings, "padding_idx", -1) + 1
    return int(min(tokenizer.model_max_length, positions))


def _save(trainer: ResumableTrainer, folder: Path) -> None:
    trainer.save_model(str(folder))
    (folder / "training_args.bin").unlink()  # a pickle, with paths of this machine
    for file in folder.iterdir():
        file.chmod(0o644)  # the weights come with 0600, which no colleague could read


def _scores(prediction: EvalPrediction) -> dict[str, float]:
    probabilities = classification.softmax(np.asarray(prediction.predictions))
    return classification.summary(np.asarray(prediction.label_ids), probabilities)


def _loss(ids: Any, class_weight: str, label_smoothing: float) -> Callable[..., torch.Tensor]:
    """Cross-entropy, summed over a batch and divided by the texts of the whole step."""
    weight = None
    if class_weight == "balanced":  # n / (classes * count), so that the mean over all texts is 1
        counts = np.bincount(ids)
        weight = torch.tensor(len(ids) / (len(counts) * counts), dtype=torch.float32)

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        scores = outputs["logits"].float()
        total = torch.nn.functional.cross_entropy(
            scores,
            labels,
            weight=None if weight is None else weight.to(scores.device),
            label_smoothing=label_smoothing,
            reduction="sum",
        )
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    return loss


if __name__ == "__main__":
    if LAUNCHED in os.environ:
        from torch.distributed.elastic.multiprocessing.errors import record as tell_parent

        # A mistake that each process finds is said once, by the parent.
        logging.getLogger("src.core.stage").setLevel(logging.CRITICAL)
        stage.run(tell_parent(main), exclusive=False)
    else:
        stage.run(main)
