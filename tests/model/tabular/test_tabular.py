"""The pipeline of tables, run small by DVC in a git repository of its own."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, TABULAR, Project, copy_project, digest, make_table
from ruamel.yaml import YAML

from src.predict.records import Records

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (ROOT / "tabular").exists(), reason="this clone has no such pipeline"),
]

MODELS = ("linear", "forest", "boosting")
PIPELINE = "tabular/dvc.yaml"


def set_params(project: Project, **values: Any) -> None:
    yaml = YAML()
    file = project.root / "tabular/params.yaml"
    found = yaml.load(file)
    for section, changes in values.items():
        assert changes.keys() <= found[section].keys()
        found[section] |= changes
    yaml.dump(found, file)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after its first `dvc repro` of the tables, committed."""
    project = copy_project(tmp_path_factory.mktemp("tabular") / "project")
    make_table(1500).to_csv(project.root / "data/tabular/source/small.csv", index=False)
    set_params(project, **TABULAR)
    for path in (project.root / "tabular/dvc.lock", *project.root.glob("models/tabular/*.json")):
        path.unlink(missing_ok=True)
    shutil.rmtree(project.root / "dvclive/tabular", ignore_errors=True)
    project.commit()
    printed = project.dvc("repro", PIPELINE)
    assert len(project.ran(printed)) == 2 + 1 + 3 + 3 + 3 + 3 + 1 + 1
    project.commit()
    return project


def metrics(project: Project, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (project.root / f"dvclive/tabular/{path}/metrics.json").read_text()
    )
    return found


def test_models_learn_and_are_compared(project: Project, tmp_path: Path) -> None:
    for name in MODELS:
        found = metrics(project, f"evaluate/{name}")["test"]
        assert found["average_precision"] > 0.5, "a guess has 0.05"
        assert found["average_precision_low"] < found["average_precision"]
        assert {*found} >= {"mcc", "brier", "ece", "log_loss", "cost", "f1", "balanced_accuracy"}
        assert 0 < found["precision_of_reviewed"] <= 1
        frame = pq.read_table(
            project.root / f"data/tabular/predictions/{name}/predictions.parquet"
        ).to_pandas()
        assert list(frame) == ["id", "label", "predicted", "p_0", "p_1"]
        level = metrics(project, f"decide/{name}")["validation"]["threshold"]
        assert ((frame["p_1"] >= level) == (frame["predicted"] == "1")).all()
        details = json.loads(
            (project.root / f"dvclive/tabular/evaluate/{name}/details.json").read_text()
        )
        assert {"de", "fr", "in"} <= set(details["slices"]["country"])
        assert "(none)" in details["slices"]["income"]
        assert sum(d["rows"] for d in details["slices"]["income"].values()) == len(frame)
    page = (project.root / "dvclive/tabular/compare/comparison.md").read_text()
    for name in MODELS:
        assert f"| {name} " in page
    assert metrics(project, "compare")["best"] in MODELS
    plots = project.root / "dvclive/tabular/evaluate/forest/plots"
    importance = json.loads((plots / "custom/importance.json").read_text())
    assert [row["feature"] for row in importance][:1] == ["amount"]
    printed = project.dvc("plots", "show", "--json", "-o", str(tmp_path))
    drawn = json.JSONDecoder().raw_decode(printed[printed.index("{") :])[0]["data"]
    titles = {title.split("::")[-1] for title in drawn}
    of_each = ("Thresholds of", "Importance for", "Confusion of")
    several = {f"{what} {name}" for what in of_each for name in MODELS}
    assert titles >= several | {"Precision-recall", "ROC", "Reliability"}
    for title, found in drawn.items():
        assert all(one["revisions"] == ["workspace"] for one in found), title
    project.dvc("plots", "show", "-o", str(tmp_path))
    page = (tmp_path / "index.html").read_text()
    assert page.count("datum['importance'] - datum.spread") == len(MODELS)


