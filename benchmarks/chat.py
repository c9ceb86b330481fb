"""Fine-tune a language model side by side with ms-swift, LLaMA-Factory and TRL, and generate.

    python benchmarks/chat.py train data/chat/conversations --base models/chat/base \
        --llamafactory .venv-chat-llamafactory/bin/python --swift .venv-chat-swift/bin/python
    python benchmarks/chat.py generate data/chat/conversations --base models/chat/base

The conversations are those of the train and the validation side, each as many whole exchanges of a
user and the model as fit into ``--tokens``, the longest of them. Every tool gets the same ones as
messages, the same batches, rate, epochs and threads, bfloat16, and learns what the model says. The
time is that of the training loop, ours with its validation and its checkpoint; CPU time and peak
memory are of the whole command. What each made is then judged by the same loss on the same rows
that it did not see. Peers take turns in each round, with a seed of the round's own.

Answers have all the same number of tokens, the likeliest in bfloat16, where few ties are broken
alike: how good they are is told by how likely each way's are to the same model in float32.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from chat_peers import BATCH, LR, MARKED, llamafactory, swift, trl
from measure import ROOT, command, machine, ratios, say, summary, write
from peft import PeftModel
from transformers import AutoModelForCausalLM

from src.chat import conversations, models, scoring
from src.chat.conversations import Conversation, Turn
from src.chat.engine import Engine
from src.chat.generation import Generation
from src.chat.rendering import Renderer, Row
from src.project import params

SYSTEM = "You are a helpful assistant."  # said to each, since templates have one of their own
THREADS = 2
EACH_ALONE = 8  # prompts that transformers is asked one by one in a round, of all


def dialogs(path: Path, renderer: Renderer, tokens: int, most: int) -> list[Conversation]:
    """Return the longest conversations of a side that have no more tokens, cut where a turn ends.

    Calls of tools and their answers become what the model and the user say.
    """
    found = []
    for one in conversations.read(path):
        turns = [Turn("system", SYSTEM, False)]
        best: tuple[int, Conversation] | None = None
        for turn in one.turns:
            if turn.role in ("user", "assistant"):
                _say(turns, turn.role, turn.content)
            elif turn.role == "tool":
                call = {"name": turn.name, "arguments": turn.parameters}
                _say(turns, "assistant", json.dumps(call, ensure_ascii=False))
                if turn.answered:
                    _say(turns, "user", turn.content)
            if turns[-1].role == "assistant":
                cut = Conversation(tuple(turns), id=one.id, source=one.source)
                (row,) = renderer.rows(cut)
                if len(row.ids) > tokens:
                    break
                best = len(row.ids), cut
        if best:
            found.append(best)
    chosen = sorted(found, key=lambda pair: -pair[0])[:most]
    if len(chosen) < most:
        sys.exit(f"{path} has {len(chosen)} conversations of {tokens} tokens at most, not {most}.")
    return [one for _, one in sorted(chosen, key=lambda pair: pair[1].id)]


def _say(turns: list[Turn], role: Any, content: str) -> None:
    learnt = role == "assistant"
    if turns[-1].role == role:
        turns[-1] = replace(turns[-1], content=f"{turns[-1].content}\n{content}")
    else:
        turns.append(Turn(role, content, learnt))


def messages(one: Conversation) -> list[dict[str, str]]:
    """A conversation as OpenAI has it."""
    return [{"role": turn.role, "content": turn.content} for turn in one.turns]


def ours(method: str, base: Path, folder: Path, seed: int) -> tuple[list[object], Path]:
    """The command of the stage, and where it leaves what it made."""
    output = folder / f"ours-{seed}"
    section = params.read(ROOT / "chat/params.yaml")[method]
    changes = {"lr": LR[method], "epochs": 1, "batch_size": BATCH, "seed": seed, "max_length": 512}
    changes |= {"threads": THREADS, "save_steps": 0}
    words: list[object] = [sys.executable, "-m", f"src.chat.{method}", base, folder / "ours"]
    words += [output, folder / f"live-{seed}" / method, *params.words_of(section | changes)]
    return words, output


def loss_of(method: str, base: Path, output: Path, rows: Sequence[Row]) -> float:
    """Judge what a tool made by the loss of a learnt token, computed as it is for ours."""
    kind: Any = AutoModelForCausalLM
    marks = ("adapter_config.json", "model.safetensors")
    made = [path.parent for mark in marks for path in output.rglob(mark)]
    if not made:
        sys.exit(f"There is no model in {output}.")
    newest = min(made, key=lambda path: len(path.parts))
    if method == "full":
        model = kind.from_pretrained(newest, dtype=torch.float32)
    else:
        model = PeftModel.from_pretrained(
            kind.from_pretrained(base, dtype=torch.float32), str(newest)
        )
    model.eval()
    pad = models.tokenizer(base).pad_token_id
    found = scoring.log_probabilities(model, rows, pad, 4096)
    return -float(torch.cat(found).double().mean())


def train(arguments: argparse.Namespace) -> None:
    """Measure a method's training, print a table and write a report."""
    method, base = arguments.method, arguments.base.resolve()
    renderer = Renderer(models.tokenizer(base))
    peers: dict[str, Callable[[Path, int], tuple[list[object], Path]]] = {
        "TRL": lambda folder, seed: trl(method, marked, folder, seed)
    }
    if method != "ptuning":  # which the others have not
        if path := arguments.llamafactory:
            peers["LLaMA-Factory"] = lambda f, seed: llamafactory(path, method, base, f, seed)
        if other := arguments.swift:
            peers["ms-swift"] = lambda f, seed: swift(other, method, base, f, seed)
    peers["Pedigree"] = lambda folder, seed: ours(method, base, folder, seed)
    runs: dict[str, list[dict[str, float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        learnt = dialogs(
            arguments.conversations / "train.jsonl", renderer, arguments.tokens, arguments.rows
        )
        unseen = dialogs(
            arguments.conversations / "validation.jsonl", renderer, arguments.tokens, BATCH * 2
        )
        tokens = sum(len(renderer.rows(one)[0].ids) for one in learnt)
        judged = [row for one in unseen for row in renderer.rows(one)]
        _write_rows(folder, learnt, unseen[:1])
        marked = _marked(base, folder)
        for seed in range(1, arguments.rounds + 1):
            for name, peer in peers.items():
                words, output = peer(folder, seed)
                threads = {"OMP_NUM_THREADS": str(THREADS), "HF_HOME": str(folder / "cache")}
                threads |= {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_DISABLE_TELEMETRY": "1"}
                threads |= {"PYTHONPATH": str(ROOT) if name == "Pedigree" else ""}
                log = folder / "log"
                weight = command(words, log, folder, **threads)
                found = re.findall(
                    r"""['"]train_runtime['"]: ['"]?([\d.]+)|those of this run took ([\d.]+) s""",
                    log.read_text(),
                )
                if not found:
                    sys.exit(f"{name} told of no time:\n{log.read_text()[-3000:]}")
                seconds = float("".join(found[-1]))
                loss = loss_of(method, base, output, judged)
                figures = {"tokens_s": tokens / seconds, "loss": loss} | weight
                runs[name].append(figures)
                say(
                    f"round {seed}: {method}, {name}: {figures['tokens_s']:.0f} tokens/s, "
                    f"{weight['peak_mib']:.0f} MiB, loss {figures['loss']:.4f}"
                )
        before = loss_of("full", base, base, judged)
    _report(method, runs, before, tokens, arguments)


def _marked(base: Path, folder: Path) -> Path:
    """The model with a template by which TRL knows what is learnt."""
    made = folder / "marked"
    made.mkdir()
    for path in base.iterdir():
        if path.name != "chat_template.jinja":
            (made / path.name).symlink_to(path)
    (made / "chat_template.jinja").write_text(MARKED)
    return made


def _write_rows(
    folder: Path, learnt: Sequence[Conversation], watched: Sequence[Conversation]
) -> None:
    """Write the same rows in the form of each tool."""
    for name in ("ours", "llamafactory", "trl"):
        (folder / name).mkdir()
    for side, rows in (("train", learnt), ("validation", watched)):
        conversations.write(rows, folder / f"ours/{side}.jsonl")
    lines = [json.dumps({"messages": messages(one)}, ensure_ascii=False) for one in learnt]
    for path in ("swift.jsonl", "trl/train.jsonl", "llamafactory/rows.jsonl"):
        (folder / path).write_text("\n".join(lines) + "\n", encoding="utf-8")
    tags = {"role_tag": "role", "content_tag": "content", "system_tag": "system"}
    tags |= {"user_tag": "user", "assistant_tag": "assistant"}
    form = {"file_name": "rows.jsonl", "formatting": "sharegpt", "tags": tags}
    form |= {"columns": {"messages": "messages"}}
    (folder / "llamafactory/dataset_info.json").write_text(json.dumps({"rows": form}))


def _report(
    method: str,
    runs: dict[str, list[dict[str, float]]],
    before: float,
    tokens: int,
    arguments: argparse.Namespace,
) -> None:
    own = runs["Pedigree"]
    rows: dict[str, Any] = {}
    print(f"\n{method}, {arguments.rows} rows of {tokens} tokens, loss before {before:.4f}\n")
    print("| | tokens/s | Pedigree is faster (range) | peak memory, MiB | loss (range) |")
    print("| --- | --- | --- | --- | --- |")
    for name, measured in runs.items():
        found = summary(measured)
        ratio = ratios([r["tokens_s"] for r in own], [r["tokens_s"] for r in measured])
        memory = ratios([r["peak_mib"] for r in own], [r["peak_mib"] for r in measured])
        rows[name] = {"figures": found, "faster": ratio, "memory": memory, "runs": measured}
        print(
            f"| {name} | {found['tokens_s']['median']:.0f} | {ratio['median']:.2f} "
            f"({ratio['min']:.2f} to {ratio['max']:.2f}) | {found['peak_mib']['median']:.0f}, "
            f"ours {memory['median']:.2f} of it | {found['loss']['median']:.4f} "
            f"({found['loss']['min']:.4f} to {found['loss']['max']:.4f}) |"
        )
    print(f"\n{machine()['processor']}, {', '.join(machine()['instructions'])}")
    versions = _versions(sys.executable, "torch", "transformers", "trl", "peft")
    for python, name in ((arguments.llamafactory, "llamafactory"), (arguments.swift, "ms-swift")):
        if python and method != "ptuning":
            versions |= _versions(python, name)
    report = {"tokens": tokens, "loss_before": before, "versions": versions, "rows": rows}
    write(f"chat-{method}", report)


def _versions(python: str, *packages: str) -> dict[str, str]:
    code = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]))"
    made = subprocess.run(  # noqa: S603
        [python, "-c", code, *packages], check=True, capture_output=True, text=True
    )
    return dict(zip(packages, made.stdout.split(), strict=True))


def generate(arguments: argparse.Namespace) -> None:
    """Measure how fast prompts are answered, print a table and write a report."""
    base = arguments.base.resolve()
    torch.set_num_threads(THREADS)
    engine = Engine(base, threads=THREADS)
    engine.ends = set()  # each answer has all its tokens, for us and for the peer
    renderer = Renderer(models.tokenizer(base))
    read = conversations.read(arguments.conversations / "train.jsonl")
    opening = [Conversation(one.turns[:1]) for one in read if one.turns[0].role == "user"]
    prompts = [renderer.prompt(one, 1) for one in opening[: arguments.prompts]]
    if len(prompts) < arguments.prompts:
        sys.exit(f"There are {len(prompts)} conversations that a user opens.")
    kind: Any = AutoModelForCausalLM
    model = kind.from_pretrained(base).eval()
    model.generation_config.eos_token_id = None
    tokenizer = models.tokenizer(base)
    tokenizer.padding_side = "left"
    how = {"max_new_tokens": arguments.new, "do_sample": False}

    def alone() -> list[str]:
        found = []
        for prompt in prompts[:EACH_ALONE]:
            given = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
            made = model.generate(**given, **how)[0, given.input_ids.shape[1] :]
            found.append(tokenizer.decode(made, skip_special_tokens=True))
        return found

    def padded() -> list[str]:
        given = tokenizer(prompts, return_tensors="pt", padding=True, add_special_tokens=False)
        made = model.generate(**given, **how)[:, given.input_ids.shape[1] :]
        return list(tokenizer.batch_decode(made, skip_special_tokens=True))

    def own() -> list[str]:
        return [one.text for one in engine.answers(prompts, Generation(arguments.new), 16384)]

    ways = {"one by one": alone, "one padded batch": padded, "Pedigree": own}
    runs: dict[str, list[float]] = defaultdict(list)
    said: dict[str, list[str]] = {}
    for number in range(1, arguments.rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            said[name] = way()
            seconds = time.perf_counter() - start
            share = EACH_ALONE / len(prompts) if name == "one by one" else 1
            runs[name].append(seconds / share)
            say(f"round {number}: {name}: {runs[name][-1]:.1f} s")
    judge = kind.from_pretrained(base, dtype=torch.float32).eval()
    likely = {name: _likely(judge, tokenizer, prompts, texts) for name, texts in said.items()}
    equal = sum(a == b for a, b in zip(said["Pedigree"], said["one padded batch"], strict=True))
    alike = sum(a == b for a, b in zip(said["one padded batch"], said["one by one"], strict=False))
    rows: dict[str, Any] = {
        name: {
            "seconds": statistics.median(seconds),
            "faster": ratios(seconds, runs["Pedigree"]),
            "log_probability": likely[name],
            "runs": seconds,
        }
        for name, seconds in runs.items()
    }
    print("| | seconds | Pedigree is faster (range) | log-probability of a token |")
    print("| --- | --- | --- | --- |")
    for name, row in rows.items():
        ratio = row["faster"]
        print(
            f"| {name} | {row['seconds']:.1f} | {ratio['median']:.2f} "
            f"({ratio['min']:.2f} to {ratio['max']:.2f}) | {row['log_probability']:.4f} |"
        )
    print(f"{equal} of {len(prompts)} answers as in the batch; {alike} of {EACH_ALONE} there alone")
    report = {"prompts": len(prompts), "new": arguments.new, "equal": equal, "rows": rows}
    versions = _versions(sys.executable, "torch", "transformers")
    write("chat-generate", report | {"alike_alone": [alike, EACH_ALONE], "versions": versions})


def _likely(model: Any, tokenizer: Any, prompts: Sequence[str], answers: Sequence[str]) -> float:
    """Return the log-probability of a token of the first answers, as many as all ways have."""
    rows = []
    for prompt, answer in zip(prompts[:EACH_ALONE], answers, strict=False):
        asked, whole = (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in (prompt, prompt + answer)
        )
        learnt = len(whole) - len(asked)
        rows.append(Row(whole, [False] * len(asked) + [True] * learnt))
    found = scoring.log_probabilities(model, rows, tokenizer.pad_token_id, 4096)
    return float(torch.cat(found).double().mean())


def main() -> None:
    """Measure what the words ask for."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("train", "generate"))
    parser.add_argument("conversations", type=Path, help="the folder of the sides")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--method", choices=tuple(LR), default="lora")
    parser.add_argument("--llamafactory", help="a Python that has it")
    parser.add_argument("--swift", help="likewise")
    parser.add_argument("--tokens", type=int, default=256, help="of a conversation at most")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--new", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    (train if arguments.what == "train" else generate)(arguments)


if __name__ == "__main__":
    main()
