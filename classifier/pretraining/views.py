"""Random views of images, by the project's own augmentation: what a network learns to recognise as the same image."""

import dataclasses

import torch
from torch import Tensor

from classifier.augment import policy
from classifier.config.sections import AugmentConfig
from classifier.runtime import counter_rng

# Far stronger than for a training with labels (T. Chen et al., 2020): what is left unchanged tells images apart.
_COLOUR = {"saturation": 0.4, "hue": 0.1}
_STRONG = {"crop": 0.25, "brightness": 0.4, "contrast": 0.4} | _COLOUR
# Small crops of grey images cost accuracy (Fashion-MNIST, LOG.md): what tells them apart is their shape.
_GREY_CROP = 0.6
# Symbols are not mirrored, and part of one may be another.
_STRENGTHS = {"symbols": _STRONG | {"crop": 0.6, "rotate": 15.0, "shift": 0.1}, "objects": _STRONG, "photos": _STRONG}


def choose_augment(config: AugmentConfig, *, kind: str, channels: int, size: int) -> AugmentConfig:
    """Return the settings with all that is unset filled in. kind: of the images, as Dataset.kind. ConfigError as of
    policy.resolve."""
    name = kind if config.policy == "auto" else config.policy
    strengths = _STRENGTHS.get(name, {})
    if channels == 1:
        strengths = {one: value for one, value in strengths.items() if one not in _COLOUR}
        if strengths:
            strengths["crop"] = _GREY_CROP
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
