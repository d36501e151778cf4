"""Named experiments: each docstring says for what, and what was measured.

A recipe is where an experiment begins; a file and flags change it. Figures: test accuracy, mean ± deviation of three
seeds, and seconds from start to end of `python jobs/train.py --recipe NAME ...` on 2 CPU cores; LOG.md says which.
"""

import re
from collections.abc import Callable
from pathlib import Path

from classifier.config.experiment import Experiment
from classifier.config.fields import suggest
from classifier.errors import ConfigError


def digits() -> Experiment:
    """Small drawn symbols of about 8 to 16 pixels, a few thousand of them. The digits: 99.5 ± 0.2 % in 9 s."""
    return Experiment().override_all(
        {
            "train.epochs": 20,
            "optimizer.ema": 0.98,
            "loss.smoothing": 0.1,
        }
    )


def fashion_quick() -> Experiment:
    """Small images of 28 to 32 pixels, tens of thousands of them. Fashion-MNIST: 93.2 ± 0.1 % in 101 s."""
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
    """The same images with ten minutes of patience. Fashion-MNIST: 94.5 ± 0.04 %; 580 s (one run)."""
    return fashion_quick().override_all(
        {"model.name": "plain7_40", "train.epochs": 16, "augment.erase": 0.5, "train.keep": "last"}
    )


def photos() -> Experiment:
    """Photographs from scratch, a few hundred of them or more. 193 of 5 classes: 64.5 ± 1.3 %, 92 s."""
    return Experiment().override_all(
        {
            "model.name": "resnet9_16",
            "data.batch": 32,
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

    Give model.name and model.weights: imagenet for torchvision's or timm's own, or a file. EfficientNet-Lite0 on the
    same 193 photographs: 90.5 ± 1.3 %, 40 s, on a processor that took 93 s for 15 epochs of new views each.
    """
    return Experiment().override_all(
        {
            "model.name": "efficientnet_b0",
            "model.weights": "imagenet",
            "model.freeze": "backbone",
            "data.size": 224,
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
            # A head has learned all by then: more trials bring more.
            "search.longer": False,
        }
    )


RECIPES: dict[str, Callable[[], Experiment]] = {
    "digits": digits,
    "fashion-quick": fashion_quick,
    "fashion": fashion,
    "photos": photos,
    "finetune": finetune,
}


def recipe(name: str) -> Experiment:
    """The experiment of that name. ConfigError names the nearest if there is none."""
    if name not in RECIPES:
        near = suggest(name, RECIPES)
        raise ConfigError(f"--recipe {name}: there is no such recipe{near or '; there are ' + ', '.join(RECIPES)}")
    return RECIPES[name]()


def recipe_for(path: str) -> str:
    """The recipe that a data set gets where none was asked for: by its name, or photos for a folder or manifest."""
    name = re.sub(r"[^a-z0-9]", "", Path(path).name.lower())
    if not Path(path).exists() and name == "digits":
        return "digits"
    is_small = any(word in name for word in ("mnist", "cifar", "svhn")) or any(Path(path).glob("*idx?-ubyte*"))
    return "fashion-quick" if is_small else "photos"
