"""Counts requests, images and batches for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE = CONTENT_TYPE_LATEST

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The figures of one server."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a time of creation beside each figure, which nobody reads
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter("crossroads_requests", "Answered requests.", ("path", "status"), registry=registry)
        self._seconds = Histogram(
            "crossroads_request_seconds", "Time from the headers of a request to its answer.", ("path",), buckets=_SECONDS,
            registry=registry,
        )  # fmt: skip
        self._images = Counter("crossroads_images", "Answered images.", ("model", "outcome"), registry=registry)
        self._batch = Histogram(
            "crossroads_batch_images", "Images per batch.", ("model",), buckets=(1, 2, 4, 8, 16, 32), registry=registry
        )
        self._batch_seconds = Histogram(
            "crossroads_batch_seconds", "Time to decode and compute a batch.", ("model",), buckets=_SECONDS, registry=registry
        )
        self._waiting = Gauge("crossroads_waiting_images", "Accepted images that have no answer yet.", registry=registry)
        self._reloads = Counter(
            "crossroads_reloads", "New artifacts in the folder of a model.", ("model", "outcome"), registry=registry
        )

    def waiting_from(self, count: Callable[[], float]) -> None:
        """Reads the number of waiting images from a function."""
        self._waiting.set_function(count)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts one request. `path` is the route, not the path that the client sent."""
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def images(self, model: str, predicted: int, refused: int) -> None:
        """Counts the images of one request."""
        self._images.labels(model, "predicted").inc(predicted)
        self._images.labels(model, "refused").inc(refused)

    def batch(self, model: str, images: int, seconds: float) -> None:
        """Counts one batch."""
        self._batch.labels(model).observe(images)
        self._batch_seconds.labels(model).observe(seconds)

    def reload(self, model: str, outcome: str) -> None:
        """Counts a new artifact, which was ``loaded`` or ``refused``."""
        self._reloads.labels(model, outcome).inc()

    def text(self) -> bytes:
        """Returns all figures in the text form of Prometheus."""
        return generate_latest(self._registry)
