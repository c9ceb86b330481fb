"""A search is a row of DVC experiments: it goes on after a kill, and leaves nothing half done."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import ROOT, Project, set_params
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial, create_trial
from ruamel.yaml import YAML

from src.core.errors import InputError
from src.core.processes import alone
from src.project import graph
from src.tools.tune import __main__ as tune
from src.tools.tune import trials
from src.tools.tune.trials import Distribution, Search, identify, present, read_space

# What DVC reads its graph with.
IN_DVC = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")
PARAMS: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")


@contextmanager
def searching(project: Project, trial: int) -> Iterator["subprocess.Popen[str]"]:
    """A search in the background, where interrupts are ignored, whose trial is at its stage."""
    search = subprocess.Popen(
        [sys.executable, "-m", "src.tools.tune"],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    with search:
        logs = project.root / "logs"
        while not any("Running stage" in f.read_text() for f in logs.glob(f"tune-*-{trial}.log")):
            assert search.poll() is None, search.communicate()[0]
            time.sleep(0.05)
        yield search


def experiments(project: Project) -> list[str]:
    refs = project.git("for-each-ref", "--format=%(refname)", "refs/exps").split()
    return sorted(ref.rsplit("/", 1)[1] for ref in refs)


def temporary_folders(project: Project) -> list[Path]:
    return list((project.root / ".dvc" / "tmp" / "exps" / "standalone").glob("tmp*"))


def wait_for_the_end_of_the_trial(project: Project) -> None:
    """Until nothing is left of a trial whose search is gone."""
    for _ in range(3000):
        if not temporary_folders(project):
            return
        time.sleep(0.1)
    pytest.fail("the trial goes on")


def test_a_search_goes_on_after_a_kill_and_an_interrupt(project: Project) -> None:
    # Trees so low, whatever their words, and pruned, that what the work tree has is better.
    space = ["baseline.max_df float 0.5 0.9", "baseline.max_depth int 1 2"]
    space.append("baseline.bootstrap one true false")
    changes = {"target": "baseline", "n_trials": 1, "space": space}
    changes = {f"tune.{key}": value for key, value in changes.items()}
    # And so many that a trial is not over before it is interrupted.
    set_params(project, changes | {"baseline.n_estimators": 1500, "baseline.ccp_alpha": 1.0})
    project.commit()

    with searching(project, 1) as search:
        assert temporary_folders(project)
        search.kill()
    wait_for_the_end_of_the_trial(project)
    with searching(project, 2) as search:
        search.send_signal(signal.SIGINT)
        printed = search.communicate()[0]
    assert search.returncode == 130
    assert "ERROR src.tools.tune: Interrupted after 0 of 1 trials" in printed
    assert "Traceback" not in printed
    assert temporary_folders(project) == []
    assert experiments(project) == []
    assert project.git("status", "--porcelain") == ""

    printed = project.run("python", "-m", "src.tools.tune")
    # The killed trial again, with what params.yaml has as far as the space holds it.
    killed = next((project.root / "logs").glob("tune-*-1.log")).read_text()
    drawn = killed.split("--max_df ")[1].split()[0]
    told = re.search(
        rf"trial 1 of 1: (tune-\w+-3) \(baseline.max_df={drawn}, baseline.max_depth=[12], "
        r"baseline.bootstrap=true\): ",
        printed,
    )
    assert told is not None
    assert experiments(project) == [told[1]]
    table = (project.root / "logs" / "tune.md").read_text()
    assert "\nTrials: 1 complete." in table
    for picture in ("tune.png", "tune-history.png"):
        assert (project.root / "logs" / picture).read_bytes().startswith(b"\x89PNG")
    assert project.git("status", "--porcelain") == ""

    assert "None is better than what is in the work tree" in table
    project.dvc("exp", "apply", told[1])
    figures = json.loads((project.root / "dvclive" / "baseline" / "metrics.json").read_text())
    assert f"| {told[1]} | {figures['validation']['log_loss']:.4f} |" in table
    project.git("restore", "params.yaml", "dvc.lock", "dvclive")


@pytest.fixture
def study(project: Project, monkeypatch: pytest.MonkeyPatch) -> Study:
    """A study of no trials, in the folder of the project."""
    monkeypatch.chdir(project.root)
    return optuna.create_study(study_name="broken")


SPACE: dict[str, Distribution] = {"x": FloatDistribution(0.1, 1, log=True)}
SEARCH = Search("dvc.yaml", "train", "validation.ece", SPACE)


def add(study: Study, value: float, experiment: str, x: float = 0.5) -> None:
    """Give a study a complete trial."""
    study.add_trial(
        create_trial(
            params={"x": x},
            distributions={**SPACE},
            value=value,
            user_attrs={"params": {"x": str(x)}, "experiment": experiment},
        )
    )


def run_next(study: Study) -> FrozenTrial:
    return trials.run_next(study, SEARCH, "file")


def test_equal_params_are_not_run_twice(study: Study) -> None:
    add(study, 0.01, "seen")
    study.enqueue_trial({"x": 0.50001})
    trial = run_next(study)
    assert tune.line(trial, "validation.ece") == (
        "seen (x=0.5): validation.ece 0.0100, complete earlier, with equal params"
    )


def test_a_failed_trial_tells_the_sentence_of_its_stage(project: Project) -> None:
    changes = {"tune.target": "baseline", "tune.space": ["baseline.max_depth int 1 2"]}
    set_params(project, {**changes, "baseline.ngram_range": [2, 1]})
    logs = project.root / "logs"
    earlier = {*logs.glob("tune-*.log")}
    printed = project.run("python", "-m", "src.tools.tune", code=1)
    project.git("restore", "params.yaml")
    (log,) = {*logs.glob("tune-*.log")} - earlier
    told = re.search(r"ERROR src\.core\.stage: (.*ngram_range.*)", log.read_text())
    assert told is not None
    assert f"(1 in a row). The last: {told[1]} All it printed is in logs/{log.name}." in printed
    table = (logs / "tune.md").read_text()
    assert "\nTrials: 1 failed." in table
    assert f"| failed: {told[1]} |" in table


def test_a_search_stops_where_trials_fail(
    project: Project, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials, "_run", lambda *_: "Too small: raise it.")

    def attempt() -> None:
        assert run_next(study).state.name == "FAIL"
        trials.stop_if_trials_fail(study)

    with pytest.raises(InputError, match=r"\(1 in a row\).* Too small: raise it\. "):
        attempt()
    tune.write_page(study, SEARCH, "file")  # with nothing to draw
    for value, name in ((1.0, "good"), (0.5, "better"), (0.75, "middling")):
        add(study, value, name)
    attempt()
    attempt()
    with pytest.raises(InputError, match=r"\(3 in a row\).*logs/broken-7\.log\."):
        attempt()
    tune.write_page(study, SEARCH, "file")
    table = (project.root / "logs" / "tune.md").read_text()
    record = "dvclive/train/metrics.json"  # of the work tree
    now = json.loads(Path(record).read_text())["validation"]["ece"]
    assert tune.advice(study, SEARCH, record) == (
        f"None is better than what is in the work tree, which has {now:.4f}."
    )
    assert "\nTrials: 3 complete, 4 failed." in table
    assert [row.split(" | ")[0] for row in table.splitlines() if " complete |" in row] == [
        "| better",
        "| middling",
        "| good",
    ]
    assert "`dvc exp apply better` brings the best" in table


@IN_DVC
def test_other_code_or_params_begin_another_search(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)

    def name(entry: str) -> str:
        space = read_space([entry], "baseline", PARAMS["baseline"])
        return identify(Search("dvc.yaml", "baseline", "validation.ece", space))[0]

    first = "baseline.n_estimators int 5 20"
    before = name(first)
    assert name("baseline.min_df int 1 2") != before
    set_params(project, {"baseline.n_estimators": 12})  # which is searched
    assert name(first) == before
    set_params(project, {"baseline.min_df": 1})
    assert name(first) != before
    project.git("restore", "params.yaml")
    source = project.root / "src" / "text" / "baseline.py"
    source.write_text(source.read_text() + "\n")
    assert name(first) != before
    project.git("restore", "src/text/baseline.py")


@pytest.mark.parametrize(
    ("entry", "distribution"),
    [
        ("train.epochs int 1 5", IntDistribution(1, 5)),
        ("train.batch_size int 8 64 log", IntDistribution(8, 64, log=True)),
        ("train.lr float 1e-5 1e-3 log", FloatDistribution(1e-5, 1e-3, log=True)),
        ("train.precision one no bf16", CategoricalDistribution(["no", "bf16"])),
        ("train.shortcuts one true false", CategoricalDistribution(["true", "false"])),
    ],
)
def test_what_an_entry_of_the_space_means(entry: str, distribution: Any) -> None:
    assert read_space([entry], "train", PARAMS["train"]) == {entry.split()[0]: distribution}


def test_a_search_begins_with_what_params_have_and_the_space_holds() -> None:
    section = PARAMS["baseline"] | {"ngram_range": [1, 2], "n_estimators": 9, "bootstrap": True}
    entries = [
        "baseline.ngram_range one [1,1] [1,2]",
        "baseline.n_estimators int 10 20",
        "baseline.bootstrap one false true",
        "baseline.ccp_alpha float 0 1e-3",
    ]
    assert present(read_space(entries, "baseline", section), section) == {
        "baseline.ngram_range": "[1,2]",
        "baseline.bootstrap": "true",
        "baseline.ccp_alpha": section["ccp_alpha"],
    }


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("train.lrr float 0 1", "train.lrr is not known (did you mean 'lr'?)"),
        ("compare.seed int 0 9", "'compare.seed int 0 9', which is no param of train"),
        ("lr float 0 1", "no param of train"),
        ("", "no param of train"),
        ("train.lr", "write 'PARAM int LOW HIGH', 'PARAM float LOW HIGH'"),
        ("train.lr float 1e-5", "write 'PARAM int LOW HIGH'"),
        ("train.lr float 1e-5 1e-3 lg", "write 'PARAM int LOW HIGH'"),
        ("train.lr between 1 2", "write 'PARAM int LOW HIGH'"),
        ("train.lr float 1e-3 1e-5", "`low <= high` must hold"),
        ("train.lr float 1e-3 nan", "train.lr is 'nan'"),
        ("train.weight_decay float 0 0.1 log", "`low > 0` must hold for `log=True`"),
        ("train.lr float 1e-3 2", "train.lr is '2.0'"),
        ("train.epochs float 1 2", "train.epochs is '1.0'"),
        ("train.precision one no fp8", "train.precision is 'fp8'"),
        ("train.precision one no", "at least two values"),
        ("train.precision one no no", "at least two values"),
        ("train.shortcuts one true perhaps", "train.shortcuts is 'perhaps'"),
    ],
)
def test_a_mistake_in_the_space_is_one_sentence(entry: str, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        read_space([entry], "train", PARAMS["train"])
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "params.yaml" in str(raised.value) or "change tune.target" in str(raised.value)


def test_a_param_stands_in_the_space_once_and_the_space_has_one() -> None:
    with pytest.raises(InputError, match=r"tune.space has train.lr twice"):
        read_space(["train.lr float 1e-5 1e-3"] * 2, "train", PARAMS["train"])
    with pytest.raises(InputError, match=r"tune.space is empty"):
        read_space([], "train", PARAMS["train"])


def test_data_that_a_trial_would_not_find_is_named_before_the_first(project: Project) -> None:
    new = project.root / "data" / "source" / "new.csv"
    new.write_text("text,label\n")
    printed = project.run("python", "-m", "src.tools.tune", code=1)
    new.unlink()
    assert "Neither git nor DVC has data/source/new.csv" in printed


def test_test_texts_choose_no_model(project: Project) -> None:
    printed = project.run("python", "-m", "src.tools.tune", "--metric", "test.macro_f1", code=1)
    assert "ERROR src.core.stage: tune.metric is 'test.macro_f1'" in printed
    assert "Traceback" not in printed


def test_what_a_stage_or_a_project_lacks_is_named_before_the_first_trial(project: Project) -> None:
    entry = "train.lr float 1e-5 1e-3"
    for words, sentence in (
        (
            ["--target=train", "--metric=validation.roc_auc", "--space", entry],
            "tune.metric is 'validation.roc_auc', which dvclive/train/metrics.json does not have: "
            "choose among validation.accuracy, ",
        ),
        (
            ["--target", "forest"],
            "tune.target is 'forest', which trains no model in dvc.yaml: write one of baseline, "
            "linear, probe, train into params.yaml.",
        ),
        (
            ["numbers/dvc.yaml"],
            "'numbers/dvc.yaml' is no pipeline (did you mean 'dvc.yaml'?): name one of dvc.yaml",
        ),
        (["--n_trials=x", "dvc.yaml"], "tune.n_trials is 'x': expected a whole number"),
        (["--seed", "x"], "change it in params.yaml or on the command line."),
    ):
        printed = project.run("python", "-m", "src.tools.tune", *words, code=1)
        assert sentence in printed
        assert "Traceback" not in printed
    with alone(project.root / "logs/.tune.lock", "searches"):
        printed = project.run("python", "-m", "src.tools.tune", code=1)
    assert "searches params: wait until it ends" in printed


def test_stages_that_run_no_module_are_left_alone(tmp_path: Path) -> None:
    stages = ["a: {cmd: python -m src.text.train x}", "b: {cmd: bash x.sh}", "c: {cmd: [ls, ls]}"]
    stages.append("d: {foreach: [x], do: {cmd: python -m src.text.evaluate}}")
    (tmp_path / "dvc.yaml").write_text("stages:\n" + "".join(f"  {one}\n" for one in stages))
    assert graph.modules(str(tmp_path / "dvc.yaml")) == {"a": "src.text.train"}


def test_what_follows_a_search_of_tables_is_in_their_pipeline(study: Study) -> None:
    add(study, 0.5, "found")
    search = Search("tabular/dvc.yaml", "forest", "validation.roc_auc", SPACE)
    assert search.command == "python -m src.tools.tune tabular/dvc.yaml"
    assert tune.advice(study, search, "nowhere.json") == (
        "`dvc exp apply found` brings the best into the work tree, `dvc repro tabular/dvc.yaml` "
        "what follows. DVC ends the first with an error where another pipeline never ran."
    )


def test_without_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"params\.yaml can't be read"):
        tune.words()
    Path("params.yaml").write_text("train:\n  lr: 1\n")
    with pytest.raises(InputError, match=r"no section 'tune'"):
        tune.words()
    Path("params.yaml").write_text("tune: [")
    with pytest.raises(InputError, match=r"params\.yaml can't be read"):
        tune.words()
