"""Recipes for large sets: 10^4 to 10^6 images, from scratch, on GPUs.

Each states the accuracy that its settings reached where they were published, which is its aim, and how it differs. None
was trained to its end here: measured is that each starts, trains two epochs of a small set and is forecast
(tests/jobs/test_large_recipes.py), and what a step costs (LOG.md). In all, a crop is one of the central square, not of
the whole image, but larger than data.size; erased rectangles are filled with the mean; biases and norms have no weight
decay.

A step accumulates batches of 256 images at most, so that one GPU can train. With N workers, raise data.batch and lower
optimizer.accumulate, whose product is the published batch.
"""

from collections.abc import Callable
from typing import Any

from classifier.config.experiment import Experiment

# Random crops are taken from images that are a quarter larger, so that they are enlarged less.
CROP_SCALE = 1.25
# Where a set has no such splits, few of so many images suffice to follow the progress and to test.
_FROM_SCRATCH: dict[str, Any] = {
    "data.validation": 0.01,
    "data.test": 0.05,
    "train.keep": "last",
    "schedule.name": "cosine",
    "augment.policy": "photos",
    "augment.brightness": 0.0,
    "augment.contrast": 0.0,
    "augment.saturation": 0.0,
}
_IMAGENET: dict[str, Any] = _FROM_SCRATCH | {"data.size": 224, "augment.crop": 0.08}


def cifar() -> Experiment:
    """CIFAR-10, CIFAR-100 and their like: 50,000 images of 32 pixels. ResNet-18 without early downsampling.

    Published: 95.28 % on CIFAR-10 and 77.54 % on CIFAR-100, with cutout 96.01 and 78.04 % (T. DeVries, G. Taylor,
    "Improved regularization of convolutional neural networks with cutout", 2017; 5 runs each). Here the learning rate
    falls along a cosine, not in steps, and half of the images lose a random rectangle instead of a square.
    """
    return Experiment().override_all(
        _FROM_SCRATCH
        | {
            "model.name": "resnet18",
            "model.stem": "small",
            "data.batch": 128,
            "train.epochs": 200,
            "optimizer.name": "sgd",
            "optimizer.lr": 0.1,
            "optimizer.weight_decay": 5e-4,
            "schedule.warmup": 0.0,
            "augment.policy": "objects",
            "augment.shift": 0.125,
            "augment.erase": 0.5,
        }
    )


def imagenette() -> Experiment:
    """Imagenette and its like: 10,000 photographs of a few classes. ResNet-50, 80 epochs of growing images.

    Published, at 128 pixels: 93.55 % after 80 epochs and 94.24 % after 200 (github.com/fastai/imagenette, 2020; one run
    each), by an SE-ResNeXt-50 with self-attention, Ranger and MixUp. Here the network is plain, the images
    grow from 96 to 128 pixels, and the learning rate is a guess.
    """
    return Experiment().override_all(
        _FROM_SCRATCH
        | {
            "model.name": "timm/resnet50",
            "data.size": 128,
            "data.crop_scale": CROP_SCALE,
            "data.batch": 64,
            "data.validation": 0.05,
            "train.epochs": 80,
            "optimizer.lr": 1e-3,
            "optimizer.ema": 0.999,
            "schedule.warmup": 0.1,
            "schedule.size_from": 0.75,
            "loss.smoothing": 0.1,
            "augment.mixup": 0.2,
        }
    )


def imagenet_quick() -> Experiment:
    """ImageNet in 16 epochs: ResNet-50, images of 160 pixels that grow to 192, tested at 256.

    Published: 73.8 %, and 75.6, 77.2 and 78.4 % after 24, 40 and 88 epochs, which train.epochs sets (G. Leclerc et al.,
    "FFCV", 2023, and github.com/libffcv/ffcv-imagenet). Here the network has no BlurPool, and the images grow after
    half of the epochs, not three quarters.
    """
    return Experiment().override_all(
        _IMAGENET
        | {
            "model.name": "timm/resnet50",
            "data.size": 256,
            "data.batch": 256,
            "train.epochs": 16,
            "optimizer.name": "sgd",
            "optimizer.lr": 1.7,
            "optimizer.weight_decay": 1e-4,
            "optimizer.accumulate": 16,
            "schedule.name": "linear",
            "schedule.warmup": 0.125,
            "schedule.size_from": 0.625,
            "schedule.size_to": 0.75,
            "loss.smoothing": 0.1,
            "augment.test_flip": True,
        }
    )


