"""The text of the model card of a table's model."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from src.core.markdown import code, plain, public, table
from src.tables.schema import Schema
from src.tabular.quality_words import sentence
from src.training import cards

KINDS = {
    "linear": "a logistic regression",
    "forest": "a random forest",
    "boosting": "gradient-boosted trees",
}
SCORES = {  # the metrics' names here, and the types and names that Hugging Face's cards give them
    "average_precision": ("average_precision", "Average precision"),
    "roc_auc": ("roc_auc", "ROC AUC"),
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "precision": ("precision", "Precision"),
    "recall": ("recall", "Recall"),
    "f1": ("f1", "F1"),
    "mcc": ("matthews_correlation", "Matthews correlation"),
    "log_loss": ("log_loss", "Log loss"),
    "brier": ("brier_score", "Brier score"),
    "ece": ("expected_calibration_error", "Expected calibration error"),
    "cost": ("cost", "Cost of a row"),
    "precision_of_reviewed": ("precision_of_reviewed", "Precision of the rows reviewed"),
}
IMPORTANT = 15  # columns of those that matter most

USE = """\
In the repository that this model comes from, `dvc pull {folder}` brings it, and

```
python -m src.predict {folder} --input new.csv --output scored.csv
```

adds label and probability to each row. Elsewhere, all that it takes is
`pip install onnxruntime numpy`. The inputs of the graph are named as the columns: a number is
float64 (NaN where it is not known), a category a string ("" where it is not known), and a date is
four numbers, with what they are in brackets after its name:

