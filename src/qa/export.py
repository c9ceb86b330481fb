"""Export a reader to ONNX, in fp32 and int8, and prove that both point where it points."""

import json
import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import torch
from dvclive.live import Live
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process
from transformers.modeling_outputs import TokenClassifierOutput

from src.core import stage
from src.core.command_line import Count, Interval, Threads
from src.core.errors import InputError, closest
from src.core.files import replacing
from src.predict.reader.manifest import write_reader_manifest
from src.predict.reader.model import Reader
from src.predict.reader.reading import Asked
from src.predict.reader.spans import Logits, Span
from src.predict.reader.windows import Window
from src.qa import attention
from src.qa import model as models
from src.qa.model import TorchReader
from src.qa.squad import Questions
from src.training.onnx_export import to_onnx

KEPT = 2  # layers whose feed-forward blocks are not wholly in 8 bits
COPIED = ("config.json", "tokenizer.json", "tokenizer_config.json")  # the others of these for tools

log = logging.getLogger("src.qa.export")


def main(
    sets: Path,
    judged: Path,
    fp32: Path,
    int8: Path,
    live: Path,
    *folders: Path,
    reader: str,
    opset: Annotated[int, Interval(ge=18, le=23)],
    atol: Annotated[float, Interval(gt=0)],
    check_questions: Count,
    batch_tokens: Count,
    threads: Threads,
) -> None:
    """Write two self-contained folders, and their distance from torch as metrics.

    Args:
        sets: the folder with ``validation.json``, whose questions are compared.
        judged: the folder with a folder of each reader's ``details.json``, which has the threshold
            and the calibration.
        fp32: the folder that gets the fp32 model; the stage stops if it differs from torch's.
        int8: the folder that gets the int8 model.
        live: the folder that gets the metrics.
        folders: those of the readers.
    """
    places = {folder.name: folder for folder in folders}
    if reader not in places:
        raise InputError(
            f"export.reader is {reader!r}, which is no reader{closest(reader, places)}: write one "
            f"of {', '.join(places)}."
        )
    details = json.loads((judged / reader / "details.json").read_text(encoding="utf-8"))
    validation = Questions.read(sets / "validation.json")
    rows = np.linspace(0, len(validation.questions) - 1, check_questions).astype(int)
    questions = [validation.questions[row] for row in sorted({*rows.tolist()})]
    asked = [Asked(one.text, one.paragraph) for one in questions]
    torch.set_num_threads(threads)
    trained = models.load(str(places[reader]))
    attention.shorten(trained.model)  # whose graph has fewer nodes, and takes a seventh less time
    graph = Pointing(trained)
    with (
        replacing(fp32) as fp32_folder,
        replacing(int8) as int8_folder,
        Live(str(live), dvcyaml=False, save_dvc_exp=False) as record,
    ):
        fp32_folder.mkdir()
        int8_folder.mkdir()
        log.info("exporting the graph")
        to_onnx(graph, fp32_folder / "model.onnx", opset)
        log.info("quantizing the weights to 8 bits")
        _quantize(fp32_folder / "model.onnx", int8_folder / "model.onnx")
        for name, folder in (("fp32", fp32_folder), ("int8", int8_folder)):
            for file in COPIED:
                shutil.copyfile(places[reader] / file, folder / file)
            write_reader_manifest(
                folder,
                {
                    **asdict(trained.reading),
                    "pad_token_id": trained.pad,
                    **details["calibration"],
                    "threshold": details["threshold"],
                },
            )
            found = Reader(folder, threads)
            _compare(record, name, trained, found, validation.texts, asked, batch_tokens, atol)


