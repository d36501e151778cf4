"""The process that serves: uvicorn around the application, until the last answer."""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from classifier.errors import ConfigError
from classifier.serve.app import App
from classifier.serve.bounds import Bounds
from classifier.serve.connection import BoundedConnection, listen

GRACE_SECONDS = 1.0
"""Added to the deadline of a request, for those that are in progress at the end."""
LOCAL_HOST = "127.0.0.1"
SWITCH_SECONDS = 5e-4
"""After which the event loop gets the interpreter's lock back from a thread that decodes or computes (LOG.md)."""


class Server:
    """An application on a socket that listens, with its models open.

    drain_seconds: how long it goes on when it is to end, unready, so that load balancers send nothing more.
    """

    def __init__(self, app: App, listener: socket.socket, *, drain_seconds: float = 0.0) -> None:
        self.app, self._listener, self.drain_seconds = app, listener, drain_seconds
        self._uvicorn = build_uvicorn(app, app.bounds, app.bounds.deadline_seconds + GRACE_SECONDS)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, on_ready: Callable[[], None], reload: Callable[[], Awaitable[object]]) -> None:
        """Serve until SIGTERM or SIGINT, then drain; a second one ends it at once. SIGHUP: call `reload`."""
        for name, work in (("SIGTERM", self.drain), ("SIGINT", self.drain), ("SIGHUP", reload)):
            with contextlib.suppress(
                AttributeError, NotImplementedError, RuntimeError, ValueError
            ):  # Windows; a thread
                asyncio.get_running_loop().add_signal_handler(getattr(signal, name), self._start, work)
        before = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            on_ready()
            await self._uvicorn.serve(sockets=[self._listener])
        finally:
            sys.setswitchinterval(before)
            self.app.registry.is_ready = False
            await self.app.registry.close()
            if self.app.capture:
                self.app.capture.close()
            self.app.log.close()

    async def drain(self) -> None:
        """End after the last answer; called again, at once."""
        if not self.app.registry.is_ready:
            self._uvicorn.force_exit = self._uvicorn.should_exit = True
            return
        self.app.registry.is_ready = False
        self.app.log.write("draining", seconds=self.drain_seconds)
        await asyncio.sleep(self.drain_seconds)
        self._uvicorn.should_exit = True

    def _start(self, work: Callable[[], Awaitable[object]]) -> None:
        async def run() -> None:
            await work()

        task = asyncio.ensure_future(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


class LocalServer:
    """A page for this machine only, served from a thread. port: 0 for any free one. ConfigError if it cannot be
    listened on."""

    def __init__(self, app: ASGIApp, port: int, bounds: Bounds) -> None:
        try:
            listener = listen(LOCAL_HOST, port, bounds)
        except OSError as error:
            raise ConfigError(
                f"{LOCAL_HOST}:{port} cannot be listened on ({error.strerror or error}): choose another --port"
            ) from None
        self.url = f"http://{LOCAL_HOST}:{listener.getsockname()[1]}"
        self._uvicorn = build_uvicorn(app, bounds, grace_seconds=1)
        run = self._uvicorn.serve(sockets=[listener])
        self._thread = threading.Thread(target=asyncio.run, args=(run,), name="page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._uvicorn.should_exit = True
        self._thread.join(10)


def build_uvicorn(app: ASGIApp, bounds: Bounds, grace_seconds: float) -> uvicorn.Server:
    """Return a server of bounded connections, which logs nothing. grace_seconds: for the last answers, at its end."""
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what it says of clients' mistakes is no event here
    config = uvicorn.Config(
        app,
        http=BoundedConnection.of(bounds),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=max(1, int(bounds.head_seconds)),
        timeout_graceful_shutdown=int(grace_seconds),
    )
    return _Uvicorn(config)


class _Uvicorn(uvicorn.Server):
    """uvicorn without its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
