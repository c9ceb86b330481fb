"""What a model has read, from which it goes on to answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


@dataclass(frozen=True)
class Reading:
    """Prompts that a model has read, which end together.

    Attributes:
        ids: their tokens, [prompts, tokens]; what pads them on the left repeats one of them.
        mask: 0 for padding, of what is in the cache, [prompts, tokens].
        cache: the keys and values of what was read.
        scores: of the next token, [prompts, words].
    """

    ids: torch.Tensor
    mask: torch.Tensor
    cache: Any
    scores: torch.Tensor


def joins(cache: Any) -> bool:
    """Tell whether ``together`` puts caches such as this together, and padded rows are right in it.

    Some layers keep a state of their own beside keys and values, or in their place. And padding
    between a prefix and its prompt would be a part of what a sliding window sees.

    Args:
        cache: as it is before a prompt.
    """
    kinds = {type(layer) for layer in cache.layers}
    with_prefix = cache.get_seq_length() > 0 and DynamicSlidingWindowLayer in kinds
    return kinds <= {DynamicLayer, DynamicSlidingWindowLayer} and not with_prefix


def together(readings: Sequence[Reading]) -> Reading:
    """Put readings into one, row after row; their caches are used up."""
    if len(readings) == 1:
        return readings[0]
    cache = max(readings, key=lambda reading: reading.mask.shape[1]).cache
    for place, layer in enumerate(cache.layers):
        layers = [reading.cache.layers[place] for reading in readings]
        if layer.is_initialized:  # others share what one before them has
            keys = _joined([each.keys for each in layers], -2)
            values = _joined([each.values for each in layers], -2)
            for each in layers:
                each.keys = each.values = None
            layer.keys, layer.values = keys, values
    ids = _joined([reading.ids for reading in readings], -1, -1)
    mask = _joined([reading.mask for reading in readings], -1)
    scores = torch.cat([reading.scores for reading in readings])
    return Reading(torch.where(ids < 0, ids[:, -1:], ids), mask, cache, scores)


def narrow(cache: Any, kept: torch.Tensor) -> bool:
    """Leave out what all rows have in some places, and tell whether that can be done.

    Args:
        cache: of what was read.
        kept: whether each token stays, [tokens].
    """
    if any(type(layer) is not DynamicLayer for layer in cache.layers):  # a window counts by itself
        return False
    for layer in cache.layers:
        if layer.is_initialized:
            layer.keys, layer.values = (each[..., kept, :] for each in (layer.keys, layer.values))
    return True


def _joined(parts: Sequence[torch.Tensor], axis: int, padding: int = 0) -> torch.Tensor:
    """Put rows together, padded before what they have along a negative axis, to the longest."""
    inner = [0, 0] * (-axis - 1)
    longest = max(part.shape[axis] for part in parts)
    return torch.cat(
        [
            torch.nn.functional.pad(part, [*inner, longest - part.shape[axis], 0], value=padding)
            for part in parts
        ]
    )
