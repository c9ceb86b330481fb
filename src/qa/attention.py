"""An encoder whose training has less work on a processor: the same hidden states, in less time.

Without dropout of attention, what is left of it is two products and a softmax. torch has one kernel
for all three, whose way back through the layer takes most of a step on a processor.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from src.training.shortcuts import ENCODERS, Layer


def shorten(model: Any) -> bool:
    """Let a model train with less work; tell whether its architecture is a known one."""
    if model.config.model_type not in ENCODERS:
        return False
    name, read = ENCODERS[model.config.model_type]
    encoder = getattr(model.base_model, name)
    setattr(model.base_model, name, Encoder(encoder.layer, read))
    return True


class Encoder(nn.Module):
    """The layers of an encoder under the same names, and what they compute."""

    def __init__(self, layers: nn.ModuleList, read: Callable[[Any], Layer]) -> None:
        """Compute with ``layers``, each as ``read`` sees it."""
        super().__init__()
        self.layer = layers
        self._read = read

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Encode hidden states [windows, tokens, size] under a mask [windows, 1, any, tokens]."""
        mask = None
        if attention_mask is not None:  # one row does, as all tokens see the same
            mask = attention_mask[:, :, :1]
            if mask.dtype == torch.bool:
                mask = torch.where(mask, 0.0, torch.finfo(hidden_states.dtype).min)
        for layer in self.layer:
            hidden_states = _encode(self._read(layer), hidden_states, mask)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden_states)


def _encode(layer: Layer, x: Tensor, mask: Tensor | None) -> Tensor:
    windows, tokens, _ = x.shape
    query, key, value = (
        part(x).view(windows, tokens, layer.heads, -1).transpose(1, 2)
        for part in (layer.query, layer.key, layer.value)
    )
    dropout = layer.attention_dropout
    if torch.is_grad_enabled() and x.device.type == "cpu":
        flat = (windows * layer.heads, tokens, -1)
        query, key, value = (part.reshape(flat) for part in (query, key, value))
        added = query.new_zeros(1, 1, 1)
        if mask is not None:
            shape = (windows, layer.heads, 1, tokens)
            added = mask.to(query.dtype).expand(shape).reshape(-1, 1, tokens)
        scores = torch.baddbmm(added, query, key.transpose(1, 2), alpha=query.shape[-1] ** -0.5)
        weights = dropout(functional.softmax(scores, -1)).to(value.dtype)
        context = (weights @ value).view(windows, layer.heads, tokens, -1)
    else:
        share = dropout.p if dropout.training else 0.0
        context = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=share
        )
    x = layer.attention_norm(layer.attention_output(context.transpose(1, 2).flatten(2)) + x)
    result: Tensor = layer.output_norm(layer.feed_forward(x) + x)
    return result
