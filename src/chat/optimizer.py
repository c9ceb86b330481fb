"""AdamW for weights that are computed with in 16 bits."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch

KEPT = "kept"  # in the state


class Doubled(torch.optim.AdamW):
    """AdamW that keeps each weight in 32 bits beside the model's own, so that small steps add up.

    A weight of 16 bits has 8 of them for its digits: what a step adds is often less than half of
    the last one, and would be lost. Autocast keeps the model's weights in 32 bits instead, and
    turns all of them into 16 for each batch.

    Args:
        groups: of the model's weights, as optimizers of PyTorch have them.
        words: further arguments of AdamW.

    Source: arXiv 1710.03740, section 3.1.
    """

    def __init__(self, groups: Iterable[Mapping[str, Any]], **words: Any) -> None:
        """Copy the weights."""
        self._weights = [[*group["params"]] for group in groups]
        kept = [
            {**group, "params": [weight.detach().float() for weight in weights]}
            for group, weights in zip(groups, self._weights, strict=True)
        ]
        super().__init__(kept, **words)

    @torch.no_grad()
    def step(self, *words: Any) -> Any:
        """Change what is kept by the gradients of the model, and the model's weights after it."""
        for weight, kept in self._pairs():
            if weight.grad is not None:
                kept.grad, weight.grad = weight.grad.float(), None
        result = super().step(*words)
        for weight, kept in self._pairs():
            weight.copy_(kept)
            kept.grad = None
        return result

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of the model."""
        for weight, _ in self._pairs():
            weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Return what AdamW has, and the weights that are kept."""
        return super().state_dict() | {KEPT: [kept for _, kept in self._pairs()]}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` gave."""
        super().load_state_dict({k: v for k, v in state_dict.items() if k != KEPT})
        for (_, kept), stored in zip(self._pairs(), state_dict[KEPT], strict=True):
            kept.copy_(stored)

    def _pairs(self) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        for weights, group in zip(self._weights, self.param_groups, strict=True):
            yield from zip(weights, group["params"], strict=True)
