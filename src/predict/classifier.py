"""An exported model folder as a classifier: onnxruntime, tokenizers and numpy, nothing else."""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from src.core.errors import InputError
from src.predict.manifest import Manifest as Manifest
from src.predict.manifest import read_manifest, verified
from src.predict.padding import batches

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Engine = Literal["onnxruntime", "openvino", "cuda"]


class Prediction(TypedDict):
    """One text's label, its probability, and the probability of each label."""

    label: str
    score: float
    probabilities: dict[str, float]


class Classifier:
    """A model folder: ``manifest.json``, and the files whose sha256 stands in it.

    Attributes:
        manifest: what ``manifest.json`` held.
        labels: the name of each class, in the order of the logits.
        max_length: the tokens of a text that are read, special tokens included.
    """

    def __init__(self, folder: Path, threads: int, engine: Engine = "onnxruntime") -> None:
        """Verify every file of ``folder`` and load it.

        Args:
            folder: what the export stage wrote.
            threads: how many CPU threads a batch is computed on.
            engine: what computes: onnxruntime or openvino on the CPU, or onnxruntime on a GPU.

        Raises:
            InputError: a file is missing or is not the one that was exported, or the engine's
                package is not installed.
        """
        self.manifest = manifest = read_manifest(folder)
        files = {name: verified(folder / name, sha) for name, sha in manifest["files"].items()}
        self.labels = manifest["labels"]
        self.max_length = manifest["max_length"]
        self._max_characters = manifest["max_characters"]
        self._tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
        self._tokenizer.enable_truncation(self.max_length)
        self._tokenizer.no_padding()
        self._pad_id = manifest["pad_token_id"]
        # From bytes, so that what runs is what was verified and no other file can be read.
        self._run = _load(files["model.onnx"], threads, engine)

    def logits(self, texts: Sequence[str], batch_tokens: int) -> Logits:
        """Score texts: logits of shape [texts, classes], in the order of ``texts``.

        Texts of like length are scored together, as many as ``batch_tokens`` tokens hold, padding
        included; a text of more tokens is scored alone.
        """
        ids, _ = self.encode(texts)
        return self.score(ids, batch_tokens)

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Return the token ids of each text, and whether it was cut at what the model reads."""
        short = [text[: self._max_characters] for text in texts]
        encodings = self._tokenizer.encode_batch_fast(short)
        cut = [
            len(text) > self._max_characters or bool(encoding.overflowing)
            for text, encoding in zip(texts, encodings, strict=True)
        ]
        return [encoding.ids for encoding in encodings], cut

    def score(self, ids: Sequence[list[int]], batch_tokens: int) -> Logits:
        """Score what ``encode`` gave, batched as ``logits`` does: [texts, classes]."""
        scores = np.empty((len(ids), len(self.labels)), dtype=np.float32)
        for rows in batches([len(row) for row in ids], batch_tokens):
            tokens = np.full((len(rows), len(ids[rows[-1]])), self._pad_id, dtype=np.int64)
            mask = np.zeros_like(tokens)
            for i, row in enumerate(rows):
                tokens[i, : len(ids[row])] = ids[row]
                mask[i, : len(ids[row])] = 1
            scores[rows] = self._run(tokens, mask)
        return scores

    def predict(self, texts: Sequence[str], batch_tokens: int) -> Iterator[Prediction]:
        """Yield ``label``, ``score`` and ``probabilities`` by label for each text."""
        for row in softmax(self.logits(texts, batch_tokens)):
            best = int(row.argmax())
            yield {
                "label": self.labels[best],
                "score": float(row[best]),
                "probabilities": dict(zip(self.labels, row.tolist(), strict=True)),
            }


def softmax(logits: Logits) -> npt.NDArray[np.float64]:
    """Turn logits into probabilities of shape [texts, classes]."""
    wide = logits.astype(np.float64)
    exponentials = np.exp(wide - wide.max(axis=1, keepdims=True))
    probabilities: npt.NDArray[np.float64] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def _load(model: bytes, threads: int, engine: Engine) -> Callable[[Tokens, Tokens], Logits]:
    """Return what turns ``input_ids`` and ``attention_mask``, [texts, tokens], into logits."""
    if engine == "openvino":
        try:
            import openvino
        except ImportError:
            raise InputError(
                "--engine openvino needs the package openvino, which is not installed: "
                "`pip install openvino`, or use another engine."
            ) from None
        core = openvino.Core()
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        try:
            compiled = core.compile_model(core.read_model(model), "CPU", settings)
        except RuntimeError as error:
            # It names what it lacks; the rest is about its own source.
            lacking = re.search("No conversion rule found for operations: (.+)", str(error))
            if lacking is None:
                raise
            raise InputError(
                f"OpenVINO can't run this model, which has {lacking[1].strip()}: use --engine "
                "onnxruntime."
            ) from error
        return lambda ids, mask: compiled({"input_ids": ids, "attention_mask": mask})["logits"]

    import onnxruntime

    provider = {"onnxruntime": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[engine]
    if provider not in (available := onnxruntime.get_available_providers()):
        raise InputError(
            f"--engine {engine} needs an onnxruntime with {provider}, and this one has "
            f"{', '.join(available)}: `pip install onnxruntime-gpu` in place of onnxruntime, on a "
            "machine with a GPU, or use another engine."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=[provider])
    if provider not in session.get_providers():  # it falls back to the CPU with no more than a line
        raise InputError(
            f"--engine {engine} needs a GPU, and {provider} does not start here: see its message "
            "above, or use another engine."
        )

    def run(ids: Tokens, mask: Tokens) -> Logits:
        feed = {"input_ids": ids, "attention_mask": mask}
        scores: Logits = session.run(["logits"], feed)[0]
        return scores

    return run
