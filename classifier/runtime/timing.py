"""Throughput of training steps, timers, and deadlines."""

import itertools
import math
import statistics
import time
from collections import deque
from collections.abc import Iterator
from typing import TypeVar

import torch

T = TypeVar("T")

# The first steps are slower (caches, memory pools, compilation) and do not count towards throughput.
WARMUP_STEPS = 10
# Interval between progress reports.
REPORT_SECONDS = 0.25


class Timer:
    """A periodic timer: due once every `minutes`, or never if minutes is None."""

    def __init__(self, minutes: float | None) -> None:
        self.seconds = math.inf if minutes is None else 60 * minutes
        self.last = time.monotonic()

    def is_due(self) -> bool:
        """Return whether the interval has passed; if so, start the next one."""
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True


class Throughput:
    """Measures training throughput between `resume` and `pause`, without validation, checkpoints and warm-up steps."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.steps, self.images, self.seconds, self.wait_seconds = 0, 0, 0.0, 0.0
        self.since: float | None = None
        self.last_report = 0.0

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def resume(self) -> None:
        if self.steps >= WARMUP_STEPS:
            self.since = self._now()

    def pause(self) -> None:
        if self.since is not None:
            self.seconds += self._now() - self.since
        self.since = None

    def count(self, images: int) -> None:
        """Count one step of that many images."""
        self.steps += 1
        if self.steps == WARMUP_STEPS:
            self.since = self._now()
        elif self.steps > WARMUP_STEPS:
            self.images += images

    def time_input(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield the batches, and measure how long each is waited for."""
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            if self.since is not None:
                self.wait_seconds += time.perf_counter() - start
            if batch is None:
                return
            yield batch

    def _measured_seconds(self) -> float:
        return self.seconds + (0.0 if self.since is None else time.perf_counter() - self.since)

    def images_per_second(self) -> float | None:
        """Return the mean throughput; None until a step was measured."""
        return round(self.images / self._measured_seconds(), 1) if self.images else None

    def wait_fraction(self) -> float | None:
        """Return the fraction of the measured time spent waiting for input; None until a step was measured."""
        return round(self.wait_seconds / self._measured_seconds(), 4) if self.images else None

    def step_seconds(self) -> float | None:
        """Return the mean step time; None until a step was measured."""
        return self._measured_seconds() / (self.steps - WARMUP_STEPS) if self.images else None

    def should_report(self) -> bool:
        """Return whether a progress report is due: at most four times per second, as each report waits for a GPU."""
        now = time.perf_counter()
        if now - self.last_report < REPORT_SECONDS:
            return False
        self.last_report = now
        return True


# A deadline is missed if training is going to overrun it by more than this fraction of the time left.
OVERRUN_TOLERANCE = 0.05
# The speed of training is measured over this fraction of the time left, but over at least this many seconds.
WINDOW_FRACTION, MIN_WINDOW_SECONDS = 0.25, 3.0
# Updates closer together than this count as one.
MERGE_SECONDS = 0.2


class Deadline:
    """Predicts whether training will end within a number of seconds, from the speed of its last epochs.

    restart_seconds: cost of stopping and resuming with fewer epochs, which must save more than that.
    """

    def __init__(self, seconds: float, restart_seconds: float = 0.0) -> None:
        self.end, self.restart_seconds = time.monotonic() + seconds, restart_seconds
        self.progress: deque[tuple[float, float]] = deque()
        self.is_missed = False
        self.epochs_that_fit = 0
        """Total number of epochs with which the deadline can be met."""

    def update(self, done: float, epochs: int) -> None:
        """Record that `done` of `epochs` epochs are done, fractions included, as often as it is known."""
        now = time.monotonic()
        left = max(0.0, self.end - now)
        window = max(MIN_WINDOW_SECONDS, self.restart_seconds, WINDOW_FRACTION * left)
        if self.progress and now - self.progress[-1][0] < MERGE_SECONDS:  # several lines of a history come at once
            self.progress[-1] = (self.progress[-1][0], done)
        else:
            self.progress.append((now, done))
        while len(self.progress) > 2 and now - self.progress[1][0] >= window:
            self.progress.popleft()
        speeds = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in itertools.pairwise(self.progress) if b[1] > a[1]]
        if now - self.progress[0][0] < window or not speeds:
            return
        epoch_seconds = statistics.median(speeds)  # robust to a machine that stalls for a moment
        if epoch_seconds * (epochs - done) - left > max(OVERRUN_TOLERANCE * left, epoch_seconds, self.restart_seconds):
            time_to_train = max(0.0, left - self.restart_seconds)
            self.epochs_that_fit = max(math.ceil(done), int(done + time_to_train / epoch_seconds))
            self.is_missed = self.epochs_that_fit < epochs
