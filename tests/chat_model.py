"""A tiny language model with random weights, for tests of conversations."""

import json
from pathlib import Path
from typing import Any

import gguf
import torch
from conftest import ROOT
from ruamel.yaml import YAML
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast
from transformers.models.llama import LlamaConfig

from src.chat.templates import TEMPLATES

FILE = ROOT / "chat/params.yaml"
PARAMS: dict[str, Any] = YAML(typ="safe").load(FILE) if FILE.exists() else {}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>"]
# Writes tools and calls by itself, and leaves thoughts of earlier answers out, as Qwen's does.
NATIVE = (
    "{% if tools %}{{ '<|im_start|>system\\n' }}{% for tool in tools %}{{ tool | tojson }}"
    "{% endfor %}{{ '<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' and not loop.last %}{{ m.content.split('</think>')[-1] }}"
    "{% else %}{{ m.content }}{% endif %}"
    "{% for call in m.tool_calls or [] %}{{ '<call>' }}{{ call.function | tojson }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make_tokenizer(template: str | None = TEMPLATES["chatml"], **more: Any) -> Any:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(["the user asks and the assistant answers"], trainer)
    kind: Any = PreTrainedTokenizerFast
    ends = {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"}
    tokenizer = kind(tokenizer_object=made, **ends | more)
    tokenizer.chat_template = template
    return tokenizer


def make_language_model(folder: Path, template: str | None = TEMPLATES["chatml"]) -> Path:
    """Leave a Llama of two layers in a folder, as Hugging Face has it."""
    tokenizer = make_tokenizer(template)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    causal: Any = AutoModelForCausalLM
    causal.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_gguf(folder: Path, made: Path) -> Path:
    """Write the model in ``made`` as llama.cpp has it."""
    causal: Any = AutoModelForCausalLM
    model = causal.from_pretrained(made)
    config, path = model.config, folder / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    stored = json.loads((made / "tokenizer.json").read_text())["model"]
    tokens = sorted(stored["vocab"], key=stored["vocab"].__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in SPECIAL else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in stored["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_chat_template(TEMPLATES["chatml"])
    names = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }
    names |= {"lm_head.weight": "output.weight"}
    parts = {
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(config.num_hidden_layers):
        for ours, theirs in parts.items():
            names[f"model.layers.{layer}.{ours}.weight"] = f"blk.{layer}.{theirs}.weight"
    for name, tensor in model.state_dict().items():
        values = tensor.float().numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):  # whose halves llama.cpp interleaves
            heads = values.shape[0] // config.head_dim
            halves = values.reshape(heads, 2, config.head_dim // 2, -1)
            values = halves.swapaxes(1, 2).reshape(values.shape)
        if name in names:
            writer.add_tensor(names[name], values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# The values of a training that is over in a second; a method takes those that it has.
TINY: dict[str, Any] = {
    "rank": 4,
    "alpha": 16.0,
    "virtual_tokens": 4,
    "init_weights": "random",
    "lr": 0.02,
    "epochs": 3,
    "batch_size": 4,
    "max_length": 128,
    "precision": "no",
    "logging_steps": 2,
    "save_steps": 4,
    "threads": 1,
}


def make_started(folder: Path, made: Path | None = None, dtype: str = "float32") -> Path:
    """What the stage ``base`` makes of a tiny model."""
    from src.chat import base

    made = made or make_language_model(folder / "made")
    section = {"checkpoint": str(made), "sha256": "", "dtype": dtype}
    base.main(folder, folder / "base", **(PARAMS["base"] | section))
    return folder / "base"


def make_family(
    folder: Path, family: str, template: str = TEMPLATES["chatml"], **config: Any
) -> Path:
    """Leave a tiny model of another family in a folder."""
    from transformers import AutoConfig

    tokenizer = make_tokenizer(template)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    made = AutoConfig.for_model(
        family, **{"vocab_size": len(tokenizer)} | sizes | heads | ends | config
    )
    torch.manual_seed(0)
    causal: Any = AutoModelForCausalLM
    causal.from_config(made).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_conversations(folder: Path) -> Path:
    """Leave the sides of a division in a folder."""
    from src.chat import conversations
    from src.chat.conversations import Conversation, Turn

    for side, numbers in (
        ("train", range(24)),
        ("validation", range(24, 30)),
        ("test", range(30, 36)),
    ):
        made = []
        for number in numbers:
            asked = f"where is {number} of the {'x' * (number % 7)}?"
            turns = (Turn("user", asked, False), Turn("assistant", f"the {number} is here", True))
            made.append(Conversation(turns, (), f"{side}:{number}", side))
        conversations.write(made, folder / f"{side}.jsonl")
    return folder


def tuned(method: str, base: Path, divided: Path, folder: Path, **changes: Any) -> Path:
    """Run the stage of a method, which leaves its folder and a folder ``live`` in ``folder``."""
    from importlib import import_module

    section = PARAMS[method] | {key: TINY[key] for key in TINY.keys() & PARAMS[method].keys()}
    folder.mkdir(parents=True, exist_ok=True)
    main = import_module(f"src.chat.{method}").main
    main(base, divided, folder / method, folder / "live" / method, **section | changes)
    return folder / method
