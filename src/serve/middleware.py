"""Middleware for each request: framing, hosts, the key, bytes held, headers and metrics."""

import asyncio
import hmac
import time
from collections.abc import Collection, Sequence

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.serve.batching import log_place
from src.serve.connections import PIECE, Connections, Share
from src.serve.errors import Problem
from src.serve.prometheus import Metrics

HEALTH = {  # for everybody: the paths, and how the OpenAPI document calls them
    "/v2/health/live": "live",
    "/v2/health/ready": "ready",
    "/healthz": "healthz",
    "/health": "health",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Guard:
    """Middleware that checks host and key, adds headers to the answer, and counts it."""

    def __init__(
        self,
        app: ASGIApp,
        hosts: Sequence[str],
        key: bytes,
        open_paths: Collection[str],
        metrics: Metrics,
        connections: Connections,
    ) -> None:
        """Guard ``app``; no key lets everybody in, and the host ``*`` any name."""
        self.app = app
        self.hosts = hosts
        self.key = key
        self.open = open_paths
        self.metrics = metrics
        self.connections = connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        start, status = time.perf_counter(), 0
        share = scope["share"] = Share(self.connections)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                if length := headers.get("content-length"):  # the answer, in place of the body
                    await share.hold(int(length))
            await _send_in_pieces(send, message)

        try:
            request = Request(scope)
            _check_framing(request)
            self._let_in(request)
            await self.app(scope, receive, send_with_headers)
        except Problem as problem:
            await problem.answer()(scope, receive, send_with_headers)
        except Exception as error:  # it has its answer, by `_broken`
            log_place("a request broke by %s\n%s", error)
        finally:
            share.release()
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.requests.labels(route, str(status or 499)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)

    def _let_in(self, request: Request) -> None:
        path = request.url.path
        if path in HEALTH:
            return
        host = request.headers.get("host", "").lower()
        if "*" not in self.hosts and _without_port(host) not in self.hosts:
            message = "The server does not answer to this host: use another, or add it to --hosts."
            raise Problem(421, "Misdirected", message)
        if not self.key or (path in self.open and request.method == "GET"):
            return
        given = request.headers.get("authorization", "").encode("latin-1")
        scheme, _, sent = given.partition(b" ")
        if not (hmac.compare_digest(sent.lstrip(b" "), self.key) and scheme.lower() == b"bearer"):
            raise Problem(
                401,
                "Unauthorized",
                "The key is missing or wrong: send it as the header Authorization: Bearer KEY.",
                WWW_Authenticate="Bearer",
            )


def _check_framing(request: Request) -> None:
    """Refuse a body that a proxy before the server may end elsewhere (RFC 9112, section 6.1)."""
    if "transfer-encoding" in request.headers and (
        "content-length" in request.headers or request.scope["http_version"] == "1.0"
    ):
        message = "The body has two lengths: send Content-Length or Transfer-Encoding, not both."
        raise Problem(400, "Validation", message, Connection="close")


async def _send_in_pieces(send: Send, message: Message) -> None:
    """Send a body as fast as it is read, so that no more than a piece waits in the connection."""
    body, start = message.get("body", b""), 0
    while len(body) - start > PIECE:
        await send({**message, "body": body[start : start + PIECE], "more_body": True})
        await asyncio.sleep(0)  # in which a client that has gone is noticed
        start += PIECE
    await send({**message, "body": body[start:]} if start else message)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and (port.isdecimal() or not port) else host
