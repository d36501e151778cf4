"""What is measured while watching, for Prometheus: the model's seconds as `serve` has them, and the counts."""

import dataclasses
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from classifier.serve.metrics import Metrics
from classifier.watch.counts import Counts


class WatchMetrics:
    """The metrics of one watching. model: a name for the label."""

    def __init__(self, counts: Counts, model: str) -> None:
        self._metrics = Metrics()
        self._model = self._metrics.of(model, "1")
        self._metrics.registry.register(CountsCollector(counts))

    def observe(self, decode_seconds: float, compute_seconds: float) -> None:
        """Record a frame that the model has answered; decoding is what makes it the model's input."""
        self._model.observe_decoding(decode_seconds, 0.0)
        self._model.observe(0.0, compute_seconds)
        self._model.count_batch(1, compute_seconds)

    def count_request(self, route: str, status: int) -> None:
        """Count a request to the page."""
        self._metrics.requests.labels(route, str(status)).inc()

    def render(self) -> bytes:
        """Return all of them in Prometheus's text format."""
        return self._metrics.render()


class CountsCollector(Collector):
    """The counts, as `classifier_watch_` and their name."""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[CounterMetricFamily]:
        for name, value in dataclasses.asdict(self._counts).items():
            yield CounterMetricFamily(f"classifier_watch_{name}", f"Watching: {name}.", value=value)
