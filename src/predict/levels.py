"""The probabilities from which labels are given, as options of the command line."""

from typing import Annotated, Literal

from src.core.command_line import Interval

# The option --min_score: a number, or what the manifest of the model says.
MinScore = Literal["model"] | Annotated[float, Interval(ge=0, lt=1)]
# The option --threshold, likewise.
Threshold = Literal["model"] | Annotated[float, Interval(ge=0, le=1)]
