"""What models were asked and what they answered, in Parquet files: to find drift, and images worth labelling.

The files of a model lie in FOLDER/MODEL. A row is an image: the columns of `predict --answers`
(classifier/answers/rows.py), in which the SHA-256 of the image is its identity, and `time` (UTC), `trace_id`, `model`,
`version` (of this server), `bundle` (the start of a digest of what answered), `statistics` (channel statistics of a
late layer: features that need no torch), `columns` (JSON: the values beside the image, if there are any), and `image`,
if images may be kept: as the model saw it.

A thread writes the files: what it does not take in time is dropped, and counted, so that no answer waits. A file is
written when it has PART_IMAGES rows or PART_BYTES, or its first is PART_SECONDS old: a killed server loses no more.
"""

import contextlib
import os
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from classifier.errors import ConfigError
from classifier.extras import DISTRIBUTION
from classifier.serve.capture.rows import CapturedRequest, build_table
from classifier.serve.metrics import Metrics
from classifier.serve.version import Query, Reply

PART_IMAGES, PART_BYTES, PART_SECONDS = 1000, 16 << 20, 60.0
MAX_WAITING_BYTES = 64 << 20
"""Of the images that wait for the thread."""
_SAY_SECONDS = 60.0
"""How often it is said that a file cannot be written."""
_FILE = re.compile(r"\d{8}T\d{6}\.\d{6}Z-\d+-\d+\.(parquet|tmp)")
"""Names of the files: no others are deleted."""


@dataclass(frozen=True)
class CaptureBounds:
    """What is kept, and how much."""

    share: float = 1.0
    """Of the requests."""
    max_bytes: int = 1 << 30
    """Of all files; the oldest are deleted beyond it."""
    has_images: bool = False
    """Images, not only their SHA-256."""


@dataclass
class _Part:
    """What waits for its file."""

    requests: list[CapturedRequest] = field(default_factory=list)
    images: int = 0
    nbytes: int = 0

    def add(self, request: CapturedRequest) -> None:
        self.requests.append(request)
        self.images += len(request)
        self.nbytes += request.nbytes

    @property
    def is_due(self) -> bool:
        age = time.time() - self.requests[0].time
        return self.images >= PART_IMAGES or self.nbytes >= PART_BYTES or age >= PART_SECONDS


class Capture:
    """Writes the requests of a server to a folder. ConfigError if that cannot be written to."""

    def __init__(self, folder: Path, bounds: CaptureBounds, metrics: Metrics, say: Callable[..., None]) -> None:
        try:
            import pyarrow.parquet  # noqa: F401
        except ModuleNotFoundError:  # told now, not by the thread
            raise ConfigError(f'--capture needs pyarrow: pip install "{DISTRIBUTION}[capture]"') from None
        self.folder, self.bounds, self._metrics, self._say = folder, bounds, metrics, say
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (trial := folder / f".{os.getpid()}.tmp").touch()
            trial.unlink()
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written to ({error.strerror}): choose another --capture") from None
        self._waiting: queue.SimpleQueue[tuple[Query, Reply, float, str] | None] = queue.SimpleQueue()
        self._waiting_bytes, self._lock = 0, threading.Lock()
        self._parts: dict[str, _Part] = {}
        """By model."""
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
                    with self._failures(entry[1].version.name, len(entry[0])):
                        self._take(*entry)
            for model, part in list(self._parts.items()):
                if not is_open or part.is_due:
                    del self._parts[model]
                    self._write(model, part)

    def _take(self, query: Query, reply: Reply, when: float, trace_id: str) -> None:
        with self._lock:
            self._waiting_bytes -= _count_bytes(query, reply)
        request = CapturedRequest.of(query, reply, when, trace_id, has_images=self.bounds.has_images)
        self._parts.setdefault(reply.version.name, _Part()).add(request)

    def _write(self, model: str, part: _Part) -> None:
        import pyarrow.parquet as pq

        self._count += 1
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
        path = self.folder / model / f"{now}Z-{os.getpid()}-{self._count}.parquet"
        partial = path.with_suffix(".tmp")
        with self._failures(model, part.images):
            try:
                path.parent.mkdir(mode=0o700, exist_ok=True)
                pq.write_table(build_table(model, part.requests), partial, compression="zstd")
                partial.replace(path)
            finally:
                with contextlib.suppress(OSError):
                    partial.unlink(missing_ok=True)
            self._metrics.captured.labels(model).inc(part.images)
        with self._failures(model, 0):
            self._delete_oldest()

    @contextlib.contextmanager
    def _failures(self, model: str, images: int) -> Iterator[None]:
        """Count as dropped, and say from time to time, what cannot be kept, as on a full disk: the server goes on."""
        try:
            yield
        except Exception as error:
            self._metrics.capture_dropped.labels(model).inc(images)
            if time.monotonic() - self._said >= _SAY_SECONDS:
                self._said = time.monotonic()
                reason = getattr(error, "strerror", None) or type(error).__name__  # its text may hold a request's
                self._say("capture_failed", model=model, images=images, error=reason)

    def _delete_oldest(self) -> None:
        files = [path for path in self.folder.glob("*/*") if _FILE.fullmatch(path.name)]
        files.sort(key=lambda path: path.name)
        sizes = [path.stat().st_size for path in files]
        excess = sum(sizes) - self.bounds.max_bytes
        for path, size in zip(files[:-1], sizes, strict=False):  # the latest stays, however large
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size
            self._say("capture_deleted", file=f"{path.parent.name}/{path.name}", bytes=size)


def _count_bytes(query: Query, reply: Reply) -> int:
    arrays = [*reply.images, *(one for judgement in reply.judgements for one in judgement if one is not None)]
    heatmaps = sum(map(len, filter(None, reply.heatmaps)))
    return query.nbytes + heatmaps + sum(array.nbytes for array in arrays)
