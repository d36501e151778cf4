"""Time what is claimed: images a second of training steps alone, and what is due every so many minutes."""

import itertools
import math
import statistics
import time
from collections import deque
from collections.abc import Iterator
from typing import TypeVar

import torch

T = TypeVar("T")

# The first steps are slower (caches, memory pools, compilation) and are left out of images a second.
WARMUP_STEPS = 10
REPORT_SECONDS = 0.25


class Timer:
    """Calling it answers true once every `minutes`, and never where minutes is None."""

    def __init__(self, minutes: float | None) -> None:
        self.seconds = math.inf if minutes is None else 60 * minutes
        self.last = time.monotonic()

    def __call__(self) -> bool:
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True


class Throughput:
    """Counts images between `resume` and `pause`: no validation, no checkpoints, no warm-up."""

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
        """One step is done."""
        self.steps += 1
        if self.steps == WARMUP_STEPS:
            self.since = self._now()
        elif self.steps > WARMUP_STEPS:
            self.images += images

    def time_input(self, batches: Iterator[T]) -> Iterator[T]:
        """The same batches; how long they are waited for is counted."""
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            if self.since is not None:
                self.wait_seconds += time.perf_counter() - began
            if batch is None:
                return
            yield batch

    def _measured(self) -> float:
        return self.seconds + (0.0 if self.since is None else time.perf_counter() - self.since)

    def images_per_second(self) -> float | None:
        """None until there is a step to measure."""
        return round(self.images / self._measured(), 1) if self.images else None

    def input_wait(self) -> float | None:
        """The share of the measured steps that went to waiting for their images; None until there is a step."""
        return round(self.wait_seconds / self._measured(), 4) if self.images else None

    def step_seconds(self) -> float | None:
        """Mean seconds a step; None until there is one to measure."""
        return self._measured() / (self.steps - WARMUP_STEPS) if self.images else None

    def should_report(self) -> bool:
        """About four times a second: a progress line needs no more, and on a GPU each telling waits for the device."""
        now = time.perf_counter()
        if now - self.last_report < REPORT_SECONDS:
            return False
        self.last_report = now
        return True


# A training is late where it would overrun by more than this share of what is left, by what it did in another share of
# it, but not less than so many seconds. What is told within a moment was told at once.
TOLERANCE, WATCHED, LEAST_WATCHED, TOGETHER = 0.05, 0.25, 3.0, 0.2


class Deadline:
    """Whether a training will be over in so many seconds, by what its last epochs take.

    pause: seconds that it takes to stop it and go on with fewer epochs, which must gain more than that.
    """

    def __init__(self, seconds: float, restart_seconds: float = 0.0) -> None:
        self.end, self.restart_seconds = time.monotonic() + seconds, restart_seconds
        self.progress: deque[tuple[float, float]] = deque()
        self.is_missed = False
        self.epochs_that_fit = 0
        """Epochs with which it would not be missed."""

    def update(self, done: float, epochs: int) -> None:
        """Told how many epochs are done, in parts too, of how many, as often as it is known."""
        now = time.monotonic()
        left = max(0.0, self.end - now)
        watched = max(LEAST_WATCHED, self.restart_seconds, WATCHED * left)
        if self.progress and now - self.progress[-1][0] < TOGETHER:  # journals come several lines at once
            self.progress[-1] = (self.progress[-1][0], done)
        else:
            self.progress.append((now, done))
        while len(self.progress) > 2 and now - self.progress[1][0] >= watched:
            self.progress.popleft()
        parts = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in itertools.pairwise(self.progress) if b[1] > a[1]]
        if now - self.progress[0][0] < watched or not parts:
            return
        an_epoch = statistics.median(parts)  # a machine that stands still for a moment is quick again
        if an_epoch * (epochs - done) - left > max(TOLERANCE * left, an_epoch, self.restart_seconds):
            self.epochs_that_fit = max(math.ceil(done), int(done + max(0.0, left - self.restart_seconds) / an_epoch))
            self.is_missed = self.epochs_that_fit < epochs
