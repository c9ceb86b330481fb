"""The model card in each folder that is shipped, from the records of a small project."""

import hashlib
import json
import re
import shlex
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import dvc.api
import pandas as pd
import pytest
from conftest import TOPICS, Project, set_params
from huggingface_hub import ModelCard

from src.core.errors import InputError
from src.predict.manifest import read_manifest
from src.tables import examples
from src.text import card
from src.text.findings import sentence

SAID: dict[str, Any] = {
    "name": "",
    "license": "",
    "languages": [],
    "intended_use": "",
    "contact": "",
}


def write(project: Project, target: Path, model: str = "onnx", **said: Any) -> str:
    """Run the stage in this process, in the project's folder, to ship ``model``; the card."""
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as compared:
        patch.chdir(project.root)
        found = json.loads(Path("dvclive/compare/metrics.json").read_text()) | {"ship": model}
        Path(compared, "metrics.json").write_text(json.dumps(found))
        card.main(
            Path("models/exported"),
            Path("data/splits"),
            Path("data/quality.json"),
            Path("data/predictions"),
            Path("dvclive/evaluate"),
            Path(compared),
            Path("dvclive/train"),
            target,
            **SAID | said,
        )
    return (target / "README.md").read_text(encoding="utf-8")


def params_of(project: Project) -> dict[str, dict[str, Any]]:
    """The params as DVC reads them in the project's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.root)
        params: dict[str, dict[str, Any]] = dvc.api.params_show()
    return params


def read(project: Project, path: str) -> Any:
    return json.loads((project.root / path).read_text())


@pytest.mark.parametrize(
    ("model", "tags"),
    [
        ("onnx", ["bert"]),
        ("onnx-int8", ["bert", "int8"]),
        ("linear-onnx", ["tf-idf"]),
        ("baseline-onnx", ["tf-idf"]),
    ],
)
def test_the_front_matter_is_hugging_faces_with_the_figures_of_the_records(
    model: str, tags: list[str], project: Project, tmp_path: Path
) -> None:
    write(project, tmp_path / "shipped", model)
    found = ModelCard.load(tmp_path / "shipped/README.md").data
    test = read(project, f"dvclive/evaluate/{model}/metrics.json")["test"]
    assert {(r.metric_type, r.metric_name): r.metric_value for r in found.eval_results} == {
        ("accuracy", "Accuracy"): test["accuracy"],
        ("f1", "Macro F1"): test["macro_f1"],
        ("f1", "Weighted F1"): test["weighted_f1"],
        ("log_loss", "Log loss"): test["log_loss"],
        ("expected_calibration_error", "Expected calibration error"): test["ece"],
    }
    assert {(r.task_type, r.dataset_name, r.dataset_split) for r in found.eval_results} == {
        ("text-classification", "data/source/small.jsonl", "test")
    }
    assert (found.library_name, found.pipeline_tag) == ("onnx", "text-classification")
    assert found.tags == ["onnx", "onnxruntime", *tags]
    # What is not known is not there, and nothing but Hugging Face's keys is.
    assert found.to_dict().keys() == {
        *("library_name", "pipeline_tag", "metrics", "tags", "model-index")
    }


def test_the_card_says_what_the_records_say(project: Project) -> None:
    page = (project.root / "models/shipped/README.md").read_text()
    details = read(project, "dvclive/evaluate/onnx/details.json")
    for label, scores in details["classes"].items():
        figures = " | ".join(f"{scores[key]:.4f}" for key in ("precision", "recall", "f1"))
        assert f"\n| `{label}` | {figures} | 6 |\n" in page
        assert f"\n| `{label}` | 10 | 4 | 6 |\n" in page  # of train, validation and test
    for language, scores in details["slices"]["language"].items():
        assert re.search(
            rf"\n\| `{language}` \| {scores['accuracy']:.4f} \|.* \| 9 \| 15 \|\n", page
        )
    test = read(project, "dvclive/evaluate/onnx/metrics.json")["test"]
    low, high = test["macro_f1_low"], test["macro_f1_high"]
    assert f"| Macro F1 | {test['macro_f1']:.4f} | {low:.4f} to {high:.4f} |" in page
    compared = read(project, "dvclive/compare/metrics.json")["onnx"]
    linear = read(project, "dvclive/evaluate/linear/metrics.json")["test"]
    difference = test["accuracy"] - linear["accuracy"]
    low, high = (compared[f"accuracy_difference_{end}"] for end in ("low", "high"))
    assert "Against the model `linear` on the same texts" in page
    p_value = compared["accuracy_difference_p_value"]
    p = f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"
    assert f"| {difference:+.4f} ({low:+.4f} to {high:+.4f}) | {p} | " in page
    verdict = "worse" if compared["accuracy_difference_p_value"] < 0.05 else "not shown to be real"
    assert page.count(f"| {verdict} |") >= 1
    assert "60 rows came in, 60 were kept, and 0 were dropped." in page
    findings = read(project, "data/quality.json")["findings"]
    assert "unknown_tokens" in {finding["code"] for finding in findings}
    assert all(f"\n- {sentence(finding)}\n" in page for finding in findings)
    assert "| `train.lr` | `0.003` |" in page
    predictions = pd.read_parquet(project.root / "data/predictions/onnx/predictions.parquet")
    wrong = int((predictions["label"] != predictions["predicted"]).sum())
    assert f"Of 18 test texts {wrong} got a wrong label" in page
    matrix = pd.crosstab(predictions["label"], predictions["predicted"])
    matrix = matrix.reindex(columns=list(TOPICS), fill_value=0)[sorted(TOPICS)]
    for label in sorted(TOPICS):
        counts = " | ".join(map(str, matrix.loc[label]))
        assert f"\n| `{label}` | {counts} |\n" in page
    assert "| torch | 2.13.0" in page


def test_every_file_that_is_shipped_stands_in_the_card_with_its_sha256(project: Project) -> None:
    folder, exported = project.root / "models/shipped", project.root / "models/exported/onnx"
    page = (folder / "README.md").read_text()
    listed = dict(re.findall(r"\n\| (\S+) \| [\d,]+ \| `([0-9a-f]{64})` \|", page))
    hashes = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }
    assert read_manifest(folder)["files"] == hashes
    del hashes["README.md"]
    assert listed == hashes
    assert hashes.keys() | {"manifest.json"} == {path.name for path in exported.iterdir()}
    for split in examples.SPLITS:
        file = project.root / "data/splits" / f"{split}.parquet"
        assert f"| {file.name} | `{hashlib.sha256(file.read_bytes()).hexdigest()}` |" in page


@pytest.mark.parametrize("model", ["onnx-int8", "linear-onnx", "baseline-onnx"])
def test_the_cards_own_lines_predict_as_the_command_does(
    model: str, project: Project, tmp_path: Path
) -> None:
    page = write(project, tmp_path / "shipped", model)
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = code.replace('text = "a text"', 'text = "bank goal loan"')
    code += "import sys; assert not {'torch', 'transformers', 'src'} & sys.modules.keys()\n"
    label, score = project.run(sys.executable, "-c", code).split()
    (command,) = re.findall(r"\n(python -m src\.predict .*)\n", page)
    words = shlex.split(command.replace("a text", "bank goal loan"))
    answer = json.loads(project.run(*words).splitlines()[-1])  # after the log
    assert label == answer["label"]
    assert float(score) == pytest.approx(answer["score"], abs=1e-6)
    assert project.run(sys.executable, "-c", code.replace("bank goal loan", "")), "of no token"


def test_the_same_inputs_give_the_same_bytes(project: Project, tmp_path: Path) -> None:
    written = write(project, tmp_path / "models/shipped")
    again = write(project, tmp_path / "models/shipped")
    assert written == again
    made = (project.root / "models/shipped/README.md").read_text()
    assert written.replace(f"{tmp_path}/", "") == made
    assert str(project.root) not in made


def test_what_params_say_stands_in_the_card_and_reruns_nothing_else(project: Project) -> None:
    said = {
        "card.name": 'Topics: "small"',
        "card.license": "apache-2.0",
        "card.languages": ["no", "en"],  # the first is false in YAML 1.1
        "card.intended_use": "To sort the mail, and not to judge people.",
        "card.contact": "the mail team",
    }
    set_params(project, said)
    ran = project.ran(project.dvc("repro"))
    assert ran == ["card"]
    found = ModelCard.load(project.root / "models/shipped/README.md")
    assert found.data.model_name == 'Topics: "small"'
    assert (found.data.license, found.data.language) == ("apache-2.0", ["no", "en"])
    assert '\n# Topics: "small"\n' in found.text
    assert "\nTo sort the mail, and not to judge people.\n" in found.text
    assert "| Contact | the mail team |" in found.text
    assert "said to be in no, en" in found.text
    assert "Not stated." not in found.text


def test_names_on_the_hub_become_metadata_and_private_places_do_not_show(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params_of(project)
    quality = project.root / "data/quality.json"
    kept = quality.read_text()

    def with_checkpoint(checkpoint: str, source: str) -> str:
        params["probe"]["checkpoint"] = params["quality"]["checkpoint"] = checkpoint
        params["load"]["source"] = [source]
        quality.write_text(kept.replace("data/source/checkpoint", checkpoint))
        return write(project, tmp_path / "onnx")

    monkeypatch.setattr(dvc.api, "params_show", lambda *_: params)
    try:
        with_checkpoint("someone/encoder", "hf://datasets/someone/texts@main/a.csv")
        found = ModelCard.load(tmp_path / "onnx/README.md").data
        assert (found.base_model, found.datasets) == ("someone/encoder", ["someone/texts"])
        assert found.eval_results[0].dataset_type == "someone/texts"
        with_checkpoint("encoder", "a.csv")  # as the oldest names of the hub are
        assert ModelCard.load(tmp_path / "onnx/README.md").data.base_model == "encoder"
        text = with_checkpoint("/home/alice/encoder", "https://alice:pw@host.org/a.csv?key=secret")
        found = ModelCard.load(tmp_path / "onnx/README.md").data
        assert (found.base_model, found.datasets) == (None, None)
        assert "`encoder`" in text
        assert "unknown to the tokenizer of encoder: " in text
        assert "`https://host.org/a.csv`" in text
        assert not re.search("alice|pw@|secret", text)
        text = with_checkpoint("data/source/checkpoint", "zip://a.csv::/home/alice/b.zip")
        assert "`zip://a.csv::b.zip`" in text
    finally:
        quality.write_text(kept)


def test_a_language_without_training_texts_and_odd_labels_are_said_safely(
    project: Project, tmp_path: Path
) -> None:
    other = Project(tmp_path / "other")
    shutil.copytree(project.root, other.root, symlinks=True, ignore=shutil.ignore_patterns("cache"))
    path = other.root / "data/splits/train.parquet"
    frame = pd.read_parquet(path)
    examples.write(frame[frame["language"] == "en"], path)
    manifest = other.root / "models/exported/onnx/manifest.json"
    odd = "a|b`<i>\u202e"
    manifest.write_text(manifest.read_text().replace('"film"', json.dumps(odd)))
    text = write(other, tmp_path / "onnx")
    assert "- It was not trained on texts whose `language` is `fr`; their figures" in text
    assert "`a¦b'<i>\\u202e`" in text
    assert odd not in text


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ({"license": "MIT License"}, "card.license is 'MIT License': expected an identifier"),
        ({"languages": ["English"]}, "card.languages has 'English': expected codes of ISO 639"),
    ],
)
def test_a_mistake_in_params_is_one_sentence(
    said: dict[str, Any], sentence: str, project: Project, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}"):
        write(project, tmp_path / "onnx", **said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("missing", ["data/quality.json", "dvclive/evaluate/onnx/details.json"])
def test_a_record_that_is_not_there_is_one_sentence(
    missing: str, project: Project, tmp_path: Path
) -> None:
    path = project.root / missing
    path.rename(tmp_path / "away")
    try:
        with pytest.raises(InputError, match=f"^{missing} is missing: run `dvc"):
            write(project, tmp_path / "onnx")
    finally:
        (tmp_path / "away").rename(path)
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize(
    ("model", "kind", "reference"),
    [
        (
            "linear-onnx",
            "logistic regression on the TF-IDF of 1 to 3 characters in a row",
            "baseline",
        ),
        ("baseline-onnx", "random forest on the TF-IDF of single words", "linear"),
    ],
)
def test_a_card_of_words_says_what_it_is(
    model: str, kind: str, reference: str, project: Project, tmp_path: Path
) -> None:
    page = write(project, tmp_path / "shipped", model)
    assert f"It is a {kind}, exported to ONNX." in page
    assert f"Against the model `{reference}` on the same texts" in page
    own, other = (
        read(project, f"dvclive/evaluate/{name}/metrics.json")["test"]["accuracy"]
        for name in (model, reference)
    )
    assert f"| Accuracy | {other:.4f} | {own - other:+.4f} (" in page
    section = model.removesuffix("-onnx")
    params = params_of(project)[section]
    assert all(f"| `{section}.{key}` | `{value}` |" in page for key, value in params.items())
    assert "Of a text it counts the features that it has kept of the training texts" in page
    assert "| scikit-learn | " in page
    found = read(project, "data/quality.json")["findings"]
    assert "unknown_tokens" in {finding["code"] for finding in found}, "of the checkpoint"
    for word in ("checkpoint", "torch", "Trainer", "| `train.", " tokens"):
        assert word not in page


def test_a_card_tells_of_texts_without_an_answer(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = params_of(project)
    assert "there is no answer for none of them" in write(project, tmp_path / "all")
    params["compare"]["min_score"] = 0.25
    params["split"]["out_of_scope"] = ["oos"]
    monkeypatch.setattr(dvc.api, "params_show", lambda *_: params)
    places = ("dvclive/compare/metrics.json", "dvclive/evaluate/onnx/metrics.json")
    compared, judged = (read(project, place) for place in places)
    kept = [(project.root / place).read_text() for place in places]
    compared["onnx"] |= {"coverage": 0.5, "answered_accuracy": 0.75, "out_of_scope_coverage": 0.125}
    judged["test"]["out_of_scope_auroc"] = 0.875
    try:
        for place, found in zip(places, (compared, judged), strict=True):
            (project.root / place).write_text(json.dumps(found))
        page = write(project, tmp_path / "some")
    finally:
        for place, text in zip(places, kept, strict=True):
            (project.root / place).write_text(text)
    assert (
        "It gives a label from a probability of 0.25 on: to 0.5000 of these texts, of which 0.7500 "
        "get the right one; to 0.1250 of the texts that no label fits."
    ) in page
    assert "texts of `oos`, which no label fits, have a lower probability" in page
    assert "0.8750 of all pairs" in page
    assert "A text that it is not sure of gets no label" in page
    assert json.loads((tmp_path / "some/manifest.json").read_text())["min_score"] == 0.25
