"""The live page: the newest frame, what the model says of it, the latest alerts; for this machine only."""

import asyncio
import contextlib
import json
from collections import deque
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from classifier.serve.bounds import Bounds, RequestError
from classifier.serve.guard import HEADERS, Guard
from classifier.serve.metrics import CONTENT_TYPE
from classifier.serve.server import LocalServer
from classifier.watch.clips import encode_jpeg
from classifier.watch.counts import Counts
from classifier.watch.metrics import WatchMetrics
from classifier.watch.observer import Observation

_BOUNDS = Bounds(connections=64, head_seconds=10.0)
_MAX_SIDE, _MAX_EVENTS = 960, 20
_POLICY = b"default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; "
_POLICY += b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
_FILES = {"/": ("page.html", "text/html"), "/page.css": ("page.css", "text/css")}
_FILES |= {"/page.js": ("page.js", "text/javascript")}


class Page:
    """Serves the live page from a thread. port: 0 for any free one. ConfigError if it cannot be listened on."""

    def __init__(self, source: str, counts: Counts, metrics: WatchMetrics, port: int, *, has_rules: bool) -> None:
        self._source, self._counts, self._metrics, self._has_rules = source, counts, metrics, has_rules
        self._latest: Observation | None = None
        self._events: deque[dict[str, Any]] = deque(maxlen=_MAX_EVENTS)
        self._on: set[str] = set()
        self._jpeg: tuple[Observation | None, bytes] = (None, b"")
        self._guard = Guard()
        self._server = LocalServer(self, port, _BOUNDS)
        self.url = self._server.url

    def show(self, seen: Observation) -> None:
        """Show what was just seen."""
        self._latest = seen

    def add_event(self, event: dict[str, Any]) -> None:
        """Show an event among the latest."""
        self._events.appendleft(event)
        if event["event"] == "alert":
            self._on.add(event["id"])
        self._on -= {event["id"]} if event["event"] == "alert_ended" else set()

    def close(self) -> None:
        self._server.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        try:
            self._guard.check_host(Headers(scope=scope).get("host"))
            response = self._answer(scope["method"], path)
        except RequestError as error:
            response = Response(error.message, error.status, media_type="text/plain")
        own = (b"content-security-policy", _POLICY)
        response.raw_headers += [own if name == own[0] else (name, value) for name, value in HEADERS]
        self._metrics.count_request(path if response.status_code == 200 else "unknown", response.status_code)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BOUNDS.body_seconds):
                await response(scope, receive, send)

    def _answer(self, method: str, path: str) -> Response:
        if method not in ("GET", "HEAD"):
            raise RequestError(405, "this page is only read")
        if path in _FILES:
            name, kind = _FILES[path]
            return Response((Path(__file__).parent / name).read_bytes(), media_type=kind)
        if path == "/state":
            return Response(json.dumps(self._describe()), media_type="application/json")
        if path == "/metrics":
            return Response(self._metrics.render(), media_type=CONTENT_TYPE)
        if path == "/frame.jpg" and self._latest is not None:
            return Response(self._encode(self._latest), media_type="image/jpeg")
        raise RequestError(404, "there is nothing at this address")

    def _encode(self, seen: Observation) -> bytes:
        if self._jpeg[0] is not seen:
            self._jpeg = (seen, encode_jpeg(seen.pixels_HWC, max_side=_MAX_SIDE))
        return self._jpeg[1]

    def _describe(self) -> dict[str, Any]:
        seen, counts = self._latest, self._counts
        return {
            "source": self._source,
            "has_rules": self._has_rules,
            "frame": seen.frame.number if seen else None,
            "seconds": seen.frame.seconds if seen else None,
            "answer": seen.answer if seen else None,
            "top": seen.top if seen else [],
            "is_on": bool(self._on),
            "events": list(self._events),
            "frames": counts.frames,
            "answered": counts.answered,
            "dropped": counts.dropped,
            "reconnects": counts.reconnects,
        }
