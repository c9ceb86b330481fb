"""An exported model folder as a classifier: onnxruntime, tokenizers and numpy, nothing else."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from src.core.errors import InputError
from src.predict.engines import Engine, EngineOption, Tokens, choice, load
from src.predict.engines import Logits as Logits
from src.predict.foreign import refusing, verified
from src.predict.manifest import Manifest as Manifest
from src.predict.manifest import read_manifest
from src.predict.padding import batches

REMEDY = "get the model again, or lower --batch_tokens where memory is short"
TRIED = ("a text", "and one of other length")  # what a model has to score before it is used

log = logging.getLogger("src.predict.classifier")


Field = Literal["label", "guess", "score"]
Probabilities = npt.NDArray[np.float64]


class Answer(NamedTuple):
    """What a model says of a text.

    Attributes:
        label: the label of the highest probability, None where that is below ``min_score``.
        guess: the same, however low its probability.
        score: that probability.
    """

    label: str | None
    guess: str
    score: float


class RecordAnswer(NamedTuple):
    """What a model of tables says of a record.

    Attributes:
        label: what is decided for.
        probability: that of the positive label; where there are more than two, that of ``label``.
    """

    label: str
    probability: float


class Guess(TypedDict, total=False):
    """The best guess of a model that does not always give a label."""

    guess: str


class Prediction(Guess):
    """One text's label, its probability, and the probability of each label."""

    label: str | None
    score: float
    probabilities: dict[str, float]


class Classifier:
    """A model folder: ``manifest.json``, and the files whose sha256 stands in it.

    Attributes:
        manifest: what ``manifest.json`` held.
        labels: the name of each class, in the order of the logits.
        max_length: the tokens of a text that are read, special tokens included.
        min_score: the least probability with which a label is given; below it there is none.
        fields: what an answer is shown with: label and score, and the guess where a label may be
            missing, since it is always the label elsewhere.
        engine: what computes.
    """

    engine: Engine

    def __init__(
        self,
        folder: Path,
        threads: int,
        engine: EngineOption = "onnxruntime",
        min_score: float | Literal["model"] = "model",
    ) -> None:
        """Verify every file of ``folder``, load it, and try it on two texts.

        Args:
            folder: what the export stage wrote.
            threads: how many CPU threads a batch is computed on.
            engine: what computes: onnxruntime or openvino on the CPU, onnxruntime on a GPU (cuda),
                or auto: whichever of the first two is faster here for this model.
            min_score: the least probability with which a label is given, from 0 on and below 1;
                model is the one that the manifest names.

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
        self.min_score = float(manifest["min_score"] if min_score == "model" else min_score)
        guess: tuple[Field, ...] = ("guess",) if self.min_score > 0 else ()
        self.fields: tuple[Field, ...] = ("label", *guess, "score")
        self._max_characters = manifest["max_characters"]
        self._pad_id = manifest["pad_token_id"]
        self._path = folder / "tokenizer.json"
        with refusing(f"{self._path} is not a tokenizer"):
            self._tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
            self._tokenizer.enable_truncation(self.max_length)
            self._tokenizer.no_padding()
        self._graph = folder / "model.onnx"
        if engine == "auto":
            self._choose(files["model.onnx"], threads)
        else:
            self._start(files["model.onnx"], threads, engine)

    def _choose(self, model: bytes, threads: int) -> None:
        """Start the graph on the engine that is faster here, and log which and why."""
        engine, why = choice(self._graph, model)
        try:
            self._start(model, threads, engine)
        except InputError as error:
            if engine == "onnxruntime":
                raise
            self._start(model, threads, "onnxruntime")
            why = f"ONNX Runtime, since OpenVINO fails on this model: {error}"
        log.info("%s: computing with %s", self._graph.parent, why)

    def _start(self, model: bytes, threads: int, engine: Engine) -> None:
        """Load the graph, and try it on two texts."""
        self.engine = engine
        self._run = load(self._graph, model, threads, engine)
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

    def answers(self, probabilities: Probabilities) -> list[Answer]:
        """Turn probabilities of shape [texts, classes] into an answer for each text."""
        answers = []
        for best, score in zip(
            probabilities.argmax(axis=1).tolist(), probabilities.max(axis=1).tolist(), strict=True
        ):
            guess = self.labels[best]
            answers.append(Answer(guess if score >= self.min_score else None, guess, score))
        return answers

    def predict(self, texts: Sequence[str], batch_tokens: int) -> Iterator[Prediction]:
        """Yield ``label``, ``score`` and ``probabilities`` by label for each text.

        Where ``min_score`` is above 0, ``guess`` stands after ``label``.
        """
        probabilities = softmax(self.logits(texts, batch_tokens))
        for answer, row in zip(self.answers(probabilities), probabilities, strict=True):
            guess: Guess = {"guess": answer.guess} if "guess" in self.fields else {}
            yield {
                "label": answer.label,
                **guess,
                "score": answer.score,
                "probabilities": dict(zip(self.labels, row.tolist(), strict=True)),
            }


def softmax(logits: Logits) -> Probabilities:
    """Turn logits into probabilities of shape [texts, classes]."""
    wide = logits.astype(np.float64)
    exponentials = np.exp(wide - wide.max(axis=1, keepdims=True))
    probabilities: Probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities
