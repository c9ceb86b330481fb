"""Teach a language model the conversations of the training side, by one of the ``methods``."""

import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from dvclive.live import Live
from transformers import EarlyStoppingCallback, set_seed

from src.chat import conversations, methods, models
from src.chat.rendering import Renderer, Row
from src.chat.scoring import IGNORED
from src.chat.trainer import trainer_of
from src.core.command_line import options
from src.core.errors import InputError
from src.core.files import replacing
from src.training import launch, provenance
from src.training.checkpoints import key_of
from src.training.recording import LiveCallback, keep_best

SIDES = ("train", "validation")
PACKAGES = ("torch", "transformers", "accelerate", "peft", "trl", "tokenizers")
SETTINGS = ("precision", "processes", "threads", "seed")
SHOWN = 60  # lines of it in the log

log = logging.getLogger("src.chat.tuning")


def train(
    base: Path,
    divided: Path,
    model: Path,
    live: Path,
    params: Mapping[str, Any],
    change: Callable[[Any], Any],
) -> None:
    """Train on the train side, and keep the epoch that validation says is best.

    Args:
        base: the folder of the model to start from.
        divided: the folder with ``train.jsonl`` and ``validation.jsonl``.
        model: the folder that gets an adapter in PEFT's form, or a whole model.
        live: the folder that gets loss and lr by step and the validation loss by epoch.
        params: the section of the method.
        change: makes of the model what learns.
    """
    method = live.name
    refuse(params, method)
    shared = launch.shared_folder()
    checkpoints = shared or _checkpoints(base, divided, model, method, params)
    if launch.is_needed(params["processes"]):
        with replacing(model) as folder:
            words = [*map(str, (base, divided, folder, live)), *options()]
            launch.launch(f"src.chat.{method}", params["processes"], words, checkpoints)
    else:
        _train(base, divided, model, live, checkpoints, params, change)
    if not shared:
        settings = {name: params[name] for name in SETTINGS}
        provenance.record(model, *PACKAGES, params=params, **settings)
        shutil.rmtree(checkpoints)


def refuse(params: Mapping[str, Any], method: str) -> None:
    """Raise an ``InputError`` if these params can't train here."""
    gpu = torch.cuda.is_available()
    if params["precision"] == "fp16" and not gpu:
        raise InputError(
            f"{method}.precision is 'fp16', which needs a GPU, and none is found: use 'bf16' or "
            "'no'."
        )
    if params.get("quantization", "none") != "none" and not gpu:
        raise InputError(
            f"{method}.quantization is {params['quantization']!r}, which needs a GPU, and none is "
            "found: set it to none."
        )
    if (count := torch.cuda.device_count()) > 1 and params["processes"] == 1:
        raise InputError(
            f"{count} GPUs are seen and {method}.processes is 1: set it to {count}, or the "
            "variable CUDA_VISIBLE_DEVICES to one of them."
        )
    world = launch.world(params["processes"])
    if params["batch_size"] % world:
        raise InputError(
            f"{method}.batch_size is {params['batch_size']}: expected a multiple of the {world} "
            f"processes that share it; change it or {method}.processes."
        )


def read_rows(
    path: Path, renderer: Renderer, max_length: int, method: str
) -> tuple[list[Row], int]:
    """Read the conversations of a side as rows of at most ``max_length`` tokens.

    Returns:
        those of which something is learnt, and how many learnt tokens were cut off.
    """
    whole = [row for one in conversations.read(path) for row in renderer.rows(one)]
    rows = [Row(row.ids[:max_length], row.learnt[:max_length]) for row in whole]
    lost = sum(map(sum, (row.learnt[max_length:] for row in whole)))
    kept = [row for row in rows if any(row.learnt[1:])]
    if not kept:
        raise InputError(
            f"Of no conversation of {path} is anything learnt within {max_length} tokens: raise "
            f"{method}.max_length."
        )
    if lost:
        log.warning(
            "%s: %d of %d learnt tokens lie beyond %s.max_length, and %d rows with all of theirs",
            *(path.name, lost, sum(sum(row.learnt) for row in whole), method),
            len(rows) - len(kept),
        )
    return kept, lost


def sanity(row: Row, tokenizer: Any) -> str:
    """Return a table of a row's tokens: token, id, and the id that is learnt, or ``IGNORED``."""
    lines = [f"{'token':<24} {'id':>7} {'target':>7}"]
    for id, learnt in zip(row.ids, row.learnt, strict=True):
        token = json.dumps(tokenizer.decode([id]), ensure_ascii=False)
        lines.append(f"{token:<24} {id:>7} {id if learnt else IGNORED:>7}")
    return "\n".join(lines)


def _checkpoints(
    base: Path, divided: Path, model: Path, method: str, params: Mapping[str, Any]
) -> Path:
    """Name the folder of the checkpoints by all that decides the result."""
    started = [divided / f"{side}.jsonl" for side in SIDES]
    started += sorted(path for path in base.rglob("*") if path.is_file())
    versions = {name: version(name) for name in PACKAGES}
    machines = {"machines": os.environ.get("PET_NNODES", "1")}
    key = key_of({**params, **machines, **versions, "method": method}, started)
    return model.parent / ".checkpoints" / key


