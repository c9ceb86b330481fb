"""A search is a row of DVC experiments: it goes on after a kill, and leaves nothing half done."""

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
from conftest import Project, copy_built, set_params
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from src import tune
from src.stage import InputError

# What DVC reads its graph with.
IN_DVC = pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning")
LINE = (
    "2026-01-01 10:00:00,000 INFO src.recording: step {}: validation/loss 0.5, validation/ece 0.25"
)


@pytest.fixture(scope="module")
def project(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    return copy_built(built, tmp_path_factory.mktemp("tune") / "project")


@contextmanager
def searching(project: Project, log: str, ready: str) -> Iterator["subprocess.Popen[str]"]:
    """A search whose trial has come so far that ``ready`` stands in its log."""
    search = subprocess.Popen(
        [sys.executable, "-m", "src.tune"],
        cwd=project.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with search:
        while not any(ready in f.read_text() for f in (project.root / "logs").glob(log)):
            assert search.poll() is None, search.communicate()[0]
            time.sleep(0.1)
        yield search


def experiments(project: Project) -> list[str]:
    refs = project.git("for-each-ref", "--format=%(refname)", "refs/exps").split()
    return sorted(ref.rsplit("/", 1)[1] for ref in refs)


def temporary_folders(project: Project) -> list[Path]:
    return list((project.root / ".dvc" / "tmp" / "exps" / "standalone").glob("tmp*"))


def wait_for_the_end_of(project: Project) -> None:
    """Until nothing is left of a trial whose search is gone."""
    for _ in range(3000):
        if not temporary_folders(project):
            return
        time.sleep(0.1)
    pytest.fail("the trial goes on")


def test_a_search_goes_on_after_a_kill_and_an_interrupt(project: Project) -> None:
    space = ["baseline.criterion one gini entropy", "baseline.bootstrap one true false"]
    changes = {"target": "baseline", "n_trials": 3, "space": space}
    set_params(project, {f"tune.{key}": value for key, value in changes.items()})
    project.commit()

    with searching(project, "tune-*-1.log", "Running stage 'baseline'") as search:
        assert temporary_folders(project)
        search.kill()
    wait_for_the_end_of(project)
    with searching(project, "tune-*-2.log", "Running stage 'baseline'") as search:
        search.send_signal(signal.SIGINT)
        printed = search.communicate()[0]
    assert search.returncode == 130
    assert "ERROR src.tune: Interrupted with 0 of 3 trials: `python -m src.tune` goes" in printed
    assert "Traceback" not in printed
    assert temporary_folders(project) == []
    assert experiments(project) == []
    assert project.git("status", "--porcelain") == ""
    assert project.git("branch", "--show-current") == "main\n"

    printed = project.run("python", "-m", "src.tune")
    told = re.findall(r"trial (\d) of 3: (tune-\w+-\d+) \(", printed)
    assert [number for number, _ in told] == ["1", "2", "3"]
    assert "(baseline.criterion=gini, baseline.bootstrap=true)" in printed  # what params.yaml has
    names = sorted({name for _, name in told})
    assert experiments(project) == names
    table = (project.root / "logs" / "tune.md").read_text()
    assert all(f"| {name} | " in table for name in names)
    assert (project.root / "logs" / "tune.png").read_bytes().startswith(b"\x89PNG")
    assert project.git("status", "--porcelain") == ""

    again = project.run("python", "-m", "src.tune")
    assert "has 3 of 3 trials" in again
    assert "trial 4" not in again
    apply = re.search(r"`dvc (exp apply (\S+))`", again)
    assert apply is not None
    assert apply[2] in names
    project.dvc(*apply[1].split())
    shown = project.dvc("exp", "show", "--only-changed", "--csv")
    assert apply[2] in shown
    assert project.ran(project.dvc("repro", "baseline")) == []


@IN_DVC
def test_equal_params_are_not_run_twice_and_a_bad_trial_is_pruned(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy_built(built, tmp_path / "project")
    set_params(
        project,
        {
            "tune.space": ["train.lr float 1e-9 1e-8"],
            "tune.pruner_startup_trials": 1,
            "tune.n_trials": 3,
            "train.epochs": 50,
            "train.early_stopping_patience": 0,
        },
    )
    monkeypatch.chdir(project.root)
    params = tune._space(["train.lr float 1e-9 1e-8"], "train")
    search = tune._search("train", "validation.log_loss", params)
    study = optuna.create_study(storage=f"sqlite:///{tune.STORAGE}", study_name=search.name)
    study.add_trial(
        optuna.trial.create_trial(
            params={"train.lr": 5e-9},
            distributions={"train.lr": params[0].distribution},
            user_attrs={"params": {"train.lr": "5e-09"}, "experiment": "seen"},
            value=0.01,
            intermediate_values=dict.fromkeys(range(1, 51), 0.01),
        )
    )
    study.enqueue_trial({"train.lr": 5.0001e-9})
    printed = project.run("python", "-m", "src.tune")
    assert "trial 2 of 3: seen (train.lr=5e-09): validation.log_loss 0.0100, as before" in printed
    assert re.search(
        r"trial 3 of 3: tune-\w+-3 \(train.lr=\S+\): .*, pruned after epoch 1,", printed
    )
    assert experiments(project) == []
    assert temporary_folders(project) == []
    table = (project.root / "logs" / "tune.md").read_text()
    assert "3 trials: 1 complete, 1 pruned, 1 with the params of another." in table
    log = next((project.root / "logs").glob("tune-*-3.log")).read_text()
    assert "Interrupted." in log


@IN_DVC
def test_other_code_or_params_begin_another_search(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.root)

    def name(*space: str) -> str:
        params = tune._space(space, "baseline")
        return tune._search("baseline", "validation.ece", params).name

    first, other = "baseline.n_estimators int 5 20", "baseline.min_df int 1 2"
    before = name(first)
    assert name(first) == before
    assert name(other) != before
    set_params(project, {"baseline.n_estimators": 12})  # which is searched
    assert name(first) == before
    set_params(project, {"baseline.min_df": 1})
    assert name(first) != before
    project.git("restore", "params.yaml")
    (project.root / "src" / "baseline.py").open("a").write("\n")
    assert name(first) != before
    project.git("restore", "src/baseline.py")


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
    assert tune._space([entry], "train") == [tune.Searched(entry.split()[0], distribution)]


def test_a_list_is_a_value() -> None:
    entry = "baseline.ngram_range one [1,1] [1,2]"
    found = tune._space([entry], "baseline")[0]
    assert tune._present(found, {"baseline": {"ngram_range": [1, 2]}}) == "[1,2]"


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("train.lrr float 0 1", "tune.space has train.lrr, which is not known (did you mean 'lr'?"),
        ("compare.seed int 0 9", "expected a param of train, because others change what is"),
        ("lr float 0 1", "expected a param of train"),
        ("train.lr", "expected 'PARAM int LOW HIGH', 'PARAM float LOW HIGH'"),
        ("train.lr float 1e-5", "expected 'PARAM int LOW HIGH'"),
        ("train.lr between 1 2", "expected 'PARAM int LOW HIGH'"),
        ("train.lr float 1e-3 1e-5", "an empty range: expected two numbers, the lower first"),
        ("train.lr float 1e-3 nan", "an empty range"),
        ("train.weight_decay float 0 0.1 log", "expected a number above 0 for the lower end"),
        ("train.lr float 1e-3 2", "tune.space: train.lr is '2.0': expected a number above 0 and"),
        ("train.epochs float 1 2", "tune.space: train.epochs is '1.0': expected a whole number"),
        ("train.precision one no fp8", "train.precision is 'fp8': expected one of no, bf16, fp16"),
        ("train.precision one no", "expected at least two values, all different"),
        ("train.precision one no no", "expected at least two values, all different"),
        ("train.shortcuts one true perhaps", "train.shortcuts is 'perhaps': expected true or"),
    ],
)
def test_a_mistake_in_the_space_is_one_sentence(entry: str, sentence: str) -> None:
    with pytest.raises(InputError) as raised:
        tune._space([entry], "train")
    assert sentence in str(raised.value)
    assert str(raised.value).endswith("params.yaml.") or "change tune.target." in str(raised.value)


def test_a_param_stands_in_the_space_once_and_the_space_has_one() -> None:
    with pytest.raises(InputError, match=r"tune.space has train.lr twice"):
        tune._space(["train.lr float 1e-5 1e-3"] * 2, "train")
    with pytest.raises(InputError, match=r"tune.space is empty"):
        tune._space([], "train")


def test_test_texts_choose_no_model(project: Project) -> None:
    printed = project.run("python", "-m", "src.tune", "--metric", "test.macro_f1", code=1)
    assert "ERROR src.stage: tune.metric is 'test.macro_f1': expected a validation" in printed
    assert "Traceback" not in printed
    with pytest.raises(InputError, match=r"did you mean 'validation.macro_f1'"):
        tune._check_metric("validation.macrof1")


def test_without_a_section_or_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"Expected params.yaml in .* go to the root"):
        tune._arguments()
    Path("params.yaml").write_text("train:\n  lr: 1\n")
    with pytest.raises(InputError, match=r"Expected a section `tune` in params.yaml"):
        tune._arguments()
    Path("params.yaml").write_text("tune: [")
    with pytest.raises(InputError, match=r"Expected YAML in params.yaml, found: "):
        tune._arguments()


