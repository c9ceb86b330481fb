"""Each thing that `quality` may find has a code, a sentence and a row in the docs."""

import ast
import re

import pytest
from conftest import ROOT

from src.text import findings


def test_every_code_that_is_found_has_a_sentence_and_a_row_in_the_docs() -> None:
    found = [
        node.args[0].value
        for path in sorted((ROOT / "src/text").glob("quality*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "find"
        and isinstance(node.args[0], ast.Constant)
    ]
    assert sorted(found) == sorted(findings.SENTENCES)
    listed = re.findall(r"^\| `(\w+)` \| ", (ROOT / "docs/data.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(findings.SENTENCES)


def test_a_sentence_has_the_values_of_its_finding() -> None:
    cut = {"code": "over_max_length", "share": 0.12345, "lost": 0.5, "max_length": 128}
    assert re.findall(r"\d+(?:\.\d)?", findings.sentence(cut)) == ["12.3", "128", "50.0"]
    unknown = {"code": "unknown_tokens", "part": "all", "share": 1.0, "checkpoint": "a/b"}
    assert "the tokens of the texts are unknown to the tokenizer of a/b" in findings.sentence(
        unknown
    )
    assert "label 'x=y'" in findings.sentence(unknown | {"part": "label=x=y"})


def test_a_finding_that_lacks_a_value_is_an_error_of_the_program() -> None:
    with pytest.raises(TypeError, match="'of'"):
        findings.sentence({"code": "near_duplicates", "texts": 1})
