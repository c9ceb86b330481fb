"""Pack the weights of linear layers into 4 bits, in the form of compressed-tensors.

It is vLLM's own form of 4 bits, and transformers unpacks it as it loads. Rounding follows GPTQ:
what one column of a weight loses is made up for by those after it, as far as the inputs of the
layer that calibration rows give allow it.
"""

import io
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from typing import Annotated, Any

import torch
from compressed_tensors.compressors import ModelCompressor
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationConfig,
    QuantizationScheme,
    QuantizationStatus,
    apply_quantization_config,
)
from compressed_tensors.quantization.utils import calculate_qparams

from src.chat import conversations, models, scoring
from src.chat.rendering import Renderer, Row
from src.core import stage
from src.core.command_line import Count, Interval, Threads
from src.core.errors import InputError
from src.core.files import replacing

BITS = 4
AT_ONCE = 2 << 30  # bytes of what is kept of the inputs of several layers

log = logging.getLogger("src.chat.quantize")


def main(
    divided: Path,
    whole: Path,
    packed: Path,
    *,
    group_size: Annotated[int, Interval(ge=16)],
    calibration_rows: Count,
    damping: Annotated[float, Interval(gt=0, lt=1)],
    threads: Threads,
) -> None:
    """Write the model in a folder with its linear layers, but for the head, in 4 bits.

    Args:
        divided: the folder with ``train.jsonl``, some rows of which are read for calibration.
        whole: the folder of the model.
        packed: the folder that gets the smaller one.

    Raises:
        InputError: a layer's inputs can't be divided into groups of that size.
    """
    torch.set_num_threads(threads)
    model = models.load(whole, torch.float32).eval()
    layers = _layers(model)
    for name, layer in layers.items():
        if layer.in_features % group_size:
            raise InputError(
                f"quantize.group_size is {group_size}, and {name} has {layer.in_features} inputs: "
                "choose a number that divides them."
            )
    tokenizer = models.tokenizer(whole)
    rows = _rows(divided / "train.jsonl", Renderer(tokenizer), calibration_rows, model)
    arguments = QuantizationArgs(
        num_bits=BITS, type="int", symmetric=True, strategy="group", group_size=group_size
    )
    kept = getattr(torch, models.record(whole)["dtype"])
    scales: dict[str, torch.Tensor] = {}
    rounded: dict[str, torch.Tensor] = {}
    for some in _at_once(layers):
        for name, inputs in _squares(model, some, rows, tokenizer.pad_token_id).items():
            weight = layers[name].weight.detach()
            rounded[name], scales[name] = gptq(weight, inputs, arguments, damping, kept)
        log.info("%d of %d layers", len(rounded), len(layers))
    _prepare(model, arguments, rounded, scales)
    model.to(kept)
    with replacing(packed) as folder:
        folder.mkdir()
        compressor = ModelCompressor.from_pretrained_model(model)
        with redirect_stderr(io.StringIO()):  # where it draws a bar, terminal or not
            compressor.compress_model(model)
        model.save_pretrained(folder)
        compressor.update_config(str(folder))
        models.copy_tokenizer(whole, folder)
        learnt = models.record(whole).get("learnt", 0)
        models.write_record(whole, folder, f"W{BITS}A16, groups of {group_size}", learnt)
        models.make_readable(folder)
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    log.info("%d layers in %d bits, %d bytes", len(layers), BITS, size)


