"""MNIST and its relatives; and lookup and download of named data sets in data.root (torchvision's layout).

torchvision is imported only to download: reading does not need it, and starts two seconds earlier.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from classifier.config.sections import DataConfig
from classifier.data.readers import idx
from classifier.data.readers.source import Source
from classifier.errors import DataError, in_short


def load_mnist(config: DataConfig) -> Source:
    """Load MNIST (Y. LeCun et al.): 70,000 handwritten digits, 28 x 28."""
    return _load_idx(config, "mnist", "MNIST")


def load_fashion_mnist(config: DataConfig) -> Source:
    """Load Fashion-MNIST (H. Xiao et al.): 70,000 pieces of clothing, 28 x 28."""
    return _load_idx(config, "fashion_mnist", "FashionMNIST")


def load_kmnist(config: DataConfig) -> Source:
    """Load Kuzushiji-MNIST (T. Clanuwat et al.): 70,000 cursive Japanese letters, 28 x 28."""
    return _load_idx(config, "kmnist", "KMNIST")


def locate_dataset(
    config: DataConfig,
    name: str,
    folders: tuple[str, ...],
    is_present: Callable[[Path], bool],
    download: Callable[[Any, str], object] | None,
) -> Path:
    """Return the first of `folders` under config.root that contains the data set, downloading it if config allows.

    download: called with torchvision.datasets and the root. DataError if it is missing, or cannot be downloaded.
    """
    root = Path(os.path.expanduser(config.root))
    for folder in folders:
        if is_present(root / folder):
            return root / folder
    if not config.download or download is None:
        hint = "or set --data.download true" if download else "(it cannot be downloaded without an account)"
        raise DataError(f"{name} is not in {root}: put {folders[0] or name} there, set --data.root, {hint}")
    try:
        from torchvision import datasets

        download(datasets, str(root))
    except (OSError, RuntimeError, ValueError) as error:  # no network, a wrong checksum, a full disk
        raise DataError(
            f"{name} cannot be downloaded to {root} ({in_short(error)}): download it elsewhere and set --data.root"
        ) from None
    return locate_dataset(dataclasses.replace(config, download=False), name, folders, is_present, download)


def corrupted_file_error(path: Path, reason: object) -> DataError:
    """Return the error for an unreadable file of a named data set."""
    words = in_short(reason) if isinstance(reason, BaseException) else reason
    return DataError(f"{path} is missing or corrupted ({words}): download it again")


def _load_idx(config: DataConfig, name: str, folder: str) -> Source:
    def download(datasets: Any, root: str) -> None:
        getattr(datasets, folder)(root, download=True)

    folders = (folder, name, name.replace("_", "-"), ".")
    return idx.read_idx(locate_dataset(config, name, folders, idx.contains_idx, download), name)
