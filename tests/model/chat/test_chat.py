"""The model that conversations start from, and the pipeline run small by DVC."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from chat_model import NATIVE, PARAMS, make_gguf, make_language_model
from conftest import Project, copy_project, digest
from transformers import AutoModelForCausalLM, AutoTokenizer

from src.chat import base
from src.chat.rendering import TEMPLATES
from src.core.errors import InputError
from src.core.files import sha256
from src.project import params

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

PIPELINE = "chat/dvc.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language_model(tmp_path_factory.mktemp("model") / "made")


def start_from(folder: Path, checkpoint: Path | str, **changes: Any) -> Path:
    section = PARAMS["base"] | {"checkpoint": str(checkpoint), "sha256": ""} | changes
    base.main(folder, folder / "base", **section)
    return folder / "base"


def weights(folder: Path) -> dict[str, Any]:
    causal: Any = AutoModelForCausalLM
    found: dict[str, Any] = causal.from_pretrained(folder).state_dict()
    return found


def test_a_folder_becomes_one_that_knows_how_its_answers_end(made: Path, tmp_path: Path) -> None:
    folder = start_from(tmp_path, made, sha256=sha256(made / "model.safetensors"), dtype="float32")
    record = json.loads((folder / "base.json").read_text())
    assert record["end_tokens"] == ["<|im_end|>", "<|endoftext|>"]
    assert record["sha256"] == {"model.safetensors": sha256(folder / "model.safetensors")}
    generation = json.loads((folder / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, 0]
    assert generation["pad_token_id"] == 0
    before, after = weights(made), weights(folder)
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())
    (tmp_path / "again").mkdir()
    again = start_from(tmp_path / "again", made, dtype="float32")
    left = {path.name: path.read_bytes() for path in again.iterdir() if path.name != "base.json"}
    assert all((folder / name).read_bytes() == content for name, content in left.items())


def test_a_gguf_file_gives_the_same_model(made: Path, tmp_path: Path) -> None:
    path = make_gguf(tmp_path, made)
    folder = start_from(tmp_path, path, sha256=sha256(path), dtype="float32")
    before, after = weights(made), weights(folder)
    assert all((before[name] - after[name]).abs().max() < 1e-6 for name in before)
    tokenizers = [AutoTokenizer.from_pretrained(one) for one in (made, folder)]
    text = "<|im_start|>user\nWhere is 小 谱?<|im_end|>\n"
    first, second = (one(text, add_special_tokens=False)["input_ids"] for one in tokenizers)
    assert first == second
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    (tmp_path / "again").mkdir()
    again = start_from(tmp_path / "again", path, dtype="float32")
    name = "tokenizer_config.json"
    assert (again / name).read_text() == (folder / name).read_text(), "what lies beside is no part"
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    with pytest.raises(InputError, match=r"tiny\.gguf has changed: its sha256 is .*, not abc; set"):
        start_from(tmp_path, path, sha256="abc")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"tiny\.gguf can't be loaded as a language model"):
        start_from(tmp_path, path)
    path.write_bytes(b"<html>")
    with pytest.raises(InputError, match=r"tiny\.gguf is no GGUF file by its first bytes"):
        start_from(tmp_path, path)
    path.write_bytes(b"GGUF" + b"\xff" * 100)
    with pytest.raises(InputError, match=r"tiny\.gguf can't be loaded as a language model"):
        start_from(tmp_path, path)


def test_the_ends_that_a_model_knows_stay_ends(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "own"))
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 3]}')
    found = start_from(tmp_path, folder)
    generation = json.loads((found / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, 0, 3]


def test_a_model_without_a_template_gets_one(made: Path, tmp_path: Path) -> None:
    bare = make_language_model(tmp_path / "bare", template=None)
    with pytest.raises(
        InputError, match=r"has no chat template: set base\.chat_template to chatml"
    ):
        start_from(tmp_path, bare)
    folder = start_from(tmp_path, bare, chat_template="gemma")
    record = json.loads((folder / "base.json").read_text())
    assert record["end_tokens"] == ["<end_of_turn>", "<|endoftext|>"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.chat_template == TEMPLATES["gemma"]
    own = tmp_path / "own.jinja"
    own.write_text(NATIVE)
    folder = start_from(tmp_path, bare, chat_template=str(own), end_tokens=["<|im_end|>"])
    assert AutoTokenizer.from_pretrained(folder).chat_template == NATIVE
    assert json.loads((folder / "base.json").read_text())["end_tokens"] == ["<|im_end|>"]
    own.write_bytes(b"\xff\xfe")
    for changes, told in (
        ({"chat_template": str(own)}, r"own\.jinja is not UTF-8"),
        ({"chat_template": "chatmll"}, r"is 'chatmll', which is no file .did you mean 'chatml'"),
        ({"end_tokens": ["<|end|>"]}, r"'<|end|>' ends an answer, and is no token of the model"),
    ):
        with pytest.raises(InputError, match=told):
            start_from(tmp_path, made, **changes)


def config(folder: Path, **changes: Any) -> None:
    found = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(found | changes))


def code_of_its_own(folder: Path) -> None:
    """Leave code that a model asks for, which would leave a file."""
    (folder / "own.py").write_text(f"open({str(folder.parent / 'ran')!r}, 'w').close()")
    config(
        folder, model_type="own", auto_map={"AutoConfig": "own.A", "AutoModelForCausalLM": "own.B"}
    )


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda f: (f / "config.json").unlink(), "can't be loaded as a language model"),
        (lambda f: (f / "config.json").write_text("{"), "can't be loaded as a language model"),
        (lambda f: (f / "tokenizer.json").write_text("{}"), "can't be loaded as a language model"),
        (lambda f: (f / "model.safetensors").unlink(), "can't be loaded as a language model"),
        (
            lambda f: (f / "model.safetensors").write_bytes(b"1" * 100),
            "can't be loaded as a language model",
        ),
        (
            lambda f: (f / "config.json").write_text(
                (f / "config.json").read_text().replace('"hidden_size": 16', '"hidden_size": 24')
            ),
            "(can't be loaded|weights that are absent or don't fit)",
        ),
        (code_of_its_own, "can't be loaded as a language model"),
        (lambda f: (f / "config.json").write_text("[]"), "can't be loaded as a language model"),
        (lambda f: (f / "tokenizer.json").write_text("[]"), "can't be loaded as a language model"),
        (lambda f: config(f, num_attention_heads=0), "can't be loaded as a language model"),
        (lambda f: config(f, hidden_act=["x"]), "can't be loaded as a language model"),
        (lambda f: config(f, transformers_weights="b"), "names other weights in its config"),
        (
            lambda f: (f / "generation_config.json").write_text(
                '{"temperature": 0.6, "top_k": 0.1}'
            ),
            "can't be loaded as a language model",
        ),
        (
            lambda f: (f / "model.safetensors.index.json").write_text(
                '{"weight_map": {"a": "../b.safetensors"}}'
            ),
            r"names weights outside its folder, '\.\./b\.safetensors'",
        ),
        (shutil.rmtree, "There is no folder at"),
    ],
)
def test_a_folder_that_is_no_language_model_is_refused(
    spoil: Any, told: str, made: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "spoilt"))
    spoil(folder)
    with pytest.raises(InputError, match=told):
        start_from(tmp_path, folder)
    assert not (tmp_path / "base").exists()
    assert not (tmp_path / "ran").exists()


STAGES = (
    "base",
    "data",
    "lora",
    "ptuning",
    "full",
    "merge",
    "quantize",
    "general",
    "parity",
    "compare",
)
JUDGED = ("base", "lora", "ptuning", "full", "merged", "int4")


@pytest.mark.slow
def test_the_pipeline_runs_and_runs_nothing_twice(made: Path, tmp_path: Path) -> None:
    project = copy_project(tmp_path / "project")
    source = project.root / "data/chat/source"
    shutil.copytree(made, source / "model")
    rows = [{"prompt": f"Question {k}?", "response": "Yes."} for k in range(40)]
    (source / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    changes = {
        "base.checkpoint": "data/chat/source/model",
        "base.sha256": "",
        "data.source": ["data/chat/source/*.jsonl"],
        "data.test_source": [],
        "data.self_cognition_rows": 20,
        "quantize.group_size": 16,
        "parity.rows": 4,
    }
    for method in ("lora", "ptuning", "full"):
        small = {"epochs": 1, "precision": "no", "batch_size": 8, "max_length": 400}
        changes |= {f"{method}.{key}": value for key, value in small.items()}
    for stage in ("general", "evaluate", "parity"):
        changes[f"{stage}.max_new_tokens"] = 4
    for stage in (*STAGES[2:-1], "evaluate"):
        changes[f"{stage}.threads"] = 1
    params.write(changes, project.root / "chat/params.yaml")
    (project.root / "chat/dvc.lock").unlink(missing_ok=True)
    project.commit()
    every = {*STAGES, *(f"evaluate@{name}" for name in JUDGED)}
    ran = [name.split(":")[-1] for name in project.ran(project.dvc("repro", PIPELINE))]
    assert sorted(ran) == sorted(every)
    assert project.ran(project.dvc("repro", PIPELINE)) == []
    project.commit()
    assert project.git("status", "--short") == "", "git has what is small, and DVC the rest"
    lock = (project.root / "chat/dvc.lock").read_bytes()
    before = digest(project.root / "data/chat/conversations"), digest(project.root / "models/chat")
    page = (project.root / "dvclive/chat/compare/comparison.md").read_text()
    assert all(f"| {name} " in page for name in JUDGED)
    shown = json.loads(project.dvc("metrics", "show", "--json"))
    files = {*shown[""]["data"]} if "" in shown else {*str(shown)}
    assert any("dvclive/chat/evaluate/lora" in name for name in files)

    inside = Project(project.root / "chat")
    printed = inside.dvc("exp", "run", "--set-param", "compare.seed=7")
    assert {name.split(":")[-1] for name in project.ran(printed)} == {"compare"}
    project.git("checkout", "--quiet", ".")

    clone = project.clone(tmp_path / "clone")
    clone.dvc("repro", "--no-run-cache", PIPELINE)
    assert (clone.root / "chat/dvc.lock").read_bytes() == lock
    after = digest(clone.root / "data/chat/conversations"), digest(clone.root / "models/chat")
    assert after == before
