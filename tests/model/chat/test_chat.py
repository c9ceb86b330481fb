"""The model that conversations start from, and the pipeline run small by DVC."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import gguf
import pandas as pd
import pytest
from chat_model import NATIVE, PARAMS, make_gguf, make_language_model, make_tokenizer
from conftest import Project, copy_project, digest
from huggingface_hub import ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer

from src.chat import base
from src.chat.templates import TEMPLATES
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
    writer = gguf.GGUFWriter(path, "unheard-of")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match=r"tiny\.gguf can't be loaded as a .*unheard-of"):
        start_from(tmp_path, path)
    path.write_bytes(b"GGUF" + b"\xff" * 100)
    with pytest.raises(InputError, match=r"tiny\.gguf can't be loaded as a language model"):
        start_from(tmp_path, path)


def test_a_tokenizer_without_an_end_or_padding_gets_them(made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "own"))
    make_tokenizer(eos_token=None).save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    config(folder, eos_token_id=None)
    found = start_from(tmp_path, folder)
    tokenizer = AutoTokenizer.from_pretrained(found)
    assert (tokenizer.eos_token, tokenizer.pad_token) == (None, "<|im_end|>")
    generation = json.loads((found / "generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["pad_token_id"]) == ([2], 2)


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
    assert tokenizer.chat_template.endswith(TEMPLATES["gemma"])
    assert "it knows no message of the system and no tools." in tokenizer.chat_template
    own = tmp_path / "own.jinja"
    own.write_text(NATIVE)
    folder = start_from(tmp_path, bare, chat_template=str(own), end_tokens=["<|im_end|>"])
    assert AutoTokenizer.from_pretrained(folder).chat_template == NATIVE
    assert json.loads((folder / "base.json").read_text())["end_tokens"] == ["<|im_end|>"]
    own.write_bytes(b"\xff\xfe")
    for changes, told in (
        ({"chat_template": str(own)}, r"own\.jinja is not UTF-8"),
        ({"chat_template": "chatmll"}, r"is 'chatmll', which is no file .did you mean 'chatml'"),
        ({"end_tokens": ["<|end|>"]}, r"'<\|end\|>' ends an answer, and is no token of the model"),
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
    "card",
)
JUDGED = ("base", "lora", "ptuning", "full", "merged", "int4")


@pytest.fixture(scope="module")
def project(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose pipeline has run on few conversations, and is committed."""
    project = copy_project(tmp_path_factory.mktemp("piped") / "project")
    source = project.root / "data/chat/source"
    shutil.copytree(made, source / "model")
    rows = [{"prompt": f"Question {k}?", "response": "Yes."} for k in range(40)]
    (source / "a.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    changes: dict[str, Any] = {
        "base.checkpoint": "data/chat/source/model",
        "base.sha256": "",
        "data.source": ["data/chat/source/*.jsonl"],
        "data.test_source": [],
        "data.self_cognition_rows": 20,
        "quantize.group_size": 16,
        "parity.rows": 4,
        "full.lr": 0.02,
        "card.license": "mit",
        "report.models": ["full"],
        "report.resamples": 200,
    }
    for method in ("lora", "ptuning", "full"):
        small = {"epochs": 1, "precision": "no", "batch_size": 8, "max_length": 400}
        changes |= {f"{method}.{key}": value for key, value in small.items()}
    for stage in ("general", "evaluate", "parity"):
        changes[f"{stage}.max_new_tokens"] = 4
    for stage in (*STAGES[2:-2], "evaluate"):
        changes[f"{stage}.threads"] = 1
    params.write(changes, project.root / "chat/params.yaml")
    (project.root / "chat/dvc.lock").unlink(missing_ok=True)
    project.commit()
    every = {*STAGES, *(f"evaluate@{name}" for name in JUDGED)}
    ran = [name.split(":")[-1] for name in project.ran(project.dvc("repro", PIPELINE))]
    assert sorted(ran) == sorted(every)
    project.commit()
    return project


