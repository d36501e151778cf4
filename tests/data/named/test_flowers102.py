"""Flowers102 as its authors ship it."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from classifier.config.sections import DataConfig
from classifier.data import load, open_source
from classifier.errors import DataError


@pytest.fixture
def root(tmp_path: Path, paint) -> Path:
    """30 images of the flowers 1, 2 and 102."""
    folder = tmp_path / "flowers-102"
    for number in range(1, 31):
        paint(folder / "jpg" / f"image_{number:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 102] * 10], np.uint8)})
    splits = {"trnid": np.arange(1, 13), "valid": np.arange(13, 19), "tstid": np.arange(19, 31)}
    savemat(folder / "setid.mat", {name: ids[None] for name, ids in splits.items()})
    return tmp_path


def test_flowers102(root: Path) -> None:
    dataset = load(DataConfig(path="Flowers102", root=str(root)))
    assert (dataset.name, dataset.kind) == ("flowers102", "photos")
    assert dataset.counts == {"train": 12, "validation": 6, "test": 12}
    assert dataset.train.ids[0] == "jpg/image_00001.jpg"
    assert dataset.class_names == ("blackberry lily", "hard-leaved pocket orchid", "pink primrose")
    assert dataset.train.labels_N[:3].tolist() == [2, 1, 0]


def test_corrupted_file_is_named(root: Path) -> None:
    savemat(root / "flowers-102" / "imagelabels.mat", {"labels": np.array([[1, 2]], np.uint8)})
    with pytest.raises(DataError, match=r"setid\.mat is missing or corrupted"):
        open_source(DataConfig(path="flowers102", root=str(root)))
    (root / "flowers-102" / "imagelabels.mat").unlink()
    with pytest.raises(DataError, match=r"imagelabels\.mat is missing or corrupted"):
        open_source(DataConfig(path="flowers102", root=str(root)))
