"""No text on two sides, every class on each, and the same division for the same seed."""

import json
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import examples, split
from src.stage import InputError

PARAMS = {"column": "", "overlap": "stop", "validation_size": 0.2, "test_size": 0.2, "seed": 1}


def divided(frame: pd.DataFrame, tmp_path: Path, **params: object) -> dict[str, pd.DataFrame]:
    tmp_path.mkdir(exist_ok=True)
    examples.write(frame, tmp_path / "examples.parquet")
    split.main(tmp_path, tmp_path / "splits", **(PARAMS | params))  # type: ignore[arg-type]
    folder = tmp_path / "splits"
    sides: dict[str, pd.DataFrame] = {
        side: examples.read(folder / f"{side}.parquet") for side in examples.SPLITS
    }
    if params.get("overlap") != "drop":
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
    assert refused(frame_of(texts[:-1], labels[:-1]), tmp_path / "other") == (
        "Expected 3 different texts of class 'b' at least, one for each side of the split, "
        "found 2: add some or leave the class out."
    )


def test_the_sources_own_split_is_taken_and_completed(tmp_path: Path) -> None:
    texts = [f"text {k}" for k in range(40)]
    own = ["train"] * 30 + ["Test"] * 10
    sides = divided(frame_of(texts, ["a", "b"] * 20, part=own), tmp_path, column="part")
    assert list(sides["test"]["text"]) == texts[30:]
    assert len(sides["validation"]) == 8
    own = ["train"] * 20 + ["dev"] * 10 + ["test"] * 10
    sides = divided(frame_of(texts, ["a", "b"] * 20, part=own), tmp_path, column="part")
    assert list(sides["validation"]["text"]) == texts[20:30]


def test_texts_on_two_sides_of_the_sources_split_stay_on_the_last(tmp_path: Path) -> None:
    texts = ["one", "two", "three", "four", "ONE", "five", "two "]
    own = ["train", "train", "train", "train", "test", "test", "dev"]
    frame = frame_of(texts, ["a", "b", "a", "b", "a", "b", "b"], part=own)
    sides = divided(frame, tmp_path, column="part", overlap="drop")
    assert [list(rows["text"]) for rows in sides.values()] == [
        ["three", "four"],
        ["two "],
        ["ONE", "five"],
    ]


def test_a_bad_split_column_gets_one_sentence(tmp_path: Path) -> None:
    texts, labels = ["one", "two", "three", "four", "ONE"], ["a", "b", "a", "b", "a"]
    frame = frame_of(texts, labels, part=["train", "train", "test", "test", "test"])
    assert refused(frame, tmp_path, column="prat") == (
        "Expected column 'prat' in the source, found id, text, label, part (did you mean "
        "'part'?): correct split.column, or make it ''."
    )
    assert refused(frame, tmp_path, column="part") == (
        "Expected each text on one side of 'part', found 1 that are on a later side too, such as "
        "'one': make split.overlap drop to leave them out, or split.column '' to divide the texts "
        "anew."
    )
    assert refused(frame, tmp_path, column="label").startswith(
        "Expected one of train, training, validation, valid, val, dev, test in column 'label', "
        "found 'a'"
    )
    labels = ["a", "b", "c", "b"]
    sides = ["train", "train", "test", "dev"]
    assert refused(frame_of(texts[:4], labels, part=sides), tmp_path, column="part") == (
        "Expected every class to have training texts, found 'c' in test alone: add training "
        "texts, remove the class, or make split.column ''."
    )


def test_large_shares_leave_a_text_for_each_side(tmp_path: Path) -> None:
    frame = frame_of(["one", "two", "three"], ["a", "a", "a"])
    sides = divided(frame, tmp_path, test_size=0.6, validation_size=0.3)
    assert [len(rows) for rows in sides.values()] == [1, 1, 1]


def test_missing_or_broken_examples_get_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing: run `dvc repro` first"):
        examples.read(tmp_path / "no.parquet")
    (tmp_path / "bad.parquet").write_text("bad")
    with pytest.raises(InputError, match="make it anew"):
        examples.read(tmp_path / "bad.parquet")
    with pytest.raises(InputError, match="Expected labels in"):
        examples.read_labels(tmp_path)


def test_sizes_leave_something_to_train_on(tmp_path: Path) -> None:
    frame = frame_of(["one", "two", "three"], ["a", "a", "a"])
    assert refused(frame, tmp_path, test_size=0.5, validation_size=0.5) == (
        "Expected split.validation_size and split.test_size to leave texts to train on, found "
        "0.5 + 0.5: make them sum to less than 1."
    )
