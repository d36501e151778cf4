"""Batches: never too large, complete, in order; what cannot be in time is refused."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from classifier.serve.batcher import Batcher
from classifier.serve.bounds import RequestError


class Engine:
    """Answers an image with its first pixel. gate: it computes only while that is set."""

    def __init__(self) -> None:
        self.gate, self.sizes = threading.Event(), list[int]()
        self.gate.set()

    def compute(self, images: list[np.ndarray]) -> np.ndarray:
        images_NCHW = np.stack(images)
        self.sizes.append(len(images_NCHW))
        self.gate.wait(10)
        if images_NCHW.max() == 255:
            raise ValueError("broken")
        return images_NCHW[:, 0, 0, 0]


def images(*values: int) -> list[np.ndarray]:
    return [np.full((1, 2, 2), value, np.uint8) for value in values]


def run(scenario, **options):
    """Run a scenario with an engine and its batcher."""

    async def main():
        engine = Engine()
        with ThreadPoolExecutor(4) as pool:
            batcher = Batcher(engine.compute, pool, **{"max_size": 4, "seconds": 0.01} | options)
            try:
                return await asyncio.wait_for(scenario(engine, batcher), 10)
            finally:
                engine.gate.set()

    return asyncio.run(main())


def values(batched) -> list[int]:
    return [int(value) for part, rows in batched.parts for value in part[rows]]


def test_batches_are_never_too_large_and_answers_stay_with_their_requests():
    async def scenario(engine, batcher):
        rng, deadline = np.random.default_rng(0), time.monotonic() + 60
        asked = [[int(v) for v in rng.integers(0, 200, rng.integers(1, 11))] for _ in range(100)]
        answers = await asyncio.gather(*(batcher.submit(images(*one), deadline) for one in asked))
        assert [values(one) for one in answers] == asked
        assert max(engine.sizes) == 4
        assert sum(engine.sizes) == sum(map(len, asked))
        assert len(engine.sizes) == -(-sum(engine.sizes) // 4)  # all full but the last

    run(scenario)


def test_answers_are_in_the_order_of_their_images_whichever_batch_is_done_first():
    async def scenario(engine, batcher):
        compute, has_begun = batcher._compute, threading.Event()

        def compute_late(images: list[np.ndarray]) -> np.ndarray:
            if np.max(images) == 1:  # the first image waits until the second is done
                has_begun.wait(10)
                time.sleep(0.05)
            else:
                has_begun.set()
            return compute(images)

        batcher._compute = compute_late
        answer = await batcher.submit(images(1, 2, 3), time.monotonic() + 60)
        assert values(answer) == [1, 2, 3]

    run(scenario, max_size=1, workers=2)


def test_an_idle_engine_waits_for_nobody():
    async def scenario(engine, batcher):
        engine.gate.clear()
        first = batcher.submit(images(1), time.monotonic() + 60)
        await asyncio.sleep(0.05)
        rest = [batcher.submit(images(n), time.monotonic() + 60) for n in range(2, 7)]
        engine.gate.set()
        await asyncio.gather(first, *rest)
        assert engine.sizes == [1, 4, 1]

    run(scenario)


def test_what_cannot_be_in_time_is_refused_at_once_and_what_became_late_is_not_computed():
    async def scenario(engine, batcher):
        engine.gate.clear()
        first = batcher.submit(images(1), time.monotonic() + 60)
        await asyncio.sleep(0.05)
        with pytest.raises(RequestError) as refused:
            batcher.submit(images(2), time.monotonic() + 1)
        assert (refused.value.status, refused.value.retry_seconds) == (429, 3)  # a batch of 2 s, and a quarter of one
        batcher.full_seconds = 0.01
        late = batcher.submit(images(3), time.monotonic() + 0.1)
        gone = batcher.submit(images(4), time.monotonic() + 60)
        gone.cancel()
        await asyncio.sleep(0.2)
        engine.gate.set()
        assert values(await first) == [1]
        with pytest.raises(RequestError):
            await late
        assert engine.sizes == [1]
        assert batcher.waiting == 0

    run(scenario, seconds=2.0)


def test_an_error_fails_its_batch_only():
    async def scenario(engine, batcher):
        broken = batcher.submit(images(255), time.monotonic() + 60)
        with pytest.raises(ValueError, match="broken"):
            await broken
        assert values(await batcher.submit(images(7), time.monotonic() + 60)) == [7]

    run(scenario)