def _train(
    base: Path,
    divided: Path,
    model: Path,
    live: Path,
    checkpoints: Path,
    params: Mapping[str, Any],
    change: Callable[[Any], Any],
) -> None:
    """Train in this process, which saves the model if it is the first."""
    first, method = launch.is_first(), live.name
    if not first:
        logging.getLogger("src").setLevel(logging.CRITICAL)  # the first speaks for all
    torch.set_num_threads(params["threads"])
    set_seed(params["seed"])
    tokenizer = models.tokenizer(base)
    renderer = Renderer(tokenizer)
    train, watched = (
        read_rows(divided / f"{side}.jsonl", renderer, params["max_length"], method)[0]
        for side in SIDES
    )
    started = _started(base, params, method)
    learner = change(started)

    # The parent of several processes has made the folder's place, and will move it.
    place: AbstractContextManager[Path] = (
        nullcontext(model) if launch.shared_folder() else replacing(model)
    )
    recording: AbstractContextManager[Live | None] = (
        Live(str(live), dvcyaml=False, save_dvc_exp=False) if first else nullcontext()
    )
    with place as folder, recording as record:
        trainer = trainer_of(learner, tokenizer, train, watched, params, checkpoints)
        if record:
            table = sanity(train[0], tokenizer)
            log.info("params: %s", ", ".join(f"{key} {value}" for key, value in params.items()))
            log.info("the first row:\n%s", "\n".join(table.splitlines()[: SHOWN + 1]))
            trainer.add_callback(LiveCallback(record))
        if patience := params["early_stopping_patience"]:
            trainer.add_callback(EarlyStoppingCallback(patience))
        seconds = trainer.resume().metrics["train_runtime"]
        _tell(trainer, train, params, seconds, method)
        if record:
            best = trainer.state.best_global_step or 0
            if not best or not math.isfinite(trainer.state.best_metric or math.nan):
                raise InputError(
                    f"The validation loss is no number after any epoch: lower {method}.lr, or set "
                    f"{method}.precision to 'no'."
                )
            figures = next(
                entry
                for entry in trainer.state.log_history
                if entry["step"] == best and "eval_loss" in entry
            )
            last = params["epochs"] * trainer.epoch_steps()  # unless it is stopped early
            keep_best(record, best, last, figures)
            _save(learner, base, folder)
            (folder / models.SANITY).write_text(f"{table}\n", encoding="utf-8", newline="\n")


def _started(base: Path, params: Mapping[str, Any], method: str) -> Any:
    """Load the model to start from, in the form that the method and the precision want."""
    how = methods.packed(params.get("quantization", "none"), method)
    half = params["precision"] == "bf16"
    if method == "full":
        # Weights that learn have 16 bits only where an optimizer keeps the rest of them, the
        # gradients of several batches are not added up, and what is saved has no more.
        half &= not torch.cuda.is_available() and models.record(base)["dtype"] == "bfloat16"
        half &= params["gradient_accumulation_steps"] == 1
    model = models.load(base, torch.bfloat16 if half else torch.float32, **how)
    most = models.longest(model) - params.get("virtual_tokens", 0)
    if params["max_length"] > most:
        raise InputError(
            f"{method}.max_length is {params['max_length']}, and the model reads at most {most} "
            "tokens: lower it."
        )
    return model


def _tell(
    trainer: Any, rows: Sequence[Row], params: Mapping[str, Any], seconds: float, method: str
) -> None:
    """Log how fast it was, and what validation says that a person should know."""
    tokens = sum(len(row.ids) for row in rows) * trainer.state.epoch
    log.info(
        "%d steps; those of this run took %.1f s, about %.0f tokens a second over all",
        *(trainer.state.global_step, seconds, tokens / max(seconds, 1e-9)),
    )
    start = next(one["eval_loss"] for one in trainer.state.log_history if "eval_loss" in one)
    if trainer.state.best_metric is not None and trainer.state.best_metric >= start:
        log.warning(
            "no epoch was better than what the training began with (validation loss %.4g): lower "
            "%s.lr",
            *(start, method),
        )
    elif trainer.state.best_global_step == params["epochs"] * trainer.epoch_steps():
        log.info("the last epoch was the best: with more %s.epochs it may get better", method)


def _save(learner: Any, base: Path, folder: Path) -> None:
    """Write an adapter, or a whole model, with what tells of which model it is made."""
    folder.mkdir(exist_ok=True)
    if hasattr(learner, "peft_config"):
        learner.save_pretrained(folder)
        shutil.copyfile(base / models.RECORD, folder / models.RECORD)
        (folder / "README.md").unlink(missing_ok=True)  # the stage card writes it
        config = json.loads((folder / models.ADAPTER).read_text())
        # PEFT writes a set in the order of this process's hashes.
        if config.get("target_modules"):
            config["target_modules"] = sorted(config["target_modules"])
        inside = base.absolute().is_relative_to(Path.cwd())
        config["base_model_name_or_path"] = os.path.relpath(base) if inside else base.name
        (folder / models.ADAPTER).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    else:
        kept = json.loads((base / models.RECORD).read_text())["dtype"]
        learner.config.use_cache = True  # which Trainer has set otherwise
        learner.to(getattr(torch, kept)).save_pretrained(folder)
        (folder / "generation_config.json").unlink()  # as Trainer sees it; that of the base stays
        models.copy_tokenizer(base, folder)
        models.write_record(base, folder, "full", models.record(base)["parameters"])
    models.make_readable(folder)
