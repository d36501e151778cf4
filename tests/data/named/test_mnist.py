"""Locating and downloading named data sets; MNIST and its relatives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifier.config.sections import DataConfig
from classifier.data import open_source
from classifier.data.named.mnist import locate_dataset
from classifier.data.readers.detect import DATASETS
from classifier.errors import DataError


def idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    return head + values.astype(np.uint8).tobytes()


def lay_idx(folder: Path) -> None:
    """Write the files in torchvision's layout."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for prefix, count in (("train", 30), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28))
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(idx(np.arange(count) % 10))


@pytest.mark.parametrize(
    ("name", "folder", "classes", "kind"),
    [
        ("mnist", "MNIST", ("0", "1"), "symbols"),
        ("fashion_mnist", "FashionMNIST", ("T-shirt/top", "Trouser"), "objects"),
        ("kmnist", "KMNIST", ("o", "ki"), "symbols"),
    ],
)
def test_idx_data_sets(name: str, folder: str, classes: tuple[str, str], kind: str, tmp_path: Path) -> None:
    lay_idx(tmp_path / folder / "raw")
    source = open_source(DataConfig(path=name, root=str(tmp_path)))
    assert (source.name, source.class_names[:2], source.kind) == (name, classes, kind)
    assert source.splits_N.tolist() == [0] * 30 + [2] * 20
    torchvision = pytest.importorskip("torchvision.datasets")
    reference = getattr(torchvision, folder)(str(tmp_path), train=True)
    np.testing.assert_array_equal(np.asarray(source.images)[:30, 0], reference.data.numpy())
    np.testing.assert_array_equal(source.labels_N[:30], reference.targets.numpy())


@pytest.mark.parametrize("path", ["fashion_mnist", "FashionMNIST", "fashion-mnist", "Fashion-MNIST"])
def test_names_may_be_spelled_in_many_ways(path: str, tmp_path: Path) -> None:
    lay_idx(tmp_path / "fashion-mnist")
    assert open_source(DataConfig(path=path, root=str(tmp_path))).name == "fashion_mnist"


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "digits"])
def test_missing_data_set_is_named_with_the_fix(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{name} is not in {tmp_path}: put .* there, set --data.root") as caught:
        open_source(DataConfig(path=name, root=str(tmp_path)))
    assert ("--data.download true" in str(caught.value)) == (name != "imagenet")
    with pytest.raises(DataError, match=f"{name} is not in {tmp_path}/nowhere"):
        open_source(DataConfig(path=name, root=str(tmp_path / "nowhere")))


def test_present_data_set_is_not_downloaded(tmp_path: Path) -> None:
    def download(datasets: Any, root: str) -> None:
        raise AssertionError("downloaded")

    (tmp_path / "b").mkdir()
    config = DataConfig(root=str(tmp_path), download=True)
    assert locate_dataset(config, "x", ("a", "b"), Path.is_dir, download) == tmp_path / "b"


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")

    class Fake:
        def __init__(self, root: str, download: bool) -> None:
            assert download
            lay_idx(Path(root) / "MNIST" / "raw")

    monkeypatch.setattr(datasets, "MNIST", Fake)
    assert open_source(DataConfig(path="mnist", root=str(tmp_path), download=True)).name == "mnist"


def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")

    class Offline:
        def __init__(self, root: str, download: bool) -> None:
            raise OSError("Name or service\nnot known")

    monkeypatch.setattr(datasets, "KMNIST", Offline)
    with pytest.raises(
        DataError, match=r"kmnist cannot be downloaded .*Name or service not known\): download it elsewhere"
    ):
        open_source(DataConfig(path="kmnist", root=str(tmp_path), download=True))
