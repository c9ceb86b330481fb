"""The routes as an OpenAPI document, and the same as a page."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from src.serve.errors import STATUSES, Error
from src.serve.request import JSON, SCHEMAS, Limits
from src.serve.service import Service

GET_ERRORS = (401, 421)
POST_ERRORS = (401, 404, 408, 413, 415, 421, 422, 424, 429, 504)

Handler = Callable[[Service, Request], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """One method of one path: the function that answers it, and what it takes and gives.

    Attributes:
        name: the ``operationId``.
        body: the type of the body of a POST, or a tuple of types that it may have.
        answer: the type of the answer, likewise.
        query: a type with a field for each parameter of the query.
        kind: the media type of body and answer.
        errors: the statuses of errors, beside those that every such route has.
    """

    method: str
    path: str
    name: str
    summary: str
    handler: Handler
    body: Any = None
    answer: Any = None
    query: Any = None
    kind: str = JSON
    errors: tuple[int, ...] = ()


class _Schemas:
    """The schemas of types; those with a name are collected."""

    def __init__(self, limits: Limits, models: Sequence[str]) -> None:
        self.named: dict[str, Any] = {
            "Text": {
                "type": "string",
                "description": f"At most {limits.max_characters} characters.",
            },
            "ModelName": {"type": "string", "enum": list(models)},
        }

    def of(self, kind: Any) -> dict[str, Any]:
        if kind is None:
            return {}
        if isinstance(kind, tuple):
            return {"anyOf": [self.of(one) for one in kind]}
        (schema,), named = msgspec.json.schema_components([kind], ref_template=SCHEMAS + "{name}")
        if clash := [n for n, one in named.items() if self.named.get(n, one) != one]:
            raise TypeError(f"two types are called {clash[0]}")
        self.named |= named
        return schema

    def fields(self, kind: Any) -> dict[str, Any]:
        """Return the schemas of the fields of a type."""
        fields: dict[str, Any] = _resolved(self.of(kind), self.named).get("properties", {})
        return fields


def document(routes: Sequence[Route], limits: Limits, models: Sequence[str]) -> dict[str, Any]:
    """Describe routes, with the limits and models of this server."""
    schemas = _Schemas(limits, models)
    schemas.of(Error)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pedigree",
            "version": "1",
            "description": "Text classification with exported models. A request has at most "
            f"{limits.max_items} texts and {limits.max_body} bytes, a file {limits.max_rows} rows "
            f"and {limits.max_upload} bytes.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas.named,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, schemas: _Schemas) -> dict[str, Any]:
    in_path = "{name}" in route.path
    errors = set(route.errors) | set(POST_ERRORS if route.method == "POST" else GET_ERRORS)
    if in_path:
        errors.add(404)
    error = {JSON: {"schema": {"$ref": f"{SCHEMAS}Error"}}}
    parameters = [_parameter("name", "path", {"$ref": f"{SCHEMAS}ModelName"})] if in_path else []
    if route.query:
        fields = schemas.fields(route.query)
        parameters += [_parameter(name, "query", schema) for name, schema in fields.items()]
    operation = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "The answer",
                "content": {route.kind: {"schema": schemas.of(route.answer)}},
            },
            **{
                str(status): {"description": STATUSES[status], "content": error}
                for status in sorted(errors)
            },
        },
    }
    if route.body:
        content = {route.kind: {"schema": schemas.of(route.body)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _parameter(name: str, place: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _resolved(schema: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = named.get(schema.get("$ref", "").removeprefix(SCHEMAS), schema)
    return found


def page(described: dict[str, Any]) -> str:
    """Make a page of HTML, without scripts, of a document."""
    parts = [
        f"<h1>{escape(described['info']['title'])}</h1>",
        f"<p>{escape(described['info']['description'])} The same for programs: "
        '<a href="openapi.json">openapi.json</a>.</p>',
    ]
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            parts.append(f"<h2><code>{method.upper()} {escape(path)}</code></h2>")
            parts += _section(operation, described["components"]["schemas"])
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><title>Routes</title></head>'
        f"<body>{''.join(parts)}</body></html>"
    )


def _section(operation: dict[str, Any], named: dict[str, Any]) -> Iterator[str]:
    yield f"<p>{escape(operation['summary'])}</p>"
    for kind, media in operation.get("requestBody", {}).get("content", {}).items():
        first = media["schema"].get("anyOf", [media["schema"]])[0]
        schema = _resolved(first, named)
        needed = schema.get("required", [])
        listed = ", ".join(
            f"<code>{escape(field)}</code>{'' if field in needed else ' (optional)'}"
            for field in schema.get("properties", {})
        )
        yield f"<p>Body: {escape(kind)}{': ' if listed else ''}{listed}</p>"
    statuses = [
        f"<li>{status}: {escape(response['description'])}</li>"
        for status, response in operation["responses"].items()
    ]
    yield f"<ul>{''.join(statuses)}</ul>"
