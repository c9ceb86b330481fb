"""Serve a language model side by side with vLLM by hand, transformers and ms-swift.

    python benchmarks/chat_serve.py servers --base models/chat/base --swift PYTHON
    python benchmarks/chat_serve.py adapters --base models/chat/base --adapter models/chat/lora \
        --merged models/chat/merged --int4 models/chat/int4
    python benchmarks/chat_serve.py start --base models/chat/base
    python benchmarks/chat_serve.py soak --base models/chat/base --engine vllm --requests 10000

Every server gets the same questions, whose answers are streams of the likeliest tokens in bfloat16,
by 1, 8 and 32 clients. All servers are up, and those that are not asked are stopped (SIGSTOP), so
that each has both cores; in each round all take their turns. How good answers are is told by how
likely they are to the same model in float32. Memory is what the processes of a server have alone
(USS) after the last round. ``soak`` asks one server many times, and watches that memory.
"""

import argparse
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import psutil
import torch
from measure import ROOT, ratios, say, write

from src.chat import models, scoring
from src.chat.rendering import Row

VLLM = ROOT / ".venv-vllm" / "bin"
TOPICS = (
    *("a river", "an old clock", "two sisters", "the sea", "a lost dog", "winter", "a letter"),
    *("a train", "the moon", "a garden", "a thief", "a bridge", "bread", "a storm", "a king"),
    *("a mountain", "glass", "a school", "the desert", "a song", "a mirror", "fire", "a market"),
    *("a boat", "an island", "a painter", "a wolf", "rain", "a door", "a forest", "salt", "a lamp"),
)
CLIENTS = {1: 4, 8: 16, 32: 32}  # and how many of the questions are asked by so many
PATIENCE = 600


@dataclass
class Server:
    """A server of a model.

    Attributes:
        name: of it.
        words: its command, in which PORT stands for a port.
        model: by which name it is asked.
    """

    name: str
    words: Sequence[object]
    model: str
    variables: dict[str, str] = field(default_factory=dict)
    health: str = "/v1/models"  # which answers once the model is there
    started: float = 0.0  # seconds that it took to answer

    @contextmanager
    def running(self, folder: Path) -> Iterator["Server"]:
        """Start it, wait until it answers, and end it behind the block."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        words = [str(word).replace("PORT", str(port)) for word in self.words]
        self.url = f"http://127.0.0.1:{port}"
        begun = time.perf_counter()
        log = folder / f"{self.name.replace(' ', '-').replace('/', '-')}.log"
        with log.open("w") as file:
            process = subprocess.Popen(  # noqa: S603
                words,
                cwd=ROOT,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env=os.environ
                | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT)}
                | self.variables,
            )
        self.process = psutil.Process(process.pid)
        try:
            while not self._answers():
                if process.poll() is not None:
                    sys.exit(f"{self.name} ended:\n{log.read_text()[-3000:]}")
                time.sleep(0.1)
            self.started = time.perf_counter() - begun
            say(f"{self.name} answers after {self.started:.1f} s")
            yield self
        finally:
            self.tell(signal.SIGCONT)
            self.tell(signal.SIGTERM)
            _gone, alive = psutil.wait_procs(self._all(), 30)
            for one in alive:
                one.kill()
            process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}{self.health}", timeout=5) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except OSError:
            return False

    def _all(self) -> list[psutil.Process]:
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def tell(self, number: int) -> None:
        """Send a signal to all of its processes."""
        for one in self._all():
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def memory(self) -> float:
        """Return the MiB that its processes have alone."""
        return float(sum(one.memory_full_info().uss for one in self._all())) / 2**20


def vllm(model: Path, *more: object) -> list[object]:
    """The command of vLLM's own server, as its documentation has it."""
    words: list[object] = [
        VLLM / "python",
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--port",
        "PORT",
    ]
    words += ["--host", "127.0.0.1", "--model", model, "--served-model-name", "base", *more]
    return words


def ours(model: object, *more: object, engine: str = "vllm") -> list[object]:
    """Our command."""
    words: list[object] = [sys.executable, "-m", "src.serve.chat", model, *more]
    return [*words, "--engine", engine, "--port", "PORT"]


HAND = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_HOST_IP": "127.0.0.1", "VLLM_NO_USAGE_STATS": "1"}


def one_answer(client: openai.OpenAI, model: str, topic: str, new: int) -> dict[str, Any]:
    """Ask for a story, and measure its stream."""
    begun, first, text, made = time.perf_counter(), 0.0, "", 0
    pieces = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": f"Write a long story about {topic}."}],
        max_tokens=new,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    for piece in pieces:
        if piece.usage:
            made = piece.usage.completion_tokens
        if piece.choices and (more := piece.choices[0].delta.content):
            first = first or time.perf_counter() - begun
            text += more
    return {"topic": topic, "first": first, "text": text, "tokens": made}


