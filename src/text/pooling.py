"""A classifier that reads the mean of a text's tokens, as sentence encoders are trained to be read.

Its folder is one of sentence-transformers: an encoder, ``1_Pooling``, and ``2_Dense``, which gives
the logits.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils.hub import cached_file

from src.core.files import write_json

Pooling = Literal["auto", "first", "mean"]

MODULES = ("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Dense", "Dense")
DENSE = "2_Dense"


class MeanClassifier(nn.Module):
    """An encoder, the mean of its last hidden states, and a linear head.

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
        """Return the mean over the tokens of each text: [texts, size]."""
        encoded = self.base_model(input_ids=input_ids, attention_mask=attention_mask)
        hidden: Tensor = encoded.last_hidden_state
        there = attention_mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * there).sum(1) / there.sum(1)

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
        (folder / "1_Pooling").mkdir(exist_ok=True)
        pooled = {"word_embedding_dimension": size, "pooling_mode_mean_tokens": True}
        pooled["pooling_mode_cls_token"] = False
        write_json(folder / "1_Pooling" / "config.json", pooled)
        (folder / DENSE).mkdir(exist_ok=True)
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


def reads_mean(place: str) -> bool:
    """Tell whether a checkpoint says that it was trained through the mean of its tokens."""
    with suppress(OSError, ValueError):  # most checkpoints say nothing of it
        file = cached_file(place, "1_Pooling/config.json")
        return bool(json.loads(Path(str(file)).read_text("utf-8")).get("pooling_mode_mean_tokens"))
    return False
