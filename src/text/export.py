"""Export the trained transformer to ONNX, in fp32 and int8, and prove that both predict like it."""

import logging
import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import onnx
from dvclive.live import Live
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from src.core import stage
from src.core.command_line import Count, Interval, Threads
from src.core.errors import InputError
from src.core.files import replacing
from src.predict.classifier import Classifier
from src.predict.manifest import write_manifest
from src.tables import examples
from src.text.encoder import TorchClassifier
from src.training.onnx_export import to_onnx
from src.training.shortcuts import shorten

Scores = npt.NDArray[np.float32]

log = logging.getLogger("src.text.export")


def main(
    splits: Path,
    model: Path,
    fp32: Path,
    int8: Path,
    live: Path,
    *,
    opset: Annotated[int, Interval(ge=18, le=23)],
    atol: Annotated[float, Interval(gt=0)],
    check_texts: Count,
    batch_tokens: Count,
    threads: Threads,
) -> None:
    """Write two self-contained model folders, and their distance from torch as metrics.

    Args:
        splits: the folder with ``validation.parquet``, whose texts are compared.
        model: the trained transformer.
        fp32: the folder that gets the fp32 model; the stage stops if it differs from torch's.
        int8: the folder that gets the int8 model.
        live: the folder that gets the metrics.
    """
    validation = examples.read(splits / "validation.parquet")["text"]
    # Spread evenly, since the texts may be in the order of their labels.
    rows = np.linspace(0, len(validation) - 1, min(check_texts, len(validation))).astype(int)
    texts = list(validation.iloc[rows])
    trained = TorchClassifier(model, threads)
    expected = trained.logits(texts, batch_tokens)
    with (
        replacing(fp32) as fp32_folder,
        replacing(int8) as int8_folder,
        Live(str(live), dvcyaml=False, save_dvc_exp=False) as record,
    ):
        fp32_folder.mkdir()
        int8_folder.mkdir()
        shorten(trained.model)
        log.info("exporting the graph")
        to_onnx(trained.model, fp32_folder / "model.onnx", opset)
        log.info("quantizing the weights to 8 bits")
        quantize(fp32_folder / "model.onnx", int8_folder / "model.onnx")
        for name, folder in (("fp32", fp32_folder), ("int8", int8_folder)):
            _complete(folder, model, trained)
            found = Classifier(folder, threads).logits(texts, batch_tokens)
            difference = _distance(record, name, found, expected)
            if name == "fp32" and not difference <= atol:
                raise InputError(
                    f"The fp32 logits of {len(texts)} validation texts differ from torch's by up "
                    f"to {difference:.3g}, more than export.atol {atol:g}: raise it if that is "
                    "near enough, or try another export.opset."
                )


def _distance(record: Live, name: str, found: Scores, expected: Scores) -> float:
    """Record how far a model is from torch's, and return the largest difference of a logit."""
    difference = float(np.abs(found - expected).max())
    equal = float((found.argmax(axis=1) == expected.argmax(axis=1)).mean())
    log.info("%s: logits within %.2g of torch, %.4f of labels", name, difference, equal)
    record.log_metric(f"{name}/max_logit_difference", difference, plot=False)
    record.log_metric(f"{name}/equal_labels", equal, plot=False)
    return difference


def quantize(fp32: Path, int8: Path) -> None:
    """Write the model with weights in 8 bits, a scale for each channel, and dynamic activations."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "model.onnx")
        quant_pre_process(fp32, prepared, skip_optimization=True, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        # The runtime has no product with stacked matrices of 8 bits, as of the first token's heads.
        stacked = {weight.name for weight in graph.initializer if len(weight.dims) > 2}
        left = [node.name for node in graph.node if stacked.intersection(node.input)]
        quantize_dynamic(
            prepared, int8, per_channel=True, weight_type=QuantType.QInt8, nodes_to_exclude=left
        )


def _complete(folder: Path, model: Path, trained: TorchClassifier) -> None:
    """Add to ``model.onnx`` the files that predicting from this folder alone takes."""
    # config.json and tokenizer_config.json are for other tools that read such folders.
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(model / name, folder / name)
    write_manifest(
        folder,
        labels=trained.labels,
        max_length=trained.tokenizer.model_max_length,
        max_characters=trained.model.config.max_characters,
        pad_token_id=trained.tokenizer.pad_token_id,
    )


if __name__ == "__main__":
    stage.run(main)
