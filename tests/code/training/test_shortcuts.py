"""Each shortcut leaves logits, gradients or whole trainings as stock Hugging Face has them."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from conftest import make_checkpoint

from src.text import encoder
from src.training import shortcuts

SMALL = {"initializer_range": 0.02}  # numbers whose last bits are below 1e-7
OFF: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
KNOWN: dict[str, dict[str, Any]] = {
    "bert": OFF,
    "roberta": OFF,
    "xlm-roberta": OFF,
    "distilbert": {
        "dim": 32,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 64,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "seq_classif_dropout": 0.0,
    },
}


def load(folder: Path, pooling: Literal["first", "mean"] = "first") -> Any:
    torch.manual_seed(1)
    model = encoder.load(str(folder), new_head=True, pooling=pooling, num_labels=3)[0]
    if pooling == "mean":
        torch.nn.init.normal_(model.classifier.weight)
    return model


def batch(masked: bool) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 20, (4, 10), generator=generator)
    mask = torch.ones_like(ids)
    if masked:
        mask[1, 6:] = 0
        mask[3, 2:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def logits_and_gradients(model: Any, **inputs: torch.Tensor) -> tuple[Any, dict[str, Any]]:
    model.zero_grad()
    logits = model(**inputs).logits
    logits.square().sum().backward()
    weights = [(n, w) for n, w in model.named_parameters() if w.grad is not None]
    gradients = {name: weight.grad.numpy() for name, weight in weights}
    return logits.detach().numpy(), gradients


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_less_work_has_stock_logits_and_gradients(
    pooling: Literal["first", "mean"], kind: str, masked: bool, training: bool, tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", kind, **KNOWN[kind] | SMALL)
    stock, short = load(folder, pooling).train(training), load(folder, pooling).train(training)
    assert shortcuts.shorten(short)
    assert list(short.state_dict()) == list(stock.state_dict())
    expected, expected_gradients = logits_and_gradients(stock, **batch(masked))
    found, gradients = logits_and_gradients(short, **batch(masked))
    assert found == pytest.approx(expected, abs=1e-7)
    assert list(gradients) == list(expected_gradients)
    for name, gradient in expected_gradients.items():
        assert gradients[name] == pytest.approx(gradient, abs=1e-6), name


def test_the_last_layer_leaves_other_tokens_out(tmp_path: Path) -> None:
    model = load(make_checkpoint(tmp_path / "checkpoint"))
    seen = []
    for layer in model.bert.encoder.layer:
        layer.intermediate.register_forward_hook(lambda *call: seen.append(call[2].shape[1]))
    assert shortcuts.shorten(model)
    model(**batch(masked=False))
    assert seen == [10, 1]


def test_attention_with_dropout_is_that_without_where_nothing_is_dropped(tmp_path: Path) -> None:
    """The two ways that attention is computed agree: with a share of dropout too small to act."""
    folder = make_checkpoint(tmp_path / "checkpoint", **OFF | SMALL)
    stock, short = load(folder).train(), load(folder).train()
    shortcuts.shorten(short)
    for layer in short.bert.encoder.layer:
        layer.attention.self.dropout = shortcuts.Dropout(1e-9)
    expected, _ = logits_and_gradients(stock, **batch(masked=True))
    found, _ = logits_and_gradients(short, **batch(masked=True))
    assert found == pytest.approx(expected, abs=1e-7)


def test_an_unknown_architecture_is_left_alone(tmp_path: Path) -> None:
    model = load(make_checkpoint(tmp_path / "checkpoint", "modernbert", cls_token_id=2))
    before = model(**batch(masked=True)).logits
    assert not shortcuts.shorten(model)
    assert torch.equal(model(**batch(masked=True)).logits, before)


def test_dropout_has_the_share_the_scale_and_the_gradient_of_torch() -> None:
    torch.manual_seed(1)
    dropout = shortcuts.Dropout(0.1)
    x = torch.full((1000, 1001), 2.0, requires_grad=True)
    y = dropout(x)
    dropped = y == 0
    assert dropped.float().mean().item() == pytest.approx(0.1, abs=0.001)
    assert y[~dropped].unique().tolist() == pytest.approx([2 / 0.9], abs=1e-4)
    # Neighbours, which share a random number, are dropped independently of each other.
    for distance in (1, 2, 3, 4):
        both = (dropped[:, distance:] & dropped[:, :-distance]).float().mean().item()
        assert both == pytest.approx(0.01, abs=0.0005)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach() / 2)
    assert torch.equal(dropout.eval()(x), x)
    torch.manual_seed(1)
    assert torch.equal(dropout.train()(x) == 0, dropped), "the seed fixes it"


def test_dropout_takes_the_place_of_torch_everywhere(tmp_path: Path) -> None:
    model = load(make_checkpoint(tmp_path / "checkpoint"))
    count = sum(type(module) is torch.nn.Dropout for module in model.modules())
    shortcuts.replace_dropout(model)
    kinds = [type(module) for module in model.modules()]
    assert count > 0
    assert kinds.count(torch.nn.Dropout) == 0
    assert kinds.count(shortcuts.Dropout) == count


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_a_cut_vocabulary_trains_every_row_as_the_whole_does(
    weight_decay: float, tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "checkpoint", **OFF | SMALL)
    whole, cut = load(folder), load(folder)
    inputs = batch(masked=True)
    tokens = inputs["input_ids"].numpy().astype(np.int32)
    vocabulary = shortcuts.CutVocabulary(cut, tokens)
    rows = cut.get_input_embeddings().weight.shape[0]
    assert rows <= len(np.unique(tokens)) + 2 < whole.get_input_embeddings().weight.shape[0]
    ids = torch.from_numpy(vocabulary.ids(tokens)).long()
    for model, tokens_of_model in ((whole, inputs["input_ids"]), (cut, ids)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=weight_decay)
        for _ in range(5):
            optimizer.zero_grad()
            model(**inputs | {"input_ids": tokens_of_model}).logits.square().sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
    vocabulary.restore()
    trained = cut.get_input_embeddings().weight.detach().numpy()
    assert trained == pytest.approx(whole.get_input_embeddings().weight.detach().numpy(), abs=1e-6)
    start = load(folder).get_input_embeddings().weight.detach().numpy()
    unseen = np.setdiff1d(np.arange(len(start)), tokens)
    assert (trained[unseen] == pytest.approx(start[unseen], abs=1e-6)) == (weight_decay == 0)
