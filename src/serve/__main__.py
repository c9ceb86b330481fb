"""Serve exported model folders over HTTP: onnxruntime and tokenizers, without torch or DVC.

    python -m src.serve models/onnx models/onnx-int8 --port 8000

answers at http://127.0.0.1:8000; docs/serving.md describes the routes and the limits.
"""

import asyncio
import contextlib
import hmac
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import orjson
import uvicorn
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.process_collector import ProcessCollector
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from src.core import stage
from src.core.command_line import Count, Interval, Threads
from src.core.errors import InputError, closest
from src.predict.classifier import Classifier, Engine, Logits, softmax
from src.serve import openapi, protocol
from src.serve.batching import Batcher, OverloadError, ScoringError, TooLongError, log_place
from src.serve.models import Loaded, Model
from src.serve.protocol import Limits, Problem

PAGES = Path(__file__).parent / "playground"
KEY = "SERVE_API_KEY"  # the environment variable that may hold the key of the clients
HEALTH = ("/healthz", "/health", "/v2/health/live", "/v2/health/ready")  # for everybody
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
LINGER = 8 * 2**20  # bytes of a body too large that are read and dropped, so that its client hears
SLICE = 16  # texts of a file that are scored between those of other clients
UPLOADS = 2  # files at once

log = logging.getLogger("src.serve")
Result = TypeVar("Result")


