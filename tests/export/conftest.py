"""Small bundles to export: an untrained network with all that surrounds it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from classifier import models
from classifier.bundle import bundle
from classifier.bundle.bundle import Bundle
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset, Split
from classifier.export.folder import GateImages
from classifier.inference.out_of_distribution import fit_detector

CLASSES = ("ant", "bee", "cat")


def make_dataset(size: int, channels: int = 3, count: int = 50) -> Dataset:
    """Random images of waves, in three classes."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.linspace(0, 6, size)

    def make_split(name: str, count: int) -> Split:
        phase_NC1 = torch.rand((count, channels, 1), generator=generator) * 6
        waves_NCHW = (grid + phase_NC1).sin()[..., None, :] * (2 * grid + phase_NC1).cos()[..., None]
        noise_NCHW = torch.rand((count, channels, size, size), generator=generator)
        images_NCHW = (110 + 90 * waves_NCHW + 50 * noise_NCHW).clamp(0, 255).to(torch.uint8)
        labels_N = torch.arange(count) % len(CLASSES)
        return Split(images_NCHW, labels_N, tuple(f"{name}/{n}.png" for n in range(count)))

    return Dataset(
        name="waves",
        kind="photos",
        class_names=CLASSES,
        train=make_split("train", count),
        validation=make_split("validation", count),
        test=make_split("test", 0),
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        fit="crop",
        fingerprint="0123456789abcdef",
        findings=(),
        split_record={},
    )


def sharpen(model: nn.Module) -> None:
    """Give the head weights by which images get different answers, as some networks begin with zeros.

    Layer norms get those of a trained network: else the mean and deviation of their outputs are 0 and 1, for any image.
    """
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    for module in models.head_modules(model).values():
        for weight in module.parameters():
            if weight.ndim > 1:
                nn.init.normal_(weight, std=1 / weight[0].numel() ** 0.5)


def make_bundle(folder: Path, name: str, dataset: Dataset, *, calibration: Any = None, **settings: Any) -> Path:
    """Save an untrained model whose batch norms have seen the images, with its out-of-distribution detector."""
    resolved = {"data.size": dataset.size, "data.channels": dataset.channels, "train.precision": "fp32"}
    experiment = Experiment().override_all(resolved | {"model.name": name} | settings)
    torch.manual_seed(0)
    model = models.build(
        experiment.model, classes=len(CLASSES), channels=dataset.channels, size=dataset.size, weights=False
    )
    sharpen(model)
    about = Bundle.from_training(experiment, dataset, scores={}, epoch=1)
    images_NCHW = (dataset.train.images_NCHW[:16].float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        for _ in range(3):
            model.train()(images_NCHW)
    scorer = about.scorer(torch.device("cpu"))
    detector = fit_detector(model.eval(), scorer, dataset.train.images_NCHW, dataset.validation.images_NCHW)
    if calibration:
        about = Bundle(**{**vars(about), "calibration": calibration})
    bundle.save(about, model, folder, detector)
    return folder


@pytest.fixture(scope="session")
def waves() -> Dataset:
    """Images of 24 x 24 pixels."""
    return make_dataset(24)


@pytest.fixture(scope="session")
def gate(waves: Dataset) -> GateImages:
    return GateImages.select(waves)
