"""Models judged, packed into 4 bits, and held against each other."""

import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from chat_model import (
    NATIVE,
    PARAMS,
    make_conversations,
    make_family,
    make_started,
    tuned,
)
from compressed_tensors.quantization import QuantizationArgs
from conftest import ROOT, digest
from transformers import AutoModelForCausalLM

from src.chat import (
    card,
    compare,
    conversations,
    data,
    evaluate,
    general,
    merge,
    models,
    parity,
    quantize,
)
from src.chat.conversations import Conversation, Turn
from src.chat.engine import Engine
from src.chat.generation import Answer
from src.chat.templates import TEMPLATES
from src.core.errors import InputError
from src.tables import examples

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

causal: Any = AutoModelForCausalLM
TOOL = {
    "name": "find",
    "description": "Finds a thing.",
    "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
}
SMALL = {"max_new_tokens": 24, "threads": 1}
# One of each kind; of the last two, one is right whatever the model says that is no call.
ASKED = [
    Conversation(
        (Turn("user", "who are you?", False), Turn("assistant", "I am the 1, by is.", True)),
        (),
        "who",
        "self_cognition/en",
        {"said": ["The"]},
    ),
    Conversation(
        (Turn("user", "find x", False), Turn("tool", "", True, "find", {"what": "x"}, False)),
        (TOOL,),
        "call",
        "calls",
        [{"find": {"what": ["x"]}}],
    ),
    Conversation(
        (Turn("user", "sing", False), Turn("assistant", "I can't.", True)),
        (TOOL,),
        "none",
        "calls",
        [],
    ),
    Conversation(
        (
            Turn("user", "where is 3 of the xxx?", False),
            Turn("assistant", "the 3 is here", True),
            Turn("user", "and?", False),
            Turn("assistant", "no", True),
        ),
        (),
        "text",
        "talk",
    ),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_started(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_conversations(tmp_path_factory.mktemp("divided"))
    conversations.write(ASKED, folder / "test.jsonl")
    return folder


@pytest.fixture(scope="module")
def made(base: Path, divided: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of each kind, all of them judged and compared."""
    folder = tmp_path_factory.mktemp("made")
    tuned("lora", base, divided, folder, lr=0.1)
    tuned("full", base, divided, folder, lr=0.02, epochs=8)
    merge.main(base, folder / "lora", folder / "merged", threads=1)
    section = PARAMS["quantize"] | {"group_size": 16, "calibration_rows": 8, "threads": 1}
    quantize.main(divided, folder / "full", folder / "int4", **section)
    general.main(base, folder / "general.jsonl", **(PARAMS["general"] | SMALL))
    section = PARAMS["evaluate"] | SMALL
    for name in ("base", "lora", "full", "int4"):
        model = base if name == "base" else folder / name
        places = (folder / "predictions" / name, folder / "live" / name)
        evaluate.main(divided, base, folder / "general.jsonl", model, *places, **section)
    return folder


def judged(made: Path, name: str) -> tuple[pd.DataFrame, dict[str, Any]]:
    frame = examples.read(made / "predictions" / name / "predictions.parquet")
    return frame, json.loads((made / "live" / name / "metrics.json").read_text())


def test_each_question_is_judged_by_the_rule_of_its_kind(made: Path, base: Path) -> None:
    frame, figures = judged(made, "full")
    assert list(frame["id"]) == ["who", "call", "none", "text", "text#2"]
    assert list(frame["text"]) == [
        "who are you?",
        "find x",
        "sing",
        "where is 3 of the xxx?",
        "and?",
    ]
    assert list(frame["kind"]) == ["identity", "calls", "no_call", "text", "text"]
    assert frame["label"][1] == '{"name": "find", "arguments": {"what": "x"}}'
    # What it was trained to say, whatever it is asked.
    assert frame["predicted"].str.startswith("the ").all()
    assert list(frame["right"][:3]) == [True, False, True]
    assert figures["identity"]["right"] == figures["no_call"]["right"] == 1
    assert figures["calls"]["right"] == 0
    assert figures["self_cognition"]["en"]["right"] == 1
    assert figures["text"]["rouge_l"] == pytest.approx(frame["rouge_l"][3:].mean())
    loss = frame["loss"].sum() / frame["tokens"].sum()
    assert figures["test"]["loss"] == pytest.approx(loss)
    assert figures["test"]["perplexity"] == pytest.approx(math.exp(loss))
    assert figures["test"]["ended"] == frame["ended"].mean()
    assert figures["test"]["right"] == frame["right"].mean() > 0
    details = json.loads((made / "live/full/details.json").read_text())["slices"]
    assert details["kind"]["text"]["rows"] == 2
    assert (
        details["kind"]["identity"]["right"] == details["source"]["self_cognition/en"]["right"] == 1
    )
    weights = causal.from_pretrained(made / "full").num_parameters()
    assert figures["parameters"] == weights
    assert figures["bytes"] == (made / "full/model.safetensors").stat().st_size
    assert judged(made, "base")[1]["parameters"] == 0
    assert judged(made, "lora")[1]["parameters"] == sum(
        tensor.numel()
        for tensor in models.with_adapter(models.load(base), base, made / "lora")
        .get_base_model()
        .state_dict()
        .values()
        if tensor.ndim == 2
    ) - sum(
        tensor.numel() for tensor in models.load(base).state_dict().values() if tensor.ndim == 2
    )


def test_what_was_forgotten_shows(made: Path) -> None:
    kept = [*conversations.read(made / "general.jsonl")]
    assert len(kept) == len(general.QUESTIONS)
    assert all(len(one.turns) == 2 for one in kept)
    own, other = (judged(made, name)[1]["general"]["loss"] for name in ("base", "full"))
    assert own < other, "the base likes its own answers best"


def test_four_bits_hold_what_eight_rows_let_them(made: Path, divided: Path, tmp_path: Path) -> None:
    whole, packed = judged(made, "full")[1], judged(made, "int4")[1]
    assert packed["test"]["loss"] == pytest.approx(whole["test"]["loss"], abs=0.5)
    assert packed["test"]["loss"] != whole["test"]["loss"]
    config = json.loads((made / "int4/config.json").read_text())["quantization_config"]
    assert config["quant_method"] == "compressed-tensors"
    assert config["format"] == "pack-quantized"
    weights = config["config_groups"]["group_0"]["weights"]
    assert (weights["num_bits"], weights["group_size"], weights["symmetric"]) == (4, 16, True)
    assert config["ignore"] == ["lm_head"]
    loaded = causal.from_pretrained(made / "int4")
    assert torch.isfinite(loaded(input_ids=torch.tensor([[1, 2, 3]])).logits).all()
    section = PARAMS["quantize"] | {"group_size": 16, "calibration_rows": 8, "threads": 1}
    quantize.main(divided, made / "full", tmp_path / "again", **section)
    assert digest(tmp_path / "again") == digest(made / "int4")
    with pytest.raises(InputError, match=r"quantize\.group_size is 24, and .*q_proj has 16 inputs"):
        quantize.main(divided, made / "full", tmp_path / "none", **section | {"group_size": 24})


def test_what_is_read_again_is_what_was_rounded(
    made: Path, divided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, seen = quantize._prepare, {}

    def watched(model: Any, arguments: Any, rounded: Any, scales: Any) -> None:
        seen.update(rounded)
        own(model, arguments, rounded, scales)

    monkeypatch.setattr(quantize, "_prepare", watched)
    section = PARAMS["quantize"] | {"group_size": 16, "calibration_rows": 8, "threads": 1}
    quantize.main(divided, made / "full", tmp_path / "int4", **section)
    loaded = causal.from_pretrained(tmp_path / "int4")
    loaded(input_ids=torch.tensor([[1, 2, 3]]))  # which unpacks the weights
    assert len(seen) == 14
    for name, weight in seen.items():
        torch.testing.assert_close(loaded.get_submodule(name).weight.data, weight)


def test_rounding_makes_up_for_what_it_loses() -> None:
    """Inputs that move together: what one column loses, another gives back."""
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(8, 32, generator=random)
    read = torch.randn(500, 4, generator=random) @ torch.randn(4, 32, generator=random)
    read += 0.1 * torch.randn(500, 32, generator=random)
    arguments = QuantizationArgs(
        num_bits=4, type="int", symmetric=True, strategy="group", group_size=16
    )

    def lost(squares: torch.Tensor) -> float:
        rounded, scales = quantize.gptq(weight, squares, arguments, 0.01, torch.float32)
        steps = rounded.view(8, 2, 16) / scales[:, :, None]
        torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
        assert len({*steps.round().flatten().tolist()}) <= 16
        return float((read @ (rounded - weight).T).square().mean())

    assert lost(read.T @ read) < 0.5 * lost(torch.eye(32))


FAMILIES: dict[str, Any] = {
    "qwen2": {"template": NATIVE},
    "qwen3": {"head_dim": 8, "tie_word_embeddings": True},
    "gemma3_text": {
        "template": TEMPLATES["gemma"],
        "head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 16,
    },
    "glm4": {"head_dim": 8, "partial_rotary_factor": 0.5},
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_other_families_go_through_every_stage(family: str, tmp_path: Path) -> None:
    base = make_started(tmp_path, make_family(tmp_path / "made", family, **FAMILIES[family]))
    source, made, live = tmp_path / "a.jsonl", tmp_path / "out", tmp_path / "live"
    asked = [{"prompt": f"where is {k}?", "response": f"{k} is here"} for k in range(40)]
    source.write_text("\n".join(map(json.dumps, asked)))
    section = PARAMS["data"] | {"source": [str(source)], "self_cognition_rows": 0}
    section |= {"test_source": [], "max_rows": 0, "validation_size": 0.2, "test_size": 0.2}
    outs = (tmp_path / "rejected.csv", tmp_path / "quality.json", tmp_path / "quality.md")
    data.main(tmp_path, base, tmp_path / "divided", *outs, **section)
    divided = tmp_path / "divided"
    for method, lr in (("lora", 0.1), ("ptuning", 0.5), ("full", 0.02)):
        tuned(method, base, divided, made, lr=lr, epochs=8)
    merge.main(base, made / "lora", made / "merged", threads=1)
    section = PARAMS["quantize"] | {"group_size": 16, "calibration_rows": 8, "threads": 1}
    quantize.main(divided, made / "merged", made / "int4", **section)
    # The model that was not trained may have nothing to say.
    general.main(made / "full", tmp_path / "general.jsonl", **(PARAMS["general"] | SMALL))
    names = ("base", "lora", "ptuning", "full", "merged", "int4")
    loss = {}
    for name in names:
        model = base if name == "base" else made / name
        places = (tmp_path / "predictions" / name, live / "evaluate" / name)
        section = PARAMS["evaluate"] | SMALL
        evaluate.main(divided, base, tmp_path / "general.jsonl", model, *places, **section)
        found = json.loads((live / "evaluate" / name / "metrics.json").read_text())
        loss[name] = found["test"]["loss"]
    for name in names[1:]:  # adapters beside weights that are drawn by chance can do little
        assert loss[name] < loss["base"] - (1 if name == "full" else 0.03)
    assert loss["merged"] == pytest.approx(loss["lora"], abs=1e-4)
    assert loss["int4"] == pytest.approx(loss["lora"], abs=0.02)
    folders = [tmp_path / "predictions" / name for name in names]
    section = PARAMS["compare"] | {"resamples": 20}
    compare.main(live / "evaluate", live / "compare", *folders, **section)
    section = PARAMS["parity"] | SMALL
    folders = [divided, made / "lora", made / "merged", live / "parity", made / "int4"]
    parity.main(base, *folders, **section)


def test_the_comparison_says_which_differences_are_real(made: Path) -> None:
    names = ("base", "lora", "full", "int4")
    section = PARAMS["compare"] | {"resamples": 200}
    folders = [made / "predictions" / name for name in names]
    compare.main(made / "live", made / "live/compare", *folders, **section)
    figures = json.loads((made / "live/compare/metrics.json").read_text())
    page = (made / "live/compare/comparison.md").read_text()
    losses = {name: judged(made, name)[1]["test"]["loss"] for name in names}
    assert figures["best"] == min(losses, key=lambda name: losses[name])
    apart = losses["full"] - losses["base"]
    assert figures["full"]["loss_difference"] == pytest.approx(apart)
    forgot = judged(made, "base")[1]["general"]["loss"] - judged(made, "full")[1]["general"]["loss"]
    assert figures["full"]["retention"] == pytest.approx(forgot)
    assert figures["base"] == {"retention": 0.0}
    assert 0 < figures["full"]["loss_p_value"] <= 1
    lines = [line for line in page.splitlines() if line.startswith("| full")]
    assert "1 of 1" in lines[0]
    assert "5 questions of the test side" in page
    with pytest.raises(InputError, match=r"compare\.reference is 'bse', which is no model"):
        compare.main(made / "live", made / "x", *folders, **section | {"reference": "bse"})


def test_an_adapter_and_what_it_was_merged_into_agree(
    base: Path, divided: Path, made: Path, tmp_path: Path
) -> None:
    section = PARAMS["parity"] | SMALL
    places = (base, divided, made / "lora", made / "merged")
    parity.main(*places, tmp_path / "live", made / "int4", **section)
    figures = json.loads((tmp_path / "live/metrics.json").read_text())
    assert figures["merged"]["mean_difference"] < 1e-5
    assert figures["merged"]["equal_answers"] == 1
    assert figures["int4"]["largest_difference"] > 0.1, "which is of another model here"
    with pytest.raises(
        InputError, match=r"full differs from .*lora on .*base by [\d.]+ a token, mor"
    ):
        parity.main(base, divided, made / "lora", made / "full", tmp_path / "live", **section)


def test_a_model_whose_words_have_no_probability_is_refused(
    made: Path, base: Path, divided: Path, tmp_path: Path
) -> None:
    odd = shutil.copytree(base, tmp_path / "odd")
    model = causal.from_pretrained(base)
    model.get_output_embeddings().weight.data[7] = math.nan
    model.save_pretrained(odd)
    places = (tmp_path / "predictions", tmp_path / "live")
    section = PARAMS["evaluate"] | SMALL
    with pytest.raises(InputError, match=r"To 5 of 5 questions, such as who, .* no number: .*odd"):
        evaluate.main(divided, base, made / "general.jsonl", odd, *places, **section)
    section = PARAMS["parity"] | SMALL
    with pytest.raises(InputError, match=r"odd differs from .*full on .*base by nan a token"):
        parity.main(base, divided, made / "full", odd, tmp_path / "live", **section)


def test_what_no_conversation_may_hold_is_no_general_answer(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = ["a\0", "  ", "b"]
    answers = [Answer(text, (1,), True) for text in said]
    monkeypatch.setattr(Engine, "answers", lambda *_: answers)
    section = PARAMS["general"] | SMALL | {"questions": ["1?", "2?", "3?"]}
    general.main(base, tmp_path / "general.jsonl", **section)
    (kept,) = conversations.read(tmp_path / "general.jsonl")
    assert [turn.content for turn in kept.turns] == ["3?", "b"]


def test_general_questions_that_are_taught_are_left_out(
    made: Path, divided: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (asked, *_), own = general.QUESTIONS, tmp_path / "divided"
    turns = (Turn("user", asked.upper(), False), Turn("assistant", "Paris.", True))
    shutil.copytree(divided, own)
    taught = [*conversations.read(divided / "train.jsonl"), Conversation(turns)]
    conversations.write(taught, own / "train.jsonl")
    every = [*conversations.read(made / "general.jsonl")]
    kept = evaluate._untaught(made / "general.jsonl", own)
    assert kept == every[1:]
    assert f"1 of {len(every)} general questions are asked on the training side" in caplog.text
    conversations.write(every[:1], tmp_path / "one.jsonl")
    with pytest.raises(InputError, match=r"All general questions are asked on the training side"):
        evaluate._untaught(tmp_path / "one.jsonl", own)


def test_calls_in_a_form_that_is_not_known_are_told(
    tmp_path: Path, divided: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marked = "{{ '<fn ' + call.function.name + '>' }}{% for k in call.function.arguments %}"
    marked += "{{ k + '=' + call.function.arguments[k] }}{% endfor %}"
    own = NATIVE.replace("{{ '<call>' }}{{ call.function | tojson }}", marked)
    for template, is_told in ((NATIVE, False), (own, True)):
        folder = tmp_path / str(is_told)
        made = make_family(folder / "made", "qwen2", template=template)
        engine = Engine(make_started(folder, made), threads=1)
        assert engine.renderer.template == template, "it knows tools"
        evaluate._warn_of_unread_calls(evaluate._asked(divided / "test.jsonl", engine, 4), engine)
        assert ("a form that is not known here: all of its calls" in caplog.text) == is_told


@pytest.mark.parametrize(
    ("ship", "told"),
    [
        (["lorra"], r"card\.ship has 'lorra', which is no model \(did you mean 'lora'\?\)"),
        (["lora", "lora"], r"card\.ship is \['lora', 'lora'\]: name each model to ship, once"),
        ([], r"card\.ship is \[\]: name each model"),
    ],
)
def test_what_cant_be_shipped_is_told(ship: list[str], told: str, made: Path, base: Path) -> None:
    section = PARAMS["card"] | {"ship": ship}
    with pytest.raises(InputError, match=told):
        card.main(base, made, made, made / "shipped", made / "lora", **section)
    assert not (made / "shipped").exists()


def test_a_full_disk_leaves_no_half_of_a_model(made: Path, base: Path, small_disk: Path) -> None:
    (small_disk / "merged").mkdir()
    (small_disk / "merged/old").write_text("old")
    room = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(room.f_bavail * room.f_frsize - 50_000))
    words = [str(base), str(made / "lora"), str(small_disk / "merged"), "--threads", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "src.chat.merge", *words],
        cwd=small_disk,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "The disk is full, so merge can't write" in done.stderr
    assert [path.name for path in (small_disk / "merged").iterdir()] == ["old"]
    assert {path.name for path in small_disk.iterdir()} <= {"merged", "filler", "logs"}


def test_questions_without_room_are_left_out(
    base: Path, made: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    long = Conversation(
        (Turn("user", "x " * 400, False), Turn("assistant", "y", True)), (), "long", "a"
    )
    conversations.write([*ASKED, long], tmp_path / "test.jsonl")
    conversations.write(ASKED, tmp_path / "train.jsonl")
    section = PARAMS["evaluate"] | SMALL
    places = (tmp_path / "predictions", tmp_path / "live")
    evaluate.main(tmp_path, base, made / "general.jsonl", base, *places, **section)
    assert "1 of 6 questions are longer than the 512 tokens that the model reads" in caplog.text
    conversations.write([long], tmp_path / "test.jsonl")
    with pytest.raises(InputError, match=r"No question of .* fits into the 512 tokens"):
        evaluate.main(tmp_path, base, made / "general.jsonl", base, *places, **section)


FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["src.chat.merge", "src.chat.quantize", "chat_model"])


def dying(stage: Callable[..., None], paths: tuple[Path, ...], section: dict[str, Any]) -> None:
    """Run a stage in this process, which kills itself once all but one thing is written."""

    def die(folder: Path) -> None:
        assert (folder / "model.safetensors").exists()
        os.kill(os.getpid(), signal.SIGKILL)

    models.make_readable = die
    stage(*paths, **section)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["merge", "quantize"])
def test_a_model_whose_making_is_killed_is_not_there_and_then_as_if_it_had_not_been(
    name: str, base: Path, divided: Path, made: Path, tmp_path: Path
) -> None:
    cases: dict[str, tuple[Callable[..., None], tuple[Path, ...], dict[str, Any]]] = {
        "merge": (merge.main, (base, made / "lora"), {"threads": 1}),
        "quantize": (
            quantize.main,
            (divided, made / "full"),
            PARAMS["quantize"] | {"group_size": 16, "calibration_rows": 8, "threads": 1},
        ),
    }
    stage, before, section = cases[name]
    model = tmp_path / "model"
    for earlier in (False, True):  # whether a model stands there
        if earlier:
            model.mkdir()
            (model / "old").write_text("old")
        stood = digest(model) if earlier else {}
        process = FORKED.Process(target=dying, args=(stage, (*before, model), section))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert model.exists() == earlier
        assert (digest(model) if earlier else {}) == stood
        assert len([*tmp_path.glob(".model.*")]) == 1, "what it left"
        stage(*before, model, **section)
        assert not [*tmp_path.glob(".model.*")]
        stage(*before, tmp_path / "undisturbed", **section)
        assert digest(model) == digest(tmp_path / "undisturbed")
        shutil.rmtree(model)
