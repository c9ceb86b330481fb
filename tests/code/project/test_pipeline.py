"""The real pipeline run small, in a git repository of its own, with the commands users type."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Project, digest, set_params

MODELS = [
    *("linear", "linear-onnx", "baseline", "baseline-onnx"),
    *("probe", "transformer", "onnx", "onnx-int8"),
]
EXPORTED = ("linear-onnx", "baseline-onnx", "onnx", "onnx-int8")
FOLDERS = {name: f"models/exported/{name}" for name in EXPORTED}
STAGES = [
    *("load", "quality", "split", "baseline", "linear", "probe", "train", "export"),
    *("export_tfidf@baseline", "export_tfidf@linear"),
    *(f"evaluate@{model}" for model in MODELS),
    *("compare", "card"),
]


def test_the_first_repro_runs_every_stage_and_leaves_only_records_for_git(built: Path) -> None:
    printed = (built.parent / "repro.log").read_text()
    assert sorted(Project(built).ran(printed)) == sorted(STAGES)
    new = (built.parent / "new.txt").read_text().split()
    assert "dvc.lock" in new
    assert [name for name in new if name.startswith(("models/", "data/raw", "data/splits"))] == [
        "models/baseline.json",
        "models/linear.json",
        "models/probe.json",
        "models/transformer.json",
    ]


def test_a_second_repro_runs_nothing(project: Project) -> None:
    assert project.ran(project.dvc("repro")) == []
    assert project.git("status", "--porcelain") == ""
    assert "up to date" in project.dvc("status")


def test_each_stage_run_left_a_log_file(project: Project) -> None:
    names = [path.name for path in (project.root / "logs").glob("*.log")]
    assert len(names) == len(STAGES)
    for stage in STAGES:
        assert any(f"-{stage}-" in name for name in names), stage


def test_processes_of_their_own_write_what_forks_wrote(project: Project) -> None:
    """The stages that made the project are forks of a process that had done their imports."""
    stages = ["split", "probe", "evaluate@onnx", "compare"]
    words = ("dvc", "repro", "--force", "--no-run-cache", "--single-item", *stages)
    printed = project.run("env", f"PATH={os.environ['PATH']}", *words)
    assert project.ran(printed) == stages
    assert project.git("status", "--porcelain") == ""


def test_metrics_of_every_model_on_the_same_texts(project: Project) -> None:
    shown = json.loads(project.dvc("metrics", "show", "--json"))[""]["data"]
    quality = shown["data/quality.json"]["data"]
    assert quality["rows"] == quality["kept"] == 60
    for model in MODELS:
        judged = shown[f"dvclive/evaluate/{model}/metrics.json"]["data"]
        files = (project.root / FOLDERS.get(model, f"models/{model}")).rglob("*")
        assert judged["bytes"] == sum(path.stat().st_size for path in files if path.is_file())
        assert set(judged["validation"]) == {
            *("accuracy", "macro_f1", "weighted_f1", "log_loss", "ece"),
        }
        test = judged["test"]
        assert set(test) == {
            *("accuracy", "accuracy_low", "accuracy_high"),
            *("macro_f1", "macro_f1_low", "macro_f1_high"),
            *("weighted_f1", "log_loss", "ece", "aurc"),
        }
        details = shown[f"dvclive/evaluate/{model}/details.json"]["data"]
        assert set(details["classes"]["sport"]) == {"precision", "recall", "f1", "texts"}
        assert test["accuracy_low"] <= test["accuracy"] <= test["accuracy_high"]
        languages = details["slices"]["language"]
        assert sum(scores["texts"] for scores in languages.values()) == 18
    compared = shown["dvclive/compare/metrics.json"]["data"]
    assert set(compared) == {*MODELS[1:], "ship"}
    assert compared["linear-onnx"]["accuracy_difference_p_value"] == 1
    assert compared["baseline-onnx"] == compared["baseline"]
    page = (project.root / "dvclive/compare/comparison.md").read_text()
    table = page.split("18 test texts")[1].splitlines()
    assert [line.split("|")[1].strip() for line in table[4:12]] == MODELS
    assert page.startswith("Ship onnx, the one that compare.models names (its ")
    assert compared["ship"] == "onnx", "the one that may be"


def test_plots_show_every_declared_plot(project: Project, tmp_path: Path) -> None:
    declared = yaml.safe_load((project.root / "dvc.yaml").read_text())["plots"]
    shown = json.loads(project.dvc("plots", "show", "--json"))["data"]
    assert len(declared) == 15
    for plot in declared:
        name = next(iter(plot))
        assert shown[name][0]["content"]["data"]["values"], name
    page = project.dvc("plots", "diff", "HEAD", "--out", str(tmp_path / "plots"))
    assert page.startswith("file:")
    mistakes = project.root / "data" / "predictions" / "onnx" / "mistakes.csv"
    assert mistakes.read_text().startswith("id,label,predicted,score,text\n")


def test_one_changed_param_reruns_what_depends_on_it(project: Project) -> None:
    set_params(project, {"baseline.n_estimators": 1})
    assert project.ran(project.dvc("repro", "evaluate@baseline")) == [
        "baseline",
        "evaluate@baseline",
    ]
    waiting = {"export_tfidf@baseline", "compare", "card"}
    assert set(json.loads(project.dvc("status", "--json"))) == waiting
    assert "baseline.n_estimators" in project.dvc("params", "diff", "--md")
    assert "dvclive/evaluate/baseline/metrics.json" in project.dvc("metrics", "diff", "--md")
    project.git("checkout", "--quiet", ".")
    project.dvc("checkout")
    assert project.ran(project.dvc("repro")) == []


def test_an_experiment_with_a_small_lr(project: Project) -> None:
    """DVC writes 3e-5 as 3e-05, which is a string to a reader of YAML 1.1."""
    run = ("exp", "run", "--temp", "--name", "small-lr", "-S", "train.lr=3e-5", "train")
    printed = project.dvc(*run)
    assert "--lr 3e-05" in printed
    assert "small-lr" in project.dvc("exp", "show", "--md")
    assert "train.lr" in project.dvc("params", "diff", "HEAD", "small-lr", "--md")
    assert project.git("status", "--porcelain") == ""


def test_a_changed_source_file_reruns_load(project: Project) -> None:
    file = project.root / "data" / "source" / "small.jsonl"
    before = file.read_text()
    file.write_text(before + '{"text": "goal", "label": "sport", "language": "en"}\n')
    assert "load" in project.ran(project.dvc("repro", "--dry"))
    file.write_text(before)


@pytest.mark.parametrize(
    ("params", "stage", "sentence"),
    [
        (
            {"baseline.n_estimators": "many"},
            "baseline",
            "baseline.n_estimators is 'many': expected a whole number at least 1; "
            "change it in params.yaml.",
        ),
        (
            {"load.text_column": "txt"},
            "load",
            "{root}/data/source/small.jsonl has no column 'txt', but 'text', 'label', 'language' "
            "(did you mean 'text'?): set load.text_column",
        ),
        (
            {"evaluate.slices": ["lang"]},
            "evaluate@onnx",
            "evaluate.slices has 'lang', which is no column of the source",
        ),
    ],
)
def test_a_mistake_is_one_sentence_and_loses_nothing(
    project: Project, params: dict[str, Any], stage: str, sentence: str
) -> None:
    folders = ["data/raw", "data/splits", "models", "data/predictions"]
    before = {folder: digest(project.root / folder) for folder in folders}
    set_params(project, params)
    printed = project.dvc("repro", stage, code=255)
    assert f"ERROR src.core.stage: {sentence.format(root=project.root)}" in printed
    assert "`dvc checkout dvc.yaml` brings back what this stage wrote before, and" in printed
    assert "`git restore 'data/*quality.*' dvclive models` what git has of it; a param" in printed
    assert "stays in params.yaml until `git restore params.yaml` at the root." in printed
    assert "Traceback" not in printed
    project.dvc("checkout", "dvc.yaml")
    project.git("restore", "data/*quality.*", "dvclive", "models")
    assert {folder: digest(project.root / folder) for folder in folders} == before
    assert project.git("status", "--porcelain").split() == ["M", "params.yaml"]
    project.git("restore", "params.yaml")


def test_an_unknown_param_is_refused(project: Project) -> None:
    file = project.root / "params.yaml"
    file.write_text(file.read_text().replace("  n_estimators:", "  estimators:"))
    printed = project.dvc("repro", "baseline", code=255)
    assert (
        "baseline.estimators is not known (did you mean 'n_estimators'?): baseline takes" in printed
    )
    project.git("checkout", "--quiet", ".")
    project.dvc("checkout")
