"""RandAugment and TrivialAugment: random operations from a list of 14, for a batch at once.

E. Cubuk et al., "RandAugment: practical automated data augmentation with a reduced search space", 2020.
S. Müller, F. Hutter, "TrivialAugment: tuning-free yet state-of-the-art data augmentation", 2021.
Ranges are those of torchvision.transforms.autoaugment, except that shears are about the centre, that solarize at
strength 0 changes nothing, and that no shift is more than half of the side. Images are grouped by the operation they
drew, so a layer costs each image one operation, and the whole batch one sampling for all moves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from classifier.augment import colour, geometry
from classifier.augment.streams import Stream
from classifier.runtime import counter_rng

MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
OPERATIONS = (
    "identity",
    *MOVES,
    "brightness",
    "saturation",
    "contrast",
    "sharpness",
    "posterize",
    "solarize",
    "autocontrast",
    "equalize",
)
# Strengths are counted in so many steps.
STEPS = 30


@dataclass(frozen=True)
class Ranges:
    """What full strength is: a slope, a share of the side, degrees, a change of a factor, bits lost."""

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
    """So many operations an image, all of strength magnitude / 30. Float images in [0, 1]."""
    for layer in range(layers):
        first = Stream.RANDAUGMENT + 2 * layer
        u_N, sign_N = counter_rng.uniforms(key, positions_N, first, first + 1)
        strength_N = torch.full_like(u_N, magnitude / STEPS)
        images_NCHW = apply(images_NCHW, _choice(u_N), strength_N, sign_N < 0.5, ranges, reflect=reflect)
    return images_NCHW


def trivialaugment(images_NCHW: Tensor, *, ranges: Ranges, key: int, positions_N: Tensor, reflect: bool) -> Tensor:
    """One operation an image, of a strength of its own. Float images in [0, 1]."""
    u_N, strength_N, sign_N = counter_rng.uniforms(key, positions_N, *range(Stream.TRIVIAL, Stream.TRIVIAL + 3))
    strength_N = (strength_N * (STEPS + 1)).floor() / STEPS
    return apply(images_NCHW, _choice(u_N), strength_N, sign_N < 0.5, ranges, reflect=reflect)


def apply(
    images_NCHW: Tensor, operation_N: Tensor, strength_N: Tensor, minus_N: Tensor, ranges: Ranges, *, reflect: bool
) -> Tensor:
    """Do to each image its operation: an index into OPERATIONS, on any device.

    strength_N: in [0, 1]. minus_N: bool, the other way, where the operation has two.
    """
    operation_N = operation_N.cpu()  # the one place where a GPU is waited for
    outcome_NCHW = images_NCHW.clone()
    signed_N = torch.where(minus_N, -strength_N, strength_N)

    def put(where_N: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
        rows = where_N.nonzero()[:, 0].to(images_NCHW.device, non_blocking=True)
        if len(rows):
            outcome_NCHW[rows] = operation(images_NCHW[rows], rows)

    kinds_N = operation_N.to(images_NCHW.device, non_blocking=True)
    put(
        (operation_N >= 1) & (operation_N <= len(MOVES)),
        lambda images, rows: _move(images, kinds_N[rows], signed_N[rows], ranges, reflect),
    )
    factor_N = 1 + ranges.factor * signed_N
    lost_N = (strength_N * ranges.bits).round().to(torch.int64)
    changes: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "brightness": lambda images, rows: colour.brightness(images, factor_N[rows]),
        "saturation": lambda images, rows: colour.saturation(images, factor_N[rows]),
        "contrast": lambda images, rows: colour.contrast(images, factor_N[rows]),
        "sharpness": lambda images, rows: colour.sharpness(images, factor_N[rows]),
        "posterize": lambda images, rows: colour.posterize(images, 8 - lost_N[rows]),
        "solarize": lambda images, rows: colour.solarize(images, (1 - strength_N[rows]) * (256 / 255)),
        "autocontrast": lambda images, rows: colour.autocontrast(images),
        "equalize": lambda images, rows: colour.equalize(images),
    }
    for name, change in changes.items():
        put(operation_N == OPERATIONS.index(name), change)
    return outcome_NCHW


def _choice(u_N: Tensor) -> Tensor:
    return (u_N * len(OPERATIONS)).to(torch.int64)


def _move(images_NCHW: Tensor, kind_N: Tensor, signed_N: Tensor, ranges: Ranges, reflect: bool) -> Tensor:
    def only(name: str, full: float) -> Tensor:
        return torch.where(kind_N == OPERATIONS.index(name), signed_N * full, 0.0)

    matrix_N23 = geometry.affine(
        *images_NCHW.shape[2:],
        degrees_N=only("rotate", ranges.rotate),
        scale_N=torch.ones_like(signed_N),
        shear_x_N=torch.rad2deg(torch.atan(only("shear_x", ranges.shear))),
        shear_y_N=torch.rad2deg(torch.atan(only("shear_y", ranges.shear))),
        right_N=only("translate_x", ranges.translate),
        down_N=only("translate_y", ranges.translate),
    )
    return geometry.warp(images_NCHW, matrix_N23, reflect=reflect)
