"""Random views of images, by the project's own augmentation: what a network learns to recognise as the same image."""

import dataclasses

import torch
from torch import Tensor

from classifier.augment import policy
from classifier.config.sections import AugmentConfig
from classifier.runtime import counter_rng

# Far stronger than for a training with labels (T. Chen et al., 2020): what is left unchanged tells images apart.
_STRONG = {"crop": 0.25, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
# Symbols are not mirrored, and part of one may be another.
_STRENGTHS = {"symbols": _STRONG | {"crop": 0.6, "rotate": 15.0, "shift": 0.1}, "objects": _STRONG, "photos": _STRONG}
# Grey images have no colours to change, and small crops hide their shapes: settings measured on Fashion-MNIST (LOG.md),
# where weaker ones lead in the first epochs alone.
_GREY = {"crop": 0.6, "rotate": 10.0, "brightness": 0.8, "contrast": 0.8, "erase": 1.0}
_GREY_SYMBOLS = {"crop": 0.6, "rotate": 15.0, "shift": 0.1, "brightness": 0.4, "contrast": 0.4}
_GREY_STRENGTHS = {"symbols": _GREY_SYMBOLS, "objects": _GREY, "photos": _GREY}


def choose_augment(config: AugmentConfig, *, kind: str, channels: int, size: int) -> AugmentConfig:
    """Return the settings with all that is unset filled in. kind: of the images, as Dataset.kind. ConfigError as of
    policy.resolve."""
    name = kind if config.policy == "auto" else config.policy
    strengths = (_GREY_STRENGTHS if channels == 1 else _STRENGTHS).get(name, {})
    unset = {one: value for one, value in strengths.items() if getattr(config, one) is None}
    return policy.resolve(dataclasses.replace(config, **unset), kind=kind, channels=channels, size=size)


def make_views(
    images_NCHW: Tensor,
    augment: AugmentConfig,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    seed: int,
    epoch: int,
    positions_N: Tensor,
) -> Tensor:
    """Return two normalised views of each uint8 image, float32: the first of all, then the second of all (2N images).

    A function of the images, the seed, the epoch and the positions in it (counter_rng).
    """
    keys = (counter_rng.key(seed, 2 * epoch + view) for view in range(2))
    views = (policy.augment(images_NCHW, augment, key=key, positions_N=positions_N) for key in keys)
    return torch.cat([policy.normalise(one, mean, std) for one in views])
