"""A classifier that reads the mean of a text's tokens, as sentence encoders are trained to be read.

Its folder is one of sentence-transformers: an encoder, ``1_Pooling``, ``2_Normalize``, and
``3_Dense``, which gives the logits.
"""

import json
import logging
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from src.core.errors import InputError
from src.core.files import write_json

Pooling = Literal["auto", "first", "mean"]

POOLING = "1_Pooling/config.json"
DENSE = "3_Dense"
MODULES = (
    ("", "Transformer"),
    ("1_Pooling", "Pooling"),
    ("2_Normalize", "Normalize"),
    (DENSE, "Dense"),
)

log = logging.getLogger("src.text.pooling")


class MeanClassifier(nn.Module):
    """An encoder, the mean of its last hidden states at length 1, and a linear head.

    As all vectors are of one length, no text is surer than others for its length or its words.

    Attributes:
        base_model: the encoder, from Hugging Face's ``AutoModel``.
        classifier: the head, from vectors [texts, size] to logits [texts, classes].
        config: the encoder's, with the labels.
    """

    def __init__(self, base_model: Any) -> None:
        """Put a head that starts at 0 on an encoder, for the labels that its config has."""
        super().__init__()
        self.base_model = base_model
        self.config: Any = base_model.config
        names = ("classifier_dropout", "hidden_dropout_prob", "seq_classif_dropout")
        shares = [getattr(self.config, name, None) for name in names]
        self.dropout = nn.Dropout(next((share for share in shares if share is not None), 0.0))
        self.classifier = nn.Linear(self.config.hidden_size, self.config.num_labels)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        labels: Tensor | None = None,  # so that Trainer knows that the batches have some
    ) -> SequenceClassifierOutput:
        """Score tokens [texts, tokens]: logits [texts, classes]."""
        mean = self.dropout(self.vectors(input_ids, attention_mask))
        return SequenceClassifierOutput(logits=self.classifier(mean))

    def vectors(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the mean over the tokens of each text, at length 1: [texts, size]."""
        encoded = self.base_model(input_ids=input_ids, attention_mask=attention_mask)
        hidden: Tensor = encoded.last_hidden_state
        there = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return nn.functional.normalize((hidden * there).sum(1))  # a sum points where the mean does

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.classifier.weight.device

    def get_input_embeddings(self) -> Any:
        """Return the table of the tokens."""
        return self.base_model.get_input_embeddings()

    def activation_checkpointing_enable(self, **arguments: Any) -> None:
        """Compute activations of the encoder twice, as Trainer asks for."""
        self.base_model.activation_checkpointing_enable(**arguments)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the encoder as Hugging Face does, and what sentence-transformers reads it by."""
        self.base_model.save_pretrained(folder)
        folder, size = Path(folder), self.config.hidden_size
        modules = [
            {"idx": k, "name": str(k), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for k, (path, kind) in enumerate(MODULES)
        ]
        (folder / "modules.json").write_text(f"{json.dumps(modules, indent=2)}\n", encoding="utf-8")
        for name, _ in MODULES[1:]:
            (folder / name).mkdir(exist_ok=True)
        pooled = {"word_embedding_dimension": size, "pooling_mode_mean_tokens": True}
        pooled["pooling_mode_cls_token"] = False
        write_json(folder / POOLING, pooled)
        dense = {"in_features": size, "out_features": self.config.num_labels, "bias": True}
        identity = "torch.nn.modules.linear.Identity"
        write_json(folder / DENSE / "config.json", {**dense, "activation_function": identity})
        weights = {"linear.weight": self.classifier.weight, "linear.bias": self.classifier.bias}
        detached = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
        save_file(detached, folder / DENSE / "model.safetensors")

    def load_head(self, folder: Path) -> None:
        """Take the head from a folder that ``save_pretrained`` has written."""
        weights = load_file(folder / DENSE / "model.safetensors")
        self.classifier.load_state_dict({k.removeprefix("linear."): v for k, v in weights.items()})


def settle(pooling: Pooling, place: str) -> Literal["first", "mean"]:
    """Look up in the checkpoint at ``place`` what ``auto`` means.

    Raises:
        InputError: what the checkpoint says of it can't be read.
    """
    if pooling != "auto":
        return pooling
    if not (file := _pooling_file(place)):
        return "first"
    try:
        said = json.loads(file.read_text("utf-8"))
        # One name, a list of several whose vectors are joined, or, formerly, a flag for each.
        flags = [name for name in said if name.startswith("pooling_mode_") and said[name]]
        mean = said.get("pooling_mode", flags) in ("mean", ["mean"], ["pooling_mode_mean_tokens"])
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file} is not as sentence-transformers writes it: get the checkpoint anew, or set "
            "probe.pooling to first or mean."
        ) from error
    return "mean" if mean else "first"


def _pooling_file(place: str) -> Path | None:
    if Path(place).is_dir():
        file = Path(place, POOLING)
        return file if file.is_file() else None
    try:
        # That a checkpoint on this machine has none is known without its hub.
        found = try_to_load_from_cache(place, POOLING) or hf_hub_download(place, POOLING)
    except (RemoteEntryNotFoundError, RepositoryNotFoundError, ValueError):
        return None  # most have none; what is no checkpoint is refused elsewhere
    except Exception as error:  # of the network or a disk, by several libraries
        log.warning(
            "Whether %s has %s can't be looked up (%s): probe.pooling auto stands for first, so "
            "set it to mean if that is what the checkpoint was trained for",
            *(place, POOLING, " ".join(str(error).split())[:160]),
        )
        return None
    return Path(found) if isinstance(found, str) else None
