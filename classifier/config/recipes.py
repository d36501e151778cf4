"""Recipes: named experiments. Each docstring says what its recipe is for and what it achieved.

A recipe is the starting point of an experiment; a file and flags change it. Results: test accuracy, mean ± standard
deviation of three seeds, and total seconds of `python jobs/train.py --recipe NAME ...` on 2 CPU cores (see LOG.md).
Those for large sets are in large_recipes.py.
"""

import os
import re
from collections.abc import Callable

from classifier.config.experiment import Experiment
from classifier.config.fields import suggest
from classifier.config.large_recipes import CROP_SCALE, LARGE_RECIPES
from classifier.errors import ConfigError


def digits() -> Experiment:
    """A few thousand small drawn symbols of about 8 to 16 pixels. Digits: 99.5 ± 0.2 % in 9 s."""
    return Experiment().override_all(
        {
            "train.epochs": 20,
            "optimizer.ema": 0.98,
            "loss.smoothing": 0.1,
        }
    )


def fashion_quick() -> Experiment:
    """Tens of thousands of small images of 28 to 32 pixels. Fashion-MNIST: 93.2 ± 0.1 % in 101 s."""
    return Experiment().override_all(
        {
            "model.name": "plain7_32",
            "data.batch": 256,
            "data.validation": 0.05,
            "train.epochs": 4,
            "optimizer.name": "muon",
            "optimizer.lr": 0.03,
            "optimizer.momentum": 0.95,
            "optimizer.weight_decay": 0.0,
            "schedule.name": "linear",
            "augment.shift": 0.036,
            "augment.erase": 0.0,
            "augment.test_flip": True,
            "loss.smoothing": 0.1,
        }
    )


def fashion() -> Experiment:
    """The same kind of images, trained for ten minutes. Fashion-MNIST: 94.5 ± 0.04 % in 580 s (time of one run)."""
    return fashion_quick().override_all(
        {"model.name": "plain7_40", "train.epochs": 16, "augment.erase": 0.5, "train.keep": "last"}
    )


def photos() -> Experiment:
    """A few hundred photographs or more, from scratch. 193 photographs of 5 classes: 64.5 ± 1.3 % in 92 s."""
    return Experiment().override_all(
        {
            "model.name": "resnet9_16",
            "data.batch": 32,
            "data.crop_scale": CROP_SCALE,
            "train.epochs": 160,
            "train.keep": "last",
            "optimizer.ema": 0.98,
            "augment.crop": 0.6,
            "augment.test_flip": True,
            "loss.smoothing": 0.1,
        }
    )


def finetune() -> Experiment:
    """A new head on the frozen features of pretrained weights: the best start for a few hundred photographs.

    Set model.name and model.weights: imagenet for the weights of torchvision or timm, or a file. EfficientNet-Lite0 on
    the same 193 photographs: 90.5 ± 1.3 % in 40 s, on a CPU that took 93 s for 15 epochs with new views in each.
    """
    return Experiment().override_all(
        {
            "model.name": "efficientnet_b0",
            "model.weights": "imagenet",
            "model.freeze": "backbone",
            "data.size": 224,
            "data.crop_scale": CROP_SCALE,
            "data.batch": 16,
            "train.epochs": 24,
            "train.keep": "last",
            "checkpoint.epochs": 12,
            "optimizer.lr": 3e-3,
            "schedule.name": "cosine",
            "schedule.warmup": 0.1,
            "augment.views": 4,
            "augment.crop": 0.8,
            "augment.test_flip": True,
            "augment.brightness": 0.0,
            "augment.contrast": 0.0,
            "augment.saturation": 0.0,
            # The head has converged by then, so more trials help more than longer ones.
            "search.longer": False,
        }
    )


RECIPES: dict[str, Callable[[], Experiment]] = {
    "digits": digits,
    "fashion-quick": fashion_quick,
    "fashion": fashion,
    "photos": photos,
    "finetune": finetune,
} | LARGE_RECIPES


def recipe(name: str) -> Experiment:
    """Return the recipe of that name. ConfigError, with a suggestion, if there is none."""
    if name not in RECIPES:
        hint = suggest(name, RECIPES) or "; choose from auto, " + ", ".join(RECIPES)
        raise ConfigError(f"--recipe {name}: unknown recipe{hint}")
    return RECIPES[name]()


AUTO = "auto"
# Known data sets of small images.
_SMALL_IMAGES = ("mnist", "fashionmnist", "kmnist", "cifar10", "cifar100", "svhn")


def recipe_for(path: str) -> str:
    """Return the default recipe: that of a known data set, by its name, else `auto`, whatever the path is called."""
    if os.path.lexists(os.path.expanduser(path)):
        return AUTO
    name = re.sub(r"[^a-z0-9]", "", path.lower())
    return "digits" if name == "digits" else "fashion-quick" if name in _SMALL_IMAGES else AUTO
