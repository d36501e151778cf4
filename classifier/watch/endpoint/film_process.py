"""The process of a film, as the server has it: it may crash, hang or be killed without harm."""

import asyncio
import contextlib
import json
import multiprocessing
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from classifier.config.trust import trusted
from classifier.watch.endpoint.film_job import FilmJob
from classifier.watch.endpoint.watching import ERRORS, watch_film

_REPORT_BYTES = 1 << 20
_END_SECONDS = 5.0
_LIST_OF_CHILDREN = threading.Lock()
"""Of multiprocessing, which is not for several threads."""


class FilmProcess:
    """Gets the parts of a film, and reports. Every film has its own process, so that none leaves anything behind.

    Reports are JSON: what a process sends that may have been taken over is not to be unpickled.
    """

    def __init__(self, job: FilmJob) -> None:
        """Start it, which takes some milliseconds, and a second more until it is ready."""
        context = multiprocessing.get_context("spawn")
        body, self._body = context.Pipe(duplex=False)
        self._reports, reports = context.Pipe(duplex=False)
        arguments = (job, body, reports, trusted())
        self._process = context.Process(target=watch_film, args=arguments, name="film", daemon=True)
        with _LIST_OF_CHILDREN:
            self._process.start()
        body.close()
        reports.close()
        self._threads = ThreadPoolExecutor(2, "film")

    async def send(self, part: bytes) -> None:
        """Hand on a part of the film; an empty one is its end. If the process has ended, nothing happens."""

        def send() -> None:
            with contextlib.suppress(OSError):
                self._body.send_bytes(part)

        await asyncio.get_running_loop().run_in_executor(self._threads, send)

    async def receive(self) -> dict[str, Any] | None:
        """Return the next report, with its `kind`; None if the process has ended, or reports nonsense."""
        try:
            content = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._reports.recv_bytes, _REPORT_BYTES
            )
            report = json.loads(content)
        except (EOFError, OSError, ValueError, RecursionError):
            return None
        return report if _is_report(report) else None

    def kill(self) -> None:
        """End it at once; `receive` then returns None."""
        self._process.kill()

    async def close(self) -> None:
        """End it, and free what it had."""
        self.kill()

        def close() -> None:
            with _LIST_OF_CHILDREN:
                self._process.join(_END_SECONDS)
            for connection in (self._body, self._reports):
                connection.close()

        self._threads.shutdown(wait=False)
        await asyncio.get_running_loop().run_in_executor(None, close)


def _is_report(report: Any) -> bool:
    if not isinstance(report, dict):
        return False
    counts, kind = report.get("counts"), report.get("kind")
    has_counts = isinstance(counts, dict) and all(isinstance(one, int) for one in counts.values())
    if kind == "failed":
        return has_counts and isinstance(report.get("error"), str) and report.get("status") in ERRORS
    return kind in ("ready", "opened") or (kind == "finished" and has_counts) or (kind == "event" and "event" in report)
