"""What stands before an engine that speaks OpenAI's API: hosts, the key, and its errors' form.

It is ASGI middleware that an engine's own process loads by its path of import, so that nothing has
to be handed on; its settings come by variables, as the engine has no words for them.
"""

import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

HOSTS = "PEDIGREE_CHAT_HOSTS"  # the variables: names that clients may use, separated by commas
KEY = "PEDIGREE_CHAT_KEY"  # what they must send, or nothing
OPEN = ("/health", "/ping")  # to everybody

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Front:
    """Refuses who has no business here, and passes everybody else on."""

    def __init__(self, app: App) -> None:
        """Stand before ``app``."""
        self.app = app
        self.hosts = os.environ.get(HOSTS, "*").split(",")
        self.key = os.environb.get(KEY.encode(), b"")

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or let the engine do it."""
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self.app(scope, receive, send)
            return
        headers = dict(reversed(scope["headers"]))  # the first of a name
        if refused := self._host(headers) or self._wrong_key(headers):
            await _answer(send, *refused)
            return
        await self.app(scope, receive, send)

    def _host(self, headers: dict[bytes, bytes]) -> tuple[int, str, str] | None:
        name = headers.get(b"host", b"").decode("latin-1").lower()
        head, colon, port = name.rpartition(":")
        alone = head if colon and (port.isdecimal() or not port) else name
        if "*" in self.hosts or alone in self.hosts:
            return None
        sentence = "The server does not answer to this host: use another, or add it to --hosts."
        return 421, sentence, "invalid_request_error"

    def _wrong_key(self, headers: dict[bytes, bytes]) -> tuple[int, str, str] | None:
        scheme, _, sent = headers.get(b"authorization", b"").partition(b" ")
        right = scheme.lower() == b"bearer" and hmac.compare_digest(sent.strip(), self.key)
        if right or not self.key:
            return None
        sentence = "The key is missing or wrong: send it as the header Authorization: Bearer KEY."
        return 401, sentence, "authentication_error"


async def _answer(send: Send, status: int, sentence: str, kind: str) -> None:
    error = {"message": sentence, "type": kind, "param": None, "code": status}
    headers = [(b"content-type", b"application/json")]
    headers += [(b"www-authenticate", b"Bearer")] * (status == 401)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})
