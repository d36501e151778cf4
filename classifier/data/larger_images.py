"""Larger copies of the training images, so that random crops show real pixels rather than enlarged ones."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from classifier.config.sections import DataConfig
from classifier.data.dataset import Split
from classifier.data.decode_all import DecodedImages, decode_to, list_errors
from classifier.data.image_decoder import Progress
from classifier.data.images.arrays import Images, select
from classifier.data.images.stream import StreamedImages
from classifier.data.infer_shape import measure_sample
from classifier.data.readers.compact import CompactFiles, select_strings
from classifier.data.readers.file_bytes import File
from classifier.data.readers.source import Source
from classifier.errors import DataError


@dataclass(frozen=True, eq=False)
class LargerImages:
    """images_MCHW: uint8, as decoded for the model but larger."""

    images_MCHW: Images

    def add_to(self, split: Split, is_in_split_M: np.ndarray) -> Split:
        """Return the split with its larger images."""
        index = torch.from_numpy(np.flatnonzero(is_in_split_M))
        return dataclasses.replace(split, larger_NCHW=select(self.images_MCHW, index))

    def describe(self, size: int) -> str:
        """Say what they are and what they cost. size: of the images that the model sees."""
        side, (count, *shape) = self.images_MCHW.shape[-1], self.images_MCHW.shape
        what = f"at {side} pixels, {side / size:.3g} times the model's {size}, for crops that keep detail"
        if isinstance(self.images_MCHW, StreamedImages):
            return f"its images are read {what} (--data.crop_scale 1 does without)."
        megabytes = count * math.prod(shape) / 1e6
        return (
            f"its {count:,} images for training are kept {what}: {megabytes:,.0f} MB more (--data.crop_scale 1 does "
            "without)."
        )


def decode_larger(
    source: Source, config: DataConfig, decoded: DecodedImages, indices_M: np.ndarray, progress: Progress | None
) -> LargerImages | None:
    """Decode these images at config.crop_scale times the size of `decoded`, but no larger than most of them are.

    None where they would be no larger. DataError if one cannot be decoded at that size.
    """
    if config.crop_scale <= 1 or not len(indices_M):
        return None
    _, channels, size, _ = decoded.images_NCHW.shape
    shorter = [min(one.width, one.height) for one in measure_sample(source, dataclasses.replace(config, size=None))]
    side = min(round(config.crop_scale * size), int(np.median(shorter)) if shorter else 0)
    if side <= size:
        return None
    if isinstance(stream := decoded.images_NCHW, StreamedImages):
        assert decoded.read_at is not None
        larger = stream.read_by(decoded.read_at(side), side)
        return LargerImages(larger.select(torch.from_numpy(indices_M)))
    some = _take(source, indices_M.tolist())
    again = decode_to(some, config, (side, channels), progress)
    if again.errors:
        raise DataError(
            f"{source.name}: {len(again.errors):,} images cannot be decoded at {side} pixels: "
            f"{list_errors(some, again.errors)}; remove them, or set --data.crop_scale 1"
        )
    return LargerImages(again.images_NCHW)


def take_images(images: Sequence[File] | np.ndarray, indices: Sequence[int]) -> Sequence[File] | np.ndarray:
    """Return the images of a source at these positions."""
    return images[list(indices)] if isinstance(images, np.ndarray) else CompactFiles(images[n] for n in indices)


def _take(source: Source, indices: Sequence[int]) -> Source:
    return dataclasses.replace(
        source,
        ids=select_strings(source.ids, indices),
        labels_N=source.labels_N[list(indices)],
        images=take_images(source.images, indices),
    )