class Metrics:
    """What ``/metrics`` shows."""

    def __init__(self) -> None:
        """Register each figure."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "serve_requests",
            "Answers, by route and status; 499 is a client that left before its answer.",
            ["route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "serve_request_seconds",
            "Time to the answer.",
            ["route"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=registry,
        )
        self.batch_texts = Histogram(
            "serve_batch_texts",
            "Texts of a batch.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self.batch_tokens = Histogram(
            "serve_batch_tokens",
            "Tokens of a batch, without padding.",
            buckets=(16, 64, 128, 256, 512, 1024, 2048, 4096),
            registry=registry,
        )
        self.waiting = Gauge(
            "serve_waiting_texts", "Texts that have no answer yet.", registry=registry
        )
        self.texts = Counter(
            "serve_texts",
            "Texts by the label that they got.",
            ["model", "label"],
            registry=registry,
        )
        self.truncated = Counter(
            "serve_truncated_texts",
            "Texts of which only the start was read.",
            ["model"],
            registry=registry,
        )
        self.reloads = Counter(
            "serve_reloads",
            "Models loaded again, or not since they were no good.",
            ["model", "outcome"],
            registry=registry,
        )
        self.loaded = Gauge(
            "serve_model",
            "1 for each model that is served.",
            ["model", "sha256"],
            registry=registry,
        )

    def batch(self, texts: int, tokens: int) -> None:
        """Take in a batch."""
        self.batch_texts.observe(texts)
        self.batch_tokens.observe(tokens)

    def scored(
        self, model: str, labels: Sequence[str], logits: Logits, cut: Sequence[bool]
    ) -> None:
        """Take in what texts got."""
        for k, count in enumerate(np.bincount(logits.argmax(axis=1), minlength=len(labels))):
            if count:
                self.texts.labels(model, labels[k]).inc(int(count))
        if True in cut:
            self.truncated.labels(model).inc(sum(cut))


class Service:
    """The routes: each method that takes a request answers it."""

    def __init__(
        self,
        models: Sequence[Model],
        limits: Limits,
        batch_tokens: int,
        max_texts: int,
        deadline: float,
        upload_deadline: float,
    ) -> None:
        """Serve ``models``, the first where a request names none."""
        self.models = {model.name: model for model in models}
        self.default = models[0]
        self.limits = limits
        self.metrics = Metrics()
        self.batcher = Batcher(batch_tokens, max_texts, self.metrics.batch)
        self.metrics.waiting.set_function(lambda: self.batcher.texts)
        self.deadline = deadline
        self.upload_deadline = upload_deadline
        self.batch_tokens = batch_tokens
        self.max_texts = max_texts
        files = {f"/{path.name}": path for path in PAGES.glob("*") if path.is_file()}
        self.pages = {path.replace("/index.html", "/"): file for path, file in files.items()}
        self._uploads = 0
        self._reloading = asyncio.Lock()
        for model in models:
            self.metrics.loaded.labels(model.name, model.now.sha256).set(1)

    def routes(self) -> list[Route]:
        """The table of routes; ``openapi.document`` describes each."""
        get: dict[str, Any] = {
            "/healthz": self.healthz,
            "/health": self.healthz,
            "/v2/health/live": self.healthz,
            "/v2/health/ready": self.healthz,
            "/v2": self.v2_server,
            **dict.fromkeys(protocol.V2_MODEL, self.v2_model),
            **{f"{path}/ready": self.v2_model_ready for path in protocol.V2_MODEL},
            "/models": self.list_models,
            "/models/{name}/card": self.card,
            "/info": self.info,
            "/metrics": self.show_metrics,
            "/openapi.json": self.openapi,
            "/docs": self.docs,
        }
        post: dict[str, Any] = {
            "/predict": self.predict,
            "/models/{name}": self.hub,
            "/explain": self.explain,
            "/score": self.score,
            **{f"{path}/infer": self.v2_infer for path in protocol.V2_MODEL},
        }
        return [
            *(Route(path, handler, methods=["GET"]) for path, handler in get.items()),
            *(Route(path, handler, methods=["POST"]) for path, handler in post.items()),
            Route("/", self.index, methods=["GET", "POST"]),
            *(Route(path, self.page, methods=["GET"]) for path in self.pages if path != "/"),
        ]

    def _model(self, name: str | None) -> Loaded:
        if name is None:
            return self.default.now
        if name not in self.models:
            hint = closest(name, self.models)
            raise Problem(
                404, "NotFound", f"There is no such model{hint}: {', '.join(self.models)}."
            )
        return self.models[name].now

    async def _scored(
        self,
        model: Loaded,
        texts: Sequence[str],
        until: float,
        truncate: bool = True,
        counted: int | None = None,
    ) -> tuple[Logits, list[bool]]:
        """Logits, and whether each text was cut, with errors as answers.

        The figures take in the first ``counted`` texts, all if it is None.
        """
        classifier = model.classifier
        try:
            logits, cut = await self.batcher.logits(classifier, texts, until, truncate)
        except OverloadError as error:
            raise Problem(
                429, "Overloaded", str(error), Retry_After=str(error.retry_after)
            ) from None
        except TooLongError as error:
            raise Problem(
                413,
                "Validation",
                f"inputs[{error.row}] has more than the {model.manifest['max_length']} tokens or "
                f"{model.manifest['max_characters']} characters that the model reads: shorten it, "
                "or send truncate: true.",
            ) from None
        except ScoringError:
            raise Problem(424, "Backend", "The model broke on this; the log says how.") from None
        self.metrics.scored(model.name, classifier.labels, logits[:counted], cut[:counted])
        return logits, cut

    async def predict(self, request: Request) -> Response:
        """Hugging Face text-embeddings-inference."""
        return await self._classify(request, protocol.predict_request)

    async def index(self, request: Request) -> Response:
        """The page to try the models, and the address by which a client of the hub asks."""
        return await (self.hub if request.method == "POST" else self.page)(request)

    async def page(self, request: Request) -> Response:
        """A file of the page."""
        path = self.pages.get(request.url.path)
        if path is None:
            return await self.docs(request)
        return FileResponse(path, headers={"Cache-Control": "no-cache"})

    async def hub(self, request: Request) -> Response:
        """Hugging Face's inference API, as ``huggingface_hub.InferenceClient`` speaks it."""
        return await self._classify(request, protocol.hub_request)

    async def _classify(
        self, request: Request, parse: Callable[[bytes, Limits], protocol.Request]
    ) -> Response:
        until = time.monotonic() + self.deadline
        asked = parse(await _body(request, self.limits.max_body, until), self.limits)
        model = self._model(asked.model or request.path_params.get("name"))
        labels = model.classifier.labels
        work = self._scored(model, asked.texts, until, asked.truncate)
        logits, cut = await _while_wanted(request, work, until)
        return _json(protocol.answer(asked, labels, logits), **_told(cut))

    async def explain(self, request: Request) -> Response:
        """What the label's probability would be without each word."""
        until = time.monotonic() + self.deadline
        content = await _body(request, self.limits.max_body, until)
        asked = protocol.explain_request(content, self.limits)
        model, text = self._model(asked.model), asked.texts[0]
        labels = model.classifier.labels
        read = text[: model.manifest["max_characters"]]
        words, left = protocol.words_of(read, self.limits.max_words)
        texts = [text, *(text[:start] + text[end:] for start, end in words)]
        work = self._scored(model, texts, until, counted=1)  # the others nobody wrote
        logits, cut = await _while_wanted(request, work, until)
        scores = softmax(logits)
        best = int(scores[0].argmax())
        changes = (scores[1:, best] - scores[0, best]).tolist()
        answer = {
            "model": model.name,
            "label": labels[best],
            "score": float(scores[0, best]),
            "probabilities": dict(zip(labels, scores[0].tolist(), strict=True)),
            "words": [
                {"word": text[start:end], "start": start, "end": end, "change": change}
                for (start, end), change in zip(words, changes, strict=True)
            ],
            "words_left": left,
            "truncated": cut[0],
        }
        return _json(answer, **_told(cut[:1]))

    async def score(self, request: Request) -> Response:
        """A CSV file with the label and score of each row."""
        until = time.monotonic() + self.upload_deadline
        self._check_uploads()  # before much is sent in vain
        content = await _body(request, self.limits.max_upload, until, "text/csv")
        self._check_uploads()  # who sends slowly keeps no others out
        self._uploads += 1
        try:
            return await self._score(request, content, until)
        finally:
            self._uploads -= 1

    def _check_uploads(self) -> None:
        if self._uploads >= UPLOADS:
            raise Problem(
                429, "Overloaded", f"{UPLOADS} files are at it: try again.", Retry_After="5"
            )

    async def _score(self, request: Request, content: bytes, until: float) -> Response:
        query = request.query_params
        protocol.refuse_unknown(query, ("model", "text_column", "prefix"))
        model = self._model(query.get("model"))
        labels, prefix = model.classifier.labels, query.get("prefix", "")
        column = query.get("text_column", "text")
        table = await asyncio.to_thread(protocol.table, content, column, prefix, self.limits)
        work = self._in_slices(model, table.texts, until)
        found, cut = await _while_wanted(request, work, until)
        headers = {"Content-Disposition": 'attachment; filename="scored.csv"'}
        return Response(
            await asyncio.to_thread(table.answer, labels, found, prefix),
            media_type="text/csv; charset=utf-8",
            headers=headers | {"X-Truncated-Rows": str(sum(cut))},
        )

    async def _in_slices(
        self, model: Loaded, texts: list[str], until: float
    ) -> tuple[protocol.Scores, list[bool]]:
        """Score a file between the requests of others, which it waits for when they are many."""
        scores, cut = [], []
        for start in range(0, len(texts), SLICE):
            while True:
                try:
                    part = await self._scored(model, texts[start : start + SLICE], until)
                    break
                except Problem as problem:
                    if problem.status != 429:
                        raise
                    await asyncio.sleep(0.2)
            scores.append(softmax(part[0]))
            cut += part[1]
        return protocol.stacked(scores, len(model.classifier.labels)), cut

    async def v2_infer(self, request: Request) -> Response:
        """The Open Inference Protocol."""
        until = time.monotonic() + self.deadline
        model = self._model(request.path_params["name"])
        labels = model.classifier.labels
        # Clients name no type of the body, or another one for binary tensors.
        content = await _body(request, self.limits.max_body, until, "")
        length = request.headers.get("inference-header-content-length")
        asked = protocol.infer_request(content, length, self.limits)
        work = self._scored(model, asked.texts, until, self.limits.auto_truncate)
        logits, cut = await _while_wanted(request, work, until)
        body, header = protocol.infer_answer(model.name, asked, labels, logits, cut)
        if header is None:
            return Response(body, media_type="application/json", headers=_told(cut))
        headers = {"Inference-Header-Content-Length": str(header)}
        return Response(body, media_type="application/octet-stream", headers=headers | _told(cut))

    async def healthz(self, request: Request) -> Response:
        """Whether the server answers; it has no models that are not loaded."""
        if not self.batcher.alive:
            raise Problem(
                503, "Unhealthy", "The thread that scores has ended: start the server anew."
            )
        return _json({"status": "ok"})

    async def v2_server(self, request: Request) -> Response:
        """The server's name and extensions."""
        return _json({"name": "pedigree", "version": "1", "extensions": ["binary_tensor_data"]})

    async def v2_model(self, request: Request) -> Response:
        """The tensors that a model takes and gives."""
        model = self._model(request.path_params["name"])
        count = len(model.classifier.labels)
        outputs = {
            "label": ("BYTES", [-1]),
            "score": ("FP32", [-1]),
            "probabilities": ("FP32", [-1, count]),
        }
        return _json(
            {
                "name": model.name,
                "versions": [protocol.V2_VERSION],
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": protocol.V2_INPUT, "datatype": "BYTES", "shape": [-1]}],
                "outputs": [
                    {"name": name, "datatype": kind, "shape": shape}
                    for name, (kind, shape) in outputs.items()
                ],
            }
        )

    async def v2_model_ready(self, request: Request) -> Response:
        """Whether a model is served."""
        return _json({"name": self._model(request.path_params["name"]).name, "ready": True})

    async def list_models(self, request: Request) -> Response:
        """The models; the first is the one of requests that name none."""
        return _json([model.now.described() for model in self.models.values()])

    async def card(self, request: Request) -> Response:
        """What a page about the model shows."""
        model = self._model(request.path_params["name"])
        parts = {"front_matter": model.card, "page": model.page, "manifest": model.manifest}
        return _json(model.described() | parts)

    async def info(self, request: Request) -> Response:
        """What text-embeddings-inference says of itself."""
        model = self.default.now
        labels = model.classifier.labels
        names = {str(k): label for k, label in enumerate(labels)}
        kind = {"id2label": names, "label2id": {label: k for k, label in enumerate(labels)}}
        return _json(
            {
                "model_id": model.name,
                "model_sha": model.sha256,
                "model_dtype": "onnx",
                "model_type": {"classifier": kind},
                "max_concurrent_requests": self.max_texts,
                "max_input_length": model.manifest["max_length"],
                "max_batch_tokens": self.batch_tokens,
                "max_client_batch_size": self.limits.max_items,
                "auto_truncate": self.limits.auto_truncate,
                "tokenization_workers": 1,
                "version": "1",
            }
        )

    async def show_metrics(self, request: Request) -> Response:
        """Prometheus."""
        return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    async def openapi(self, request: Request) -> Response:
        """The routes as an OpenAPI document."""
        return _json(openapi.document(self.limits, list(self.models)))

    async def docs(self, request: Request) -> Response:
        """The same as a page."""
        page = openapi.page(openapi.document(self.limits, list(self.models)))
        return Response(page, media_type="text/html; charset=utf-8")

    async def reload(self, *, only_changed: bool) -> None:
        """Load models anew; one that is no good leaves the old one serving."""
        async with self._reloading:
            for model in self.models.values():
                if not only_changed or await asyncio.to_thread(model.settled_on_another):
                    await self._reload(model)

    async def _reload(self, model: Model) -> None:
        old = model.now.sha256
        try:
            await asyncio.to_thread(model.reload)
        except Exception as error:  # whatever it is, the old one serves
            self.metrics.reloads.labels(model.name, "failed").inc()
            told = "%s is still served as it was, since its folder could not be loaded: %s"
            log.error(told, model.name, error, exc_info=not isinstance(error, InputError))
            return
        self.metrics.loaded.remove(model.name, old)
        self.metrics.loaded.labels(model.name, model.now.sha256).set(1)
        self.metrics.reloads.labels(model.name, "loaded").inc()
        log.info("%s was loaded again: sha256 %s", model.name, model.now.sha256)


