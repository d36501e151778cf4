"""CIFAR's batches in every pickle protocol, and malicious pickles."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from classifier.config.sections import DataConfig
from classifier.data import open_source
from classifier.errors import DataError

RANDOM = np.random.default_rng(0)


def lay_cifar10(root: Path, protocol: int = 2, keys: type = bytes) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()

    def key(name: str) -> Any:
        return name.encode() if keys is bytes else name

    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        pixels = RANDOM.integers(0, 256, (20, 3072), dtype=np.uint8)
        entry = {key("data"): pixels, key("labels"): [n % 10 for n in range(20)], key("batch_label"): key(name)}
        (folder / name).write_bytes(pickle.dumps(entry, protocol))
    animals = ["bird", "cat", "deer", "dog", "frog", "horse"]
    names = [key(name) for name in ["airplane", "automobile", *animals, "ship", "truck"]]
    (folder / "batches.meta").write_bytes(pickle.dumps({key("label_names"): names}, protocol))
    return folder


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("keys", [bytes, str])
def test_cifar10(protocol: int, keys: type, tmp_path: Path) -> None:
    folder = lay_cifar10(tmp_path, protocol, keys)
    source = open_source(DataConfig(path="CIFAR-10", root=str(tmp_path)))
    assert (source.name, source.kind) == ("cifar10", "photos")
    assert source.class_names[:2] == ("airplane", "automobile")
    assert source.splits_N.tolist() == [0] * 100 + [2] * 20
    assert source.labels_N.tolist() == [n % 10 for n in range(20)] * 6
    entry = pickle.loads((folder / "data_batch_2").read_bytes())  # noqa: S301 - made above
    data = entry[b"data" if keys is bytes else "data"]
    red, green, blue = data[3].reshape(3, 32, 32)
    np.testing.assert_array_equal(np.asarray(source.images)[23], np.stack([red, green, blue]))


def test_cifar100(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, count in (("train", 200), ("test", 100)):
        pixels = RANDOM.integers(0, 256, (count, 3072), dtype=np.uint8)
        fine, coarse = [n % 100 for n in range(count)], [n % 20 for n in range(count)]
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"fine_labels": fine, b"coarse_labels": coarse}, 2))
    names = [f"fine{n}".encode() for n in range(100)]
    (folder / "meta").write_bytes(pickle.dumps({b"fine_label_names": names, b"coarse_label_names": names[:20]}, 2))
    source = open_source(DataConfig(path="cifar100", root=str(tmp_path)))
    assert source.class_names == tuple(f"fine{n}" for n in range(100))
    assert np.asarray(source.images).shape == (300, 3, 32, 32)


class Harm:
    def __reduce__(self) -> Any:
        return os.system, ("touch harmed",)


def test_malicious_pickle_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = lay_cifar10(tmp_path)
    for value in (Harm(), {b"data": Harm(), b"labels": []}):
        (folder / "data_batch_3").write_bytes(pickle.dumps(value))
        with pytest.raises(DataError, match=r"data_batch_3 is missing or corrupted \(it wants to call .*system"):
            open_source(DataConfig(path="cifar10", root=str(tmp_path)))
    assert not (tmp_path / "harmed").exists()


class Reduced:
    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    def __reduce__(self) -> Any:
        return self.parts


RECONSTRUCT = np.zeros(1).__reduce__()[:2]  # makes an empty array, to which a state is given


@pytest.mark.parametrize(
    "data",
    [
        Reduced(np.ndarray, ((1,), "O", b"\x10" * 8)),
        Reduced(*RECONSTRUCT, (1, (1,), Reduced(np.dtype, ("O8",)), False, b"\x10" * 8)),
        Reduced(*RECONSTRUCT, (1, (10**12,), np.dtype("u1"), False, b"\x10")),
    ],
)
def test_pickle_with_pointers_or_a_false_shape_is_rejected(data: Reduced, tmp_path: Path) -> None:
    folder = lay_cifar10(tmp_path)
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": data, b"labels": [1]}, 2))
    with pytest.raises(DataError, match="data_batch_3 is missing or corrupted"):
        open_source(DataConfig(path="cifar10", root=str(tmp_path)))


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-50]),
    "gone": lambda path: path.unlink(),
    "no data": lambda path: path.write_bytes(pickle.dumps({b"labels": [1]}, 2)),
    "other": lambda path: path.write_bytes(pickle.dumps([1, 2], 2)),
    "labels": lambda path: path.write_bytes(pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, 2)),
    "pixels": lambda path: path.write_bytes(pickle.dumps({b"data": np.zeros((2, 99), np.uint8), b"labels": [1]}, 2)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_corrupted_file_is_named(name: str, tmp_path: Path) -> None:
    DAMAGE[name](lay_cifar10(tmp_path) / "data_batch_4")
    with pytest.raises(DataError, match=r"data_batch_4 is missing or corrupted \(.*\): download it again") as caught:
        open_source(DataConfig(path="cifar10", root=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_missing_class_names(tmp_path: Path) -> None:
    (lay_cifar10(tmp_path) / "batches.meta").write_bytes(pickle.dumps({}, 2))
    with pytest.raises(DataError, match=r"batches\.meta is missing or corrupted \(no label_names\)"):
        open_source(DataConfig(path="cifar10", root=str(tmp_path)))
