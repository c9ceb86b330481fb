"""The same classifier with less work: shortcuts leave logits, gradients or steps unchanged.

* ``CutVocabulary``: only tokens that occur have a row in the table while it is trained.
* ``shorten``: the last layer is computed for the first token alone, where the head reads no other.
* ``replace_dropout``: masks are drawn from 16 random bits an element, not a float.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

Tokens = npt.NDArray[np.int32]


class CutVocabulary:
    """A model's table of token embeddings, cut to the tokens that it will see.

    AdamW moves a row without a gradient by weight decay alone, by the same factor each. A last row
    of ones, which no token has, learns that factor for all the rows that were cut off.
    """

    def __init__(self, model: Any, tokens: Tokens) -> None:
        """Cut the table of ``model`` to ``tokens``; ids up to that of padding stay as they are."""
        self._embeddings: nn.Embedding = model.get_input_embeddings()
        self._whole = self._embeddings.weight.detach()
        low = np.arange((self._embeddings.padding_idx or 0) + 1)
        self._kept = np.union1d(low, tokens)
        ones = torch.ones_like(self._whole[:1])
        self._embeddings.weight = nn.Parameter(torch.cat([self._whole[self._kept], ones]))

    @staticmethod
    def suits(model: Any, pad_token_id: int) -> bool:
        """Tell whether only embeddings read the table, and padding keeps its id if it is cut."""
        table = model.get_input_embeddings()
        readers = [
            part for part in model.modules() if getattr(part, "weight", None) is table.weight
        ]
        return len(readers) == 1 and getattr(table, "padding_idx", None) == pad_token_id

    def ids(self, tokens: Tokens) -> Tokens:
        """Translate ``tokens`` to their rows of the cut table."""
        return np.searchsorted(self._kept, tokens).astype(np.int32)

    def restore(self) -> None:
        """Give the model its whole table back, as if it had been trained as a whole."""
        trained = self._embeddings.weight.detach()
        whole = self._whole.to(trained.device) * trained[-1]
        whole[self._kept] = trained[:-1]
        self._embeddings.weight = nn.Parameter(whole)


class _Drop(torch.autograd.Function):
    """Zero a share of the elements and scale the others, by 16 random bits an element."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: float) -> Tensor:
        count = x.numel()
        # Four masks from each 64-bit number, and torch's generator, so that a seed fixes them.
        bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        dropped = round(share * 2**16)
        kept = bits.view(torch.int16)[:count].view(x.shape) >= dropped - 2**15
        mask = kept.to(x.dtype).mul_(2**16 / max(1, 2**16 - dropped))
        ctx.save_for_backward(mask)
        return x * mask

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return gradients[0] * ctx.saved_tensors[0], None


class Dropout(nn.Dropout):
    """``nn.Dropout`` that draws faster on a CPU; the share is exact to 1 in 65,536."""

    def forward(self, x: Tensor) -> Tensor:
        """Drop elements of a tensor of any shape while training."""
        if self.training and self.p and x.device.type == "cpu":
            return cast(Tensor, _Drop.apply(x, self.p))  # type: ignore[no-untyped-call]
        return super().forward(x)


def replace_dropout(model: nn.Module) -> None:
    """Replace every ``nn.Dropout`` of ``model`` by ``Dropout``."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))


class Layer(NamedTuple):
    """The parts of a transformer layer, of any of the known architectures."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    heads: int
    attention_dropout: nn.Dropout
    attention_output: Callable[[Tensor], Tensor]
    attention_norm: nn.Module
    feed_forward: Callable[[Tensor], Tensor]
    output_norm: nn.Module


def _bert(layer: Any) -> Layer:
    attention, output = layer.attention.self, layer.attention.output
    return Layer(
        query=attention.query,
        key=attention.key,
        value=attention.value,
        heads=attention.num_attention_heads,
        attention_dropout=attention.dropout,
        attention_output=lambda x: output.dropout(output.dense(x)),
        attention_norm=output.LayerNorm,
        feed_forward=lambda x: layer.output.dropout(layer.output.dense(layer.intermediate(x))),
        output_norm=layer.output.LayerNorm,
    )


def _distilbert(layer: Any) -> Layer:
    attention = layer.attention
    return Layer(
        query=attention.q_lin,
        key=attention.k_lin,
        value=attention.v_lin,
        heads=attention.n_heads,
        attention_dropout=attention.dropout,
        attention_output=attention.out_lin,
        attention_norm=layer.sa_layer_norm,
        feed_forward=layer.ffn,
        output_norm=layer.output_layer_norm,
    )


