"""What a process of `serve` runs, alone or as a replica on Ray: the application, with the models that it answers."""

import contextlib
import functools
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classifier.bundle.predictor import Predictor
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.runtime.cpu import available_cores
from classifier.runtime.threads import limit_to_free_cores
from classifier.serve.app import App
from classifier.serve.bounds import Bounds
from classifier.serve.capture.capture import Capture, CaptureBounds
from classifier.serve.guard import Guard
from classifier.serve.keys import Keys
from classifier.serve.metrics import Metrics
from classifier.serve.registry import Registry, Source
from classifier.serve.request_log import RequestLog
from classifier.serve.rollout import RolloutBounds
from classifier.serve.version import Pools

from ..cli.verb import Request


class Service:
    """The application, with what it serves. Nothing is loaded before `open`."""

    def __init__(self, request: Request, sources: Sequence[Source]) -> None:
        """ConfigError if the keys cannot be read."""
        self._key_file, self._sources = request.options.key_file, sources
        self._guard = Guard(Keys.read(Path(self._key_file)) if self._key_file else None)
        self.app = _make_app(request, self._guard)

    @property
    def is_ready(self) -> bool:
        """Whether requests are welcome."""
        return self.app.registry.is_ready

    async def open(self) -> None:
        """Load the models. ClassifierError if one cannot be used."""
        await self.app.registry.open(self._sources)

    async def reload(self) -> None:
        """Read the keys again, and load what has changed on disk; what cannot be loaded changes nothing."""
        if self._key_file:
            try:
                self._guard.keys = Keys.read(Path(self._key_file))
            except ConfigError as error:  # the keys before stay
                self.app.log.write("load_failed", error=str(error))
        await self.app.registry.reload()

    async def close(self) -> None:
        """Free everything, after the last answer."""
        await self.app.registry.close()
        self.app.log.close()


def _make_app(request: Request, guard: Guard) -> App:
    options, cores = request.options, available_cores()
    if (named := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        cores = int(named)
    else:
        cores, line = limit_to_free_cores(cores, request.load, "OMP_NUM_THREADS")
        if line:
            with contextlib.suppress(OSError):  # a full disk under the log
                print(line, file=sys.stderr)
    bounds = Bounds(
        deadline_seconds=options.deadline,
        request_bytes=options.max_request_mb << 20,
        all_bytes=max(Bounds.all_bytes, 4 * options.max_request_mb << 20),
        images=options.max_images,
        requests=options.max_requests,
    )
    rollout = RolloutBounds(
        share=options.share,
        is_shadow=options.shadow,
        requests=options.share_requests,
        max_errors=options.max_errors,
        max_disagreement=options.max_disagreement,
        max_slowdown=options.max_slowdown,
    )
    data = {name.removeprefix("data."): value for name, value in request.changes.items() if name.startswith("data.")}
    # A request cannot wait longer for its image.
    limits = data | {"max_seconds": min(data.get("max_seconds", options.deadline), options.deadline)}
    open_predictor = functools.partial(_open_predictor, options, limits)
    log, metrics = RequestLog(sys.stderr if options.log else None), Metrics()
    capture = None
    if options.capture:
        kept = CaptureBounds(options.capture_share, options.capture_mb << 20, options.capture_images)
        capture = Capture(Path(options.capture), kept, metrics, log.write)
    registry = Registry(open_predictor, metrics, log.write, pools=Pools(cores), rollout=rollout)
    app = App(registry, metrics, log, guard, bounds, has_maps=options.maps, capture=capture)
    if options.films:
        _add_films(app, request, limits)
    return app


def _add_films(app: App, request: Request, limits: dict[str, Any]) -> None:
    """Take films, too. ImportError if what decodes them is not installed."""
    if importlib.util.find_spec("av") is None:
        raise ModuleNotFoundError(name="av")
    from classifier.watch.endpoint.film_job import FilmBounds
    from classifier.watch.endpoint.route import FilmRoutes
    from classifier.watch.endpoint.watching import open_predictor

    options = request.options
    bounds = FilmBounds(
        at_once=options.films,
        film_bytes=options.film_mb << 20,
        seconds=options.film_seconds,
        silent_seconds=app.bounds.body_seconds,
        max_pixels=Experiment().override_all(request.changes).data.max_pixels,
    )
    FilmRoutes(app, bounds, functools.partial(open_predictor, options.device, options.engine, limits))


def _open_predictor(options: Any, limits: dict[str, Any], path: Path) -> Predictor:
    """Open a model that computes a batch in one thread: several batches at once use the cores better."""
    predictor = Predictor(path, device=options.device, engine=options.engine, threads=1, **limits)
    if predictor.uses_torch:
        import torch

        torch.set_num_threads(1)
    return predictor
