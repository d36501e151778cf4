"""Heatmaps (Grad-CAM), drawn in a process of its own, by torch.

Loading torch into the server would hold up its answers for seconds, and fill its memory for good. The process begins
with the first heatmap, and ends when it was idle for a while.
"""

import asyncio
import functools
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np

from classifier.bundle.exported import fingerprint
from classifier.bundle.predictor import Predictor
from classifier.config.trust import trust, trusted
from classifier.errors import RunError
from classifier.runtime.child_process import become_helper
from classifier.runtime.threads import use_threads
from classifier.serve.bounds import RequestError

METHOD = "grad_cam"
"""The one that costs about as much as an answer."""
IDLE_SECONDS = 300.0
NICENESS = 5
"""Answers go first."""


class HeatmapProcess:
    """A process that draws heatmaps, one request after the other, of any model of the server."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._end: asyncio.TimerHandle | None = None

    async def draw(
        self,
        path: Path,
        digest: str,
        device: str,
        images: Sequence[np.ndarray],
        classes_N: np.ndarray,
        columns_NF: np.ndarray | None = None,
    ) -> list[bytes | None]:
        """Return a JPEG for each uint8 CHW image, with the evidence for its class in orange.

        digest: of the bundle that has answered. columns_NF: those beside the images; None for one that is missing in
        them. RunError if another lies there now; RequestError if the process died.
        """
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, _begin, (trusted(),))
        loop, pool = asyncio.get_running_loop(), self._pool
        try:
            images_NCHW = np.stack(images)
            return await loop.run_in_executor(pool, _draw, path, digest, device, images_NCHW, classes_N, columns_NF)
        except BrokenProcessPool:
            if self._pool is pool:
                self.close()
            message = "the process that draws heatmaps ended, perhaps for want of memory: try again later"
            raise RequestError(503, message) from None
        finally:
            if self._end:
                self._end.cancel()
            self._end = loop.call_later(IDLE_SECONDS, self.close)

    def close(self) -> None:
        """End the process; the next heatmap begins another."""
        if self._end:
            self._end.cancel()
        if self._pool:
            self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._end = None


def _begin(names: Sequence[str]) -> None:
    become_helper(NICENESS)
    trust(*names)


def _draw(
    path: Path,
    digest: str,
    device: str,
    images_NCHW: np.ndarray,
    classes_N: np.ndarray,
    columns_NF: np.ndarray | None,
) -> list[bytes | None]:
    if fingerprint(path) != digest:
        raise RunError("the model has changed on disk since it answered: there is no heatmap until the server loads it")
    predictor = _open(path, digest, device)
    with use_threads(1):
        return list(predictor.draw_heatmaps(images_NCHW, classes_N, METHOD, columns_NF))


@functools.lru_cache(4)
def _open(path: Path, digest: str, device: str) -> Predictor:
    return Predictor(path, device=device, engine="torch")
