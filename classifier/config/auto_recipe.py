"""The recipe `auto`: an experiment chosen from facts about data and machine, by rules that follow from LOG.md."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from classifier.config.backbones import BETTER, INSTALLED, Backbone
from classifier.config.experiment import Experiment
from classifier.config.large_recipes import CROP_SCALE
from classifier.config.recipes import fashion_quick, finetune, photos

Kind = Literal["probe", "scratch", "finetune"]
# train.minutes, where it is not set, and the shares of it that the epochs may take, and the comparison of backbones;
# loading, looking and scoring take the rest.
DEFAULT_MINUTES, EPOCHS_SHARE, BACKBONES_SHARE = 3.0, 0.7, 0.2
# Small images are no larger than this. From so many on they are enough for a network of their own, whatever a linear
# probe would score; with fewer than MIN_COMPARED a comparison says nothing.
MAX_SMALL_SIDE, ENOUGH_FROM_SCRATCH, MIN_COMPARED = 64, 10_000, 100
# A linear probe that scores this is not compared with a network from scratch: there is little to gain on small images,
# and photographs need many thousands.
GOOD_SMALL, GOOD_LARGE = 0.95, 0.85
# Of a gain that is more than luck, one-sided.
MIN_GAIN_ERRORS = 1.64
# Where the largest class has this many times the images of the smallest, logits are adjusted by half of the classes'
# shares: small classes are found more often (4 points of balanced accuracy), at little cost of accuracy (0.7).
UNEVEN, ADJUSTMENT = 20, 0.5
# So few validation images as below cannot calibrate, and would be missed in the training.
MIN_JUDGED = 30
# A probe that scores less leaves room for better backbones and for fine-tuning, of which so many validation images can
# tell the best epoch.
GOOD_ENOUGH, MIN_VALIDATION, MIN_FINETUNE_EPOCHS, MAX_FINETUNE_EPOCHS = 0.97, 100, 4, 10
# A search tells its trials apart by so many validation images, or this share: its winner is trained on them, too.
SEARCH_VALIDATION, MAX_SEARCH_SHARE = 100, 1 / 3
# The backbone sees small images enlarged, but not blurred beyond this factor, within these sides.
MAX_ENLARGEMENT, MIN_SIDE, MAX_SIDE, SIDE_STEP = 6, 96, 224, 32
MIN_EPOCHS, MAX_EPOCHS = 3, 150
# So many small unlabelled images, beside MIN_COMPARED labels, are enough for a network from scratch; of fewer labels a
# probe with label propagation makes more (LOG.md: 4 a class). An epoch passes all of the unlabelled images.
ENOUGH_UNLABELLED, MAX_SEMI_EPOCHS, MAX_SEMI_BATCH, SEMI_RATIO = 5_000, 8, 64, 3
MIN_BATCH, MAX_BATCH, STEPS_PER_EPOCH = 64, 256, 24
# Settings that a linear probe has no use for, with exceptions: who sets one wants steps.
_OF_STEPS = ("optimizer.", "augment.", "schedule.", "loss.", "semi.", "train.epochs", "train.patience", "model.freeze")
_OF_PROBES = {"loss.adjustment"}


@dataclass(frozen=True)
class Facts:
    """What is known of a data set before it is trained on, and of the machine: what is measured is None at first."""

    images: int
    """For training, about: after a part is set aside for validation and test."""
    classes: int
    side: int
    """Median of the shorter sides of the images, in pixels."""
    is_symbols: bool = False
    """Letters, digits or other signs, which mirrored are others or none: by the names of the classes, or measured."""
    validation: int = 0
    """Images for validation, about."""
    unlabelled: int = 0
    """Images without labels to learn from."""
    columns: int = 0
    """Columns that join each image."""
    imbalance: float = 1.0
    """Training images of the largest class, for each of the smallest."""
    backbone: Backbone = INSTALLED
    """Of the linear probe."""
    probe_accuracy: float | None = None
    """Of the linear probe, by cross-validation."""
    probe_held_out: int = 0
    """On how many images."""
    scratch_gain: float | None = None
    """What a shortened training from scratch adds to the probe's accuracy, on the same images held out."""
    scratch_gain_error: float = 0.0
    """Its standard error."""
    scratch_speed: float | None = None
    """Training images per second of the network from scratch."""
    finetune_speed: float | None = None
    """Training images per second of the whole backbone."""


