"""The probability that an answer is right, by its score."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Calibration:
    """A logistic curve over scores minus null, by which those of all paragraphs are alike.

    Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999.
    """

    slope: float
    intercept: float

    def probability(self, score: float) -> float:
        """Return the probability that an answer of this score is exactly right."""
        value = max(-700.0, min(700.0, self.slope * score + self.intercept))
        return 1 / (1 + math.exp(-value))

    def score(self, probability: float) -> float:
        """Return the least score of a probability from 0 to 1; without end if none has it."""
        if probability <= 0:
            return -math.inf
        if probability >= 1 or self.slope <= 0:
            return math.inf
        return (math.log(probability / (1 - probability)) - self.intercept) / self.slope
