"""Flowers102: 8,189 photographs of flowers (M.-E. Nilsback, A. Zisserman, 2008), with splits in MATLAB files."""

from typing import Any

from classifier.config.sections import DataConfig
from classifier.data.named.mnist import corrupted_file_error, locate_dataset
from classifier.data.named.svhn import read_matlab
from classifier.data.readers.source import Source, from_files
from classifier.data.split_names import TEST, TRAIN, VALIDATION

_SPLITS = {"trnid": TRAIN, "valid": VALIDATION, "tstid": TEST}


def load_flowers102(config: DataConfig) -> Source:
    """Load its 1,020 training, 1,020 validation and 6,149 test images."""

    def download(datasets: Any, root: str) -> None:
        datasets.Flowers102(root, download=True)

    root = locate_dataset(
        config, "flowers102", ("flowers-102", "flowers102"), lambda path: (path / "setid.mat").is_file(), download
    )
    splits, labels = read_matlab(root / "setid.mat"), read_matlab(root / "imagelabels.mat")
    names = _class_names()
    try:
        label_of = labels["labels"].reshape(-1).tolist()
        rows = [
            (f"jpg/image_{number:05d}.jpg", names[int(label_of[number - 1]) - 1], split)
            for variable, split in _SPLITS.items()
            for number in splits[variable].reshape(-1).tolist()
        ]
    except (KeyError, IndexError, TypeError) as error:
        raise corrupted_file_error(root / "setid.mat", error) from None
    return from_files("flowers102", [(id_, root / id_, name, split) for id_, name, split in rows], kind="photos")


def _class_names() -> list[str]:
    """Return the class names from torchvision; numbers in versions without them."""
    from torchvision.datasets import Flowers102

    return list(getattr(Flowers102, "classes", [str(number) for number in range(1, 103)]))
