"""The page for labelling, for this machine only: its files, the images, and the answers that it sends."""

import asyncio
import contextlib
import functools
import json
import threading
from collections.abc import Callable
from importlib import resources
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from classifier.config.sections import DataConfig
from classifier.data.decoding.bounded import BoundedDecoder
from classifier.data.decoding.image_file import DecodeError
from classifier.data.decoding.tasks import Task
from classifier.data.readers.file_bytes import read_image_bytes
from classifier.errors import ClassifierError
from classifier.label.labelling import Labelling
from classifier.serve.body import read_body
from classifier.serve.bounds import Bounds, ByteBudget, RequestError
from classifier.serve.guard import HEADERS, Guard
from classifier.serve.server import LocalServer

MAX_PIXELS = {"image": 1280, "thumbnail": 160}
"""Largest width and height of images as they are sent, in pixels."""
_KEPT = {"image": 32, "thumbnail": 1024}
"""Images that are kept encoded."""
_BOUNDS = Bounds(connections=64, head_seconds=10.0, request_bytes=1 << 16, all_bytes=1 << 20)
_POLICY = b"default-src 'none'; img-src 'self' data:; script-src 'self'; style-src 'self'; connect-src 'self'; "
_POLICY += b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
_KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
Answering = Callable[[dict[str, Any]], dict[str, Any]]


class Page:
    """Serves the page from a thread. port: 0 for any free one. ConfigError if it cannot be listened on."""

    def __init__(self, labelling: Labelling, config: DataConfig, port: int) -> None:
        self._labelling, self._config = labelling, config
        self._guard, self._budget = Guard(), ByteBudget(_BOUNDS.all_bytes)
        decoders = {
            name: BoundedDecoder(Task.thumbnail(side, config.max_pixels), config.max_seconds)
            for name, side in MAX_PIXELS.items()
        }
        self._decoders, self._decoding = decoders, threading.Lock()
        self._encode = {
            name: functools.lru_cache(_KEPT[name])(functools.partial(self._read_image, name)) for name in MAX_PIXELS
        }
        folder = resources.files(__package__ or "")
        files = [file for file in folder.iterdir() if file.name.rpartition(".")[2] in _KINDS]
        self._files = {"/" if file.name == "page.html" else f"/{file.name}": file for file in files}
        self._server = LocalServer(self, port, _BOUNDS)
        self.url = self._server.url

    def close(self) -> None:
        self._server.close()
        for decoder in self._decoders.values():
            decoder.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        try:
            self._guard.check_host(headers.get("host"))
            self._guard.check_origin(scope["method"], headers)
            response = await self._answer(scope, receive, headers)
        except RequestError as error:
            response = _respond({"error": error.message}, error.status)
        except (ClassifierError, OSError) as error:
            response = _respond({"error": str(error)}, 400)
        own = (b"content-security-policy", _POLICY)
        response.raw_headers += [own if name == own[0] else (name, value) for name, value in HEADERS]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BOUNDS.body_seconds):
                await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, headers: Headers) -> Response:
        method, path, labelling = scope["method"], scope["path"], self._labelling
        reads = {"/state": labelling.describe, "/agreement": labelling.compare}
        writes: dict[str, Answering] = {
            "/answer": lambda sent: labelling.answer(_take(sent, "key", int), _take_labels(sent)),
            "/undo": lambda _: labelling.undo(),
            "/more": lambda _: labelling.choose_more(),
            "/resolve": lambda sent: labelling.resolve(_take(sent, "image", str), _take_labels(sent) or []),
        }
        if path in writes:
            if method != "POST":
                raise RequestError(405, "answers are sent by POST", methods=("POST",))
            return _respond(await asyncio.to_thread(writes[path], await self._read_json(headers, receive)))
        if method not in ("GET", "HEAD"):
            raise RequestError(405, "this address is only read", methods=("GET", "HEAD"))
        if path in self._files:
            file = self._files[path]
            return Response(file.read_bytes(), media_type=_KINDS[file.name.rpartition(".")[2]])
        if path in reads:
            return _respond(await asyncio.to_thread(reads[path]))
        name, _, number = path.removeprefix("/").partition("/")
        if name in self._encode and number.isascii() and number.isdigit() and len(number) < 10:
            return Response(await asyncio.to_thread(self._encode[name], int(number)), media_type="image/jpeg")
        raise RequestError(404, "there is nothing at this address")

    async def _read_json(self, headers: Headers, receive: Receive) -> dict[str, Any]:
        # A page of another origin cannot send this type without asking first.
        if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise RequestError(415, "send JSON, with the header Content-Type: application/json")
        async with read_body(headers, receive, _BOUNDS, self._budget) as body:
            try:
                sent = json.loads(body)
            except (ValueError, RecursionError):
                raise RequestError(400, "the body is not JSON") from None
        if not isinstance(sent, dict):
            raise RequestError(400, "the body is not a JSON object")
        return sent

    def _read_image(self, name: str, key: int) -> bytes:
        """Return the JPEG of an image. RequestError if it cannot be shown."""
        file = self._labelling.assignment.find_file(key)
        if file is None:
            raise RequestError(404, "there is no image of this number")
        try:
            content = read_image_bytes(file, self._config.max_bytes)
            with self._decoding:
                return self._decoders[name].decode(content)
        except DecodeError as error:
            raise RequestError(422, f"the image cannot be shown: {error}") from None


def _take(sent: dict[str, Any], name: str, kind: type) -> Any:
    value = sent.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RequestError(400, f"{name} is missing, or of another type")
    return value


def _take_labels(sent: dict[str, Any]) -> list[str] | None:
    labels = sent.get("labels")
    if labels is None or (isinstance(labels, list) and len(labels) <= 1000 and all(isinstance(n, str) for n in labels)):
        return labels
    raise RequestError(400, "labels are a list of names of classes, or null")


def _respond(content: dict[str, Any], status: int = 200) -> Response:
    return Response(json.dumps(content), status, media_type="application/json")
