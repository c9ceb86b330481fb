"""Connections that are bounded: in number, in the bytes they hold, and in what their clients take.

uvicorn closes a connection that is idle after an answer, and that alone: one that sends nothing,
half a request, or never reads its answer stays as long as its client likes.
"""

import asyncio
import logging
import resource
import time
from collections import OrderedDict
from http import HTTPStatus
from itertools import islice
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from src.core.errors import InputError
from src.serve.errors import Problem

PIECE = 2**14  # bytes that are read or written at once; those of a request beyond it are counted
FILES = 128  # descriptors for all else: models, the log, connections that are being closed
EVENTS = 16  # parts of requests, such as chunks, that are parsed before others have their turn
ENDED = 64  # overdue connections that are closed before others have their turn
AT_ONCE = 16  # connections that are accepted before those before them are looked at
SILENT = 1.0  # seconds after which a client may have to make room for the bytes of another
TELL = 60.0  # seconds between lines of the log about the limit

log = logging.getLogger("src.serve")


def most_connections(wanted: int) -> int:
    """Return how many connections there may be, which the limit of open files may make fewer.

    Raises:
        InputError: there may be none.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    if soft <= FILES:
        raise InputError(
            f"This process may open {soft} files, but the server needs more than {FILES}: raise "
            "the limit, as `ulimit -n 1024` does."
        )
    return min(wanted, soft - FILES)


class Connections(ServerState):
    """All connections of a server, and those among them whose clients are awaited.

    A client is awaited for the head of a request, for its body, to read its answer, and for the
    next request. Where connections or bytes run out, who is awaited for longest gives way.

    Attributes:
        most: how many connections there may be.
        most_bytes: what bodies and answers may hold together, beside a ``PIECE`` for each.
        patience: the seconds that a client may be awaited.
        waiting: since when each is awaited, of ``time.monotonic``, the longest first.
        held: the bytes of bodies and answers that are counted.
    """

    def __init__(self, most: int, most_bytes: int, patience: float) -> None:
        """Allow so many connections, bytes and seconds."""
        super().__init__()
        self.most = most
        self.most_bytes = most_bytes
        self.patience = patience
        self.waiting: OrderedDict[Connection, float] = OrderedDict()
        self.held = 0
        self._told = -TELL

    def wait(self, connection: "Connection") -> None:
        """Await a client from now on."""
        self.waiting[connection] = time.monotonic()
        self.waiting.move_to_end(connection)

    def come(self, connection: "Connection") -> None:
        """Let a connection in, and close another where there are too many."""
        self.wait(connection)
        if len(self.connections) <= self.most:
            return
        if time.monotonic() - self._told >= TELL:
            self._told = time.monotonic()
            told = "the limit of %d connections is reached: who is awaited for longest is closed"
            log.warning(told, self.most)
        next(iter(self.waiting)).end(_full())

    def end_overdue(self) -> None:
        """Close connections of clients that are awaited for longer than ``patience``, a part."""
        until = time.monotonic() - self.patience
        for connection, since in list(islice(self.waiting.items(), ENDED)):
            if since > until:
                break
            message = "The request took too long to arrive: send it faster."
            connection.end(Problem(408, "Deadline", message))

    async def make_room(self, size: int, but: "Share") -> bool:
        """Close silent clients until there is room for ``size`` bytes; tell whether there is."""
        leaving: list[Share] = []  # of those that were closed, until their requests have ended
        while self.held + size > self.most_bytes:
            if self.held + size - sum(share.size for share in leaving) > self.most_bytes:
                until = time.monotonic() - SILENT
                for connection, since in self.waiting.items():
                    if since > until:
                        return False
                    if (share := connection.share) and share is not but:
                        leaving.append(share)
                        connection.end(_full())
                        break
                else:
                    return False
            await asyncio.sleep(0.01)
        return True


class Share:
    """The bytes that one request holds beyond a ``PIECE``: of its body, then of its answer."""

    def __init__(self, connections: Connections) -> None:
        """Hold nothing yet."""
        self._connections = connections
        self.size = 0

    def __bool__(self) -> bool:
        """Tell whether anything is held."""
        return self.size > 0

    async def hold(self, size: int) -> bool:
        """Hold ``size`` bytes in all, in any case; tell whether there was room for them."""
        more = max(0, size - PIECE) - self.size
        room = more <= 0 or await self._connections.make_room(more, self)
        self._connections.held += more
        self.size += more
        return room

    async def fill(self, size: int) -> None:
        """Hold ``size`` bytes of a body in all.

        Raises:
            Problem: there is no room.
        """
        if not await self.hold(size):
            raise _full()

    def release(self) -> None:
        """Hold nothing any more."""
        self._connections.held -= self.size
        self.size = 0


class _Parser(h11.Connection):
    """A parser that stops after some events; ``left`` is how many may come."""

    left = 0

    def next_event(self) -> Any:
        if self.left <= 0:
            return h11.NEED_DATA
        self.left -= 1
        return super().next_event()


class Connection(H11Protocol):
    """One connection, which knows whether its client is awaited, and shares the loop fairly."""

    server_state: Connections
    conn: _Parser

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what uvicorn gives."""
        super().__init__(*arguments, **options)
        self.conn = _Parser(h11.SERVER, max_incomplete_event_size=PIECE)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin with the head of the first request."""
        super().connection_made(transport)
        self._stage, self._passed = "head", 0
        transport.max_size = PIECE  # type: ignore[attr-defined]
        transport.set_write_buffer_limits(0)  # so that `pause_writing` tells of any unread byte
        self.server_state.come(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.server_state.waiting.pop(self, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        self.conn.left = EVENTS
        super().data_received(data)
        self._passed += len(data)
        self._note(came=True)
        self._yield()

    def _yield(self) -> None:
        """Parse the rest of what came when others have had their turn."""
        if self.conn.left <= 0 and not self.transport.is_closing():
            self.transport.pause_reading()
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.transport.is_closing():
            return
        if not self.flow.read_paused:
            self.transport.resume_reading()
        self.conn.left = EVENTS
        self.handle_events()
        self._note(came=True)
        self._yield()

    def on_response_complete(self) -> None:
        """Await the next request."""
        self.conn.left = EVENTS
        super().on_response_complete()
        self._note()
        self._yield()

    def pause_writing(self) -> None:
        """Await that the client reads."""
        super().pause_writing()
        self._stage = "answer"
        self.server_state.wait(self)

    def resume_writing(self) -> None:
        """Go on, as the client has read all."""
        super().resume_writing()
        self._stage = "read"
        self._note()

    def _note(self, came: bool = False) -> None:
        """Note for what the client is awaited; a `PIECE` of a body is waited for anew."""
        if self.flow.write_paused:
            return
        stage, theirs = "", self.conn.their_state  # "": it is the server's turn
        if theirs is h11.IDLE:
            stage = "head" if came else "idle"
        elif theirs is h11.SEND_BODY:
            stage = "rest" if self.cycle.response_complete else "body"
        if stage == self._stage and (stage != "body" or self._passed < PIECE):
            return
        self._stage, self._passed = stage, 0
        if stage:
            self.server_state.wait(self)
        else:
            self.server_state.waiting.pop(self, None)

    @property
    def share(self) -> Share | None:
        """What the request under way holds."""
        scope: Any = self.scope or {}
        found: Share | None = scope.get("share")
        return found

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP."""
        self._refuse(Problem(400, "Validation", "The request is not valid HTTP: correct it."))

    def end(self, problem: Problem) -> None:
        """Close the connection, with an answer to a request of whose body a part is awaited."""
        self.server_state.waiting.pop(self, None)
        if self.conn.our_state is h11.SEND_RESPONSE and not self.flow.write_paused:
            self._refuse(problem)
        else:
            self.transport.abort()

    def _refuse(self, problem: Problem) -> None:
        """Answer in place of the application, unless it has begun to, and close."""
        states, silent = (h11.IDLE, h11.SEND_RESPONSE), False
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # what the application answers now is dropped
            self.cycle.message_event.set()
            silent = self.scope["method"] == "HEAD"
        if self.conn.our_state in states:
            answer = problem.answer()
            status = HTTPStatus(answer.status_code)
            headers = [*answer.raw_headers, (b"connection", b"close")]
            head = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
            body = h11.Data(data=b"" if silent else bytes(answer.body))
            for event in (head, body, h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _full() -> Problem:
    message = "Too many connections or bytes are under way: try again in 1 s."
    return Problem(429, "Overloaded", message, Retry_After="1")
