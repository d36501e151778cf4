"""The recipe `auto`: an experiment chosen from facts about the data, by rules that follow from the sets in LOG.md."""

from dataclasses import dataclass

from classifier.config.experiment import Experiment
from classifier.config.recipes import fashion_quick

AUTO = "auto"
# The backbone whose weights are installed with this package.
BACKBONE = "timm/tf_efficientnet_lite0"
# Small images are no larger than this, and enough for a network of their own from this many on: between the sets of 186
# to 575 images, where the probe is as good or better, and those of 1,376 and more, where it is not.
MAX_SMALL_SIDE, MIN_IMAGES_FROM_SCRATCH = 64, 1000
# The backbone sees small images enlarged, but not blurred beyond this factor, within these sides.
MAX_ENLARGEMENT, MIN_SIDE, MAX_SIDE, SIDE_STEP = 6, 96, 224, 32
# Passes of images of 28 x 28 pixels through plain7_32: about two minutes on two cores, by the time of fashion-quick.
PASSES, PASS_SIDE = 280_000, 28
MIN_EPOCHS, MAX_EPOCHS = 5, 100
MAX_BATCH, STEPS_PER_EPOCH = 256, 24


@dataclass(frozen=True)
class Facts:
    """What a data set is, before its images are decoded."""

    images: int
    """For training, about: after a part is set aside for validation and test."""
    classes: int
    side: int
    """Median of the shorter sides of the images, in pixels."""
    is_symbols: bool = False
    """Letters or digits, which mirrored are others or none."""


@dataclass(frozen=True)
class Choice:
    """An experiment, and why it was chosen, in a sentence."""

    experiment: Experiment
    reason: str


def choose_recipe(facts: Facts) -> Choice:
    """Choose an experiment for a data set: a pure function, so that equal facts give equal experiments.

    Small images that are many train a small network from scratch. All others get a linear probe of a pretrained
    backbone: what a classifier learns from few images is in its head.
    """
    about = f"{facts.images:,} images of {facts.classes} classes, {facts.side} pixels"
    if facts.side <= MAX_SMALL_SIDE and facts.images >= MIN_IMAGES_FROM_SCRATCH:
        experiment = _from_scratch(facts)
        model, epochs = experiment.model.name, experiment.train.epochs
        return Choice(experiment, f"recipe auto: {about}: {model} from scratch for {epochs} epochs")
    experiment = _probe(facts)
    return Choice(experiment, f"recipe auto: {about}: a linear probe of {BACKBONE} at {experiment.data.size} pixels")


def _from_scratch(facts: Facts) -> Experiment:
    batch = _power_of_two(facts.images // STEPS_PER_EPOCH)
    epochs = round(PASSES * (PASS_SIDE / max(facts.side, PASS_SIDE)) ** 2 / facts.images)
    return fashion_quick().override_all(
        {
            "data.batch": batch,
            "train.epochs": min(MAX_EPOCHS, max(MIN_EPOCHS, epochs)),
            "train.keep": "last",
            "augment.test_flip": not facts.is_symbols,
        }
    )


def _probe(facts: Facts) -> Experiment:
    side = SIDE_STEP * -(-facts.side * MAX_ENLARGEMENT // SIDE_STEP)
    return Experiment().override_all(
        {
            "model.name": BACKBONE,
            "model.weights": "imagenet",
            "model.probe": True,
            "model.freeze": "backbone",
            "data.size": min(MAX_SIDE, max(MIN_SIDE, side)),
            "data.batch": min(16, _power_of_two(facts.images // 2)),
            "train.epochs": 1,
            "search.longer": False,
        }
    )


def _power_of_two(count: int) -> int:
    """Return the largest power of two up to count, as a batch size."""
    return min(MAX_BATCH, 2 ** max(0, count.bit_length() - 1))
