"""What is computed in fewer steps is what libraries compute, its gradients too."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_model import make_conversations, make_family, make_started, tuned
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from src.chat import models, norms, scoring
from src.chat.optimizer import Doubled
from src.core.files import sha256


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norms_are_those_of_transformers(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    theirs, ours = (LlamaRMSNorm(24).to(dtype) for _ in range(2))
    with torch.no_grad():
        theirs.weight.copy_(torch.rand(24) + 0.5)
        ours.weight.copy_(theirs.weight)
    norms.choose(ours)
    assert "forward" in vars(ours)
    pull, found = torch.randn(3, 5, 24).to(dtype), []
    for layer in (theirs, ours):
        read = torch.randn(3, 5, 24, generator=torch.Generator().manual_seed(1)).to(dtype)
        given = layer(read.requires_grad_())
        given.backward(pull)
        found.append((given, read.grad, layer.weight.grad))
    for expected, value in zip(*found, strict=True):
        rtol, atol = (0.02, 0.05) if dtype == torch.bfloat16 else (1e-5, 1e-5)
        torch.testing.assert_close(value, expected, rtol=rtol, atol=atol)


def test_norms_that_compute_something_else_stay(tmp_path: Path) -> None:
    layer = Gemma3RMSNorm(24)  # whose weights are added to 1
    norms.choose(layer)
    assert "forward" not in vars(layer)
    model = models.load(make_started(tmp_path, make_family(tmp_path / "made", "qwen3")))
    chosen = [name for name, each in model.named_modules() if "forward" in vars(each)]
    assert len(chosen) == 2 * 4 + 1  # two of each layer, those of its queries and keys, the last


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_loss_and_its_gradients_are_those_of_torch(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    tokens = torch.randint(0, 40, (150,))  # more than are computed at once
    scores, found = (3 * torch.randn(150, 40)).to(dtype), []
    for ours in (True, False):
        logits = scores.clone().requires_grad_()
        if ours:
            total: Any = scoring.CrossEntropy.apply(logits, tokens)  # type: ignore[no-untyped-call]
        else:
            total = torch.nn.functional.cross_entropy(logits.float(), tokens, reduction="sum")
        (total * 0.25).backward()
        found.append((total.detach(), logits.grad))
    (total, gradients), (expected, of_torch) = found
    assert float(total) == pytest.approx(float(expected), rel=1e-5)
    torch.testing.assert_close(gradients, of_torch, rtol=0.01, atol=1e-4)


def test_steps_too_small_for_16_bits_add_up() -> None:
    start = torch.linspace(1, 2, 64)
    found = {}
    for name, dtype, kind in (
        ("kept", torch.bfloat16, Doubled),
        ("lost", torch.bfloat16, torch.optim.AdamW),
        ("float32", torch.float32, torch.optim.AdamW),
    ):
        weight = torch.nn.Parameter(start.to(dtype))
        optimizer = kind([{"params": [weight]}], lr=1e-4, weight_decay=0.0)
        for _ in range(200):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
            optimizer.zero_grad()
        found[name] = weight.detach().float()
    assert float((found["kept"] - found["float32"]).abs().max()) < 2**-7  # the last digit
    assert float((found["lost"] - found["float32"]).abs().max()) > 0.015  # none of the steps


def test_an_optimizer_of_16_bits_goes_on_from_its_state() -> None:
    def steps(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer, count: int) -> None:
        for _ in range(count):
            weight.grad = weight.detach() + 1
            optimizer.step()

    weights = [torch.nn.Parameter(torch.ones(8, dtype=torch.bfloat16)) for _ in range(2)]
    first, second = (Doubled([{"params": [weight]}], lr=1e-3) for weight in weights)
    steps(weights[0], first, 5)
    weights[1].data.copy_(weights[0])
    second.load_state_dict(deepcopy(first.state_dict()))
    steps(weights[0], first, 5)
    steps(weights[1], second, 5)
    kept = [optimizer.state_dict()["kept"][0] for optimizer in (first, second)]
    assert torch.equal(*kept)
    assert not torch.equal(kept[0], weights[0].float())  # there is something to lose


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_full_in_bf16_learns_as_in_32_bits(dtype: str, tmp_path: Path) -> None:
    base = make_started(tmp_path, dtype=dtype)
    divided = make_conversations(tmp_path)
    made = {}
    for precision in ("no", "bf16"):
        folder = tuned("full", base, divided, tmp_path / precision, precision=precision)
        made[precision] = models.load(folder).state_dict()
    again = tuned("full", base, divided, tmp_path / "again", precision="bf16")
    digests = [sha256(path / "model.safetensors") for path in (tmp_path / "bf16/full", again)]
    assert digests[0] == digests[1]
    start = models.load(base).state_dict()
    one, other = (
        torch.cat([(ended[name] - start[name]).float().flatten() for name in start])
        for ended in made.values()
    )
    kept = made["bf16"]["lm_head.weight"]  # with no more digits than the base had, and no fewer
    assert torch.equal(kept, kept.bfloat16().to(kept.dtype)) == (dtype == "bfloat16")
    assert float(torch.nn.functional.cosine_similarity(one, other, dim=0)) > 0.9
