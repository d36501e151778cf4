"""A small data set of images with several labels: shapes in the corners of a noisy image, any number of them."""

import numpy as np
import torch

from classifier.data.dataset import Dataset, Split

CLASSES = ("disc", "cross", "stripe", "ring")
SHARES = (0.5, 0.4, 0.3, 0.15)
SIZE, CORNER = 16, 8


def draw_shapes(images: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return uint8 images N x 1 x 16 x 16 and bool targets N x 4. A shape may be in any corner that is free."""
    rng = np.random.default_rng(seed)
    targets_NK = rng.random((images, len(CLASSES))) < SHARES
    images_NCHW = rng.normal(60, 20, (images, 1, SIZE, SIZE))
    corners_NK = rng.permuted(np.tile(np.arange(4), (images, 1)), axis=1)
    for n, k in zip(*targets_NK.nonzero(), strict=True):
        top, left = CORNER * (corners_NK[n, k] // 2), CORNER * (corners_NK[n, k] % 2)
        images_NCHW[n, 0, top : top + CORNER, left : left + CORNER] += 150 * _SHAPES[k]
    return images_NCHW.clip(0, 255).astype(np.uint8), targets_NK


def make_dataset(images: int = 240, validation: int = 60, test: int = 60) -> Dataset:
    """Return them as a data set."""
    images_NCHW, targets_NK = draw_shapes(images + validation + test)
    label_sets_MK, labels_N = np.unique(targets_NK, axis=0, return_inverse=True)
    ends = np.cumsum([0, images, validation, test])
    splits = {}
    for name, low, high in zip(("train", "validation", "test"), ends[:-1], ends[1:], strict=True):
        pixels_NCHW = torch.from_numpy(images_NCHW[low:high])
        ids = tuple(f"{n}.png" for n in range(low, high))
        splits[name] = Split(pixels_NCHW, torch.from_numpy(labels_N[low:high].ravel()), ids)
    return Dataset(
        name="shapes",
        kind="symbols",
        class_names=CLASSES,
        **splits,
        mean=(0.3,),
        std=(0.2,),
        fit="pad",
        fingerprint="0" * 16,
        findings=(),
        split_record={"validation": 0.15, "test": 0.15},
        task="multilabel",
        label_sets_MK=torch.from_numpy(label_sets_MK),
    )


def _draw() -> list[np.ndarray]:
    y, x = np.mgrid[0:CORNER, 0:CORNER] - (CORNER - 1) / 2
    radius = np.hypot(y, x)
    return [
        radius < 3,
        (abs(abs(y) - abs(x)) < 1) & (radius < 5),
        y.astype(int) % 2 == 0,
        (radius > 2.2) & (radius < 4),
    ]


_SHAPES = _draw()
