"""Two processes share a training: they learn what one learns, and end and go on together."""

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import (
    ROOT,
    digest,
    errors_in,
    make_checkpoint,
    probed,
    run_train,
    train_command,
)
from safetensors.torch import load_file, save_file

from src.tables import examples

pytestmark = pytest.mark.slow

# Steps of two batches, 12 an epoch, with dropout.
PAIR: dict[str, Any] = {
    "processes": 2,
    "epochs": 3,
    "early_stopping_patience": 0,
    "gradient_accumulation_steps": 2,
    "save_steps": 5,
    "logging_steps": 1,
    "pooling": "mean",
    "activation_checkpointing": True,
}
# Loaded by Python as it starts: each process writes down the texts of Trainer's batches.
SPY = """
import os
import sys
if "RANK" in os.environ:
    from src.text import encoder
    collate = encoder.collate
    def spy(ids, pad_token_id):
        if sys._getframe(1).f_code.co_name == "_collate":
            with open(f"seen-{os.environ['RANK']}", "a") as file:
                file.writelines(f"{row.tolist()}\\n" for row in ids)
        return collate(ids, pad_token_id)
    encoder.collate = spy
"""


@pytest.fixture(scope="module")
def undisturbed(splits: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that nothing happened to, and what each process saw beside it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "sitecustomize.py").write_text(SPY)
    done = run_train(splits, folder / "out", checkpoint, **PAIR)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_every_process_sees_every_text_once_an_epoch(splits: Path, undisturbed: Path) -> None:
    """With dropout, which draws from the generator that the order is drawn from."""
    seen = [(undisturbed.parent / f"seen-{rank}").read_text().splitlines() for rank in (0, 1)]
    times = Counter(seen[0] + seen[1])
    names = ("train.parquet", "validation.parquet")
    train, validation = (len(examples.read(splits / name)) for name in names)
    assert len(times) == train + validation
    assert min(times.values()) == 3, "none is missed in any of three epochs"
    # Validation texts are read twice more: before the first step, and to calibrate the model.
    assert sum(count >= 5 for count in times.values()) >= validation
    most = 3 * (len(times) + 16) + 2 * (validation + 16)
    assert sum(times.values()) <= most, "few are repeated, to fill a last batch"


def test_they_go_on_together(
    splits: Path, checkpoint: Path, tmp_path: Path, undisturbed: Path
) -> None:
    command = train_command(splits, tmp_path / "out", checkpoint, **PAIR)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        next(line for line in process.stderr if "src.training.recording: step 30/" in line)
        process.kill()  # the processes that it started end with it
    again = run_train(splits, tmp_path / "out", checkpoint, forked=True, **PAIR)
    assert again.returncode == 0, again.stderr
    assert again.stderr.count("INFO src.training.checkpoints: goes on from step ") == 1
    assert digest(tmp_path / "out") == digest(undisturbed)


def test_processes_share_a_batch_and_learn_the_same(splits: Path, tmp_path: Path) -> None:
    """One batch holds all texts, and nothing is dropped: one process or two see the same.

    The head starts at random: at a probe's optimum the gradients are rounding alone, and of that
    Adam makes whole steps.
    """
    off: dict[str, Any] = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    checkpoint = make_checkpoint(tmp_path / "checkpoint", **off)
    texts = len(examples.read(splits / "train.parquet"))
    changes = {"batch_size": texts, "epochs": 4, "lr": 1e-3, "early_stopping_patience": 0}
    weights = []
    for processes in (1, 2):
        target = tmp_path / str(processes) / "out"
        target.parent.mkdir()
        start = probed(splits, target, checkpoint) / "model.safetensors"
        random = torch.Generator().manual_seed(1)
        tensors = load_file(start)
        tensors["classifier.weight"].normal_(std=0.02, generator=random)
        tensors["classifier.bias"].zero_()
        save_file(tensors, start, {"format": "pt"})
        done = run_train(splits, target, checkpoint, forked=True, processes=processes, **changes)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("step 4/4: train/loss") == 1, "one of them writes"
        assert {file.name for file in target.glob("[!.]*")} == {"model", "model.json", "live"}
        weights.append(load_file(target / "model" / "model.safetensors"))
    for name, weight in weights[0].items():
        assert weights[1][name].numpy() == pytest.approx(weight.numpy(), abs=1e-4), name
    before = load_file(checkpoint / "model.safetensors")
    name = "bert.encoder.layer.0.output.dense.weight"
    assert weights[1][name].numpy() != pytest.approx(before[name].numpy(), abs=1e-3), "it learns"


def test_processes_that_fail_leave_one_sentence(
    splits: Path, checkpoint: Path, tmp_path: Path
) -> None:
    shutil.copytree(splits, tmp_path / "splits")
    probed(tmp_path / "splits", tmp_path / "out", checkpoint)
    (tmp_path / "splits" / "labels.json").write_text('["money", "sport", "film"]')
    done = run_train(tmp_path / "splits", tmp_path / "out", checkpoint, forked=True, processes=2)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (error,) = errors_in(done.stderr)
    assert error.startswith("Expected a model of the classes ['money', 'sport', 'film'], found one")
    assert not (tmp_path / "out" / "model").exists()


def test_a_process_that_is_killed_is_named(splits: Path, checkpoint: Path, tmp_path: Path) -> None:
    die = "import os\nif os.environ.get('RANK') == '1': os.kill(os.getpid(), 9)\n"
    (tmp_path / "sitecustomize.py").write_text(die)
    done = run_train(splits, tmp_path / "out", checkpoint, processes=2)
    assert done.returncode == 1
    (error,) = errors_in(done.stderr)
    assert error.startswith("Process 1 of the 2 that train has ended with exit code -9: ")
    assert not (tmp_path / "out" / "model").exists()
