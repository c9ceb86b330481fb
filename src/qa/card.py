"""Ship a reader: copy its exported folder, and write its model card into the copy."""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dvc.api
from huggingface_hub import EvalResult, ModelCardData

from src.core import stage
from src.core.errors import InputError
from src.core.files import replacing
from src.core.markdown import code, public, table
from src.predict.reader.manifest import ReaderManifest, read_reader_manifest, write_reader_manifest
from src.training import cards

PACKAGES = ("torch", "transformers", "tokenizers", "onnx", "onnxruntime", "numpy")
# What other stages were told; DVC reads it, as it reads it for them.
SECTIONS = ("ingest", "reader", "objective", "evaluate", "export")

USE = """\
In the repository that this model comes from, `dvc pull {folder}` brings it, and

```
python -m src.predict.ask "Who pays for it?" --documents handbook/ --model {folder}
python -m src.serve {folder} --documents handbook/
```

asks it about documents. Elsewhere, all that it takes is `pip install onnxruntime tokenizers numpy`:

```python
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

folder = "{folder}"  # where this card is
question, paragraph = "Who pays for it?", "The bill is paid by the city."
tokenizer = Tokenizer.from_file(f"{{folder}}/tokenizer.json")
tokenizer.enable_truncation({max_length}, strategy="only_second")
tokens = tokenizer.encode(question, paragraph)
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")
feed = {{"input_ids": [tokens.ids], "attention_mask": [tokens.attention_mask]}}
starts, ends = session.run(["logits"], {{k: np.array(v) for k, v in feed.items()}})[0][0].T
inside = [k for k, of in enumerate(tokens.sequence_ids) if of == 1]
score, first, last = max(
    (starts[a] + ends[b] - starts[0] - ends[0], a, b)
    for a in inside
    for b in inside
    if a <= b < a + {max_answer}
)
print(paragraph[tokens.offsets[first][0] : tokens.offsets[last][1]], score)
```

A score below {threshold:.2f} means that there is no answer.
"""

log = logging.getLogger("src.qa.card")


@dataclass(frozen=True)
class Facts:
    """What the stages before found of the reader that is shipped."""

    folder: Path  # of the exported model
    manifest: ReaderManifest
    params: Mapping[str, Any]
    quality: Mapping[str, Any]
    figures: Mapping[str, Any]
    details: Mapping[str, Any]
    cheap: Mapping[str, Any]  # the figures of the reader without a model
    parity: Mapping[str, float]


def main(
    quality: Path,
    live: Path,
    shipped: Path,
    *folders: Path,
    ship: Literal["onnx", "onnx-int8"],
    name: str,
    license: str,
    languages: list[str],
    intended_use: str,
    contact: str,
) -> None:
    """Write the folder that is shipped: the exported one, and a card in Hugging Face's format.

    Args:
        quality: the JSON file with the figures of the questions.
        live: the folder with those of ``evaluate`` and ``export``.
        shipped: the folder that gets the model and its card, ``README.md``.
        folders: those of the exported models.
    """
    cards.expect_license(license, "qa/params.yaml")
    folder = next(one for one in folders if one.name == ship)
    every = dvc.api.params_show("qa/params.yaml")
    params = {section: every[section] for section in SECTIONS}
    # In fp32 it is what was trained, as the export has shown.
    judged = live / "evaluate" / (ship if ship == "onnx-int8" else params["export"]["reader"])
    facts = Facts(
        folder=folder,
        manifest=read_reader_manifest(folder),
        params=params,
        quality=_json(quality),
        figures=_json(judged / "metrics.json"),
        details=_json(judged / "details.json"),
        cheap=_json(live / "evaluate/lexical/metrics.json"),
        parity=_json(live / "export/metrics.json")["int8" if ship == "onnx-int8" else "fp32"],
    )
    title = " ".join(name.split()) or "Reader of documents"
    body = [
        f"# {title}",
        *_purpose(facts),
        *cards.intended_use(intended_use, License=license, Contact=contact),
        *_results(facts),
        *_training(facts),
        *_limits(),
        "## How to use it",
        USE.format(folder=shipped.as_posix(), **facts.manifest._asdict()),
        *cards.files(folder, PACKAGES),
    ]
    front = _front_matter(facts, title, license, languages)
    text = f"---\n{front}\n---\n\n" + "\n\n".join(part.strip() for part in body) + "\n"
    with replacing(shipped) as made:
        # Without the modes, as files that DVC has linked to its cache are read-only.
        shutil.copytree(folder, made, copy_function=shutil.copyfile)
        (made / "README.md").write_text(text, encoding="utf-8", newline="\n")
        write_reader_manifest(made, facts.manifest._asdict())
    log.info("%s is %s, with a card of %d lines", shipped, ship, text.count("\n"))


