"""The commands by which ms-swift, LLaMA-Factory and TRL fine-tune, for benchmarks/chat.py."""

import json
import sys
from pathlib import Path

LR = {"lora": 1e-3, "full": 1e-4, "ptuning": 5e-2}
BATCH = 4
# A template that says to TRL what the model learns; with other words it writes the same.
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\\n' }}{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# What TRL's command line has no words for: keys and values before each layer.
PREFIX = """
import sys
from datasets import load_dataset
from peft import PrefixTuningConfig
from transformers import HfArgumentParser
from trl import SFTConfig, SFTTrainer
base, rows, *words = sys.argv[1:]
(arguments,) = HfArgumentParser(SFTConfig).parse_args_into_dataclasses(words)
config = PrefixTuningConfig(num_virtual_tokens=32, init_weights="zero", task_type="CAUSAL_LM")
trainer = SFTTrainer(
    base, arguments, train_dataset=load_dataset(rows, split="train"), peft_config=config
)
trainer.train()
trainer.save_model()
"""


def trl(method: str, base: Path, folder: Path, seed: int) -> tuple[list[object], Path]:
    """The command of TRL, and where it leaves what it made."""
    output = folder / f"trl-{seed}"
    words: list[object] = [
        *("--per_device_train_batch_size", BATCH, "--num_train_epochs", 1),
        *("--learning_rate", LR[method], "--lr_scheduler_type", "cosine", "--warmup_steps", 0.1),
        *("--weight_decay", 0.0, "--bf16", "true", "--use_cpu", "true", "--seed", seed),
        *("--assistant_only_loss", "true", "--max_length", 512, "--save_strategy", "epoch"),
        *("--report_to", "none", "--output_dir", output, "--logging_steps", 5),
        *("--gradient_checkpointing", "false"),
    ]
    rows = folder / "trl"
    if method == "ptuning":
        return [sys.executable, "-c", PREFIX, base, rows, *words], output
    lora = ["--use_peft", "--lora_r", 8, "--lora_alpha", 16, "--lora_dropout", 0.0]
    lora += ["--lora_target_modules", "all-linear"]
    start = [Path(sys.executable).parent / "trl", "sft", "--model_name_or_path", base]
    start += ["--dataset_name", rows, "--dtype", "bfloat16"]
    return [*start, *words, *(lora if method == "lora" else [])], output


def llamafactory(
    python: str, method: str, base: Path, folder: Path, seed: int
) -> tuple[list[object], Path]:
    """The command of LLaMA-Factory, and where it leaves what it made."""
    output = folder / f"llamafactory-{seed}"
    lora = {"lora_rank": 8, "lora_alpha": 16, "lora_dropout": 0.0, "lora_target": "all"}
    config = {
        "model_name_or_path": str(base),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": method,
        "dataset_dir": str(folder / "llamafactory"),
        "dataset": "rows",
        "template": "chatml",
        "cutoff_len": 512,
        "output_dir": str(output),
        "per_device_train_batch_size": BATCH,
        "learning_rate": LR[method],
        "num_train_epochs": 1,
        "lr_scheduler_type": "cosine",
        "warmup_ratio": 0.1,
        "bf16": True,
        "use_cpu": True,
        "seed": seed,
        "save_strategy": "epoch",
        "logging_steps": 5,
        "report_to": "none",
        "overwrite_cache": True,
        "disable_gradient_checkpointing": True,
        **(lora if method == "lora" else {}),
    }
    path = folder / f"llamafactory-{seed}.yaml"
    path.write_text(json.dumps(config))
    return [Path(python).parent / "llamafactory-cli", "train", path], output


def swift(
    python: str, method: str, base: Path, folder: Path, seed: int
) -> tuple[list[object], Path]:
    """The command of ms-swift, and where it leaves what it made."""
    output = folder / f"swift-{seed}"
    lora = ["--lora_rank", 8, "--lora_alpha", 16, "--lora_dropout", 0.0]
    lora += ["--target_modules", "all-linear"]
    words: list[object] = [
        *(Path(python).parent / "swift", "sft", "--model", base, "--model_type", "llama"),
        *("--template", "chatml", "--tuner_type", method, "--torch_dtype", "bfloat16"),
        *("--dataset", folder / "swift.jsonl", "--split_dataset_ratio", 0),
        *("--per_device_train_batch_size", BATCH, "--gradient_accumulation_steps", 1),
        *("--learning_rate", LR[method], "--num_train_epochs", 1, "--lr_scheduler_type", "cosine"),
        *("--warmup_ratio", 0.1, "--weight_decay", 0.0, "--bf16", "true", "--use_cpu", "true"),
        *("--seed", seed, "--data_seed", seed, "--max_length", 512, "--save_strategy", "epoch"),
        *("--report_to", "none", "--output_dir", output, "--add_version", "false"),
        *("--logging_steps", 5, "--gradient_checkpointing", "false", "--device_map", "cpu"),
        *(lora if method == "lora" else []),
    ]
    return words, output
