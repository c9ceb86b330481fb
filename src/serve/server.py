"""The server on uvicorn: listening, signals and the end."""

import asyncio
import contextlib
import ctypes
import logging
import signal
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import uvicorn

from src.core.errors import InputError
from src.serve import log as lines
from src.serve.app import OPEN, application
from src.serve.connections import AT_ONCE, Connection, Connections
from src.serve.middleware import Guard
from src.serve.service import Service

LARGE = 2  # bodies of the largest size, whose bytes may be held at once
BACKLOG = 2048  # connections that the system keeps until they are accepted
MMAP_THRESHOLD = -3, 2**16  # of glibc's mallopt: blocks of more bytes are given back when freed

log = logging.getLogger("src.serve")


class Server(uvicorn.Server):
    """A uvicorn server without uvicorn's own handling of signals, logs and headers.

    Attributes:
        service: the models that it serves.
        connections: all of its connections, which are bounded.
        cut: the connections that were closed on shutdown before their answer was sent.
    """

    def __init__(
        self,
        service: Service,
        hosts: Sequence[str],
        key: bytes,
        drain: float = 30.0,
        most: int = 512,
        patience: float = 10.0,
    ) -> None:
        """Serve clients that use one of ``hosts`` and have the key, if there is one.

        On shutdown, requests in progress have ``drain`` seconds for their answers. There are at
        most ``most`` connections, whose clients may be awaited for ``patience`` seconds.
        """
        self.service = service
        self.cut = 0
        self._drain = drain
        self._hurry = asyncio.Event()
        largest = max(service.limits.max_upload, service.limits.max_body)
        self.connections = Connections(most, LARGE * largest, patience)
        config = uvicorn.Config(
            Guard(application(service), hosts, key, OPEN, service.metrics, self.connections),
            http=Connection,
            backlog=AT_ONCE,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        super().__init__(config)
        self.server_state = self.connections

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would end by the signal instead of with exit code 0."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and let the system keep more connections than are accepted at once."""
        await super().startup(sockets)
        for listening in sockets or []:
            listening.listen(BACKLOG)

    async def on_tick(self, counter: int) -> bool:
        """Close what is overdue, ten times a second."""
        self.connections.end_overdue()
        return await super().on_tick(counter)

    def end(self) -> None:
        """Answer the requests in progress and stop; called again, stop at once."""
        if self.should_exit:
            self._hurry.set()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the requests in progress, but not longer than ``drain``."""
        cutting = asyncio.ensure_future(self._cut_in_time())
        await super().shutdown(sockets)
        cutting.cancel()

    async def _cut_in_time(self) -> None:
        """Close the connections still open when the time is up, as if their clients had left."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._drain)
        await asyncio.sleep(0)  # connections without a request are closed in this round
        left: list[Any] = list(self.server_state.connections)
        self.cut = len(left)
        for connection in left:
            connection.transport.abort()


def give_back_memory() -> None:
    """Let glibc give every large block back to the system when it is freed.

    By itself it keeps blocks as large as the largest that was freed before, up to 32 MiB, so that
    some uploads would make the process larger for good.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # other C libraries have none
        mallopt(*MMAP_THRESHOLD)


def in_address(host: str) -> str:
    """Put an IPv6 host in brackets, as addresses have it."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


async def serve(server: Server, listening: socket.socket, watch: float) -> None:
    """Serve until a signal; reload models on SIGHUP, and changed ones every ``watch`` seconds."""
    lines.start()
    # It warns of upgrades, which anybody can ask for.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    service = server.service
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.ensure_future(service.reload(only_changed=False))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.end)
    loop.add_signal_handler(signal.SIGHUP, reload)
    if watch:
        tasks.add(asyncio.ensure_future(_watch(service, watch)))
    place, port = listening.getsockname()[:2]
    log.info("serving %s at http://%s:%d", ", ".join(service.models), in_address(place), port)
    await server.serve(sockets=[listening])
    for task in tasks:
        task.cancel()
    service.batcher.close()
    if server.cut:
        log.warning("ended; connections closed before their answer was sent: %d", server.cut)
    else:
        log.info("ended after every request had its answer")


async def _watch(service: Service, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await service.reload(only_changed=True)


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address.

    Raises:
        InputError: the address is taken, or is not one of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise InputError(
            f"Can't listen at {host}:{port}, {error.strerror}: choose another address with --host "
            "and --port, or stop what listens there."
        ) from None
    # What it accepts inherits this. asyncio sets it only on sockets whose protocol has a number,
    # and without it the body of an answer waits 40 ms for the client to acknowledge the head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening
