"""The bytes of the models of TF-IDF, and their ONNX exports against scikit-learn."""

import json
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, SPLIT, TOPICS, make_texts
from scipy.special import softmax
from sklearn.ensemble import RandomForestClassifier

from src.core.errors import InputError
from src.core.words import LONGER, WORD
from src.metrics import classification
from src.predict.classifier import Classifier
from src.project.params import words_of
from src.tables import examples
from src.text import baseline, export_tfidf, forest_graph, linear, split, tfidf
from src.text.forest import Forest

PARAMS: dict[str, Any] = {
    "analyzer": "word",
    "ngram_range": [1, 1],
    "lowercase": True,
    "strip_accents": "none",
    "min_df": 1,
    "max_df": 1.0,
    "tfidf_max_features": "none",
    "sublinear_tf": True,
    "n_estimators": 20,
    "criterion": "gini",
    "max_depth": "none",
    "min_samples_split": 2,
    "min_samples_leaf": 1,
    "max_features": "sqrt",
    "max_leaf_nodes": "none",
    "bootstrap": True,
    "class_weight": "none",
    "ccp_alpha": 0.0,
    "n_jobs": 1,
    "seed": 1,
}
LINEAR: dict[str, Any] = {
    **{name: PARAMS[name] for name in [*PARAMS][:8]},
    "C": 10.0,
    "class_weight": "none",
    "tol": 0.001,
    "max_iter": 100,
    "seed": 1,
}
EXPORT: dict[str, Any] = {"batch_tokens": 90, "min_equal_labels": 1.0}
# Words and signs that a tokenizer and a regular expression could take apart in different ways.
ODD = [
    "Été_2024 n°5 ½ l'an",
    "ΟΔΟΣ ΑΣ, Σίσυφος",
    "कुछ ที่นี่ วันนี้",
    "日本語 テキスト、です。",
    "हिन्दी में पाठ",
    "ဤ စာ می\u200cخواهم كِتَاب",
    "Ёлки-палки №7",
    "",
    "a b",
    "x² ١٢٣ İstanbul",
    "  spaces \t\n\u3000around\x1cand\xa0 between\x1c\x1dwords ",
    "\u00b4 a \u00b4\n",
    "\x1c",
]


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    frame = pd.DataFrame(make_texts(120)).assign(id=[str(k) for k in range(120)])
    odd = [ODD[k % len(ODD)] for k in range(120)]
    frame["text"] = [
        f"{text}  {more}\n{text.title()}" for text, more in zip(frame["text"], odd, strict=True)
    ]
    examples.write(frame, folder / "examples.parquet")
    split.main(folder, folder / "splits", **SPLIT | {"test_size": 0.3})
    return folder / "splits"


def elsewhere(main: Callable[..., None], hashes: int, *places: Path, **params: Any) -> None:
    """Run a stage in a process of its own, with other hashes of texts by each number.

    Not in the one of the tests: what they leave there, such as a second text "dtype", shows in the
    bytes of a pickle.
    """
    command = [sys.executable, "-m", main.__module__, *map(str, places), *words_of(params)]
    env = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": str(hashes)}
    subprocess.run(command, cwd=places[0].parent, env=env, check=True)


@pytest.mark.slow
def test_the_saved_regression_is_equal_in_every_process(splits: Path, tmp_path: Path) -> None:
    changes = {"analyzer": "char_wb", "ngram_range": [2, 4], "tfidf_max_features": 200}
    contents = []
    for seed in (1, 2):
        folder, live = tmp_path / str(seed), tmp_path / "live"
        elsewhere(linear.main, seed, splits, folder / "model", live, **LINEAR | changes)
        places = splits, folder / "model", folder / "onnx", live
        elsewhere(export_tfidf.main, seed, *places, **EXPORT)
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        contents.append({path.relative_to(folder): path.read_bytes() for path in files})
    assert len(contents[0]) == 2 + 3
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_saved_files_are_equal_in_every_process_and_for_any_number_of_jobs(
    splits: Path, tmp_path: Path
) -> None:
    contents = []
    for jobs in (1, 2):
        folder = tmp_path / str(jobs)
        model, onnx, report = folder / "model", folder / "onnx", folder / "report"
        params = PARAMS | {"n_jobs": jobs}
        elsewhere(baseline.main, jobs, splits, model, folder / "live", **params)
        elsewhere(export_tfidf.main, jobs, splits, model, onnx, report, **EXPORT)
        for name in ("live/params.yaml", "model.json"):
            (folder / name).unlink()  # they say how many jobs there were
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        contents.append({path.relative_to(folder): path.read_bytes() for path in files})
    assert len(contents[0]) == 1 + 1 + 3 + 1
    assert contents[0] == contents[1]


