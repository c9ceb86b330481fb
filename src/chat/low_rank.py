"""LoRA in fewer steps: the same sums as PEFT's, without what it casts to and fro.

PEFT turns what a layer reads into the type of the adapter, which is another one where the model's
weights are halved, and keeps it for the gradients, once for each layer. Here a layer and its
adapter are one function, which keeps what it read as it came.
"""

from types import MethodType
from typing import Any

import torch
from peft.tuners.lora.layer import Linear


class Beside(torch.autograd.Function):
    """A linear layer whose weight does not learn, and an adapter that does."""

    @staticmethod
    def forward(
        ctx: Any,
        read: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        down: torch.Tensor,
        up: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """Return what layer and adapter give together.

        Args:
            ctx: keeps what the gradients need.
            read: [..., inputs].
            weight: [outputs, inputs], of the type of ``read``.
            bias: [outputs].
            down: [rank, inputs].
            up: [outputs, rank].
            scaling: of what the adapter adds.
        """
        rows = read.reshape(-1, read.shape[-1])
        down, up = down.to(read.dtype), (up * scaling).to(read.dtype)
        inner = rows @ down.T
        given = torch.nn.functional.linear(rows, weight, bias).addmm_(inner, up.T)
        ctx.save_for_backward(rows, inner, weight, down, up)
        ctx.scaling = scaling
        return given.view(*read.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of what was read, and of both matrices of the adapter."""
        rows, inner, weight, down, up = ctx.saved_tensors
        gradient = given[0].reshape(-1, given[0].shape[-1])
        inward = gradient @ up
        of_read = None
        if ctx.needs_input_grad[0]:
            of_read = (gradient @ weight).addmm_(inward, down)
            of_read = of_read.view(*given[0].shape[:-1], -1)
        of_down = (inward.T @ rows).float()
        of_up = (inner.T @ gradient).T.float() * ctx.scaling  # faster than the other way round
        return of_read, None, None, of_down, of_up, None


def quicken(model: Any) -> None:
    """Let plain adapters of a PEFT model compute in fewer steps.

    Those with dropout, of DoRA, or beside a packed weight stay as they are.
    """
    for layer in model.modules():
        if isinstance(layer, Linear) and _is_plain(layer):
            setattr(layer, "forward", MethodType(_forward, layer))  # noqa: B010, which mypy forbids


def _is_plain(layer: Linear) -> bool:
    names = [*layer.lora_A]
    return (
        type(layer.base_layer) is torch.nn.Linear
        and len(names) == 1
        and isinstance(layer.lora_dropout[names[0]], torch.nn.Identity)
        and not layer.lora_variant
        and not layer.lora_bias[names[0]]
    )


def _forward(layer: Any, read: torch.Tensor) -> Any:
    (name,) = layer.lora_A
    base = layer.base_layer
    with torch.autocast(read.device.type, enabled=False):
        return Beside.apply(
            read.to(base.weight.dtype),
            base.weight,
            base.bias,
            layer.lora_A[name].weight,
            layer.lora_B[name].weight,
            layer.scaling[name],
        )  # type: ignore[no-untyped-call]
