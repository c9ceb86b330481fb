"""Serve a model to clients of whom most send, or don't read, what no client should.

    python benchmarks/abuse.py models/exported/onnx --requests 20000

Good clients ask beside them, first alone and then among them.
"""

import argparse
import asyncio
import json
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from measure import write

from serve import PORT, ask, ours, serving, used

FILES = 1024  # that the server may open, as most systems have it
AT_ONCE = 700  # clients that misbehave
HOLD = 3.0  # seconds after which they give up, unless the server closes before that
HOST = b" HTTP/1.1\r\nHost: localhost\r\n"
JSON = b"POST /predict" + HOST + b"Content-Type: application/json\r\n"
CSV = b"POST /score" + HOST + b"Content-Type: text/csv\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


def request(head: bytes, body: bytes) -> bytes:
    """Make a request of a head and its body."""
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


TABLE = b"text,other\na,\n" + (b"," + b"x" * 4189 + b"\n") * 1999  # nearly of 8 MiB
MALFORMED = [
    b"\0\1\2\r\n\r\n",
    b"GET /healthz" + HOST + CHUNKED + b"\r\nxx\r\n",
    b"HEAD /models" + HOST + CHUNKED + b"\r\nxx\r\n",
    JSON + CHUNKED + b"\r\n5\r\nab",
    b"GET /" + b"a" * 70_000,
    b"GET /healthz" + HOST + b"a:" * 9000 + b"\r\n\r\n",
]
BOMBS = [
    request(JSON, b"[" * 900_000),
    request(JSON, b'{"inputs":"a","' + b"k" * 900_000 + b'":1}'),
    request(JSON.replace(b"predict", b"explain"), b'{"' + b"k" * 900_000 + b'":1}'),
    request(JSON, b'{"inputs":' + b"9" * 900_000 + b"}"),
    request(JSON + b"Content-Encoding: gzip\r\n", b"\x1f\x8b" * 99),
    JSON + b"Content-Length: 99999999999999\r\n\r\n",
    request(CSV, b"text" + b",ab" * 390_000 + b"\n"),
    request(CSV.replace(b"score", b"score?text_column=texxt"), b"tex" + b",text1" * 390_000),
    request(CSV, b'text,"' + b'\n"",' * 300_000),
    request(CSV, b"text\n" + b'"' * 2_000_001),
    JSON + CHUNKED + b"\r\n" + b"1\r\na\r\n" * 50_000,
]
TWO_LENGTHS = [
    JSON + b"Content-Length: 5\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    JSON + CHUNKED * 2 + b"\r\n0\r\n\r\n",
    JSON + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
]