class Guard:
    """What surrounds each request: allowed hosts, the key, headers of the answer, and figures."""

    def __init__(self, app: ASGIApp, hosts: Sequence[str], key: bytes, service: Service) -> None:
        """Guard ``app``; no key lets everybody in, and the host ``*`` any name."""
        self.app = app
        self.hosts = hosts
        self.key = key
        self.metrics = service.metrics
        self.open = {"/", "/docs", "/openapi.json", *service.pages}  # also to whom has no key

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
            await _error(problem)(scope, receive, send_with_headers)
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
            raise Problem(421, "Misdirected", "This server does not answer for that host.")
        if not self.key or (path in self.open and request.method == "GET"):
            return
        given = request.headers.get("authorization", "").encode("latin-1")
        if not hmac.compare_digest(given, b"Bearer " + self.key):
            raise Problem(
                401,
                "Unauthorized",
                "Send the key of this server as the header Authorization: Bearer KEY.",
                WWW_Authenticate="Bearer",
            )


def _in_address(host: str) -> str:
    """A host as it stands in an address: one of IPv6 in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and (port.isdecimal() or not port) else host


async def _problem(_: Request, error: Exception) -> Response:
    return _error(error) if isinstance(error, Problem) else await _broken(_, error)


async def _starlette(_: Request, error: Exception) -> Response:
    """Starlette's own errors, in the shape of ours."""
    found = error if isinstance(error, HTTPException) else HTTPException(500)
    kind = {404: "NotFound", 405: "MethodNotAllowed"}.get(found.status_code, "Validation")
    message = {404: "There is no such route: see /docs.", 405: "Not by this method: see /docs."}
    text = message.get(found.status_code, found.detail)
    return _error(Problem(found.status_code, kind, text, **dict(found.headers or {})))


