"""Fit a linear head to the frozen encoder: the model that fine-tuning starts from.

A head that starts at random would first undo what the encoder knows (linear probing, then
fine-tuning: Kumar et al., 2022), and a probe is a cheap model of its own (Alain and Bengio, 2016).
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from dvclive.live import Live
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from transformers import set_seed

from src.core import stage
from src.core.command_line import Count, Interval, Seed, Threads
from src.core.errors import InputError
from src.core.files import replacing
from src.metrics import classification
from src.metrics.calibration import temperature
from src.metrics.classification import Floats
from src.tables import examples
from src.text import encoder
from src.text.encoder import Texts, Tokens
from src.text.pooling import Pooling, settle
from src.text.regression import weights_of
from src.training import pretrained, provenance
from src.training.onnx_export import refuse_unexportable
from src.training.shortcuts import shorten

MOST = 20_000  # texts that a head is fitted to
BATCH_TOKENS = 4096
TOLD = 2000  # texts between two lines of progress
PACKAGES = ("torch", "transformers", "tokenizers", "scikit-learn", "scipy", "numpy")

log = logging.getLogger("src.text.probe")


def main(
    splits: Path,
    model: Path,
    live: Path,
    *,
    checkpoint: str,
    sha256: str,
    max_length: Annotated[int, Interval(ge=4)],
    max_characters: Count,
    pooling: Pooling,
    C: Annotated[list[float], Interval(gt=0)],  # noqa: N803, scikit-learn's name
    class_weight: Literal["none", "balanced"],
    threads: Threads,
    seed: Seed,
) -> None:
    """Fit the head on the train split, and its temperature on the validation split.

    Args:
        splits: the folder with ``train.parquet``, ``validation.parquet`` and ``labels.json``.
        model: the folder that gets weights, config and tokenizer.
        live: the folder that gets ``metrics.json``.
    """
    params = {name: value for name, value in locals().items() if not isinstance(value, Path)}
    if not C:
        raise InputError("probe.C is empty: name a number, or several to choose from.")
    torch.set_num_threads(threads)
    set_seed(seed)  # a pooler that the checkpoint does not have starts at random
    labels = examples.read_labels(splits)
    classifier, tokenizer = _load(labels, params)
    train, validation = (
        Texts.read(splits / f"{name}.parquet", tokenizer, labels, max_characters)
        for name in ("train", "validation")
    )
    encoder.refuse_unknown(tokenizer, train.ids)
    refuse_unexportable(classifier, encoder.collate(train.ids[:2], tokenizer.pad_token_id))
    classifier.to("cuda" if torch.cuda.is_available() else "cpu")
    figures = _fit(classifier, train, validation, tokenizer.pad_token_id, C, class_weight)
    with replacing(model) as folder, Live(str(live), dvcyaml=False, save_dvc_exp=False) as record:
        for name, figure in figures.items():
            record.log_metric(f"validation/{name}", figure, plot=False)
        encoder.save(classifier, tokenizer, folder)
    said = ", ".join(f"{name} {figure:.4f}" for name, figure in figures.items())
    log.info("validation: %s", said)
    provenance.record(model, *PACKAGES, params=params, threads=threads, seed=seed)


def _load(labels: list[str], params: dict[str, Any]) -> tuple[Any, Any]:
    place = pretrained.resolve(params["checkpoint"], params["sha256"], "probe")
    classifier, tokenizer = encoder.load(
        place,
        new_head=True,
        pooling=settle(params["pooling"], place),
        problem_type=None,  # of a head for something else; other tools would score by it
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: k for k, label in enumerate(labels)},
    )
    classifier.config.max_characters = params["max_characters"]
    readable = encoder.readable(classifier, tokenizer)
    if params["max_length"] > readable:
        raise InputError(
            f"probe.max_length is {params['max_length']}: {params['checkpoint']} reads at most "
            f"{readable} tokens; lower it or choose another checkpoint."
        )
    tokenizer.model_max_length = params["max_length"]
    return classifier, tokenizer


def _fit(
    classifier: Any,
    train: Texts,
    validation: Texts,
    pad_token_id: int,
    C: Sequence[float],  # noqa: N803
    class_weight: str,
) -> dict[str, float]:
    """Fit the head, with a temperature, and return the figures of the validation texts."""
    head = encoder.head_of(classifier, train.ids[0])
    if head:
        shorten(classifier)
        logits = fit_head(
            classifier, head, _spread(train), validation, pad_token_id, C, class_weight
        )
    else:
        log.warning("no layer of this architecture gives the logits alone: the head is random")
        scores = encoder.logits_of(classifier, validation.ids, pad_token_id, BATCH_TOKENS)
        logits = scores.astype(np.float64)
    return classification.summary(validation.labels, softmax(logits, axis=1))


def _spread(texts: Texts) -> Texts:
    """Return at most ``MOST`` texts, evenly spread, and of every class that has any."""
    order = np.argsort(texts.labels, kind="stable")
    spread = order[np.linspace(0, len(order) - 1, min(MOST, len(order))).astype(int)]
    rows = np.union1d(spread, np.unique(texts.labels, return_index=True)[1])
    return Texts([texts.ids[row] for row in rows], texts.labels[rows])


def fit_head(
    model: Any,
    head: Any,
    train: Texts,
    validation: Texts,
    pad_token_id: int,
    C: Sequence[float],  # noqa: N803
    class_weight: str,
) -> Floats:
    """Set the head to a logistic regression with a temperature, while the encoder stays as it is.

    Args:
        model: the classifier.
        head: its layer that gives the logits.
        train: the texts that it is fitted to; every class has one.
        validation: those that its temperature fits, and that choose among several C by log loss.
        pad_token_id: the token that fills up shorter texts.
        C: of scikit-learn's LogisticRegression, at least one.
        class_weight: none or balanced.

    Returns:
        What the head makes of the validation texts: logits [texts, classes].
    """
    log.info("fitting the head to the vectors of %d texts", len(train))
    vectors = vectors_of(model, head, train.ids, pad_token_id)
    middle = vectors.mean(axis=0)
    vectors -= middle
    spread = np.sqrt((vectors**2).sum(axis=1).mean())  # C means the same for any encoder then
    vectors /= spread
    held_out = vectors_of(model, head, validation.ids, pad_token_id)
    weights = None if class_weight == "none" else class_weight
    found: list[tuple[float, Floats, Floats, Floats]] = []
    for strength in C:
        regression = LogisticRegression(C=strength, max_iter=1000, class_weight=weights)
        weight, bias = weights_of(regression.fit(vectors, train.labels))
        weight = weight / spread
        bias = bias - weight @ middle if head.bias is not None else np.zeros(len(bias))
        logits = held_out @ weight.T + bias
        divisor = temperature(validation.labels, logits)
        figures = classification.summary(validation.labels, softmax(logits / divisor, axis=1))
        log.info("C %g: validation log loss %.4f", strength, figures["log_loss"])
        found.append((figures["log_loss"], weight / divisor, bias / divisor, logits / divisor))
    _, weight, bias, logits = min(found, key=lambda each: each[0])
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        if head.bias is not None:
            head.bias.copy_(torch.from_numpy(bias))
    return logits


def vectors_of(model: Any, head: Any, ids: Sequence[Tokens], pad_token_id: int) -> Floats:
    """Return what the head reads of each text: [texts, size]."""
    read: list[torch.Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    found = np.empty((len(ids), head.in_features))
    done = 0
    try:
        for rows, _ in encoder.scored(model, ids, pad_token_id, BATCH_TOKENS):
            found[rows] = read.pop().double().cpu().numpy()
            if (done + len(rows)) // TOLD > done // TOLD:
                log.info("read %d of %d texts, the short ones first", done + len(rows), len(ids))
            done += len(rows)
    finally:
        handle.remove()
    return found


if __name__ == "__main__":
    stage.run(main)
