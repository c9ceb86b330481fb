"""RMSNorm for a processor: the same sums as transformers', with fewer copies in 32 bits."""

from types import MethodType
from typing import Any

import torch


class Normed(torch.autograd.Function):
    """What is read, divided by its root mean square, and scaled by weights."""

    @staticmethod
    def forward(ctx: Any, read: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        """Return what is read, scaled.

        Args:
            ctx: keeps what the gradients need, which is no more than what came in.
            read: [..., width].
            weight: [width].
            epsilon: what is added to the mean square.
        """
        length = torch.linalg.vector_norm(read, dim=-1, keepdim=True, dtype=torch.float32)
        scale = (length * length / read.shape[-1] + epsilon).rsqrt()
        ctx.save_for_backward(read, weight, scale)
        normed: torch.Tensor = (read * scale).to(read.dtype) * weight
        return normed

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Return the gradients of what was read, and of the weights if they learn."""
        read, weight, scale = ctx.saved_tensors
        normed, pull = read * scale, (given[0] * weight).float()
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (given[0] * normed).flatten(0, -2).sum(0).to(weight.dtype)
        along = torch.linalg.vecdot(pull, normed).unsqueeze(-1) / read.shape[-1]
        return pull.sub_(normed.mul_(along)).mul_(scale).to(read.dtype), of_weight, None


def choose(model: Any) -> None:
    """Let the layers of a model that compute just this compute it so.

    Others, such as Gemma's, whose weights are around 0, stay as they are.
    """
    for layer in model.modules():
        if type(layer).__name__.endswith("RMSNorm") and _is_same(layer):
            setattr(layer, "forward", MethodType(_forward, layer))  # noqa: B010, which mypy forbids


def _is_same(layer: Any) -> bool:
    weight = getattr(layer, "weight", None)
    if weight is None or weight.dim() != 1 or _epsilon(layer) is None or weight.itemsize > 4:
        return False
    with torch.no_grad():
        read = torch.linspace(-2, 3, 2 * len(weight)).view(2, -1).to(weight)
        return torch.allclose(_forward(layer, read), layer(read), rtol=1e-2, atol=1e-3)


def _epsilon(layer: Any) -> float | None:
    found: float | None = getattr(layer, "variance_epsilon", getattr(layer, "eps", None))
    return found


def _forward(layer: Any, read: torch.Tensor) -> Any:
    return Normed.apply(read, layer.weight, _epsilon(layer))  # type: ignore[no-untyped-call]