```python
import json

import numpy as np
import onnxruntime

folder = "{folder}"  # where this card is
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")
with open(f"{{folder}}/manifest.json", encoding="utf-8") as file:
    manifest = json.load(file)
record = {{one.name: np.nan for one in session.get_inputs() if one.type == "tensor(double)"}}
record |= {{one.name: "" for one in session.get_inputs() if one.type == "tensor(string)"}}
record |= {{}}  # values by column
feed = {{
    name: np.array([[value]], object if isinstance(value, str) else np.float64)
    for name, value in record.items()
}}
(probabilities,) = session.run(None, feed)[0]
print(dict(zip(manifest["labels"], probabilities.tolist())))
```
"""


@dataclass(frozen=True)
class Facts:
    """What the stages before found of the model that is shipped."""

    name: str
    folder: Path  # of the exported model
    params: Mapping[str, Any]
    schema: Schema
    quality: Mapping[str, Any]
    figures: Mapping[str, Mapping[str, Mapping[str, float]]]  # of each model, by side
    details: Mapping[str, Any]
    importance: Mapping[str, Mapping[str, float]]  # of its features, the largest first
    sides: Mapping[str, int]  # rows of each side

    @property
    def test(self) -> Mapping[str, float]:
        """The figures of the shipped model on the test rows."""
        return self.figures[self.name]["test"]


def purpose(facts: Facts, labels: list[str], positive: str, threshold: float) -> str:
    """Say what the model does."""
    said = f"It gives a record of {len(facts.schema.columns)} columns one of {len(labels)} labels, "
    said += f"and a probability to each: {', '.join(map(code, labels))}. It is {KINDS[facts.name]} "
    said += "of scikit-learn, exported to ONNX."
    if positive:
        rule = facts.params["decide"]["threshold"]
        by = f" ({rule} on the validation rows)" if isinstance(rule, str) else ""
        said += f" It decides for {code(positive)} from a probability of {threshold:.4g} on{by}."
    return said


def sections(facts: Facts, model: Path) -> list[str]:
    """Say how it was made and judged, what it goes by, what it can't do, and how it is used.

    Args:
        facts: of the model.
        model: the folder that it is shipped in.
    """
    return [
        *_training(facts),
        *_data(facts),
        *_results(facts),
        *_importance(facts),
        *_limits(facts),
        *("## How to use it", USE.format(folder=model.as_posix())),
    ]


def _training(facts: Facts) -> list[str]:
    decide = {f"decide.{key}": value for key, value in facts.params["decide"].items()}
    own = {f"{facts.name}.{key}": value for key, value in facts.params[facts.name].items()}
    return [
        "## How it was trained",
        "With scikit-learn on the training rows; calibration and threshold fit the validation "
        "rows, and are part of the model.",
        cards.params(own | decide),
    ]


def _data(facts: Facts) -> list[str]:
    quality, split = facts.quality, facts.params["split"]
    dropped = {why: count for why, count in quality["dropped"].items() if count}
    reasons = ", ".join(f"{count:,} {code(why)}" for why, count in dropped.items())
    source = facts.params["load"]["source"]
    places = ", ".join(code(public(place)) for place in source)
    by = f" by {code(split['column'])}" if split["column"] else ""
    rows = [[code(label), f"{count:,}"] for label, count in quality["classes"].items()]
    parts = [
        "## The data",
        f"From {places}: {quality['rows']:,} rows came in, {quality['kept']:,} were kept"
        f"{f' (dropped: {reasons})' if dropped else ''}. The split is {code(split['strategy'])}"
        f"{by}: "
        + ", ".join(f"{count:,} {side}" for side, count in facts.sides.items())
        + f". The label is column {code(facts.schema.target)}.",
        table(["label", "rows"], rows),
        table(
            ["column", "kind", "missing", "range or values"],
            [
                [
                    code(c.name),
                    c.kind,
                    f"{100 * quality['missing'][c.name]:.1f} %",
                    f"{c.minimum:g} to {c.maximum:g}"
                    if c.minimum is not None and c.maximum is not None
                    else str(c.values or ""),
                ]
                for c in facts.schema.columns
            ],
        ),
    ]
    if quality["findings"]:
        found = "\n".join(f"- {plain(sentence(finding))}" for finding in quality["findings"])
        parts += ["What the data's own check warns of:", found]
    return parts


def _results(facts: Facts) -> list[str]:
    confidence = facts.params["evaluate"]["confidence"]
    shown = {key: name for key, (_, name) in SCORES.items() if key in facts.test}
    rows = []
    for key, name in shown.items():
        low, high = facts.test.get(f"{key}_low"), facts.test.get(f"{key}_high")
        interval = "" if low is None else f"{low:.4f} to {high:.4f}"
        others = (f"{facts.figures[each]['test'][key]:.4f}" for each in KINDS if each != facts.name)
        rows.append([name, f"{facts.test[key]:.4f}", interval, *others])
    head = ["figure", "value", f"{100 * confidence:g} % interval (bootstrap)"]
    head += [code(each) for each in KINDS if each != facts.name]
    classes = [
        [code(label), *(f"{found[key]:.4f}" for key in ("precision", "recall", "f1"))]
        for label, found in facts.details["classes"].items()
    ]
    parts = [
        "## How it was judged",
        f"On {facts.sides['test']:,} test rows, which no stage trains on or chooses by, beside the "
        "other models of the same run.",
        table(head, rows),
        table(["label", "precision", "recall", "F1"], classes),
    ]
    keys = [key for key in ("average_precision", "precision", "recall", "cost") if key in shown]
    for column, values in facts.details["slices"].items():
        rows = [
            [
                code(value),
                *(f"{found[key]:.4f}" if key in found else "" for key in keys),
                f"{found['rows']:,}",
            ]
            for value, found in values.items()
        ]
        head = [code(column), *(shown[key] for key in keys), "test rows"]
        parts += [f"By {code(column)}:", table(head, rows)]
    return parts


def _importance(facts: Facts) -> list[str]:
    if not facts.importance:
        return []
    rows = [
        [code(name), f"{one['importance']:.4f}", f"{one['spread']:.4f}"]
        for name, one in [*facts.importance.items()][:IMPORTANT]
    ]
    return [
        "## What it goes by",
        "By how much average precision falls when the values of a column are shuffled (Breiman "
        "2001), and the spread over repeats.",
        table(["column", "importance", "spread"], rows),
    ]


def _limits(facts: Facts) -> list[str]:
    rare = min(facts.quality["classes"].values())
    found = [
        "Every record gets one of the labels, also one that is like none of the training rows: it "
        "warns of none.",
        f"It was judged on rows of the same source as those it learnt from. The rarest label has "
        f"{rare:,} rows in all, so look at the intervals.",
        "A number beyond the ranges above is "
        + ("taken as it is" if facts.name == "linear" else "like the nearest one within")
        + ", and a value of a category that no training row has is "
        + ("not known." if facts.name == "boosting" else "like a rare one."),
    ]
    return ["## Limits", "\n".join(f"- {limit}" for limit in found)]
