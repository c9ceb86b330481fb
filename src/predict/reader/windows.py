"""A question and a paragraph as a reader sees them: windows of tokens.

Each text is tokenized by itself, so that a paragraph is tokenized once for all questions, and a
long question leaves no tokenizer without room. The special tokens around and between both are those
that the tokenizer puts there. A paragraph that does not fit is read in windows that overlap.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from src.core.errors import InputError
from src.predict.foreign import refusing

Ids = npt.NDArray[np.int32]


class Text(NamedTuple):
    """The tokens of a text.

    Attributes:
        ids: of each token, [tokens].
        offsets: the first character of each token, and the one after its last, [tokens, 2].
    """

    ids: Ids
    offsets: Ids


class Window(NamedTuple):
    """What a reader is given at once.

    Attributes:
        ids: those of all tokens, [tokens].
        types: 0 for the question, 1 for the paragraph where the model tells them apart, [tokens].
        at: the place of the paragraph's first token among them.
        first: which token of the paragraph that is.
        length: how many of the paragraph's tokens there are.
    """

    ids: Ids
    types: Ids
    at: int
    first: int
    length: int


class Between(NamedTuple):
    """Special tokens, and the type of each."""

    ids: Ids
    types: Ids


class Pairs:
    """Windows of questions and paragraphs, as the tokenizer of a model has pairs of texts.

    Args:
        tokenizer: one of the package tokenizers.
        max_length: the tokens of a window, special ones included.
        stride: the tokens that a window shares with the one before.
        max_question: the tokens of a question that are read.

    Raises:
        InputError: these leave no room for a paragraph, or the tokenizer has no pairs.
    """

    def __init__(self, tokenizer: Any, max_length: int, stride: int, max_question: int) -> None:
        """Read the special tokens off a pair."""
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._tokenizer.encode_special_tokens = True  # "[SEP]" in a text is a text
        self._stride = stride
        self._max_question = max_question
        pair = tokenizer.encode("a", "a")
        of = pair.sequence_ids
        if 0 not in of or 1 not in of:
            raise InputError("The tokenizer of the model reads no pairs of texts: choose another.")
        question = [k for k, text in enumerate(of) if text == 0]
        paragraph = [k for k, text in enumerate(of) if text == 1]
        if question[0] == 0 or question[0] > paragraph[0]:
            raise InputError(
                "The tokenizer of the model puts no token before the first of two texts, by which "
                "a reader tells that there is no answer: choose another."
            )
        ids, types = (np.array(part, np.int32) for part in (pair.ids, pair.type_ids))
        parts = [slice(question[0]), slice(question[-1] + 1, paragraph[0])]
        parts.append(slice(paragraph[-1] + 1, None))
        self._before, self._between, self._after = (
            Between(ids[part], types[part]) for part in parts
        )
        self._types = int(types[question[0]]), int(types[paragraph[0]])
        special = len(of) - len(question) - len(paragraph)
        self._room = max_length - special
        if self._room - max_question <= stride:
            raise InputError(
                f"Windows of {max_length} tokens, {special} of them special, have no room for "
                f"{max_question} of a question and more than the {stride} that they share: raise "
                "max_length, or lower max_question or stride."
            )

    def texts(self, texts: Sequence[str]) -> list[Text]:
        """Return the tokens of each text, without special ones."""
        with refusing("The tokenizer of the model can't make tokens of a text"):
            encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            Text(
                np.array(encoding.ids, np.int32),
                np.array(encoding.offsets, np.int32).reshape(-1, 2),
            )
            for encoding in encodings
        ]

    def is_cut(self, question: Text) -> bool:
        """Tell whether a question has more tokens than are read of it."""
        return len(question.ids) > self._max_question

    def windows(self, question: Text, paragraph: Text) -> list[Window]:
        """Return the windows of a pair, at least one; only the last may be shorter."""
        asked = question.ids[: self._max_question]
        room, total = self._room - len(asked), len(paragraph.ids)
        count = max(0, -(-(total - room) // (room - self._stride))) + 1
        head = np.concatenate([self._before.ids, asked, self._between.ids])
        head_types = np.concatenate(
            [self._before.types, np.full(len(asked), self._types[0]), self._between.types]
        ).astype(np.int32)
        windows = []
        for first in (k * (room - self._stride) for k in range(count)):
            part = paragraph.ids[first : first + room]
            types = np.full(len(part), self._types[1], np.int32)
            windows.append(
                Window(
                    np.concatenate([head, part, self._after.ids]),
                    np.concatenate([head_types, types, self._after.types]),
                    len(head),
                    first,
                    len(part),
                )
            )
        return windows