class Pointing(torch.nn.Module):
    """A reader from ``input_ids`` and ``attention_mask`` to its logits, [windows, tokens, 2].

    Which text a token is of, where a model is told that, follows from the separators, so that what
    computes the graph has to give no more than for a classifier.
    """

    def __init__(self, reader: TorchReader) -> None:
        """Wrap a reader.

        Raises:
            InputError: its model is told types that don't follow from separators.
        """
        super().__init__()
        self.reader = reader.model.eval()
        self._separator = reader.tokenizer.sep_token_id if reader.has_types else None
        a, b = reader.pairs.texts(["a", "b"])
        (window,) = reader.pairs.windows(a, b)
        if reader.has_types and not _types_follow(window, self._separator):
            raise InputError(
                "The tokenizer tells the two texts apart otherwise than by a separator between "
                "them, which is not exported: choose another checkpoint."
            )

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> TokenClassifierOutput:
        """Return logits of starts and ends."""
        given: dict[str, torch.Tensor] = {}
        if self._separator is not None:
            ends = (input_ids == self._separator).long()
            given["token_type_ids"] = (ends.cumsum(1) > ends).long() * attention_mask
        outputs = self.reader(input_ids=input_ids, attention_mask=attention_mask, **given)
        logits: Any = models.stacked(outputs)
        return TokenClassifierOutput(logits=logits)


def _types_follow(window: Window, separator: int | None) -> bool:
    ends = (window.ids == separator).astype(int)
    return bool(((ends.cumsum() > ends) == window.types).all())


def _quantize(fp32: Path, int8: Path) -> None:
    """Write the model with weights in 8 bits, a scale for each channel, and dynamic activations.

    What goes into the second product of a feed-forward block has a few values so large, most of all
    in the first layers, that 8 bits leave little to the others (docs/experiments.md). So these stay
    in fp32 there, and so does the head.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder, "model.onnx")
        quant_pre_process(fp32, prepared, skip_optimization=True, skip_symbolic_shape=True)
        graph = onnx.load(prepared).graph
        narrowing = {
            weight.name
            for weight in graph.initializer
            if len(weight.dims) == 2 and weight.dims[0] > weight.dims[1]
        }
        products = [
            node.name
            for node in graph.node
            if node.op_type in ("MatMul", "Gemm") and narrowing.intersection(node.input)
        ]
        quantize_dynamic(
            prepared,
            int8,
            per_channel=True,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[*products[:KEPT], *products[-1:]],
        )


def _compare(
    record: Live,
    name: str,
    trained: TorchReader,
    found: Reader,
    texts: Sequence[str],
    asked: Sequence[Asked],
    batch_tokens: int,
    atol: float,
) -> None:
    """Record how far a model is from torch's, and refuse one in fp32 that is another."""
    pairs = trained.pairs
    whole = dict(enumerate(pairs.texts(texts)))
    windows = [
        window
        for one, question in zip(asked, pairs.texts([one.text for one in asked]), strict=True)
        for window in pairs.windows(question, whole[one.paragraph])
    ]
    both = (reader.logits(windows, batch_tokens) for reader in (trained, found))
    difference = max(_distance(*pair) for pair in zip(*both, strict=True))
    best = (reader.spans(texts, asked, 1, batch_tokens) for reader in (trained, found))
    equal = float(np.mean([_same(*pair) for pair in zip(*best, strict=True)]))
    log.info("%s: logits within %.2g of torch, %.4f of answers", name, difference, equal)
    record.log_metric(f"{name}/max_logit_difference", difference, plot=False)
    record.log_metric(f"{name}/equal_answers", equal, plot=False)
    if name == "fp32" and not (difference <= atol and equal == 1):
        raise InputError(
            f"On {len(asked)} validation questions the fp32 logits differ from torch's by up to "
            f"{difference:.3g}, where export.atol is {atol:g}, and {equal:.2%} of the answers are "
            "equal: raise atol if that is near enough, or try another export.opset."
        )


def _distance(a: Logits, b: Logits) -> float:
    return float(np.abs(a - b).max())


def _same(a: Sequence[Span], b: Sequence[Span]) -> bool:
    return [one[:2] for one in a] == [one[:2] for one in b]


if __name__ == "__main__":
    stage.run(main)
