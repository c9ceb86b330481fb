"""A classifier of torch as an ONNX graph, and whether an architecture can become one."""

import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import Dim

from src.core.errors import InputError

# Architectures that the tests take from a checkpoint to predictions. Others are tried beforehand.
KNOWN = {"bert", "roberta", "xlm-roberta", "distilbert", "deberta-v2", "modernbert"}
OPSET = 20  # of a trial; that of the export is a param
DIFFERENCE = 1e-3  # between logits, beyond which a graph is another model

log = logging.getLogger("src.training.onnx_export")


class Logits(torch.nn.Module):
    """A classifier from ``input_ids`` and ``attention_mask``, [texts, tokens], to its logits."""

    def __init__(self, classifier: torch.nn.Module) -> None:
        """Wrap a Hugging Face sequence classifier."""
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return logits of shape [texts, classes]."""
        logits: torch.Tensor = self.classifier(
            input_ids=input_ids, attention_mask=attention_mask
        ).logits
        return logits


def to_onnx(classifier: torch.nn.Module, path: Path, opset: int) -> None:
    """Write one file, equal for equal weights, whose batch and sequence axes are dynamic."""
    import onnx

    tokens = torch.ones((2, 8), dtype=torch.int64, device=next(classifier.parameters()).device)
    axes = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    for name in ("torch.onnx", "onnxscript", "onnx_ir"):  # their warnings are about their own code
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Logits(classifier).eval(),
            (tokens, tokens.clone()),  # one tensor twice would become one input
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            opset_version=opset,
            dynamic_shapes=(axes, axes),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise TypeError("torch.onnx.export with dynamo=True returned no program")
    model = program.model_proto
    # The exporter notes the source lines and paths of this machine on each node.
    for part in (model, model.graph, *model.graph.node):
        del part.metadata_props[:]
    # Its notes on shapes go too: shape inference finds some of them wrong.
    del model.graph.value_info[:]
    onnx.save(model, path)


def refuse_unexportable(classifier: Any, batch: dict[str, torch.Tensor]) -> None:
    """Stop before a training whose model no later stage could use.

    Args:
        classifier: a Hugging Face sequence classifier; one that is known to work is not tried.
        batch: ``input_ids`` and ``attention_mask`` of some texts, [texts, tokens].

    Raises:
        InputError: it can't score texts or be exported, or scores texts otherwise then.
    """
    kind = classifier.config.model_type
    if kind in KNOWN:
        return
    log.info("trying whether a model of %s can be exported", kind)
    library = logging.getLogger("torch")
    level = library.level
    library.setLevel(logging.CRITICAL)  # it prints all of a graph that fails
    try:
        differences = _differences(classifier.eval(), batch)
    except Exception as error:  # of the model, torch's exporter or onnxruntime, each with its own
        cause = error.__cause__ or error
        said = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
        raise InputError(
            f"A model of the architecture {kind} can't be exported to ONNX ({said:.200}), which "
            f"all that follows training needs: choose a checkpoint of another, such as "
            f"{', '.join(sorted(KNOWN))}."
        ) from error
    finally:
        library.setLevel(level)
    if not differences.max() <= DIFFERENCE:
        raise InputError(
            f"A model of the architecture {kind} gives other logits once it is exported, by up to "
            f"{differences.max():.3g}: choose a checkpoint of another, such as "
            f"{', '.join(sorted(KNOWN))}."
        )


def _differences(classifier: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Any:
    """Return how far the logits of an exported model are from torch's: [texts, classes]."""
    import onnxruntime

    with torch.inference_mode():
        expected = Logits(classifier)(**batch).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        to_onnx(classifier, path, OPSET)
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = session.run(["logits"], {name: array.numpy() for name, array in batch.items()})[0]
    return np.abs(found - expected)
