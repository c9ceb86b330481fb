"""Readers learn, resume and are judged; the pipeline run small by DVC."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Project, copy_project, digest
from qa_model import INGEST, PARAMS, TINY, ingested, make_encoder, make_facts, read, squad, write
from ruamel.yaml import YAML

from src.core.errors import InputError

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

if PARAMS:
    from src.qa import (
        adapt,
        answers,
        evaluate,
        lexical,
        model,
        objective,
        questions,
        trainer,
        training,
    )
    from src.qa.squad import Questions

PIPELINE = "qa/dvc.yaml"
EVALUATE: dict[str, Any] = {"questions": 8, "resamples": 50, "precision": "no", "threads": 1}


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder") / "made")


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    return ingested(folder, make_facts(16), make_facts(6, 30))


@pytest.fixture(scope="module")
def made(sets: Path, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    read(sets, folder, encoder)
    return folder


def test_a_reader_learns_to_answer(made: Path) -> None:
    figures = json.loads((made / "live/reader/metrics.json").read_text())
    assert figures["validation"]["token_f1"] > 0.8
    record = json.loads((made / "reader.json").read_text())
    assert record["params"]["epochs"] == TINY["epochs"]
    assert json.loads((made / "reader/config.json").read_text())["reader"] == {
        name: TINY[name] for name in ("max_length", "stride", "max_question", "max_answer")
    }
    assert not [*made.glob(".checkpoints/*")]
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in (made / "reader").iterdir())


def test_a_stopped_training_ends_as_if_it_had_not_been(
    sets: Path, made: Path, encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = trainer.ReaderTrainer.training_step
    steps = []

    def stopping(self: Any, *words: Any, **more: Any) -> Any:
        steps.append(self.state.global_step)
        if len(steps) == 8:
            raise KeyboardInterrupt
        return step(self, *words, **more)

    monkeypatch.setattr(trainer.ReaderTrainer, "training_step", stopping)
    with pytest.raises(KeyboardInterrupt):
        read(sets, tmp_path, encoder)
    assert not (tmp_path / "reader").exists()
    read(sets, tmp_path, encoder)
    assert 0 not in steps[8:], "it went on"
    assert digest(tmp_path / "reader") == digest(made / "reader")
    name = "live/reader/metrics.json"
    assert (tmp_path / name).read_text() == (made / name).read_text()


def test_shortcuts_leave_what_is_learnt_as_it_is(sets: Path, encoder: Path, tmp_path: Path) -> None:
    short = {"epochs": 1, "max_questions": 24}
    whole = read(sets, tmp_path / "a", encoder, shortcuts=False, **short)
    fast = read(sets, tmp_path / "b", encoder, shortcuts=True, **short)
    weights = [model.load(str(folder)).model.state_dict() for folder in (whole, fast)]
    assert weights[0].keys() == weights[1].keys()
    # Softmax takes no notice of these two, so what moves them is rounding alone.
    moved = [name for name in weights[0] if not name.endswith(("qa_outputs.bias", "key.bias"))]
    for name, value in ((name, weights[0][name]) for name in moved):
        assert (value - weights[1][name]).abs().max() < 2e-4, name


@pytest.mark.parametrize("name", ["paragraph", "no_answer", "shared"])
def test_a_reader_goes_on_by_each_objective(
    name: str, sets: Path, made: Path, tmp_path: Path
) -> None:
    section = {key: TINY[key] for key in TINY.keys() & PARAMS["objective"].keys()}
    section = PARAMS["objective"] | section | {"max_questions": 0, "epochs": 12, "lr": 0.005}
    paths = sets, made / "reader", tmp_path / name, tmp_path / "live" / name
    objective.main(*paths, **section)
    figures = evaluated(sets, tmp_path / name, tmp_path)
    assert figures["test"]["token_f1"] > 0.6
    if name == "no_answer":
        before = evaluated(sets, made / "reader", tmp_path / "before")
        assert figures["answerable"]["auc"] > before["answerable"]["auc"]
    with pytest.raises(InputError, match="other is named after no objective: paragraph, no_answer"):
        objective.main(sets, made / "reader", tmp_path / "other", tmp_path / "live", **section)


def evaluated(sets: Path, reader: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    section = PARAMS["evaluate"] | EVALUATE | changes
    evaluate.main(sets, reader, folder / "predictions", folder / "judged", **section)
    found: dict[str, Any] = json.loads((folder / "judged/metrics.json").read_text())
    return found


def test_a_reader_is_judged_on_one_paragraph_and_on_many(
    sets: Path, made: Path, tmp_path: Path
) -> None:
    figures = evaluated(sets, made / "reader", tmp_path, ks=[1, 4])
    frame = pd.read_parquet(tmp_path / "predictions/predictions.parquet")
    test = Questions.read(sets / "test.json")
    assert list(frame["id"]) == [one.id for one in test.questions]
    assert figures["test"]["exact_match"] == pytest.approx(frame["exact_match"].mean())
    assert [json.loads(label) for label in frame["label"]] == [
        one.references for one in test.questions
    ]
    assert set(figures["paragraphs"]) == {
        f"{name}@{k}" for name in ("recall", "softmax", "logit", "minus_null") for k in (1, 4)
    }
    assert figures["paragraphs"]["recall@4"] >= figures["paragraphs"]["recall@1"]
    assert 1 <= figures["early_stop"]["paragraphs"] <= 4
    details = json.loads((tmp_path / "judged/details.json").read_text())
    low, high = details["intervals"]["token_f1"]
    assert low <= figures["test"]["token_f1"] <= high
    with pytest.raises(InputError, match=r"evaluate\.ks is \[\]: name at least one number"):
        evaluated(sets, made / "reader", tmp_path, ks=[])


def test_questions_without_an_answer_are_judged_where_there_are_any(
    made: Path, tmp_path: Path
) -> None:
    target = make_facts(6, 30)
    for article in target["data"]:
        article["paragraphs"][0]["qas"][0] |= {"is_impossible": True, "answers": []}
    sets = ingested(tmp_path, make_facts(16), target)
    figures = evaluated(sets, made / "reader", tmp_path)["test"]
    frame = pd.read_parquet(tmp_path / "predictions/predictions.parquet")
    none = frame[~frame["answerable"]]
    assert len(none) == len(frame) / 4
    assert figures["unanswerable_exact_match"] == pytest.approx((none["predicted"] == "").mean())
    assert figures["exact_match"] == pytest.approx(frame["exact_match"].mean())


def test_the_cheap_reader_finds_what_stands_beside_the_words_of_a_question(
    sets: Path, tmp_path: Path
) -> None:
    lexical.main(sets, tmp_path / "lexical", max_paragraphs=0)
    figures = evaluated(sets, tmp_path / "lexical", tmp_path)
    assert figures["test"]["token_f1"] > 0.2
    assert figures["paragraphs"]["minus_null@10"] > 0.2


@pytest.fixture(scope="module")
def proposer(sets: Path, made: Path) -> Path:
    """A reader that proposes answers."""
    section = {key: TINY[key] for key in TINY.keys() & PARAMS["answers"].keys()}
    section = PARAMS["answers"] | section | {"epochs": 12, "lr": 0.005}
    answers.main(sets, made / "reader", made / "answers", made / "live/answers", **section)
    return made / "answers"


def make_questions(sets: Path, made: Path, folder: Path, **changes: Any) -> Path:
    """Make questions by DVC's stage, which are left in ``folder / "made"``."""
    small = {"precision": "no", "threads": 1, "per_paragraph": 2, "of": ["adapt"]}
    places = made / "answers", made / "reader", folder / "made", folder / "live"
    questions.main(sets, *places, **PARAMS["questions"] | small | changes)
    return folder / "made"