def _json(path: Path) -> Any:
    if not path.exists():
        raise InputError(f"{path} is missing: run `dvc repro qa/dvc.yaml` first.")
    return json.loads(path.read_text(encoding="utf-8"))


def _purpose(facts: Facts) -> list[str]:
    reader, manifest = facts.params["reader"], facts.manifest
    limit = f"{manifest.threshold:.2f}"
    return [
        f"It points at the answer to a question in a paragraph. It is {code(reader['checkpoint'])} "
        f"with a head that gives each token a logit for the start and the end of an answer, and "
        f"the first token both for there being none. The score of an answer is its logits minus "
        f"these; below {limit}, which tells paragraphs with the answer best from others on the "
        "validation questions, there is none.",
        f"It reads windows of {manifest.max_length} tokens, of a question at most "
        f"{manifest.max_question}, and its answers have at most {manifest.max_answer}.",
    ]


def _results(facts: Facts) -> list[str]:
    figures, cheap = facts.figures, facts.cheap
    low, high = (f"{100 * value:.1f}" for value in facts.details["intervals"]["token_f1"])
    confidence = 100 * facts.params["evaluate"]["confidence"]

    def row(name: str, key: str, figure: str) -> list[str]:
        return [name, *(f"{100 * one[key][figure]:.1f}" for one in (figures, cheap))]

    most = max(facts.params["evaluate"]["ks"])
    rows = [
        row("exactly right", "test", "exact_match"),
        row(f"F1 of words ({low} to {high})", "test", "token_f1"),
        row(f"F1 out of the {most} paragraphs that BM25 finds", "paragraphs", f"minus_null@{most}"),
    ]
    said = [
        "## How it was judged",
        f"On {facts.quality['sets']['test']['questions']:,} questions of the test, which no stage "
        f"learns from or chooses by; in percent, with a {confidence:g} % interval (bootstrap), "
        "beside a reader without a model, which looks for the words of the question.",
        table(["answers", "this reader", "without a model"], rows),
    ]
    if auc := figures["answerable"].get("auc"):
        said.append(
            f"AUC {auc:.3f} of telling a paragraph with the answer from the likeliest one without. "
            f"The expected calibration error of its probabilities is "
            f"{figures['calibration']['ece']:.3f}."
        )
    said.append(
        f"Its logits are within {facts.parity['max_logit_difference']:.2g} of torch's, and "
        f"{100 * facts.parity['equal_answers']:.1f} % of its answers are the same."
    )
    return said


def _training(facts: Facts) -> list[str]:
    ingest = facts.params["ingest"]
    places = ", ".join(code(public(place)) for place in ingest["source"])
    target = ", ".join(code(public(place)) for place in ingest["target"])
    rows = [
        [code(name), *(f"{one[key]:,}" for key in ("documents", "paragraphs", "questions"))]
        for name, one in facts.quality["sets"].items()
    ]
    params = {
        f"{section}.{key}": value
        for section in ("reader", "objective")
        for key, value in facts.params[section].items()
    }
    return [
        "## The data",
        f"Learnt from {places}, judged on {target}:",
        table(["set", "documents", "paragraphs", "questions"], rows),
        "## How it was trained",
        f"The epoch that was best on the validation questions, and then the objective "
        f"{code(facts.params['export']['reader'])}.",
        cards.params(params),
    ]


def _limits() -> list[str]:
    found = [
        "An answer is a span of a paragraph. It counts nothing, adds nothing up, and says neither "
        "yes nor no.",
        "It may be sure and wrong, most of all where a paragraph has another thing of the kind "
        "that is asked for; the probability is that of an answer like those of the validation "
        "questions.",
        "Out of many documents it finds what BM25 finds: a question that has no word of the "
        "paragraph in it finds nothing.",
    ]
    return ["## Limits", "\n".join(f"- {limit}" for limit in found)]


def _front_matter(facts: Facts, title: str, license: str, languages: list[str]) -> str:
    """Write what Hugging Face's tools read as YAML, without what is not known."""
    results = [
        EvalResult(
            task_type="question-answering",
            task_name="Question answering",
            dataset_type="squad_v2",
            dataset_name=", ".join(map(public, facts.params["ingest"]["target"])),
            dataset_split="test",
            metric_type=kind,
            metric_name=shown,
            metric_value=facts.figures["test"][key],
        )
        for key, kind, shown in (
            ("exact_match", "exact_match", "Exact match"),
            ("token_f1", "f1", "F1"),
        )
    ]
    card = ModelCardData(
        language=[*languages] or None,
        license=license or None,
        library_name="onnx",
        pipeline_tag="question-answering",
        base_model=cards.on_hub(facts.params["reader"]["checkpoint"]),
        tags=["onnx", "onnxruntime", "extractive-qa"],
        model_name=title,
        eval_results=results,
    )
    return str(card.to_yaml(line_break="\n"))


if __name__ == "__main__":
    stage.run(main)
