"""The table of routes, and those of no dialect: health, models, metrics and pages."""

from functools import partial
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct, structs
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette import routing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from src.serve import answers, explain, open_inference, openapi, tei, upload
from src.serve.errors import HANDLERS, Problem
from src.serve.middleware import HEALTH
from src.serve.models import Described
from src.serve.openapi import Handler, Route
from src.serve.request import json_answer
from src.serve.service import Service

PAGES = {
    "/" if path.name == "index.html" else f"/{path.name}": path
    for path in (Path(__file__).parent / "playground").glob("*")
    if path.is_file()
}
OPEN = {"/", "/docs", "/openapi.json", *PAGES}  # also to whom has no key


class Health(Struct):
    """The server scores, and all its models are loaded."""

    status: Literal["ok"]


class Card(Described):
    """A model with its card and manifest."""

    front_matter: dict[str, Any]
    page: str
    manifest: dict[str, Any]


async def health(service: Service, request: Request) -> Response:  # noqa: ARG001
    """Say that the server scores."""
    if not service.batcher.alive:
        raise Problem(503, "Unhealthy", "The thread that scores has ended: restart the server.")
    return json_answer(Health("ok"))


async def models(service: Service, request: Request) -> Response:  # noqa: ARG001
    """List the models; the first is the one of requests that name none."""
    return json_answer([model.now.described() for model in service.models.values()])


async def card(service: Service, request: Request) -> Response:
    """Show what is known of a model."""
    found = service.model(request.path_params["name"])
    return json_answer(
        Card(
            **structs.asdict(found.described()),
            front_matter=found.card,
            page=found.page,
            manifest=dict(found.manifest),
        )
    )


async def metrics(service: Service, request: Request) -> Response:  # noqa: ARG001
    """Show the figures to Prometheus."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_LATEST)


async def document(service: Service, request: Request) -> Response:  # noqa: ARG001
    """Describe the routes to programs."""
    return json_answer(openapi.document(ROUTES, service.limits, list(service.models)))


async def docs(service: Service, request: Request) -> Response:  # noqa: ARG001
    """Describe the routes to people."""
    described = openapi.document(ROUTES, service.limits, list(service.models))
    return Response(openapi.page(described), media_type="text/html; charset=utf-8")


async def page(service: Service, request: Request) -> Response:
    """Send a file of the playground, or the page of routes where the playground is left out."""
    path = PAGES.get(request.url.path)
    if path is None:
        return await docs(service, request)
    return FileResponse(path, headers={"Cache-Control": "no-cache"})


ROUTES = [
    *tei.ROUTES,
    Route("GET", "/", "index", "A page to try the models, or this one.", page, kind="text/html"),
    *answers.ROUTES,
    *explain.ROUTES,
    *upload.ROUTES,
    Route("GET", "/models", "models", "The models.", models, answer=list[Described]),
    Route("GET", "/models/{name}/card", "card", "What is known of a model.", card, answer=Card),
    *open_inference.ROUTES,
    *(
        Route("GET", path, name, "Whether the server runs.", health, answer=Health, errors=(503,))
        for path, name in HEALTH.items()
    ),
    Route("GET", "/openapi.json", "openapi", "This document.", document),
    Route("GET", "/docs", "docs", "This page.", docs, kind="text/html"),
    Route("GET", "/metrics", "metrics", "Figures for Prometheus.", metrics, kind="text/plain"),
]


def application(service: Service) -> Starlette:
    """Make the application that answers all routes."""
    paths: dict[str, dict[str, Handler]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method] = route.handler
    paths["/v2/"] = paths["/v2"]  # as some clients write it
    for path in PAGES:
        paths.setdefault(path, {})["GET"] = page
    routes = [
        routing.Route(path, partial(_answer, service, handlers), methods=list(handlers))
        for path, handlers in paths.items()
    ]
    return Starlette(routes=routes, exception_handlers=HANDLERS)


async def _answer(service: Service, handlers: dict[str, Handler], request: Request) -> Response:
    method = "GET" if request.method == "HEAD" else request.method
    return await handlers[method](service, request)
