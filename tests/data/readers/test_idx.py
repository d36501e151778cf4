"""IDX files in all common layouts, and corrupted."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from classifier.data.readers import idx
from classifier.data.readers.idx import FASHION_MNIST_CLASSES, read_idx, read_idx_file
from classifier.errors import DataError

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (60, 28, 28), dtype=np.uint8)
LABELS = np.arange(60, dtype=np.uint8) % 10


def idx_bytes(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


def write_files(folder: Path, *, gz: bool = True, dot: str = "-") -> Path:
    """40 images to train, 20 to test."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, chosen in (("train", slice(0, 40)), ("t10k", slice(40, 60))):
        for what, values in (("images", IMAGES[chosen]), ("labels", LABELS[chosen])):
            content = idx_bytes(values)
            path = folder / f"{prefix}-{what}{dot}idx{values.ndim}-ubyte{'.gz' if gz else ''}"
            path.write_bytes(gzip.compress(content) if gz else content)
    return folder


@pytest.mark.parametrize("gz", [True, False])
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("inside", ["", "raw"])
def test_mnist_files(gz: bool, dot: str, inside: str, tmp_path: Path) -> None:
    write_files(tmp_path / "mnist" / inside, gz=gz, dot=dot)
    assert idx.contains_idx(tmp_path / "mnist")
    source = read_idx(tmp_path / "mnist")
    assert source.name == "mnist"
    assert source.class_names == tuple("0123456789")
    assert source.kind == "symbols"
    assert isinstance(source.images, np.ndarray)
    np.testing.assert_array_equal(source.images, IMAGES[:, None])
    np.testing.assert_array_equal(source.labels_N, LABELS)
    assert source.splits_N.tolist() == [0] * 40 + [2] * 20
    assert (source.ids[0], source.ids[40]) == ("train/0", "test/0")


@pytest.mark.parametrize("path", ["fashion-mnist", "FashionMNIST/raw", "my_fashion/mnist", "kmnist", "kmnist/signs"])
def test_names_of_folders_choose_no_classes(path: str, tmp_path: Path) -> None:
    source = read_idx(write_files(tmp_path / path))
    assert source.class_names == tuple("0123456789")
    assert source.kind == "symbols"


def test_the_data_set_that_was_asked_for_has_its_class_names(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "mnist")
    assert read_idx(folder, "fashion_mnist").class_names == FASHION_MNIST_CLASSES
    assert read_idx(folder, "fashion_mnist").kind == "objects"
    assert read_idx(folder, "kmnist").class_names[:3] == ("o", "ki", "su")
    assert read_idx(folder, "mnist").class_names == tuple("0123456789")


def test_published_labels_are_recognized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_files(tmp_path / "digits", gz=False)
    digest = hashlib.md5((folder / LABELS_FILE).read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setitem(idx._KNOWN_LABELS, digest, "fashion_mnist")
    assert read_idx(folder).class_names == FASHION_MNIST_CLASSES
    assert read_idx(write_files(tmp_path / "again")).kind == "objects"
    with pytest.raises(DataError, match="has the files of fashion_mnist, not of mnist: ask for fashion_mnist"):
        read_idx(folder, "mnist")


def test_bomb_is_not_unpacked(tmp_path: Path) -> None:
    folder = write_files(tmp_path)
    head = struct.pack(">HBB3I", 0, 8, 3, 1 << 20, 1 << 10, 1 << 10)
    (folder / f"{IMAGES_FILE}.gz").write_bytes(gzip.compress(head + bytes(1000)))
    with pytest.raises(DataError, match=r"its header says 1048576 x 1024 x 1024, more than 1,073,741,824 bytes"):
        read_idx(folder)


def test_without_a_test_split(tmp_path: Path) -> None:
    folder = write_files(tmp_path)
    for path in folder.glob("t10k-*"):
        path.unlink()
    assert set(read_idx(folder).splits_N.tolist()) == {0}


def test_folder_without_idx_files(photos: Path) -> None:
    assert not idx.contains_idx(photos)


IMAGES_FILE, LABELS_FILE = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
WHOLE = idx_bytes(IMAGES[:40])
CORRUPTED = {
    "truncated": (
        IMAGES_FILE,
        WHOLE[:-1],
        r"is truncated or corrupted: 31,359 bytes, but its header says 40 x 28 x 28",
    ),
    "longer": (IMAGES_FILE, WHOLE + b"!", r"is truncated or corrupted: 31,361 bytes"),
    "no sizes": (IMAGES_FILE, WHOLE[:9], r"is truncated or corrupted: 0 bytes"),
    "empty": (IMAGES_FILE, b"", r"is not an IDX file \(its first bytes are missing\)"),
    "other": (IMAGES_FILE, b"\x89PNG\r\n", r"is not an IDX file \(its first bytes are 89504e47\)"),
    "floats": (
        IMAGES_FILE,
        b"\0\0\x0d\x03" + WHOLE[4:],
        r"has type 13 and 3 axes, not uint8 \(type 8\) and 3 axes",
    ),
    "axes": (IMAGES_FILE, idx_bytes(IMAGES[:40, 0]), r"has type 8 and 2 axes"),
    "truncated gzip": (
        IMAGES_FILE,
        gzip.compress(WHOLE)[:-200],
        r"is a corrupted or truncated gzip file: download it again",
    ),
    "corrupted gzip": (IMAGES_FILE, gzip.compress(WHOLE)[:40] + bytes(9999), r"is a corrupted or truncated gzip file"),
    "wrong checksum": (IMAGES_FILE, gzip.compress(WHOLE)[:-8] + bytes(8), r"is a corrupted or truncated gzip file"),
    "1x1": (IMAGES_FILE, idx_bytes(IMAGES[:40, :1, :1]), r"has 40 images of 1 x 1 pixels"),
    "none": (IMAGES_FILE, idx_bytes(IMAGES[:0]), r"has 0 images|40 labels"),
    "labels": (
        LABELS_FILE,
        idx_bytes(LABELS[:39]),
        r"has 40 images, but train-labels-idx1-ubyte 39 labels: download both",
    ),
    "label axes": (LABELS_FILE, WHOLE, r"has type 8 and 3 axes, not uint8 \(type 8\) and 1 axes"),
}


@pytest.mark.parametrize("name", CORRUPTED)
def test_corrupted_file_is_named(name: str, tmp_path: Path) -> None:
    file, content, reason = CORRUPTED[name]
    folder = write_files(tmp_path, gz=False)
    (folder / file).write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_idx(folder)
    assert str(folder / "train-") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"])
def test_missing_file_is_named(file: str, tmp_path: Path) -> None:
    folder = write_files(tmp_path)
    (folder / f"{file}.gz").unlink()
    with pytest.raises(DataError, match=rf"has no {file} \(or {file}\.gz\): add it"):
        read_idx(folder)


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone cannot be read"):
        read_idx_file(tmp_path / "gone", axes=1)
