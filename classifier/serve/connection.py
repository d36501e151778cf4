"""A connection that ends: bounded head, bounded idle time, and no half-open ones that stay.

uvicorn bounds the body of a request, but neither the size nor the seconds of its head (of httptools' parser).
"""

import contextlib
import socket
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from classifier.serve.bounds import Bounds


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's protocol with bounds. `of` makes the class for a server."""

    bounds: Bounds

    @classmethod
    def of(cls, bounds: Bounds) -> type["BoundedConnection"]:
        return type("Connection", (cls,), {"bounds": bounds})

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._head_bytes, self._is_head = 0, True
        self._deadline = self.loop.call_later(self.bounds.head_seconds, self._end)
        if len(self.connections) > self.bounds.connections:
            self._refuse(429, b"retry-after: 1\r\n")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self._is_head and self.parser is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self.bounds.head_bytes:
                self._refuse(431)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes, self._is_head = 0, True
        self._deadline.cancel()
        self._deadline = self.loop.call_later(self.bounds.head_seconds, self._end)

    def on_headers_complete(self) -> None:
        self._is_head = False
        self._deadline.cancel()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def timeout_keep_alive_handler(self) -> None:
        self._end()

    def _refuse(self, status: int, headers: bytes = b"") -> None:
        head = b"connection: close\r\ncontent-length: 0\r\n"
        self.transport.write(STATUS_LINE[status] + head + headers + b"\r\n")
        self._end()

    def _end(self) -> None:
        """Close it; abort it if the client does not take what it was sent."""
        if not self.transport.is_closing():
            self.transport.close()
        self.loop.call_later(self.bounds.head_seconds, self.transport.abort)


def listen(host: str, port: int, bounds: Bounds) -> socket.socket:
    """Return a socket whose connections the system ends when the other side is gone. OSError if it cannot listen."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        milliseconds = int(bounds.body_seconds * 1000)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_USER_TIMEOUT", milliseconds)):
            if option := getattr(socket, name, None):  # of Linux
                with contextlib.suppress(OSError):
                    listener.setsockopt(socket.IPPROTO_TCP, option, value)
        listener.bind(address)
        listener.listen(min(bounds.connections, socket.SOMAXCONN))
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