class Client:
    """One connection of a client that misbehaves."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Connect, with little room for what is not read."""
        self.loop = loop
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)

    async def __aenter__(self) -> Self:
        """Connect."""
        await self.loop.sock_connect(self.socket, ("127.0.0.1", PORT))
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave."""
        self.socket.close()

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        await self.loop.sock_sendall(self.socket, data)

    async def status(self) -> str:
        """Read the status of the first answer."""
        found = await self.loop.sock_recv(self.socket, 12)
        if found.startswith(b"HTTP/1.1 "):
            return found[9:].decode()
        return "answered" if found else "closed"

    async def drip(self, head: bytes) -> str:
        """Send a head, and then bytes one by one, until the server answers or closes."""
        await self.send(head)
        while True:
            await self.send(b"a")
            with suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    return await self.status()

    async def unread(self) -> str:
        """Send a file whose answer is not read, until the server closes."""
        await self.send(request(CSV, TABLE))
        await asyncio.sleep(HOLD)
        return "not read"


def kinds(draw: random.Random) -> list[tuple[int, str, Callable[[Client], Awaitable[str]]]]:
    """What a client may do, with its share of the requests in thousandths."""

    async def one_of(client: Client, choices: list[bytes]) -> str:
        await client.send(draw.choice(choices))
        return await client.status()

    async def upload(client: Client) -> str:
        await client.send(request(CSV, TABLE)[:-1])
        return await client.status()

    return [
        (100, "idle", lambda client: client.status()),
        (100, "slow head", lambda client: client.drip(b"GET /healthz HTT")),
        (100, "slow body", lambda client: client.drip(JSON + b"Content-Length: 999\r\n\r\n")),
        (15, "upload without end", upload),
        (15, "answer not read", Client.unread),
        (350, "malformed", lambda client: one_of(client, MALFORMED)),
        (20, "bomb", lambda client: one_of(client, BOMBS)),
        (300, "two lengths", lambda client: one_of(client, TWO_LENGTHS)),
    ]


async def abuse(count: int, seed: int, only: str) -> None:
    """Send so many requests, and print how many of each kind had which end."""
    draw, found, loop = random.Random(seed), Counter[str](), asyncio.get_running_loop()  # noqa: S311
    wanted = [kind for kind in kinds(draw) if only in kind[1]]
    shares, names, acts = zip(*wanted, strict=True)
    chosen = iter(draw.choices(range(len(acts)), shares, k=count))

    async def worker() -> None:
        for kind in chosen:
            end = "closed"
            with suppress(OSError):
                try:
                    async with asyncio.timeout(HOLD + 1), Client(loop) as client:
                        end = await acts[kind](client)
                except TimeoutError:
                    end = "held"
            found[f"{names[kind]}: {end}"] += 1

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))
    print(json.dumps(found))


async def good(until: Callable[[], bool], server: int) -> dict[str, Any]:
    """Ask as good clients do, until it is time: their answers, and what the server takes."""
    times: dict[str, list[float]] = {"/predict": [], "/healthz": []}
    statuses: Counter[int] = Counter()
    most = 0.0

    async def asking(path: str, body: bytes, pause: float) -> None:
        while not until():
            status, seconds = await ask(body, path)
            statuses[status] += 1
            times[path].append(seconds)
            await asyncio.sleep(pause)

    async def weighing() -> None:
        nonlocal most
        while not until():
            most = max(most, used(server)[0])
            await asyncio.sleep(0.1)

    asked = [asking("/predict", b'{"inputs": "a goal"}', 0.02) for _ in range(4)]
    await asyncio.gather(*asked, asking("/healthz", b"", 0.05), weighing())
    return {
        "answers": dict(statuses),
        "predict_median_ms": 1000 * statistics.median(times["/predict"]),
        "predict_slowest_ms": 1000 * max(times["/predict"]),
        "healthz_slowest_ms": 1000 * max(times["/healthz"]),
        "most_mib": most,
    }


def swap(folder: Path, until: Callable[[], bool]) -> None:
    """Break the model's folder and mend it, in turn."""
    model = (folder / "model.onnx").read_bytes()
    while not until():
        for content in (model[: len(model) // 2], b"", model):
            (folder / "model.onnx").write_bytes(content)
            time.sleep(1)


def measured(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Ask a server alone, and then among clients that misbehave."""
    folder, log = place / "model", place / "log.txt"
    shutil.copytree(arguments.folder, folder)
    options = ["--patience", "2", "--watch", "0.5"]
    limited = ["sh", "-c", f'ulimit -S -n {FILES} && exec "$@" 2> {log}', "sh"]
    with serving([*limited, *ours(folder), *options]) as (server, _):
        found: dict[str, Any] = {"idle_mib": used(server)[0]}
        end = time.monotonic() + 5
        found["alone"] = asyncio.run(good(lambda: time.monotonic() > end, server))
        size = log.stat().st_size
        words = [sys.executable, __file__, str(folder), "--sends"]
        words += ["--requests", str(arguments.requests), "--seed", str(arguments.seed)]
        words += ["--only", arguments.only]
        with subprocess.Popen(words, stdout=subprocess.PIPE) as others:  # noqa: S603

            def over() -> bool:
                return others.poll() is not None

            swapping = threading.Thread(target=swap, args=[folder, over])
            swapping.start()
            start = time.monotonic()
            found["among"] = asyncio.run(good(over, server))
            found["seconds"] = time.monotonic() - start
            swapping.join()
            found["ends"] = dict(sorted(json.load(others.stdout or sys.stdin).items()))
        found["log_bytes"] = log.stat().st_size - size
        print(log.read_text()[:4000])
    return found


def main() -> None:
    """Measure, and fail where a client could do more than be refused."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="a kind, such as bomb")
    parser.add_argument("--sends", action="store_true", help="be those that misbehave, alone")
    arguments = parser.parse_args()
    if arguments.sends:
        asyncio.run(abuse(arguments.requests, arguments.seed, arguments.only))
        return
    with tempfile.TemporaryDirectory() as place:
        found = measured(arguments, Path(place))
    print(json.dumps(found, indent=1))
    write("serve-abuse", {"requests": arguments.requests, "seed": arguments.seed, **found})
    if bad := [end for end in found["ends"] if end[-3:] in ("500", "502", "503")]:
        sys.exit(f"Expected no 5xx but 504, found {bad}.")


if __name__ == "__main__":
    main()
