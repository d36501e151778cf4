"""A data set shared by the trials of a node."""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data.dataset import Dataset
from classifier.data.images.arrays import MappedImages, Segment
from classifier.data.images.stream import StreamedImages
from classifier.data.split_names import SPLITS
from classifier.errors import DataError


@dataclasses.dataclass(frozen=True)
class SharedDataset:
    """A data set whose images are shared by the trials of a node: mapped from the cache, or in Ray's object store."""

    dataset: Dataset
    config: DataConfig
    images: dict[str, np.ndarray]
    rows: dict[str, Tensor]
    segments: tuple[Path, ...]
    shape: tuple[int, int, int]
    is_stream: bool
    """Streamed images cannot be shared: each trial reads them itself."""

    @classmethod
    def from_dataset(cls, dataset: Dataset, config: DataConfig) -> "SharedDataset":
        """Take the images of a loaded data set apart, so that Ray can send it."""
        images, rows, segments, is_stream = {}, {}, (), False
        for split in SPLITS:
            images_NCHW = getattr(dataset, split).images_NCHW
            if isinstance(images_NCHW, StreamedImages):
                is_stream = True
            elif isinstance(images_NCHW, MappedImages):
                rows[split] = images_NCHW.rows_N
                segments = tuple(segment.path for segment in images_NCHW.segments)
            else:
                images[split] = images_NCHW.numpy()
        without_images = {
            split: dataclasses.replace(getattr(dataset, split), images_NCHW=torch.empty(0)) for split in SPLITS
        }
        channels, height, width = dataset.train.images_NCHW.shape[1:]
        return cls(
            dataclasses.replace(dataset, **without_images),
            config,
            images,
            rows,
            segments,
            (channels, height, width),
            is_stream,
        )

    def open(self) -> Dataset:
        """The data set with read-only images in shared memory.

        On a node without their cache it is loaded again. Errors of data.load; DataError if it has changed."""
        try:
            segments = [Segment.open(path) for path in self.segments]
        except OSError:
            segments = None
        if self.is_stream or segments is None:
            dataset = data.load(self.config)
            if dataset.fingerprint != self.dataset.fingerprint:
                raise DataError(f"{self.config.path} has other images on this node than where the search started")
            return dataset
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            images = {split: torch.from_numpy(array) for split, array in self.images.items()}
        images |= {split: MappedImages(segments, rows_N, self.shape) for split, rows_N in self.rows.items()}
        splits = {
            split: dataclasses.replace(getattr(self.dataset, split), images_NCHW=images_NCHW)
            for split, images_NCHW in images.items()
        }
        return dataclasses.replace(self.dataset, **splits)
