"""CIFAR-10 and CIFAR-100: 60,000 colour images of 32 x 32 (A. Krizhevsky, 2009), in their Python batches."""

import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np

from classifier.config.sections import DataConfig
from classifier.data.named.mnist import corrupted_file_error, locate_dataset
from classifier.data.readers.source import Source, from_arrays


def load_cifar10(config: DataConfig) -> Source:
    folder = "cifar-10-batches-py"
    root = locate_dataset(
        config,
        "cifar10",
        (folder, f"cifar10/{folder}"),
        lambda path: (path / "batches.meta").is_file(),
        lambda datasets, path: datasets.CIFAR10(path, download=True),
    )
    train = [_load_batch(root / f"data_batch_{n}", "labels") for n in range(1, 6)]
    parts = {"train": _concatenate(train), "test": _load_batch(root / "test_batch", "labels")}
    return from_arrays("cifar10", parts, _load_class_names(root / "batches.meta", "label_names"), kind="photos")


def load_cifar100(config: DataConfig) -> Source:
    """Load CIFAR-100 with its 100 fine labels."""
    folder = "cifar-100-python"
    root = locate_dataset(
        config,
        "cifar100",
        (folder, f"cifar100/{folder}"),
        lambda path: (path / "meta").is_file(),
        lambda datasets, path: datasets.CIFAR100(path, download=True),
    )
    parts = {split: _load_batch(root / split, "fine_labels") for split in ("train", "test")}
    return from_arrays("cifar100", parts, _load_class_names(root / "meta", "fine_label_names"), kind="photos")


def _concatenate(batches: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


def _load_batch(path: Path, labels: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images_NCHW and labels_N of one file. DataError names it if it is missing or corrupted."""
    entry = _unpickle(path)
    try:
        images_NCHW = np.asarray(entry["data"], np.uint8).reshape(-1, 3, 32, 32)
        labels_N = np.asarray(entry[labels], np.int64)
    except (KeyError, ValueError, TypeError) as error:
        raise corrupted_file_error(path, error) from None
    if labels_N.shape != images_NCHW.shape[:1]:
        raise corrupted_file_error(path, f"{len(images_NCHW)} images, but labels of shape {labels_N.shape}")
    return images_NCHW, labels_N


def _load_class_names(path: Path, key: str) -> tuple[str, ...]:
    names = _unpickle(path).get(key)
    if not isinstance(names, list):
        raise corrupted_file_error(path, f"no {key}")
    return tuple(name.decode("latin1") if isinstance(name, bytes) else str(name) for name in names)


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            entry = _PlainUnpickler(file, encoding="latin1").load()
        return {key.decode("latin1") if isinstance(key, bytes) else key: value for key, value in entry.items()}
    except Exception as error:  # a corrupted pickle can fail in any way
        raise corrupted_file_error(path, error) from None


class _Dtype:
    """Stands for numpy.dtype in a pickle. values: its name, such as u1; the byte order is state[1]."""

    def __init__(self, *values: Any) -> None:
        self.dtype = np.dtype(str(values[0]))

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Stands for numpy.ndarray in a pickle, whose own methods believe any shape and any pointer."""

    array: np.ndarray

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, content = state
        raw = content.encode("latin1") if isinstance(content, str) else content  # text, if Python 2 wrote it
        self.array = _from_buffer(raw, dtype, shape, "F" if is_fortran else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.array, dtype)


def _from_buffer(content: bytes, dtype: _Dtype, shape: tuple[int, ...], order: Literal["C", "F"]) -> np.ndarray:
    return np.frombuffer(content, dtype.dtype).reshape(shape, order=order)  # which refuses objects


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: str, _encoding: str) -> bytes:
    return text.encode("latin1")


class _PlainUnpickler(pickle.Unpickler):
    """Unpickles arrays of numbers, and rejects anything else that a pickle could call: the files are untrusted."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        parts = module_name.split(".")
        stand_in = _STAND_INS.get((parts[0], parts[-1], global_name))
        if stand_in is None:
            raise pickle.UnpicklingError(f"it wants to call {module_name}.{global_name}")
        return stand_in


# By package, last part of the module's name (numpy.core was renamed numpy._core) and name.
_STAND_INS: dict[tuple[str, str, str], Any] = {
    ("_codecs", "_codecs", "encode"): _encode,  # how Python 3 writes bytes in old protocols
    ("numpy", "multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "numeric", "_frombuffer"): _from_buffer,
    ("numpy", "numpy", "ndarray"): _Array,
    ("numpy", "numpy", "dtype"): _Dtype,
}
