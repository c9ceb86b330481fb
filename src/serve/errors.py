"""Errors as answers, in the shape of those of text-embeddings-inference."""

from typing import Any, NoReturn

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response


class Problem(Exception):  # noqa: N818, it is an answer
    """An answer that is an error: an HTTP status, and the body of text-embeddings-inference."""

    def __init__(self, status: int, kind: str, message: str, **headers: str) -> None:
        """Take the status, the ``error_type``, the ``error`` and headers of the answer."""
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def body(self) -> bytes:
        """The JSON of the answer."""
        return orjson.dumps({"error": str(self), "error_type": self.kind})


def invalid(message: str) -> NoReturn:
    """Refuse what is not as described."""
    raise Problem(422, "Validation", message)


def too_large(message: str) -> NoReturn:
    """Refuse what is beyond a limit."""
    raise Problem(413, "Validation", message)


async def _problem(_: Request, error: Exception) -> Response:
    return error_answer(error) if isinstance(error, Problem) else await _broken(_, error)


async def _starlette(_: Request, error: Exception) -> Response:
    """Starlette's own errors, in the shape of ours."""
    found = error if isinstance(error, HTTPException) else HTTPException(500)
    kind = {404: "NotFound", 405: "MethodNotAllowed"}.get(found.status_code, "Validation")
    message = {404: "There is no such route: see /docs.", 405: "Not by this method: see /docs."}
    text = message.get(found.status_code, found.detail)
    return error_answer(Problem(found.status_code, kind, text, **dict(found.headers or {})))


async def _gone(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)  # which nobody gets


async def _broken(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return error_answer(Problem(500, "Backend", "The server broke on this; its log says where."))


def error_answer(problem: Problem) -> Response:
    """Make the answer of a problem."""
    return Response(problem.body(), problem.status, problem.headers, media_type="application/json")


HANDLERS: dict[Any, Any] = {
    Problem: _problem,
    HTTPException: _starlette,
    ClientDisconnect: _gone,
    Exception: _broken,
}
