"""Ways to change a language model: which of its weights learn, or which new ones."""

import logging
import os
import warnings
from importlib.util import find_spec
from typing import Any, Literal

import torch
from peft import LoraConfig, PrefixTuningConfig, get_peft_model, prepare_model_for_kbit_training
from transformers import BitsAndBytesConfig

from src.chat import low_rank
from src.core.errors import InputError, closest

Quantization = Literal["none", "8bit", "4bit"]
ALL = "all-linear"
prepare: Any = prepare_model_for_kbit_training  # which is untyped

log = logging.getLogger("src.chat.methods")


def packed(quantization: Quantization, section: str) -> dict[str, Any]:
    """Return how transformers is to load a model whose weights are packed while it learns.

    Raises:
        InputError: this machine can't do that.
    """
    if quantization == "none":
        return {}
    if not find_spec("bitsandbytes"):
        raise InputError(
            f"{section}.quantization is {quantization}, which needs bitsandbytes and a GPU: `pip "
            "install bitsandbytes`, or set it to none."
        )
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    how = four | {"bnb_4bit_compute_dtype": torch.bfloat16}
    eight = {"load_in_8bit": True}
    make: Any = BitsAndBytesConfig  # which is untyped
    own = {"": int(os.environ.get("LOCAL_RANK", 0))}  # each process has a GPU
    config = make(**(how if quantization == "4bit" else eight))
    return {"quantization_config": config, "device_map": own}


def lora(
    model: Any,
    *,
    rank: int,
    alpha: float,
    dropout: float,
    target_modules: list[str],
    use_rslora: bool,
    use_dora: bool,
    activation_checkpointing: bool,
) -> Any:
    """Put adapters of low rank beside linear layers.

    Args:
        model: a causal language model.
        rank: of each adapter.
        alpha: what is added is scaled by alpha / rank, with rsLoRA by alpha / sqrt(rank).
        dropout: of what an adapter reads.
        target_modules: the names of layers, or all-linear.
        use_rslora: see alpha. Source: arXiv 2312.03732.
        use_dora: learn the length of each weight's columns apart. Source: arXiv 2402.09353.
        activation_checkpointing: whether activations will be computed again for the gradients.

    Raises:
        InputError: there is no such layer, or it is the head.
    """
    names = _linear(model)
    if target_modules != [ALL]:
        for name in target_modules:
            if name not in names:
                raise InputError(
                    f"lora.target_modules has {name!r}, which is no linear layer of the model"
                    f"{closest(name, names)}: write {ALL} by itself, or some of "
                    f"{', '.join(names)}."
                )
    if not target_modules:
        raise InputError(
            f"lora.target_modules is empty: write {ALL}, or some of {', '.join(names)}."
        )
    if _is_packed(model):
        model = prepare(model, use_gradient_checkpointing=activation_checkpointing)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type] # it need not be whole
        lora_dropout=dropout,
        target_modules=names if target_modules == [ALL] else target_modules,
        use_rslora=use_rslora,
        use_dora=use_dora,
        task_type="CAUSAL_LM",
    )
    return _counted(_wrapped(model, config))


def prefix(model: Any, *, virtual_tokens: int, init_weights: Literal["random", "zero"]) -> Any:
    """Put keys and values that are learnt before those of what each layer reads: P-Tuning v2.

    Args:
        model: a causal language model.
        virtual_tokens: how many keys and values each layer gets.
        init_weights: what they are at first.

    Raises:
        InputError: PEFT can't do this with the model.

    Source: arXiv 2110.07602.
    """
    if _is_packed(model):
        model = prepare(model, use_gradient_checkpointing=False)
    config = PrefixTuningConfig(
        num_virtual_tokens=virtual_tokens,
        init_weights="zero" if init_weights == "zero" else None,
        task_type="CAUSAL_LM",
    )
    return _counted(_wrapped(model, config))


def all_weights(model: Any) -> Any:
    """Let all weights learn."""
    return _counted(model)


def _wrapped(model: Any, config: Any) -> Any:
    """Put what learns on a model, without what PEFT has to say of its own future."""
    with warnings.catch_warnings(action="ignore"):
        made = get_peft_model(model, config)
    low_rank.quicken(made)
    return made


def trainable(model: Any) -> int:
    """Count the weights that learn."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def _counted(model: Any) -> Any:
    total = sum(weight.numel() for weight in model.parameters())
    learn = trainable(model)
    log.info("%d of %d weights learn, %.3g %%", learn, total, 100 * learn / total)
    return model


def _linear(model: Any) -> list[str]:
    """Return the last parts of the names of all linear layers but the head."""
    head = model.get_output_embeddings()
    found = [
        name.rpartition(".")[2]
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear) and layer is not head
    ]
    return [*dict.fromkeys(found)]


def _is_packed(model: Any) -> bool:
    return getattr(model, "quantization_method", None) is not None
