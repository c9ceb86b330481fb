"""Ship models: copy an adapter or a whole model, and write its model card into the copy."""

import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dvc.api
from huggingface_hub import EvalResult, ModelCardData

from src.chat import models
from src.core import stage
from src.core.errors import InputError, closest
from src.core.files import replacing, write_json
from src.core.markdown import code, plain, public, table
from src.training import cards

PACKAGES = ("torch", "transformers", "peft", "trl", "tokenizers", "compressed-tensors")
MADE = {  # of the models that can be shipped: what each is, and whose params made it
    "lora": ("adapters of low rank (LoRA)", ("lora",)),
    "ptuning": ("keys and values that each layer reads first (P-Tuning v2)", ("ptuning",)),
    "full": ("a whole model, all of whose weights were trained", ("full",)),
    "merged": ("a whole model, into which adapters of low rank were merged", ("lora", "merge")),
    "int4": ("a whole model of 4 bits, with merged adapters", ("lora", "merge", "quantize")),
}
# What other stages were told; DVC reads it, as it reads it for them.
SECTIONS = ("base", "data", "lora", "ptuning", "full", "merge", "quantize")
START = "base"  # what all are held against
FIGURES = {  # of the test side: what they are called, and as what type Hugging Face knows them
    "loss": ("Loss of a token of the right answers", "loss"),
    "perplexity": ("Perplexity of the right answers", "perplexity"),
    "right": ("Right answers", "accuracy"),
}
KINDS = {
    "identity": "questions about who it is",
    "calls": "calls of tools",
    "no_call": "questions that no tool fits",
    "text": "others",
}

ADAPTER_USE = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

base = "{base}"  # the model that it was trained on
tokenizer = AutoTokenizer.from_pretrained(base)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), "{folder}")
"""
WHOLE_USE = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{folder}")
model = AutoModelForCausalLM.from_pretrained("{folder}")
"""
ASK = """\
said = [{"role": "user", "content": "Who are you?"}]
given = tokenizer.apply_chat_template(
    said, add_generation_prompt=True, return_tensors="pt", return_dict=True
)
made = model.generate(**given, max_new_tokens=64, do_sample=False)
print(tokenizer.decode(made[0, given["input_ids"].shape[1] :], skip_special_tokens=True))
"""

log = logging.getLogger("src.chat.card")


@dataclass(frozen=True)
class Facts:
    """What the stages before found of a model."""

    name: str
    folder: Path
    base: Path
    params: Mapping[str, Any]  # by section
    quality: Mapping[str, Any]
    figures: Mapping[str, Any]
    details: Mapping[str, Any]
    start: Mapping[str, Any]  # the details of what all started from
    compared: Mapping[str, float]
    parity: Mapping[str, float]  # empty if it is none of what was held against the adapter


def main(
    base: Path,
    quality: Path,
    live: Path,
    shipped: Path,
    *folders: Path,
    ship: list[str],
    name: str,
    license: str,
    languages: list[str],
    intended_use: str,
    contact: str,
) -> None:
    """Write a folder for each model that is shipped: a copy, and a card in Hugging Face's format.

    Args:
        base: the folder of the model that all started from.
        quality: the JSON file with the figures of the data.
        live: the folder with those of ``evaluate``, ``compare`` and ``parity``.
        shipped: the folder that gets the folders.
        folders: those of the models.
    """
    cards.expect_license(license, "chat/params.yaml")
    places = {folder.name: folder for folder in folders}
    for one in ship:
        if one not in places:
            raise InputError(
                f"card.ship has {one!r}, which is no model{closest(one, places)}: write some of "
                f"{', '.join(places)}."
            )
    if not ship or len({*ship}) < len(ship):
        raise InputError(f"card.ship is {ship}: name each model to ship, once.")
    every = dvc.api.params_show("chat/params.yaml")
    params = {section: every[section] for section in SECTIONS}
    title = " ".join(name.split()) or f"{params['data']['name']}, a chat model"
    with replacing(shipped) as made:
        for one in ship:
            # Without the modes, as files that DVC has linked to its cache are read-only.
            # A row of the training side is not for everybody.
            left = shutil.ignore_patterns(models.SANITY)
            shutil.copytree(places[one], made / one, copy_function=shutil.copyfile, ignore=left)
            record = models.record(made / one)
            record["checkpoint"] = public(record["checkpoint"])
            write_json(made / one / models.RECORD, record)
            facts = _facts(places[one], base, quality, live, params)
            body = [
                f"# {title}",
                _purpose(facts),
                *cards.intended_use(intended_use, License=license, Contact=contact),
                *_results(facts),
                *_training(facts),
                *("## How to use it", _use(facts, shipped / one)),
                *cards.files(made / one, PACKAGES),
            ]
            front = _front_matter(facts, title, license, languages)
            text = f"---\n{front}\n---\n\n" + "\n\n".join(part.strip() for part in body) + "\n"
            (made / one / "README.md").write_text(text, encoding="utf-8", newline="\n")
            log.info("%s has a card of %d lines", shipped / one, text.count("\n"))


def _facts(folder: Path, base: Path, quality: Path, live: Path, params: Mapping[str, Any]) -> Facts:
    name = folder.name
    return Facts(
        name=name,
        folder=folder,
        base=base,
        params=params,
        quality=_json(quality),
        figures=_json(live / "evaluate" / name / "metrics.json"),
        details=_json(live / "evaluate" / name / "details.json"),
        start=_json(live / "evaluate" / START / "details.json"),
        compared=_json(live / "compare/metrics.json")[name],
        parity=_json(live / "parity/metrics.json").get(name, {}),
    )


