"""An exported model folder as a classifier: onnxruntime, tokenizers and numpy, nothing else."""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from src.core.errors import InputError
from src.predict.graph import names_other_files
from src.predict.manifest import Manifest as Manifest
from src.predict.manifest import one_line, read_manifest, refusing, verified
from src.predict.padding import batches

Tokens = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]
Engine = Literal["onnxruntime", "openvino", "cuda"]
Run = Callable[[Tokens, Tokens], Logits]

REMEDY = "get the model again, or lower --batch_tokens where memory is short"
TRIED = ("a text", "and one of other length")  # what a model has to score before it is used


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
        """Verify every file of ``folder``, load it, and try it on two texts.

        Args:
            folder: what the export stage wrote.
            threads: how many CPU threads a batch is computed on.
            engine: what computes: onnxruntime or openvino on the CPU, or onnxruntime on a GPU.

        Raises:
            InputError: a file is missing, is not the one that was exported or can't be used, or the
                engine's package is not installed.
        """
        self.manifest = manifest = read_manifest(folder)
        files = {}
        for name, expected in manifest["files"].items():
            content = verified(folder / name, expected)
            if name in ("model.onnx", "tokenizer.json"):
                files[name] = content
        self.labels = manifest["labels"]
        self.max_length = manifest["max_length"]
        self._max_characters = manifest["max_characters"]
        self._pad_id = manifest["pad_token_id"]
        self._path = folder / "tokenizer.json"
        with refusing(f"{self._path} is not a tokenizer"):
            self._tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
            self._tokenizer.enable_truncation(self.max_length)
            self._tokenizer.no_padding()
        self._graph = folder / "model.onnx"
        self._run = _load(self._graph, files["model.onnx"], threads, engine)
        ids = [row or [self._pad_id] for row in self.encode(TRIED)[0]]
        for batch_tokens in (1, 2 * max(map(len, ids))):  # one by one, and together
            self.score(ids, batch_tokens)

    def logits(self, texts: Sequence[str], batch_tokens: int) -> Logits:
        """Score texts: logits of shape [texts, classes], in the order of ``texts``.

        Texts of like length are scored together, as many as ``batch_tokens`` tokens hold, padding
        included; a text of more tokens is scored alone.
        """
        ids, _ = self.encode(texts)
        return self.score(ids, batch_tokens)

    def encode(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Return the token ids of each text, and whether it was cut at what the model reads.

        Raises:
            InputError: the tokenizer fails on a text.
        """
        short = [text[: self._max_characters] for text in texts]
        with refusing(f"{self._path} can't make tokens of a text"):
            encodings = self._tokenizer.encode_batch_fast(short)
        cut = [
            len(text) > self._max_characters or bool(encoding.overflowing)
            for text, encoding in zip(texts, encodings, strict=True)
        ]
        return [encoding.ids for encoding in encodings], cut

    def score(self, ids: Sequence[list[int]], batch_tokens: int) -> Logits:
        """Score what ``encode`` gave, batched as ``logits`` does: [texts, classes].

        Raises:
            InputError: the graph fails, or gives anything but a finite number for each label.
        """
        scores = np.empty((len(ids), len(self.labels)), dtype=np.float32)
        for rows in batches([len(row) for row in ids], batch_tokens):
            tokens = np.full((len(rows), len(ids[rows[-1]])), self._pad_id, dtype=np.int64)
            mask = np.zeros_like(tokens)
            for i, row in enumerate(rows):
                tokens[i, : len(ids[row])] = ids[row]
                mask[i, : len(ids[row])] = 1
            scores[rows] = self._computed(tokens, mask)
        return scores

    def _computed(self, tokens: Tokens, mask: Tokens) -> Logits:
        """Run the graph on a batch; a shape that only looks like one would be spread over it."""
        with refusing(f"{self._graph} can't score texts", REMEDY):
            found = np.asarray(self._run(tokens, mask))
        expected = len(tokens), len(self.labels)
        if found.shape != expected or found.dtype.kind != "f":
            raise InputError(
                f"{self._graph} gives {expected[0]} texts logits of shape {list(found.shape)} and "
                f"type {found.dtype}, not {list(expected)} and float: get the model again."
            )
        with np.errstate(over="ignore"):
            logits: Logits = found.astype(np.float32, copy=False)
        if not np.isfinite(logits).all():
            raise InputError(
                f"{self._graph} gives logits that are no finite numbers: get the model again."
            )
        return logits

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


def _load(path: Path, model: bytes, threads: int, engine: Engine) -> Run:
    """Return what turns ``input_ids`` and ``attention_mask``, [texts, tokens], into logits.

    The graph is loaded from the bytes that were verified, and names no others.
    """
    with refusing(f"{path} is not a graph in ONNX"):
        elsewhere = names_other_files(model)
    if elsewhere:
        raise InputError(
            f"{path} has values that lie in another file, which is not read: export the model with "
            "all of its values in model.onnx."
        )
    if engine == "openvino":
        return _openvino(path, model, threads)
    return _onnxruntime(path, model, threads, engine)


def _openvino(path: Path, model: bytes, threads: int) -> Run:
    try:
        import openvino
        from openvino.frontend import FrontEndManager
    except ImportError:
        raise InputError(
            "--engine openvino needs the package openvino, which is not installed: "
            "`pip install openvino`, or use another engine."
        ) from None
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    try:
        with refusing(f"{path} is not a graph that OpenVINO loads"):
            # As ONNX: from what the bytes look like, it would load other formats as well.
            onnx = FrontEndManager().load_by_framework("onnx")
            graph = onnx.convert(onnx.load(io.BytesIO(model)))
            compiled = openvino.Core().compile_model(graph, "CPU", settings)
    except InputError as error:
        # It names what it lacks; the rest is about its own source.
        lacking = re.search("No conversion rule found for operations: (.+)", str(error.__cause__))
        if lacking is None:
            raise
        raise InputError(
            f"OpenVINO can't run this model, which has {one_line(lacking[1])}: use --engine "
            "onnxruntime."
        ) from error
    return lambda ids, mask: compiled({"input_ids": ids, "attention_mask": mask})["logits"]


def _onnxruntime(path: Path, model: bytes, threads: int, engine: Engine) -> Run:
    import onnxruntime

    provider = "CUDAExecutionProvider" if engine == "cuda" else "CPUExecutionProvider"
    if provider not in (available := onnxruntime.get_available_providers()):
        raise InputError(
            f"--engine {engine} needs an onnxruntime with {provider}, and this one has "
            f"{', '.join(available)}: `pip install onnxruntime-gpu` in place of onnxruntime, on a "
            "machine with a GPU, or use another engine."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # How long a thread that waits for others keeps its core from other processes: measured, see
    # docs/performance.md.
    options.add_session_config_entry("session.intra_op.spin_duration_us", "500")
    options.log_severity_level = 4  # what it logs has the graph's names raw; what fails is raised
    options.add_session_config_entry("session.load_model_format", "ONNX")  # not its own format
    with refusing(f"{path} is not a graph that onnxruntime loads"):
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
