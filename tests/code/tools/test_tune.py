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
from conftest import ROOT, Project, copy_built, set_params
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from ruamel.yaml import YAML

from src.core.errors import InputError
from src.tools import tune

# What DVC reads its graph with.
IN_DVC = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")
PARAMS: dict[str, Any] = YAML(typ="safe").load(ROOT / "params.yaml")


@pytest.fixture(scope="module")
def project(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return copy_built(built, tmp_path_factory.mktemp("tune") / "project")


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
    # Trees so low, whatever their words, that what the work tree has is better.
    space = ["baseline.max_df float 0.5 0.9", "baseline.max_depth int 1 2"]
    space.append("baseline.bootstrap one true false")
    changes = {"target": "baseline", "n_trials": 1, "space": space}
    set_params(project, {f"tune.{key}": value for key, value in changes.items()})
    project.commit()

    with searching(project, 1) as search:
        assert temporary_folders(project)
        search.kill()
    wait_for_the_end_of_the_trial(project)
    with searching(project, 2) as search:
        search.send_signal(signal.SIGINT)
        printed = search.communicate()[0]
    assert search.returncode == 130
    assert (
        "ERROR src.tools.tune: Interrupted with 0 of 1 trials: `python -m src.tools.tune` goes"
        in printed
    )
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
    assert (project.root / "logs" / "tune.png").read_bytes().startswith(b"\x89PNG")
    assert project.git("status", "--porcelain") == ""

    assert "None is better than what is in the work tree" in table
    project.dvc("exp", "apply", told[1])
    figures = json.loads((project.root / "dvclive" / "baseline" / "metrics.json").read_text())
    assert f"| {told[1]} | {figures['validation']['log_loss']:.4f} |" in table
    project.git("restore", "params.yaml", "dvc.lock", "dvclive")


@IN_DVC
def test_equal_params_are_not_run_twice_and_a_bad_trial_is_pruned(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = "train.lr float 1e-9 1e-8"
    changes = {"tune.space": [entry], "tune.pruner_startup_trials": 1, "tune.n_trials": 3}
    training = {"train.epochs": 300, "train.early_stopping_patience": 0}
    set_params(project, {"tune.target": "train", **changes, **training})
    monkeypatch.chdir(project.root)
    space = tune.read_space([entry], "train", PARAMS["train"])
    name, _ = tune.identify("train", "validation.log_loss", space)
    storage = optuna.storages.RDBStorage(f"sqlite:///{tune.STORAGE}")
    study = optuna.create_study(storage=storage, study_name=name)
    study.add_trial(
        optuna.trial.create_trial(
            params={"train.lr": 5e-9},
            distributions={"train.lr": space["train.lr"]},
            user_attrs={"params": {"train.lr": "5e-09"}, "experiment": "seen"},
            value=0.01,
            intermediate_values=dict.fromkeys(range(1, 301), 0.01),
        )
    )
    study.enqueue_trial({"train.lr": 5.0001e-9})
    storage.engine.dispose()
    before = experiments(project)

    printed = project.run("python", "-m", "src.tools.tune")
    assert "2 of 3: seen (train.lr=5e-09): validation.log_loss 0.0100, complete earlier" in printed
    assert re.search(
        r"trial 3 of 3: tune-\w+-3 \(train.lr=\S+\): .*, pruned after epoch \d+\n", printed
    )
    assert experiments(project) == before
    assert temporary_folders(project) == []
    table = (project.root / "logs" / "tune.md").read_text()
    assert "\nTrials: 2 complete, 1 pruned." in table
    assert "Interrupted." in (project.root / "logs" / f"{name}-3.log").read_text()
    project.git("restore", "params.yaml")


def test_a_search_stops_where_trials_fail(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str, *_: object) -> tuple[int, bool]:
        printed = (
            "Running\n10:00:00 ERROR src.core.stage: Expected more.\nERROR: failed to reproduce\n"
        )
        Path("logs", f"{name}.log").write_text(printed)
        return 1, False

    monkeypatch.chdir(project.root)
    monkeypatch.setattr(tune, "_run", fail)
    space = {"x": FloatDistribution(0.1, 1, log=True)}
    study = optuna.create_study(study_name="broken")

    def attempt() -> None:
        assert tune._try(study, "train", "validation.ece", "file", space).state.name == "FAIL"
        tune._stop_if_trials_fail(study)

    with pytest.raises(
        InputError, match=r"1 in a row failed, the last with: Expected more\. All it"
    ):
        attempt()
    tune._report(study, "broken", "validation.ece", "file", space)  # with nothing to draw
    for value, name in ((1.0, "good"), (0.5, "better"), (0.75, "middling")):
        attrs = {"params": {"x": "0"}, "experiment": name}
        study.add_trial(optuna.trial.create_trial(value=value, user_attrs=attrs))
    attempt()
    attempt()
    with pytest.raises(InputError, match=r"3 in a row failed, .* is in logs/broken-7\.log\."):
        attempt()
    tune._report(study, "broken", "validation.ece", "file", space)
    table = (project.root / "logs" / "tune.md").read_text()
    record = "dvclive/train/metrics.json"  # of the work tree
    now = json.loads(Path(record).read_text())["validation"]["ece"]
    assert tune._advice(study, "validation.ece", record) == (
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
        space = tune.read_space([entry], "baseline", PARAMS["baseline"])
        return tune.identify("baseline", "validation.ece", space)[0]

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
    assert tune.read_space([entry], "train", PARAMS["train"]) == {entry.split()[0]: distribution}


def test_a_search_begins_with_what_params_have_and_the_space_holds() -> None:
    section = PARAMS["baseline"] | {"ngram_range": [1, 2], "n_estimators": 9, "bootstrap": True}
    entries = [
        "baseline.ngram_range one [1,1] [1,2]",
        "baseline.n_estimators int 10 20",
        "baseline.bootstrap one false true",
        "baseline.ccp_alpha float 0 1e-3",
    ]
    assert tune.present(tune.read_space(entries, "baseline", section), section) == {
        "baseline.ngram_range": "[1,2]",
        "baseline.bootstrap": "true",
        "baseline.ccp_alpha": section["ccp_alpha"],
    }


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("train.lrr float 0 1", "train.lrr is not known (did you mean 'lr'?): train takes"),
        ("compare.seed int 0 9", "expected a param of train, because others change what is"),
        ("lr float 0 1", "expected a param of train"),
        ("", "expected a param of train"),
        ("train.lr", "expected 'PARAM int LOW HIGH', 'PARAM float LOW HIGH'"),
        ("train.lr float 1e-5", "expected 'PARAM int LOW HIGH'"),
        ("train.lr float 1e-5 1e-3 lg", "expected 'PARAM int LOW HIGH'"),
        ("train.lr between 1 2", "expected 'PARAM int LOW HIGH'"),
        ("train.lr float 1e-3 1e-5", "`low <= high` must hold"),
        ("train.lr float 1e-3 nan", "train.lr is 'nan': expected a number above 0"),
        ("train.weight_decay float 0 0.1 log", "`low > 0` must hold for `log=True`"),
        ("train.lr float 1e-3 2", "train.lr is '2.0': expected a number above 0 and"),
        ("train.epochs float 1 2", "train.epochs is '1.0': expected a whole number"),
        ("train.precision one no fp8", "train.precision is 'fp8': expected one of no, bf16, fp16"),
        ("train.precision one no", "found: less than two different values, or one twice"),
        ("train.precision one no no", "found: less than two different values, or one twice"),
        ("train.shortcuts one true perhaps", "train.shortcuts is 'perhaps': expected true or"),
    ],
)
def test_a_mistake_in_the_space_is_one_sentence(entry: str, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        tune.read_space([entry], "train", PARAMS["train"])
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)
    assert str(raised.value).endswith("params.yaml.") or "change tune.target." in str(raised.value)


def test_a_param_stands_in_the_space_once_and_the_space_has_one() -> None:
    with pytest.raises(InputError, match=r"tune.space has train.lr twice"):
        tune.read_space(["train.lr float 1e-5 1e-3"] * 2, "train", PARAMS["train"])
    with pytest.raises(InputError, match=r"tune.space is empty"):
        tune.read_space([], "train", PARAMS["train"])


def test_data_that_a_trial_would_not_find_is_named_before_the_first(project: Project) -> None:
    new = project.root / "data" / "source" / "new.csv"
    new.write_text("text,label\n")
    printed = project.run("python", "-m", "src.tools.tune", code=1)
    new.unlink()
    assert "Neither git nor DVC has data/source/new.csv" in printed


def test_test_texts_choose_no_model(project: Project) -> None:
    printed = project.run("python", "-m", "src.tools.tune", "--metric", "test.macro_f1", code=1)
    assert (
        "ERROR src.core.stage: tune.metric is 'test.macro_f1': expected one of validation"
        in printed
    )
    assert "Traceback" not in printed


@IN_DVC
def test_without_a_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"Expected params.yaml that DVC can read in .* go to"):
        tune.read_section()
    subprocess.run(["dvc", "init", "--quiet", "--no-scm"], check=True)
    Path("params.yaml").write_text("train:\n  lr: 1\n")
    with pytest.raises(InputError, match=r"Expected a section `tune` in params.yaml"):
        tune.read_section()
    Path("params.yaml").write_text("tune: [")
    with pytest.raises(InputError, match=r"Expected params.yaml that DVC can read in .*, found: "):
        tune.read_section()
