"""The process that serves: uvicorn around the application, from the first model loaded to the last answer."""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import uvicorn

from classifier.serve.app import App
from classifier.serve.connection import BoundedConnection

GRACE_SECONDS = 1.0
"""Added to the deadline of a request, for those that are in progress at the end."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """An application on a socket. drain_seconds: how long it goes on when it is asked to end, unready, so that load
    balancers send nothing more."""

    app: App
    listener: socket.socket
    drain_seconds: float = 0.0

    async def run(self, on_ready: Callable[[], None], reload: Callable[[], Awaitable[None]]) -> None:
        """Serve until SIGTERM or SIGINT, then drain. SIGHUP: call `reload`."""
        bounds, registry = self.app.bounds, self.app.registry
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # what it says of clients' mistakes is no event here
        config = uvicorn.Config(
            self.app,
            http=BoundedConnection.of(bounds),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=int(bounds.head_seconds),
            timeout_graceful_shutdown=int(bounds.deadline_seconds + GRACE_SECONDS),
        )
        server = _Uvicorn(config)
        loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()

        async def drain() -> None:
            registry.is_ready = False
            self.app.log.write("draining", seconds=self.drain_seconds)
            await asyncio.sleep(self.drain_seconds)
            server.should_exit = True

        def start(work: Callable[[], Awaitable[None]]) -> None:
            if server.should_exit or (work is drain and not registry.is_ready):  # asked twice: end at once
                server.should_exit = server.force_exit = True
                return
            task = asyncio.ensure_future(work())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        for name, work in (("SIGTERM", drain), ("SIGINT", drain), ("SIGHUP", reload)):
            with contextlib.suppress(AttributeError, NotImplementedError, RuntimeError):  # Windows, or a thread
                loop.add_signal_handler(getattr(signal, name), start, work)
        try:
            on_ready()
            await server.serve(sockets=[self.listener])
        finally:
            registry.is_ready = False
            await registry.close()
            self.app.log.close()


class _Uvicorn(uvicorn.Server):
    """uvicorn without its own signal handlers."""

    @contextlib.contextmanager
    def capture_signals(self):
        yield