def imagenet_resnet50() -> Experiment:
    """ImageNet: ResNet-50, 100 epochs of LAMB at 160 pixels, tested at 224.

    Published: 78.1 % (procedure A3 of R. Wightman et al., "ResNet strikes back", 2021); 78.3 % when repeated by
    mmpretrain. Here one operation of RandAugment is applied to each image, instead of two with a chance of a half.
    """
    return Experiment().override_all(
        _IMAGENET
        | {
            "model.name": "timm/resnet50",
            "data.batch": 256,
            "train.epochs": 100,
            "optimizer.name": "lamb",
            "optimizer.lr": 8e-3,
            "optimizer.weight_decay": 0.02,
            "optimizer.clip": 1.0,
            "optimizer.accumulate": 8,
            "schedule.warmup": 0.05,
            "schedule.size_from": 160 / 224,
            "schedule.size_to": 160 / 224,
            "loss.name": "bce",
            "augment.randaugment": 1,
            "augment.magnitude": 18,
            "augment.mixup": 0.1,
            "augment.cutmix": 1.0,
        }
    )


def imagenet_convnext() -> Experiment:
    """ImageNet: ConvNeXt-T, 300 epochs of AdamW with stochastic depth and a moving average of the weights.

    Published: 82.1 % (Z. Liu et al., "A ConvNet for the 2020s", 2022). Here one operation of RandAugment is applied to
    each image, instead of two with a chance of a half.
    """
    return Experiment().override_all(
        _IMAGENET
        | {
            "model.name": "timm/convnext_tiny",
            "model.drop_path": 0.1,
            "data.crop_scale": CROP_SCALE,
            "data.batch": 256,
            "train.epochs": 300,
            "optimizer.lr": 4e-3,
            "optimizer.weight_decay": 0.05,
            "optimizer.accumulate": 16,
            "optimizer.ema": 0.9999,
            "schedule.warmup": 20 / 300,
            "loss.smoothing": 0.1,
            "augment.randaugment": 1,
            "augment.magnitude": 27,
            "augment.erase": 0.25,
            "augment.mixup": 0.8,
            "augment.cutmix": 1.0,
        }
    )


def imagenet_vit() -> Experiment:
    """ImageNet: ViT-S/16, 90 epochs of AdamW with RandAugment and MixUp.

    Published: 76.5 %, and 80 % after 300 epochs (L. Beyer et al., "Better plain ViT baselines for ImageNet-1k", 2022).
    Here the network has a class token and learned positions, where theirs averages its patches and has fixed ones.
    """
    return Experiment().override_all(
        _IMAGENET
        | {
            "model.name": "timm/vit_small_patch16_224",
            "data.crop_scale": CROP_SCALE,
            "data.batch": 256,
            "train.epochs": 90,
            "optimizer.lr": 1e-3,
            "optimizer.weight_decay": 0.1,  # theirs is 1e-4 and not multiplied by the learning rate
            "optimizer.clip": 1.0,
            "optimizer.accumulate": 4,
            "schedule.warmup": 10_000 / (90 * 1251),
            "augment.crop": 0.05,
            "augment.randaugment": 2,
            "augment.magnitude": 30,
            "augment.mixup": 0.2,
        }
    )


def finetune_whole() -> Experiment:
    """Fine-tuning of a whole pretrained network for 10,000 images and more: ConvNeXt-T, layer-wise learning rate decay.

    After the settings of Z. Liu et al. (2022) for ImageNet, of which no figure for ConvNeXt-T from these weights was
    published: 30 epochs of AdamW, layer decay 0.8, no mixing of images, strong stochastic depth.
    """
    return Experiment().override_all(
        _IMAGENET
        | {
            "model.name": "timm/convnext_tiny",
            "model.weights": "imagenet",
            "model.drop_path": 0.1,
            "data.crop_scale": CROP_SCALE,
            "data.batch": 64,
            "train.epochs": 30,
            "optimizer.lr": 1e-4,
            "optimizer.weight_decay": 1e-8,
            "optimizer.layer_decay": 0.8,
            "schedule.warmup": 0.1,
            "loss.smoothing": 0.1,
            "augment.crop": 0.35,
        }
    )


LARGE_RECIPES: dict[str, Callable[[], Experiment]] = {
    "cifar": cifar,
    "imagenette": imagenette,
    "imagenet-quick": imagenet_quick,
    "imagenet-resnet50": imagenet_resnet50,
    "imagenet-convnext": imagenet_convnext,
    "imagenet-vit": imagenet_vit,
    "finetune-whole": finetune_whole,
}
