"""A params.yaml is read as DVC reads it, typed by a signature, and written with its comments."""

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from conftest import ROOT
from dvc.parsing.interpolate import to_str
from dvc.utils.serialize import load_yaml

from src.core.command_line import Count, Share
from src.core.errors import InputError
from src.project import params


@dataclass(frozen=True, kw_only=True)
class Model:
    trees: Count
    share: Share
    deep: bool
    kind: Literal["word", "char"]
    names: list[str]


TEXT = """\
model:
  # How many.
  trees: 10
  share: 3e-05
  deep: false
  # The kind, and the names.
  kind: word
  names:
  - no
  - a b
  # Nothing yet.
other: {}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "tabular").mkdir()
    file = tmp_path / "tabular" / "params.yaml"
    file.write_text(TEXT)
    return file


def test_sections_are_read_as_dvc_reads_them(path: Path) -> None:
    assert params.read(path) == load_yaml(str(path))
    assert params.read(ROOT / "params.yaml") == load_yaml(str(ROOT / "params.yaml"))


def test_a_section_is_typed_by_a_signature(path: Path) -> None:
    section = params.read(path)["model"]
    typed = Model(**params.typed(Model, section))
    assert typed == Model(trees=10, share=3e-5, deep=False, kind="word", names=["no", "a b"])
    for key, value in (("deep", "False"), ("trees", 0), ("share", True), ("kind", "wrod")):
        changed = params.Section(section | {key: value})
        changed.name, changed.path = "model", Path("x/params.yaml")
        with pytest.raises(InputError, match=rf"^model\.{key} is .* in x/params\.yaml"):
            params.typed(Model, changed)
    del section["trees"]
    with pytest.raises(InputError, match=r"^model\.trees is missing"):
        params.typed(Model, section)


@pytest.mark.parametrize(
    "section",
    [
        *params.read(ROOT / "params.yaml").values(),
        {"a": True, "b": False, "c": None, "d": "", "e": "it's a\nline", "f": -1e-05, "g": 10**20},
        {"a": [], "b": [1, 2.5], "c": ["-x", "a b", ""], "d": [True, None], "e": {"f": {"g": 1}}},
    ],
)
def test_words_are_those_that_dvc_makes_of_a_section(section: dict[str, Any]) -> None:
    expanded = to_str(dict(section), {"bool": "boolean_optional"})
    assert params.words_of(section) == shlex.split(expanded)


def test_a_list_in_a_list_is_refused_as_dvc_does() -> None:
    with pytest.raises(InputError, match=r"^sizes "):
        params.words_of({"sizes": [[1]]})


def test_changes_are_written_and_comments_stay(path: Path) -> None:
    params.write({"model.names": [], "model.deep": True, "model.kind": "no"}, path)
    assert params.read(path)["model"] == {
        "trees": 10,
        "share": 3e-5,
        "deep": True,
        "kind": "no",
        "names": [],
    }
    comments = [line for line in TEXT.splitlines() if "#" in line]
    assert [line for line in path.read_text().splitlines() if "#" in line] == comments


@pytest.mark.parametrize("text", ["one: 1\n", "just words\n", "", "a: [\n", "a: {}\na: {}\n"])
def test_what_is_no_params_is_refused_by_its_path(path: Path, text: str) -> None:
    path.write_text(text)
    for call in (lambda: params.read(path), lambda: params.write({"a.b": 1}, path)):
        with pytest.raises(InputError, match=r"tabular/params\.yaml") as raised:
            call()
        assert "\n" not in str(raised.value)
    shutil.rmtree(path.parent)
    with pytest.raises(InputError, match=r"tabular/params\.yaml"):
        params.read(path)


def test_what_is_missing_is_named(path: Path) -> None:
    found = params.read(path)
    with pytest.raises(InputError, match=r"^model\.tree is missing in .*tabular/params.yaml"):
        found["model"]["tree"]
    with pytest.raises(InputError, match=r"no section 'modle' \(did you mean 'model'\?\)"):
        found["modle"]
