"""IDX files, the format of MNIST and Fashion-MNIST: train-images-idx3-ubyte, train-labels-..., t10k-..., gz or not.

The format: two zero bytes, a type (8: uint8), the number of axes, each axis as a big-endian uint32, then the values
(Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits", 1998).
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np

from classifier.data.readers.source import Source, from_arrays
from classifier.data.split_names import ImageKind
from classifier.errors import DataError

FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
KMNIST_CLASSES = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
_PREFIXES = {"train": "train", "t10k": "test"}


def contains_idx(folder: Path) -> bool:
    """Return whether this folder, or `raw` in it (torchvision's layout), contains IDX files of images."""
    return _find_idx_folder(folder) is not None


def read_idx(folder: Path, name: str | None = None) -> Source:
    """Read the IDX files in a folder; train-* are train, t10k-* are test.

    Class names and kind follow from `name` or the folder's path: those of Fashion-MNIST or KMNIST, else numbers.
    DataError names a file that is missing or corrupted.
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
    name = name or folder.resolve().name
    class_names, kind = _infer_classes(
        f"{name} {folder.resolve()}", max(int(labels_N.max()) for _, labels_N in parts.values())
    )
    return from_arrays(name, parts, class_names, kind=kind)


def read_idx_file(path: Path, *, axes: int) -> np.ndarray:
    """Read one IDX file of uint8 values. DataError if it is corrupted, or has other axes or another type."""
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise DataError(f"{path} is a corrupted or truncated gzip file: download it again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}): download it again") from None
    if len(content) < 4 or content[:2] != b"\0\0":
        raise DataError(
            f"{path} is not an IDX file (its first bytes are {content[:4].hex() or 'missing'}): download it again"
        )
    if content[2] != 8 or content[3] != axes:
        raise DataError(
            f"{path} has type {content[2]} and {content[3]} axes, not uint8 (type 8) and {axes} axes: "
            "convert it, or use a folder of images"
        )
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(content[4:start].ljust(start - 4, b"\0"), ">u4").tolist())
    if len(content) < start or len(content) - start != math.prod(shape):
        sizes = " x ".join(map(str, shape))
        raise DataError(
            f"{path} is truncated or corrupted: {max(0, len(content) - start):,} bytes, but its header says {sizes}: "
            "download it again"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _infer_classes(words: str, highest: int) -> tuple[tuple[str, ...], ImageKind]:
    words = words.lower()
    if highest < 10 and "fashion" in words:
        return FASHION_MNIST_CLASSES, "objects"
    if highest < 10 and ("kmnist" in words or "kuzushiji" in words):
        return KMNIST_CLASSES, "symbols"
    return tuple(str(number) for number in range(highest + 1)), "symbols"


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
