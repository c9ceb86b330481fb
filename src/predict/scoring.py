"""Score the texts of a batch, and count what becomes of the rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

from src.core.command_line import Interval
from src.predict.classifier import Classifier, Logits

ROWS = 512  # of a batch

# The option --min_score: a number, or what the manifest of the model says.
MinScore = Literal["model"] | Annotated[float, Interval(ge=0, lt=1)]


class Scores(NamedTuple):
    """The logits of a batch, how many of its texts were cut, and the node that computed them."""

    logits: Logits
    cut: int
    worker: str


Submit = Callable[[list[str]], Callable[[], Scores]]  # starts to score texts; its result waits


@dataclass
class Counts:
    """The rows that a run has read, scored, rejected, cut, given no label, and found scored."""

    read: int = 0
    scored: int = 0
    rejected: int = 0
    truncated: int = 0
    unanswered: int = 0
    resumed: int = 0


def score(classifier: Classifier, batch_tokens: int, texts: list[str], worker: str = "") -> Scores:
    """Score texts, in batches of ``batch_tokens`` tokens, padding included."""
    ids, cut = classifier.encode(texts)
    return Scores(classifier.score(ids, batch_tokens), sum(cut), worker)


def score_here(classifier: Classifier, batch_tokens: int) -> Submit:
    """Return what scores texts in this process, when their scores are asked for."""
    return lambda texts: lambda: score(classifier, batch_tokens, texts)
