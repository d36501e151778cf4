"""A data set shared by the trials of a node."""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from classifier import data
from classifier.config.sections import DataConfig
from classifier.data.dataset import Dataset, Split
from classifier.data.images.arrays import MappedImages, Segment
from classifier.data.images.stream import StreamedImages
from classifier.data.split_names import SPLITS
from classifier.errors import DataError


@dataclasses.dataclass(frozen=True)
class SharedImages:
    """Images that processes of a node share: mapped rows of the cache's files, or an array in Ray's object store."""

    array_NCHW: np.ndarray | None = None
    segments: tuple[Path, ...] = ()
    rows_N: Tensor | None = None
    shape_CHW: tuple[int, int, int] = (0, 0, 0)

    @classmethod
    def of(cls, images_NCHW: Tensor | MappedImages) -> "SharedImages":
        """Take the images apart, so that Ray can send them."""
        if isinstance(images_NCHW, Tensor):
            return cls(images_NCHW.numpy())
        channels, height, width = images_NCHW.shape[1:]
        segments = tuple(segment.path for segment in images_NCHW.segments)
        return cls(None, segments, images_NCHW.rows_N, (channels, height, width))

    def open(self, opened: dict[Path, Segment]) -> Tensor | MappedImages:
        """The images, read-only. opened: files that were opened before. OSError if one is not on this node."""
        if self.array_NCHW is not None:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                return torch.from_numpy(self.array_NCHW)
        for path in self.segments:
            if path not in opened:
                opened[path] = Segment.open(path)
        assert self.rows_N is not None
        return MappedImages([opened[path] for path in self.segments], self.rows_N, self.shape_CHW)


@dataclasses.dataclass(frozen=True)
class SharedDataset:
    """A data set whose images are shared by the trials of a node: mapped from the cache, or in Ray's object store."""

    dataset: Dataset
    """Without images."""
    config: DataConfig
    images: dict[str, dict[str, SharedImages]]
    """By split and field."""
    is_stream: bool
    """Streamed images cannot be shared: each trial reads them itself."""

    @classmethod
    def from_dataset(cls, dataset: Dataset, config: DataConfig) -> "SharedDataset":
        """Take the images of a loaded data set apart, so that Ray can send it."""
        is_stream, images, without_images = False, {}, {}
        for name in (*SPLITS, *(["unlabelled"] if dataset.unlabelled is not None else [])):
            split: Split = getattr(dataset, name)
            shared = images[name] = {}
            for field in ("images_NCHW", "larger_NCHW"):
                if isinstance(found := getattr(split, field), StreamedImages):
                    is_stream = True
                elif found is not None:
                    shared[field] = SharedImages.of(found)
            without_images[name] = dataclasses.replace(split, images_NCHW=torch.empty(0), larger_NCHW=None)
        return cls(dataclasses.replace(dataset, **without_images), config, images, is_stream)

    def open(self) -> Dataset:
        """The data set with read-only images in shared memory.

        On a node without their cache it is loaded again. Errors of data.load; DataError if it has changed."""
        try:
            return self._load_again() if self.is_stream else self._open_shared()
        except OSError:
            return self._load_again()

    def _open_shared(self) -> Dataset:
        opened: dict[Path, Segment] = {}
        splits = {
            name: dataclasses.replace(
                getattr(self.dataset, name), **{field: images.open(opened) for field, images in shared.items()}
            )
            for name, shared in self.images.items()
        }
        return dataclasses.replace(self.dataset, **splits)

    def _load_again(self) -> Dataset:
        dataset = data.load(self.config)
        if dataset.fingerprint != self.dataset.fingerprint:
            raise DataError(f"{self.config.path} has other images on this node than where the search started")
        return dataset
