"""The transformer in torch: load a checkpoint, turn texts into tokens, score texts.

A model folder is what ``save_pretrained`` writes: ``model.safetensors``, ``config.json`` with the
labels and ``max_characters``, and a tokenizer whose ``model_max_length`` is the length in tokens.
It is one of Hugging Face's sequence classifiers, or a ``MeanClassifier``.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerBase

from src.core.errors import InputError
from src.predict.padding import batches
from src.tables import examples
from src.text.pooling import DENSE, MeanClassifier
from src.training import pretrained

Tokens = npt.NDArray[np.int32]

MOST_UNKNOWN = 0.5  # share of the tokens, or of texts without any
CHUNK = 10_000  # texts that are tokenized at once: what comes back is large


def load(
    place: str, *, new_head: bool, pooling: Literal["first", "mean"] = "first", **config: Any
) -> tuple[Any, PreTrainedTokenizerBase]:
    """Load a classifier and its tokenizer, as ``pretrained.from_pretrained`` does.

    Args:
        place: a folder or a Hugging Face name.
        new_head: whether it is to get a new head, and is not a folder that was trained here.
        pooling: what a new head reads: the first token, or the mean of all.
        config: overrides the model's own config.

    Raises:
        InputError: likewise, or the tokenizer has no padding token, or pads on the left.
    """
    mean = pooling == "mean" if new_head else Path(place, DENSE).is_dir()
    kind = AutoModel if mean else AutoModelForSequenceClassification
    model, tokenizer = pretrained.from_pretrained(place, kind, new_head=new_head, **config)
    if mean:
        model = MeanClassifier(model)
        if not new_head:
            model.load_head(Path(place))
    if new_head:
        model.config.pooling = pooling
    if tokenizer.padding_side != "right":
        raise InputError(
            f"The tokenizer of {place} pads texts on the left, as models that go on with a text "
            "want it: choose a checkpoint of an encoder, such as BERT's or XLM-R's."
        )
    if tokenizer.pad_token_id is None:
        raise InputError(
            f"The tokenizer of {place} has no padding token: choose a checkpoint of an encoder, "
            "such as BERT's or XLM-R's."
        )
    return model, tokenizer


def labels_of(model: Any) -> list[str]:
    """Return the labels of a classifier in the order of its logits."""
    by_id: dict[int, str] = model.config.id2label
    return [by_id[k] for k in sorted(by_id)]


def readable(model: Any, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the length of the longest text that a checkpoint reads, in tokens."""
    positions = getattr(model.config, "max_position_embeddings", tokenizer.model_max_length)
    embeddings = getattr(model.base_model, "embeddings", None)
    # RoBERTa's positions begin after that of padding.
    positions -= getattr(embeddings, "padding_idx", -1) + 1
    return int(min(tokenizer.model_max_length, positions))


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, max_characters: int
) -> list[Tokens]:
    """Return the token ids of each text, special tokens included, at most ``max_length`` a text.

    A text is cut to ``max_characters`` first, since a tokenizer reads all it is given.
    """
    backend = tokenizer.backend_tokenizer  # on all cores, and without what only readers need
    backend.enable_truncation(max_length)
    backend.no_padding()
    ids: list[Tokens] = []
    for start in range(0, len(texts), CHUNK):
        short = [text[:max_characters] for text in texts[start : start + CHUNK]]
        encoded = backend.encode_batch_fast(short)
        ids += [np.array(encoding.ids, dtype=np.int32) for encoding in encoded]
    return ids


def refuse_unknown(tokenizer: PreTrainedTokenizerBase, ids: Sequence[Tokens]) -> None:
    """Stop if the tokenizer knows less than half of the texts that it has made these ids of.

    Raises:
        InputError: of most texts it leaves nothing, or most tokens are the unknown one.
    """
    special = tokenizer.num_special_tokens_to_add()
    lengths = np.array([len(row) for row in ids]) - special
    unknown = sum(int((row == tokenizer.unk_token_id).sum()) for row in ids)
    share = max(float((lengths <= 0).mean()), unknown / max(1, int(lengths.sum())))
    if share > MOST_UNKNOWN:
        raise InputError(
            f"The tokenizer of {tokenizer.name_or_path} does not know {share:.0%} of the texts "
            "that would be learnt from: get the checkpoint with all its tokenizer's files, or "
            "choose one for the language of the texts."
        )


