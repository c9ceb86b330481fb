"""Which of the compared models to ship, and what speaks for another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from src.metrics import bootstrap, significance
from src.metrics.classification import Floats

SHOWN = {"accuracy": "accuracy", "macro_f1": "macro F1"}  # what the models are compared by
SMALLER = 1.5  # times, from which a smaller model is worth a word

Metric = Literal["accuracy", "macro_f1"]


@dataclass(frozen=True)
class Model:
    """A model, as the stages before found it."""

    name: str
    test: Mapping[str, float]
    validation: Mapping[str, float]
    bytes: int
    resampled: Mapping[str, Floats]  # its scores on the test texts, each time they were drawn anew
    validated: Mapping[str, Floats]  # the same of the validation texts
    answers: Mapping[str, float]  # what becomes of min_score, if there is one

    def against(self, other: "Model", key: str) -> tuple[float, Floats]:
        """Return by how much it is better on the test texts, and each time they were drawn anew."""
        return self.test[key] - other.test[key], self.resampled[key] - other.resampled[key]


def choose(candidates: Sequence[Model], metric: Metric, margin: float) -> Model:
    """Return the smallest model that is nearly as good on the validation texts as the best."""
    enough = max(model.validation[metric] for model in candidates) - margin
    near = [model for model in candidates if model.validation[metric] >= enough]
    return min(near, key=lambda model: model.bytes)


def worded(
    candidates: Sequence[Model], shipped: Model, metric: Metric, margin: float, texts: int
) -> str:
    """Say which model to ship, and how well the validation texts tell it from the next best."""
    ranked = sorted(candidates, key=lambda model: (-model.validation[metric], model.bytes))
    best, *others = ranked
    its = f"{SHOWN[metric]} on the {texts} validation texts, {shipped.validation[metric]:.4f}"
    if not others:
        return f"Ship {shipped.name}, the one that compare.models names (its {its})."
    if best is shipped:
        said = f"none of compare.models has a higher {its}, and it is the smallest that has it; "
        said += f"next is {others[0].name} with {others[0].validation[metric]:.4f}"
    else:
        said = f"its {its}, is within {margin:g} (compare.margin) of the best, "
        said += f"{best.validation[metric]:.4f} of {best.name}, which is "
        said += f"{_times(best.bytes / shipped.bytes)} as large"
    other = others[0] if best is shipped else best
    p_value = bootstrap.p_value(shipped.validated[metric] - other.validated[metric])
    telling = "these texts don't tell the two apart, " if p_value >= significance.REAL else ""
    return f"Ship {shipped.name}: {said} ({telling}{significance.said(p_value)})."


def against(
    found: Sequence[Model], candidates: Sequence[Model], shipped: Model, metric: Metric
) -> str:
    """Say what the test texts show for another model."""
    better = [model for model in found if _is_shown(model, shipped, metric)]
    better.sort(key=lambda model: (model in candidates, model.validation[metric]), reverse=True)
    said = "On the test texts no model is shown to be better."
    if better:
        first, *others = (model.name for model in better)
        said = f"On the test texts {first} is shown to be better ("
        said += _differs(better[0], shipped, metric)
        said += f"), and likewise {', '.join(others)}." if others else ")."
    small = [
        model
        for model in candidates
        if model.bytes < shipped.bytes / SMALLER and not _is_shown(shipped, model, metric)
    ]
    if small:
        least = max(small, key=lambda model: model.validation[metric])
        said += f" {least.name} is {_times(shipped.bytes / least.bytes)} smaller, and not shown to "
        said += f"be worse ({_differs(least, shipped, metric)})."
    return said


def _times(ratio: float) -> str:
    return f"{ratio:,.0f} times" if ratio >= 10 else f"{ratio:.1f} times"


def _is_shown(model: Model, other: Model, metric: Metric) -> bool:
    """Tell whether a model is shown to be better than another on the test texts."""
    point, drawn = model.against(other, metric)
    return point > 0 and bootstrap.p_value(drawn) < significance.REAL


def _differs(model: Model, other: Model, metric: Metric) -> str:
    """Say how a model differs from another on the test texts."""
    point, drawn = model.against(other, metric)
    return f"{SHOWN[metric]} {point:+.4f}, {significance.said(bootstrap.p_value(drawn))}"
