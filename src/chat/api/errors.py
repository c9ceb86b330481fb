"""Errors and answers in the form of OpenAI's API."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response


class Problem(Exception):  # noqa: N818, it is an answer
    """An answer that is an error, in the form of OpenAI's.

    Attributes:
        status: of HTTP.
        param: the field that is wrong, or "".
    """

    def __init__(self, status: int, message: str, param: str = "") -> None:
        """Take what the answer says."""
        super().__init__(message)
        self.status = status
        self.param = param

    def body(self) -> dict[str, Any]:
        """Return the object of JSON."""
        kind = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        named = kind.get(self.status, "invalid_request_error")
        if self.status >= 500:
            named = "server_error"
        found = {"message": str(self), "type": named, "param": self.param or None}
        return {"error": found | {"code": self.status}}

    def answer(self) -> Response:
        """Return the answer."""
        headers = {"Retry-After": "1"} if self.status == 429 else {}
        return json_answer(self.body(), self.status, headers)


def json_answer(
    found: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return an answer of JSON."""
    body = msgspec.json.encode(found)
    return Response(body, status, headers, media_type="application/json")


async def _problem(_: Request, error: Exception) -> Response:
    if isinstance(error, Problem):
        return error.answer()
    if isinstance(error, HTTPException):
        said = {404: "There is no such route.", 405: "This route takes another method."}
        return Problem(error.status_code, said.get(error.status_code, error.detail)).answer()
    return Problem(500, "The server failed: its log says where.").answer()


async def _left(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)  # which nobody gets


HANDLERS: dict[Any, Any] = {
    Problem: _problem,
    HTTPException: _problem,
    ClientDisconnect: _left,
    Exception: _problem,
}
