"""The sections of a model card, in Markdown."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from src.core.files import sha256
from src.core.markdown import code, plain, public, table
from src.text.card_facts import Facts
from src.training import cards

PACKAGES = ("tokenizers", "onnx", "onnxruntime", "numpy")
MAKERS = ("torch", "transformers")  # of an encoder
MAKERS_OF_WORDS = ("scikit-learn", "scipy")
KINDS = {"baseline": "random forest", "linear": "logistic regression"}  # of TF-IDF features
POOLINGS = {"first": "its first token", "mean": "the mean of all tokens"}
SURE = 0.9  # the probability from which a mistake is a sure one
CONFUSED = 5  # pairs of labels that the card names
EVERY = (
    "Every text gets one of the labels, whatever it is about and in whatever language: there is no "
    "answer for none of them."
)
NO_ANSWER = (
    "A text that it is not sure of gets no label, but others do, whatever they are about and in "
    "whatever language."
)

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
ids = np.array([tokenizer.encode(text[: manifest["max_characters"]]).ids], np.int64)
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
    said = {"Languages": ", ".join(languages), "License": license, "Contact": contact}
    return [
        f"It gives a text one of {len(labels)} labels, and a probability to each: "
        f"{', '.join(map(code, labels))}. It is {_kind(facts)}, exported to ONNX.",
        *cards.intended_use(intended_use, **said),
    ]


def _kind(facts: Facts) -> str:
    if facts.of_words:
        params = facts.params[facts.of_words]
        least, most = params["ngram_range"]
        units = "words" if params["analyzer"] == "word" else "characters"
        span = f"{least}" if least == most else f"{least} to {most}"
        features = f"{span} {units} in a row" if most > 1 else f"single {units}"
        return f"a {KINDS[facts.of_words]} on the TF-IDF of {features}"
    numbers = ", ".join(f"{count:,} {kind}" for kind, count in facts.weights.items())
    read = POOLINGS[facts.config.get("pooling", "first")]
    return (
        f"an encoder of the kind {code(facts.config['model_type'])} with a classification head, "
        f"which reads {read}; its weights are {numbers}"
    )


def training(facts: Facts) -> list[str]:
    """Say what the model was trained from, and by which params."""
    if section := facts.of_words:
        params = {f"{section}.{key}": value for key, value in facts.params[section].items()}
        how = "With scikit-learn on the training texts; a temperature that fits the validation "
        how += "texts is part of it."
        return ["## How it was trained", how, cards.params(params)]
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
    elif facts.step == facts.last_step:
        kept += ", which is the last one: it was still getting better"
    return [
        "## How it was trained",
        f"From the checkpoint {code(checkpoint)}, by a logistic regression on what it makes of the "
        f"texts, and then by fine-tuning with Hugging Face Trainer, {kept}.",
        cards.params(params),
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
    files = [*facts.splits.values(), facts.out_of_scope]
    hashes = [[path.name, code(sha256(path))] for path in files if path.exists()]
    outside = ", ".join(map(code, split["out_of_scope"]))
    apart = f" No side has texts of {outside}, which no label fits." if outside else ""
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
        f"up to case, spaces and Unicode form are on one side.{apart}{limited}",
        table(["label", *facts.counts], [*classes, total]),
        table(["file", "sha256"], hashes),
    ]
    if facts.warnings:
        warnings = "\n".join(f"- {plain(warning)}" for warning in facts.warnings)
        parts += ["What the data's own check warns of:", warnings]
    return parts


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
        NO_ANSWER if facts.params["compare"]["min_score"] else EVERY,
        f"It was judged on texts of the same source as those it learnt from, {said}; their letters "
        f"are {scripts}. Nothing here tells how it does on others.",
        f"Of a text it reads the first {characters:,} characters, and of these at most {length:,} "
        f"tokens. In the data, {100 * tokens['over_max_length']:.1f} % of the texts have more than "
        f"{quality['max_length']:,} tokens, and {100 * tokens['lost']:.1f} % of all tokens were "
        "not read."
        if not facts.of_words
        else "Of a text it counts the features that it has kept of the training texts. All else it "
        "does not see, nor in which order they stand.",
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


def files(facts: Facts) -> list[str]:
    """List the files with their hashes, and the versions of the packages."""
    version_then = facts.config.get("transformers_version", "of an unknown version")
    saved = "" if facts.of_words else f"; the model was saved by transformers {version_then}"
    makers = MAKERS_OF_WORDS if facts.of_words else MAKERS
    return cards.files(facts.exported, (*makers, *PACKAGES), saved)
