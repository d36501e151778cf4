"""IDX files, the format of MNIST and Fashion-MNIST: train-images-idx3-ubyte, train-labels-..., t10k-..., gz or not.

The format: two zero bytes, a type (8: uint8), the number of axes, each axis as a big-endian uint32, then the values
(Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998).
"""

import gzip
import hashlib
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

from classifier.data.readers.source import Source, from_arrays
from classifier.data.split_names import ImageKind
from classifier.errors import DataError

FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
KMNIST_CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_CLASSES: dict[str, tuple[tuple[str, ...], ImageKind]] = {
    "fashion_mnist": (FASHION_MNIST_CLASSES, "objects"),
    "kmnist": (KMNIST_CLASSES, "symbols"),
}
MAX_BYTES = 1 << 30
"""A file with more values is not read: a small gzip file can hold any number of them."""
MAX_PUBLISHED_BYTES = 1 << 20
# MD5 of the training labels, as published (gzip) or in them.
_KNOWN_LABELS = {
    "d53e105ee54ea40749a09fcbcd1e9432": "mnist",
    "25c81989df183df01b3e8a0aad5dffbe": "fashion_mnist",
    "9018921c3c673c538a1fc5bad174d6f9": "fashion_mnist",
    "e144d726b3acfaa3e44228e80efcd344": "kmnist",
}
_PREFIXES = {"train": "train", "t10k": "test"}


def contains_idx(folder: Path) -> bool:
    """Return whether this folder, or `raw` in it (torchvision's layout), contains IDX files of images."""
    return _find_idx_folder(folder) is not None


def read_idx(folder: Path, name: str | None = None) -> Source:
    """Read the IDX files in a folder; train-* are train, t10k-* are test.

    name: of the known data set that was asked for. Its classes, or those of the data set whose labels these are, get
    their names; else they are numbers. DataError names a file that is missing, corrupted or of another data set.
    """
    idx_folder = _find_idx_folder(folder) or folder
    parts = {}
    for prefix, split in _PREFIXES.items():
        images_path, labels_path = (
            _find_file(idx_folder, prefix, "images", 3),
            _find_file(idx_folder, prefix, "labels", 1),
        )
        if images_path is None and labels_path is None and split == "test":
            continue
        if images_path is None or labels_path is None:
            lacking = f"{prefix}-{'images-idx3' if images_path is None else 'labels-idx1'}-ubyte"
            raise DataError(f"{idx_folder} has no {lacking} (or {lacking}.gz): add it")
        images_NHW, labels_N = read_idx_file(images_path, axes=3), read_idx_file(labels_path, axes=1)
        if len(images_NHW) != len(labels_N):
            raise DataError(
                f"{images_path} has {len(images_NHW):,} images, but {labels_path.name} {len(labels_N):,} labels: "
                "download both again"
            )
        if min(images_NHW.shape) < 1 or min(images_NHW.shape[1:]) < 2:
            count, height, width = images_NHW.shape
            raise DataError(f"{images_path} has {count} images of {width} x {height} pixels: download it again")
        parts[split] = (images_NHW[:, None], labels_N)
    found = _identify(idx_folder, parts["train"][1])
    if name and found and found != name:
        raise DataError(f"{idx_folder} has the files of {found}, not of {name}: ask for {found}, or replace them")
    count = max(int(labels_N.max()) for _, labels_N in parts.values()) + 1
    class_names, kind = _CLASSES.get(name or found or "", ((), "symbols"))
    if count > len(class_names):
        class_names, kind = tuple(map(str, range(count))), "symbols"
    return from_arrays(name or folder.resolve().name, parts, class_names, kind=kind)


def read_idx_file(path: Path, *, axes: int) -> np.ndarray:
    """Read one IDX file of uint8 values. DataError if it is corrupted, or has other axes or another type."""
    try:
        with _open(path) as file:
            start = file.read(4 + 4 * axes)
            shape = _read_shape(path, start, axes)
            if math.prod(shape) > MAX_BYTES:
                sizes = " x ".join(map(str, shape))
                raise DataError(
                    f"{path}: its header says {sizes}, more than {MAX_BYTES:,} bytes: use a folder of images"
                )
            values = file.read(math.prod(shape) + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path} is a corrupted or truncated gzip file: download it again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): download it again") from None
    if len(start) < 4 + 4 * axes or len(values) != math.prod(shape):
        sizes = " x ".join(map(str, shape))
        raise DataError(
            f"{path} is truncated or corrupted: {len(values):,} bytes, but its header says {sizes}: download it again"
        )
    return np.frombuffer(values, np.uint8).reshape(shape)


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return cast("IO[bytes]", gzip.open(path)) if is_gzip else path.open("rb")


def _read_shape(path: Path, start: bytes, axes: int) -> tuple[int, ...]:
    if len(start) < 4 or start[:2] != b"\0\0":
        raise DataError(
            f"{path} is not an IDX file (its first bytes are {start[:4].hex() or 'missing'}): download it again"
        )
    if start[2] != 8 or start[3] != axes:
        raise DataError(
            f"{path} has type {start[2]} and {start[3]} axes, not uint8 (type 8) and {axes} axes: "
            "convert it, or use a folder of images"
        )
    return tuple(np.frombuffer(start[4:].ljust(4 * axes, b"\0"), ">u4").tolist())


def _identify(idx_folder: Path, labels_N: np.ndarray) -> str | None:
    """Return the known data set that these training labels are from."""
    contents = [struct.pack(">HBBI", 0, 8, 1, len(labels_N)) + labels_N.tobytes()]
    for dot in ("-", "."):
        path = idx_folder / f"train-labels{dot}idx1-ubyte.gz"
        if path.is_file() and path.stat().st_size <= MAX_PUBLISHED_BYTES:
            contents.append(path.read_bytes())
    digests = (hashlib.md5(content, usedforsecurity=False).hexdigest() for content in contents)
    return next((_KNOWN_LABELS[digest] for digest in digests if digest in _KNOWN_LABELS), None)


def _find_idx_folder(folder: Path) -> Path | None:
    for idx_folder in (folder, folder / "raw"):
        if any(
            _find_file(idx_folder, prefix, what, axes)
            for prefix in _PREFIXES
            for what, axes in (("images", 3), ("labels", 1))
        ):
            return idx_folder
    return None


def _find_file(idx_folder: Path, prefix: str, what: str, axes: int) -> Path | None:
    for dot in ("-", "."):
        for end in ("", ".gz"):
            path = idx_folder / f"{prefix}-{what}{dot}idx{axes}-ubyte{end}"
            if path.is_file():
                return path
    return None
