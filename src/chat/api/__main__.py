"""Serve models by transformers over OpenAI's API: chat, completions, streams and models.

    python -m src.chat.api base=models/chat/base lora=models/chat/lora --port 8000

``python -m src.serve.chat --engine transformers`` starts it, looks after it and tells of mistakes.
"""

import importlib
import logging
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from src.chat.api.chat import chat
from src.chat.api.completions import completions
from src.chat.api.errors import HANDLERS, Problem, json_answer
from src.chat.api.waiting import named_engine
from src.chat.engine import Engine
from src.chat.scheduler import Scheduler
from src.core import stage
from src.core.command_line import Count, Interval, Natural, Threads
from src.core.errors import InputError

log = logging.getLogger("src.chat.api")


async def health(scheduler: Scheduler, _: Request) -> Response:
    """Say that the models answer."""
    if not scheduler.alive:
        raise Problem(503, "The thread that answers has ended: restart the server.")
    return json_answer({"status": "ok"})


async def models(scheduler: Scheduler, _: Request) -> Response:
    """List the models."""
    data = [_described(*pair) for pair in scheduler.engines.items()]
    return json_answer({"object": "list", "data": data})


async def model(scheduler: Scheduler, request: Request) -> Response:
    """Describe one model."""
    name, engine = named_engine(scheduler, request.path_params["name"])
    return json_answer(_described(name, engine))


def _described(name: str, engine: Engine) -> dict[str, Any]:
    found = {"id": name, "object": "model", "created": 0, "owned_by": "pedigree"}
    return found | {"max_model_len": engine.longest}


def application(scheduler: Scheduler, *middleware: Any) -> Starlette:
    """Make the application that answers all routes, behind classes of ASGI middleware."""
    routes = [
        Route("/health", partial(health, scheduler)),
        Route("/v1/models", partial(models, scheduler)),
        Route("/v1/models/{name}", partial(model, scheduler)),
        Route("/v1/chat/completions", partial(chat, scheduler), methods=["POST"]),
        Route("/v1/completions", partial(completions, scheduler), methods=["POST"]),
    ]
    before = [Middleware(each) for each in middleware]
    return Starlette(routes=routes, exception_handlers=HANDLERS, middleware=before)


def main(
    *model: Path,
    base: str = "models/chat/base",
    host: str = "127.0.0.1",
    port: Annotated[int, Interval(ge=1, le=65535)] = 8000,
    threads: Threads = 2,
    batch_tokens: Count = 16384,
    max_waiting: Count = 256,
    drain: Natural = 30,
    middleware: str = "",
) -> None:
    """Serve models, each as NAME=FOLDER, until SIGTERM; the first is that of requests without one.

    --base is the model that adapters were trained on. A request in progress has --drain seconds to
    end. --middleware is the import path of a class of ASGI middleware to stand before the routes.
    """
    before = []
    if middleware:
        module, _, name = middleware.rpartition(".")
        before = [getattr(importlib.import_module(module), name)]
    engines = {}
    for one in model:
        name, found, folder = str(one).partition("=")
        if not found:
            raise InputError(f"{one} has no name: write it as NAME=FOLDER.")
        engines[name] = Engine.of(Path(base), Path(folder), threads)
        log.info("%s is loaded", name)
    scheduler = Scheduler(engines, batch_tokens, max_waiting)
    uvicorn.run(
        application(scheduler, *before),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=drain,
    )
    scheduler.close()


if __name__ == "__main__":
    stage.run(main, section=False)
