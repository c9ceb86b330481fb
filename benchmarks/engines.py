"""One engine in a process of its own, and environment of its own, for benchmarks/inference.py.

    python benchmarks/engines.py --convert ENGINE FOLDER CONVERTED
    python benchmarks/engines.py ENGINE FOLDER CONVERTED THREADS

It reads a JSON list of texts a line, with whether they come at once or one by one, and answers with
the label ids and the seconds of each call. Each engine is used as its documentation does, after a
conversion in a process of its own, so that this is not in its peak memory.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Predict = Callable[[Sequence[str]], Sequence[int]]

MATRIX = 2048  # rows and columns of what the machine's rate of arithmetic is measured with
COPY = 2**26  # numbers that its rate of memory is measured with, 256 MiB
BATCH = 32


def pedigree(folder: Path, threads: int, engine: Any) -> Predict:
    """Ours, on one of its engines."""
    from src.predict.classifier import Classifier

    classifier = Classifier(folder, threads, engine)
    return lambda texts: classifier.logits(texts, batch_tokens=1024).argmax(axis=1).tolist()


def _pipeline(model: Any, folder: Path) -> Predict:
    """Hugging Face's pipeline, around a model of whatever library."""
    from transformers import AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(folder)
    classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu")
    ids = {name: int(k) for k, name in model.config.id2label.items()}

    def predict(texts: Sequence[str]) -> list[int]:
        if len(texts) == 1:
            answers = classify(texts[0], truncation=True)
        else:
            answers = classify(list(texts), batch_size=BATCH, truncation=True)
        return [ids[answer["label"]] for answer in answers]

    return predict


def transformers(folder: Path, _: Path, threads: int) -> Predict:
    """The torch model in transformers.pipeline."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    return _pipeline(AutoModelForSequenceClassification.from_pretrained(folder), folder)


def optimum_onnxruntime(folder: Path, converted: Path, threads: int) -> Predict:
    """optimum-onnx, the model exported by it."""
    from onnxruntime import SessionOptions
    from optimum.onnxruntime import ORTModelForSequenceClassification

    options = SessionOptions()
    options.intra_op_num_threads = threads
    model = ORTModelForSequenceClassification.from_pretrained(converted, session_options=options)
    return _pipeline(model, folder)


def convert_for_onnxruntime(folder: Path, converted: Path) -> None:
    """Export by optimum-onnx."""
    from optimum.onnxruntime import ORTModelForSequenceClassification

    ORTModelForSequenceClassification.from_pretrained(folder, export=True).save_pretrained(
        converted
    )


def optimum_openvino(folder: Path, converted: Path, threads: int) -> Predict:
    """optimum-intel, the model converted by it."""
    from optimum.intel import OVModelForSequenceClassification

    settings = {"INFERENCE_NUM_THREADS": str(threads)}
    return _pipeline(
        OVModelForSequenceClassification.from_pretrained(converted, ov_config=settings), folder
    )


def convert_for_openvino(folder: Path, converted: Path) -> None:
    """Convert by optimum-intel."""
    from optimum.intel import OVModelForSequenceClassification

    OVModelForSequenceClassification.from_pretrained(folder, export=True).save_pretrained(converted)


def ctranslate2(folder: Path, converted: Path, threads: int) -> Predict:
    """CTranslate2's encoder and pooling, with the head of the model in torch."""
    import ctranslate2 as ct2
    import numpy as np
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(threads)
    head = AutoModelForSequenceClassification.from_pretrained(folder).classifier
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = ct2.Encoder(str(converted / "ct2"), device="cpu", intra_threads=threads)

    def predict(texts: Sequence[str]) -> list[int]:
        found: list[int] = []
        for start in range(0, len(texts), BATCH):
            ids = tokenizer(list(texts[start : start + BATCH]), truncation=True)["input_ids"]
            pooled = np.array(encoder.forward_batch(ids).pooler_output)
            with torch.inference_mode():
                found += head(torch.as_tensor(pooled)).argmax(dim=1).tolist()
        return found

    return predict


def convert_for_ctranslate2(folder: Path, converted: Path, compute_type: str) -> None:
    """Convert the encoder, in the precision that it is to run in."""
    import ctranslate2 as ct2
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    model.base_model.save_pretrained(converted / "encoder")
    AutoTokenizer.from_pretrained(folder).save_pretrained(converted / "encoder")
    converter = ct2.converters.TransformersConverter(str(converted / "encoder"))
    converter.convert(str(converted / "ct2"), quantization=compute_type)


def limit(threads: int, numbers: tuple[int, ...], *, multiply: bool) -> Predict:
    """No engine: each call multiplies two fp32 matrices, or copies one, whatever the texts."""
    import torch

    torch.set_num_threads(threads)
    a, b = torch.randn(2, *numbers)

    def predict(texts: Sequence[str]) -> list[int]:
        if multiply:
            torch.mm(a, b)
        else:
            b.copy_(a)
        return [0] * len(texts)

    return predict


ENGINES: dict[str, Callable[[Path, Path, int], Predict]] = {
    "transformers.pipeline": transformers,
    "optimum, ONNX Runtime": optimum_onnxruntime,
    "optimum, OpenVINO": optimum_openvino,
    "CTranslate2 fp32": ctranslate2,
    "CTranslate2 int8": ctranslate2,
    "onnx": lambda folder, _, threads: pedigree(folder, threads, "onnxruntime"),
    "onnx-int8": lambda folder, _, threads: pedigree(folder, threads, "onnxruntime"),
    "onnx, openvino": lambda folder, _, threads: pedigree(folder, threads, "openvino"),
    "multiply": lambda _, __, threads: limit(threads, (MATRIX, MATRIX), multiply=True),
    "copy": lambda _, __, threads: limit(threads, (COPY,), multiply=False),
}
CONVERT: dict[str, Callable[[Path, Path], None]] = {
    "optimum, ONNX Runtime": convert_for_onnxruntime,
    "optimum, OpenVINO": convert_for_openvino,
    "CTranslate2 fp32": lambda folder, to: convert_for_ctranslate2(folder, to, "float32"),
    "CTranslate2 int8": lambda folder, to: convert_for_ctranslate2(folder, to, "int8"),
}


def main() -> None:
    """Convert, or answer each line of standard input until there are no more."""
    if sys.argv[1] == "--convert":
        CONVERT[sys.argv[2]](Path(sys.argv[3]), Path(sys.argv[4]))
        return
    name, folder, converted, threads = sys.argv[1], *map(Path, sys.argv[2:4]), int(sys.argv[4])
    answers = os.dup(1)  # libraries print to standard output
    os.dup2(2, 1)
    predict = ENGINES[name](folder, converted, threads)
    with os.fdopen(answers, "w") as output:
        for line in sys.stdin:
            request = json.loads(line)
            seconds, labels = [], []
            calls = [request["texts"]] if request["at_once"] else [[t] for t in request["texts"]]
            for texts in calls:
                start = time.perf_counter()
                labels += list(predict(texts))
                seconds.append(time.perf_counter() - start)
            # getrusage would count what the parent held as it started us.
            status = Path("/proc/self/status").read_text().partition("VmHWM:")[2]
            peak = int(status.split()[0]) / 1024
            answer = {"seconds": seconds, "labels": labels, "peak_mib": peak}
            print(json.dumps(answer), file=output, flush=True)


if __name__ == "__main__":
    main()