def test_every_mark_of_unicode_goes_on_with_a_word() -> None:
    marks = [chr(c) for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c))[0] == "M"]
    assert all(re.fullmatch(LONGER, f"a{mark}") for mark in marks)


@pytest.mark.parametrize(
    "words",
    [
        *("मुझे यह किताब पसंद", "எனக்கு பிடித்த", "আমার বাংলা", "ఇది మంచి", "ಇದು ಒಳ್ಳೆಯದು", "ഇത് നല്ല"),
        *("كِتَاب جَمِيل", "می\u200cخواهم برادر", "שָׁלוֹם עוֹלָם", "cafe\u0301 l\u00e0"),
        *("สวัสดี ครับ", "မြန်မာ စာ", "ភាសា ខ្មែរ", "བོད ཡིག", "Ёлки №7 палки_2024"),
    ],
)
def test_words_are_whole_in_every_script(words: str) -> None:
    vectorizer = tfidf._vectorizer("baseline", PARAMS)
    expected = sorted(word.lower() for word in words.replace("№", " ").split() if len(word) > 1)
    assert sorted(vectorizer.fit([words]).vocabulary_) == expected
    assert re.findall(LONGER, words) == re.findall(WORD, words.replace("7", ""))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sublinear_tf": False, "lowercase": False},
        {"ngram_range": [1, 2], "min_df": 2},
        {"ngram_range": [2, 3], "strip_accents": "unicode"},
        {"analyzer": "char", "ngram_range": [2, 4], "tfidf_max_features": 500},
        {"class_weight": "balanced", "max_depth": 3, "max_features": 0.5},
        {"min_samples_split": 38},
        {"max_depth": 2, "min_samples_leaf": 5},
    ],
)
def test_the_exported_baseline_is_scikit_learns(
    changes: dict[str, Any], splits: Path, tmp_path: Path
) -> None:
    baseline.main(splits, tmp_path / "model", tmp_path / "live", **PARAMS | changes)
    expect_equal(splits, tmp_path)
    trees = joblib.load(tmp_path / "model" / "model.joblib")["classifier"].estimators_
    if "min_samples_split" in changes:
        assert {tree.tree_.node_count == 1 for tree in trees} == {True, False}, "some are a leaf"


@pytest.mark.parametrize(
    "changes",
    [
        {"n_estimators": 1, "max_depth": 3},  # where shares are below half a vote
        {"max_depth": 3},
        {"n_estimators": 40, "class_weight": "balanced"},  # which do not grow all at once
        {"n_estimators": 70, "n_jobs": 2, "class_weight": "balanced_subsample", "ccp_alpha": 0.005},
        {"max_leaf_nodes": 9, "bootstrap": False},
    ],
)
def test_a_forest_has_the_shares_of_scikit_learns(changes: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(600, 8)), random.integers(0, 30, 600)
    params = {"n_estimators": 10, "random_state": 1} | changes
    stock = RandomForestClassifier(**params).fit(features, labels)
    forest = Forest(**params).fit(features, labels)
    forest.temperature_ = 0.3
    expected = stock.predict_proba(features)
    assert np.exp(0.3 * forest.logits(features)) - forest.half_vote == pytest.approx(expected)
    assert (forest.predict(features) == stock.predict(features)).all()
    assert (forest.logits(features).argmax(1) == expected.argmax(1)).all()


def size_of(forest: Forest) -> int:
    """The bytes of a forest in ONNX."""
    nodes, constants = forest_graph.nodes_of(forest)
    return int(sum(n.ByteSize() for n in nodes) + sum(table.ByteSize() for table in constants))


