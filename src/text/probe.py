"""Fit a linear head to the vectors of a frozen encoder."""

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression

from src.predict.padding import batches
from src.text.encoder import Texts, Tokens, collate
from src.text.pooling import MeanClassifier
from src.text.regression import weights_of

MOST = 20_000  # texts that a head is fitted to
C = 10.0  # of scikit-learn's LogisticRegression
BATCH_TOKENS = 4096

log = logging.getLogger("src.text.probe")


def fit_head(model: MeanClassifier, texts: Texts, pad_token_id: int, class_weight: str) -> None:
    """Set the head to a logistic regression on the texts, while the encoder stays as it is.

    A head that starts at random would first undo what the encoder knows (linear probing, then
    fine-tuning: Kumar et al., 2022).

    Args:
        model: the classifier.
        texts: what it is fitted to; every class has one.
        pad_token_id: the token that fills up shorter texts.
        class_weight: none or balanced.
    """
    ids, labels = texts.ids, texts.labels
    order = np.argsort(labels, kind="stable")  # of which evenly spread texts have all classes
    spread = order[np.linspace(0, len(order) - 1, min(MOST, len(order))).astype(int)]
    rows = np.union1d(spread, np.unique(labels, return_index=True)[1])
    log.info("fitting the head to the vectors of %d texts", len(rows))
    vectors = vectors_of(model, [ids[row] for row in rows], pad_token_id)
    probe = LogisticRegression(
        C=C, max_iter=1000, class_weight=None if class_weight == "none" else class_weight
    ).fit(vectors, labels[rows])
    weight, bias = weights_of(probe)
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(weight))
        model.classifier.bias.copy_(torch.from_numpy(bias))


def vectors_of(
    model: MeanClassifier, ids: Sequence[Tokens], pad_token_id: int
) -> npt.NDArray[np.float64]:
    """Return the vector of each text: [texts, size]."""
    model.eval()
    found = np.empty((len(ids), model.config.hidden_size))
    for rows in batches([len(row) for row in ids], BATCH_TOKENS):
        batch = collate([ids[row] for row in rows], pad_token_id)
        with torch.inference_mode():
            vectors = model.vectors(**{k: v.to(model.device) for k, v in batch.items()})
        found[rows] = vectors.double().cpu().numpy()
    return found
