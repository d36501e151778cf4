"""A loaded version of a model: it decodes, batches and answers, and can be taken away without losing a request."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from classifier.bundle.exported import fingerprint
from classifier.bundle.inputs.column_rows import Row
from classifier.bundle.inputs.input_reader import Inputs
from classifier.bundle.predictor import Judgement, Predictor
from classifier.data.decoding.pillow_settings import pillow_limits_off
from classifier.errors import DataError
from classifier.runtime.cpu import available_cores
from classifier.serve.batcher import Batcher
from classifier.serve.bounds import RequestError, overloaded
from classifier.serve.metrics import Metrics
from classifier.serve.page.heatmaps import METHOD, HeatmapProcess

BUNDLE_DIGITS = 12
_LATEST = 0.05
"""Weight of the latest image in the running mean of the seconds to decode one."""
_WARM_UP_BATCHES, _MIN_GAIN = 3, 1.1
"""How often a batch is timed, and how much faster per image one of twice its size has to be."""
_CALL_SECONDS = 2e-4
"""What a batch costs besides: it goes to a thread and back."""


class Pools:
    """Threads that decode and that compute, shared by all models. workers: batches that are computed at once."""

    def __init__(self, workers: int = 1) -> None:
        self.workers, self.decoders = workers, available_cores()
        self.compute = ThreadPoolExecutor(workers, "compute")
        self.decode = ThreadPoolExecutor(self.decoders, "decode")
        self.load = ThreadPoolExecutor(1, "load")
        self.heatmaps = HeatmapProcess()
        self._settings = contextlib.ExitStack()
        self._settings.enter_context(pillow_limits_off())

    def close(self) -> None:
        self._settings.close()
        self.heatmaps.close()
        for pool in (self.compute, self.decode, self.load):
            pool.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class Query:
    """What a request asks of a model: encoded images, or pixels of the model's size, and what to say of them."""

    contents: Sequence[bytes | None] = ()
    """None: a row of columns without an image."""
    images_NCHW: np.ndarray | None = None
    top: int = 5
    maps: bool = False
    columns: Sequence[Row | None] = ()
    """Values beside each image, by the names of their columns; without any row all are missing."""

    def __len__(self) -> int:
        return len(self.contents) if self.images_NCHW is None else len(self.images_NCHW)

    def has_image(self, n: int) -> bool:
        """Return whether the input of this number has an image, readable or not."""
        return self.images_NCHW is not None or self.contents[n] is not None

    @property
    def nbytes(self) -> int:
        """Of the encoded images and the text in columns, about."""
        cells = (value for row in self.columns if row for value in row.values())
        return sum(map(len, filter(None, self.contents))) + sum(len(one) for one in cells if isinstance(one, str))


class Item(NamedTuple):
    """What the model sees of one input."""

    image_CHW: np.ndarray
    """uint8; black where there is none."""
    columns_F: np.ndarray | None
    """float32, of a model that takes columns."""


@dataclass(frozen=True)
class Reply:
    """What a version of a model says of a request's images."""

    version: "ModelVersion"
    judgements: list[Judgement]
    """Of the images that could be read, in order, in the batches in which they were computed."""
    errors: dict[int, str]
    """Why an image has no answer, by its number in the request."""
    images: Sequence[np.ndarray]
    """uint8 CHW, as the model saw them: those that could be read. Black where a row has none."""
    heatmaps: list[bytes | None]
    """JPEGs of these, if they were asked for; None for a missing image."""

    def labels(self) -> np.ndarray:
        """Return the most likely class, int64, of each image that could be read."""
        return np.concatenate([one.probabilities_NK.argmax(1) for one in self.judgements] or [np.zeros(0, np.int64)])

    def names(self) -> np.ndarray:
        """Return the name of the most likely class of each image that could be read, or those of its labels, joined."""
        names_K = np.array(self.version.predictor.class_names)
        if self.version.predictor.task != "multilabel":
            return names_K[self.labels()]
        said = [one.said_NK for one in self.judgements if one.said_NK is not None]
        return np.array([", ".join(names_K[row_K]) for said_NK in said for row_K in said_NK])


