"""A film that a client sends while its events go back: both directions, and what ends them."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from starlette.types import Receive

from classifier.serve.bounds import RequestError
from classifier.watch.endpoint.film_job import FilmBounds, FilmJob
from classifier.watch.endpoint.film_process import FilmProcess

_POLL_SECONDS = 0.5
_CRASHED = "the process that watches the film has ended, by a crash or for want of memory: convert it, to H.264 in MP4"


class _Failure(NamedTuple):
    """Why the film is watched no further."""

    status: int
    error: str


class SentFilm:
    """Hands the body of a request on to a process, and returns what that reports. A context manager, asynchronous.

    is_ending: whether the server wants to end. `counts`, `bytes` and `digest` are complete at the end.
    """

    def __init__(self, job: FilmJob, receive: Receive, bounds: FilmBounds, is_ending: Callable[[], bool]) -> None:
        self._job, self._receive, self._bounds, self._is_ending = job, receive, bounds, is_ending
        self.counts: dict[str, int] = {}
        self.bytes, self._hash = 0, hashlib.sha256()
        self._is_ready = asyncio.Event()
        self._failure: _Failure | None = None

    @property
    def digest(self) -> str:
        """Of the bytes that have come, as in the log of requests."""
        return self._hash.hexdigest()[:16]

    async def __aenter__(self) -> "SentFilm":
        loop, seconds = asyncio.get_running_loop(), self._bounds.seconds
        self._process = await loop.run_in_executor(None, FilmProcess, self._job)
        sentence = f"the film was not watched within {seconds:g} seconds: send a shorter one, or fewer frames a second"
        self._timer = loop.call_later(seconds, self._end, 422, sentence)
        self._pump = asyncio.create_task(self._hand_on())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._timer.cancel()
        self._pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._pump
        await self._process.close()

    async def reports(self) -> AsyncIterator[dict[str, Any]]:
        """Yield `opened` once, and events. RequestError if the film cannot be watched, or not to its end."""
        while True:
            waiting = asyncio.ensure_future(self._process.receive())
            while not (await asyncio.wait((waiting,), timeout=_POLL_SECONDS))[0]:
                if self._is_ending():
                    self._end(503, "the server is stopping: send the film again")
            report = waiting.result()
            if report is None or self._failure:
                raise RequestError(*(self._failure or _Failure(422, _CRASHED)))
            self.counts = report.get("counts", self.counts)
            if report["kind"] == "finished":
                return
            if report["kind"] == "failed":
                raise RequestError(report["status"], report["error"])
            if report["kind"] == "ready":
                self._is_ready.set()
            else:
                yield report

    async def _hand_on(self) -> None:
        """Hand on the body as it comes, then wait whether the client goes away.

        Nothing is read before the process is ready, so that a stream is watched at its own pace from the start.
        """
        limit, seconds = self._bounds.film_bytes, self._bounds.silent_seconds
        is_whole = False
        await self._is_ready.wait()
        while True:
            try:
                async with asyncio.timeout(None if is_whole else seconds):
                    message = await self._receive()
            except TimeoutError:
                return self._end(408, f"nothing of the film has come for {seconds:g} seconds: send it faster")
            if message["type"] == "http.disconnect":
                return self._end(400, "the client has gone")
            part = message.get("body", b"")
            self.bytes += len(part)
            self._hash.update(part)
            if self.bytes > limit:
                return self._end(*refuse_size(limit))
            if part:
                await self._process.send(part)
            if not message.get("more_body", False):
                is_whole = True
                await self._process.send(b"")

    def _end(self, status: int, error: str) -> None:
        """Watch no further; the first reason is the one that is told."""
        self._failure = self._failure or _Failure(status, error)
        self._process.kill()


def refuse_size(limit: int) -> tuple[int, str]:
    """Return the status and the sentence for a film that is too large."""
    return 413, f"the film has more than {limit:,} bytes: send a shorter or smaller one"


def render(event: dict[str, Any]) -> bytes:
    """Return a line of JSON."""
    return json.dumps(event).encode() + b"\n"
