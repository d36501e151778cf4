"""How long models take on this machine: in turns, in one process, so that other load meets all of them alike."""

import time
from collections.abc import Mapping

import numpy as np

from classifier.bundle.engine import Engine

# Rounds per batch size; the first ones do not count. Rounds end early after SECONDS.
ROUNDS, WARMUP, SECONDS = {1: 120, 32: 24}, 3, 8.0
BATCHES = tuple(ROUNDS)


def measure_milliseconds(engines: Mapping[str, Engine], images_NCHW: np.ndarray, batch: int) -> dict[str, float]:
    """Return the median milliseconds that each engine takes for a batch of these images, which are repeated."""
    images_NCHW = np.ascontiguousarray(images_NCHW[np.arange(batch) % len(images_NCHW)])
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    started = time.perf_counter()
    for number in range(WARMUP + ROUNDS[batch]):
        for name, engine in engines.items():
            begin = time.perf_counter()
            engine.predict(images_NCHW)
            if number >= WARMUP:
                seconds[name].append(time.perf_counter() - begin)
        if number > 2 * WARMUP and time.perf_counter() - started > SECONDS:
            break
    return {name: 1000 * float(np.median(values)) for name, values in seconds.items()}