@dataclass(frozen=True)
class Choice:
    """An experiment, and why it was chosen."""

    kind: Kind
    experiment: Experiment
    base: Experiment
    """The same as a training in steps, of which a linear probe has none: to search around, with enough images to tell
    trials apart, or to interrupt."""
    reason: str
    more: str = ""
    """What more time would bring, if anything."""

    @property
    def lines(self) -> list[str]:
        """What the user is told."""
        return [self.reason, *filter(None, [self.more])]


def minutes_of(given: Mapping[str, Any]) -> float:
    """Return the budget in minutes."""
    return float(given.get("train.minutes") or DEFAULT_MINUTES)


def list_candidates(facts: Facts, given: Mapping[str, Any]) -> tuple[Kind, ...]:
    """Return the kinds of experiment that these facts and the settings that the user gave leave open."""
    has_weights = given.get("model.weights") is not None
    if not has_weights and ("model.name" in given or "model.weights" in given):
        return ("scratch",)
    is_small = facts.side <= MAX_SMALL_SIDE
    if given.get("data.stream") or any(name.startswith(_OF_STEPS) for name in given.keys() - _OF_PROBES):
        return ("scratch",) if is_small and not has_weights else ("finetune",)
    if has_weights or "model.probe" in given:
        return ("probe",)
    if facts.unlabelled:  # a comparison would take longer than the training
        is_enough = facts.unlabelled >= ENOUGH_UNLABELLED and facts.images >= MIN_COMPARED
        return ("scratch",) if is_small and is_enough else ("probe",)
    if is_small and facts.images >= ENOUGH_FROM_SCRATCH:
        return ("scratch",)
    return ("probe",) if facts.images < MIN_COMPARED else ("probe", "scratch")


def is_open(facts: Facts) -> bool:
    """Whether a probe with this score leaves room for a network from scratch."""
    good = GOOD_SMALL if facts.side <= MAX_SMALL_SIDE else GOOD_LARGE
    return facts.probe_accuracy is not None and facts.probe_accuracy < good


def is_better_from_scratch(facts: Facts) -> bool:
    """Whether the training from scratch did better than the probe by more than luck: 1 in 20, as errors are normal."""
    return facts.scratch_gain is not None and facts.scratch_gain > MIN_GAIN_ERRORS * facts.scratch_gain_error


def list_better_backbones(facts: Facts, given: Mapping[str, Any]) -> tuple[Backbone, ...]:
    """Return the backbones to compare with the installed one: none, if its probe leaves little room."""
    is_given = "model.name" in given or "model.weights" in given
    if is_given or facts.images < MIN_COMPARED or not _leaves_room(facts):
        return ()
    return tuple(one for one in BETTER if (given.get("data.size") or 0) % one.multiple == 0)


def choose_backbone(probes: Sequence[Facts]) -> Facts:
    """Return the facts of the first backbone whose probe is within one standard error of the best.

    Given the simplest backbone first, this is the rule of Breiman et al., "Classification and Regression Trees", 1984.
    """
    best = max(probes, key=lambda one: one.probe_accuracy or 0.0)
    accuracy = best.probe_accuracy or 0.0
    enough = accuracy - _standard_error(accuracy, best.probe_held_out)
    return next(one for one in probes if (one.probe_accuracy or 0.0) >= enough)


def _standard_error(accuracy: float, images: int) -> float:
    return math.sqrt(accuracy * (1 - accuracy) / max(1, images))


def _leaves_room(facts: Facts) -> bool:
    return facts.probe_accuracy is not None and facts.probe_accuracy < GOOD_ENOUGH


def can_finetune(facts: Facts) -> bool:
    """Whether a probe with this score leaves room for fine-tuning, and there are images to tell.

    Only of the installed backbone, and on labelled images alone: others would need other settings, which were not
    tried.
    """
    is_enough = facts.validation >= MIN_VALIDATION and not facts.unlabelled
    return _leaves_room(facts) and is_enough and facts.backbone == INSTALLED