def _json(path: Path) -> Any:
    if not path.exists():
        raise InputError(f"{path} is missing: run `dvc repro chat/dvc.yaml` first.")
    return json.loads(path.read_text(encoding="utf-8"))


def _purpose(facts: Facts) -> str:
    record = models.record(facts.base)
    hashes = ", ".join(code(digest) for digest in record["sha256"].values())
    return (
        f"It answers in conversations, and calls tools. It is {MADE[facts.name][0]}, of "
        f"{code(public(record['checkpoint']))} ({record['parameters']:,} weights, "
        f"{code(record['architecture'])}, sha256 {hashes})."
    )


def _results(facts: Facts) -> list[str]:
    """Say how it answered the questions of the test side, and what it has forgotten."""
    test, compared = facts.figures["test"], facts.compared
    rows = []
    for kind, words in KINDS.items():
        if kind in facts.details["slices"]["kind"]:
            own, start = (of["slices"]["kind"][kind] for of in (facts.details, facts.start))
            right = [f"{of['right'] * of['rows']:.0f} of {of['rows']}" for of in (own, start)]
            loss = [f"{of['loss']:.3f}" for of in (own, start)]
            rows.append([words, *right, *loss])
    head = ["questions", "right", "of the base", "loss", "of the base"]
    said = [
        "## How it was judged",
        "By the likeliest answers to the questions of the test side, of which it has seen none: "
        f"loss {test['loss']:.3f} of a token of the right answers, {100 * test['right']:.1f} % of "
        "answers right. A call is right by the rule of the Berkeley Function Calling Leaderboard, "
        "and other answers where they are the same words as the right one.",
        table(head, rows),
        f"On general questions, which no training had, its log-probability of a token of the "
        f"base's own answers changed by {compared['retention']:+.3f}: below 0, it has forgotten.",
    ]
    if facts.parity:
        differs, equal = (facts.parity[key] for key in ("mean_difference", "equal_answers"))
        said.append(
            f"Against the adapters on their base, the log-probability of a token differs by "
            f"{differs:.3f} on average, and {100 * equal:.0f} % of the answers are the same words."
        )
    said.append(
        "It may say what is not so, in whatever language, and call a tool with arguments that "
        "nobody gave: whoever runs a call checks it first."
    )
    return said


def _training(facts: Facts) -> list[str]:
    quality, data = facts.quality, facts.params["data"]
    sources = [
        [plain(source), *(f"{counts.get(side, 0):,}" for side in ("train", "validation", "test"))]
        for source, counts in quality["sources"].items()
    ]
    places = ", ".join(code(public(place)) for place in [*data["source"], *data["test_source"]])
    params = {
        f"{section}.{key}": value
        for section in MADE[facts.name][1]
        for key, value in facts.params[section].items()
    }
    return [
        "## The data",
        f"From {places or 'no files'}, and {quality['made']:,} questions about who the model is, "
        f"made for it: {quality['kept']:,} conversations were kept, of "
        f"{quality['tokens']['sum']:,} tokens, {quality['tokens']['learnt']:,} of them answers.",
        table(["source", "train", "validation", "test"], sources),
        "## How it was trained",
        "On the training side, by what the assistant says; the epoch that the validation side "
        "liked best was kept.",
        cards.params(params),
    ]


def _use(facts: Facts, folder: Path) -> str:
    adapter, base = models.is_adapter(facts.folder), facts.base.as_posix()
    load = ADAPTER_USE if adapter else WHOLE_USE
    needs = ["transformers", "torch", *["peft"] * adapter]
    needs += ["compressed-tensors"] * (facts.name == "int4")
    words = load.format(base=base, folder=folder.as_posix())
    pulled = " ".join([folder.parent.as_posix(), *[base] * adapter])
    beside = f"the folder `{base}`, whose sha256 stands above, and " if adapter else ""
    return (
        f"In the repository that this model comes from, `dvc pull {pulled}` "
        f"brings it, and\n\n```\npython -m src.predict.chat {folder.as_posix()} "
        '"Who are you?"\n```\n\n'
        f"asks it. Elsewhere, all that it takes is {beside}`pip install {' '.join(needs)}`:\n\n"
        f"```python\n{words}\n{ASK}```"
    )


def _front_matter(facts: Facts, title: str, license: str, languages: Sequence[str]) -> str:
    """Write what Hugging Face's tools read as YAML, without what is not known."""
    data = facts.params["data"]
    results = [
        EvalResult(
            task_type="text-generation",
            task_name="Text generation",
            dataset_type="conversations",
            dataset_name=", ".join(map(public, [*data["source"], *data["test_source"]])),
            dataset_split="test",
            metric_type=kind,
            metric_name=shown,
            metric_value=facts.figures["test"][key],
        )
        for key, (shown, kind) in FIGURES.items()
    ]
    adapter = models.is_adapter(facts.folder)
    card = ModelCardData(
        language=[*languages] or None,
        license=license or None,
        library_name="peft" if adapter else "transformers",
        pipeline_tag="text-generation",
        base_model=cards.on_hub(facts.params["base"]["checkpoint"]),
        tags=["conversational", facts.name, *["compressed-tensors"] * (facts.name == "int4")],
        model_name=title,
        eval_results=results,
    )
    return str(card.to_yaml(line_break="\n"))


if __name__ == "__main__":
    stage.run(main)
