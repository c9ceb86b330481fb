"""The models that are served, and the routes."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from src.core.errors import InputError, closest
from src.predict.classifier import Logits, softmax
from src.serve import openapi, protocol
from src.serve.batching import Batcher, OverloadError, ScoringError, TooLongError
from src.serve.errors import Problem
from src.serve.models import Loaded, Model
from src.serve.prometheus import Metrics
from src.serve.request import Limits, body_of, json_answer, told, while_wanted

PAGES = Path(__file__).parent / "playground"
SLICE = 16  # texts of a file that are scored between those of other clients
UPLOADS = 2  # files at once

log = logging.getLogger("src.serve")


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
        asked = parse(await body_of(request, self.limits.max_body, until), self.limits)
        model = self._model(asked.model or request.path_params.get("name"))
        labels = model.classifier.labels
        work = self._scored(model, asked.texts, until, asked.truncate)
        logits, cut = await while_wanted(request, work, until)
        return json_answer(protocol.answer(asked, labels, logits), **told(cut))

    async def explain(self, request: Request) -> Response:
        """What the label's probability would be without each word."""
        until = time.monotonic() + self.deadline
        content = await body_of(request, self.limits.max_body, until)
        asked = protocol.explain_request(content, self.limits)
        model, text = self._model(asked.model), asked.texts[0]
        labels = model.classifier.labels
        read = text[: model.manifest["max_characters"]]
        words, left = protocol.words_of(read, self.limits.max_words)
        texts = [text, *(text[:start] + text[end:] for start, end in words)]
        work = self._scored(model, texts, until, counted=1)  # the others nobody wrote
        logits, cut = await while_wanted(request, work, until)
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
        return json_answer(answer, **told(cut[:1]))

    async def score(self, request: Request) -> Response:
        """A CSV file with the label and score of each row."""
        until = time.monotonic() + self.upload_deadline
        self._check_uploads()  # before much is sent in vain
        content = await body_of(request, self.limits.max_upload, until, "text/csv")
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
        found, cut = await while_wanted(request, work, until)
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
        content = await body_of(request, self.limits.max_body, until, "")
        length = request.headers.get("inference-header-content-length")
        asked = protocol.infer_request(content, length, self.limits)
        work = self._scored(model, asked.texts, until, self.limits.auto_truncate)
        logits, cut = await while_wanted(request, work, until)
        body, header = protocol.infer_answer(model.name, asked, labels, logits, cut)
        if header is None:
            return Response(body, media_type="application/json", headers=told(cut))
        headers = {"Inference-Header-Content-Length": str(header)}
        return Response(body, media_type="application/octet-stream", headers=headers | told(cut))

    async def healthz(self, request: Request) -> Response:
        """Whether the server answers; it has no models that are not loaded."""
        if not self.batcher.alive:
            raise Problem(
                503, "Unhealthy", "The thread that scores has ended: start the server anew."
            )
        return json_answer({"status": "ok"})

    async def v2_server(self, request: Request) -> Response:
        """The server's name and extensions."""
        return json_answer(
            {"name": "pedigree", "version": "1", "extensions": ["binary_tensor_data"]}
        )

    async def v2_model(self, request: Request) -> Response:
        """The tensors that a model takes and gives."""
        model = self._model(request.path_params["name"])
        count = len(model.classifier.labels)
        outputs = {
            "label": ("BYTES", [-1]),
            "score": ("FP32", [-1]),
            "probabilities": ("FP32", [-1, count]),
        }
        return json_answer(
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
        return json_answer({"name": self._model(request.path_params["name"]).name, "ready": True})

    async def list_models(self, request: Request) -> Response:
        """The models; the first is the one of requests that name none."""
        return json_answer([model.now.described() for model in self.models.values()])

    async def card(self, request: Request) -> Response:
        """What a page about the model shows."""
        model = self._model(request.path_params["name"])
        parts = {"front_matter": model.card, "page": model.page, "manifest": model.manifest}
        return json_answer(model.described() | parts)

    async def info(self, request: Request) -> Response:
        """What text-embeddings-inference says of itself."""
        model = self.default.now
        labels = model.classifier.labels
        names = {str(k): label for k, label in enumerate(labels)}
        kind = {"id2label": names, "label2id": {label: k for k, label in enumerate(labels)}}
        return json_answer(
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
        return json_answer(openapi.document(self.limits, list(self.models)))

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
