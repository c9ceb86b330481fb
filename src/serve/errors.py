"""Errors as answers, in the shape of those of text-embeddings-inference."""

from typing import Any, Literal, NoReturn

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

Kind = Literal[  # the first four are those of text-embeddings-inference
    "Validation",
    "Overloaded",
    "Backend",
    "Unhealthy",
    "Unauthorized",
    "NotFound",
    "MethodNotAllowed",
    "Misdirected",
    "Deadline",
]
STATUSES = {  # what the OpenAPI document says of them
    401: "The key is missing or wrong",
    404: "There is no such model",
    408: "The body took too long to arrive",
    413: "Too many bytes, texts or characters, or a text longer than the model reads",
    415: "The body is of another kind",
    421: "The server does not answer to that host",
    422: "The body is not as described; the message names the field",
    424: "The model failed on the texts",
    429: "Too many texts or bytes are waiting; Retry-After says for how many seconds",
    503: "The server is not well",
    504: "The deadline passed before the answer",
}


class Error(msgspec.Struct):
    """The body of an answer that is an error."""

    error: str
    error_type: Kind


class Problem(Exception):  # noqa: N818, it is an answer
    """An answer that is an error."""

    def __init__(self, status: int, kind: Kind, message: str, **headers: str) -> None:
        """Take the status, the ``error_type``, the ``error`` and headers of the answer."""
        super().__init__(message)
        self.status = status
        self.kind: Kind = kind
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(self) -> Response:
        """Return the answer."""
        body = msgspec.json.encode(Error(str(self), self.kind))
        return Response(body, self.status, self.headers, media_type="application/json")


def invalid(message: str) -> NoReturn:
    """Refuse what is not as described."""
    raise Problem(422, "Validation", message)


def too_large(message: str) -> NoReturn:
    """Refuse what is beyond a limit."""
    raise Problem(413, "Validation", message)


async def _problem(_: Request, error: Exception) -> Response:
    return error.answer() if isinstance(error, Problem) else await _broken(_, error)


async def _starlette(_: Request, error: Exception) -> Response:
    """Answer Starlette's own errors in the shape of the server's."""
    found = error if isinstance(error, HTTPException) else HTTPException(500)
    headers = dict(found.headers or {})
    if found.status_code == 404:
        message = "There is no such route: /docs lists them."
        return Problem(404, "NotFound", message, **headers).answer()
    if found.status_code == 405:
        message = "This route takes another method: /docs lists them."
        return Problem(405, "MethodNotAllowed", message, **headers).answer()
    return Problem(found.status_code, "Validation", found.detail, **headers).answer()


async def _gone(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)  # which nobody gets


async def _broken(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return Problem(500, "Backend", "The server failed: its log says where.").answer()


HANDLERS: dict[Any, Any] = {
    Problem: _problem,
    HTTPException: _starlette,
    ClientDisconnect: _gone,
    Exception: _broken,
}
