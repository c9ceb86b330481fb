"""Checkpoints, from which a training that was stopped ends as if it had not been.

A checkpoint is written under another name and then renamed; its last file, with the hashes of all
others, says that it is whole. Checkpoints lie in a folder named by a hash of all that decides the
result, so that no training resumes from one that would have ended otherwise.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import Trainer, TrainerCallback, TrainerState

from src.core.files import sha256

PREFIX = "checkpoint-"  # as Trainer has it
WHOLE = "whole.json"  # the last file of a checkpoint
LITTLE = 1 << 20  # free bytes; if there are fewer, a failed write found no room
KEPT = 2  # checkpoints beside the best one, in case the newest is broken

log = logging.getLogger("src.training.checkpoints")


def key_of(params: Mapping[str, Any], files: Iterable[Path]) -> str:
    """Hash all that decides the result of a training.

    Args:
        params: the values of all params.
        files: the data, the checkpoint to start from and the code that is no module. The hash
            also covers our imported modules, the versions of the libraries and the processor.
    """
    machine = torch.backends.cpu.get_cpu_capability()
    if torch.cuda.is_available():
        machine = torch.cuda.get_device_name()
    versions = [version(name) for name in ("torch", "transformers", "accelerate", "tokenizers")]
    said = [dict(params), versions, machine]
    key = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "src"]
    code = {found for module in modules if (found := getattr(module, "__file__", None))}
    for path in [*files, *map(Path, sorted(code))]:
        key.update(sha256(path).encode())
    return key.hexdigest()[:16]


class ResumableTrainer(Trainer):
    """A Trainer that resumes from the newest whole checkpoint of a folder.

    Args:
        folder: a folder for the checkpoints and nothing else.
        save_steps: steps between checkpoints beside those at the end of each epoch; 0 for none.
        words: the arguments of Trainer, whose ``output_dir`` has to lie in ``folder``.
    """

    def __init__(self, *args: Any, folder: Path, save_steps: int, **words: Any) -> None:
        """Wrap Trainer."""
        super().__init__(*args, **words)
        self._folder = folder
        self._steps = save_steps
        self._epoch_order = torch.get_rng_state()
        self._order: torch.Generator = torch.default_generator
        self._resumed: dict[str, Any] = {}  # what Trainer does not keep
        self.add_callback(_Callback(self))

    def resume(self) -> Any:
        """Train, from the newest whole checkpoint on if there is one, as ``train`` does.

        What a training begins with is validated first.
        """
        # Only the first process looks, since it removes what is broken or unfinished.
        steps = [0]
        if self.args.should_save:
            shutil.rmtree(self.args.output_dir or "", ignore_errors=True)
            steps = [self._newest()]
        broadcast_object_list(steps)
        step = steps[0]
        self.args.eval_on_start = not step
        if not step:
            return self.train()
        place = self._at(step)
        log.info("goes on from step %d, which %s holds", step, place)
        self._resumed = torch.load(place / self._ours)
        state = TrainerState.load_from_json(str(place / "trainer_state.json"))
        if state.stateful_callbacks["TrainerControl"]["args"]["should_training_stop"]:
            # It was stopped early, and has only to be put away.
            self.args.num_train_epochs = step // self._resumed["epoch_steps"]
        return self.train(resume_from_checkpoint=str(place))

    def best(self) -> tuple[int, dict[str, float]]:
        """Return the step that was best on the validation texts, and its figures.

        It is 0 if no epoch was better than what the training began with.
        """
        metric = f"eval_{self.args.metric_for_best_model}"
        choose = max if self.args.greater_is_better else min
        validated = [entry for entry in self.state.log_history if metric in entry]
        best = choose(validated, key=lambda entry: entry[metric])  # the first of equals
        return int(best["step"]), best

    @property
    def _ours(self) -> str:
        return f"run_{self.args.process_index}.pth"

    def _at(self, step: int) -> Path:
        return self._folder / f"{PREFIX}{step}"

    def _saved(self) -> list[int]:
        """List the steps of all checkpoints, the newest first."""
        steps = [int(p.name.removeprefix(PREFIX)) for p in self._folder.glob(f"{PREFIX}*")]
        return sorted(steps, reverse=True)

    def _newest(self) -> int:
        """Return the step of the newest whole checkpoint whose best one is whole too, or 0."""
        for step in self._saved():
            place = self._at(step)
            if _is_whole(place):
                best = _best_of(place)
                if best in (0, step) or _is_whole(self._at(best)):
                    return step
            log.warning("checkpoint %s is not whole: an older one is looked for", place)
            shutil.rmtree(place)
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        saved = Path(self.args.output_dir or "", f"{PREFIX}{self.state.global_step}")
        try:
            self._save_whole(saved, model, trial)
        except BaseException as error:
            free = shutil.disk_usage(self._folder).free if self._folder.exists() else LITTLE
            shutil.rmtree(saved, ignore_errors=True)  # it would keep taking up room
            if isinstance(error, RuntimeError) and free < LITTLE:  # torch.save does not say why
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(saved)) from error
            raise

    def _save_whole(self, saved: Path, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        ours = {
            "epoch_order": self._epoch_order,
            "order": self._order.get_state(),
            "epoch_steps": self.epoch_steps(),
            "loss": self._tr_loss.clone(),
            "loss_from": self._globalstep_last_logged,
        }
        torch.save(ours, saved / self._ours)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            _finish(saved, self._at(self.state.global_step))
            kept = self._saved()[:KEPT]
            kept += [_best_of(self._at(step)) for step in kept]  # each goes with its best
            for step in self._saved():
                if step not in kept:
                    shutil.rmtree(self._at(step))
        self.accelerator.wait_for_everyone()
        self._name_best()

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """Save them, unless no step is left that would need them; they are most of the bytes."""
        if self.state.global_step < self.state.max_steps:
            super()._save_optimizer_and_scheduler(output_dir)

    def _name_best(self) -> None:
        if self.state.best_global_step:
            self.state.best_model_checkpoint = str(self._at(self.state.best_global_step))

    def epoch_steps(self) -> int:
        """Return the steps of an epoch."""
        return int(self.state.max_steps // self.args.num_train_epochs)

    def begin(self) -> None:
        """Put back what Trainer forgets: the loss since the last record, and the best epoch."""
        if self._resumed:
            self._tr_loss += self._resumed["loss"]
            self._globalstep_last_logged = self._resumed["loss_from"]
            self._name_best()

    def begin_epoch(self, generator: torch.Generator | None) -> None:
        """Keep the state of the generator that the order of the texts is drawn from next.

        Args:
            generator: the one that several processes share; None for one process, which draws
                from torch's own. Trainer puts that one back to the state that follows the draw.
        """
        self._order = generator or torch.default_generator
        if self._resumed:
            inside = self.state.global_step % self._resumed["epoch_steps"]
            self._order.set_state(self._resumed["epoch_order" if inside else "order"])
        self._resumed = {}
        self._epoch_order = self._order.get_state()

    def is_due(self) -> bool:
        """Tell whether a checkpoint within an epoch is due after this step."""
        step = self.state.global_step
        ends_epoch = step % self.epoch_steps() == 0  # it is saved once it has been validated
        return bool(self._steps and step % self._steps == 0 and not ends_epoch)


class _Callback(TrainerCallback):
    def __init__(self, trainer: ResumableTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._trainer.begin()

    def on_epoch_begin(
        self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **_: Any
    ) -> None:
        self._trainer.begin_epoch(getattr(train_dataloader, "synchronized_generator", None))

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        control.should_save |= self._trainer.is_due()


def _finish(saved: Path, place: Path) -> None:
    hashes = {file.name: sha256(file) for file in sorted(saved.iterdir())}
    for file in saved.iterdir():
        _sync(file)
    (saved / WHOLE).write_text(json.dumps(hashes, indent=1))
    _sync(saved / WHOLE)
    if place.exists():
        shutil.rmtree(place)
    saved.rename(place)
    _sync(place.parent)


def _best_of(place: Path) -> int:
    """Return the step of the best checkpoint that one names, 0 if there is none yet."""
    state = TrainerState.load_from_json(str(place / "trainer_state.json"))
    return int(state.best_global_step or 0)


def _is_whole(place: Path) -> bool:
    try:
        hashes = json.loads((place / WHOLE).read_text())
        return all(sha256(place / name) == found for name, found in hashes.items())
    except (OSError, ValueError):
        return False


def _sync(path: Path) -> None:
    """Write a file or folder through to the disk, before what is written next."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