# By the model_type of the config: where the encoder is, and how its layers are read.
ENCODERS: dict[str, tuple[str, Callable[[Any], Layer]]] = {
    "bert": ("encoder", _bert),
    "roberta": ("encoder", _bert),
    "xlm-roberta": ("encoder", _bert),
    "distilbert": ("transformer", _distilbert),
}


def shorten(model: Any) -> bool:
    """Let a classifier compute no more than its head reads, the first token or all.

    Its ``config.pooling`` says which; a model of Hugging Face has none, and reads the first.

    Returns:
        Whether the architecture is one of ``ENCODERS``; any other is left as it is.
    """
    name, read = ENCODERS.get(model.config.model_type, ("", _bert))
    if name:
        encoder = getattr(model.base_model, name)
        first = getattr(model.config, "pooling", "first") == "first"
        setattr(model.base_model, name, ShortEncoder(encoder.layer, read, first))
    return bool(name)


class ShortEncoder(nn.Module):
    """An encoder that returns the last hidden state of the first token, or of all.

    It holds the layers of the encoder that it replaces, under the same names.
    """

    def __init__(self, layers: nn.ModuleList, read: Callable[[Any], Layer], first: bool) -> None:
        """Compute with ``layers``, each as ``read`` sees it."""
        super().__init__()
        self.layer = layers
        self._read = read
        self._first = first

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Encode hidden states [texts, tokens, size] under a mask [texts, 1, any, tokens].

        Those of the last layer are [texts, 1, size] for the first token.
        """
        if attention_mask is not None:  # one row does, as all tokens see the same
            attention_mask = attention_mask[:, :, :1]
            if attention_mask.dtype == torch.bool:
                lowest = torch.finfo(hidden_states.dtype).min
                attention_mask = torch.where(attention_mask, 0.0, lowest).to(hidden_states.dtype)
        for layer in self.layer[:-1] if self._first else self.layer:
            arguments = (self._read(layer), hidden_states, attention_mask)
            if self.training and getattr(layer, "gradient_checkpointing", False):
                hidden_states = checkpoint(_encode, *arguments, use_reentrant=False)
            else:
                hidden_states = _encode(*arguments)
        if self._first:
            last = self._read(self.layer[-1])
            hidden_states = _encode_first(last, hidden_states, attention_mask)
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=hidden_states)


def _encode(layer: Layer, x: Tensor, mask: Tensor | None) -> Tensor:
    """Compute one layer for all tokens: [texts, tokens, size] to the same."""
    heads = (*x.shape[:-1], layer.heads, -1)
    query, key, value = (
        part(x).view(heads).transpose(1, 2) for part in (layer.query, layer.key, layer.value)
    )
    dropout = layer.attention_dropout
    share = dropout.p if dropout.training else 0.0
    # torch has no fused kernel with dropout for a CPU, and exports the fused one as more nodes.
    if (share and x.device.type == "cpu") or torch.compiler.is_exporting():
        scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
        context = dropout(functional.softmax(scores if mask is None else scores + mask, -1)) @ value
    else:
        context = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=share
        )
    return _finish(layer, x, context.transpose(1, 2).flatten(2))


def _encode_first(layer: Layer, x: Tensor, mask: Tensor | None) -> Tensor:
    """Compute one layer for the first token: [texts, tokens, size] to [texts, 1, size].

    With one query a head, key and value weights need not meet every token: the key weights go to
    the query, q (W x) = (q W) x, and the value weights to the sum, sum p (W x) = W (sum p x).
    """
    texts, _, size = x.shape
    first = x[:, :1]
    query = layer.query(first).view(texts, layer.heads, -1)  # [texts, heads, size of a head]
    query = query * query.shape[-1] ** -0.5
    key, value = (part.weight.view(layer.heads, -1, size) for part in (layer.key, layer.value))
    key_bias, value_bias = (part.bias.view(layer.heads, -1) for part in (layer.key, layer.value))
    scores = (query.transpose(0, 1) @ key).transpose(0, 1) @ x.transpose(1, 2)
    scores = scores + (query * key_bias).sum(-1, keepdim=True)
    if mask is not None:
        scores = scores + mask.squeeze(1)
    weights = layer.attention_dropout(functional.softmax(scores, -1))  # [texts, heads, tokens]
    sums = (weights @ x).transpose(0, 1) @ value.transpose(1, 2)  # [heads, texts, size of a head]
    context = sums.transpose(0, 1) + weights.sum(-1, keepdim=True) * value_bias
    return _finish(layer, first, context.reshape(texts, 1, size))


def _finish(layer: Layer, x: Tensor, context: Tensor) -> Tensor:
    """Compute what follows attention, token by token."""
    x = layer.attention_norm(layer.attention_output(context) + x)
    result: Tensor = layer.output_norm(layer.feed_forward(x) + x)
    return result