def gptq(
    weight: torch.Tensor,
    squares: torch.Tensor,
    arguments: QuantizationArgs,
    damping: float,
    dtype: torch.dtype,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Round a weight so that what a layer gives changes little.

    Source: Frantar et al., GPTQ, 2023, algorithm 1; a block of columns is a group here.

    Args:
        weight: [outputs, inputs].
        squares: the sum of the outer products of what the layer reads, [inputs, inputs].
        arguments: bits and group size.
        damping: what is added to the diagonal of ``squares``, as a share of its mean.
        dtype: of the scales that are kept.

    Returns:
        the weight, each value a whole multiple of its scale, and the scales, [outputs, groups].
    """
    left, inputs = weight.double().clone(), weight.shape[1]
    size = arguments.group_size or inputs
    squares = squares.double().clone()
    unread = squares.diagonal() == 0
    left[:, unread] = 0
    squares.diagonal()[unread] = 1
    squares.diagonal().add_(damping * squares.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(squares))
    factor = torch.linalg.cholesky(inverse, upper=True)
    rounded, scales = torch.empty_like(left), []
    low, high = -(2 ** (arguments.num_bits - 1)), 2 ** (arguments.num_bits - 1) - 1
    for start in range(0, inputs, size):
        end = start + size
        part = left[:, start:end]
        found, _ = calculate_qparams(part.amin(1).float(), part.amax(1).float(), arguments)
        scale = found.to(dtype).double()  # as it will be when others read it
        scales.append(found.to(dtype).float())
        lost = torch.empty_like(part)
        for column in range(size):
            place = start + column
            value = (part[:, column] / scale).round().clamp(low, high) * scale
            lost[:, column] = (part[:, column] - value) / factor[place, place]
            part[:, column:] -= lost[:, column, None] * factor[place, place:end]
            rounded[:, place] = value
        left[:, end:] -= lost @ factor[start:end, end:]
    return rounded.float(), torch.stack(scales, 1)


def _layers(model: Any) -> dict[str, torch.nn.Linear]:
    head = model.get_output_embeddings()
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    }


def _at_once(layers: Mapping[str, torch.nn.Linear]) -> Iterator[dict[str, torch.nn.Linear]]:
    """Yield as many layers as there is room for what is kept of their inputs."""
    some: dict[str, torch.nn.Linear] = {}
    size = 0
    for name, layer in layers.items():
        needed = 4 * layer.in_features**2
        if some and size + needed > AT_ONCE:
            yield some
            some, size = {}, 0
        some[name] = layer
        size += needed
    yield some


def _rows(path: Path, renderer: Renderer, count: int, model: Any) -> list[Row]:
    most = models.longest(model)
    every = [row for one in conversations.read(path) for row in renderer.rows(one)]
    chosen = every[:: -(-len(every) // count)]  # as they are in order of their source
    return [Row(row.ids[:most], row.learnt[:most]) for row in chosen]


@torch.inference_mode()
def _squares(
    model: Any, layers: Mapping[str, torch.nn.Linear], rows: Sequence[Row], pad_token_id: int
) -> dict[str, torch.Tensor]:
    """Sum up the outer products of what each layer reads of some rows, row by row."""
    found = {
        name: torch.zeros(layer.in_features, layer.in_features) for name, layer in layers.items()
    }

    def watch(name: str) -> Callable[[torch.nn.Module, tuple[torch.Tensor, ...]], None]:
        def add(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
            read = given[0].reshape(-1, given[0].shape[-1]).float()
            found[name].addmm_(read.T, read)

        return add

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        for row in rows:
            batch = scoring.collate([row], pad_token_id)
            model(batch["input_ids"], use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _prepare(
    model: Any,
    arguments: QuantizationArgs,
    rounded: Mapping[str, torch.Tensor],
    scales: Mapping[str, torch.Tensor],
) -> None:
    """Put rounded weights and their scales where compressed-tensors looks for them."""
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    head = [name for name, m in model.named_modules() if m is model.get_output_embeddings()]
    config = QuantizationConfig(config_groups={"group_0": scheme}, ignore=head)
    apply_quantization_config(model, config, show_progress=False)
    for name, weight in rounded.items():
        layer = model.get_submodule(name)
        layer.weight.data.copy_(weight)
        layer.weight_scale.data = scales[name]
        layer.quantization_status = QuantizationStatus.FROZEN


if __name__ == "__main__":
    stage.run(main)
