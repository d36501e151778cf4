"""A data set that trials on a node share."""

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
    """A data set whose pictures all trials of a node share: those of its cache, or arrays that Ray keeps there."""

    dataset: Dataset
    config: DataConfig
    images: dict[str, np.ndarray]
    rows: dict[str, Tensor]
    segments: tuple[Path, ...]
    shape: tuple[int, int, int]
    is_stream: bool
    """There is nothing to share: each trial reads by itself."""

    @classmethod
    def from_dataset(cls, dataset: Dataset, config: DataConfig) -> "SharedDataset":
        images, rows, segments, is_stream = {}, {}, (), False
        for split in SPLITS:
            pictures = getattr(dataset, split).images_NCHW
            if isinstance(pictures, StreamedImages):
                is_stream = True
            elif isinstance(pictures, MappedImages):
                rows[split], segments = pictures.rows_N, tuple(segment.path for segment in pictures.segments)
            else:
                images[split] = pictures.numpy()
        bare = {split: dataclasses.replace(getattr(dataset, split), images_NCHW=torch.empty(0)) for split in SPLITS}
        channels, height, width = dataset.train.images_NCHW.shape[1:]
        return cls(
            dataclasses.replace(dataset, **bare), config, images, rows, segments, (channels, height, width), is_stream
        )

    def open(self) -> Dataset:
        """The data set whose images are the shared memory; they are only read. On a node that has no cache of them it
        is read again, and must be the same. Errors of data.load; DataError if it is another."""
        try:
            segments = [Segment.open(path) for path in self.segments]
        except OSError:
            segments = None
        if self.is_stream or segments is None:
            dataset = data.load(self.config)
            if dataset.fingerprint != self.dataset.fingerprint:
                raise DataError(f"{self.config.path} holds other pictures on this node than where the search began")
            return dataset
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            images = {split: torch.from_numpy(array) for split, array in self.images.items()}
        images |= {split: MappedImages(segments, rows_N, self.shape) for split, rows_N in self.rows.items()}
        parts = {
            split: dataclasses.replace(getattr(self.dataset, split), images_NCHW=pictures)
            for split, pictures in images.items()
        }
        return dataclasses.replace(self.dataset, **parts)
