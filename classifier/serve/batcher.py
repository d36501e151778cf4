"""Requests that wait for the same model are answered together, in batches that are never larger than its maximum.

An idle engine takes what is there at once; while it computes, the next batch gathers. So a single client waits for
nobody, and many clients share the cost of a batch (continuous batching without a delay; Triton's dynamic batcher with
`max_queue_delay` 0). Nothing here blocks the event loop, on which all of it but `compute` runs.
"""

import asyncio
import functools
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, NamedTuple, TypeVar

from classifier.serve.bounds import RequestError, overloaded

# Weight of the latest batch in the running mean of its seconds.
_LATEST = 0.2


T = TypeVar("T")
R = TypeVar("R")


class Batched(NamedTuple, Generic[R]):
    """The answers to the images of a request, which may have been computed in several batches."""

    parts: list[tuple[R, slice]]
    """The answers of each batch, and the rows of it that belong to the request."""
    queue_seconds: float
    """Until its first image was computed."""
    compute_seconds: float
    """Of its batches, each for all its images."""


class _Job(Generic[T, R]):
    """The images of a request. taken: how many are in a batch; done: how many are computed."""

    def __init__(self, images: Sequence[T], deadline: float, future: "asyncio.Future[Batched[R]]") -> None:
        self.images, self.deadline, self.future = images, deadline, future
        self.arrived, self.taken, self.done = time.monotonic(), 0, 0
        self.queue_seconds = self.compute_seconds = 0.0
        self.parts: dict[int, tuple[R, slice]] = {}
        """By the first image of each: with several workers, a later batch may be done before an earlier one."""


class Batcher(Generic[T, R]):
    """Batches of at most max_size images for `compute`, which runs in `pool`, at most `workers` at once.

    T: an image, with the columns beside it; R: the answers to a batch. seconds: of a full batch, as measured before.
    on_batch: called with the images and seconds of each.
    """

    def __init__(
        self,
        compute: Callable[[list[T]], R],
        pool: Executor,
        *,
        max_size: int,
        seconds: float,
        workers: int = 1,
        on_batch: Callable[[int, float], None] = lambda images, seconds: None,
    ) -> None:
        self.max_size, self.full_seconds = max_size, seconds
        self._compute, self._pool, self._workers, self._on_batch = compute, pool, workers, on_batch
        self._queue: deque[_Job[T, R]] = deque()
        self._running = 0  # batches
        self.waiting = 0
        """Images that are not in a batch yet."""
        self._is_woken = False

    def expected_seconds(self, images: int) -> float:
        """Return how long further images will probably take, behind those that wait."""
        batches = -(-(self.waiting + images) // self.max_size) if self.waiting else images / self.max_size
        return (batches + min(self._running, 1)) * self.full_seconds / self._workers

    def submit(self, images: Sequence[T], deadline: float) -> "asyncio.Future[Batched[R]]":
        """Queue the images of a request. deadline: by time.monotonic().

        RequestError (429), here or of the future, if they cannot be computed in time.
        """
        expected = self.expected_seconds(len(images))
        # What finds the engine idle is tried: the expectation may be wrong.
        if (self.waiting or self._running) and time.monotonic() + expected > deadline:
            raise overloaded(expected)
        loop = asyncio.get_running_loop()
        job: _Job[T, R] = _Job(images, deadline, loop.create_future())
        self._queue.append(job)
        self.waiting += len(images)
        if not self._is_woken:  # after all requests that have arrived by now
            self._is_woken = True
            loop.call_soon(self._start_batches)
        return job.future

    def _start_batches(self) -> None:
        self._is_woken = False
        loop = asyncio.get_running_loop()
        while self._running < self._workers and (batch := self._take_batch()):
            self._running += 1
            images = [image for job, rows in batch for image in job.images[rows]]
            future = loop.run_in_executor(self._pool, self._compute_timed, images)
            future.add_done_callback(functools.partial(self._finish_batch, batch))

    def _take_batch(self) -> list[tuple[_Job[T, R], slice]]:
        """Take up to max_size images from the queue: jobs, and which of their images."""
        batch, free, now = [], self.max_size, time.monotonic()
        while self._queue and free:
            job = self._queue[0]
            remaining = len(job.images) - job.taken
            if job.deadline < now and not job.future.done():
                job.future.set_exception(overloaded(self.expected_seconds(0)))
            if job.future.done():  # refused, failed, or its client has gone
                self._queue.popleft()
                self.waiting -= remaining
                continue
            if not job.taken:
                job.queue_seconds = now - job.arrived
            count = min(free, remaining)
            batch.append((job, slice(job.taken, job.taken + count)))
            job.taken += count
            free -= count
            self.waiting -= count
            if count == remaining:
                self._queue.popleft()
        return batch

    def _compute_timed(self, images: list[T]) -> tuple[R, float]:
        began = time.monotonic()
        return self._compute(images), time.monotonic() - began

    def _finish_batch(self, batch: list[tuple[_Job[T, R], slice]], future: "asyncio.Future[tuple[R, float]]") -> None:
        self._running -= 1
        if future.cancelled() or future.exception() is not None:
            error = RequestError(503, "the server is stopping") if future.cancelled() else future.exception()
            assert error is not None
            for job, _ in batch:
                if not job.future.done():
                    job.future.set_exception(error)
        else:
            result, seconds = future.result()
            self._note_batch(sum(rows.stop - rows.start for _, rows in batch), seconds)
            start = 0
            for job, rows in batch:
                count = rows.stop - rows.start
                job.parts[rows.start] = result, slice(start, start + count)
                job.compute_seconds += seconds
                job.done += count
                start += count
                if job.done == len(job.images) and not job.future.done():
                    parts = [job.parts[first] for first in sorted(job.parts)]
                    job.future.set_result(Batched(parts, job.queue_seconds, job.compute_seconds))
        self._start_batches()

    def _note_batch(self, images: int, seconds: float) -> None:
        # Small batches say little of large ones: their cost is that of the call.
        if 2 * images >= self.max_size:
            self.full_seconds += _LATEST * (seconds * self.max_size / images - self.full_seconds)
        self._on_batch(images, seconds)
