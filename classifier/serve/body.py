"""The body of a request, read within its bounds: bytes, those of all requests together, and seconds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from starlette.datastructures import Headers
from starlette.routing import Route
from starlette.types import Receive

from classifier.serve.bounds import Bounds, ByteBudget, RequestError


class StreamedRoute(Route):
    """A route whose handler reads the body itself, and bounds the time of its answer. description: for OpenAPI."""

    def __init__(self, *args: Any, description: dict[str, Any], **options: Any) -> None:
        super().__init__(*args, **options)
        self.description = description


@contextlib.asynccontextmanager
async def read_body(headers: Headers, receive: Receive, bounds: Bounds, budget: ByteBudget) -> AsyncIterator[bytes]:
    """Read the body, which counts in the budget as long as the context lasts.

    RequestError: 400, 408, 413, 415, or 429 where all bodies together are too large.
    """
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestError(415, "compressed bodies are not taken: send it as it is")
    held = _Held(bounds, budget)
    try:
        held.grow(int(headers.get("content-length", 0)))  # the parser has seen that it is a number
        try:
            async with asyncio.timeout(bounds.body_seconds):
                body = await _receive(receive, held)
        except TimeoutError:
            raise RequestError(408, f"the body did not come within {bounds.body_seconds:g} seconds") from None
        yield body
    finally:
        budget.give_back(held.count)


async def _receive(receive: Receive, held: "_Held") -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RequestError(400, "the client has gone")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        held.grow(size)
        if not message.get("more_body", False):
            return parts[0] if len(parts) == 1 else b"".join(parts)


class _Held:
    """The bytes that a request has taken of the budget: those that it declares, or sends."""

    def __init__(self, bounds: Bounds, budget: ByteBudget) -> None:
        self.count, self._bounds, self._budget = 0, bounds, budget

    def grow(self, size: int) -> None:
        """RequestError if that is too much."""
        limit = self._bounds.request_bytes
        if size > limit:
            raise RequestError(413, f"the request has more than {limit:,} bytes: send fewer or smaller images")
        if size > self.count:
            self._budget.take(size - self.count)
            self.count = size
