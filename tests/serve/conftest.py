"""A server on loopback, in a thread of the tests, with a model that is counted on to do as it is told."""

import asyncio
import http.client
import io
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classifier.bundle.predictor import Predictor
from classifier.export.folder import export_bundle
from classifier.serve.app import App
from classifier.serve.bounds import Bounds
from classifier.serve.capture.capture import Capture, CaptureBounds
from classifier.serve.connection import listen
from classifier.serve.guard import Guard
from classifier.serve.metrics import Metrics
from classifier.serve.registry import Registry, Source
from classifier.serve.request_log import RequestLog
from classifier.serve.rollout import RolloutBounds
from classifier.serve.server import Server
from classifier.serve.version import Pools
from tests.export.conftest import gate as gate
from tests.export.conftest import make_bundle
from tests.export.conftest import waves as waves


@pytest.fixture(scope="session")
def bundle(waves, gate, tmp_path_factory) -> Path:
    """A bundle with an export, for images of 24 x 24 pixels."""
    folder = make_bundle(tmp_path_factory.mktemp("served") / "bundle", "cnn", waves)
    export_bundle(folder, "onnx", gate)
    return folder


def encode(size: int = 24, kind: str = "PNG", seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


@dataclass
class Running:
    """A server in a thread, and a client of it."""

    server: Server
    port: int
    loop: asyncio.AbstractEventLoop
    log: io.StringIO
    thread: threading.Thread

    @property
    def app(self) -> App:
        return self.server.app

    def ask(
        self, path: str, body: bytes | None = None, *, method: str | None = None, **headers: str
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """Return the status, the body as JSON where it is, and the headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method or ("GET" if body is None else "POST"), path, body, names)
        response = connection.getresponse()
        content = response.read()
        connection.close()
        is_json = response.headers.get_content_type() == "application/json"
        return response.status, json.loads(content) if is_json else content, response.headers

    def run(self, work: Any) -> Any:
        """Run a coroutine on the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What was logged of an event."""
        return [one for one in map(json.loads, self.log.getvalue().splitlines()) if one["event"] == event]


def start(
    sources: list[Source],
    *,
    open_predictor: Callable[[Path], Predictor] = lambda path: Predictor(path, threads=1),
    guard: Guard | None = None,
    bounds: Bounds | None = None,
    rollout: RolloutBounds | None = None,
    has_maps: bool = False,
    capture: Path | None = None,
    kept: CaptureBounds | None = None,
) -> Running:
    """Start a server. Whoever starts it stops it by `stop`."""
    started, stream = threading.Event(), io.StringIO()
    running: list[Running] = []
    bounds = bounds or Bounds(deadline_seconds=20)

    def serve() -> None:
        async def main() -> None:
            metrics, log = Metrics(), RequestLog(stream)
            registry = Registry(open_predictor, metrics, log.write, pools=Pools(2), rollout=rollout)
            kept_in = Capture(capture, kept or CaptureBounds(), metrics, log.write) if capture else None
            app = App(registry, metrics, log, guard or Guard(), bounds, has_maps=has_maps, capture=kept_in)
            listener = listen("127.0.0.1", 0, bounds)
            await registry.open(sources)
            server = Server(app, listener)
            running.append(Running(server, listener.getsockname()[1], asyncio.get_running_loop(), stream, thread))
            await server.run(started.set, registry.reload)

        try:
            asyncio.run(main())
        finally:
            started.set()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert started.wait(60)
    assert running, "the server did not start"
    return running[0]


def stop(server: Running) -> None:
    server.run(server.server.drain())
    server.thread.join(20)
    assert not server.thread.is_alive()


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[Running]:
    running = start([Source("waves", bundle), Source("second", bundle)])
    yield running
    stop(running)
