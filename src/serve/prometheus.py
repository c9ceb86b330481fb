"""The figures that ``/metrics`` shows, for Prometheus."""

from collections.abc import Sequence

import numpy as np
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.process_collector import ProcessCollector

from src.predict.classifier import Logits


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
