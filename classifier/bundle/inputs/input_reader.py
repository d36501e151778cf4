"""Images with the columns beside them, read and made ready for an engine, batch by batch."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from classifier.bundle.image_reader import ImageInput, ImageReader
from classifier.bundle.inputs.column_rows import Row, encode_rows
from classifier.data.columns.schema import ColumnSchema
from classifier.errors import DataError


@dataclass(frozen=True, eq=False)
class Inputs:
    """N inputs, of which M can be answered: uint8 images_MCHW, black where there is none, and columns_MF, if any."""

    images_MCHW: np.ndarray
    columns_MF: np.ndarray | None
    errors: dict[int, DataError]
    """Why an input cannot be answered, by its number."""
    count: int

    @classmethod
    def gather(
        cls,
        schema: ColumnSchema | None,
        shape_CHW: tuple[int, ...],
        pixels: Sequence[np.ndarray | DataError | None],
        rows: Sequence[Row | None],
    ) -> "Inputs":
        """Put decoded images and their rows together. pixels: None where there is no image, as a row may be enough."""
        columns_NF, errors = encode_rows(schema, rows, [one is not None for one in pixels])
        errors |= {n: one for n, one in enumerate(pixels) if isinstance(one, DataError)}
        good = [n for n in range(len(pixels)) if n not in errors]
        images_MCHW = np.zeros((len(good), *shape_CHW), np.uint8)
        for m, n in enumerate(good):
            if isinstance(image_CHW := pixels[n], np.ndarray):
                images_MCHW[m] = image_CHW
        return cls(images_MCHW, None if columns_NF is None else columns_NF[good], errors, len(pixels))


class InputReader:
    """Reads images, and encodes the rows of columns that belong to them."""

    def __init__(self, images: ImageReader, schema: ColumnSchema | None) -> None:
        self.images, self.schema = images, schema

    def read(self, images: "Sequence[ImageInput | None]", rows: Sequence[Row | None]) -> Inputs:
        """Read a batch. None is a missing image, or row."""
        there = [n for n, image in enumerate(images) if image is not None]
        decoded = self.images.decode([image for image in images if image is not None])
        pixels: list[Any] = [None] * len(images)
        for n, one in zip(there, decoded, strict=True):
            pixels[n] = one
        return Inputs.gather(self.schema, self.images.spec.shape, pixels, rows)

    def read_batches(self, inputs: "Iterable[tuple[ImageInput | None, Row | None]]", size: int) -> Iterator[Inputs]:
        """Yield batches of `size` images with their rows, one of which is read ahead."""
        remaining = iter(inputs)
        with ThreadPoolExecutor(1) as pool:
            ready: Future[Inputs] | None = None
            while batch := list(itertools.islice(remaining, size)):
                images, rows = zip(*batch, strict=True)
                following = pool.submit(self.read, images, rows)
                if ready is not None:
                    yield ready.result()
                ready = following
            if ready is not None:
                yield ready.result()
