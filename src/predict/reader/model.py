"""An exported folder as a reader: onnxruntime, tokenizers and numpy, nothing else."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from src.core.errors import InputError
from src.predict.engines import Engine, EngineOption, Tokens, choice, load
from src.predict.foreign import refusing, verified
from src.predict.padding import batches
from src.predict.reader.calibration import Calibration
from src.predict.reader.manifest import read_reader_manifest
from src.predict.reader.reading import Asked, prepare
from src.predict.reader.spans import Logits, Span
from src.predict.reader.windows import Ids, Pairs, Window

REMEDY = "get the model again, or lower --batch_tokens where memory is short"
TRIED = ("who wrote this ?", "nobody knows who wrote this , or why")  # what it has to read first


class Reader:
    """A folder of a reader: ``manifest.json``, and the files whose sha256 stands in it.

    Attributes:
        manifest: what ``manifest.json`` held.
        pairs: makes windows of a question and a paragraph.
        calibration: tells the probability of an answer.
        engine: what computes.
    """

    engine: Engine

    def __init__(self, folder: Path, threads: int, engine: EngineOption = "onnxruntime") -> None:
        """Verify every file of ``folder``, load it, and try it.

        Args:
            folder: what the export stage wrote.
            threads: how many CPU threads a batch is computed on.
            engine: what computes, as for a classifier; auto is the faster one here.

        Raises:
            InputError: a file is missing, is not the one that was exported or can't be used, or the
                engine's package is not installed.
        """
        self.manifest = manifest = read_reader_manifest(folder)
        files = {}
        for name, expected in manifest.files.items():
            content = verified(folder / name, expected)
            if name in ("model.onnx", "tokenizer.json"):
                files[name] = content
        self.calibration = Calibration(manifest.slope, manifest.intercept)
        path = folder / "tokenizer.json"
        with refusing(f"{path} is not a tokenizer"):
            tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
        with refusing(f"{folder} can't read pairs of texts"):
            self.pairs = Pairs(
                tokenizer, manifest.max_length, manifest.stride, manifest.max_question
            )
        self._graph = folder / "model.onnx"
        self.engine = choice(self._graph, files["model.onnx"])[0] if engine == "auto" else engine
        self._run = load(self._graph, files["model.onnx"], threads, self.engine)
        windows = prepare(self.pairs, TRIED, [Asked(TRIED[0], 0), Asked(TRIED[0], 1)]).windows
        for batch_tokens in (1, 2 * max(len(one.ids) for one in windows)):  # alone, and together
            self.logits(windows, batch_tokens)

    def spans(
        self, texts: Sequence[str], asked: Sequence[Asked], top: int, batch_tokens: int
    ) -> list[list[Span]]:
        """Return the best spans of a paragraph for each question on it, the best first.

        Args:
            texts: paragraphs.
            asked: questions, each with the row of a paragraph.
            top: how many spans.
            batch_tokens: of the windows that are read at once, padding included.
        """
        prepared = prepare(self.pairs, texts, asked)
        logits = self.logits(prepared.windows, batch_tokens)
        return prepared.spans(logits, self.manifest.max_answer, top)

    def logits(self, windows: Sequence[Window], batch_tokens: int) -> list[Logits]:
        """Return the start and end of each token of each window, [tokens, 2]."""
        return self.read([one.ids for one in windows], batch_tokens)

    def read(self, rows: Sequence[Ids], batch_tokens: int) -> list[Logits]:
        """Return the same of windows by the ids of their tokens.

        Raises:
            InputError: the graph fails, or gives anything but two finite numbers for each token.
        """
        found: list[Logits] = [np.empty((0, 2), np.float32)] * len(rows)
        for batch in batches([len(ids) for ids in rows], batch_tokens):
            longest = len(rows[batch[-1]])
            tokens = np.full((len(batch), longest), self.manifest.pad_token_id, dtype=np.int64)
            mask = np.zeros_like(tokens)
            for place, row in enumerate(batch):
                tokens[place, : len(rows[row])] = rows[row]
                mask[place, : len(rows[row])] = 1
            both = self._computed(tokens, mask)
            for row, logits in zip(batch, both, strict=True):
                found[row] = logits[: len(rows[row])]
        return found

    def _computed(self, tokens: Tokens, mask: Tokens) -> Logits:
        with refusing(f"{self._graph} can't read", REMEDY):
            found = np.asarray(self._run(tokens, mask))
        expected = (*tokens.shape, 2)
        if found.shape != expected or found.dtype.kind != "f":
            raise InputError(
                f"{self._graph} gives logits of shape {list(found.shape)} and type {found.dtype}, "
                f"not {list(expected)} and float: get the model again."
            )
        with np.errstate(over="ignore"):
            logits: Logits = found.astype(np.float32, copy=False)
        if not np.isfinite(logits).all():
            raise InputError(
                f"{self._graph} gives logits that are no finite numbers: get the model again."
            )
        return logits
