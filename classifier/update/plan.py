"""The trainings of an update: the model's own recipe, on the new images and those that are kept of the older ones."""

import dataclasses
import math
from pathlib import Path

from classifier.bundle.bundle import WEIGHTS, Bundle
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.update.document import UpdateDocument

# Share of the loss that is the earlier model's, and the temperature. 0.8 was worse by 2 points (LOG.md).
SHARE, TEMPERATURE = 0.5, 2.0
# Of the run's epochs; decay of the weights' average, if the run had none.
EPOCHS, EMA = 0.75, 0.95
# Though all classes are drawn equally often, those with more different images are said too often.
ADJUSTMENT = 0.25
# Of the image steps of the run's training, an update has at least one in so many.
MIN_SHARE = 4
# And so many optimizer steps at least: a new class begins at zero.
MIN_STEPS = 100


def plan_update(about: Bundle, config: DataConfig, original: Path, document: UpdateDocument, images: int) -> Experiment:
    """Return the experiment that goes on from the model: classes are drawn equally often, and its answers are replayed.

    It is the run's own, learning rate included: a third of it was no better (LOG.md), and weights are averaged. It has
    three quarters of the epochs, so that its time follows from the images; or more, if that were less than a quarter of
    the run's training, or very few steps. A linear probe is fitted again, without a teacher, as its features stay.
    config: of the composed data set; original: folder of the bundle, whose weights are begun with; images: training
    images.
    """
    experiment = _plan(about, config, images)
    if experiment.takes_steps:
        share = experiment.train.epochs * about.dataset["counts"]["train"] / (MIN_SHARE * images)
        steps = math.ceil(images / (experiment.data.batch * experiment.optimizer.accumulate))
        least = round(EPOCHS * document["run_epochs"]), round(share), math.ceil(MIN_STEPS / steps)
        epochs = document["epochs"] or max(least)
        ema = EMA if experiment.optimizer.ema is None else experiment.optimizer.ema
        changes = {"train.epochs": epochs, "optimizer.ema": ema, "data.balance": 1.0}
        changes |= {"loss.adjustment": ADJUSTMENT, "loss.class_weights": "none"}
        experiment = experiment.override_all(changes)
    if _is_file(about.model["weights"]):  # which may be gone, or belong to another machine
        experiment = experiment.override("model.weights", str(original / WEIGHTS))
    if not has_teacher(experiment):
        return experiment
    return experiment.override_all({"loss.distill": SHARE, "loss.distill_temperature": TEMPERATURE})


def has_teacher(experiment: Experiment) -> bool:
    """Whether the earlier model's answers are replayed: not where the backbone stays as it is."""
    return experiment.takes_steps and experiment.model.freeze != "backbone"


def plan_memory_alone(about: Bundle, config: DataConfig, *, steps: int, images: int) -> Experiment:
    """Return the experiment that trains on the memory alone, from the weights that the model began with (GDumb: A.
    Prabhu et al., "GDumb: a simple approach that questions our progress in continual learning", 2020).

    steps: image steps of the update, of which it has as many; images: training images.
    """
    experiment = _plan(about, config, images)
    epochs = max(1, round(steps / images)) if experiment.takes_steps else experiment.train.epochs
    return experiment.override("train.epochs", epochs)


def _plan(about: Bundle, config: DataConfig, images: int) -> Experiment:
    experiment = dataclasses.replace(Experiment.from_dict(about.experiment), data=config)
    keep = "last" if experiment.takes_steps else experiment.train.keep
    return experiment.override_all(
        {
            "data.batch": min(experiment.data.batch, images),
            "data.batch_auto": False,
            "augment.mixup": 0.0,  # an image of two classes is neither old nor new
            "augment.cutmix": 0.0,
            "loss.distill": 0.0,
            "train.keep": keep,
            "train.patience": None,
            "train.minutes": None,
            "train.compile": False,
            "train.int8": False,
            "train.track": (),
            "workers.count": 1,
        }
    )


def _is_file(weights: str | None) -> bool:
    return weights is not None and weights != "imagenet"