def rows_of(folder: Path) -> list[dict[str, str]]:
    head, *rows = (line.split("\t") for line in (folder / "questions.tsv").read_text().splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.mark.usefixtures("proposer")
def test_questions_are_made_for_paragraphs_and_kept_if_they_are_answered_as_meant(
    sets: Path, made: Path, tmp_path: Path
) -> None:
    place = make_questions(sets, made, tmp_path)
    rows = rows_of(place)
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    found = Questions.read(place / "questions.json")
    kept = [row for row in rows if row["kept"] == "true"]
    assert sorted(one.text for one in found.questions) == sorted(row["question"] for row in kept)
    assert 0 < len(kept) < len(rows)
    assert all(float(row["f1"]) >= 0.6 for row in kept)
    for one in found.questions:
        (answer,) = one.answers
        assert found.texts[one.paragraph].startswith(answer.text, answer.start)
    figures = json.loads((tmp_path / "live/metrics.json").read_text())
    assert (figures["made"], figures["kept"]) == (len(rows), len(kept))
    adapt_set = Questions.read(sets / "adapt.json")
    assert set(found.texts) == set(adapt_set.texts)
    # What is proposed are the values, which people ask about.
    assert sum(row["answer"].startswith("v") for row in rows) >= len(rows) / 2


@pytest.mark.usefixtures("proposer")
def test_a_model_of_sequences_asks_in_place_of_templates(
    sets: Path, made: Path, encoder: Path, tmp_path: Path
) -> None:
    place = make_generator(encoder, tmp_path / "t5")
    rows = rows_of(
        make_questions(sets, made, tmp_path, generator=str(place), sha256="", round_trip=0.0)
    )
    assert rows
    assert all("?" not in row["question"] for row in rows)  # a template ends so
    words = {"generator": str(place), "sha256": ""}
    with pytest.raises(InputError, match=r"questions\.prompt is 'ask', which has no \{answer\}"):
        make_questions(sets, made, tmp_path, prompt="ask", **words)
    with pytest.raises(InputError, match=r"Expected sha256 0{64}"):
        make_questions(sets, made, tmp_path, **words | {"sha256": "0" * 64})


def make_generator(encoder: Path, folder: Path) -> Path:
    """Leave a tiny T5 with random weights and the encoder's tokenizer in a folder."""
    import torch
    import transformers

    library: Any = transformers
    tokenizer = library.AutoTokenizer.from_pretrained(encoder)
    tokenizer.save_pretrained(folder)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    special = {"pad_token_id": 0, "eos_token_id": 3, "decoder_start_token_id": 0}
    torch.manual_seed(1)
    config = library.T5Config(vocab_size=len(tokenizer), **sizes, **special)
    library.T5ForConditionalGeneration(config).save_pretrained(folder)
    return folder


@pytest.mark.usefixtures("proposer")
def test_questions_that_can_not_be_made_are_told_in_a_sentence(
    sets: Path, made: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"questions\.of is \['documents'\], and there is no para"):
        make_questions(sets, made, tmp_path, of=["documents"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.metrics.spans.f1", lambda *_: 0.0)
        with pytest.raises(InputError, match="None of the questions that were made is answered"):
            make_questions(sets, made, tmp_path)


@pytest.mark.usefixtures("proposer")
@pytest.mark.parametrize("name", ["synthetic", "mixed", "source", "labelled"])
def test_a_reader_is_adapted_by_each_kind_of_questions(
    name: str, sets: Path, made: Path, tmp_path: Path
) -> None:
    place = make_questions(sets, made, tmp_path, round_trip=0.0)
    section = {key: TINY[key] for key in TINY.keys() & PARAMS["adapt"].keys()}
    section = PARAMS["adapt"] | section | {"max_questions": 6, "epochs": 1}
    learnt: list[Questions] = []
    train = training.train

    def noting(task: Any, questions: Questions, *words: Any) -> None:
        learnt.append(questions)
        train(task, questions, *words)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", noting)
        paths = sets, place, made / "reader", tmp_path / name, tmp_path / "live-adapt"
        adapt.main(*paths, **section)
    made_ones = {one.text for one in Questions.read(place / "questions.json").questions}
    own = sum(one.text in made_ones for one in learnt[0].questions)
    labelled = Questions.read(sets / "adapt.json")
    count = min(6, len(labelled.questions))
    assert (own, len(learnt[0].questions)) == {
        "synthetic": (6, 6),
        "mixed": (6, 12),
        "source": (0, 12),
        "labelled": (0, count),
    }[name]
    assert (tmp_path / name / "model.safetensors").exists()
    with pytest.raises(InputError, match="other is named after no strategy: synthetic, mixed"):
        adapt.main(*paths[:3], tmp_path / "other", tmp_path / "live-adapt", **section)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"max_length": 500}, r"reader\.max_length is 500, and .* reads at most 96 tokens"),
        ({"max_question": 60}, "have no room for 60 of a question and more than the 8"),
        ({"precision": "fp16"}, r"reader\.precision is 'fp16', which needs a GPU, and none is"),
        ({"checkpoint": "nowhere/at/all"}, "There is no folder at nowhere/at/all"),
        ({"sha256": "0" * 64}, r"Expected sha256 0{64} of .*, found"),
    ],
)
def test_params_that_can_not_train_are_told_in_a_sentence(
    changes: dict[str, Any], sentence: str, sets: Path, encoder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=sentence):
        read(sets, tmp_path, encoder, **changes)


