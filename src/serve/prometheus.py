"""The figures that ``/metrics`` shows, for Prometheus."""

from collections import Counter as Counts
from collections.abc import Sequence
from functools import partial

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.process_collector import ProcessCollector

from src.predict.classifier import Answer, RecordAnswer


class Metrics:
    """The metrics of the server."""

    def __init__(self) -> None:
        """Register each figure."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        gauge = partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter(
            "serve_requests",
            "Answers, by route and status; 499 is a client that left before its answer.",
            ["route", "status"],
        )
        self.seconds = histogram(
            "serve_request_seconds",
            "Time to the answer.",
            ["route"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
        )
        self.batch_texts = histogram(
            "serve_batch_texts", "Texts of a batch.", buckets=(1, 2, 4, 8, 16, 32, 64, 128)
        )
        self.batch_tokens = histogram(
            "serve_batch_tokens",
            "Tokens of a batch, without padding.",
            buckets=(16, 64, 128, 256, 512, 1024, 2048, 4096),
        )
        self.waiting = gauge("serve_waiting_texts", "Texts that have no answer yet.")
        self.texts = counter("serve_texts", "Texts by the label that they got.", ["model", "label"])
        self.unanswered = counter(
            "serve_unanswered_texts", "Texts that got no label, as no score was enough.", ["model"]
        )
        self.truncated = counter(
            "serve_truncated_texts", "Texts of which only the start was read.", ["model"]
        )
        self.reloads = counter(
            "serve_reloads",
            "Models loaded again, or not, because their folders can't be loaded.",
            ["model", "outcome"],
        )
        self.loaded = gauge(
            "serve_model", "1 for each model that is served.", ["model", "sha256", "engine"]
        )

    def batch(self, texts: int, tokens: int) -> None:
        """Count a batch."""
        self.batch_texts.observe(texts)
        self.batch_tokens.observe(tokens)

    def answered(self, model: str, label: str | None, count: int = 1) -> None:
        """Count texts that got a label, or None; questions that got an answer, or None."""
        if label is None:
            self.unanswered.labels(model).inc(count)
        else:
            self.texts.labels(model, label).inc(count)

    def scored(
        self, model: str, answers: Sequence[Answer | RecordAnswer], cut: Sequence[bool]
    ) -> None:
        """Count texts by their labels, those without one, and those that were cut."""
        for label, count in Counts(answer.label for answer in answers).items():
            self.answered(model, label, count)
        if True in cut:
            self.truncated.labels(model).inc(sum(cut))