def test_the_figures_of_a_line() -> None:
    figures = {"validation/loss": 0.5, "validation/ece": 0.25}
    assert tune.figures_of(LINE.format("4/8")) == (False, figures)
    assert tune.figures_of(LINE.format("8/8")) == (True, figures)
    assert tune.figures_of("Running stage 'train':") is None


def test_a_seed_gives_the_same_values_and_each_trial_others() -> None:
    def draw(seed: int, number: int) -> float:
        study = optuna.create_study(sampler=tune._sampler("random", 0, seed, number))
        return study.ask().suggest_float("x", 0, 1)

    assert draw(1, 0) == draw(1, 0)
    assert len({draw(1, 0), draw(1, 1), draw(2, 0)}) == 3


def test_a_process_is_interrupted_when_its_block_ends_early_and_can_tidy_up(tmp_path: Path) -> None:
    code = (
        "import time\nprint('ready', flush=True)\ntry:\n    time.sleep(60)\n"
        "except KeyboardInterrupt:\n    print('tidy', flush=True)\n"
    )
    log = tmp_path / "log"

    def stop_early() -> None:
        with tune._started([sys.executable, "-c", code], log) as process:
            assert next(tune._lines(log, process)) == "ready"
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stop_early()
    assert log.read_text() == "ready\ntidy\n"


def test_a_search_stops_where_trials_fail(project: Project) -> None:
    source = project.root / "src" / "baseline.py"
    text = source.read_text()
    source.write_text(
        text.replace(
            "    train = examples", '    raise InputError("Broken.")\n    train = examples', 1
        )
    )
    printed = project.run("python", "-m", "src.tune", "--n_trials", "9", code=1)
    source.write_text(text)
    assert "Expected trials to run, found that 1 in a row failed, the last with: Broken." in printed
    assert "Traceback" not in printed
    assert "1 failed" in (project.root / "logs" / "tune.md").read_text()
    assert temporary_folders(project) == []
