"""Answers: the same as those of transformers, by whatever is asked beside them."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_model import PARAMS, make_conversations, make_family, make_started, tuned
from conftest import digest
from transformers import AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from src.chat import attention, merge, models, scoring
from src.chat.conversations import Conversation, Turn
from src.chat.engine import Engine
from src.chat.generation import Generation, Going
from src.chat.rendering import Row
from src.core.errors import InputError
from src.core.files import write_json

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

causal: Any = AutoModelForCausalLM
QUESTIONS = ["where is 1?", "where is 12 of the xxxx?", "who?", "what is this, and where, and why?"]
TWELVE = Generation(12)
# A window that some questions are longer than, and a state that is no keys and values.
OTHERS: dict[str, Any] = {
    "gemma3_text": {
        "head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 25,
    },
    "lfm2": {"layer_types": ["conv", "full_attention"]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_started(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each method made."""
    folder = tmp_path_factory.mktemp("made")
    divided = make_conversations(tmp_path_factory.mktemp("divided"))
    for method, lr in (("lora", 0.1), ("ptuning", 0.5), ("full", 0.02)):
        tuned(method, base, divided, folder, lr=lr)
    return folder


def prompts(engine: Engine) -> list[str]:
    turns = [Turn("user", text, False) for text in QUESTIONS]
    return [engine.renderer.prompt(Conversation((turn,)), 1) for turn in turns]


@pytest.mark.parametrize("method", ["base", "lora", "ptuning", "full"])
def test_the_likeliest_answers_are_those_of_transformers(
    method: str, base: Path, made: Path
) -> None:
    folder = base if method == "base" else made / method
    engine = Engine.of(base, folder, 1)
    asked = prompts(engine)
    found = engine.answers(asked, TWELVE, 1000)
    if method in ("base", "full"):
        other = causal.from_pretrained(folder)
    else:
        other = models.with_adapter(causal.from_pretrained(base), base, folder)
    for prompt, answer in zip(asked, found, strict=True):
        ids = engine.tokenizer(prompt, add_special_tokens=False, return_tensors="pt")
        with torch.no_grad():
            whole = other.generate(**ids, max_new_tokens=12, do_sample=False)[0]
        new = whole[ids["input_ids"].shape[1] :].tolist()
        ended = new[-1] in models.ends(base)
        expected = engine.tokenizer.decode(new[: len(new) - ended], skip_special_tokens=True)
        assert (answer.text, answer.tokens, answer.ended) == (expected, len(new), ended)
    # However they are put together.
    assert engine.answers(asked, TWELVE, 1) == found
    assert engine.answers(asked[::-1], TWELVE, 60)[::-1] == found


