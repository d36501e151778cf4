"""RandAugment and TrivialAugment: random operations from a list of 14, applied to a whole batch.

E. Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space", 2020.
S. Müller, F. Hutter, "TrivialAugment: tuning-free yet state-of-the-art data augmentation", 2021.
Ranges are those of torchvision.transforms.autoaugment, except that shears are about the centre, solarize at strength
0 changes nothing, and no shift exceeds half of the image size. Images are grouped by the operation they drew, so a
layer costs one operation per image, and all geometric operations of the batch one sampling.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from classifier.augment import colour, geometry
from classifier.augment.streams import Stream
from classifier.runtime import counter_rng

GEOMETRIC_OPERATIONS = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
OPERATIONS = (
    "identity",
    *GEOMETRIC_OPERATIONS,
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
# Strength is quantised to this many steps.
STRENGTH_LEVELS = 30


@dataclass(frozen=True)
class Ranges:
    """Full strength of each operation: slope, fraction of the image size, degrees, change of a factor, bits removed."""

    shear: float
    translate: float
    rotate: float
    factor: float
    bits: int


NARROW = Ranges(shear=0.3, translate=150 / 331, rotate=30, factor=0.9, bits=4)
WIDE = Ranges(shear=0.99, translate=0.5, rotate=135, factor=0.99, bits=6)
# Letters and digits: a 6 must not become a 9, nor a 1 a 7.
UPRIGHT = Ranges(shear=0.3, translate=0.2, rotate=15, factor=0.9, bits=4)


def randaugment(
    images_NCHW: Tensor, *, layers: int, magnitude: int, ranges: Ranges, key: int, positions_N: Tensor, reflect: bool
) -> Tensor:
    """Apply `layers` random operations to each image, all of strength magnitude / 30. Float images in [0, 1]."""
    for layer in range(layers):
        first = Stream.RANDAUGMENT + 2 * layer
        u_N, sign_N = counter_rng.uniforms(key, positions_N, first, first + 1)
        strength_N = torch.full_like(u_N, magnitude / STRENGTH_LEVELS)
        images_NCHW = apply_operations(
            images_NCHW, _choose_operations(u_N), strength_N, sign_N < 0.5, ranges, reflect=reflect
        )
    return images_NCHW


def trivialaugment(images_NCHW: Tensor, *, ranges: Ranges, key: int, positions_N: Tensor, reflect: bool) -> Tensor:
    """Apply one random operation of random strength to each image. Float images in [0, 1]."""
    u_N, strength_N, sign_N = counter_rng.uniforms(key, positions_N, *range(Stream.TRIVIAL, Stream.TRIVIAL + 3))
    strength_N = (strength_N * (STRENGTH_LEVELS + 1)).floor() / STRENGTH_LEVELS
    return apply_operations(images_NCHW, _choose_operations(u_N), strength_N, sign_N < 0.5, ranges, reflect=reflect)


def apply_operations(
    images_NCHW: Tensor, operation_N: Tensor, strength_N: Tensor, minus_N: Tensor, ranges: Ranges, *, reflect: bool
) -> Tensor:
    """Apply operation_N (indices into OPERATIONS) to the images, on any device.

    strength_N: in [0, 1]. minus_N: bool, the negative direction, for operations that have one.
    """
    operation_N = operation_N.cpu()  # the only synchronisation with a GPU
    output_NCHW = images_NCHW.clone()
    signed_N = torch.where(minus_N, -strength_N, strength_N)

    def apply_where(mask_N: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        rows = mask_N.nonzero()[:, 0].to(images_NCHW.device, non_blocking=True)
        if len(rows):
            output_NCHW[rows] = operation(images_NCHW[rows], rows)

    device_operation_N = operation_N.to(images_NCHW.device, non_blocking=True)
    apply_where(
        (operation_N >= 1) & (operation_N <= len(GEOMETRIC_OPERATIONS)),
        lambda images, rows: _apply_geometric(images, device_operation_N[rows], signed_N[rows], ranges, reflect),
    )
    factor_N = 1 + ranges.factor * signed_N
    removed_bits_N = (strength_N * ranges.bits).round().to(torch.int64)
    operations: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "brightness": lambda images, rows: colour.brightness(images, factor_N[rows]),
        "saturation": lambda images, rows: colour.saturation(images, factor_N[rows]),
        "contrast": lambda images, rows: colour.contrast(images, factor_N[rows]),
        "sharpness": lambda images, rows: colour.sharpness(images, factor_N[rows]),
        "posterize": lambda images, rows: colour.posterize(images, 8 - removed_bits_N[rows]),
        "solarize": lambda images, rows: colour.solarize(images, (1 - strength_N[rows]) * (256 / 255)),
        "autocontrast": lambda images, rows: colour.autocontrast(images),
        "equalize": lambda images, rows: colour.equalize(images),
    }
    for name, operation in operations.items():
        apply_where(operation_N == OPERATIONS.index(name), operation)
    return output_NCHW


def _choose_operations(u_N: Tensor) -> Tensor:
    return (u_N * len(OPERATIONS)).to(torch.int64)


def _apply_geometric(
    images_NCHW: Tensor, operation_N: Tensor, signed_N: Tensor, ranges: Ranges, reflect: bool
) -> Tensor:
    def amount(name: str, full: float) -> Tensor:
        return torch.where(operation_N == OPERATIONS.index(name), signed_N * full, 0.0)

    matrix_N23 = geometry.affine_matrix(
        *images_NCHW.shape[2:],
        degrees_N=amount("rotate", ranges.rotate),
        scale_N=torch.ones_like(signed_N),
        shear_x_N=torch.rad2deg(torch.atan(amount("shear_x", ranges.shear))),
        shear_y_N=torch.rad2deg(torch.atan(amount("shear_y", ranges.shear))),
        right_N=amount("translate_x", ranges.translate),
        down_N=amount("translate_y", ranges.translate),
    )
    return geometry.warp(images_NCHW, matrix_N23, reflect=reflect)