def collate(ids: Sequence[Tokens], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad texts to the longest: ``input_ids`` and ``attention_mask``, [texts, tokens]."""
    rows = [torch.from_numpy(row) for row in ids]
    padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=pad_token_id)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(padded.shape[1]) < lengths[:, None]
    return {"input_ids": padded.long(), "attention_mask": mask.long()}


class Texts(torch.utils.data.Dataset[dict[str, Any]]):
    """Tokenized texts, and the id of the label of each."""

    def __init__(self, ids: Sequence[Tokens], labels: npt.NDArray[np.int64]) -> None:
        """Hold one array of token ids a text."""
        self.ids = ids
        self.labels = labels

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"input_ids": self.ids[row], "labels": self.labels[row]}

    @classmethod
    def read(cls, path: Path, tokenizer: Any, labels: list[str], max_characters: int) -> Self:
        """Read the texts of a split, with the tokens that the tokenizer makes of them."""
        frame = examples.read(path)
        length = tokenizer.model_max_length
        ids = tokenize(tokenizer, list(frame["text"]), length, max_characters)
        return cls(ids, examples.label_ids(frame, labels))

    def by_length(self) -> "Texts":
        """Return the same texts with neighbours of like length, which pad less."""
        order = np.argsort([len(row) for row in self.ids], kind="stable")
        return Texts([self.ids[k] for k in order], self.labels[order])


def loss_of(ids: Any, class_weight: str, label_smoothing: float) -> Callable[..., torch.Tensor]:
    """Return cross-entropy, summed over a batch and divided by the texts of the whole step."""
    weight = None
    if class_weight == "balanced":  # n / (classes * count), so that the mean over all texts is 1
        counts = np.bincount(ids)
        weight = torch.tensor(len(ids) / (len(counts) * counts), dtype=torch.float32)

    def loss(
        outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        scores = outputs["logits"].float()
        total = torch.nn.functional.cross_entropy(
            scores,
            labels,
            weight=None if weight is None else weight.to(scores.device),
            label_smoothing=label_smoothing,
            reduction="sum",
        )
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    return loss


def head_of(model: Any, text: Tokens) -> torch.nn.Linear | None:
    """Find the layer whose output is the logits; None if what it gives is changed afterwards."""
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    heads = [layer for layer in linear if layer.out_features == model.config.num_labels]
    if not heads:
        return None
    given: list[torch.Tensor] = []
    handle = heads[-1].register_forward_hook(lambda _, __, output: given.append(output))
    [(_, logits)] = scored(model, [text], 0, len(text))
    handle.remove()
    return heads[-1] if given and torch.equal(given[-1], logits) else None


def divide(head: torch.nn.Linear, divisor: float) -> None:
    """Divide what a layer gives."""
    with torch.no_grad():
        for weight in head.parameters():
            weight.div_(divisor)


def scored(
    model: Any, ids: Sequence[Tokens], pad_token_id: int, batch_tokens: int
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield the rows of a batch of texts of like length, and their logits, [rows, classes].

    A batch has as many texts as ``batch_tokens`` tokens hold, padding included; a text of more
    tokens is alone in one.
    """
    model.eval()
    for rows in batches([len(row) for row in ids], batch_tokens):
        batch = collate([ids[row] for row in rows], pad_token_id)
        with torch.inference_mode():
            output = model(**{k: v.to(model.device) for k, v in batch.items()})
        yield rows, output.logits


def logits_of(
    model: Any, ids: Sequence[Tokens], pad_token_id: int, batch_tokens: int
) -> npt.NDArray[np.float32]:
    """Return the logits of texts, [texts, classes], batched as ``scored`` does."""
    found = np.empty((len(ids), model.config.num_labels), dtype=np.float32)
    for rows, logits in scored(model, ids, pad_token_id, batch_tokens):
        found[rows] = logits.float().cpu().numpy()
    return found


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a model folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for file in folder.rglob("*.*"):
        file.chmod(0o644)  # the weights come with 0600, which no colleague could read


class TorchClassifier:
    """A trained model folder."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Load ``folder``, on the GPU if there is one and else on ``threads`` CPU threads."""
        torch.set_num_threads(threads)
        model, self.tokenizer = load(str(folder), new_head=False)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any = model.to(device)
        self.labels = labels_of(self.model)

    def logits(self, texts: Sequence[str], batch_tokens: int) -> npt.NDArray[np.float32]:
        """Score texts: logits of shape [texts, classes], in the order of ``texts``.

        Texts of like length are scored together, as many as ``batch_tokens`` tokens hold, padding
        included; a text of more tokens is scored alone.
        """
        limits = (self.tokenizer.model_max_length, self.model.config.max_characters)
        ids = tokenize(self.tokenizer, texts, *limits)
        return logits_of(self.model, ids, self.tokenizer.pad_token_id, batch_tokens)
