"""Hold an adapter, the model that it was merged into and that of 4 bits against each other."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
from dvclive.live import Live

from src.chat import conversations
from src.chat.engine import Engine
from src.chat.generation import Generation
from src.core import stage
from src.core.command_line import Count, Interval, Threads
from src.core.errors import InputError

log = logging.getLogger("src.chat.parity")


def main(
    base: Path,
    divided: Path,
    adapter: Path,
    merged: Path,
    live: Path,
    *packed: Path,
    rows: Count,
    max_new_tokens: Count,
    tolerance: Annotated[float, Interval(gt=0)],
    batch_tokens: Count,
    threads: Threads,
) -> None:
    """Compare log-probabilities and answers on the first rows of the validation side.

    Args:
        base: the folder of the model that the adapter was trained on.
        divided: the folder with ``validation.jsonl``.
        adapter: the folder of the adapter.
        merged: the folder of the whole model that was made of both.
        live: the folder that gets ``metrics.json``.
        packed: folders of the same model in fewer bits.

    Raises:
        InputError: the merged model differs by more than the tolerance.
    """
    kept = [*conversations.read(divided / "validation.jsonl")][:rows]

    def said(folder: Path) -> tuple[list[torch.Tensor], list[str]]:
        engine = Engine.of(base, folder, threads)
        every = [q for one in kept for q in engine.renderer.questions(one)]
        asked = [question for question in every if engine.has_room(question, max_new_tokens)]
        if not asked:
            raise InputError(
                f"None of the first {rows} conversations fits into what the model reads: raise "
                "parity.rows."
            )
        answers, likely = engine.judge(asked, Generation(max_new_tokens), batch_tokens)
        return likely, [answer.text for answer in answers]

    expected = said(adapter)
    with Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        for folder in (merged, *packed):
            figures = _differences(expected, said(folder))
            for name, figure in figures.items():
                record.log_metric(f"{folder.name}/{name}", figure, plot=False)
            log.info(
                "%s against %s: a learnt token's log-probability differs by %.4f on average and "
                "%.3f at most; %.0f %% of %d answers are equal",
                *(folder.name, adapter.name, figures["mean_difference"]),
                *(figures["largest_difference"], 100 * figures["equal_answers"], len(expected[1])),
            )
            if folder == merged and not figures["mean_difference"] <= tolerance:  # or no number
                raise InputError(
                    f"{merged} differs from {adapter} on {base} by {figures['mean_difference']:.4f}"
                    f" a token, more than parity.tolerance {tolerance:g} allows: merge it anew, "
                    "with base.dtype float32, or raise the tolerance."
                )


def _differences(
    expected: tuple[Sequence[torch.Tensor], Sequence[str]],
    found: tuple[Sequence[torch.Tensor], Sequence[str]],
) -> dict[str, float]:
    apart = (torch.cat([*expected[0]]).double() - torch.cat([*found[0]]).double()).abs()
    equal = [one == other for one, other in zip(expected[1], found[1], strict=True)]
    return {
        "mean_difference": float(apart.mean()),
        "largest_difference": float(apart.max()),
        "equal_answers": sum(equal) / len(equal),
    }


if __name__ == "__main__":
    stage.run(main)