def choose_recipe(facts: Facts, given: Mapping[str, Any] | None = None) -> Choice:
    """Choose an experiment for a data set: a pure function, so that equal facts give equal experiments.

    given: settings by dotted name that the user gave. They decide which kinds of experiment are left, but are not in
    the experiment that is returned.
    """
    given = given or {}
    minutes = minutes_of(given)
    kinds = list_candidates(facts, given)
    beside = f" beside {facts.unlabelled:,} without labels" if facts.unlabelled else ""
    joined = f", joined by {facts.columns} column{'' if facts.columns == 1 else 's'}" if facts.columns else ""
    about = f"{facts.images:,} images of {facts.classes} classes{beside}, {facts.side} pixels{joined}"
    if kinds[0] == "scratch" or ("scratch" in kinds and is_better_from_scratch(facts)):
        experiment = build_scratch(facts, given)
        reason = f"recipe auto: {about}: {given.get('model.name', experiment.model.name)} from scratch"
        reason += ", images not mirrored" if facts.is_symbols else ""
        more = _more_epochs(facts, experiment, minutes)
        return Choice("scratch", experiment, hold_out(experiment, facts), reason, more)
    steps, name = build_finetune(facts), given.get("model.name", facts.backbone.name)
    if kinds[0] == "finetune":
        if given.get("data.stream"):
            steps = steps.override_all({"model.freeze": "none", "augment.views": 0, "optimizer.lr": 1e-3})
        what = "fine-tuning" if steps.model.freeze == "none" else "a new head for"
        reason = f"recipe auto: {about}: {what} {name} at {steps.data.size} pixels"
        return Choice("finetune", steps, hold_out(steps, facts), reason)
    experiment, more = build_probe(facts, given), ""
    then = f", then {experiment.train.epochs - 1} epochs of fine-tuning" if experiment.train.epochs > 1 else ""
    if can_finetune(facts) and facts.finetune_speed and not then:
        needed = MIN_FINETUNE_EPOCHS * facts.images / facts.finetune_speed / 60 / EPOCHS_SHARE
        more = f"with more time the whole network is fine-tuned: --train.minutes {math.ceil(needed)}"
    even = ", small classes adjusted for" if experiment.loss.adjustment else ""
    reason = f"recipe auto: {about}: a linear probe of {name} at {experiment.data.size} pixels{even}{then}"
    return Choice("probe", experiment, hold_out(steps, facts), reason, more)


