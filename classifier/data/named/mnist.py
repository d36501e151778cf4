"""Data sets known by name: where they lie under data.root, as torchvision lays them out, and how they get there.

torchvision is imported to download alone: reading goes without it, and starts two seconds earlier.
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
    """Y. LeCun et al., 70,000 handwritten digits, 28 x 28."""
    return _load_idx(config, "mnist", "MNIST")


def load_fashion_mnist(config: DataConfig) -> Source:
    """H. Xiao et al., 70,000 pieces of clothing, 28 x 28."""
    return _load_idx(config, "fashion_mnist", "FashionMNIST")


def load_kmnist(config: DataConfig) -> Source:
    """T. Clanuwat et al., 70,000 cursive Japanese letters, 28 x 28."""
    return _load_idx(config, "kmnist", "KMNIST")


def locate_dataset(
    config: DataConfig,
    name: str,
    places: tuple[str, ...],
    is_here: Callable[[Path], bool],
    fetch: Callable[[Any, str], object] | None,
) -> Path:
    """The first of `places` under config.root that holds the data set; downloaded first, where config.download says so.

    fetch: called with torchvision.datasets and the root. DataError if it is not there, or cannot be fetched.
    """
    root = Path(os.path.expanduser(config.root))
    found = [root / place for place in places if is_here(root / place)]
    if found:
        return found[0]
    if not config.download or fetch is None:
        mend = " or set --data.download true" if fetch is not None else " (it cannot be downloaded without an account)"
        raise DataError(f"{name} is not in {root}: put {places[0] or name} there, set --data.root,{mend}")
    try:
        from torchvision import datasets

        fetch(datasets, str(root))
    except (OSError, RuntimeError, ValueError) as error:  # no network, a wrong checksum, a full disk
        raise DataError(
            f"{name} cannot be downloaded to {root} ({in_short(error)}): fetch it elsewhere, set --data.root"
        ) from None
    return locate_dataset(dataclasses.replace(config, download=False), name, places, is_here, fetch)


def corrupted_file_error(path: Path, reason: object) -> DataError:
    """The error for a file of a known data set that cannot be read."""
    words = in_short(reason) if isinstance(reason, BaseException) else reason
    return DataError(f"{path} is missing or damaged ({words}): fetch it again")


def _load_idx(config: DataConfig, name: str, folder: str) -> Source:
    def fetch(datasets: Any, root: str) -> None:
        getattr(datasets, folder)(root, download=True)

    places = (folder, name, name.replace("_", "-"), ".")
    return idx.read_idx(locate_dataset(config, name, places, idx.contains_idx, fetch), name)
