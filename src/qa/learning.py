"""What a reader learns from: windows with their answers, in groups, and the loss of a group.

The objectives, by what a group is normalised over:

* ``paragraph``: the window of the answer alone, as BiDAF (Seo et al., 2017) learns.
* ``no_answer``: the window and "there is none here", which is right in other paragraphs, as BERT on
  SQuAD 2.0 learns (Devlin et al., 2019).
* ``shared``: the windows of the paragraph and of others together, as Document-QA learns (Clark and
  Gardner, 2018, shared normalisation).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from src.predict.reader.index import Index
from src.predict.reader.windows import Pairs, Text, Window
from src.qa import model as models
from src.qa.squad import Answer, Question, Questions

Objective = Literal["paragraph", "no_answer", "shared"]
OBJECTIVES: tuple[Objective, ...] = ("paragraph", "no_answer", "shared")

NEAR = 20  # of BM25's best paragraphs, which negatives are taken from
IMPOSSIBLE = -1e9  # the logit of what can't be an answer; bf16 has it


class Target(NamedTuple):
    """A window, and what is right about it.

    Attributes:
        window: what is read.
        spans: the share of people who gave a span of its tokens; none where it has no answer.
        null: whether "there is none here" is a possible answer.
    """

    window: Window
    spans: dict[tuple[int, int], float]
    null: bool


@dataclass(frozen=True)
class Group:
    """Windows whose logits are normalised together."""

    targets: tuple[Target, ...]


def groups(questions: Questions, pairs: Pairs, objective: Objective, negatives: int) -> list[Group]:
    """Make groups of questions.

    Args:
        questions: with their paragraphs.
        pairs: makes windows.
        objective: what is normalised together.
        negatives: how many other paragraphs of the set that look like one with the answer are read
            beside each question's own; for ``paragraph`` none.
    """
    texts = pairs.texts(questions.texts)
    asked = pairs.texts([one.text for one in questions.questions])
    others: list[list[int]] = [[] for _ in asked]
    if negatives and objective != "paragraph":
        index = Index(questions.texts)
        others = [misleading(index, questions, one)[:negatives] for one in questions.questions]
    made: list[Group] = []
    for one, tokens, wrong in zip(questions.questions, asked, others, strict=True):
        made += _of_question(one, tokens, texts, wrong, pairs, objective)
    return made


def misleading(index: Index, questions: Questions, one: Question) -> list[int]:
    """Return the rows of paragraphs that fit a question and lack its answer, the best first."""
    wanted = [answer.text.casefold() for answer in one.answers]
    return [
        row
        for row in index.best(one.text, NEAR).tolist()
        if row != one.paragraph
        and not any(text in questions.paragraphs[row].text.casefold() for text in wanted)
    ]


def _of_question(
    one: Question,
    asked: Text,
    texts: Sequence[Text],
    others: Sequence[int],
    pairs: Pairs,
    objective: Objective,
) -> Iterator[Group]:
    null = objective == "no_answer"
    own = [
        Target(window, spans_in(window, texts[one.paragraph], one.answers), null)
        for window in pairs.windows(asked, texts[one.paragraph])
    ]
    further = [
        Target(window, {}, null) for row in others for window in pairs.windows(asked, texts[row])
    ]
    if objective == "shared":
        if any(target.spans for target in own):
            yield Group((*own, *further))
    else:
        yield from (Group((target,)) for target in (*own, *further) if target.spans or null)


def spans_in(window: Window, text: Text, answers: Sequence[Answer]) -> dict[tuple[int, int], float]:
    """Return the tokens of the answers that lie whole in a window, and how many say each."""
    offsets = text.offsets[window.first : window.first + window.length]
    found: Counter[tuple[int, int]] = Counter()
    for answer in answers:
        start, end = answer.start, answer.start + len(answer.text)
        first = int(np.searchsorted(offsets[:, 1], start, side="right"))
        last = int(np.searchsorted(offsets[:, 0], end, side="left")) - 1
        if first > last or offsets[first, 0] > start or offsets[last, 1] < end:
            continue
        found[window.at + first, window.at + last] += 1
    return {span: count / found.total() for span, count in found.items()}


class Groups(torch.utils.data.Dataset[dict[str, Any]]):
    """Groups, each with as many ids as its longest window has, by which Trainer sorts them."""

    def __init__(self, groups: Sequence[Group]) -> None:
        """Hold the groups."""
        self.groups = groups

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, row: int) -> dict[str, Any]:
        group = self.groups[row]
        longest = max((target.window.ids for target in group.targets), key=len)
        return {"input_ids": longest, "group": group}


def collate(rows: Sequence[dict[str, Any]], pad: int, has_types: bool) -> dict[str, torch.Tensor]:
    """Make a batch of groups: what the model takes, and ``labels``, [windows, tokens, 3].

    The first two of these are the share of people who say that an answer starts or ends at a token,
    -1 where none can; the third is the number of the window's group.
    """
    targets = [
        (number, target) for number, row in enumerate(rows) for target in row["group"].targets
    ]
    inputs = models.collate([target.window for _, target in targets], pad, has_types)
    labels = torch.full((*inputs["input_ids"].shape, 3), -1.0)
    for place, (number, target) in zip(labels, targets, strict=True):
        window = target.window
        place[window.at : window.at + window.length, :2] = 0.0
        if target.null:
            place[0, :2] = float(not target.spans)
        place[:, 2] = number
        for (start, end), share in target.spans.items():
            place[start, 0] += share
            place[end, 1] += share
    return inputs | {"labels": labels}


def loss(outputs: Any, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean over groups of the cross-entropy of starts and ends."""
    share, number = labels[..., :2], labels[:, 0, 2].long()
    logits = models.stacked(outputs).float().masked_fill(share < 0, IMPOSSIBLE)
    count = int(number.max()) + 1
    of_window = logits.logsumexp(dim=1)  # [windows, 2]
    own = torch.arange(count, device=number.device)[:, None] == number
    of_group = torch.where(own[:, :, None], of_window, IMPOSSIBLE).logsumexp(dim=1)
    right = (share.clamp(min=0) * logits).sum()
    # The shares of a group's windows add up to 1 for each window that has an answer.
    weight = share.clamp(min=0).sum(dim=1)
    weights = torch.zeros_like(of_group).index_add(0, number, weight)
    total: torch.Tensor = ((weights * of_group).sum() - right) / (2 * count)
    return total
