"""A tiny encoder with random weights, and questions on a few pages, for tests of readers."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from conftest import ROOT
from ruamel.yaml import YAML
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

FILE = ROOT / "qa/params.yaml"
PARAMS: dict[str, Any] = YAML(typ="safe").load(FILE) if FILE.exists() else {}

# What the project says of itself, a page a document: a paragraph, and its questions with answers.
PAGES: dict[str, list[tuple[str, list[tuple[str, str]]]]] = {
    "Cache": [
        (
            "Wheels are kept by their sha256 in the cache, which is a folder of the user. The "
            "variable PEDIGREE_CACHE names another folder.",
            [
                ("What are wheels kept by?", "their sha256"),
                ("Which variable names another folder?", "PEDIGREE_CACHE"),
            ],
        ),
        (
            "A file of the cache that was changed is downloaded again. Two projects share one "
            "copy.",
            [("How many copies do two projects share?", "one")],
        ),
    ],
    "Server": [
        (
            "The server listens on port 8000 of the loopback interface. It answers at most 64 "
            "texts at once.",
            [
                ("Which port does the server listen on?", "8000"),
                ("How many texts does the server answer at once?", "at most 64"),
            ],
        ),
        (
            "A request that is too large is refused with the status 413, and nothing of it is "
            "read.",
            [("With which status is a large request refused?", "413")],
        ),
    ],
    "Split": [
        (
            "Texts are divided into three sides: train, validation and test. Equal texts are on "
            "one side.",
            [
                ("How many sides are texts divided into?", "three"),
                ("Where are equal texts?", "on one side"),
            ],
        ),
    ],
    "Report": [
        (
            "The report compares two revisions, draw by draw. The gate fails where a model lost "
            "more than it may.",
            [
                ("What does the report compare?", "two revisions"),
                ("Where does the gate fail?", "where a model lost more than it may"),
            ],
        ),
    ],
    "Lock": [
        (
            "The lock has the hash of each file that a stage read or wrote. Two clean clones give "
            "one lock.",
            [
                ("What does the lock have?", "the hash of each file"),
                ("How many locks do two clean clones give?", "one"),
            ],
        ),
    ],
}


def squad(pages: dict[str, list[tuple[str, list[tuple[str, str]]]]] | None = None) -> Any:
    """The pages as SQuAD has them."""
    data = []
    for title, paragraphs in (pages or PAGES).items():
        rows = []
        for p, (context, asked) in enumerate(paragraphs):
            qas = [
                {
                    "id": f"{title}-{p}-{q}",
                    "question": question,
                    "answers": [{"text": answer, "answer_start": context.index(answer)}],
                }
                for q, (question, answer) in enumerate(asked)
            ]
            rows.append({"context": context, "qas": qas})
        data.append({"title": title, "paragraphs": rows})
    return {"version": "1.1", "data": data}


def make_facts(documents: int, first: int = 0) -> Any:
    """Documents of sentences, whose questions a tiny model can learn to answer."""
    things = ("port", "name", "size", "colour")
    pages = {}
    for number in range(first, first + documents):
        facts = [
            f"the {thing} of box {number} is v{(number * 7 + k) % 20}"
            for k, thing in enumerate(things)
        ]
        asked = [
            (f"what is the {thing} of box {number} ?", fact.rpartition(" ")[2])
            for thing, fact in zip(things, facts, strict=True)
        ]
        pages[f"box {number}"] = [
            (f"{fact} .", [one]) for fact, one in zip(facts, asked, strict=True)
        ]
    return squad(pages)


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def make_encoder(folder: Path, *texts: str, **config: Any) -> Path:
    """Leave a BERT of two layers that knows the words of some texts in a folder."""
    known = " ".join([*texts, json.dumps([squad(), make_facts(20)])]).lower()
    words = sorted(set(re.findall(r"\w+|[^\w\s]", known)))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    made = Tokenizer(models.WordLevel({w: k for k, w in enumerate(vocabulary)}, "[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    kind: Any = PreTrainedTokenizerFast
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]"}
    tokenizer = kind(tokenizer_object=made, sep_token="[SEP]", model_max_length=96, **special)
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 64, "max_position_embeddings": 96, "vocab_size": len(vocabulary)}
    torch.manual_seed(0)
    settings = AutoConfig.for_model("bert", **{**sizes, "pad_token_id": 0, **config})
    auto: Any = AutoModel
    auto.from_config(settings).save_pretrained(folder)
    return folder


# The values of a training that is over in seconds.
TINY: dict[str, Any] = {
    "sha256": "",
    "max_length": 64,
    "stride": 8,
    "max_question": 16,
    "max_answer": 8,
    "lr": 0.01,
    "epochs": 6,
    "batch_size": 8,
    "precision": "no",
    "save_steps": 3,
    "threads": 1,
}
INGEST: dict[str, Any] = {"validation_size": 0.2, "adapt_size": 0.2, "seed": 1}


def ingested(folder: Path, facts: Any, pages: Any, **changes: Any) -> Path:
    """Leave the sets of a source and a target in ``folder / "sets"``."""
    from src.qa import ingest

    folder.mkdir(parents=True, exist_ok=True)
    places = {
        "source": [str(write(folder / "source.json", facts))],
        "target": [str(write(folder / "target.json", pages))],
    }
    named = (folder / name for name in ("sets", "rejected.csv", "quality.json", "quality.md"))
    ingest.main(folder, *named, **PARAMS["ingest"] | places | INGEST | changes)
    return folder / "sets"


THINGS = ("port", "name", "size", "colour")


def make_boxes(documents: int, first: int = 0) -> Any:
    """Documents with three things of four, and a question on each, one of them without answer."""
    data = []
    for number in range(first, first + documents):
        order = [(number + k * (1 + number % 2 * 2)) % 4 for k in range(3)]
        values = {THINGS[k]: f"{THINGS[k]}{(number * 7 + k) % 5}" for k in order}
        context = " ".join(f"{thing} {value} ." for thing, value in values.items())
        context = f"box {number} : {context}"
        qas = []
        for thing in THINGS:
            start = context.find(values.get(thing, "none"))
            answers = [{"text": values[thing], "answer_start": start}] if thing in values else []
            qas.append(
                {
                    "id": f"{number}-{thing}",
                    "question": f"which {thing} has box {number} ?",
                    "is_impossible": not answers,
                    "answers": answers,
                }
            )
        data.append({"title": f"box {number}", "paragraphs": [{"context": context, "qas": qas}]})
    return {"version": "2.0", "data": data}


def make_reader(folder: Path) -> Path:
    """Train a reader of what boxes hold that knows when there is none; its exported folder."""
    from src.qa import evaluate, export

    sets = ingested(folder, make_boxes(64), make_boxes(8, 80))
    learnt = {"objective": "no_answer", "negatives": 0, "epochs": 16, "lr": 0.002}
    # With weights as small as BERT's at first, so small a model would take long to look around.
    large = {"initializer_range": 0.15, "hidden_size": 64, "num_attention_heads": 4}
    encoder = make_encoder(folder / "encoder", json.dumps(make_boxes(100)), **large)
    trained = read(sets, folder, encoder, **learnt)
    words = PARAMS["evaluate"] | {"questions": 40, "resamples": 9, "precision": "no", "threads": 1}
    evaluate.main(sets, trained, folder / "predictions", folder / "judged/reader", **words)
    words = PARAMS["export"] | {"reader": "reader", "check_questions": 16, "threads": 1}
    places = (folder / name for name in ("onnx", "onnx-int8", "live"))
    export.main(sets, folder / "judged", *places, trained, **words)
    return folder / "onnx"


def read(sets: Path, folder: Path, encoder: Path, **changes: Any) -> Path:
    """Train a reader, which is left in ``folder / "reader"``."""
    from src.qa import reader

    section = PARAMS["reader"] | TINY | {"checkpoint": str(encoder)} | changes
    folder.mkdir(parents=True, exist_ok=True)
    reader.main(sets, folder / "reader", folder / "live/reader", **section)
    return folder / "reader"