def load(server: Server, model: str, clients: int, new: int) -> dict[str, Any]:
    """Have so many clients ask at once."""
    client = openai.OpenAI(
        base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE
    )
    topics = TOPICS[: CLIENTS[clients]]
    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(lambda topic: one_answer(client, model, topic, new), topics))
    seconds = time.perf_counter() - begun
    tokens = sum(one["tokens"] for one in found)
    return {
        "tokens_s": tokens / seconds,
        "first_s": statistics.median(one["first"] for one in found),
        "texts": {one["topic"]: one["text"] for one in found},
    }


def measured(
    cases: Sequence[tuple[Server, str]], levels: Sequence[int], rounds: int, new: int
) -> dict[tuple[str, int], list[dict[str, Any]]]:
    """Ask servers in turn, each alone; a server is known by its name, and the model if several."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = defaultdict(list)
    servers = {server.name: server for server, _ in cases}
    for server, model in cases:  # what is made at the first request is not measured
        load(server, model, 1, 4)
    for server in servers.values():
        server.tell(signal.SIGSTOP)
    for number in range(1, rounds + 1):
        turns = list(cases)
        random.Random(number).shuffle(turns)  # noqa: S311
        for server, model in turns:
            server.tell(signal.SIGCONT)
            for clients in levels:
                found = load(server, model, clients, new)
                runs[_case(server, model), clients].append(found)
                say(
                    f"round {number}: {_case(server, model)}, {clients} clients: "
                    f"{found['tokens_s']:.1f} tokens/s, first after {found['first_s']:.2f} s"
                )
            server.tell(signal.SIGSTOP)
    return runs


def _case(server: Server, model: str) -> str:
    return server.name if model == server.model else f"{server.name}: {model}"


def likely(model: Any, tokenizer: Any, texts: dict[str, str]) -> float:
    """Return the mean log-probability of a token of answers."""
    rows = []
    for topic, text in texts.items():
        asked = [{"role": "user", "content": f"Write a long story about {topic}."}]
        prompt = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
        ids, whole = (
            tokenizer(each, add_special_tokens=False)["input_ids"]
            for each in (prompt, prompt + text)
        )
        rows.append(Row(whole, [place >= len(ids) for place in range(len(whole))]))
    found = scoring.log_probabilities(model, rows, tokenizer.pad_token_id or 0, 4096)
    return float(torch.cat(found).double().mean())


def told(
    name: str,
    runs: dict[tuple[str, int], list[dict[str, Any]]],
    beside: str,
    base: Path,
    servers: Sequence[Server],
    new: int,
) -> None:
    """Print a table of tokens a second, beside those of one of the cases, and write a report."""
    report: dict[str, Any] = {}
    tokenizer, model = models.tokenizer(base), models.load(base, torch.float32)
    print(f"| clients | | tokens/s | as a share of {beside} | first token, s | log-probability |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (case, clients), found in sorted(runs.items(), key=lambda pair: pair[0][1]):
        speeds = [one["tokens_s"] for one in found]
        ratio = ratios(speeds, [one["tokens_s"] for one in runs[beside, clients]])
        row: dict[str, Any] = {
            "tokens_s": statistics.median(speeds),
            "ratio": ratio,
            "first_s": statistics.median(one["first_s"] for one in found),
            "runs": speeds,
            "log_probability": likely(model, tokenizer, found[-1]["texts"]),
        }
        report[f"{case}, {clients}"] = row
        print(
            f"| {clients} | {case} | {row['tokens_s']:.1f} | {ratio['median']:.3f} "
            f"({ratio['min']:.3f} to {ratio['max']:.3f}) | {row['first_s']:.2f} | "
            f"{row['log_probability']:.3f} |"
        )
    memory = {}
    for server in servers:
        server.tell(signal.SIGCONT)
        memory[server.name] = {"mib": server.memory(), "start_s": server.started}
        print(f"{server.name}: {memory[server.name]['mib']:.0f} MiB, up in {server.started:.1f} s")
    write(f"chat-serve-{name}", {"new": new, "cases": report, "servers": memory})


def compare_servers(arguments: argparse.Namespace) -> None:
    """One model, by several servers."""
    base = arguments.base.resolve()
    hand = ["--dtype", "auto", "--max-num-seqs", 32]
    found = [
        Server("vLLM by hand", vllm(base, *hand), "base", HAND),
        Server("Pedigree, vLLM", ours(base), "base"),
        Server("Pedigree, transformers", ours(base, engine="transformers"), "base"),
    ]
    if arguments.swift:  # whose environment has all that transformers needs to serve, too
        commands = Path(arguments.swift).parent
        at = ["--host", "127.0.0.1", "--port", "PORT"]
        serve = [commands / "transformers", "serve", base, *at, "--device", "cpu"]
        # It asks the hub for its list of models.
        found.append(Server("transformers serve", serve, str(base), health="/health"))
        swift = [commands / "swift", "deploy", "--model", base, *at, "--device_map", "cpu"]
        swift += ["--infer_backend", "transformers", "--served_model_name", "base"]
        swift += ["--model_type", "llama", "--template", "chatml"]
        swift += ["--verbose", "false", "--log_interval", "-1"]
        found.append(Server("ms-swift deploy", swift, "base", {"USE_HF": "1"}))
    if arguments.only:
        found = [one for one in found if one.name in arguments.only]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for server in found:
            stack.enter_context(server.running(Path(folder)))
        cases = [(server, server.model) for server in found]
        runs = measured(cases, arguments.clients, arguments.rounds, arguments.new)
        told(arguments.name, runs, found[0].name, base, found, arguments.new)


def compare_adapters(arguments: argparse.Namespace) -> None:
    """An adapter beside its base, merged and in 4 bits by vLLM, and by transformers."""
    lora, merged, int4 = (
        Path(path).resolve() for path in (arguments.adapter, arguments.merged, arguments.int4)
    )
    base = arguments.base.resolve()
    found = [
        Server("merged", ours(f"merged={merged}"), "merged"),
        Server("base and adapter", ours(f"base={base}", f"lora={lora}"), "lora"),
        Server("4 bits", ours(f"int4={int4}"), "int4"),
        Server(
            "adapter, transformers",
            ours(f"base={base}", f"lora={lora}", engine="transformers"),
            "lora",
        ),
    ]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        for server in found:
            stack.enter_context(server.running(Path(folder)))
        cases = [(server, server.model) for server in found] + [(found[1], "base")]
        runs = measured(cases, arguments.clients, arguments.rounds, arguments.new)
        told("adapters", runs, "merged", merged, found, arguments.new)


def compare_starts(arguments: argparse.Namespace) -> None:
    """How long servers take to answer, one after the other."""
    base = arguments.base.resolve()
    found = [
        Server("vLLM by hand", vllm(base, "--max-num-seqs", 32), "base", HAND),
        Server("Pedigree, vLLM", ours(base), "base"),
        Server("Pedigree, transformers", ours(base, engine="transformers"), "base"),
    ]
    seconds: dict[str, list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(arguments.rounds):
            for server in found:
                with server.running(Path(folder)):
                    seconds[server.name].append(server.started)
    for name, runs in seconds.items():
        ratio = ratios(runs, seconds[found[0].name])
        print(f"{name}: {statistics.median(runs):.1f} s, {ratio['median']:.3f} of vLLM by hand's")
    write("chat-serve-start", {"seconds": seconds})


def soak(arguments: argparse.Namespace) -> None:
    """Ask a server many times, some of whose clients leave, and watch its memory."""
    base = arguments.base.resolve()
    server = Server(arguments.engine, ours(base, engine=arguments.engine), base.name)
    chance = random.Random(0)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder, server.running(Path(folder)):
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)

        def once(number: int) -> None:
            words = " ".join(chance.choice(TOPICS) for _ in range(number % 8 + 1))
            pieces = client.chat.completions.create(
                model=base.name,
                messages=[{"role": "user", "content": words}],
                max_tokens=number % 8 + 1,
                stream=True,
            )
            for _ in pieces:
                if number % 10 == 0:  # this one leaves
                    pieces.close()
                    break

        seen: list[tuple[int, float]] = []
        step = arguments.requests // 10
        with ThreadPoolExecutor(16) as pool:
            for start in range(0, arguments.requests, step):
                list(pool.map(once, range(start, start + step)))
                seen.append((start + step, server.memory()))
                say(f"{seen[-1][0]} requests: {seen[-1][1]:.0f} MiB")
    grown = seen[-1][1] / seen[0][1] - 1
    print(f"{arguments.engine}: memory grew by {100 * grown:.1f} % from {seen[0][0]} requests on")
    write(f"chat-serve-soak-{arguments.engine}", {"memory_mib": seen, "grown": grown})


def main() -> None:
    """Run what is named on the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for name, run in (
        ("servers", compare_servers),
        ("adapters", compare_adapters),
        ("start", compare_starts),
        ("soak", soak),
    ):
        one = commands.add_parser(name)
        one.set_defaults(run=run)
        one.add_argument("--base", type=Path, required=True)
        one.add_argument("--rounds", type=int, default=5)
        one.add_argument("--new", type=int, default=64)
        one.add_argument("--clients", type=int, nargs="+", default=[*CLIENTS], choices=[*CLIENTS])
        if name == "servers":
            one.add_argument("--swift", help="python of an environment with ms-swift")
            one.add_argument("--only", nargs="+", help="names of the servers to ask")
            one.add_argument("--name", default="servers", help="of the report")
        if name == "adapters":
            for folder in ("--adapter", "--merged", "--int4"):
                one.add_argument(folder, type=Path, required=True)
        if name == "soak":
            one.add_argument("--engine", choices=["vllm", "transformers"], required=True)
            one.add_argument("--requests", type=int, default=10000)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