@pytest.fixture(scope="module")
def project(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The project with a small pipeline of questions, whose stages have not run."""
    project = copy_project(tmp_path_factory.mktemp("project") / "project")
    root = project.root
    source = root / "data/qa/source"
    write(source / "facts.json", make_facts(16))
    write(source / "pages.json", squad())
    for path in sorted(encoder.iterdir()):
        (source / "encoder").mkdir(exist_ok=True)
        (source / "encoder" / path.name).write_bytes(path.read_bytes())
    yaml = YAML()
    values = yaml.load(root / "qa/params.yaml")
    values["ingest"] |= INGEST | {"source": ["data/qa/source/facts.json"]}
    values["ingest"] |= {"target": ["data/qa/source/pages.json"]}
    values["reader"] |= TINY | {"checkpoint": "data/qa/source/encoder", "epochs": 2}
    small = {key: TINY[key] for key in TINY.keys() & values["objective"].keys()}
    values["objective"] |= small | {"max_questions": 16, "epochs": 1}
    small = {key: TINY[key] for key in TINY.keys() & values["answers"].keys()}
    values["answers"] |= small | {"epochs": 1}
    values["questions"] |= {"per_paragraph": 3, "round_trip": 0.0, "precision": "no", "threads": 1}
    values["adapt"] |= {key: TINY[key] for key in TINY.keys() & values["adapt"].keys()}
    values["adapt"] |= {"max_questions": 8, "epochs": 1}
    values["export"] |= {"check_questions": 8, "threads": 1}
    values["evaluate"] |= EVALUATE
    values["compare"] |= {"resamples": 50}
    yaml.dump(values, root / "qa/params.yaml")
    for path in (root / "qa/dvc.lock", root / "data/qa/quality.json", root / "data/qa/quality.md"):
        path.unlink(missing_ok=True)
    project.commit()
    return project


@pytest.mark.slow
def test_the_pipeline_runs_by_dvc_and_the_commands_know_it(project: Project) -> None:
    printed = project.dvc("repro", PIPELINE)
    names = project.ran(printed)
    assert {f"{PIPELINE}:{name}" for name in ("ingest", "questions", "export", "card")} < set(names)
    assert len(names) == 8 + 3 + 4 + 9
    project.commit()
    assert project.ran(project.dvc("repro", PIPELINE)) == []
    table = (project.root / "dvclive/qa/compare/comparison.md").read_text()
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")]
    assert rows[2:6] == ["lexical", "paragraph", "no_answer", "shared"]
    assert rows[6:11] == ["synthetic", "mixed", "source", "labelled", "onnx-int8"]
    assert "BiDAF (AllenNLP)" in rows
    project.run(".ci/locked")
    shown = json.loads(project.dvc("metrics", "show", "--json", "dvclive/qa/compare/metrics.json"))
    figures = next(iter(shown[""]["data"].values()))["data"]
    assert set(figures["mixed"]) == {"no_answer", "source"}
    assert set(figures["mixed"]["source"]) == {"token_f1_difference", "token_f1_p_value"}
    project.dvc("plots", "show", "-o", "dvc_plots")
    page = (project.root / "dvc_plots/index.html").read_text()
    assert "F1 of no_answer by the paragraphs that are read" in page
    record = project.run("python", "-m", "src.tools.pedigree", "models/qa/no_answer")
    assert list(json.loads(record)["stages"]) == [
        f"{PIPELINE}:ingest",
        f"{PIPELINE}:reader",
        f"{PIPELINE}:objective@no_answer",
    ]


@pytest.mark.slow
def test_a_report_judges_a_reader_by_its_answers(project: Project) -> None:
    params = project.root / "qa/params.yaml"
    params.write_text(params.read_text().replace("max_questions: 16", "max_questions: 8"))
    project.dvc("repro", PIPELINE)
    project.run("python", "-m", "src.tools.report", "HEAD")
    page = (project.root / "report/report.md").read_text()
    assert "qa/no_answer" in page
    assert "F1 of words" in page
