"""What stands before an engine that speaks OpenAI's API: hosts, the key, the page, and feedback.

It is ASGI middleware that an engine's own process loads by its path of import, so that nothing has
to be handed on; its settings come by variables, as the engine has no words for them.
"""

import hmac
import json
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

HOSTS = "PEDIGREE_CHAT_HOSTS"  # the variables: names that clients may use, separated by commas
KEY = "PEDIGREE_CHAT_KEY"  # what they must send, or nothing
PAGE = "PEDIGREE_CHAT_PAGE"  # the folder of the playground's files, or nothing
FEEDBACK = "PEDIGREE_CHAT_FEEDBACK"  # the file that gets what people think, or nothing
OPEN = ("/health", "/ping")  # to everybody
SHARED = ("colours.js", "dom.js", "markdown.js", "server.js", "theme.js", "style.css", "icon.svg")
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
BODY = 2**20  # bytes of a feedback at most

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class _Refusal(Exception):  # noqa: N818, it is an answer
    def __init__(self, status: int, sentence: str, kind: str = "invalid_request_error") -> None:
        super().__init__(sentence)
        self.status, self.kind = status, kind


class Front:
    """Refuses who has no business here, has the page, and passes everything else on."""

    def __init__(self, app: App) -> None:
        """Stand before ``app``."""
        self.app = app
        self.hosts = os.environ.get(HOSTS, "*").split(",")
        self.key = os.environb.get(KEY.encode(), b"")
        self.page = _files(os.environ.get(PAGE, ""))
        self.feedback = os.environ.get(FEEDBACK, "")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or let the engine do it."""
        path = scope.get("path", "")
        if scope["type"] != "http" or path in OPEN:
            await self.app(scope, receive, send)
            return
        headers = dict(reversed(scope["headers"]))  # the first of a name
        try:
            self._expect_host(headers)
            if path in self.page and scope["method"] in ("GET", "HEAD"):
                await _answer(send, 200, *self.page[path])
                return
            self._expect_key(headers)
            if path == "/feedback" and self.page:
                found = await self._feedback(scope["method"], headers, receive)
                await _answer(send, 200, ".json", json.dumps(found).encode())
                return
        except _Refusal as error:
            said = {"message": str(error), "type": error.kind, "param": None, "code": error.status}
            await _answer(send, error.status, ".json", json.dumps({"error": said}).encode())
            return
        await self.app(scope, receive, send)

    def _expect_host(self, headers: dict[bytes, bytes]) -> None:
        name = headers.get(b"host", b"").decode("latin-1").lower()
        head, colon, port = name.rpartition(":")
        alone = head if colon and (port.isdecimal() or not port) else name
        if "*" not in self.hosts and alone not in self.hosts:
            raise _Refusal(
                421, "The server does not answer to this host: use another, or add it to --hosts."
            )

    def _expect_key(self, headers: dict[bytes, bytes]) -> None:
        scheme, _, sent = headers.get(b"authorization", b"").partition(b" ")
        right = scheme.lower() == b"bearer" and hmac.compare_digest(sent.strip(), self.key)
        if self.key and not right:
            raise _Refusal(
                401,
                "The key is missing or wrong: send it as the header Authorization: Bearer KEY.",
                "authentication_error",
            )

    async def _feedback(
        self, method: str, headers: dict[bytes, bytes], receive: Receive
    ) -> dict[str, Any]:
        """Tell whether feedback is taken, or take one."""
        if method == "GET":
            return {"open": bool(self.feedback)}
        if not self.feedback:
            raise _Refusal(404, "The server takes no feedback: start it with --feedback FILE.")
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json":
            raise _Refusal(415, "The body is of another kind: send application/json.")
        body, more = b"", True
        while more:
            part = await receive()
            if part["type"] == "http.disconnect":
                raise _Refusal(499, "The client has gone.")
            body, more = body + part.get("body", b""), part.get("more_body", False)
            if len(body) > BODY:
                raise _Refusal(413, f"The feedback has more than {BODY} bytes.")
        self._write(_opinion(body))
        return {"written": True}

    def _write(self, found: dict[str, Any]) -> None:
        """Append a line; what is bad is not to be learnt, so it has a file of its own."""
        place = Path(self.feedback)
        if found["rating"] == "down":
            place = place.with_suffix(f".down{place.suffix}")
        line = json.dumps(found | {"time": int(time.time())}, ensure_ascii=False)
        try:
            with place.open("a", encoding="utf-8", newline="\n") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise _Refusal(
                507, f"{place} can't be written ({error.strerror}): tell who runs the server."
            ) from None


def _opinion(body: bytes) -> dict[str, Any]:
    """Read a feedback: messages, tools, the model and a rating, up or down."""
    try:
        found = json.loads(body)
        messages, tools = found["messages"], found.get("tools") or []
        right = isinstance(messages, list) and len(messages) > 1 and isinstance(tools, list)
        right &= all(isinstance(one, dict) and isinstance(one["role"], str) for one in messages)
        right &= found["rating"] in ("up", "down") and isinstance(found["model"], str)
        json.dumps(found, ensure_ascii=False).encode()  # texts that are none are refused
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        right = False
    if not right:
        raise _Refusal(400, "A feedback has messages, a model and a rating, up or down.")
    kept = {"messages": messages} | ({"tools": tools} if tools else {})
    return kept | {"model": found["model"], "rating": found["rating"]}


def _files(folder: str) -> dict[str, tuple[str, bytes]]:
    """Read the page's files: by their path, of what kind each is and what it holds."""
    if not folder:
        return {}
    root = Path(folder)
    own = sorted(path for path in (root / "chat").iterdir() if path.suffix in TYPES)
    places = {f"/{path.relative_to(root)}": path for path in [*(root / n for n in SHARED), *own]}
    places["/"] = places.pop("/chat/index.html")
    return {path: (file.suffix, file.read_bytes()) for path, file in places.items()}


async def _answer(send: Send, status: int, kind: str, body: bytes) -> None:
    headers = {
        "content-type": TYPES[kind],
        "content-length": str(len(body)),
        "content-security-policy": POLICY,
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-cache",
    }
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
