"""What the server takes at most, of a request and of all together, and how it refuses more."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Limits of the server. Bytes are those of request bodies, before they are decoded."""

    deadline_seconds: float = 2.0
    """In which a request is answered, from its last byte on, or refused with 429."""
    request_bytes: int = 32 << 20
    all_bytes: int = 256 << 20
    """Of the bodies of all requests that are in progress."""
    images: int = 64
    """In a request."""
    heatmaps: int = 4
    """In a request; one takes several times as long as an answer."""
    heatmap_seconds: float = 60.0
    """In which heatmaps are drawn; the first ones wait for torch."""
    requests: int = 512
    """In progress at once."""
    connections: int = 2048
    body_seconds: float = 30.0
    """In which a client has sent its body, and taken its answer."""
    head_seconds: float = 10.0
    """In which a client has sent the head of a request; it may be idle between two requests for as long."""
    head_bytes: int = 32 << 10


class RequestError(Exception):
    """A request that is refused: an HTTP status, and a sentence that names what is wrong, and the fix."""

    def __init__(
        self, status: int, message: str, retry_seconds: float | None = None, *, methods: Sequence[str] = ()
    ) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.methods = methods
        """Those that the address takes, of a request by another one."""
        self.retry_seconds = None if retry_seconds is None else max(1, math.ceil(retry_seconds))
        """When to try again, in whole seconds."""


def overloaded(seconds: float = 1.0) -> RequestError:
    """Return the refusal of what cannot be answered in time. seconds: after which it probably can."""
    return RequestError(429, "the server is busy and cannot answer in time: try again later", seconds)


class ByteBudget:
    """The bytes of request bodies that may be in memory at once."""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken = limit, 0

    def take(self, count: int) -> None:
        """Reserve bytes. RequestError (429) if there are too few left."""
        if self.taken + count > self.limit:
            raise overloaded()
        self.taken += count

    def give_back(self, count: int) -> None:
        self.taken -= count
