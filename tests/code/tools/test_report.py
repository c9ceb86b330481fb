"""The page about a change, its gate, and the jobs that post it."""

import http.server
import math
import os
import re
import subprocess
import threading
import urllib.parse
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, Project, copy_built, set_params
from sklearn.metrics import average_precision_score

from src.core import markdown
from src.core.errors import InputError
from src.tools.report import sections
from src.tools.report.change import Gate, failing, judge
from src.tools.report.revision import Revision

GATE = Gate(models=["m"], metric="accuracy", max_drop=0.01, resamples=500, confidence=0.95, seed=1)
STUMP = {"baseline.n_estimators": 1, "baseline.max_depth": 1}
MINE = {"report.models": ["baseline"], "report.resamples": 200}


@pytest.fixture(scope="module")
def project(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The small project after a commit that made its baseline much worse."""
    project = copy_built(built, tmp_path_factory.mktemp("report") / "project")
    set_params(project, STUMP | MINE)
    project.dvc("repro")
    project.commit()
    return project


@pytest.fixture(scope="module")
def worse(project: Project) -> tuple[str, Path]:
    """The output of `python -m src.tools.report` about that commit, and its folder."""
    printed = project.run("python", "-m", "src.tools.report", "HEAD~1", "HEAD", code=2)
    (project.root / "report").rename(project.root.parent / "worse")
    return printed, project.root.parent / "worse"


def test_a_worse_model_closes_the_gate(worse: tuple[str, Path], project: Project) -> None:
    printed, folder = worse
    assert "The gate is closed: baseline got worse by more than report.max_drop 0.01" in printed
    page = (folder / "report.md").read_text()
    assert "**The gate is closed**: `baseline` got worse by more than the 0.01 of" in page
    assert re.search(r"- \*\*`baseline`\*\*: \*\*worse\*\*. macro F1 [01]\.\d+ → 0\.\d+ \(-", page)
    assert "on the 18 test texts: " in page
    assert "- **`onnx`** (not of the gate): no difference, its predictions are the same" in page
    assert project.git("status", "--porcelain") == ""


def test_the_page_says_what_moved(worse: tuple[str, Path]) -> None:
    page = (worse[1] / "report.md").read_text()
    for row in (
        '| `baseline.max_depth` | `"none"` | `1` |',
        "| `baseline` | `baseline.n_estimators`, `baseline.max_depth` | 3 of 3 |",
        "| `export_tfidf@baseline` | `models/baseline` | 2 of 2 |",
    ):
        assert row in page
    number = r"[01]\.\d{4}"
    assert re.search(rf"\| `baseline` \| `HEAD~1` \| {number} \({number} to {number}\) \|", page)
    assert re.search(r"\| `onnx` \| both \| 0", page)
    assert re.search(rf"\| `baseline` \| class `sport` \| 6 \| {number} \| {number} \| -", page)
    assert "| slice" not in page
    assert re.search(r"\| `baseline` \| `language` `en` \| 9 \|", page)
    assert "No figure of the data changed: 60 of 60 rows, as before." in page
    assert "`src` and `dvc.yaml` are as before." in page


def test_the_plots_of_both_revisions_are_beside_the_page(worse: tuple[str, Path]) -> None:
    assert "`plots/index.html`" in (worse[1] / "report.md").read_text()
    plots = (worse[1] / "plots" / "index.html").read_text()
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    assert len(declared) > 8
    for definition in (definition for plot in declared for definition in plot.values()):
        assert definition["title"] in plots
    for revision in ("HEAD~1", "HEAD"):
        assert f'"rev": "{revision}"' in plots


def test_the_way_back_is_better_and_the_work_tree_is_the_default(
    project: Project, tmp_path: Path
) -> None:
    copy = copy_built(project.root, tmp_path / "copy")
    copy.git("checkout", "--quiet", "HEAD~1", "--", "dvc.lock", "dvclive")
    copy.dvc("checkout", "--force")
    source = copy.root / "src" / "predict" / "padding.py"
    source.write_text(f"{source.read_text()}# changed\n")
    (copy.root / ".venv").mkdir()
    copy.run("make", "--touch", ".venv/installed")
    copy.run("make", "report", "BASE=main")
    page = (copy.root / "report" / "report.md").read_text()
    assert page.startswith("# From `main` to `work tree`\n\n**The gate is open**: `baseline`")
    assert "- **`baseline`**: **better**." in page
    assert "**The work tree has changes that were not run**, in `baseline`" in page
    assert " src/predict/padding.py | 1 +\n" in page


def test_a_clone_without_remote_says_what_is_lacking_and_how_to_get_it(
    project: Project, tmp_path: Path
) -> None:
    clone = project.clone(tmp_path / "clone")
    # Chance can't be told, and the committed figures close the gate.
    clone.run("python", "-m", "src.tools.report", "HEAD~1", "HEAD", code=2)
    page = (clone.root / "report" / "report.md").read_text()
    assert "**The gate is closed**: `baseline` got worse by more than the 0.01" in page
    assert re.search(r"- \*\*`baseline`\*\*: macro F1 [01]\.\d+ → 0\.\d+; no verdict, as its", page)
    clone.run("python", "-m", "src.tools.report", "HEAD", "HEAD~1")
    assert "- `data/predictions/baseline/predictions.parquet` of `HEAD~1`:" in page
    assert "Whoever has them runs `dvc push`" in page
    assert "| `baseline.max_depth` |" in page
    assert "DVC says: `DVC failed to load some plots for following revisions: 'HEAD" in page
    # What dvc.lock has of both sides alike needs no file.
    clone.run("python", "-m", "src.tools.report", "HEAD")
    alike = (clone.root / "report" / "report.md").read_text()
    assert "**The gate is open**: `baseline`" in alike
    assert "- **`onnx`** (not of the gate): no difference, its predictions are the same" in alike
    assert "no verdict" not in alike
    assert "were not run" not in alike
    # The lock is right all the same, which needs no output.
    assert "dvc.lock matches" in clone.run(".ci/locked")
    set_params(clone, {"baseline.max_depth": 2})
    printed = clone.run(".ci/locked", code=1)
    # Without what baseline reads, DVC names it in an error in place of a plan.
    assert printed.startswith("DVC can't tell whether dvc.lock is of this code")
    assert "failed to reproduce 'baseline'" in printed
    (clone.root / "dvc.lock").write_text("<<<<<<< ours\n")
    printed = clone.run("python", "-m", "src.tools.report", "HEAD", code=1)
    assert "work tree: dvc.lock has no stages" in printed
    assert "Traceback" not in printed


def test_a_source_that_dvc_keeps_and_that_is_not_pulled_is_no_other_one(
    built: Path, tmp_path: Path
) -> None:
    project = copy_built(built, tmp_path / "project")
    source = "data/source/small.jsonl"
    project.git("rm", "--quiet", "--cached", source)
    project.dvc("add", "--quiet", source)
    project.dvc("remote", "add", "--quiet", "--default", "storage", str(tmp_path / "remote"))
    project.dvc("repro", "--quiet")  # data/source has a .gitignore now
    project.commit()
    clone = project.clone(tmp_path / "clone")
    printed = clone.run("python", "-m", "src.tools.pedigree", "data/raw", code=1)
    assert "data/raw is missing." in printed
    assert "ran with another" not in printed
    printed = clone.run(".ci/locked", code=1)
    assert "failed to pull data" in printed
    project.dvc("push", "--quiet", f"{source}.dvc")
    assert "dvc.lock matches" in clone.run(".ci/locked")
    (project.root / f"{source}.dvc").rename(clone.root / f"{source}.dvc")
    with (clone.root / source).open("a") as file:
        file.write("\n")
    printed = clone.run("python", "-m", "src.tools.pedigree", "data/raw", code=1)
    assert "load ran with another data/source than the present one." in printed


def frame(right: str, **columns: Any) -> pd.DataFrame:
    """Predictions of one class each, "1" for a right one."""
    ids = [str(k) for k in range(len(right))]
    predicted = ["a" if sign == "1" else "b" for sign in right]
    return pd.DataFrame({"id": ids, "label": "a", "predicted": predicted, **columns})


@pytest.mark.parametrize(
    ("before", "after", "verdict", "fails"),
    [
        ("1" * 60 + "0" * 40, "1" * 90 + "0" * 10, "better", False),
        ("1" * 90 + "0" * 10, "1" * 60 + "0" * 40, "worse", True),
        ("1" * 90 + "0" * 10, "1" * 88 + "0" * 12, "no real difference", False),
        ("10" * 50, "10" * 50, "no real difference", False),
    ],
)
def test_a_verdict_is_of_the_paired_bootstrap(
    before: str, after: str, verdict: str, fails: bool
) -> None:
    change = judge(frame(before), frame(after), GATE)
    assert change.verdict == verdict
    assert (
        change.verdict == "worse" and GATE.lost(change.before, change.after) > GATE.max_drop
    ) == fails
    assert change.before == before.count("1") / 100
    assert change.low <= change.after - change.before <= change.high
    assert change.fixed - change.broken == after.count("1") - before.count("1")
    assert change.alone == (0, 0)


def test_only_texts_that_both_have_are_compared() -> None:
    before = frame("1111", text=["p", "q", "r", "s"])
    after = frame("0001", text=["p", "q", "r", "other"]).assign(label=["a", "a", "b", "a"])
    change = judge(before, after, GATE)
    assert (change.texts, change.alone, change.broken) == (2, (2, 2), 2)
    nothing = judge(before, after.assign(id="x"), GATE)
    assert (nothing.texts, nothing.verdict) == (0, "no real difference")


def test_tables_are_judged_by_how_rows_are_ordered() -> None:
    gate = replace(GATE, metric="average_precision")
    draw = np.random.default_rng(3)
    labels = (draw.random(400) < 0.1).astype(int)

    def scored(spread: float) -> pd.DataFrame:
        shares = np.clip(0.1 + 0.3 * labels + spread * draw.normal(size=400), 0, 0.49)
        return pd.DataFrame(
            {
                "id": [str(k) for k in range(400)],
                "label": labels.astype(str),
                "predicted": "0",  # whatever the order
                "p_0": 1 - shares,
                "p_1": shares,
            }
        )

    before, after = scored(0.05), scored(0.3)
    change = judge(before, after, gate, "1")
    assert (change.moved, change.verdict, change.judged) == (0, "worse", True)
    expected = [average_precision_score(labels, frame["p_1"]) for frame in (before, after)]
    assert [change.before, change.after] == pytest.approx(expected)
    assert change.low < change.after - change.before < change.high < 0
    assert judge(before, before, gate, "1").verdict == "no real difference"
    # A label that only one revision knows; it has no row.
    assert not judge(before, after.assign(p_2=0.0), gate).judged
    common = before[before["label"] == "0"]
    assert not judge(common, after, gate, "1").judged
    assert not judge(before, after, gate, "yes").judged, "the schema is of another split"
    rare = before[(before["label"] == "0") | (before.index == labels.argmax())]
    some = [judge(rare, after, replace(gate, resamples=1, seed=seed), "1") for seed in range(20)]
    assert {one.judged for one in some} == {True, False}, "one draw need not have the one row"


def answered(right: str, loss: float) -> pd.DataFrame:
    """Judged answers, "1" for a right one, each of four tokens with a loss of about this."""
    losses = 4 * loss * (1 + 0.1 * np.sin(np.arange(len(right))))
    marks = [sign == "1" for sign in right]
    return frame(right, text="asked").assign(right=marks, loss=losses, tokens=4)


@pytest.mark.parametrize(
    ("metric", "after", "verdict"),
    [
        ("right", answered("0" * 30, 1.0), "worse"),
        ("right", answered("1" * 30, 3.0), "better"),
        ("loss", answered("1" * 30, 3.0), "worse"),
        ("loss", answered("0" * 30, 0.5), "better"),
        ("loss", answered("0" * 30, 1.0), "no real difference"),
        ("loss", answered("0" * 30, math.nan), "no real difference"),
    ],
)
def test_answers_are_judged_by_what_is_right_and_by_their_loss(
    metric: Any, after: pd.DataFrame, verdict: str
) -> None:
    gate = replace(GATE, metric=metric)
    before = answered("01" * 15, 1.0)
    change = judge(before, after, gate)
    assert (change.texts, change.verdict) == (30, verdict)
    side: Any = SimpleNamespace()
    worse = verdict == "worse" or bool(after["loss"].isna().any())
    assert failing(side, side, {"m": change}, gate) == ["m"] * worse
    if metric == "right":
        assert change.fixed - change.broken == after["right"].sum() - 15
    older = judge(before, after.drop(columns="text"), gate)
    assert older.texts == 30, "one that has no text is told apart by id and label"


def test_a_figure_that_is_gone_closes_the_gate_and_a_new_one_does_not() -> None:
    lock = {"stage": "s", "splits": "d"}

    def side(**figures: float) -> Any:
        return SimpleNamespace(
            models={"m": lock}, hashes=lambda *_: {"d": "1"}, figures=lambda _: figures
        )

    gate = replace(GATE, metric="loss")
    for was, now, failed in (
        ({"loss": 1.0}, {"loss": 2.0}, ["m"]),
        ({"loss": 2.0}, {"loss": 1.0}, []),
        ({"loss": 1.0}, {}, ["m"]),
        ({"loss": 1.0}, {"loss": math.nan}, ["m"]),
        ({}, {"loss": 1.0}, []),
    ):
        assert failing(side(**was), side(**now), {"m": None}, gate) == failed


def test_what_users_write_has_no_meaning_in_the_page() -> None:
    assert markdown.code("a|b `c`\n@someone") == "`a¦b 'c' @someone`"
    written = markdown.plain(r"a <script> [b](c) `d` *e* |f| ~g~ \h")
    assert written == r"a \<script\> [b\](c) \`d\` \*e\* \|f\| \~g\~ \\h"


def test_a_long_table_says_how_much_is_left_out() -> None:
    page = "\n".join(sections.section("T", [["a"], *(["x"] for _ in range(35))], "none"))
    assert page.endswith("And 5 more.")
    assert page.count("| x |") == 30


def test_revisions_are_commits_experiments_and_the_work_tree(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_built(project.root, tmp_path / "copy")
    set_params(copy, {"report.max_drop": 0.5})
    copy.dvc("exp", "save", "--name", "tried")
    copy.git("restore", "params.yaml")
    monkeypatch.chdir(copy.root)
    assert Revision("tried").params()["report"]["max_drop"] == 0.5
    head = copy.git("rev-parse", "HEAD").strip()
    assert (Revision(head).name, Revision(head).sha) == (head[:7], head)
    with pytest.raises(InputError, match=r"^'nowhere' is no git revision"):
        Revision("nowhere")
    copy.git("checkout", "--quiet", "--orphan", "bare")
    copy.git("rm", "--quiet", "--cached", "dvc.lock")
    copy.git("commit", "--quiet", "--message", "No lock")
    with pytest.raises(InputError, match=r"^bare has no dvc\.lock"):
        Revision("bare")


def test_mistakes_are_one_sentence(project: Project, tmp_path: Path) -> None:
    copy = copy_built(project.root, tmp_path / "copy")
    set_params(copy, {"report.models": ["bassline"]})
    printed = copy.run("python", "-m", "src.tools.report", "HEAD", code=1)
    assert "report.models has 'bassline'" in printed
    assert "(did you mean 'baseline'?)" in printed
    assert (
        "baseline, baseline-onnx, linear, linear-onnx, probe, transformer, onnx, onnx-int8 in "
        "params.yaml" in printed
    )
    set_params(copy, {"report.max_drop": 2})
    printed = copy.run("python", "-m", "src.tools.report", "HEAD", code=1)
    assert "report.max_drop is '2'" in printed
    assert "Traceback" not in printed
    (copy.root / ".git").rename(tmp_path / ".git")  # which is a folder of a repository now
    copy.commit()
    printed = copy.run("python", "-m", "src.tools.report", "HEAD", code=1)
    assert "this one is the folder copy/ of one" in printed
    assert "`dvc metrics diff HEAD`" in printed
    copy.dvc("metrics", "diff", "HEAD")


def read(name: str) -> dict[Any, Any]:
    """A file of CI, of which a project has those of its own service."""
    file = ROOT / name
    return dict(yaml.safe_load(file.read_text())) if file.exists() else {}


WORKFLOW, GITLAB = read(".github/workflows/report.yml"), read(".gitlab-ci.yml")
on_github = pytest.mark.skipif(not WORKFLOW, reason="the project is not on GitHub")
on_gitlab = pytest.mark.skipif(not GITLAB, reason="the project is not on GitLab")
PAGE = "# From `main` to `x`\n\n**The gate is open**\n\n## Plots\n\n`plots/index.html`\n"


def steps(job: str) -> dict[str, dict[str, Any]]:
    return {step.get("name", step.get("uses")): step for step in WORKFLOW["jobs"][job]["steps"]}


@on_github
def test_what_may_write_runs_no_code_of_a_pull_request() -> None:
    assert WORKFLOW[True] == {"pull_request": None}, "YAML 1.1 reads `on` as true"
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert "permissions" not in WORKFLOW["jobs"]["report"]
    assert steps("report")["actions/checkout@v4"]["with"]["persist-credentials"] is False
    comment = WORKFLOW["jobs"]["comment"]
    assert comment["permissions"] == {"pull-requests": "write"}
    assert set(steps("comment")) == {"actions/download-artifact@v4", "Comment"}
    assert "head.repo.full_name == github.repository" in comment["if"]
    # What a stranger may write reaches a shell as a variable only.
    scripts = [
        step["run"] for job in WORKFLOW["jobs"] for step in steps(job).values() if "run" in step
    ]
    assert len(scripts) == 5
    assert not [script for script in scripts if "${{" in script]


@on_github
@on_gitlab
def test_both_services_check_the_lock_before_they_report() -> None:
    commands = [step["run"] for step in WORKFLOW["jobs"]["report"]["steps"] if "run" in step]
    assert commands[1:3] == [".ci/locked", 'python -m src.tools.report "$BASE" HEAD']
    script = GITLAB["report"]["script"]
    assert script == [
        ".ci/locked",
        'python -m src.tools.report "$CI_MERGE_REQUEST_DIFF_BASE_SHA" HEAD',
    ]
    assert GITLAB["test"]["script"] == [".ci/run"]
    assert os.access(ROOT / ".ci/locked", os.X_OK)
    assert GITLAB["report"]["before_script"][0].split() == commands[0].split()
    pinned = (ROOT / "requirements.txt").read_text().lower()
    for package in commands[0].split()[4:]:
        assert re.search(rf"^{package}[><=]", pinned, re.MULTILINE), package


def sh(script: str, folder: Path, **variables: str) -> None:
    words = ["bash", "-euo", "pipefail", "-c", script]
    subprocess.run(words, cwd=folder, env=os.environ | variables, check=True)


@on_github
def test_the_comment_is_the_page_and_tells_where_its_plots_are(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.md").write_text(PAGE)
    (tmp_path / "gh").write_text('#!/bin/sh\necho "$@" > called\n')
    (tmp_path / "gh").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    sh(steps("comment")["Comment"]["run"], tmp_path, PATH=path, NUMBER="7", RUN="https://x/runs/1")
    comment = (tmp_path / "comment.md").read_text()
    assert comment.startswith(PAGE)
    assert comment.endswith('artifact "report" of [this run](https://x/runs/1).\n')
    called = (tmp_path / "called").read_text()
    assert called.startswith("pr comment 7 --body-file comment.md")
    sh(steps("report")["Summary"]["run"], tmp_path, GITHUB_STEP_SUMMARY="summary.md")
    assert "**The gate is open**" in (tmp_path / "summary.md").read_text()


@on_gitlab
def test_a_merge_request_gets_a_note_if_there_is_a_token(tmp_path: Path) -> None:
    got: list[tuple[str, str | None, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            got.append((self.path, self.headers["PRIVATE-TOKEN"], body))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.md").write_text(PAGE)
    (script,) = GITLAB["report"]["after_script"]
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        given = {
            "CI_API_V4_URL": f"http://127.0.0.1:{server.server_port}/api/v4",
            "CI_PROJECT_ID": "3",
            "CI_MERGE_REQUEST_IID": "7",
            "NO_PROXY": "127.0.0.1",
        }
        sh(script, tmp_path, **given)
        assert got == []
        sh(script, tmp_path, **given, REPORT_TOKEN="secret")
        server.shutdown()
    ((path, token, body),) = got
    assert (path, token) == ("/api/v4/projects/3/merge_requests/7/notes", "secret")
    note = urllib.parse.parse_qs(body)["body"][0]
    assert note == PAGE


@pytest.mark.parametrize(
    ("name", "module", "models", "model", "rows"),
    [
        ("evaluate@m", "src.evaluate", "models/m", "m", "texts"),
        ("evaluate@m", "src.text.evaluate", "models/m", "m", "texts"),
        ("t/dvc.yaml:evaluate@m", "src.tabular.evaluate", "models/m decided.json", "t/m", "rows"),
    ],
)
def test_models_are_found_in_locks_of_every_pipeline_and_of_earlier_modules(
    name: str, module: str, models: str, model: str, rows: str
) -> None:
    cmd = f"python -m {module} data/splits {models} data/predictions/m live/m --seed 1"
    lock = SimpleNamespace(stages={name: {"cmd": cmd}, "load": {"cmd": "python -m x"}})
    assert Revision.models.func(lock) == {  # type: ignore[attr-defined]
        model: {
            "stage": name,
            "rows": rows,
            "splits": "data/splits",
            "predictions": "data/predictions/m",
            "live": "live/m",
        }
    }