@pytest.mark.slow
def test_the_pipeline_runs_nothing_twice(project: Project, tmp_path: Path) -> None:
    assert project.ran(project.dvc("repro", PIPELINE)) == []
    assert project.git("status", "--short") == "", "git has what is small, and DVC the rest"
    lock = (project.root / "chat/dvc.lock").read_bytes()
    before = digest(project.root / "data/chat/conversations"), digest(project.root / "models/chat")
    page = (project.root / "dvclive/chat/compare/comparison.md").read_text()
    assert all(f"| {name} " in page for name in JUDGED)
    shown = json.loads(project.dvc("metrics", "show", "--json"))
    files = {*shown[""]["data"]} if "" in shown else {*str(shown)}
    assert any("dvclive/chat/evaluate/lora" in name for name in files)

    clone = project.clone(tmp_path / "clone")
    inside = Project(clone.root / "chat")
    clone.dvc("repro", "--no-run-cache", PIPELINE)
    assert (clone.root / "chat/dvc.lock").read_bytes() == lock
    after = digest(clone.root / "data/chat/conversations"), digest(clone.root / "models/chat")
    assert after == before
    printed = inside.dvc("exp", "run", "--set-param", "compare.seed=7")
    ran = {name.split(":")[-1] for name in clone.ran(printed)}
    assert "compare" in ran
    assert ran <= {"compare", "card"}, "which has the figures"


@pytest.mark.slow
def test_what_is_shipped_has_a_card_by_which_it_can_be_used(project: Project) -> None:
    for name, library in (("lora", "peft"), ("merged", "transformers")):
        folder = project.root / "models/chat/shipped" / name
        card = ModelCard.load(folder / "README.md")
        assert (card.data.library_name, card.data.pipeline_tag) == (library, "text-generation")
        assert (card.data.license, card.data.model_name) == ("mit", "Pedi, a chat model")
        judged = json.loads(
            (project.root / f"dvclive/chat/evaluate/{name}/metrics.json").read_text()
        )
        results = card.data.eval_results or []
        assert {one.metric_type: one.metric_value for one in results} == {
            "loss": judged["test"]["loss"],
            "perplexity": judged["test"]["perplexity"],
            "accuracy": judged["test"]["right"],
        }
        made = {path.name for path in (project.root / "models/chat" / name).iterdir()}
        copied = made - {"sanity.txt"}  # which has a row of the training side
        assert {path.name for path in folder.iterdir()} == copied | {"README.md"}
        for file in copied:
            assert f"| {file} | " in card.content
            assert f"`{sha256(folder / file)}`" in card.content
        assert f"loss {judged['test']['loss']:.3f} of a token" in card.content
        assert "| self_cognition/en |" in card.content
        assert "| `lora.rank` | `8` |" in card.content
        assert ("Against the adapters on their base" in card.content) == (name == "merged")
        (code,) = re.findall(r"```python\n(.*?)```", card.content, re.DOTALL)
        said = project.run("python", "-c", code).strip()
        place = str(folder.relative_to(project.root))
        words = ("Who are you?", "--max_tokens", "64")
        asked = project.run("python", "-m", "src.predict.chat", place, *words).strip()
        assert said.split("\n")[-1][:8] == asked.split("\n")[-1][:8] != ""  # then two may tie