class ModelVersion:
    """A model that is loaded, with its batcher. Use `open`."""

    def __init__(
        self, name: str, number: str, path: Path, predictor: Predictor, pools: Pools, metrics: Metrics, digest: str
    ) -> None:
        self.name, self.number, self.path, self.digest = name, number, path, digest
        self.predictor, self._pools, self.metrics = predictor, pools, metrics.of(name, number)
        self.why_no_heatmaps = predictor.explain_missing_heatmaps()
        max_size, seconds = self._warm_up()
        self.batcher: Batcher[Item, Judgement] = Batcher(
            self._judge,
            pools.compute,
            max_size=max_size,
            seconds=seconds,
            workers=pools.workers,
            on_batch=self.metrics.count_batch,
        )
        self._decoding, self._decode_seconds = 0, 1e-3  # images that are waiting or in work; seconds of one
        self._in_progress, self._is_idle = 0, asyncio.Event()
        self._is_idle.set()

    @property
    def bundle(self) -> str:
        """The start of the digest: the same on every server, unlike the number."""
        return self.digest[:BUNDLE_DIGITS]

    @classmethod
    async def open(
        cls,
        name: str,
        number: str,
        path: Path,
        open_predictor: Callable[[Path], Predictor],
        pools: Pools,
        metrics: Metrics,
    ) -> "ModelVersion":
        """Load a bundle, check its sample and warm it up, in another thread. ClassifierError if it cannot be used."""
        loop = asyncio.get_running_loop()
        digest = await loop.run_in_executor(pools.load, fingerprint, path)
        predictor = await loop.run_in_executor(pools.load, open_predictor, path)
        return await loop.run_in_executor(pools.load, cls, name, number, path, predictor, pools, metrics, digest)

    async def answer(self, query: Query, deadline: float) -> Reply:
        """Answer a request. RequestError if it cannot be, in time. deadline: by time.monotonic()."""
        self._in_progress += 1
        self._is_idle.clear()
        try:
            return await self._answer(query, deadline)
        finally:
            self._in_progress -= 1
            if not self._in_progress:
                self._is_idle.set()

    async def close(self) -> None:
        """Free it when the last request that it has taken is answered."""
        await self._is_idle.wait()
        self.metrics.forget()
        await asyncio.get_running_loop().run_in_executor(self._pools.load, self.predictor.images.close)

    async def _answer(self, query: Query, deadline: float) -> Reply:
        if query.images_NCHW is not None:
            self._check_shape(query.images_NCHW.shape[1:])
            pixels: Sequence[np.ndarray | DataError | None] = list(query.images_NCHW)
        else:
            pixels = await self._decode(query.contents, deadline)
        items, errors = await self._add_columns(pixels, query.columns)
        if not items:
            return Reply(self, [], errors, [], [])
        parts, queue_seconds, compute_seconds = await self.batcher.submit(items, deadline)
        self.metrics.observe(queue_seconds, compute_seconds)
        images = [item.image_CHW for item in items]
        reply = Reply(self, [judgement.take(rows) for judgement, rows in parts], errors, images, [])
        if query.maps:
            reply.heatmaps.extend(await self._draw_heatmaps(items, reply.labels()))
        return reply

    async def _add_columns(
        self, pixels: Sequence[np.ndarray | DataError | None], rows: Sequence[Row | None]
    ) -> tuple[list[Item], dict[int, str]]:
        """Return what the model sees of each input, and by their numbers why others cannot be answered."""
        schema = self.predictor.bundle.columns
        if schema is None and not any(rows) and all(one is not None for one in pixels):
            items = [Item(one, None) for one in pixels if isinstance(one, np.ndarray)]
            return items, {n: str(one) for n, one in enumerate(pixels) if isinstance(one, DataError)}
        inputs = await asyncio.get_running_loop().run_in_executor(
            self._pools.decode, Inputs.gather, schema, self.predictor.spec.shape, pixels, rows or [None] * len(pixels)
        )
        columns = itertools.repeat(None) if inputs.columns_MF is None else inputs.columns_MF
        items = [Item(*pair) for pair in zip(inputs.images_MCHW, columns, strict=False)]
        return items, {n: str(error) for n, error in inputs.errors.items()}

    def _judge(self, items: list[Item]) -> Judgement:
        images_NCHW = np.stack([item.image_CHW for item in items])
        return self.predictor.judge(images_NCHW, _stack_columns(items))

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self.predictor.spec.shape:
            expected = " x ".join(map(str, self.predictor.spec.shape))
            raise RequestError(400, f"{self.name} takes images of {expected} (channels, height, width)")

    async def _decode(self, contents: Sequence[bytes | None], deadline: float) -> list[Any]:
        """Return the uint8 CHW array of each image, or a DataError; None where there is none.

        RequestError (429) if there is no time for it.
        """
        if None in contents:
            there = [n for n, content in enumerate(contents) if content is not None]
            decoded: list[Any] = [None] * len(contents)
            for n, one in zip(there, await self._decode([*filter(None, contents)], deadline), strict=True):
                decoded[n] = one
            return decoded
        if not contents:
            return []
        began = time.monotonic()
        expected = (self._decoding + len(contents)) * self._decode_seconds / self._pools.decoders
        if self._decoding and began + expected + self.batcher.expected_seconds(len(contents)) > deadline:
            raise overloaded(expected)
        self._decoding += len(contents)
        try:
            decoded, seconds = await asyncio.get_running_loop().run_in_executor(
                self._pools.decode, self._decode_timed, contents, deadline
            )
        finally:
            self._decoding -= len(contents)
        self._decode_seconds += _LATEST * (seconds / len(contents) - self._decode_seconds)
        self.metrics.observe_decoding(seconds, time.monotonic() - began - seconds)
        return decoded

    def _decode_timed(self, contents: Sequence[bytes | None], deadline: float) -> tuple[list[Any], float]:
        began = time.monotonic()
        if began > deadline:
            raise overloaded()
        return self.predictor.images.decode_here([*filter(None, contents)]), time.monotonic() - began

    async def _draw_heatmaps(self, items: Sequence[Item], classes_N: np.ndarray) -> list[bytes | None]:
        """Draw by the network that answers, if that is torch; else in a process that loads it."""
        predictor, columns_NF = self.predictor, _stack_columns(items)
        images = [item.image_CHW for item in items]
        if not predictor.uses_torch:
            return await self._pools.heatmaps.draw(
                self.path, self.digest, predictor.device, images, classes_N, columns_NF
            )

        def draw() -> list[bytes | None]:
            return list(predictor.draw_heatmaps(images, classes_N, METHOD, columns_NF))

        return await asyncio.get_running_loop().run_in_executor(self._pools.compute, draw)

    def _warm_up(self) -> tuple[int, float]:
        """Double the batch as long as that pays; return its size, and its seconds.

        On a CPU it soon does not: a larger batch then costs latency and gains nothing.
        """
        largest = self.predictor.engine.batch_size
        size, seconds = 1, self._time_batch(1)
        while size < largest:
            doubled = min(2 * size, largest)
            longer = self._time_batch(doubled)
            if _MIN_GAIN * (longer + _CALL_SECONDS) / doubled > (seconds + _CALL_SECONDS) / size:
                break
            size, seconds = doubled, longer
        return size, seconds

    def _time_batch(self, images: int) -> float:
        """Return the seconds of a batch once its memory is allocated, the best of a few."""
        images_NCHW = np.zeros((images, *self.predictor.spec.shape), np.uint8)
        self.predictor.judge(images_NCHW)
        seconds = []
        for _ in range(_WARM_UP_BATCHES):
            began = time.monotonic()
            self.predictor.judge(images_NCHW)
            seconds.append(time.monotonic() - began)
        return min(seconds)


def _stack_columns(items: Sequence[Item]) -> np.ndarray | None:
    columns = [item.columns_F for item in items if item.columns_F is not None]
    return np.stack(columns) if columns else None
