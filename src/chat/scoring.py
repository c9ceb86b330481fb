"""What a model makes of the tokens that are learnt of it, and of no others.

The head of a language model, which has a weight for each word, is most of the work of a small one.
So it sees only those positions after which a token is learnt.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from src.chat.rendering import Row
from src.predict.padding import batches

IGNORED = -100  # the label of a token that is not learnt
AT_ONCE = 64  # tokens whose scores are float32 at a time


def collate(rows: Sequence[Row], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad rows on the right: ``input_ids``, ``attention_mask`` and ``labels``, [rows, tokens]."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad_token_id)
    labels = torch.full((len(rows), length), IGNORED)
    mask = torch.zeros((len(rows), length), dtype=torch.long)
    for place, row in enumerate(rows):
        ids[place, : len(row.ids)] = torch.tensor(row.ids)
        labels[place, : len(row.ids)] = torch.tensor(labels_of(row))
        mask[place, : len(row.ids)] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def labels_of(row: Row) -> list[int]:
    """Return the tokens of a row, those that are not learnt as ``IGNORED``."""
    return [id if learnt else IGNORED for id, learnt in zip(row.ids, row.learnt, strict=True)]


def logits(model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of all learnt tokens, [learnt, words], and the tokens, [learnt].

    Args:
        model: a causal language model, which an adapter or a wrapper of DDP may be around.
        batch: what it reads, with ``labels``.
    """
    labels = batch["labels"][:, 1:]
    learnt = labels != IGNORED
    given = {name: value for name, value in batch.items() if name != "labels"}
    with head_of(getattr(model, "module", model), lambda hidden: hidden[:, :-1][learnt]):
        found: torch.Tensor = model(**given, use_cache=False).logits
    return found, labels[learnt]


@contextmanager
def head_of(model: Any, choose: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Let the head of a model see what is chosen of [rows, tokens, width], as [chosen, width]."""

    def chosen(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (choose(given[0]), *given[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(chosen)
    try:
        yield
    finally:
        handle.remove()


class CrossEntropy(torch.autograd.Function):
    """The sum of the losses of tokens, with no copy of all logits in 32 bits."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the loss, computed in float32, and keep its gradients.

        Args:
            ctx: keeps them.
            logits: [tokens, words].
            tokens: [tokens].
        """
        # Before they are scaled, gradients may be too small for fp16.
        half = logits.dtype != torch.float16
        gradients = torch.empty_like(logits, dtype=logits.dtype if half else torch.float32)
        total = torch.zeros((), device=logits.device)
        parts = (torch.split(each, AT_ONCE) for each in (logits, tokens, gradients))
        for part, of, place in zip(*parts, strict=True):
            found = torch.log_softmax(part, -1, dtype=torch.float32)
            chosen = of.unsqueeze(-1)
            total -= found.gather(1, chosen).sum()
            found.exp_().scatter_add_(1, chosen, -torch.ones_like(chosen, dtype=torch.float32))
            place.copy_(found)
        ctx.save_for_backward(gradients)
        ctx.dtype = logits.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of the logits."""
        (gradients,) = ctx.saved_tensors
        return (gradients * given[0]).to(ctx.dtype), None


def log_probabilities(
    model: Any, rows: Sequence[Row], pad_token_id: int, batch_tokens: int
) -> list[torch.Tensor]:
    """Return the log-probability of each learnt token of each row, in float32.

    Rows of like length are scored together, as many as ``batch_tokens`` hold, padding included.
    """
    found: list[torch.Tensor] = [torch.empty(0)] * len(rows)
    for places in batches([len(row.ids) for row in rows], batch_tokens):
        batch = collate([rows[place] for place in places], pad_token_id)
        on_device = {name: value.to(model.device) for name, value in batch.items()}
        with torch.no_grad():
            chosen = likely(*logits(model, on_device))
        counts = [sum(rows[place].learnt[1:]) for place in places]
        for place, part in zip(places, torch.split(chosen, counts), strict=True):
            found[place] = part
    return found


def likely(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Return the log-probability of tokens, [tokens], by [tokens, words], in float32."""
    parts = zip(torch.split(logits, AT_ONCE), torch.split(tokens, AT_ONCE), strict=True)
    losses = [
        torch.nn.functional.cross_entropy(part.float(), of, reduction="none") for part, of in parts
    ]
    return -torch.cat(losses).cpu()