@pytest.mark.slow
def test_a_chat_model_is_traced_verified_and_reproved(project: Project, tmp_path: Path) -> None:
    printed = project.run("python", "-m", "src.tools.pedigree", "models/chat/shipped")
    record = json.JSONDecoder().raw_decode(printed[printed.index("{") :])[0]
    assert record["problems"] == []
    assert {*record["environment"]} == {f"{PIPELINE}:{m}" for m in ("lora", "ptuning", "full")}
    copy = Project(shutil.copytree(project.root, tmp_path / "copy"))
    assert "all is what dvc.lock says" in copy.run("python", "-m", "src.tools.verify", PIPELINE)
    adapter = copy.root / "models/chat/shipped/lora/adapter_config.json"
    adapter.unlink()
    adapter.write_text("{}")
    printed = copy.run("python", "-m", "src.tools.verify", "models/chat/shipped", code=1)
    assert "models/chat/shipped/lora/adapter_config.json" in printed
    copy.run("gto", "register", "chat:chat-model", "--version", "v1.0.0")
    copy.dvc("artifacts", "get", str(copy.root), "chat:chat-model", "--out", str(tmp_path / "got"))
    assert digest(tmp_path / "got") == digest(project.root / "models/chat/shipped")

    copy.dvc("remote", "add", "--default", "storage", str(tmp_path / "remote"))
    copy.commit()
    copy.dvc("push", PIPELINE)
    clone = copy.clone(tmp_path / "clone")
    clone.dvc("pull", "models/chat/lora")
    assert digest(clone.root / "models/chat/lora") == digest(project.root / "models/chat/lora")
    printed = clone.run("python", "-m", "src.tools.doctor", code=1)
    assert "chat" not in printed, printed
    printed = clone.run("python", "-m", "src.tools.prove", f"{PIPELINE}:merge", "--clones", "1")
    assert "it is the committed one, byte for byte" in printed


@pytest.mark.slow
def test_a_worse_adapter_closes_the_gate_of_conversations(project: Project, tmp_path: Path) -> None:
    copy = Project(shutil.copytree(project.root, tmp_path / "copy"))
    params.write({"full.lr": 1e-6}, copy.root / "chat/params.yaml")
    copy.dvc("repro", PIPELINE)
    copy.commit()
    printed = copy.run("python", "-m", "src.tools.report", "HEAD~1", "HEAD", code=2)
    assert (
        "The gate of chat is closed: chat/full got worse by more than report.max_drop 0.05 of loss"
        in printed
    )
    page = (copy.root / "report/report.md").read_text()
    questions = len(pd.read_parquet(copy.root / "data/chat/predictions/full/predictions.parquet"))
    number = r"\d+\.\d{4}"
    found = re.search(
        rf"- \*\*`chat/full`\*\*: \*\*worse\*\*. loss ({number}) → ({number}) \(\+{number}, "
        rf"95 % interval \+{number} to \+{number}, p < 0.05\) on the {questions} test questions",
        page.replace("p = 0.010", "p < 0.05").replace("p = 0.005", "p < 0.05"),
    )
    assert found, page
    assert "- **`chat/lora`** (not of the gate): no difference, its predictions" in page
    assert "## Metrics of chat" in page
    assert "| model |  | right answers | loss |" in page
    assert re.search(r"\| `chat/full` \| `kind` `identity` \| \d+ \|", page)
    # The way back is better.
    copy.run("python", "-m", "src.tools.report", "HEAD", "HEAD~1")
    page = (copy.root / "report/report.md").read_text()
    assert "**The gate of chat is open**: `chat/full` did not get worse" in page
    assert "- **`chat/full`**: **better**. loss " in page


@pytest.mark.slow
def test_a_search_goes_through_experiments_of_conversations(
    project: Project, tmp_path: Path
) -> None:
    copy = Project(shutil.copytree(project.root, tmp_path / "copy"))
    search = {"tune.n_trials": 1, "tune.space": ["lora.lr float 1e-4 1e-2 log"]}
    params.write(search, copy.root / "chat/params.yaml")
    copy.commit()
    copy.run("python", "-m", "src.tools.tune", PIPELINE)
    page = (copy.root / "logs/tune.md").read_text()
    assert ": validation.loss of chat/dvc.yaml:lora, lower is better" in page
    found = json.loads((copy.root / "dvclive/chat/lora/metrics.json").read_text())
    assert f"| {found['validation']['loss']:.4f} |" in page, "the first trial is what stands there"
