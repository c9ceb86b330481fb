"""The sections of a model card, in Markdown."""

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from src.core.files import sha256
from src.core.markdown import code, plain, public, table
from src.predict.manifest import MANIFEST
from src.text.card_facts import Facts

PACKAGES = ("torch", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy")
SCORES = {  # the metrics' names here, and the types and names that Hugging Face's cards give them
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "weighted_f1": ("f1", "Weighted F1"),
    "log_loss": ("log_loss", "Log loss"),
    "ece": ("expected_calibration_error", "Expected calibration error"),
}
POOLINGS = {"first": "its first token", "mean": "the mean of all tokens"}
SURE = 0.9  # the probability from which a mistake is a sure one
CONFUSED = 5  # pairs of labels that the card names
MATRIX = 12  # labels up to which the confusion matrix is still read as one
REAL = 0.05  # the p-value from which a difference is not shown to be real

USE = """\
In the repository that this model comes from, `dvc pull {folder}` brings it, and

```
python -m src.predict {folder} "a text"
```

classifies texts, or the lines of standard input. Elsewhere, all that it takes is
`pip install onnxruntime tokenizers numpy`:

```python
import json

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = "{folder}"  # where this card is
text = "a text"

with open(f"{{folder}}/manifest.json", encoding="utf-8") as file:
    manifest = json.load(file)
tokenizer = Tokenizer.from_file(f"{{folder}}/tokenizer.json")
tokenizer.enable_truncation(manifest["max_length"])
tokenizer.no_padding()
ids = np.array([tokenizer.encode(text[: manifest["max_characters"]]).ids])
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")
(logits,) = session.run(["logits"], {{"input_ids": ids, "attention_mask": np.ones_like(ids)}})[0]
probabilities = np.exp(logits - logits.max())
probabilities /= probabilities.sum()
print(manifest["labels"][probabilities.argmax()], probabilities.max())
```
"""


def purpose(
    facts: Facts, languages: Sequence[str], intended_use: str, license: str, contact: str
) -> list[str]:
    """Say what the model does, and what its owners say of it."""
    labels = facts.manifest["labels"]
    numbers = ", ".join(f"{count:,} {kind}" for kind, count in facts.weights.items())
    unsaid = "Not stated."
    read = POOLINGS[facts.config.get("pooling", "first")]
    said = [
        ["Languages", ", ".join(languages) or unsaid],
        ["License", license or unsaid],
        ["Contact", " ".join(contact.split()) or unsaid],
    ]
    return [
        f"It gives a text one of {len(labels)} labels, and a probability to each: "
        f"{', '.join(map(code, labels))}. It is an encoder of the kind "
        f"{code(facts.config['model_type'])} with a classification head, which reads {read}, "
        f"exported to ONNX; its weights are {numbers}.",
        "## Intended use",
        intended_use.strip() or unsaid,
        table(["", ""], said),
    ]


def training(facts: Facts) -> list[str]:
    """Say what the model was trained from, and by which params."""
    params = {
        f"{section}.{key}": value
        for section in ("probe", "train")
        for key, value in facts.params[section].items()
    }
    checkpoint = public(params.pop("probe.checkpoint"))
    by = code(params["train.metric_for_best_model"])
    kept = f"of which the epoch that was best by {by} on the validation texts was kept"
    if not facts.step:
        kept = f"no epoch of which was better by {by} on the validation texts: what is here is that"
        kept += " regression, and the checkpoint as it was"
    return [
        "## How it was trained",
        f"From the checkpoint {code(checkpoint)}, by a logistic regression on what it makes of the "
        f"texts, and then by fine-tuning with Hugging Face Trainer, {kept}.",
        table(["param", "value"], [[code(key), code(value)] for key, value in params.items()]),
    ]


def data(facts: Facts) -> list[str]:
    """Say where the texts are from, how they were divided, and what is likely wrong."""
    quality, split = facts.quality, facts.params["split"]
    dropped = {why: count for why, count in quality["dropped"].items() if count}
    reasons = ", ".join(f"{count:,} {code(why)}" for why, count in dropped.items())
    classes = [
        [code(label), *(f"{(frame['label'] == label).sum():,}" for frame in facts.counts.values())]
        for label in facts.manifest["labels"]
    ]
    total = ["all", *(f"{len(frame):,}" for frame in facts.counts.values())]
    hashes = [[path.name, code(sha256(path))] for path in facts.splits.values()]
    column, *values = split["train_only"] or [""]
    limited = (
        f" Training and validation are limited to texts whose {code(column)} is "
        f"{', '.join(map(code, values))}."
        if values
        else ""
    )
    parts = [
        "## The data",
        f"From {', '.join(code(public(place)) for place in facts.params['load']['source'])}: "
        f"{quality['rows']:,} rows came in, {quality['kept']:,} were kept, and "
        f"{quality['rows'] - quality['kept']:,} were dropped{f' ({reasons})' if dropped else ''}. "
        f"The split is {code(split['strategy'])} with seed {split['seed']}; texts that are equal "
        f"up to case, spaces and Unicode form are on one side.{limited}",
        table(["label", *facts.counts], [*classes, total]),
        table(["file", "sha256"], hashes),
    ]
    if facts.warnings:
        warnings = "\n".join(f"- {plain(warning)}" for warning in facts.warnings)
        parts += ["What the data's own check warns of:", warnings]
    return parts


def results(facts: Facts) -> list[str]:
    """Tell the figures on the test split, by label and by slice too."""
    test, confidence = facts.test, facts.params["evaluate"]["confidence"]
    rows = []
    for key, (_, shown) in SCORES.items():
        low, high = test.get(f"{key}_low"), test.get(f"{key}_high")
        interval = "" if low is None else f"{low:.4f} to {high:.4f}"
        rows.append([shown, f"{test[key]:.4f}", interval])
    surer = float(facts.scores.mean()) - test["accuracy"]
    bias = "surer than it is right" if surer > 0 else "less sure than it is right"
    parts = [
        "## How it was judged",
        f"On {len(facts.predictions):,} test texts, which no stage trains on or chooses by.",
        table(["figure", "value", f"{100 * confidence:g} % interval (bootstrap)"], rows),
        f"Calibration: the labels it gives have a mean probability of {facts.scores.mean():.4f}, "
        f"and {test['accuracy']:.4f} of them are right, so that on the whole it is {bias}, by "
        f"{abs(surer):.4f}. The expected calibration error is over 15 bins, log loss in nats.",
        *_comparison(facts),
        "By label:",
        table(
            ["label", "precision", "recall", "F1", "test texts"],
            [
                [
                    code(label),
                    *(f"{scores[key]:.4f}" for key in ("precision", "recall", "f1")),
                    f"{scores['texts']:,.0f}",
                ]
                for label, scores in facts.details["classes"].items()
            ],
        ),
        *_confusion(facts),
    ]
    for column, values in facts.details["slices"].items():
        trained = facts.counts["train"][column].fillna("(none)").value_counts()
        rows = [
            [
                code(value),
                *(f"{scores[key]:.4f}" for key in SCORES),
                f"{scores['texts']:,}",
                f"{trained.get(value, 0):,}",
            ]
            for value, scores in values.items()
        ]
        head = [code(column), *(shown for _, shown in SCORES.values()), "test texts", "trained on"]
        parts += [f"By {code(column)}:", table(head, rows)]
    return parts


def _confusion(facts: Facts) -> list[str]:
    labels = facts.manifest["labels"]
    if len(labels) > MATRIX:
        return []
    pairs = Counter(zip(facts.predictions["label"], facts.predictions["predicted"], strict=True))
    rows = [[code(true), *(f"{pairs[true, given]:,}" for given in labels)] for true in labels]
    head = ["label", *(code(label) for label in labels)]
    return ["Test texts by their label, in rows, and the label it gave:", table(head, rows)]


def _comparison(facts: Facts) -> Iterable[str]:
    name, figures = facts.reference
    confidence = facts.params["compare"]["confidence"]
    yield (
        f"Against the model {code(name)} on the same texts (paired bootstrap, "
        f"{100 * confidence:g} % intervals):"
    )
    rows = []
    for key in ("accuracy", "macro_f1"):
        low, high, p_value = (
            facts.difference[f"{key}_difference_{figure}"] for figure in ("low", "high", "p_value")
        )
        point = facts.test[key] - figures[key]
        p = f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"
        verdict = "not shown to be real" if p_value >= REAL else "better" if point > 0 else "worse"
        difference = f"{point:+.4f} ({low:+.4f} to {high:+.4f})"
        rows.append([SCORES[key][1], f"{figures[key]:.4f}", difference, p, verdict])
    yield table(["figure", f"of {code(name)}", "difference", "p", "the difference is"], rows)


def limits(facts: Facts, languages: Sequence[str]) -> list[str]:
    """Say what the model does not do, and where it was wrong."""
    quality, tokens = facts.params["quality"], facts.quality["tokens"]
    length, characters = facts.manifest["max_length"], facts.manifest["max_characters"]
    wrong = facts.predictions[~facts.right]
    sure = int((facts.scores[~facts.right] >= SURE).sum())
    pairs = Counter(zip(wrong["label"], wrong["predicted"], strict=True)).most_common(CONFUSED)
    confused = ", ".join(f"{code(a)} taken for {code(b)} ({count:,})" for (a, b), count in pairs)
    classes = facts.details["classes"]
    weakest = min(classes, key=lambda label: classes[label]["f1"])
    scripts = ", ".join(f"{100 * s:.1f} % {n}" for n, s in facts.quality["scripts"].items())
    said = (
        f"said to be in {', '.join(languages)}" if languages else "in languages that are not said"
    )
    found = [
        "Every text gets one of the labels, whatever it is about and in whatever language: there "
        "is no answer for none of them.",
        f"It was judged on texts of the same source as those it learnt from, {said}; their letters "
        f"are {scripts}. Nothing here tells how it does on others.",
        f"Of a text it reads the first {characters:,} characters, and of these at most {length:,} "
        f"tokens. In the data, {100 * tokens['over_max_length']:.1f} % of the texts have more than "
        f"{quality['max_length']:,} tokens, and {100 * tokens['lost']:.1f} % of all tokens were "
        "not read.",
        f"Of {len(facts.predictions):,} test texts {len(wrong):,} got a wrong label, {sure:,} of "
        f"them with a probability of {SURE:g} or more{f': {confused}' if pairs else ''}.",
        f"The weakest label is {code(weakest)}, with F1 {classes[weakest]['f1']:.4f} on "
        f"{classes[weakest]['texts']:,.0f} test texts.",
    ]
    if "int8" in facts.weights:
        found.append(
            "The texts of a batch share the scales of its 8 bits, so a probability depends a "
            "little on what else is asked at the same time."
        )
    for column, values in facts.details["slices"].items():
        trained = set(facts.counts["train"][column].fillna("(none)"))
        if unseen := [value for value in values if value not in trained]:
            found.append(
                f"It was not trained on texts whose {code(column)} is "
                f"{', '.join(map(code, unseen))}; their figures above are of texts unlike those "
                "it learnt from."
            )
    return ["## Limits", "\n".join(f"- {limit}" for limit in found)]


def usage(model: Path) -> list[str]:
    """Show how to classify texts with the folder ``model``."""
    return ["## How to use it", USE.format(folder=model.as_posix())]


def files(facts: Facts, exported: Path) -> list[str]:
    """List the files with their hashes, and the versions of the packages.

    The manifest is not among them: it has the hash of this card.
    """
    files = sorted(path for path in exported.iterdir() if path.name != MANIFEST)
    rows = [[path.name, f"{path.stat().st_size:,}", code(sha256(path))] for path in files]
    versions = [["Python", platform.python_version()]]
    for package in PACKAGES:
        try:
            versions.append([package, version(package)])
        except PackageNotFoundError:  # such as onnxruntime where onnxruntime-gpu is in its place
            continue
    return [
        "## Files",
        "`manifest.json` has the same hashes, and that of this card.",
        table(["file", "bytes", "sha256"], rows),
        "## Versions",
        "Installed when this card was written; the model was saved by transformers "
        f"{facts.config.get('transformers_version', 'of an unknown version')}.",
        table(["package", "version"], versions),
    ]
