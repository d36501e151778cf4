"""What models were asked and what they answered, in Parquet files: to find drift, and images worth labelling.

The files of a model lie in FOLDER/MODEL. A row is an image: the columns of `predict --answers`
(classifier/answers/rows.py), in which the SHA-256 of the image is its identity, and `time` (UTC), `trace_id`, `model`,
`version`, `statistics` (channel statistics of a late layer: features that need no torch), and `image`, if images may be
kept: as the model saw it.

A thread writes the files: what it does not take in time is dropped, and counted, so that no answer waits. A file is
written when it has PART_IMAGES rows, or its first is PART_SECONDS old; a killed server loses these rows at most.
"""

import contextlib
import os
import queue
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from classifier.errors import ConfigError
from classifier.serve.capture.rows import CapturedRequest, build_table
from classifier.serve.metrics import Metrics
from classifier.serve.version import Query, Reply

PART_IMAGES, PART_SECONDS = 1000, 60.0
MAX_WAITING_BYTES = 64 << 20
"""Of the images that wait for the thread."""
_SAY_SECONDS = 60.0
"""How often it is said that a file cannot be written."""


@dataclass(frozen=True)
class CaptureBounds:
    """What is kept, and how much."""

    share: float = 1.0
    """Of the requests."""
    max_bytes: int = 1 << 30
    """Of all files; the oldest are deleted beyond it."""
    has_images: bool = False
    """Images, not only their SHA-256."""


class Capture:
    """Writes the requests of a server to a folder. ConfigError if that cannot be written to."""

    def __init__(self, folder: Path, bounds: CaptureBounds, metrics: Metrics, say: Callable[..., None]) -> None:
        import pyarrow.parquet  # noqa: F401 - told now, not by the thread, if it is not installed

        self.folder, self.bounds, self._metrics, self._say = folder, bounds, metrics, say
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (trial := folder / f".{os.getpid()}.tmp").touch()
            trial.unlink()
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written to ({error.strerror}): choose another --capture") from None
        self._waiting: queue.SimpleQueue[tuple[Query, Reply, float, str] | None] = queue.SimpleQueue()
        self._waiting_bytes, self._lock = 0, threading.Lock()
        self._parts: dict[str, list[CapturedRequest]] = {}
        self._said, self._count = -_SAY_SECONDS, 0
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def add(self, query: Query, reply: Reply, trace_id: str) -> None:
        """Keep a request and its answer, or drop it; never waits."""
        if random.random() >= self.bounds.share:
            return
        size = _count_bytes(query, reply)
        with self._lock:
            has_room = self._waiting_bytes + size <= MAX_WAITING_BYTES
            self._waiting_bytes += size if has_room else 0
        if has_room:
            self._waiting.put((query, reply, time.time(), trace_id))
        else:
            self._metrics.capture_dropped.labels(reply.version.name).inc(len(query))

    def close(self, seconds: float = 5.0) -> None:
        """Write what waits, for at most some seconds."""
        self._waiting.put(None)
        self._thread.join(seconds)

    def _run(self) -> None:
        is_open = True
        while is_open:
            with contextlib.suppress(queue.Empty):
                entry = self._waiting.get(timeout=PART_SECONDS / 4 if self._parts else None)
                is_open = entry is not None
                if entry is not None:
                    self._take(*entry)
            for model, requests in list(self._parts.items()):
                is_full = sum(map(len, requests)) >= PART_IMAGES
                if not is_open or is_full or time.time() - requests[0].time >= PART_SECONDS:
                    self._write(model, self._parts.pop(model))

    def _take(self, query: Query, reply: Reply, when: float, trace_id: str) -> None:
        request = CapturedRequest.of(query, reply, when, trace_id, has_images=self.bounds.has_images)
        self._parts.setdefault(reply.version.name, []).append(request)
        with self._lock:
            self._waiting_bytes -= _count_bytes(query, reply)

    def _write(self, model: str, requests: Sequence[CapturedRequest]) -> None:
        import pyarrow.parquet as pq

        self._count += 1
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        path = self.folder / model / f"{now}Z-{os.getpid()}-{self._count}.parquet"
        partial, images = path.with_suffix(".tmp"), sum(map(len, requests))
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            pq.write_table(build_table(model, requests), partial, compression="zstd")
            partial.replace(path)
            self._delete_oldest()
        except OSError as error:  # a full disk: the server goes on
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            self._metrics.capture_dropped.labels(model).inc(images)
            if time.monotonic() - self._said >= _SAY_SECONDS:
                self._said = time.monotonic()
                self._say("capture_failed", model=model, images=images, error=error.strerror or type(error).__name__)
        else:
            self._metrics.captured.labels(model).inc(images)

    def _delete_oldest(self) -> None:
        files = sorted(self.folder.glob("*/*.parquet"), key=lambda path: path.name)
        sizes = [path.stat().st_size for path in files]
        excess = sum(sizes) - self.bounds.max_bytes
        for path, size in zip(files[:-1], sizes, strict=False):  # the latest stays, however large
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size
            self._say("capture_deleted", file=f"{path.parent.name}/{path.name}", bytes=size)


def _count_bytes(query: Query, reply: Reply) -> int:
    return sum(map(len, query.contents)) + sum(image.nbytes for image in reply.images)
