"""Attention for a processor: the same sums as PyTorch's, in fewer and larger products.

PyTorch's own attention is made for GPUs and for long texts. On a processor two batched products do
the same for short ones in less than half the time, and where heads share keys, as in most of
today's models, nothing need be repeated for each head.
"""

from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask

NAME = "grouped"
# Scores of all rows and heads; more of them, kept for the gradients, take more memory than the time
# is worth. Where none are kept, more may be.
KEPT = 2**25
AT_ONCE = 2**28


def grouped(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **further: Any,
) -> tuple[torch.Tensor, None]:
    """Attend, as transformers asks for it.

    Args:
        module: the layer.
        query: [rows, heads, tokens, width].
        key: [rows, groups, positions, width], of which each serves as many heads.
        value: likewise.
        attention_mask: what is added to the scores, [rows, 1, tokens, positions].
        scaling: of the scores.
        dropout: of what attention gives.
        further: what only some models ask for.

    Returns:
        [rows, tokens, heads, width], and nothing.
    """
    rows, heads, tokens, width = query.shape
    groups, positions = key.shape[1:3]
    most = KEPT if torch.is_grad_enabled() else AT_ONCE
    if attention_mask is None or dropout or rows * heads * tokens * positions > most:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **further
        )
    scale = width**-0.5 if scaling is None else scaling
    shared = (query * scale).reshape(rows * groups, -1, width)  # heads of a group, then tokens
    keys = key.reshape(rows * groups, positions, width)
    scores = torch.bmm(shared, keys.transpose(1, 2))
    scores = scores.view(rows, groups, -1, tokens, positions)
    scores = scores + attention_mask[:, :, None, :, :positions]
    weights = torch.softmax(scores, dim=-1).view(rows * groups, -1, positions)
    found = torch.bmm(weights, value.reshape(rows * groups, positions, -1))
    return found.view(rows, heads, tokens, -1).transpose(1, 2), None


def choose(model: Any) -> None:
    """Let a model that is on a processor attend so, if it would have attended as PyTorch does.

    Others have something of their own between scores and weights.
    """
    if model.device.type == "cpu" and model.config._attn_implementation == "sdpa":
        AttentionInterface.register(NAME, grouped)
        AttentionMaskInterface.register(NAME, eager_mask)
        model.set_attn_implementation(NAME)