async def _gone(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return Response(status_code=499)  # which nobody gets


async def _broken(_: Request, error: Exception) -> Response:  # noqa: ARG001
    return _error(Problem(500, "Backend", "The server broke on this; its log says where."))


def _error(problem: Problem) -> Response:
    return Response(problem.body(), problem.status, problem.headers, media_type="application/json")


def _json(value: Any, **headers: str) -> Response:
    content = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(content, headers=named, media_type="application/json")


def _told(cut: Sequence[bool]) -> dict[str, str]:
    """The header that says which texts were cut; the body is that of the dialect."""
    return {"X-Truncated": protocol.rows_of(cut)} if True in cut else {}


async def _body(request: Request, most: int, until: float, kind: str = "application/json") -> bytes:
    """The body of a request, of a kind and of at most so many bytes."""
    found = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind and found != kind:
        raise Problem(415, "Validation", f"Send the header Content-Type: {kind}.")
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Problem(415, "Validation", "Send the body without Content-Encoding.")
    too_large = Problem(413, "Validation", f"The body may have at most {most} bytes.")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > most + LINGER:
        raise too_large
    content, size = bytearray(), 0
    try:
        async with asyncio.timeout(until - time.monotonic()):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most + LINGER:
                    raise too_large
                if size <= most:
                    content += chunk
    except TimeoutError:
        raise Problem(408, "Deadline", "The body took too long to come.") from None
    if size > most:
        raise too_large
    return bytes(content)


async def _while_wanted(request: Request, work: Awaitable[Result], until: float) -> Result:
    """Wait for ``work``, but neither past the deadline nor for a client that has gone."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())  # after the body, there is only this to come
    try:
        await asyncio.wait(
            {task, gone},
            timeout=until - time.monotonic(),
            return_when=asyncio.FIRST_COMPLETED,
        )
        if task.done():
            return task.result()
        if gone.done():
            raise ClientDisconnect
        raise Problem(504, "Deadline", "There was no time to answer this before its deadline.")
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


HANDLERS: dict[Any, Any] = {
    Problem: _problem,
    HTTPException: _starlette,
    ClientDisconnect: _gone,
    Exception: _broken,
}


class Server(uvicorn.Server):
    """The routes on uvicorn, with its own ways with signals, logs and headers left out.

    Attributes:
        cut: how many connections were closed at the end before their answer was sent.
    """

    def __init__(
        self, service: Service, hosts: Sequence[str], key: bytes, drain: float = 30.0
    ) -> None:
        """Serve to whoever calls it by one of ``hosts`` and has the key, if there is one.

        When it ends, requests under way have ``drain`` seconds for their answers.
        """
        self.cut = 0
        self._drain = drain
        self._hurry = asyncio.Event()
        app = Starlette(routes=service.routes(), exception_handlers=HANDLERS)
        config = uvicorn.Config(
            Guard(app, hosts, key, service),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone: uvicorn would end by the one that ended it, and not with 0."""
        yield

    def end(self) -> None:
        """Answer what came in and end; called again, end at once."""
        if self.should_exit:
            self._hurry.set()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for the answers under way, though not for longer than may be."""
        cutting = asyncio.ensure_future(self._cut_in_time())
        await super().shutdown(sockets)
        cutting.cancel()

    async def _cut_in_time(self) -> None:
        """Close what is still open when the time is up: to its request, the client has gone."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), self._drain)
        await asyncio.sleep(0)  # connections without a request are closed in this round
        left: list[Any] = list(self.server_state.connections)
        self.cut = len(left)
        for connection in left:
            connection.transport.abort()


def main(
    model: Path,
    *more: Path,
    host: str = "127.0.0.1",
    port: Annotated[int, Interval(ge=0, le=65535)] = 8000,
    engine: Engine = "onnxruntime",
    threads: Threads = 2,
    batch_tokens: Count = 1024,
    max_texts: Count = 512,
    max_items: Count = 32,
    max_characters: Count = 100_000,
    max_body: Count = 2**20,
    max_words: Count = 64,
    max_rows: Count = 2000,
    max_upload: Count = 8 * 2**20,
    auto_truncate: bool = True,
    deadline: Annotated[float, Interval(gt=0, le=3600)] = 5.0,
    upload_deadline: Annotated[float, Interval(gt=0, le=3600)] = 300.0,
    drain: Annotated[float, Interval(ge=0, le=3600)] = 30.0,
    watch: Annotated[float, Interval(ge=0, le=3600)] = 2.0,
    hosts: str = "localhost,127.0.0.1,[::1]",
    api_key_file: str = "",
) -> None:
    """Serve model folders over HTTP until SIGTERM; the first is that of requests that name none.

    --drain is how many seconds requests under way then have to end; a second signal cuts them.
    Without --api_key_file, the key that clients must send is that of the environment variable
    SERVE_API_KEY; with neither, none is asked for. --watch is how often, in seconds, to look for
    changed models, 0 for never; SIGHUP loads them anew at any time. --hosts are the names that
    clients may call the server by, with commas between them, or * for any.
    """
    key = _key(api_key_file)
    folders = [model, *more]
    models = [Model(folder, lambda path: Classifier(path, threads, engine)) for folder in folders]
    names = [one.name for one in models]
    if len(set(names)) < len(names):
        raise InputError(
            f"Expected folders of different names, found {', '.join(names)}: each is served by the "
            "name of its folder, so rename one."
        )
    largest = max(max_items, max_words + 1, SLICE)
    if max_texts < largest:
        raise InputError(
            f"Expected --max_texts of at least {largest}, found {max_texts}: a request has up to "
            f"--max_items {max_items} texts, an explanation --max_words {max_words} and one more, "
            f"a part of a file {SLICE}; raise it, or lower those."
        )
    limits = Limits(
        max_body, max_items, max_characters, max_words, max_rows, max_upload, auto_truncate
    )
    listening = _listen(host, port)
    asyncio.run(
        _serve(
            models,
            partial(
                Service,
                limits=limits,
                batch_tokens=batch_tokens,
                max_texts=max_texts,
                deadline=deadline,
                upload_deadline=upload_deadline,
            ),
            listening,
            [_in_address(name.strip().lower()) for name in (*hosts.split(","), host)],
            key,
            drain,
            watch,
        )
    )


async def _serve(
    models: Sequence[Model],
    service_of: Callable[[Sequence[Model]], Service],
    listening: socket.socket,
    hosts: Sequence[str],
    key: bytes,
    drain: float,
    watch: float,
) -> None:
    # It warns of each request that is no HTTP, which anybody can send.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    service = service_of(models)
    server = Server(service, hosts, key, drain)
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.ensure_future(service.reload(only_changed=False))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.end)
    loop.add_signal_handler(signal.SIGHUP, reload)
    if watch:
        tasks.add(asyncio.ensure_future(_watch(service, watch)))
    place, port = listening.getsockname()[:2]
    log.info("serving %s at http://%s:%d", ", ".join(service.models), _in_address(place), port)
    await server.serve(sockets=[listening])
    for task in tasks:
        task.cancel()
    service.batcher.close()
    if server.cut:
        log.warning("ended; connections cut before their answer was sent: %d", server.cut)
    else:
        log.info("ended after every request had its answer")


async def _watch(service: Service, seconds: float) -> None:
    while True:
        await asyncio.sleep(seconds)
        await service.reload(only_changed=True)


def _key(file: str) -> bytes:
    """The key that clients must send; none if it is empty."""
    place = file or f"the environment variable {KEY}"
    try:
        found = Path(file).read_bytes() if file else os.environb.get(KEY.encode(), b"")
    except OSError as error:
        raise InputError(
            f"Expected the key of the clients in {place}, found: {error.strerror}; write it there."
        ) from None
    key = found.strip()
    if not key and (file or found):
        raise InputError(
            f"Expected the key of the clients in {place}, found nothing: write it there."
        )
    return key


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"Expected to listen at {host}:{port}, found: {error.strerror}; choose another with "
            "--host and --port, or end what listens there."
        ) from None
    # What it accepts inherits this. asyncio sets it only on sockets whose protocol has a number,
    # and without it the body of an answer waits 40 ms for the client to acknowledge the head.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


if __name__ == "__main__":
    stage.run(main, section=False)
