"""Middleware for each request: allowed hosts, the key, headers of the answer, and metrics."""

import hmac
import time
from collections.abc import Collection, Sequence

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.serve.batching import log_place
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
    ) -> None:
        """Guard ``app``; no key lets everybody in, and the host ``*`` any name."""
        self.app = app
        self.hosts = hosts
        self.key = key
        self.open = open_paths
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        start, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        try:
            self._let_in(Request(scope))
            await self.app(scope, receive, send_with_headers)
        except Problem as problem:
            await problem.answer()(scope, receive, send_with_headers)
        except Exception as error:  # it has its answer, by `_broken`
            log_place("a request broke by %s\n%s", error)
        finally:
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
        if not hmac.compare_digest(given, b"Bearer " + self.key):
            raise Problem(
                401,
                "Unauthorized",
                "The key is missing or wrong: send it as the header Authorization: Bearer KEY.",
                WWW_Authenticate="Bearer",
            )


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and (port.isdecimal() or not port) else host
