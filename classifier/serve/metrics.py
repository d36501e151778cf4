"""What the server measures, for Prometheus: a request's seconds, split as Triton does into queue, decoding, computing.

A request is counted once, an inference per image, an execution per batch. No label is a client's text.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_MODEL = ("model", "version")
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The metrics of one server."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        prefix = "classifier_"

        def seconds(name: str, text: str, labels: tuple[str, ...] = _MODEL) -> Histogram:
            return Histogram(f"{prefix}{name}_seconds", text, labels, buckets=_SECONDS, registry=registry)

        def count(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(f"{prefix}{name}", text, labels, registry=registry)

        self.requests = count("requests", "Requests answered, by route and HTTP status.", ("route", "status"))
        self.request_seconds = seconds("request", "From the head of a request to its answer.", ("route",))
        self.in_progress = Gauge(f"{prefix}requests_in_progress", "Requests being answered.", registry=registry)
        self.body_bytes = Gauge(f"{prefix}request_bytes_held", "Of bodies in memory.", registry=registry)
        self.inferences = count("inferences", "Images answered.", _MODEL)
        self.executions = count("executions", "Batches computed.", _MODEL)
        self.batch_images = Histogram(
            f"{prefix}batch_images", "Images of a batch.", _MODEL, buckets=_IMAGES, registry=registry
        )
        self.queue_seconds = seconds("queue", "A request's wait for its first batch.")
        self.decode_wait_seconds = seconds("decode_queue", "A request's wait for a thread that decodes.")
        self.decode_seconds = seconds("decode", "Decoding of a request's images.")
        self.compute_seconds = seconds("compute", "Computing of the batches of a request.")
        self.compared = count("compared", "Requests answered by two versions, by outcome.", ("model", "outcome"))
        self.rollouts = count("rollouts", "New versions that were tried, by outcome.", ("model", "outcome"))
        self.captured = count("captured", "Images whose answers were written to --capture.", ("model",))
        self.capture_dropped = count("capture_dropped", "Images whose answers could not be.", ("model",))
        self.is_ready = Gauge(f"{prefix}model_ready", "1 if the version answers requests.", _MODEL, registry=registry)

    def of(self, model: str, version: str) -> "ModelMetrics":
        return ModelMetrics(self, model, version)

    def render(self) -> bytes:
        """Return all of them in Prometheus's text format."""
        return generate_latest(self.registry)


class ModelMetrics:
    """The metrics of one version of a model, whose series are looked up once."""

    def __init__(self, metrics: Metrics, *labels: str) -> None:
        self._labels = labels
        self._families = (
            *(metrics.inferences, metrics.executions, metrics.batch_images, metrics.queue_seconds),
            *(metrics.decode_wait_seconds, metrics.decode_seconds, metrics.compute_seconds, metrics.is_ready),
        )
        self._inferences = metrics.inferences.labels(*labels)
        self._executions = metrics.executions.labels(*labels)
        self._batch_images = metrics.batch_images.labels(*labels)
        self._queue = metrics.queue_seconds.labels(*labels)
        self._decode_wait = metrics.decode_wait_seconds.labels(*labels)
        self._decode = metrics.decode_seconds.labels(*labels)
        self._compute = metrics.compute_seconds.labels(*labels)
        self._is_ready = metrics.is_ready.labels(*labels)

    def count_batch(self, images: int, seconds: float) -> None:
        self._executions.inc()
        self._inferences.inc(images)
        self._batch_images.observe(images)

    def observe(self, queue_seconds: float, compute_seconds: float) -> None:
        self._queue.observe(queue_seconds)
        self._compute.observe(compute_seconds)

    def observe_decoding(self, seconds: float, wait_seconds: float) -> None:
        self._decode.observe(seconds)
        self._decode_wait.observe(wait_seconds)

    def set_ready(self, is_ready: bool) -> None:
        self._is_ready.set(is_ready)

    def forget(self) -> None:
        """Drop the series of a version that is gone."""
        for family in self._families:
            family.remove(*self._labels)
