"""Train keys and values that each layer of a language model reads first: P-Tuning v2."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from src.chat import methods, tuning
from src.chat.methods import Quantization
from src.core.command_line import Count, Interval, Natural, Seed, Threads
from src.training import launch


def main(
    base: Path,
    divided: Path,
    model: Path,
    live: Path,
    *,
    virtual_tokens: Count,
    init_weights: Literal["random", "zero"],
    quantization: Quantization,
    lr: Annotated[float, Interval(gt=0, lt=1)],
    epochs: Count,
    batch_size: Count,
    gradient_accumulation_steps: Count,
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"],
    warmup_ratio: Annotated[float, Interval(ge=0, lt=1)],
    weight_decay: Annotated[float, Interval(ge=0, lt=1)],
    max_grad_norm: Annotated[float, Interval(gt=0)],
    max_length: Annotated[int, Interval(ge=2)],
    precision: Literal["no", "bf16", "fp16"],
    early_stopping_patience: Natural,
    logging_steps: Count,
    save_steps: Natural,
    processes: Count,
    threads: Threads,
    seed: Seed,
) -> None:
    """Fit a prefix to the train side, and keep the epoch that is best on the validation side.

    The paths are those of ``tuning.train``.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    change = partial(methods.prefix, virtual_tokens=virtual_tokens, init_weights=init_weights)
    tuning.train(base, divided, model, live, params, change)


if __name__ == "__main__":
    launch.run(main)
