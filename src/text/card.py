"""Ship a model: copy its exported folder, and write into it the card that says what it is."""

import json
import logging
import math
import platform
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import dvc.api
import onnx
import pandas as pd
import pyarrow as pa
from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from onnx.helper import tensor_dtype_to_np_dtype

from src.core import stage
from src.core.errors import InputError
from src.core.files import replacing, sha256
from src.core.markdown import code, public, table
from src.tables import examples
from src.text.findings import Finding, sentence

# What other stages were told; DVC reads it, as it reads it for them.
SECTIONS = ("load", "quality", "split", "train", "evaluate", "compare")
PACKAGES = ("torch", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy")
SCORES = {  # the metrics' names here, and the types and names that Hugging Face's cards give them
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "weighted_f1": ("f1", "Weighted F1"),
    "log_loss": ("log_loss", "Log loss"),
    "ece": ("expected_calibration_error", "Expected calibration error"),
}
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

log = logging.getLogger("src.text.card")


def main(
    exported: Path,
    splits: Path,
    quality: Path,
    predictions: Path,
    results: Path,
    baseline: Path,
    compared: Path,
    model: Path,
    *,
    name: str,
    license: str,
    languages: list[str],
    intended_use: str,
    contact: str,
) -> None:
    """Write the folder that is shipped: the exported one, and a card in Hugging Face's format.

    Args:
        exported: the model folder that was judged.
        splits: the folder with ``train.parquet``, ``validation.parquet`` and ``test.parquet``.
        quality: the JSON file with the figures of the data and what was found in it.
        predictions: the folder with the model's ``predictions.parquet``.
        results: the folder with the model's ``metrics.json`` and ``details.json``.
        baseline: the same of the model that it was compared with.
        compared: the folder with the ``metrics.json`` of the comparison.
        model: the folder that gets the model and its card, ``README.md``.
    """
    languages = [language for language in languages if language]
    _check(license, languages)
    facts = Facts(exported, splits, quality, predictions, results, baseline, compared)
    title = " ".join(name.split()) or "Text classifier"
    body = [
        f"# {title}",
        *_purpose(facts, languages, intended_use, license, contact),
        *_training(facts),
        *_data(facts),
        *_results(facts),
        *_limits(facts, languages),
        *("## How to use it", USE.format(folder=model.as_posix())),
        *_files(facts, exported),
    ]
    front = _front_matter(facts, title, license, languages)
    text = f"---\n{front}\n---\n\n" + "\n\n".join(part.strip() for part in body) + "\n"
    with replacing(model) as folder:
        # Without the modes, as files that DVC has linked to its cache are read-only.
        shutil.copytree(exported, folder, copy_function=shutil.copyfile)
        (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")
    log.info("%s has a card of %d lines", model, text.count("\n"))


class Facts:
    """What the stages before have found, read from where they left it.

    Attributes:
        params: the sections of params.yaml that made the model and its figures.
        manifest: of the model folder.
        config: the encoder's ``config.json``.
        weights: how many numbers the graph holds, by their type.
        counts: a frame of each split, with the columns label and those of the slices.
        splits: the splits' files by name.
        quality: the figures of the data.
        warnings: what is likely wrong with the data, a sentence each.
        test: the figures on the test split.
        details: the same by class and by slice.
        predictions: what the model says of each test text.
        baseline: the name of the model that it was compared with, and its figures.
        difference: the intervals and p-values of the comparison.
    """

    def __init__(
        self,
        exported: Path,
        splits: Path,
        quality: Path,
        predictions: Path,
        results: Path,
        baseline: Path,
        compared: Path,
    ) -> None:
        """Read all of it.

        Raises:
            InputError: something is not there.
        """
        found = dvc.api.params_show("params.yaml")
        self.params: dict[str, dict[str, Any]] = {name: found[name] for name in SECTIONS}
        self.manifest = _read_json(exported / "manifest.json")
        self.config = _read_json(exported / "config.json")
        self.weights = _weights(exported / "model.onnx")
        self.details = _read_json(results / "details.json")
        self.splits = {split: splits / f"{split}.parquet" for split in examples.SPLITS}
        columns = ["label", *self.details["slices"]]
        self.counts: dict[str, pd.DataFrame] = {
            split: pa.concat_tables(examples.scan(path, columns)).to_pandas()
            for split, path in self.splits.items()
        }
        self.quality = _read_json(quality)
        self.warnings = [_public_sentence(finding) for finding in self.quality["findings"]]
        self.test: dict[str, float] = _read_json(results / "metrics.json")["test"]
        self.predictions = examples.read(predictions / "predictions.parquet")
        self.baseline = baseline.name, _read_json(baseline / "metrics.json")["test"]
        differences = _read_json(compared / "metrics.json")
        if results.name not in differences:
            raise InputError(
                f"Expected a comparison of {results.name} in {compared / 'metrics.json'}, found "
                f"those of {', '.join(differences)}: run `dvc repro compare` with it."
            )
        self.difference: dict[str, float] = differences[results.name]

    @property
    def scores(self) -> Any:
        """The probability of the label of each test text."""
        columns = [c for c in map(str, self.predictions) if c.startswith("p_")]
        return self.predictions[columns].max(axis=1)

    @property
    def right(self) -> Any:
        """Whether each test text got its true label."""
        return self.predictions["label"] == self.predictions["predicted"]


def _check(license: str, languages: Sequence[str]) -> None:
    if license and not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", license):
        raise InputError(
            f"card.license is {license!r}: expected an identifier of Hugging Face's, such as "
            "apache-2.0, mit or other, or ''; change it in params.yaml."
        )
    for language in languages:
        if not re.fullmatch(r"[a-z]{2,3}|code|multilingual", language):
            raise InputError(
                f"card.languages has {language!r}: expected codes of ISO 639 such as en or ara, "
                "or multilingual; change it in params.yaml."
            )


def _read_json(path: Path) -> Any:
    if not path.exists():
        raise InputError(f"Expected {path}, found nothing: run `dvc repro` first.")
    return json.loads(path.read_text(encoding="utf-8"))


def _public_sentence(finding: Finding) -> str:
    """Say a finding without what the path of a checkpoint tells of a user."""
    shown = {"checkpoint": public(finding["checkpoint"])} if "checkpoint" in finding else {}
    return sentence(finding | shown)


def _weights(path: Path) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for weight in onnx.load(path).graph.initializer:
        counts[tensor_dtype_to_np_dtype(weight.data_type).name] += math.prod(weight.dims)
    return {
        kind: count for kind, count in counts.most_common() if count > sum(counts.values()) / 100
    }


def _front_matter(facts: Facts, title: str, license: str, languages: Sequence[str]) -> str:
    """What Hugging Face's tools read, as YAML; what is not known is left out."""
    checkpoint = facts.params["train"]["checkpoint"]
    source = facts.params["load"]["source"]
    datasets = [
        m[1] for place in source if (m := re.match(r"hf://datasets/([^/@]+/[^/@]+)", place))
    ]
    data = ", ".join(map(public, source))
    results = [
        EvalResult(
            task_type="text-classification",
            task_name="Text classification",
            dataset_type=datasets[0] if len(datasets) == 1 else "text",
            dataset_name=data,
            dataset_split="test",
            metric_type=kind,
            metric_name=shown,
            metric_value=facts.test[key],
        )
        for key, (kind, shown) in SCORES.items()
    ]
    card = ModelCardData(
        language=list(languages) or None,
        license=license or None,
        library_name="onnx",
        pipeline_tag="text-classification",
        tags=["onnx", "onnxruntime", facts.config["model_type"], *_eight_bits(facts)],
        base_model=checkpoint if _is_on_hub(checkpoint) else None,
        datasets=datasets or None,
        metrics=["accuracy", "f1"],
        model_name=title,
        eval_results=results,
    )
    return str(card.to_yaml(line_break="\n"))


def _eight_bits(facts: Facts) -> list[str]:
    return ["int8"] if "int8" in facts.weights else []


def _is_on_hub(checkpoint: str) -> bool:
    """Whether a checkpoint is a name of Hugging Face's, and no folder or package."""
    try:
        validate_repo_id(checkpoint)
    except HFValidationError:
        return False
    return not Path(checkpoint).exists()


def _purpose(
    facts: Facts, languages: Sequence[str], intended_use: str, license: str, contact: str
) -> list[str]:
    labels = facts.manifest["labels"]
    numbers = ", ".join(f"{count:,} {kind}" for kind, count in facts.weights.items())
    unsaid = "Not stated."
    return [
        f"It gives a text one of {len(labels)} labels, and a probability to each: "
        f"{', '.join(map(code, labels))}. It is an encoder of the kind "
        f"{code(facts.config['model_type'])} with a classification head, exported to ONNX; its "
        f"weights are {numbers}.",
        "## Intended use",
        intended_use.strip() or unsaid,
        table(
            ["", ""],
            [
                ["Languages", ", ".join(languages) or unsaid],
                ["License", license or unsaid],
                ["Contact", " ".join(contact.split()) or unsaid],
            ],
        ),
    ]


def _training(facts: Facts) -> list[str]:
    params = facts.params["train"]
    rows = [[code(key), code(value)] for key, value in params.items() if key != "checkpoint"]
    return [
        "## How it was trained",
        f"From the checkpoint {code(public(params['checkpoint']))}, with Hugging Face Trainer; "
        f"the epoch that was best by {code(params['metric_for_best_model'])} on the validation "
        "texts was kept.",
        table(["param", "value"], rows),
    ]


def _data(facts: Facts) -> list[str]:
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
        warnings = "\n".join(f"- {warning}" for warning in facts.warnings)
        parts += ["What the data's own check warns of:", warnings]
    return parts


def _results(facts: Facts) -> list[str]:
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
    name, figures = facts.baseline
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
        rows.append(
            [
                SCORES[key][1],
                f"{figures[key]:.4f}",
                f"{point:+.4f} ({low:+.4f} to {high:+.4f})",
                p,
                verdict,
            ]
        )
    yield table(["figure", f"of {code(name)}", "difference", "p", "the difference is"], rows)


def _limits(facts: Facts, languages: Sequence[str]) -> list[str]:
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
    for column, values in facts.details["slices"].items():
        trained = set(facts.counts["train"][column].fillna("(none)"))
        if unseen := [value for value in values if value not in trained]:
            found.append(
                f"It was not trained on texts whose {code(column)} is "
                f"{', '.join(map(code, unseen))}; their figures above are of texts unlike those "
                "it learnt from."
            )
    return ["## Limits", "\n".join(f"- {limit}" for limit in found)]


def _files(facts: Facts, exported: Path) -> list[str]:
    files = sorted(path for path in exported.iterdir() if path.is_file())
    rows = [[path.name, f"{path.stat().st_size:,}", code(sha256(path))] for path in files]
    versions = [["Python", platform.python_version()]]
    for package in PACKAGES:
        try:
            versions.append([package, version(package)])
        except PackageNotFoundError:  # such as onnxruntime where onnxruntime-gpu is in its place
            continue
    return [
        "## Files",
        table(["file", "bytes", "sha256"], rows),
        "## Versions",
        "Installed when this card was written; the model was saved by transformers "
        f"{facts.config.get('transformers_version', 'of an unknown version')}.",
        table(["package", "version"], versions),
    ]


if __name__ == "__main__":
    stage.run(main)
