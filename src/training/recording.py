"""The record of a training: DVCLive's metrics, the log and the progress bar."""

import logging
from collections.abc import Mapping
from typing import Any

from dvclive.live import Live
from transformers import ProgressCallback, TrainerState
from transformers.integrations.integration_utils import DVCLiveCallback

log = logging.getLogger("src.training.recording")


class LiveCallback(DVCLiveCallback):
    """Record loss and lr by step and validation metrics by epoch, but no figure of one run."""

    live: Live

    def on_train_begin(
        self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
    ) -> None:
        """Record what was logged before the training stopped."""
        for entry in state.log_history:
            self._record(entry["step"], entry)

    def on_log(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        model: Any = None,
        logs: Any = None,
        **_: Any,
    ) -> None:
        """Record and log the figures of the model, at the global step."""
        if found := self._record(state.global_step, logs):
            figures = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
            log.info("step %d/%d: %s", state.global_step, state.max_steps, figures)

    def _record(self, step: int, logs: Mapping[str, Any]) -> dict[str, float]:
        found = {name_of(key): float(value) for key, value in logs.items() if name_of(key)}
        if found:
            self.live.step = step
            for name in sorted(found):  # checkpoints do not keep an order
                self.live.log_metric(name, found[name])
            self.live.make_summary()  # type: ignore[no-untyped-call]
        return found

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """Leave the record open: the best epoch is still to be written."""


class Progress(ProgressCallback):
    """Trainer's progress bar, without the figures that the log has already."""

    def on_log(self, *_: Any, **__: Any) -> None:
        """Print nothing."""


def name_of(key: str) -> str:
    """Translate the name of one of Trainer's figures to ours, "" for one that is left out."""
    if key.startswith("eval_") and not key.endswith(("_runtime", "_per_second")):
        return key.replace("eval_", "validation/")
    return {"loss": "train/loss", "learning_rate": "train/lr"}.get(key, "")


def keep_best(live: Live, step: int, last: int, figures: Mapping[str, float]) -> None:
    """Make the final metrics those of the weights that are kept.

    Args:
        live: the record.
        step: the one whose weights these are, 0 for those that training started from.
        last: the step that training would have ended with.
        figures: those of the validation texts, under Trainer's names.
    """
    live.step = step
    for key, value in sorted(figures.items()):
        if name_of(key):
            live.log_metric(name_of(key), float(value), plot=False)
    live.log_metric("last_step", last, plot=False)
    live.make_summary()  # type: ignore[no-untyped-call] # with the step, which it would not change
    log.info("kept the weights of step %d", step)