@pytest.mark.parametrize(
    ("family", "method"),
    [
        *(("llama", "base"), ("llama", "lora"), ("llama", "ptuning")),
        *(("gemma3_text", "base"), ("gemma3_text", "ptuning"), ("lfm2", "base")),
    ],
)
def test_right_answers_are_as_likely_as_where_all_is_read_at_once(
    family: str,
    method: str,
    base: Path,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if family in OTHERS:
        base = make_started(tmp_path, make_family(tmp_path / "made", family, **OTHERS[family]))
        if method != "base":
            made = tuned(
                method, base, make_conversations(tmp_path), tmp_path / "out", lr=0.5
            ).parent
    engine = Engine.of(base, base if method == "base" else made / method, 1)
    turns = [
        (Turn("user", text, False), Turn("assistant", "x" * place, True))
        for place, text in enumerate(QUESTIONS, 1)
    ]
    questions = [q for two in turns for q in engine.renderer.questions(Conversation(two))]
    rows = [
        Row(q.asked + q.right, [False] * len(q.asked) + [True] * len(q.right)) for q in questions
    ]
    lengths = [len(question.asked) for question in questions]
    assert min(lengths) < 25 < max(lengths)
    expected = scoring.log_probabilities(engine.model, rows, 0, 1)
    alone = [engine.judge([question], TWELVE, 1)[0][0] for question in questions]
    for at_once in (1, 60, 1000):
        monkeypatch.setattr(engine, "at_once", at_once)
        answers, likely = engine.judge(questions, TWELVE, 1000)
        assert answers == alone
        for one, other in zip(likely, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    penalized = Generation(12, repetition_penalty=5.0)
    apart = [engine.judge([question], penalized, 1)[0][0] for question in questions]
    assert engine.judge(questions, penalized, 1000)[0] == apart != alone


def test_an_answer_ends_where_the_model_ends_it(base: Path, made: Path) -> None:
    engine = Engine.of(base, made / "full", 1)
    (answer,) = engine.answers(prompts(engine)[:1], Generation(100), 1000)
    assert answer.ended
    assert answer.tokens < 100
    assert "<|im_end|>" not in answer.text
    assert answer.text.startswith("the ")
    (cut,) = engine.answers(prompts(engine)[:1], Generation(2), 1000)
    assert (cut.ended, cut.tokens) == (False, 2)


def test_draws_of_a_prompt_do_not_hang_on_those_beside_it(base: Path) -> None:
    engine = Engine(base, threads=1)
    asked = prompts(engine)
    drawn = Generation(12, temperature=1.5, seed=3)
    found = engine.answers(asked, drawn, 1000)
    assert engine.answers(asked, drawn, 1) == found
    assert engine.answers(asked, Generation(12, temperature=1.5, seed=4), 1000) != found
    likeliest = engine.answers(asked, TWELVE, 1000)
    assert found != likeliest
    for narrow in (Generation(12, 1.5, top_k=1), Generation(12, 1.5, top_p=1e-6)):
        assert engine.answers(asked, narrow, 1000) == likeliest
    assert engine.answers(asked, Generation(12, repetition_penalty=5.0), 1000) != likeliest


def test_an_answer_may_join_others_that_have_begun(base: Path) -> None:
    engine = Engine(base, threads=1)
    asked = prompts(engine)[:3]
    ways = TWELVE, Generation(9, temperature=0.9, top_k=9, seed=1), Generation(7)
    alone = [engine.answers([one], way, 1000)[0] for one, way in zip(asked, ways, strict=True)]
    batch = engine.batch()
    going = [Going(way, way.draws(0)) for way in ways]
    for one, prompt in zip(going, asked, strict=True):
        batch.add([engine.read([engine.renderer.ids(prompt)])], [one])
        for _ in range(3):
            batch.draw()
            batch.go_on(range(len(batch.going)))
    while batch.going:
        batch.draw()
        going_on = [len(one.made) < one.generation.max_new_tokens for one in batch.going]
        batch.go_on([row for row, left in enumerate(going_on) if left])
    assert [engine._answer(one.made).text for one in going] == [answer.text for answer in alone]


@pytest.mark.parametrize(("method", "cuts"), [("base", True), ("ptuning", True), ("window", False)])
def test_what_pads_those_that_stay_is_cut_when_a_longer_one_has_ended(
    method: str, cuts: bool, base: Path, made: Path, tmp_path: Path
) -> None:
    if method == "window":
        family = make_family(tmp_path / "other", "gemma3_text", **OTHERS["gemma3_text"])
        engine = Engine(make_started(tmp_path, family), threads=1)
    else:
        engine = Engine.of(base, base if method == "base" else made / method, 1)
    short, long = "who?", f"where is {'x' * 90}?"
    asked = [
        engine.renderer.prompt(Conversation((Turn("user", text, False),)), 1)
        for text in (short, long, short)
    ]
    way = Generation(12, repetition_penalty=2.0)
    alone = engine.answers(asked[:1], way, 1000)[0]
    batch = engine.batch()
    going = [Going(way, way.draws(0)) for _ in asked]
    for one, prompt in zip(going, asked, strict=True):
        batch.add([engine.read([engine.renderer.ids(prompt)])], [one])
    assert batch.narrow(1) == 0
    widths = []
    for step in range(11):
        batch.draw()
        batch.go_on([0, 2] if step == 2 else range(len(batch.going)))
        (before,) = batch._readings
        cut = batch.narrow(20)
        (after,) = batch._readings
        assert after.mask.shape[1] == after.cache.get_seq_length() == before.mask.shape[1] - cut
        widths.append(cut)
    assert widths[2] > 80 if cuts else widths[2] == 0
    assert sum(widths) == widths[2]
    batch.draw()
    assert [going[k].made for k in (0, 2)] == [[*alone.ids]] * 2


def test_a_prompt_that_leaves_no_room_is_refused(base: Path) -> None:
    engine = Engine(base, threads=1)
    with pytest.raises(
        InputError, match=r"A prompt has \d+ tokens, and the model reads at most 512"
    ):
        engine.answers(["where? " * 300], TWELVE, 1000)


def test_a_merged_model_says_what_its_adapter_says(base: Path, made: Path, tmp_path: Path) -> None:
    merge.main(base, made / "lora", tmp_path / "merged", threads=1)
    engines = [Engine.of(base, folder, 1) for folder in (made / "lora", tmp_path / "merged")]
    asked = prompts(engines[0])
    first, second = (engine.answers(asked, TWELVE, 1000) for engine in engines)
    assert first == second
    assert first != Engine(base, threads=1).answers(asked, TWELVE, 1000)
    record = models.record(tmp_path / "merged")
    assert record["base_sha256"] == models.record(base)["sha256"]
    assert record["sha256"] != record["base_sha256"]
    merge.main(base, made / "lora", tmp_path / "again", threads=1)
    assert digest(tmp_path / "again") == digest(tmp_path / "merged")
    with pytest.raises(InputError, match=r"ptuning is a prefix, which is no part of any weight"):
        merge.main(base, made / "ptuning", tmp_path / "none", threads=1)
    assert not (tmp_path / "none").exists()


def test_an_adapter_of_another_template_is_refused(base: Path, made: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(base, tmp_path / "other"))
    record = models.record(other)
    write_json(other / models.RECORD, record | {"template_sha256": "0"})
    with pytest.raises(InputError, match=r"lora was trained with another chat template than .*oth"):
        Engine.of(other, made / "lora", 1)


def test_an_adapter_of_another_base_is_refused(base: Path, made: Path, tmp_path: Path) -> None:
    other = base.with_name("other")
    if not other.exists():
        torch.manual_seed(1)
        model = causal.from_pretrained(base)
        with torch.no_grad():
            next(model.parameters()).add_(0.1)
        model.save_pretrained(other)
        models.copy_tokenizer(base, other)
        models.write_record(base, other, "full", 0)
    told = r"lora was trained on another model than .*other: the sha256 of its weights was "
    with pytest.raises(InputError, match=told):
        Engine.of(other, made / "lora", 1)
    with pytest.raises(InputError, match=told):
        merge.main(other, made / "lora", tmp_path / "merged", threads=1)
    with pytest.raises(InputError, match=r"no adapter_config\.json in .*nothing, which is"):
        merge.main(base, tmp_path / "nothing", tmp_path / "merged", threads=1)


@pytest.mark.parametrize("spoil", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_broken_adapter_is_refused(spoil: str, base: Path, made: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(made / "lora", tmp_path / "lora"))
    (folder / spoil).write_bytes(b"{" * 20)
    with pytest.raises(InputError, match=r"lora can't be put on .*base .*: get the adapter again"):
        Engine.of(base, folder, 1)


def test_an_adapter_that_lacks_weights_or_is_of_another_kind_is_refused(
    base: Path, made: Path, tmp_path: Path
) -> None:
    import json
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(made / "lora", tmp_path / "lora"))
    path = folder / "adapter_model.safetensors"
    whole = load_file(path)
    for changed in (
        dict([*whole.items()][1:]),
        {name.replace("base_model", "other"): weight for name, weight in whole.items()},
    ):
        save_file(changed, path)
        with pytest.raises(
            InputError, match=r"weights are absent or of no layer, such as .*get the"
        ):
            Engine.of(base, folder, 1)
    save_file(whole, path)
    Engine.of(base, folder, 1)
    config = json.loads((folder / "adapter_config.json").read_text())
    for change, told in (
        ({"peft_type": "XLORA"}, "peft_type is 'XLORA', and LORA and PREFIX_TUNING are known"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa', and true, false and gaus"),
    ):
        (folder / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(InputError, match=told):
            Engine.of(base, folder, 1)
    (folder / "base.json").write_text("[]")
    with pytest.raises(InputError, match=r"base\.json can't be read"):
        Engine.of(base, folder, 1)


def test_weights_that_were_exchanged_are_not_merged(base: Path, made: Path, tmp_path: Path) -> None:
    import shutil

    other = Path(shutil.copytree(base, tmp_path / "base"))
    content = bytearray((other / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (other / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"model\.safetensors is not the file that base\.json"):
        merge.main(other, made / "lora", tmp_path / "merged", threads=1)


@pytest.mark.parametrize("groups", [1, 3])
def test_grouped_attention_is_that_of_torch(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(0)
    query = torch.randn(2, 3, 5, 8, generator=random, requires_grad=True)
    key, value = (
        torch.randn(2, groups, 7, 8, generator=random, requires_grad=True) for _ in range(2)
    )
    mask = torch.zeros(2, 1, 5, 7)
    mask[0, :, :, 0] = mask[1, :, 2, 3:] = float("-inf")
    module = torch.nn.Module()
    module.num_key_value_groups = 3 // groups  # type: ignore[assignment]
    found = []
    for attend in (attention.grouped, sdpa_attention_forward):
        output, _ = attend(module, query, key, value, mask)
        gradients = torch.autograd.grad(output.square().sum(), [query, key, value])
        found.append([output, *gradients])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)
    # Beyond some length it is torch's own.
    monkeypatch.setattr(attention, "KEPT", 1)
    output, _ = attention.grouped(module, query, key, value, mask)
    assert torch.equal(output, found[1][0])
