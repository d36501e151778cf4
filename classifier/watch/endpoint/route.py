"""POST /watch: a film in the body, events in the answer, a line of JSON for each as it is found.

The last line is `finished`, or `failed` with a sentence; a film of which no frame can be answered is refused instead.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import Gauge
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from classifier.serve.app import App
from classifier.serve.body import StreamedRoute
from classifier.serve.bounds import RequestError
from classifier.serve.request_log import Trace
from classifier.serve.version import ModelVersion
from classifier.watch.counts import Counts
from classifier.watch.endpoint.film_job import FilmBounds, FilmJob, read_settings
from classifier.watch.endpoint.openapi import describe_watch
from classifier.watch.endpoint.sent_film import SentFilm, refuse_size, render
from classifier.watch.endpoint.watching import REPORTED
from classifier.watch.metrics import CountsCollector

if TYPE_CHECKING:
    from classifier.bundle.predictor import Predictor

CONTENT_TYPE = "application/x-ndjson"
_RETRY_SECONDS = 10.0
_OTHER_FORMS = ("multipart/form-data", "application/json")


class FilmRoutes:
    """Takes films for the models of an application, within limits. open_predictor: called in the process of a film; it
    is pickled by its name."""

    def __init__(self, app: App, bounds: FilmBounds, open_predictor: "Callable[[Path], Predictor]") -> None:
        self._app, self._bounds, self._open = app, bounds, open_predictor
        self._in_progress = 0
        self._gauge = Gauge("classifier_films_in_progress", "Films being watched.", registry=app.metrics.registry)
        self._counts = Counts()
        app.metrics.registry.register(CountsCollector(self._counts))
        app.routes += [
            StreamedRoute(path, self._watch, methods=["POST"], description=describe_watch(path))
            for path in ("/watch", "/watch/{model}")
        ]

    async def _watch(self, request: Request) -> Response:
        registry, parameters = self._app.registry, request.query_params
        version = registry.find(request.path_params.get("model")).find(parameters.get("version"))
        settings = read_settings(parameters.multi_items(), version.predictor.answer_names)
        length = self._check_head(request.headers)
        if not registry.is_ready:
            raise RequestError(503, "the server is stopping: send the film to another one")
        if self._in_progress >= self._bounds.at_once:
            many = f"{self._bounds.at_once} film{'s are' if self._bounds.at_once > 1 else ' is'}"
            raise RequestError(429, f"{many} being watched already: try again later", _RETRY_SECONDS)
        job = FilmJob(
            path=version.path,
            digest=version.digest,
            open_predictor=self._open,
            settings=settings,
            max_pixels=self._bounds.max_pixels,
            length=length,
        )
        facts = request.state.facts
        facts |= {"model": version.name, "version": version.number}
        film = SentFilm(job, request.receive, self._bounds, lambda: not registry.is_ready)
        async with AsyncExitStack() as ends:
            self._count(1)
            ends.callback(self._finish, film, facts)
            await ends.enter_async_context(film)
            reports = film.reports()
            first = await anext(reports)
            later = ends.pop_all()
            lines = self._write_lines(film, first, reports, version, request.state.trace, later)
            return _FilmResponse(lines, self._bounds.silent_seconds, later)

    async def _write_lines(
        self,
        film: SentFilm,
        first: dict[str, Any],
        reports: AsyncIterator[dict[str, Any]],
        version: ModelVersion,
        trace: Trace,
        ends: AsyncExitStack,
    ) -> AsyncIterator[bytes]:
        """Yield a line for each event, and a last one, when there is room for the next film."""
        last: dict[str, Any] = {"event": "finished"}
        try:
            if first["kind"] == "event":
                yield render(first["event"])
            async for report in reports:
                if report["kind"] == "event":
                    yield render(report["event"])
        except RequestError as error:
            self._app.log.write("film_failed", error=error.message, **trace.fields())
            last = {"event": "failed", "error": error.message}
        await ends.aclose()
        yield render(last | {"model": version.name, "version": version.number, "bundle": version.bundle} | film.counts)

    def _check_head(self, headers: Headers) -> int | None:
        """Return how long the film is, if that is known. RequestError (413, 415)."""
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise RequestError(415, "compressed bodies are not taken: send the film as it is")
        if headers.get("content-type", "").partition(";")[0].strip().lower() in _OTHER_FORMS:
            raise RequestError(415, "send the bytes of one film as the body, as curl --data-binary @film.mp4 does")
        length = headers.get("content-length")
        if length is None:
            return None
        if int(length) > self._bounds.film_bytes:  # the parser has seen that it is a number
            raise RequestError(*refuse_size(self._bounds.film_bytes))
        return int(length)

    def _count(self, change: int) -> None:
        self._in_progress += change
        self._gauge.set(self._in_progress)

    def _finish(self, film: SentFilm, facts: dict[str, Any]) -> None:
        self._count(-1)
        facts |= {"bytes": film.bytes, "digest": film.digest} | film.counts
        for name in REPORTED:
            setattr(self._counts, name, getattr(self._counts, name) + film.counts.get(name, 0))


class _FilmResponse(StreamingResponse):
    """Sends lines as they come. seconds: in which the client takes each. ends: closed at the end, whatever happens."""

    def __init__(self, lines: AsyncIterator[bytes], seconds: float, ends: AsyncExitStack) -> None:
        super().__init__(lines, media_type=CONTENT_TYPE)
        self._seconds, self._ends = seconds, ends

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """TimeoutError if the client does not take them. That it has gone is seen where its film is read."""

        async def send_in_time(message: Message) -> None:
            async with asyncio.timeout(self._seconds):
                await send(message)

        async with self._ends:
            await self.stream_response(send_in_time)
