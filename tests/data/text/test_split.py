"""No text on two sides, every class on each, and the same division for the same seed."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import SPLIT
from hypothesis import given
from hypothesis import strategies as st

from src.core.errors import InputError
from src.tables import examples
from src.text import split

GIVEN = {"strategy": "predefined", "column": "part"}
BY_AUTHOR = {"strategy": "group", "column": "author"}


def divided(frame: pd.DataFrame, tmp_path: Path, **params: object) -> dict[str, pd.DataFrame]:
    tmp_path.mkdir(exist_ok=True)
    examples.write(frame, tmp_path / "examples.parquet")
    split.main(tmp_path, tmp_path / "splits", **SPLIT | {"test_size": 0.2} | params)
    folder = tmp_path / "splits"
    sides: dict[str, pd.DataFrame] = {
        side: examples.read(folder / f"{side}.parquet") for side in examples.SPLITS
    }
    if params.get("overlap") != "drop" and "out_of_scope" not in params:
        assert sum(map(len, sides.values())) == len(frame)
    return sides


def frame_of(texts: list[str], labels: list[str], **others: list[str]) -> pd.DataFrame:
    ids = [str(k) for k in range(len(texts))]
    return pd.DataFrame({"id": ids, "text": texts, "label": labels} | others, dtype="str")


def refused(frame: pd.DataFrame, tmp_path: Path, **params: object) -> str:
    with pytest.raises(InputError) as raised:
        divided(frame, tmp_path, **params)
    assert not (tmp_path / "splits").exists()
    return str(raised.value)


def test_shares_and_classes_are_kept(tmp_path: Path) -> None:
    labels = ["a"] * 100 + ["b"] * 50
    sides = divided(frame_of([f"text {k}" for k in range(150)], labels), tmp_path)
    counts = {side: rows["label"].value_counts().to_dict() for side, rows in sides.items()}
    assert counts == {
        "train": {"a": 60, "b": 30},
        "validation": {"a": 20, "b": 10},
        "test": {"a": 20, "b": 10},
    }
    assert json.loads((tmp_path / "splits" / "labels.json").read_text()) == ["a", "b"]


def test_the_seed_decides(tmp_path: Path) -> None:
    frame = frame_of([f"text {k}" for k in range(60)], ["a", "b"] * 30)
    first, same, other = (divided(frame, tmp_path, seed=seed)["test"] for seed in (1, 1, 2))
    assert first.equals(same)
    assert not first.equals(other)


@given(st.lists(st.sampled_from(["Ab", "ab ", "AB", "ｃd", "cd", "e", "f", "g"]), max_size=20))
def test_texts_that_differ_in_form_alone_stay_on_one_side(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    texts = [*texts, "ab", "Ab", "c d", "e", "f", "g"]
    sides = divided(frame_of(texts, ["a"] * len(texts)), tmp_path_factory.mktemp("split"))
    groups = [set(rows["text"].map(examples.fold)) for rows in sides.values()]
    assert all(groups)
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_a_class_of_three_texts_is_on_each_side_and_two_are_too_few(tmp_path: Path) -> None:
    texts, labels = [f"text {k}" for k in range(33)], ["a"] * 30 + ["b"] * 3
    sides = divided(frame_of(texts, labels), tmp_path)
    assert all((rows["label"] == "b").sum() == 1 for rows in sides.values())
    assert refused(frame_of(texts[:-1], labels[:-1]), tmp_path / "other").startswith(
        "Class 'b' has 2 different texts, and needs at least 3, one for each side of the split: "
    )


def test_the_sources_own_split_is_taken_and_completed(tmp_path: Path) -> None:
    texts = [f"text {k}" for k in range(40)]
    own = ["train"] * 30 + ["Test"] * 10
    sides = divided(frame_of(texts, ["a", "b"] * 20, part=own), tmp_path, **GIVEN)
    assert list(sides["test"]["text"]) == texts[30:]
    assert len(sides["validation"]) == 8
    own = ["train"] * 20 + ["dev"] * 10 + ["test"] * 10
    sides = divided(frame_of(texts, ["a", "b"] * 20, part=own), tmp_path, **GIVEN)
    assert list(sides["validation"]["text"]) == texts[20:30]


def test_texts_on_two_sides_of_the_sources_split_stay_on_the_last(tmp_path: Path) -> None:
    texts = ["one", "two", "three", "four", "ONE", "five", "two "]
    own = ["train", "train", "train", "train", "test", "test", "dev"]
    frame = frame_of(texts, ["a", "b", "a", "b", "a", "b", "b"], part=own)
    sides = divided(frame, tmp_path, **GIVEN, overlap="drop")
    assert [list(rows["text"]) for rows in sides.values()] == [
        ["three", "four"],
        ["two "],
        ["ONE", "five"],
    ]
    left_out = examples.read(tmp_path / "splits" / "left_out.parquet")
    assert list(left_out["text"]) == ["one", "two"]


def test_a_bad_split_column_gets_one_sentence(tmp_path: Path) -> None:
    texts, labels = ["one", "two", "three", "four", "ONE"], ["a", "b", "a", "b", "a"]
    frame = frame_of(texts, labels, part=["train", "train", "test", "test", "test"])
    assert refused(frame, tmp_path, strategy="predefined", column="prat") == (
        "The source has no column 'prat', only id, text, label, part (did you mean 'part'?): "
        "correct split.column."
    )
    assert refused(frame, tmp_path, **GIVEN) == (
        "Column 'part' has 1 texts that are on a later side too, such as 'one': set split.overlap "
        "to drop to leave them out, or split.strategy to stratified to divide anew."
    )
    assert refused(frame, tmp_path, strategy="predefined", column="label").startswith(
        "Expected one of train, training, validation, valid, val, dev, test in column 'label', "
        "found 'a'"
    )
    labels = ["a", "b", "c", "b"]
    sides = ["train", "train", "test", "dev"]
    assert refused(frame_of(texts[:4], labels, part=sides), tmp_path, **GIVEN).startswith(
        "Classes of test have no training texts ({'c': 1}): add some, "
    )


def test_large_shares_leave_a_text_for_each_side(tmp_path: Path) -> None:
    frame = frame_of(["one", "two", "three"], ["a", "a", "a"])
    sides = divided(frame, tmp_path, test_size=0.6, validation_size=0.3)
    assert [len(rows) for rows in sides.values()] == [1, 1, 1]


def test_missing_or_broken_examples_get_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.parquet: run `dvc repro` first"):
        examples.read(tmp_path / "no.parquet")
    (tmp_path / "bad.parquet").write_text("bad")
    with pytest.raises(InputError, match=r"bad\.parquet can't be read"):
        examples.read(tmp_path / "bad.parquet")
    with pytest.raises(InputError, match=r"labels\.json"):
        examples.read_labels(tmp_path)


def test_sizes_leave_something_to_train_on(tmp_path: Path) -> None:
    frame = frame_of(["one", "two", "three"], ["a", "a", "a"])
    assert refused(frame, tmp_path, test_size=0.5, validation_size=0.5) == (
        "split.validation_size and split.test_size, 0.5 + 0.5, leave no texts to train on: make "
        "them sum to less than 1."
    )


def test_no_group_is_on_two_sides_nor_a_text_that_two_groups_share(tmp_path: Path) -> None:
    texts = [f"text {k}" for k in range(200)]
    authors = [f"author {k // 10}" for k in range(200)]
    texts[15] = "TEXT 3"  # of author 1, and of author 0 as well
    frame = frame_of(texts, ["a", "b"] * 100, author=authors)
    sides = divided(frame, tmp_path, **BY_AUTHOR)
    groups = [set(rows["author"]) for rows in sides.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 20
    assert [len(rows) for rows in sides.values()] == [120, 40, 40]
    together = [group for group in groups if group & {"author 0", "author 1"}]
    assert together == [group for group in groups if {"author 0", "author 1"} <= group]
    other = divided(frame, tmp_path, **BY_AUTHOR, seed=2)
    assert not other["test"].equals(sides["test"])
    few = frame_of(texts[:20], ["a", "b"] * 10, author=authors[:20])
    assert refused(few, tmp_path / "few", **BY_AUTHOR) == (
        "The split needs at least 3 groups of texts, one for each side of it, and has 1; groups "
        "that share one of them count as one: choose another split.column."
    )


def test_a_group_larger_than_a_side_stays_in_train(tmp_path: Path) -> None:
    texts = [f"text {k}" for k in range(100)]
    authors = ["large"] * 60 + [f"author {k}" for k in range(40)]
    frame = frame_of(texts, ["a", "b"] * 50, author=authors)
    sides = divided(frame, tmp_path, **BY_AUTHOR)
    assert (sides["train"]["author"] == "large").sum() == 60
    assert [len(rows) for rows in sides.values()] == [60, 20, 20]


def test_by_hash_a_text_never_changes_sides(tmp_path: Path) -> None:
    texts = [f"text {k}" for k in range(3000)]
    small = divided(frame_of(texts[:1000], ["a", "b"] * 500), tmp_path, strategy="hash")
    grown = texts[2500:] + texts[:2500]  # rows are added, and the order is another
    large = divided(frame_of(grown, ["a", "b"] * 1500), tmp_path, strategy="hash")
    for side, rows in small.items():
        assert set(rows["text"]) == set(large[side]["text"]) & set(texts[:1000])
    assert len(large["test"]) == pytest.approx(600, abs=80)
    assert len(large["validation"]) == pytest.approx(600, abs=80)
    shouted = frame_of([text.upper() for text in texts], ["a", "b"] * 1500)
    assert len(divided(shouted, tmp_path, strategy="hash")["test"]) == len(large["test"])
    other = divided(frame_of(texts, ["a", "b"] * 1500), tmp_path, strategy="hash", seed=2)
    both = len(set(other["test"]["text"]) & set(large["test"]["text"]))
    assert both == pytest.approx(120, abs=50), "another seed is another draw"


def test_training_is_limited_to_some_values_and_test_is_not(tmp_path: Path) -> None:
    texts = [f"text {k}" for k in range(120)]
    frame = frame_of(texts, ["a", "b", "a", "b"] * 30, language=["en", "en", "fr", "hi"] * 30)
    whole = divided(frame, tmp_path)
    some = divided(frame, tmp_path / "some", overlap="drop", train_only=["language", "en", "hi"])
    assert set(some["train"]["language"]) == set(some["validation"]["language"]) == {"en", "hi"}
    assert some["test"].equals(whole["test"])
    assert refused(frame, tmp_path / "x", train_only=["language"]) == (
        "split.train_only is ['language']: expected a column and the values of it that are trained "
        "on, as in [language, en], or []."
    )
    assert refused(frame, tmp_path / "x", train_only=["lang", "en"]) == (
        "The source has no column 'lang', only id, text, label, language (did you mean "
        "'language'?): correct split.train_only."
    )
    assert refused(frame, tmp_path / "x", train_only=["language", "en", "hu"]) == (
        "split.train_only has 'hu', which column 'language' lacks: correct it."
    )


def test_strategy_and_column_belong_together(tmp_path: Path) -> None:
    frame = frame_of(["one", "two", "three"], ["a", "a", "a"])
    assert refused(frame, tmp_path, strategy="group") == (
        "split.strategy is 'group' and split.column '': expected a column for predefined and "
        "group, and '' for the others."
    )
    assert refused(frame, tmp_path, column="part").startswith("split.strategy is 'stratified' and ")


def test_a_row_without_a_group_is_refused(tmp_path: Path) -> None:
    frame = frame_of(["one", "two", "three"], ["a", "a", "a"], author=["x", "y", None])  # type: ignore[list-item]
    assert refused(frame, tmp_path, **BY_AUTHOR).startswith(
        "Column 'author' is empty in some rows: "
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("train dev test", []),
        (" Train VALID TEST ", []),
        ("training validation testing", ["'testing' is taken for test"]),
        ("trainset val_set test-data", ["'trainset' is taken for train"]),
        ("train eval test", ["'eval' is taken for validation"]),
        ("train dev eval", ["'eval' is taken for test"]),
        ("train development evaluation", ["'evaluation' is taken for test"]),
    ],
)
def test_words_of_a_given_split_are_taken_or_refused(
    words: str, said: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sides = words.split(" ") if words.strip() == words else [words[:6], "VALID", "TEST "]
    texts = ["one", "two", "three", "four", "five", "six"]
    frame = frame_of(texts, ["a", "b"] * 3, part=[side for side in sides for _ in range(2)])
    found = divided(frame, tmp_path, **GIVEN)
    assert [list(rows["text"]) for rows in found.values()] == [texts[:2], texts[2:4], texts[4:]]
    taken = [message for message in caplog.messages if "is taken for" in message]
    assert [f"Column 'part': {one}" in taken for one in said] == [True] * len(said)
    assert bool(taken) == bool(said)


def test_words_that_name_no_side_are_all_named(tmp_path: Path) -> None:
    frame = frame_of(["one", "two", "three"], ["a", "b", "a"], part=["train", "0", "extra"])
    told = refused(frame, tmp_path, **GIVEN)
    assert "in column 'part', found '0', 'extra': correct it in the source, or set" in told


@pytest.mark.parametrize("strategy", ["stratified", "hash", "group"])
def test_labels_out_of_scope_are_not_learnt(strategy: str, tmp_path: Path) -> None:
    labels = ["a"] * 40 + ["oos"] * 15 + ["b"] * 40
    texts = [f"text {k}" for k in range(95)]
    frame = frame_of(texts, labels, author=[f"a{k % 19}" for k in range(95)])
    column = "author" if strategy == "group" else ""
    params = {"strategy": strategy, "column": column, "out_of_scope": ["oos"]}
    sides = divided(frame, tmp_path, **params)
    assert {label for rows in sides.values() for label in rows["label"]} == {"a", "b"}
    assert json.loads((tmp_path / "splits" / "labels.json").read_text()) == ["a", "b"]
    apart = examples.read(tmp_path / "splits" / "out_of_scope.parquet")
    assert list(apart["text"]) == texts[40:55]
    rest = frame[frame["label"] != "oos"].reset_index(drop=True)
    alone = divided(rest, tmp_path / "alone", **params | {"out_of_scope": []})
    assert all(alone[side].equals(rows) for side, rows in sides.items()), "the rest is as without"


def test_where_the_source_divides_those_of_test_alone_are_out_of_scope(tmp_path: Path) -> None:
    part = ["train", "dev", "test", "train", "dev", "test"] * 4
    labels = ["a", "b", "oos"] * 8
    frame = frame_of([f"text {k}" for k in range(24)], labels, part=part)
    frame.loc[frame["label"] != "oos", "part"] = [
        "train",
        "train",
        "dev",
        "dev",
        "test",
        "test",
        "train",
        "train",
    ] * 2
    frame.loc[[2, 5], "part"] = ["train", "dev"]
    sides = divided(frame, tmp_path, **GIVEN, out_of_scope=["oos"])
    assert {label for rows in sides.values() for label in rows["label"]} == {"a", "b"}
    folder = tmp_path / "splits"
    assert list(examples.read(folder / "left_out.parquet")["id"]) == ["2", "5"]
    assert list(examples.read(folder / "out_of_scope.parquet")["id"]) == [
        str(k) for k in range(8, 24, 3)
    ]


def test_a_label_out_of_scope_that_there_is_not_is_named(tmp_path: Path) -> None:
    frame = frame_of(["x", "y"], ["a", "oos"])
    found = refused(frame, tmp_path, out_of_scope=["oso"])
    assert found.startswith("split.out_of_scope has 'oso', which is no label of the texts")
    assert "(did you mean 'oos'?)" in found


@pytest.mark.parametrize("scope", [["oos"], ["oos", "a"]])
def test_less_than_two_classes_to_learn_are_refused(scope: list[str], tmp_path: Path) -> None:
    frame = frame_of([f"text {k}" for k in range(20)], ["a", "oos"] * 10)
    found = refused(frame, tmp_path, out_of_scope=scope)
    assert found.startswith(f"split.out_of_scope leaves {2 - len(scope)} classes to learn: leave")


def test_texts_out_of_scope_on_no_test_side_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    part = ["train", "dev", "test", "train"] * 6
    labels = ["a"] * 12 + ["b"] * 12
    frame = frame_of([f"text {k}" for k in range(25)], [*labels, "oos"], part=[*part, "train"])
    divided(frame, tmp_path, **GIVEN, out_of_scope=["oos"])
    assert "nothing of split.out_of_scope is on the test side" in caplog.text
    assert not (tmp_path / "splits" / "out_of_scope.parquet").exists()
    frame.loc[frame["part"] == "test", "part"] = "train"  # then test is drawn
    divided(frame, tmp_path / "drawn", **GIVEN, out_of_scope=["oos"])
    apart = examples.read(tmp_path / "drawn" / "splits" / "out_of_scope.parquet")
    assert list(apart["label"]) == ["oos"]
