"""Ship a model: copy its exported folder, and write its model card into the copy."""

import logging
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from src.core import stage
from src.core.errors import InputError
from src.core.files import replacing
from src.core.markdown import public
from src.predict.manifest import list_too
from src.text import card_page, card_results
from src.text.card_facts import Facts
from src.text.card_results import SCORES
from src.training import cards

log = logging.getLogger("src.text.card")


def main(
    exported: Path,
    splits: Path,
    quality: Path,
    predictions: Path,
    judged: Path,
    compared: Path,
    training: Path,
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
        exported: the folder of the exported models, one of which the comparison ships.
        splits: the folder with ``train.parquet``, ``validation.parquet`` and ``test.parquet``.
        quality: the JSON file with the figures of the data and what was found in it.
        predictions: the folder with a folder of each model's ``predictions.parquet``.
        judged: the folder with a folder of each model's ``metrics.json`` and ``details.json``.
        compared: the folder with the ``metrics.json`` of the comparison.
        training: the folder with that of the training.
        model: the folder that gets the model and its card, ``README.md``.
    """
    languages = [language for language in languages if language]
    _check(license, languages)
    facts = Facts(exported, splits, quality, predictions, judged, compared, training)
    title = " ".join(name.split()) or "Text classifier"
    body = [
        f"# {title}",
        *card_page.purpose(facts, languages, intended_use, license, contact),
        *card_page.training(facts),
        *card_page.data(facts),
        *card_results.results(facts),
        *card_page.limits(facts, languages),
        *card_page.usage(model),
        *card_page.files(facts),
    ]
    front = _front_matter(facts, title, license, languages)
    text = f"---\n{front}\n---\n\n" + "\n\n".join(part.strip() for part in body) + "\n"
    with replacing(model) as folder:
        # Without the modes, as files that DVC has linked to its cache are read-only.
        shutil.copytree(facts.exported, folder, copy_function=shutil.copyfile)
        (folder / "README.md").write_text(text, encoding="utf-8", newline="\n")
        list_too(folder, "README.md", facts.params["compare"]["min_score"])
    log.info("%s is %s, with a card of %d lines", model, facts.name, text.count("\n"))


def _check(license: str, languages: Sequence[str]) -> None:
    cards.expect_license(license, "params.yaml")
    for language in languages:
        if not re.fullmatch(r"[a-z]{2,3}|code|multilingual", language):
            raise InputError(
                f"card.languages has {language!r}: expected codes of ISO 639 such as en or ara, "
                "or multilingual; change it in params.yaml."
            )


def _front_matter(facts: Facts, title: str, license: str, languages: Sequence[str]) -> str:
    """Write what Hugging Face's tools read as YAML, without what is not known."""
    checkpoint = facts.params["probe"]["checkpoint"]
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
    kinds = ["tf-idf"] if facts.of_words else [facts.config["model_type"]]
    bits = ["int8"] if "int8" in facts.weights else []
    card = ModelCardData(
        language=list(languages) or None,
        license=license or None,
        library_name="onnx",
        pipeline_tag="text-classification",
        tags=["onnx", "onnxruntime", *kinds, *bits],
        base_model=None if facts.of_words else cards.on_hub(checkpoint),
        datasets=datasets or None,
        metrics=["accuracy", "f1"],
        model_name=title,
        eval_results=results,
    )
    return str(card.to_yaml(line_break="\n"))


if __name__ == "__main__":
    stage.run(main)
