"""Street View House Numbers: 99,289 cropped digits of 32 x 32 (Y. Netzer et al., 2011), in MATLAB files."""

from pathlib import Path
from typing import Any

import numpy as np

from classifier.config.sections import DataConfig
from classifier.data.named.mnist import corrupted_file_error, locate_dataset
from classifier.data.readers.source import Source, from_arrays


def load_svhn(config: DataConfig) -> Source:
    """Load train and test, without the `extra` images."""

    def download(datasets: Any, root: str) -> None:
        for split in ("train", "test"):
            datasets.SVHN(root, split=split, download=True)

    root = locate_dataset(
        config, "svhn", (".", "svhn", "SVHN"), lambda path: (path / "train_32x32.mat").is_file(), download
    )
    parts = {split: _load_split(root / f"{split}_32x32.mat") for split in ("train", "test")}
    return from_arrays("svhn", parts, tuple("0123456789"), kind="symbols")


def read_matlab(path: Path) -> dict[str, Any]:
    """Read the variables in a MATLAB file. DataError names it if it is missing or corrupted."""
    from scipy.io import loadmat

    try:
        return loadmat(path)
    except Exception as error:  # a corrupted file can fail in any way
        raise corrupted_file_error(path, error) from None


def _load_split(path: Path) -> tuple[np.ndarray, np.ndarray]:
    variables = read_matlab(path)
    try:
        images_NCHW = np.ascontiguousarray(variables["X"].astype(np.uint8).transpose(3, 2, 0, 1))
        labels_N = variables["y"].reshape(-1).astype(np.int64) % 10  # the digit 0 has the label 10
    except (KeyError, ValueError) as error:
        raise corrupted_file_error(path, error) from None
    if len(images_NCHW) != len(labels_N):
        raise corrupted_file_error(path, f"{len(images_NCHW)} images, but {len(labels_N)} labels")
    return images_NCHW, labels_N