def test_many_classes_take_little_room(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    features, labels = random.normal(size=(2000, 8)), random.integers(0, 100, 2000)
    forest = Forest(n_estimators=20, random_state=1).fit(features, labels)
    count = sum(tree.tree_.node_count for tree in forest.estimators_)
    assert sum(tree.tree_.value.size for tree in forest.estimators_) == count  # not one a class
    joblib.dump(forest, tmp_path / "forest", compress=3)
    assert size_of(forest) < 1.5 * (tmp_path / "forest").stat().st_size
    # A leaf that is left over has all classes, and others need not have room for as many.
    features[:1000] = 0
    forest.fit(features, labels)
    classes, shares, _ = forest_graph.outcomes_of(forest)
    _, tables = forest_graph.nodes_of(forest)
    assert sum(table.ByteSize() for table in tables) < (classes.nbytes + shares.nbytes) / 2
    pure = np.count_nonzero(shares, axis=1) == 1
    assert pure.sum() == 100 > (~pure).sum() > 0


def test_a_forest_is_as_sure_as_it_is_right(splits: Path, tmp_path: Path) -> None:
    baseline.main(splits, tmp_path / "model", tmp_path / "live", **PARAMS)
    pipeline = joblib.load(tmp_path / "model" / "model.joblib")
    test = examples.read(splits / "test.parquet")
    labels = examples.label_ids(test, list(pipeline.classes_))
    after = classification.summary(labels, pipeline.predict_proba(test["text"]))
    pipeline["classifier"].temperature_ = 1
    before = classification.summary(labels, pipeline.predict_proba(test["text"]))
    assert after["accuracy"] == before["accuracy"]
    assert after["ece"] < 0.7 * before["ece"]
    assert after["log_loss"] < 0.7 * before["log_loss"]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize(
    "changes",
    [
        {"analyzer": "char", "ngram_range": [2, 5]},
        {"analyzer": "char_wb", "ngram_range": [1, 3]},
        {"analyzer": "char_wb", "ngram_range": [2, 5], "strip_accents": "unicode"},
        {"analyzer": "char_wb", "ngram_range": [4, 6], "lowercase": False},
        {"ngram_range": [1, 2], "C": 0.1, "class_weight": "balanced", "sublinear_tf": False},
    ],
)
def test_the_exported_regression_is_scikit_learns(
    changes: dict[str, Any], classes: int, splits: Path, tmp_path: Path
) -> None:
    for name in ("train", "validation", "test"):
        frame = examples.read(splits / f"{name}.parquet")
        kept = frame[frame["label"].isin(sorted(TOPICS)[:classes])]
        (tmp_path / "splits").mkdir(exist_ok=True)
        examples.write(kept, tmp_path / "splits" / f"{name}.parquet")
    linear.main(tmp_path / "splits", tmp_path / "model", tmp_path / "live", **LINEAR | changes)
    expect_equal(tmp_path / "splits", tmp_path)
    figures = json.loads((tmp_path / "live" / "metrics.json").read_text())
    assert figures["validation"]["accuracy"] >= 0.9


def test_a_regression_that_did_not_settle_is_told_of(
    splits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    params = LINEAR | {"max_iter": 1, "tol": 1e-9}
    linear.main(splits, tmp_path / "model", tmp_path / "live", **params)
    assert "more than linear.tol even after linear.max_iter passes: raise one" in caplog.text


def test_a_model_that_is_not_there_is_not_exported(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="model has no model: run `dvc repro` first"):
        expect_equal(splits, tmp_path)


def expect_equal(splits: Path, tmp_path: Path) -> None:
    """Export a model, and hold it against scikit-learn's."""
    export_tfidf.main(
        splits,
        tmp_path / "model",
        tmp_path / "onnx",
        tmp_path / "report",
        min_equal_labels=1,
        batch_tokens=70,
    )
    report = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert report["equal_labels"] == 1
    assert report["max_probability_difference"] < 1e-6

    pipeline = joblib.load(tmp_path / "model" / "model.joblib")
    features = pipeline["tfidf"].transform(ODD)
    ids = Classifier(tmp_path / "onnx", threads=1)
    expected = pipeline["classifier"].predict_proba(features)
    logits = ids.logits(ODD, batch_tokens=30)
    assert softmax(logits, axis=1) == pytest.approx(expected, abs=1e-6)


def test_the_record_has_params_and_validation_metrics(splits: Path, tmp_path: Path) -> None:
    baseline.main(splits, tmp_path / "model", tmp_path / "live", **PARAMS)
    assert "n_estimators: 20" in (tmp_path / "live" / "params.yaml").read_text()
    found = json.loads((tmp_path / "live" / "metrics.json").read_text())["validation"]
    assert set(found) == {"accuracy", "macro_f1", "weighted_f1", "log_loss", "ece"}
    assert found["accuracy"] > 0.9


def test_no_features_get_one_sentence(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^60 texts have no TF-IDF features \("):
        baseline.main(splits, tmp_path / "model", tmp_path / "live", **PARAMS | {"min_df": 61})
    assert not (tmp_path / "model").exists()
