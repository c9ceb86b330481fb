"""Measure src.serve: against other servers, at five times what it can do, and with random bytes.

    python benchmarks/serve.py compare models/exported/onnx data/splits/test.parquet
    python benchmarks/serve.py overload models/exported/onnx data/splits/test.parquet
    python benchmarks/serve.py fuzz models/exported/onnx --requests 100000

compare needs wrk, and the peers of serve-peers.txt in .venv-serve-peers.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from measure import write

PORT = int(os.environ.get("BENCHMARK_PORT", "8990"))
WRK = """
local bodies = {}
for line in io.lines("%s") do bodies[#bodies + 1] = line end
local next = 0
request = function()
  next = next %% #bodies + 1
  return wrk.format("POST", "/predict", {["Content-Type"] = "application/json"}, bodies[next])
end
"""
CLOSURE = """
import re, sys
from importlib.metadata import PackageNotFoundError, requires
from packaging.requirements import Requirement
waiting, seen = sys.argv[1:], set()
while waiting:
    name = re.sub("[-_.]+", "-", waiting.pop()).lower()
    try:
        needed = requires(name) or []
    except PackageNotFoundError:
        continue
    if name not in seen:
        seen.add(name)
        wanted = map(Requirement, needed)
        waiting += [r.name for r in wanted if not r.marker or r.marker.evaluate({"extra": ""})]
print(len(seen))
"""


def used(process: int) -> tuple[float, float]:
    """Resident MiB and CPU seconds of a process and those that it started."""
    pages, ticks = 0, 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended
            continue
        if process in (int(folder.name), int(status[2])):  # itself, or its group
            pages += int(status[21])
            ticks += int(status[11]) + int(status[12])
    return pages * os.sysconf("SC_PAGESIZE") / 2**20, ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(words: list[str]) -> Iterator[tuple[int, float]]:
    """Start a server at PORT; give its process, and the seconds until its first answer."""
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen(words, env=environment, start_new_session=True)  # noqa: S603
    try:
        while asyncio.run(ask(b'{"inputs": "a"}'))[0] != 200:
            if process.poll() is not None:
                sys.exit(f"Expected {words} to serve, found that it ended.")
            time.sleep(0.02)
        yield process.pid, time.perf_counter() - start
    finally:
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
        for left in started:  # those of LitServe outlive it, and would slow down the next one
            with suppress(psutil.NoSuchProcess):
                left.kill()
        psutil.wait_procs(started)


async def ask(body: bytes, path: str = "/predict", patience: float = 60) -> tuple[int, float]:
    """Post a body, if any: the status, 0 if there is no answer, and the seconds until it."""
    start = time.perf_counter()
    head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\n"
    head += "Host: 127.0.0.1\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    try:
        async with asyncio.timeout(patience):
            reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
            writer.write(head.encode() + body)
            answer = await reader.read()
            writer.close()
    except (OSError, TimeoutError):
        return 0, time.perf_counter() - start
    return int(answer[9:12] or b"0"), time.perf_counter() - start


def read_texts(file: Path) -> list[str]:
    """The texts of a split, cut at 30 to 800 characters, as requests are of many lengths."""
    draw = random.Random(0)  # noqa: S311
    return [text[: draw.randint(30, 800)] for text in pd.read_parquet(file)["text"]]


def ours(folder: Path, python: str = sys.executable) -> list[str]:
    """The command of this project's server, on the engine of its peers."""
    words = [str(folder), "--port", str(PORT), "--engine", "onnxruntime"]
    return [python, "-m", "src.serve", *words]


def load(script: Path, connections: int, seconds: int) -> dict[str, float]:
    """The figures that wrk measures."""
    words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "--latency"]
    command = [*words, "-s", str(script), f"http://127.0.0.1:{PORT}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    units = {"us": 1e-3, "ms": 1, "s": 1e3, "m": 6e4}
    figures: dict[str, float] = {}
    for share in ("50", "99"):
        found = re.search(rf"{share}%\s+([\d.]+)(\w+)", done.stdout)
        if found:
            figures[f"p{share}_ms"] = float(found[1]) * units[found[2]]
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    figures["per_s"] = float(rate[1]) if rate else 0.0
    count = re.search(r"(\d+) requests in", done.stdout)
    figures["errors"] = int(bad[1]) if bad else 0
    figures["answers"] = int(count[1]) if count else 0
    return figures


def compare(arguments: argparse.Namespace) -> None:
    """Run src.serve and its peers in turn, on the same bodies."""
    peer = str(arguments.peers / "bin/python")
    alone = str(arguments.alone / "bin/python") if arguments.alone else sys.executable
    by_hand = [peer, str(Path(__file__).parent / "serve_peers.py")]
    folder = str(arguments.folder)
    servers = {
        "src.serve": [*ours(arguments.folder, alone), "--deadline", "60"],  # none is refused
        "FastAPI by hand": [*by_hand, "fastapi", folder, str(PORT)],
        "LitServe": [*by_hand, "litserve", folder, str(PORT)],
    }
    model = ["onnxruntime", "tokenizers", "numpy"]
    needs = {
        "src.serve": [alone, "starlette", "uvicorn", "msgspec", "prometheus-client", "pyyaml"],
        "FastAPI by hand": [peer, "fastapi", "uvicorn"],
        "LitServe": [peer, "litserve"],
    }
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
    with tempfile.TemporaryDirectory() as place:
        bodies, script = Path(place, "bodies"), Path(place, "post.lua")
        texts = read_texts(arguments.texts)
        bodies.write_text("\n".join(json.dumps({"inputs": text}) for text in texts))
        script.write_text(WRK % bodies)
        for number in range(arguments.rounds):
            for name, words in servers.items():
                with serving(words) as (process, seconds):
                    load(script, 4, 1)  # warm
                    found: dict[str, Any] = {"start_s": seconds}
                    for connections in (1, 32):
                        _, before = used(process)
                        figures = load(script, connections, arguments.seconds)
                        found["mib"], after = used(process)
                        figures["cpu_ms"] = 1000 * (after - before) / max(1, figures["answers"])
                        found[str(connections)] = figures
                runs[name].append(found)
                print(f"round {number + 1}", name, json.dumps(found), flush=True)
    rows = {}
    for name, measured in runs.items():
        python, *wanted = needs[name]
        words = [python, "-c", CLOSURE, *wanted, *model]
        count = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603
        rows[name] = {"packages": int(count.stdout), "runs": measured}
    write("serve", {"texts": len(texts), "rows": rows})
    table(rows)


def table(rows: dict[str, Any]) -> None:
    """The rows of docs/serving.md: medians of the rounds."""
    columns = ["answers/s", "p50, ms", "p99, ms", "CPU, ms"]
    columns = [f"{c}: {column}" for c in (1, 32) for column in columns]
    columns += ["MiB", "start, s", "packages"]
    print(f"| | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for name, row in rows.items():

        def median(*path: str, runs: list[dict[str, Any]] = row["runs"]) -> float:
            values = []
            for run in runs:
                value: Any = run
                for key in path:
                    value = value[key]
                values.append(float(value))
            return statistics.median(values)

        cells = [
            f"{median(c, 'per_s'):.1f} | {median(c, 'p50_ms'):.0f} | {median(c, 'p99_ms'):.0f} | "
            f"{median(c, 'cpu_ms'):.0f}"
            for c in ("1", "32")
        ]
        print(
            f"| {name} | {' | '.join(cells)} | {median('mib'):.0f} | {median('start_s'):.1f} | "
            f"{row['packages']} |"
        )


def overload(arguments: argparse.Namespace) -> None:
    """Send five times as many requests as it can answer, each at its moment."""
    texts = read_texts(arguments.texts)
    bodies = [json.dumps({"inputs": text}).encode() for text in texts]

    async def closed_loop(seconds: float) -> float:
        end, count = time.perf_counter() + seconds, 0

        async def worker(number: int) -> None:
            nonlocal count
            while time.perf_counter() < end:
                number += 1
                status, _ = await ask(bodies[number % len(bodies)])
                count += status == 200

        await asyncio.gather(*(worker(7 * k) for k in range(2)))  # of which none is refused
        return count / seconds

    async def open_loop(rate: float, seconds: float) -> list[tuple[int, float]]:
        tasks, start = [], time.perf_counter()
        for number in range(int(rate * seconds)):
            await asyncio.sleep(max(0, start + number / rate - time.perf_counter()))
            tasks.append(asyncio.ensure_future(ask(bodies[number % len(bodies)])))
        return await asyncio.gather(*tasks)

    deadline = 2.0
    with serving([*ours(arguments.folder), "--deadline", str(deadline)]):
        capacity = asyncio.run(closed_loop(arguments.seconds))
        answers = asyncio.run(open_loop(5 * capacity, arguments.seconds))
    found: dict[str, Any] = {"capacity_per_s": capacity, "asked_per_s": 5 * capacity}
    found["deadline_s"] = deadline
    for status, count in sorted(Counter(status for status, _ in answers).items()):
        times = sorted(seconds for one, seconds in answers if one == status)
        found[str(status)] = {
            "count": count,
            "p50_s": times[len(times) // 2],
            "p99_s": times[int(len(times) * 0.99)],
            "max_s": times[-1],
        }
    write("serve-overload", found)
    print(json.dumps(found, indent=1))


def fuzz(arguments: argparse.Namespace) -> None:
    """Random bytes, and bodies that are nearly right, over connections that are kept."""
    draw = random.Random(arguments.seed)  # noqa: S311
    name = arguments.folder.name
    hub = b'{"inputs": ["a", "b"], "parameters": {"top_k": 1, "function_to_apply": "sigmoid"}}'
    good = {
        "/predict": b'{"inputs": "a", "raw_scores": true, "truncate": null, "model": null}',
        "/": hub,
        f"/models/{name}": hub,
        "/explain": b'{"inputs": "a b", "model": null}',
        "/score": b'text,id\n"a",1\n',
        f"/v2/models/{name}/infer": (
            b'{"inputs":[{"name":"text","datatype":"BYTES","shape":[1],"data":["a"]}]}'
        ),
    }
    statuses: Counter[str] = Counter()

    def mutated(path: str) -> bytes:
        others = [*good.values(), draw.randbytes(60)]
        body = bytearray(good[path] if draw.random() < 0.8 else draw.choice(others))
        for _ in range(draw.choice([0, 0, 1, 1, 2, 6])):
            place = draw.randrange(len(body) + 1)
            pieces = [b"", draw.randbytes(3), b'"', b"[", b"]", b"{", b"null", b"1e999", b"-1"]
            pieces.append(b"9" * draw.choice([9, 20, 5000]))
            body[place : place + draw.randrange(4)] = draw.choice(pieces)
        return bytes(body)

    def request() -> bytes:
        path = draw.choice(list(good))
        body = mutated(path)
        kind = "text/csv" if path == "/score" else "application/json"
        if draw.random() < 0.02:
            kind = draw.choice(["text/csv", "application/json", "x"])
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n"
        if draw.random() < 0.1:
            length = draw.choice([str(draw.randrange(-1, 99)), str(len(body)), "9" * 5000])
            head += f"Inference-Header-Content-Length: {length}\r\n"
        raw = bytearray(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        if draw.random() < 0.1:  # the head may break too
            raw[draw.randrange(len(raw))] = draw.randrange(256)
        return bytes(raw)

    async def worker(count: int) -> None:
        reader = writer = None
        for _ in range(count):
            status = "closed"
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
                assert reader is not None  # noqa: S101
                writer.write(request())
                async with asyncio.timeout(1):
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = re.search(rb"content-length: (\d+)", head)
                    await reader.readexactly(int(length[1]) if length else 0)
                status = head[9:12].decode()
                done = b"connection: close" in head.lower()
            except TimeoutError:  # a broken length: it waits for the rest
                status, done = "waits for more", True
            except (OSError, asyncio.IncompleteReadError):
                done = True
            statuses[status] += 1
            if done and writer:
                writer.close()
                writer = None

    async def every() -> None:
        await asyncio.gather(*(worker(arguments.requests // 8) for _ in range(8)))

    with serving(ours(arguments.folder)):
        asyncio.run(every())
        alive = asyncio.run(ask(b'{"inputs": "a"}'))[0]
    found = {"requests": arguments.requests, "answers": dict(sorted(statuses.items()))}
    write("serve-fuzz", found | {"seed": arguments.seed, "answers_after": alive})
    print(json.dumps(found, indent=1), alive)
    if any(status.startswith("5") for status in statuses) or alive != 200:
        sys.exit("Expected no 5xx, found the above.")


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    for run in (compare, overload, fuzz):
        command = commands.add_parser(run.__name__, description=run.__doc__)
        command.set_defaults(run=run)
        command.add_argument("folder", type=Path)
        if run is not fuzz:
            command.add_argument("texts", type=Path)
            command.add_argument("--seconds", type=int, default=8)
    compared = commands.choices["compare"]
    compared.add_argument("--peers", type=Path, default=Path(".venv-serve-peers"))
    compared.add_argument("--alone", type=Path, help="an environment of requirements-serve.lock")
    compared.add_argument("--rounds", type=int, default=5)
    commands.choices["fuzz"].add_argument("--requests", type=int, default=100_000)
    commands.choices["fuzz"].add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
