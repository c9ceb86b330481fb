"""What clients send, don't send or don't read: the server goes on for the others."""

import contextlib
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import requests
from conftest import ROOT, make_model
from served import PATIENCE, served, wait_until

from src.serve import log as serve_log
from src.serve.log import Lines

HOST = b"Host: localhost\r\n"
JSON = HOST + b"Content-Type: application/json\r\n"
CSV = HOST + b"Content-Type: text/csv\r\n"
GET = b"GET /healthz HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FILE = b"text,other\ngoal,\n" + (b"," + b"x" * 3998 + b"\n") * 1000  # one text alone


class Running(NamedTuple):
    """A server of its own process."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def connect(self, receive: int = 0) -> socket.socket:
        """Connect, with as many bytes that the system keeps unread where they are given."""
        client = socket.socket()
        client.settimeout(PATIENCE)
        if receive:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        client.connect(("127.0.0.1", int(self.url.rpartition(":")[2])))
        return client

    def said(self, *parts: bytes) -> bytes:
        """Send parts, and return what is answered until the server closes."""
        with self.connect() as client:
            for part in parts:
                client.sendall(part)
            return rest_of(client)

    def status(self, path: str) -> int:
        return requests.get(self.url + path, timeout=PATIENCE).status_code


def rest_of(client: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            found += piece
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model"))


@contextmanager
def started(folder: Path, log: Path, *words: str, files: int = 1024) -> Iterator[Running]:
    """Run a server that may open so many files."""
    with served(log, folder, "--watch", "0", *words, files=files) as (url, process):
        yield Running(url, process, log)


@pytest.fixture(scope="module")
def impatient(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("log") / "log.txt"
    with started(folder, log, "--patience", "1") as server:
        yield server


@pytest.mark.parametrize(
    ("sent", "statuses"),
    [
        (b"", []),
        (b"GET /heal", []),
        (GET + b"\r\n", [b"200"]),
        (GET + b"\r\nGET /heal", [b"200"]),
        (b"POST /score HTTP/1.1\r\n" + CSV + b"Content-Length: 9\r\n\r\ntext\n", [b"408"]),
        (b"POST /score HTTP/1.1\r\n" + CSV + CHUNKED + b"\r\n5\r\ntext\n", [b"408"]),
        (b"POST /nothing HTTP/1.1\r\n" + CSV + b"Content-Length: 9\r\n\r\ntext\n", [b"404"]),
        (b"HEAD /healthz HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n5\r\ntext\n", [b"200"]),
    ],
)
def test_a_client_that_sends_no_more_is_closed(
    impatient: Running, sent: bytes, statuses: list[bytes]
) -> None:
    assert re.findall(rb"HTTP/1.1 (\d+)", impatient.said(sent)) == statuses


def test_a_client_that_reads_no_more_is_closed(impatient: Running) -> None:
    def counted() -> Any:
        figures = requests.get(f"{impatient.url}/metrics", timeout=PATIENCE).text
        return re.search(r'serve_requests_total{route="/score",status="200"} 1', figures)

    head = b"POST /score HTTP/1.1\r\n" + CSV + b"Content-Length: %d\r\n\r\n" % len(FILE)
    with impatient.connect(receive=4096) as client:
        client.sendall(head + FILE)
        wait_until(counted)  # a request that is over, though nobody has read its answer
        found = rest_of(client)
    assert found.startswith(b"HTTP/1.1 200")
    assert len(found) < len(FILE)


def test_a_client_that_goes_on_may_take_longer_than_the_patience(impatient: Running) -> None:
    """Each piece of the body and of the answer comes in time, all of them together do not."""
    head = b"POST /score HTTP/1.1\r\n" + CSV + b"Connection: close\r\n"
    with impatient.connect(receive=2**18) as client:
        client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(FILE))
        for start in range(0, len(FILE), len(FILE) // 8):
            client.sendall(FILE[start : start + len(FILE) // 8])
            time.sleep(0.1)
        found = b""
        while piece := client.recv(65536):
            found += piece
            time.sleep(0.01)
    assert found.startswith(b"HTTP/1.1 200")
    assert found.endswith(b"\r\n")
    assert len(found) > len(FILE)


def test_many_idle_connections_keep_nobody_out(folder: Path, tmp_path: Path) -> None:
    words = ("--patience", "3600", "--engine", "onnxruntime")  # which no line of the log is about
    with started(folder, tmp_path / "log.txt", *words, files=160) as server, ExitStack() as all_:
        idle = [all_.enter_context(server.connect()) for _ in range(300)]
        half = [all_.enter_context(server.connect()) for _ in range(300)]
        for client in reversed(half):
            with contextlib.suppress(OSError):  # it may be closed
                client.sendall(b"POST /score HTTP/1.1\r\n" + CSV + b"Content-Length: 9\r\n\r\n")
        assert server.status("/healthz") == 200
        body = {"inputs": "goal"}
        answer = requests.post(f"{server.url}/predict", json=body, timeout=PATIENCE)
        assert answer.status_code == 200
        assert rest_of(idle[0]) == b"", "the oldest is closed"
        lines = server.log.read_text().splitlines()
    assert [line for line in lines if "limit of 32 connections" in line] == lines[1:2]
    assert len(lines) == 2


def test_a_process_without_files_for_connections_does_not_start(folder: Path) -> None:
    command = [sys.executable, "-m", "src.serve", str(folder), "--port", "0"]
    done = subprocess.run(
        ["sh", "-c", 'ulimit -S -n 100 && exec "$@"', "sh", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "This process may open 100 files, but the server needs more than 128" in done.stderr


def test_bodies_that_do_not_end_give_way_to_others(folder: Path, tmp_path: Path) -> None:
    size = 200_000
    words = ("--patience", "3600", "--max_upload", str(size), "--max_body", "1000")
    head = b"POST /score HTTP/1.1\r\n" + CSV + b"Content-Length: %d\r\n\r\n" % size
    file = b"text,other\ngoal," + b"x" * (size - 17) + b"\n"
    with started(folder, tmp_path / "log.txt", *words) as server, ExitStack() as all_:
        held = [all_.enter_context(server.connect()) for _ in range(8)]
        for client in held:
            client.sendall(head + file[:-1])

        def uploaded() -> bool:
            kind = {"Content-Type": "text/csv"}
            answer = requests.post(f"{server.url}/score", file, headers=kind, timeout=PATIENCE)
            if answer.status_code == 429:
                assert answer.json()["error_type"] == "Overloaded"
                assert answer.headers["Retry-After"] == "1"
            return answer.status_code == 200

        body = {"inputs": "goal"}
        small = requests.post(f"{server.url}/predict", json=body, timeout=PATIENCE)
        assert small.status_code == 200
        wait_until(uploaded)
        ended = []
        for client in held:
            client.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                ended.append(client.recv(12))
    assert ended.count(b"HTTP/1.1 429") >= 6, "as there is room for two"
    assert len(ended) < len(held), "and no more of them than need be"


BAD = [
    b"\0\r\n\r\n",
    GET + CHUNKED + b"\r\nxx\r\n",
    GET.replace(b"GET", b"HEAD") + CHUNKED + b"\r\nxx\r\n",
    b"POST /predict HTTP/1.1\r\n" + JSON + CHUNKED + b"\r\nxx\r\n",
    b"POST /predict HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\nxx\r\n",
    b"GET /nothing HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\nxx\r\n",
    b"GET /models HTTP/1.1\r\nHost: another\r\n" + CHUNKED + b"\r\nxx\r\n",
    GET + b"\r\n\0\r\n\r\n",
    GET + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\nGET",
]


def test_a_body_of_many_small_chunks_is_read_whole(impatient: Running) -> None:
    body = b'{"inputs": "goal match"}' + b" " * 2000
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    head = b"POST /predict HTTP/1.1\r\n" + JSON + CHUNKED
    whole = head + b"\r\n" + chunks
    found = impatient.said(whole * 2 + whole.replace(CHUNKED, CHUNKED + b"Connection: close\r\n"))
    assert re.findall(rb"HTTP/1.1 (\d+)", found) == [b"200"] * 3


def test_what_is_no_http_writes_nothing_to_the_log(impatient: Running) -> None:
    before = impatient.log.read_text()
    for _ in range(3):
        for sent in BAD:
            impatient.said(sent)
            impatient.said(sent[:-4], sent[-4:])
    # The end of a body may come when its request has its answer, or when that has begun.
    for sent in BAD[1:-2]:
        with impatient.connect() as client:
            client.sendall(sent[:-4])
            if b"predict" not in sent or b"application/json" not in sent:
                assert client.recv(9) == b"HTTP/1.1 "
            client.sendall(sent[-4:])
            rest_of(client)
    assert impatient.status("/healthz") == 200
    assert impatient.log.read_text() == before


@pytest.mark.parametrize(
    "head",
    [
        b"POST /predict HTTP/1.1\r\n" + JSON + b"Content-Length: 5\r\n" + CHUNKED,
        b"POST /predict HTTP/1.1\r\n" + JSON + CHUNKED + b"Content-Length: 5\r\n",
        b"POST /predict HTTP/1.0\r\n" + JSON + CHUNKED,
        b"POST /predict HTTP/1.1\r\n" + JSON + CHUNKED + CHUNKED,
        b"POST /predict HTTP/1.1\r\n" + JSON + b"Transfer-Encoding: chunked, gzip\r\n",
        b"POST /predict HTTP/1.1\r\n" + JSON + b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"GET /healthz HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\n" + CHUNKED,
    ],
)
def test_a_body_of_two_lengths_is_refused_and_nothing_after_it_read(
    impatient: Running, head: bytes
) -> None:
    found = impatient.said(head + b"\r\n0\r\n\r\n" + GET + b"\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", found) == [b"400"]
    assert b"connection: close" in found.lower()
    assert b'"error_type":"Validation"' in found


def test_a_log_that_nobody_reads_stops_nothing(folder: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    file = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    command = [sys.executable, "-m", "src.serve", str(folder), "--port", "0", "--watch", "0"]
    command += ["--engine", "onnxruntime"]  # which no line of the log is about
    process = subprocess.Popen(command, cwd=ROOT, stderr=file)
    try:
        os.set_blocking(file, True)  # as it is where a shell makes one
        url = re.search(rb"at (http://\S+)\n", os.read(file, 9999))
        assert url

        def reloaded(times: int) -> Any:
            figures = requests.get(f"{url[1].decode()}/metrics", timeout=PATIENCE).text
            return re.search(rf'serve_reloads_total{{.*"loaded"}} {times}', figures)

        writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        with contextlib.suppress(BlockingIOError):
            while os.write(writer, b"\n" * 512):
                pass
        for count in (1, 2):
            process.send_signal(signal.SIGHUP)
            wait_until(partial(reloaded, count))
        os.read(file, 2**20)
        process.send_signal(signal.SIGHUP)
        wait_until(partial(reloaded, 3))
        left_out, line = os.read(file, 9999).strip().splitlines()
        assert left_out == b"2 lines of this log were left out"
        assert b"was loaded again" in line
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_a_line_that_comes_too_often_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "log.txt").open("wb") as file:
        lines = Lines(file.fileno())
        record = logging.LogRecord("a", logging.INFO, "a.py", 1, "line %d", (1,), None)
        for _ in range(12):
            lines.handle(record)
        lines.handle(logging.LogRecord("a", logging.INFO, "a.py", 2, "another", (), None))
        monkeypatch.setattr(serve_log, "WINDOW", 0)
        lines.handle(record)
    told = ["2 lines of this log were left out", "another"]
    assert (tmp_path / "log.txt").read_text().splitlines() == ["line 1"] * 10 + [*told, "line 1"]