def build_scratch(facts: Facts, given: Mapping[str, Any] | None = None) -> Experiment:
    """Return a training from scratch, in as many epochs as the minutes hold at facts.scratch_speed, if it is known.

    A small network, by the recipe fashion-quick, for which images larger than MAX_SMALL_SIDE are made smaller; one that
    the user named by the recipe photos.
    """
    given = given or {}
    if facts.unlabelled:
        return _build_semi(facts, given)
    fitting = _fitting_epochs(facts.images, facts.scratch_speed, minutes_of(given))
    if "model.name" in given:
        base = photos()
        epochs = min(base.train.epochs, max(MIN_EPOCHS, fitting))
        return base.override_all(
            {
                "data.batch": min(base.data.batch, power_of_two(facts.images)),
                "train.epochs": epochs,
                "augment.test_flip": not facts.is_symbols,
                "augment.policy": "symbols" if facts.is_symbols else "auto",
            }
        )
    changes: dict[str, Any] = {
        "data.batch": min(power_of_two(facts.images), max(MIN_BATCH, power_of_two(facts.images // STEPS_PER_EPOCH))),
        "train.epochs": min(MAX_EPOCHS, max(MIN_EPOCHS, fitting)),
        "train.keep": "last",
        "augment.test_flip": not facts.is_symbols,
        "augment.policy": "symbols" if facts.is_symbols else "auto",
    }
    if facts.columns:  # whose values have no bounds
        changes["optimizer.clip"] = 1.0
    if facts.side > MAX_SMALL_SIDE:
        changes |= {"data.size": MAX_SMALL_SIDE, "data.crop_scale": CROP_SCALE}
    return fashion_quick().override_all(changes)


def _build_semi(facts: Facts, given: Mapping[str, Any]) -> Experiment:
    """Return a training from scratch with unlabelled images (LOG.md: Fashion-MNIST with 4 and 40 labels a class).

    The speed is that of labelled images in steps that also pass unlabelled ones, semi.ratio for each.
    """
    passed = max(1, facts.unlabelled // SEMI_RATIO)
    fitting = _fitting_epochs(passed, facts.scratch_speed, minutes_of(given))
    changes: dict[str, Any] = {
        "data.batch": min(MAX_SEMI_BATCH, power_of_two(facts.images)),
        "train.epochs": min(MAX_SEMI_EPOCHS, max(MIN_EPOCHS, fitting)),
        "train.keep": "last",  # few validation images could not tell the best epoch
        "optimizer.lr": 0.02,
        "optimizer.ema": 0.99,
        "semi.ratio": SEMI_RATIO,
        "semi.start": 0.4,
        "schedule.warmup": 0.05,
        "augment.shift": 0.08,
        "augment.erase": 0.25,
        "augment.test_flip": not facts.is_symbols,
        "augment.policy": "symbols" if facts.is_symbols else "auto",
    }
    if facts.validation < MIN_JUDGED:
        changes["data.validation"] = 0.0
    if facts.side > MAX_SMALL_SIDE:
        changes |= {"data.size": MAX_SMALL_SIDE, "data.crop_scale": CROP_SCALE}
    return fashion_quick().override_all(changes)


def build_probe(facts: Facts, given: Mapping[str, Any] | None = None) -> Experiment:
    """Return a linear probe, and fine-tuning from there if that may help and the minutes hold it."""
    changes: dict[str, Any] = {
        "model.name": facts.backbone.name,
        "model.weights": "imagenet",
        "model.probe": True,
        "data.size": probe_side(facts.side, facts.backbone.multiple),
        "data.batch": min(16, power_of_two(facts.images // 2)),
        "search.longer": False,
    }
    if facts.imbalance >= UNEVEN:
        changes["loss.adjustment"] = ADJUSTMENT
    if facts.validation < MIN_JUDGED:  # too few to judge by: all train, and are judged by folds
        changes |= {"data.validation": 0.0, "train.keep": "last"}
    epochs = _fitting_epochs(facts.images, facts.finetune_speed, minutes_of(given or {}))
    if can_finetune(facts) and facts.finetune_speed is not None and epochs >= MIN_FINETUNE_EPOCHS:
        return Experiment().override_all(
            changes
            | {
                "train.epochs": 1 + min(MAX_FINETUNE_EPOCHS, epochs),
                "model.freeze": "statistics",
                "data.crop_scale": CROP_SCALE,
                "data.batch": min(64, power_of_two(facts.images // STEPS_PER_EPOCH)),
                "optimizer.lr": 1e-3,
                "schedule.name": "cosine",
                "loss.smoothing": 0.1,
            }
        )
    return Experiment().override_all(changes | {"model.freeze": "backbone", "train.epochs": 1})


def build_finetune(facts: Facts) -> Experiment:
    """Return the recipe `finetune` of the backbone, for images of this size."""
    return finetune().override_all(
        {
            "model.name": facts.backbone.name,
            "data.size": probe_side(facts.side, facts.backbone.multiple),
            "data.batch": min(16, power_of_two(facts.images // 2)),
            "augment.test_flip": not facts.is_symbols,
            "augment.policy": "symbols" if facts.is_symbols else "auto",
            **({"augment.views": 0} if facts.unlabelled else {}),  # which are augmented anew in each step
        }
    )


def hold_out(experiment: Experiment, facts: Facts) -> Experiment:
    """Return the experiment with enough validation images for a search, where the images have no split of their own."""
    images = facts.images + facts.validation
    share = max(experiment.data.validation, min(MAX_SEARCH_SHARE, SEARCH_VALIDATION / images))
    batch = min(experiment.data.batch, power_of_two(max(1, int((1 - share) * images))))
    return experiment.override_all({"data.validation": round(share, 3), "data.batch": batch})


def probe_side(side: int, multiple: int = SIDE_STEP) -> int:
    """Return the side of the backbone's input for images of this side, in pixels, near enough to a multiple."""
    enlarged = SIDE_STEP * -(-side * MAX_ENLARGEMENT // SIDE_STEP)
    return multiple * round(min(MAX_SIDE, max(MIN_SIDE, enlarged)) / multiple)


def power_of_two(count: int) -> int:
    """Return the largest power of two up to count, as a batch size."""
    return min(MAX_BATCH, 2 ** max(0, count.bit_length() - 1))


def _fitting_epochs(images: int, speed: float | None, minutes: float) -> int:
    """Return how many epochs the minutes hold; any number, if the speed is not known."""
    return int(min(1e6, math.inf if speed is None else EPOCHS_SHARE * 60 * minutes * speed / images))


def _more_epochs(facts: Facts, experiment: Experiment, minutes: float) -> str:
    epochs = experiment.train.epochs
    most = MAX_SEMI_EPOCHS if facts.unlabelled else MAX_EPOCHS
    if facts.scratch_speed is None or epochs >= min(most, MAX_EPOCHS // 5):
        return ""
    return f"more time trains longer: --train.minutes {4 * minutes:g} for about {min(most, 4 * epochs)} epochs"
