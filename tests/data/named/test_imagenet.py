"""ImageNet as torchvision unpacks it."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from classifier.config.sections import DataConfig
from classifier.data import load, open_source
from classifier.errors import DataError

WORDS = {"n01440764": ("tench", "Tinca tinca"), "n02012849": ("crane",), "n03126707": ("crane",)}


@pytest.fixture
def root(tmp_path: Path, paint) -> Path:
    for wnid in WORDS:
        for number in range(12):
            paint(tmp_path / "train" / wnid / f"{wnid}_{number}.JPEG".replace("JPEG", "jpeg"))
        for number in range(4):
            paint(tmp_path / "val" / wnid / f"ILSVRC2012_val_{wnid[-4:]}{number}.jpeg")
    paint(tmp_path / "test" / "ILSVRC2012_test_00000001.jpeg")
    return tmp_path


def test_val_is_the_test_split_and_validation_comes_from_train(root: Path) -> None:
    dataset = load(DataConfig(path="ImageNet", root=str(root)))
    assert (dataset.name, dataset.kind) == ("imagenet", "photos")
    assert dataset.class_names == tuple(WORDS)
    assert len(dataset.test) == 12
    assert all(id_.startswith("val/") for id_ in dataset.test.ids)
    assert len(dataset.train) + len(dataset.validation) == 36
    assert len(dataset.validation) >= 3


NAMES = ("tench", "crane (n02012849)", "crane (n03126707)")


def test_names_from_meta_bin(root: Path) -> None:
    torch.save((WORDS, list(WORDS)), root / "meta.bin")
    assert open_source(DataConfig(path="imagenet", root=str(root))).class_names == NAMES
    (root / "meta.bin").write_bytes(b"corrupted")
    with pytest.raises(DataError, match=r"meta\.bin is missing or corrupted"):
        open_source(DataConfig(path="imagenet", root=str(root)))


def test_names_from_the_devkit(root: Path) -> None:
    columns = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(n, wnid, ", ".join(words), 0) for n, (wnid, words) in enumerate(WORDS.items(), 1)]
    file = io.BytesIO()
    savemat(file, {"synsets": np.array([*rows, (4, "n00000000", "crane", 3)], dtype=columns)})
    path = root / "ILSVRC2012_devkit_t12.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("ILSVRC2012_devkit_t12/data/meta.mat")
        member.size = len(file.getvalue())
        archive.addfile(member, io.BytesIO(file.getvalue()))
    assert open_source(DataConfig(path="imagenet", root=str(root))).class_names == NAMES
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"devkit_t12\.tar\.gz is missing or corrupted"):
        open_source(DataConfig(path="imagenet", root=str(root)))
