"""What computes the features of unlabelled images: a bundle's model, or a pretrained backbone to begin from nothing."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from classifier import models
from classifier.bundle import document
from classifier.bundle.predictor import Predictor
from classifier.config.auto_recipe import probe_side
from classifier.config.backbones import INSTALLED
from classifier.config.sections import DataConfig, ModelConfig, Task
from classifier.data.decoding.image_spec import ImageSpec
from classifier.inference.scorer import Scorer
from classifier.models.transfer import pretrained_statistics
from classifier.runtime.distributed import pick_device
from classifier.storage.atomic import file_sha256
from classifier.training.resolve import choose_precision


@dataclass(frozen=True, eq=False)
class Backbone:
    """A network with its preprocessing. class_names: of a bundle, whose answers count; without one, none."""

    model: nn.Module
    scorer: Scorer
    spec: ImageSpec
    identity: str
    """Changes with the weights and the preprocessing, so that features are computed again."""
    description: str
    class_names: tuple[str, ...] = ()
    task: Task | None = None
    training_images: int = 0
    """With which the bundle was trained."""


def open_bundle(path: str, config: DataConfig, device: str) -> Backbone:
    """Open the model of a run or bundle. Errors as of Predictor."""
    predictor = Predictor(path, device=device, max_pixels=config.max_pixels)
    scorer, about = predictor.scorer, predictor.bundle
    return Backbone(
        model=scorer.prepare_model(predictor.model),
        scorer=scorer,
        spec=predictor.spec,
        identity=file_sha256(document.find(Path(path)) / document.WEIGHTS),
        description=f"the model of {path}",
        class_names=predictor.class_names,
        task=about.task,
        training_images=int(about.dataset.get("counts", {}).get("train", 0)),
    )


def open_pretrained(side: int, config: DataConfig, device: str) -> Backbone:
    """Open the backbone whose weights are installed, for images whose shorter side is about `side` pixels.

    ModelError if the weights are neither installed nor can be had.
    """
    size, settings = probe_side(side), ModelConfig(name=INSTALLED.name, weights="imagenet")
    model = models.build(settings, classes=2, channels=3, size=size)
    mean, std = pretrained_statistics(settings, 3) or ((0.5,) * 3, (0.5,) * 3)
    own_device = pick_device(device)
    scorer = Scorer(
        class_names=("", ""),
        size=size,
        mean=mean,
        std=std,
        device=own_device,
        precision=choose_precision("auto", own_device),
    )
    spec = ImageSpec(size, 3, config.fit, config.max_pixels)
    name = f"{INSTALLED.name} at {size} pixels"
    return Backbone(scorer.prepare_model(model), scorer, spec, name, f"{name}, pretrained on ImageNet")
