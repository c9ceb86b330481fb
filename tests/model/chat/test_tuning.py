"""Adapters, prefixes and whole models, trained on conversations."""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_model import PARAMS, make_conversations, make_started, tuned
from conftest import ROOT, digest
from transformers import AutoModelForCausalLM
from transformers.models.llama import LlamaConfig

from src.chat import conversations, methods, models, scoring, trainer, tuning
from src.chat.optimizer import Doubled
from src.chat.rendering import Renderer, Row
from src.core import stage
from src.core.errors import InputError
from src.core.files import sha256
from src.project.params import words_of
from src.training import checkpoints

pytestmark = pytest.mark.skipif(not PARAMS, reason="this clone has no such pipeline")

causal: Any = AutoModelForCausalLM
METHODS = ("lora", "ptuning", "full")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_started(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in 16 bits."""
    return make_started(tmp_path_factory.mktemp("half"), dtype="bfloat16")


@pytest.fixture(scope="module")
def divided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_conversations(tmp_path_factory.mktemp("divided"))


def losses(live: Path) -> list[float]:
    """The validation loss by epoch, that of the beginning first."""
    path = live / "plots/metrics/validation/loss.tsv"
    return [float(line.split("\t")[1]) for line in path.read_text().splitlines()[1:]]


@pytest.mark.parametrize("method", METHODS)
def test_each_method_learns_and_is_kept_in_its_usual_form(
    method: str, base: Path, divided: Path, tmp_path: Path
) -> None:
    folder = tuned(method, base, divided, tmp_path, lr=0.5 if method == "ptuning" else 0.05)
    live = tmp_path / "live" / method
    seen = losses(live)
    assert len(seen) == 4, "before the first step, and after each of three epochs"
    assert min(seen) < seen[0] - 0.03
    metrics = json.loads((live / "metrics.json").read_text())
    assert metrics["validation"]["loss"] == pytest.approx(min(seen), abs=1e-6)
    renderer = Renderer(models.tokenizer(base))
    rows = [
        r for one in conversations.read(divided / "validation.jsonl") for r in renderer.rows(one)
    ]
    # What others load gives the loss that the training told.
    if method == "full":
        loaded = causal.from_pretrained(folder)
        assert {p.name for p in base.iterdir()} <= {p.name for p in folder.iterdir()}
        own = models.record(folder)
        assert own["sha256"] == {"model.safetensors": sha256(folder / "model.safetensors")}
        assert own["base_sha256"] == models.record(base)["sha256"]
    else:
        loaded = models.with_adapter(causal.from_pretrained(base), base, folder)
        assert models.record(folder) == models.record(base)
        config = json.loads((folder / "adapter_config.json").read_text())
        named = config.get("target_modules") or []
        assert (len(named), named) == (7 * (method == "lora"), sorted(named)), "as in any process"
        names = {"adapter_config.json", "adapter_model.safetensors", "base.json", "sanity.txt"}
        assert {path.name for path in folder.iterdir()} == names
    with torch.no_grad():
        found = torch.cat(scoring.log_probabilities(loaded.eval(), rows, 0, 500))
    assert -float(found.mean()) == pytest.approx(min(seen), abs=1e-4)
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())
    record = json.loads((tmp_path / f"{method}.json").read_text())
    assert record["params"]["epochs"] == 3
    assert {"peft", "trl", "transformers"} <= record["packages"].keys()
    assert not list((tmp_path / ".checkpoints").iterdir()), "they are of no use any more"


@pytest.mark.parametrize("method", METHODS)
def test_the_epoch_that_validation_likes_best_is_kept(
    method: str, base: Path, divided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, calls = scoring.log_probabilities, list[None]()

    def worse_after_the_first(*given: Any) -> list[torch.Tensor]:
        calls.append(None)  # before the first step, after the first epoch, ...
        return [part - 5 * (len(calls) > 2) for part in own(*given)]

    monkeypatch.setattr(scoring, "log_probabilities", worse_after_the_first)
    folder = tuned(method, base, divided, tmp_path, lr=0.5 if method == "ptuning" else 0.05)
    monkeypatch.undo()
    seen = losses(tmp_path / "live" / method)
    assert min(seen) == seen[1]
    told = json.loads((tmp_path / "live" / method / "metrics.json").read_text())
    assert (told["step"], told["last_step"]) == (6, 18)
    loaded = causal.from_pretrained(base if method != "full" else folder)
    if method != "full":
        loaded = models.with_adapter(loaded, base, folder)
    renderer = Renderer(models.tokenizer(base))
    rows = [
        r for one in conversations.read(divided / "validation.jsonl") for r in renderer.rows(one)
    ]
    found = torch.cat(own(loaded.eval(), rows, 0, 500))
    assert -float(found.mean()) == pytest.approx(seen[1], abs=1e-4)


def test_params_and_the_first_row_are_shown(
    base: Path, divided: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    folder = tuned("lora", base, divided, tmp_path, epochs=1)
    table = (folder / "sanity.txt").read_text()
    assert "\n".join(table.splitlines()[: tuning.SHOWN + 1]) in caplog.text
    assert "params: rank 4, alpha 16.0, dropout 0.0, " in caplog.text
    assert caplog.text.count("train/loss ") == 4  # at steps 1, 2, 4 and 6
    head, *lines = table.splitlines()
    assert head.split() == ["token", "id", "target"]
    cells = [line.rsplit(maxsplit=2) for line in lines]
    (first, *_) = conversations.read(divided / "train.jsonl")
    (row,) = Renderer(models.tokenizer(base)).rows(first)
    assert [int(id) for _, id, _ in cells] == row.ids
    expected = [id if learnt else -100 for id, learnt in zip(row.ids, row.learnt, strict=True)]
    assert [int(target) for *_, target in cells] == expected
    learnt = [json.loads(token) for token, _, target in cells if target != "-100"]
    assert "".join(learnt) == "the 0 is here<|im_end|>"


def test_the_head_sees_only_what_is_learnt(base: Path, divided: Path) -> None:
    model = models.load(base)
    renderer = Renderer(models.tokenizer(base))
    rows = [r for one in conversations.read(divided / "train.jsonl") for r in renderer.rows(one)]
    batch = scoring.collate(rows[:4], 0)
    found, tokens = scoring.logits(model, batch)
    assert found.shape == (sum(sum(row.learnt) for row in rows[:4]), len(renderer._tokenizer))
    whole = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"][:, 1:]
    torch.testing.assert_close(found, whole[:, :-1][labels != scoring.IGNORED])
    assert tokens.tolist() == labels[labels != scoring.IGNORED].tolist()
    alone = [scoring.log_probabilities(model, [row], 0, 1) for row in rows]
    together = scoring.log_probabilities(model, rows, 0, 300)
    for (one,), other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other)


def test_p_tuning_has_the_weights_that_chatglm3_has() -> None:
    """Of its sizes: 128 tokens, 28 layers, keys and values of two heads of 128."""
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=4096,
        intermediate_size=64,
        num_hidden_layers=28,
        num_attention_heads=32,
        num_key_value_heads=2,
    )
    with torch.device("meta"):
        model = causal.from_config(config)
    learner = methods.prefix(model, virtual_tokens=128, init_weights="random")
    assert methods.trainable(learner) == 1_835_008


def test_lora_lies_beside_the_layers_that_are_named(base: Path) -> None:
    how: dict[str, Any] = {"rank": 2, "alpha": 4, "dropout": 0.0, "activation_checkpointing": False}
    how |= {"use_rslora": False, "use_dora": False}
    every = methods.lora(models.load(base), target_modules=["all-linear"], **how)
    layers = {
        n.split(".lora_")[0].rpartition(".")[2] for n, _ in every.named_parameters() if "lora_" in n
    }
    assert layers == {
        *("q_proj", "k_proj", "v_proj", "o_proj"),
        *("gate_proj", "up_proj", "down_proj"),
    }
    assert every.peft_config["default"].target_modules == layers
    some = methods.lora(models.load(base), target_modules=["q_proj", "v_proj"], **how)
    # Two layers; q is 16 x 16, and v 16 x 8.
    assert methods.trainable(some) == 2 * (2 * (16 + 16) + 2 * (16 + 8))
    dora = methods.lora(
        models.load(base), target_modules=["q_proj"], **how | {"use_dora": True, "use_rslora": True}
    )
    assert methods.trainable(dora) == 2 * (2 * (16 + 16) + 16)
    assert dora.base_model.model.model.layers[0].self_attn.q_proj.scaling["default"] == 4 / 2**0.5
    for names, told in (
        (["q_prj"], r"'q_prj', which is no linear layer of the model .did you mean 'q_proj'"),
        (["lm_head"], r"'lm_head', which is no linear layer of the model"),
        ([], r"lora\.target_modules is empty: write all-linear, or some of q_proj"),
    ):
        with pytest.raises(InputError, match=told):
            methods.lora(models.load(base), target_modules=names, **how)


@pytest.mark.parametrize(
    ("method", "changes", "told"),
    [
        ("lora", {"precision": "fp16"}, r"lora\.precision is 'fp16', which needs a GPU"),
        ("lora", {"quantization": "4bit"}, r"lora\.quantization is '4bit', which needs a GPU"),
        (
            "full",
            {"max_length": 1000},
            r"full\.max_length is 1000, and the model reads at most 512",
        ),
        (
            "ptuning",
            {"max_length": 5},
            r"is anything learnt within 5 tokens: raise ptuning\.max_le",
        ),
        (
            "lora",
            {"processes": 3},
            r"lora\.batch_size is 4: expected a multiple of the 3 processes",
        ),
        (
            "ptuning",
            {"max_length": 509},
            r"ptuning\.max_length is 509, and the model reads at most 508 tokens",
        ),
    ],
)
def test_what_cant_be_trained_here_is_refused(
    method: str, changes: Any, told: str, base: Path, divided: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=told):
        tuned(method, base, divided, tmp_path, **changes)
    assert not (tmp_path / method).exists()


def test_several_gpus_are_not_left_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=r"2 GPUs are seen and lora\.processes is 1: set it to 2"):
        tuning.refuse(_params("lora"), "lora")
    tuning.refuse(_params("lora", processes=2), "lora")


def test_rows_that_are_too_long_are_cut_and_told(
    base: Path, divided: Path, caplog: pytest.LogCaptureFixture
) -> None:
    renderer = Renderer(models.tokenizer(base))
    kept, lost = tuning.read_rows(divided / "train.jsonl", renderer, 10**6, "lora")
    assert (len(kept), lost) == (24, 0)
    lengths = sorted(len(row.ids) for row in kept)
    kept, lost = tuning.read_rows(divided / "train.jsonl", renderer, lengths[4], "lora")
    assert max(len(row.ids) for row in kept) == lengths[4]
    assert lost > 0
    beginning = min(row.learnt.index(True) for row in kept)
    with pytest.raises(InputError, match=r"anything learnt within \d+ tokens: raise lora\.max_len"):
        tuning.read_rows(divided / "train.jsonl", renderer, beginning, "lora")
    assert "learnt tokens lie beyond lora.max_length" in caplog.text


def test_rows_in_one_see_nothing_of_each_other(base: Path, divided: Path, tmp_path: Path) -> None:
    tokenizer = models.tokenizer(base)
    renderer = Renderer(tokenizer)
    rows = [r for one in conversations.read(divided / "train.jsonl") for r in renderer.rows(one)][
        :4
    ]
    params = _params("full", packing=True, max_length=512)
    made = trainer.trainer_of(models.load(base), tokenizer, rows, rows, params, tmp_path)
    (packed,) = made.get_train_dataloader()
    assert packed["input_ids"].shape == (1, sum(len(row.ids) for row in rows))
    with torch.no_grad():
        loss = made.compute_loss(made.model, packed)
        apart = torch.cat(scoring.log_probabilities(made.model, rows, 0, 1))
    assert float(loss) == pytest.approx(-float(apart.mean()), abs=1e-5)


def _params(method: str, **changes: Any) -> dict[str, Any]:
    from chat_model import TINY

    return {
        key: value for key, value in (PARAMS[method] | TINY).items() if key in PARAMS[method]
    } | changes


# Processes that are forked from one that has imported all: the same as new ones, but at once there.
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["src.chat.lora", "src.chat.ptuning", "src.chat.full", "chat_model"])


def dying(method: str, base: Path, divided: Path, folder: Path, die_in: str, log: Path) -> None:
    """Train in this process; it kills itself as it marks the checkpoint ``die_in``."""
    os.chdir(folder)
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    sync = checkpoints._sync

    def die(path: Path) -> None:
        sync(path)
        if path.parent.name == die_in:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints._sync = die
    stage._start_log(method, to_file=False)
    # All weights learn in 16 bits, and what the optimizer keeps of them is more than that.
    tuned(method, base, divided, folder, precision="bf16" if method == "full" else "no")


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_training_that_is_killed_ends_as_if_it_had_not_been(
    method: str, base: Path, half: Path, divided: Path, tmp_path: Path
) -> None:
    start = half if method == "full" else base
    (whole := tmp_path / "whole").mkdir()
    (broken := tmp_path / "broken").mkdir()
    log = tmp_path / "log"
    # At the first of all, at one within an epoch, and at the end of one.
    for folder, die_in in (
        (broken, "checkpoint-4"),
        (broken, "checkpoint-12"),
        (broken, ""),
        (whole, ""),
    ):
        process = FORKED.Process(target=dying, args=(method, start, divided, folder, die_in, log))
        process.start()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if die_in else 0), log.read_text()
    assert log.read_text().count("goes on from step ") == 1
    assert "goes on from step 8" in log.read_text()
    assert digest(whole) == digest(broken)


def test_a_training_that_comes_to_no_number_is_told(
    base: Path, divided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = [torch.tensor([math.nan])]
    monkeypatch.setattr(scoring, "log_probabilities", lambda *_: nothing)
    with pytest.raises(InputError, match=r"validation loss is no number after any epoch: lower fu"):
        tuned("full", base, divided, tmp_path, epochs=1)
    assert not (tmp_path / "full").exists()


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({}, torch.bfloat16),
        ({"gradient_accumulation_steps": 2}, torch.float32),
        ({"precision": "no"}, torch.float32),
    ],
)
def test_weights_that_learn_have_16_bits_only_where_nothing_is_lost(
    changes: dict[str, Any],
    dtype: torch.dtype,
    base: Path,
    half: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    changes = {"precision": "bf16"} | changes
    for start, expected in ((half, dtype), (base, torch.float32)):
        made = _trainer(start, tmp_path, "full", **changes)
        assert made.model.dtype == expected
        # What has 32 bits is computed in 16 by autocast, if it is to be.
        assert made.args.bf16 == (expected == torch.float32 and changes["precision"] == "bf16")
        assert isinstance(made.create_optimizer(), Doubled) == (expected == torch.bfloat16)


@pytest.mark.parametrize(
    ("changes", "autocast"), [({}, False), ({"dropout": 0.1}, True), ({"use_dora": True}, True)]
)
def test_adapters_compute_in_the_type_beside_them_if_they_can(
    changes: dict[str, Any],
    autocast: bool,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made = _trainer(base, tmp_path, "lora", precision="bf16", **changes)
    assert made.model.dtype == torch.bfloat16
    assert made.args.bf16 == autocast


def _trainer(base: Path, folder: Path, method: str, **changes: Any) -> Any:
    params = _params(method, max_length=64, **changes)
    rows = [Row([1, 2, 3], [False, True, True])]
    model = tuning._started(base, params, method)
    return trainer.trainer_of(model, models.tokenizer(base), rows, rows, params, folder)


def test_batches_that_make_one_step_weigh_by_what_is_learnt(
    base: Path, divided: Path, tmp_path: Path
) -> None:
    """The gradient of a step is the same whether its rows go through at once or not."""
    tokenizer = models.tokenizer(base)
    renderer = Renderer(tokenizer)
    rows = [r for one in conversations.read(divided / "train.jsonl") for r in renderer.rows(one)]
    rows = [*rows[:3], Row(rows[3].ids, [*rows[3].learnt[:-3], False, False, False])]
    found = []
    for size, steps in ((4, 1), (2, 2), (1, 4)):
        model = models.load(base)
        params = _params("full", batch_size=size, gradient_accumulation_steps=steps, epochs=1)
        params |= {"lr": 0.5, "warmup_ratio": 0.0, "max_grad_norm": 1e9}
        made = trainer.trainer_of(
            *(model, tokenizer, rows, rows, params, tmp_path / f"{size}"), optim="sgd"
        )
        made.train()
        found.append(torch.cat([weight.detach().flatten() for weight in model.parameters()]))
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])
    assert not torch.allclose(
        found[0], torch.cat([w.detach().flatten() for w in models.load(base).parameters()])
    )


def test_adapters_in_fewer_steps_are_those_of_peft(base: Path, divided: Path) -> None:
    how: dict[str, Any] = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["all-linear"]}
    how |= {"use_rslora": False, "use_dora": False, "activation_checkpointing": False}
    torch.manual_seed(0)
    ours = methods.lora(models.load(base), **how)
    with torch.no_grad():
        for name, weight in ours.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.1)
    renderer = Renderer(models.tokenizer(base))
    rows = [r for one in conversations.read(divided / "train.jsonl") for r in renderer.rows(one)]
    found = []
    for quick in (True, False):
        layers = [layer for layer in ours.modules() if "forward" in vars(layer) and not quick]
        for layer in layers:
            if hasattr(layer, "lora_A"):
                del layer.forward
        logits, tokens = scoring.logits(ours, scoring.collate(rows, 0))
        loss = torch.nn.functional.cross_entropy(logits, tokens)
        learning = [weight for weight in ours.parameters() if weight.requires_grad]
        found.append([*torch.autograd.grad(loss, learning)])
        assert any(hasattr(layer, "lora_A") for layer in layers) != quick
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second)


# Runs a module on a machine whose name stands for no address.
NAMELESS = """
import runpy, socket, sys
socket.getfqdn = lambda *_: "nowhere.invalid"
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_two_processes_learn_what_one_learns(
    method: str, base: Path, half: Path, divided: Path, tmp_path: Path
) -> None:
    seen = []
    start, precision = (half, "bf16") if method == "full" else (base, "no")
    for processes in (1, 2):
        (folder := tmp_path / str(processes)).mkdir()
        params = _params(method, processes=processes, epochs=8, precision=precision)
        places = (start, divided, folder / method, folder / "live" / method)
        words = [f"src.chat.{method}", *map(str, places), *words_of(params)]
        subprocess.run(
            [sys.executable, "-c", NAMELESS, *words],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            check=True,
            timeout=120,
        )
        seen.append(losses(folder / "live" / method))
    assert seen[1] == pytest.approx(seen[0], abs=0.05)
    assert min(seen[1]) < seen[1][0] - 0.05


def test_rows_are_padded_on_the_right() -> None:
    made = [Row([1, 2, 3], [False, False, True]), Row([1, 2], [False, True])]
    collated = scoring.collate(made, pad_token_id=9)
    assert collated["input_ids"].tolist() == [[1, 2, 3], [1, 2, 9]]
    assert collated["labels"].tolist() == [[-100, -100, 3], [-100, 2, -100]]
    assert collated["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