def test_the_card_says_what_is_shipped(project: Project, tmp_path: Path) -> None:
    folder = project.root / "models/tabular/shipped"
    best = metrics(project, "compare")["best"]
    assert digest(folder / "model.onnx") == digest(
        project.root / f"models/tabular/exported/{best}/model.onnx"
    )
    page = (folder / "README.md").read_text()
    found = metrics(project, f"evaluate/{best}")["test"]
    plots = project.root / f"dvclive/tabular/evaluate/{best}/plots"
    drawn = json.loads((plots / "custom/importance.json").read_text())
    told = json.loads((folder / "importance.json").read_text())
    assert [*told] == [row["feature"] for row in drawn]
    assert told["amount"]["importance"] == pytest.approx(float(drawn[0]["importance"]))
    for expected in (
        "pipeline_tag: tabular-classification",
        f"| Average precision | {found['average_precision']:.4f} | ",
        "| `amount` | number | 0.0 % | ",
        "`member`",
        "## What it goes by",
        "It decides for `1` from a probability of ",
        "Columns each of which tells the label alone (ROC AUC): 'amount' 0.",
        "By `country`:",
    ):
        assert expected in page
    records = Records(folder, 1)
    snippet = page.split("```python\n")[1].split("```")[0]
    snippet = snippet.replace('"models/tabular/shipped"', repr(str(folder)))
    snippet = snippet.replace("record |= {}", 'record |= {"amount": 300.0, "country": "br"}')
    done = subprocess.run(
        [sys.executable, "-c", snippet], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    inputs, _ = records.features({"amount": [300.0], "country": ["br"]}, 1)
    expected_shares = records.probabilities(inputs)[0].tolist()
    assert done.stdout.strip() == str(dict(zip(["0", "1"], expected_shares, strict=True)))


def test_the_shipped_model_is_traced_and_registered(project: Project, tmp_path: Path) -> None:
    best = metrics(project, "compare")["best"]
    printed = project.run("python", "-m", "src.tools.pedigree", "models/tabular/shipped")
    record = json.JSONDecoder().raw_decode(printed[printed.index("{") :])[0]
    assert record["problems"] == []
    assert {*record["environment"]} == {f"{PIPELINE}:{name}" for name in MODELS}
    assert record["stages"][f"{PIPELINE}:{best}"]["cmd"].startswith(
        f"python -m src.tabular.{best} "
    )
    copy = Project(shutil.copytree(project.root, tmp_path / "copy"))
    assert "all is what dvc.lock says" in copy.run("python", "-m", "src.tools.verify", PIPELINE)
    (copy.root / "models/tabular/shipped/usual.json").unlink()
    (copy.root / "models/tabular/shipped/usual.json").write_text("{}")
    printed = copy.run("python", "-m", "src.tools.verify", "models/tabular/shipped", code=1)
    assert "models/tabular/shipped/usual.json" in printed
    copy.run("gto", "register", "tabular:table-classifier", "--version", "v1.0.0")
    got = str(tmp_path / "got")
    copy.dvc("artifacts", "get", str(copy.root), "tabular:table-classifier", "--out", got)
    assert digest(tmp_path / "got") == digest(project.root / "models/tabular/shipped")


def test_a_colleague_pulls_the_tables_and_gets_the_same_bits(
    project: Project, tmp_path: Path
) -> None:
    copy = Project(shutil.copytree(project.root, tmp_path / "copy"))
    copy.dvc("remote", "add", "--default", "storage", str(tmp_path / "remote"))
    copy.dvc("remote", "modify", "storage", "verify", "true")
    copy.commit()
    copy.dvc("push", PIPELINE)
    clone = copy.clone(tmp_path / "clone")
    clone.dvc("pull", PIPELINE)
    assert clone.ran(clone.dvc("repro", PIPELINE)) == []
    assert digest(clone.root / "models/tabular") == digest(project.root / "models/tabular")
    # The other pipeline's files are nowhere; of this one doctor has nothing to say.
    printed = clone.run("python", "-m", "src.tools.doctor", code=1)
    assert "lack data/" in printed
    assert "tabular" not in printed
    printed = clone.run("python", "-m", "src.tools.prove", PIPELINE, "--clones", "1")
    assert len(clone.ran(printed)) == 2 + 1 + 3 + 3 + 3 + 3 + 1 + 1
    assert "it is the committed one, byte for byte" in printed
    set_params(clone, decide={"miss_cost": 3.0})
    clone.commit()
    printed = clone.run("python", "-m", "src.tools.doctor", code=1)
    assert "tabular/dvc.yaml:decide@linear" in printed, printed


def test_the_shipped_model_scores_a_table(project: Project, tmp_path: Path) -> None:
    source = project.root / "data/tabular/source/small.csv"
    output = tmp_path / "scored.parquet"
    words = ["--input", str(source), "--output", str(output)]
    command = [sys.executable, "-m", "src.predict", "models/tabular/shipped", *words]
    subprocess.run(command, cwd=project.root, check=True, capture_output=True)
    scored = pq.read_table(output).to_pandas()
    test = pq.read_table(
        project.root
        / f"data/tabular/predictions/{metrics(project, 'compare')['best']}/predictions.parquet"
    ).to_pandas()
    rows = [int(name.split(":")[1]) - 1 for name in test["id"]]
    assert scored["label"].iloc[rows].tolist() == test["predicted"].tolist()
    assert scored["probability"].iloc[rows].tolist() == pytest.approx(test["p_1"].tolist())


def test_the_page_of_the_table_names_what_to_look_at(project: Project) -> None:
    found = json.loads((project.root / "data/tabular/quality.json").read_text())
    codes = [finding["code"] for finding in found["findings"]]
    assert "tells_label" in codes
    assert found["warnings"] == len(codes)
    assert found["auc"]["amount"] > 0.85 > 0.7 > found["auc"]["shop"]
    assert found["missing"]["income"] == pytest.approx(0.1, abs=0.03)
    assert found["left_out"] == {"opened": "the rows are divided by it"}
    page = (project.root / "data/tabular/quality.md").read_text()
    assert "| `amount` | number | 0." in page
    assert "## Left out" in page


def test_nothing_runs_again_and_git_sees_nothing(project: Project) -> None:
    assert project.ran(project.dvc("repro", PIPELINE)) == []
    assert project.git("status", "--porcelain") == ""


def test_a_changed_cost_trains_nothing_anew(project: Project, tmp_path: Path) -> None:
    copy = Project(shutil.copytree(project.root, tmp_path / "copy"))
    set_params(copy, decide={"threshold": "cost", "miss_cost": 7.0})
    ran = copy.ran(copy.dvc("repro", PIPELINE))
    anew = {"decide", "export", "evaluate", "compare", "card"}
    assert {name.split(":")[-1].split("@")[0] for name in ran} == anew
    assert (
        metrics(copy, "evaluate/forest")["test"]["cost"]
        != metrics(project, "evaluate/forest")["test"]["cost"]
    )

    copy.commit()
    set_params(copy, report={"models": ["forest", "linear"], "resamples": 50})
    copy.run("python", "-m", "src.tools.report", "HEAD~1", "HEAD")
    page = (copy.root / "report/report.md").read_text()
    assert "**The gate of tabular is open**: `tabular/forest`, `tabular/linear` did not" in page
    judged = r"- \*\*`tabular/forest`\*\*: .* average precision (0\.\d+) → \1 .* 375 test rows"
    assert re.search(judged, page), page
    assert "## Metrics of tabular\n\n| model |  | average precision | ROC AUC |" in page
    assert "| `tabular/forest` | `HEAD~1` | 0." in page
    assert "| `decide.miss_cost` | `100.0` | `7.0` |" in page

    # Other rows of the same numbers are not the same rows.
    frame = make_table(1500)
    frame.loc[frame.index[-100:], "amount"] += 1
    frame.to_csv(copy.root / "data/tabular/source/small.csv", index=False)
    copy.dvc("repro", f"{PIPELINE}:evaluate@linear")
    copy.run("python", "-m", "src.tools.report", "HEAD")
    page = (copy.root / "report/report.md").read_text()
    assert "the 275 test rows that both revisions have (100 more in `HEAD`, 100 more" in page


def test_a_worse_forest_closes_the_gate_of_its_pipeline(project: Project, tmp_path: Path) -> None:
    copy = Project(shutil.copytree(project.root, tmp_path / "copy"))
    set_params(copy, forest={"n_estimators": 1, "max_depth": 1}, report={"resamples": 200})
    copy.dvc("repro", f"{PIPELINE}:evaluate@forest")
    printed = copy.run("python", "-m", "src.tools.report", "HEAD", code=2)
    assert "The gate of tabular is closed: tabular/forest got worse by more than" in printed
    assert " of average precision." in printed
    page = (copy.root / "report/report.md").read_text()
    was, now = (metrics(p, "evaluate/forest")["test"]["average_precision"] for p in (project, copy))
    judged = f"- **`tabular/forest`**: **worse**. average precision {was:.4f} → {now:.4f} ("
    assert judged in page
    assert (
        "- **`tabular/boosting`**: no difference, its predictions are the same file in both."
        in page
    )
    assert "| `tabular/forest` | `country` `de` | " in page
    assert "| `tabular/params.yaml:report.resamples` | `1000` | `200` |" in page

    set_params(copy, report={"metric": "accuracy"})
    printed = copy.run("python", "-m", "src.tools.report", "HEAD", code=1)
    told = (
        r"report\.metric is 'accuracy', of which tabular/\w+ has no figure in work tree: write one"
    )
    assert re.search(told, printed), printed
    assert "balanced_accuracy, f1 in tabular/params.yaml." in printed
    set_params(copy, report={"metric": "f1", "max_drop": 2})
    printed = copy.run("python", "-m", "src.tools.report", "HEAD", code=1)
    assert "report.max_drop is '2'" in printed
    assert "in tabular/params.yaml." in printed


def test_a_search_goes_through_experiments_of_tables(project: Project, tmp_path: Path) -> None:
    copy = Project(shutil.copytree(project.root, tmp_path / "copy"))
    space = ["forest.max_depth int 1 2", "forest.criterion one gini entropy"]
    set_params(copy, tune={"target": "forest", "n_trials": 2, "space": space})
    copy.commit()
    copy.run("python", "-m", "src.tools.tune", PIPELINE)
    page = (copy.root / "logs/tune.md").read_text()
    assert ": validation.average_precision of tabular/dvc.yaml:forest, higher is better" in page
    rows = [row.split(" | ") for row in page.splitlines() if row.startswith("| tune-")]
    assert [row[-1] for row in rows] == ["complete |"] * 2
    name, figure, depth, criterion, *_ = rows[0]
    # The other pipeline never ran here: DVC says so with an error, and has applied all of this one.
    printed = copy.run("dvc", "exp", "apply", name.removeprefix("| "), code=255)
    assert "Checkout failed" in printed
    assert "tabular" not in printed
    assert f"{metrics(copy, 'forest')['validation']['average_precision']:.4f}" == figure
    found = YAML(typ="safe").load(copy.root / "tabular/params.yaml")["forest"]
    assert (str(found["max_depth"]), found["criterion"]) == (depth, criterion)

    set_params(copy, tune={"metric": "validation.accuracy"})
    printed = copy.run("python", "-m", "src.tools.tune", PIPELINE, code=1)
    assert "dvclive/tabular/forest/metrics.json does not have: choose among" in printed
    set_params(copy, tune={"metric": "accuracy"})
    printed = copy.run("python", "-m", "src.tools.tune", PIPELINE, code=1)
    assert "tune.metric is 'accuracy'" in printed
    assert "in tabular/params.yaml or on the command line." in printed


def test_an_experiment_from_inside_the_folder(project: Project, tmp_path: Path) -> None:
    copy = Project(shutil.copytree(project.root, tmp_path / "copy"))
    inside = Project(copy.root / "tabular")
    inside.dvc(
        "exp", "run", "--set-param", "forest.max_depth=2", "--name", "shallow", "evaluate@forest"
    )
    assert "shallow" in copy.dvc("exp", "list")
    changed = copy.git("diff", "--stat", "--", "tabular/params.yaml", "params.yaml")
    assert "tabular/params.yaml" in changed
    assert " params.yaml" not in changed.replace("tabular/params.yaml", "")
    assert "max_depth: 2" in (copy.root / "tabular/params.yaml").read_text()


def test_three_classes_go_through(project: Project, tmp_path: Path) -> None:
    copy = Project(shutil.copytree(project.root, tmp_path / "copy"))
    frame = make_table(600)
    frame["fraud"] = pd.qcut(frame["amount"], 3, labels=["low", "middle", "high"])
    frame.to_csv(copy.root / "data/tabular/source/small.csv", index=False)
    set_params(copy, split={"strategy": "stratified", "column": ""})
    copy.dvc("repro", PIPELINE)
    for name in MODELS:
        found = metrics(copy, f"evaluate/{name}")["test"]
        assert found["balanced_accuracy"] > 0.8
        assert "cost" not in found
