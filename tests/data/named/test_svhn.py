"""Street View House Numbers in their MATLAB files."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from classifier.config.sections import DataConfig
from classifier.data import open_source
from classifier.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 40), dtype=np.uint8)


def lay(root: Path) -> Path:
    for split in ("train", "test"):
        labels = np.arange(40)[:, None] % 10 + 1  # 10 stands for the digit 0
        savemat(root / f"{split}_32x32.mat", {"X": PIXELS, "y": labels.astype(np.uint8)})
    return root


def test_svhn(tmp_path: Path) -> None:
    source = open_source(DataConfig(path="svhn", root=str(lay(tmp_path))))
    assert (source.name, source.kind, source.class_names) == ("svhn", "symbols", tuple("0123456789"))
    assert source.labels_N.tolist() == [(n + 1) % 10 for n in range(40)] * 2
    assert source.splits_N.tolist() == [0] * 40 + [2] * 40
    np.testing.assert_array_equal(np.asarray(source.images)[7], PIXELS[:, :, :, 7].transpose(2, 0, 1))


def test_corrupted_file_is_named(tmp_path: Path) -> None:
    path = lay(tmp_path) / "test_32x32.mat"
    config = DataConfig(path="svhn", root=str(tmp_path))
    savemat(path, {"X": PIXELS, "y": np.zeros((3, 1))})
    with pytest.raises(DataError, match=r"test_32x32\.mat is missing or corrupted \(40 images, but 3 labels\)"):
        open_source(config)
    savemat(path, {"X": PIXELS})
    with pytest.raises(DataError, match=r"test_32x32\.mat is missing or corrupted \('y'\)"):
        open_source(config)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(DataError, match=r"test_32x32\.mat is missing or corrupted"):
        open_source(config)
    path.unlink()
    with pytest.raises(DataError, match=r"test_32x32\.mat is missing or corrupted"):
        open_source(config)
