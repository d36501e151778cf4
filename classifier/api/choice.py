"""Choose the recipe `auto` for a data set: measure what its rules ask for, and no more."""

import dataclasses
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classifier import data, models
from classifier.config.auto_recipe import (
    BACKBONES_SHARE,
    DEFAULT_MINUTES,
    MIN_COMPARED,
    MIN_GAIN_ERRORS,
    Choice,
    Facts,
    build_probe,
    build_scratch,
    can_finetune,
    choose_backbone,
    choose_recipe,
    is_open,
    list_better_backbones,
    list_candidates,
    minutes_of,
)
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset, Split
from classifier.data.facts import measure_facts
from classifier.data.readers.compact import select_strings
from classifier.errors import DivergedError, ModelError
from classifier.inference.features import extract_features
from classifier.inference.logistic_regression import FOLDS, assign_folds, find_held_out
from classifier.inference.scorer import Scorer, find_hits, gather_targets
from classifier.models import hub
from classifier.profiling.step_time import StepTimer
from classifier.report.numbers import format_proportion
from classifier.runtime.distributed import ProcessGroup, pick_device
from classifier.training import head_probe
from classifier.training.loop import fit
from classifier.training.resolve import resolve
from classifier.training.state import TrainState

if TYPE_CHECKING:
    from classifier.data.image_decoder import Progress

# Of a look: training images of LOOK_SIDE pixels that the network from scratch may pass.
LOOK_PASSES, LOOK_SIDE, MIN_LOOK_EPOCHS = 40_000, 28, 5
# How long the hub may take to answer, and how many images are enough to time a forward pass.
HUB_SECONDS, TIMED_IMAGES = 2.5, 8
# How long training steps are timed: work that ends beside the first ones would make all look slow.
SPEED_SECONDS = 2.0
# Settings of whoever decides whether images are mirrored.
_MIRRORS = {"augment.policy", "augment.flip", "augment.test_flip"}


def choose(
    given: dict[str, Any],
    *,
    base: Experiment | None = None,
    features: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
    progress: "Progress | None" = None,
) -> Choice:
    """Choose an experiment for the data set at data.path of `given`, the settings that the user gave.

    base: what they change; only its data settings matter. features: folder for the features of the backbone, of which
    the training that follows makes use. say: is told in a line what each measurement brought. DataError or ModelError
    if the data cannot be trained on, or the backbone not be built.
    """
    chooser = _Chooser(given, base or Experiment(), features, say, progress)
    facts = measure_facts(chooser.base.override_all(given).data)
    kinds = list_candidates(facts, given)
    if kinds[0] == "scratch":
        facts = chooser.measure_scratch_speed(facts)
    elif kinds[0] == "probe" and facts.images >= MIN_COMPARED:
        facts = chooser.compare_backbones(chooser.measure_probe(facts))
        if "scratch" in kinds and is_open(facts):
            facts = chooser.measure_scratch(facts)
        choice = choose_recipe(facts, given)
        if choice.kind == "scratch":
            facts = chooser.measure_scratch_speed(facts)
        elif can_finetune(facts):
            facts = chooser.measure_finetune_speed(facts)
    return choose_recipe(facts, given)


@dataclasses.dataclass
class _Look:
    """A shortened training from scratch."""

    epochs: int
    hits: dict[str, bool] = dataclasses.field(default_factory=dict)
    """Whether it was right about each image that was held out."""


@dataclasses.dataclass
class _Chooser:
    """Measures candidates on the data set."""

    given: dict[str, Any]
    base: Experiment
    features: Path | None
    say: Callable[[str], None]
    progress: "Progress | None"
    probe_hits: dict[str, dict[str, bool]] = dataclasses.field(default_factory=dict)
    """By backbone and image: whether its probe was right about the image, in the fold that held it out."""

    @property
    def minutes(self) -> float:
        """Of which measurements take their shares; of a search, a third of a training's."""
        return min(minutes_of(self.given), float(self.given.get("search.minutes") or math.inf) / 3)

    def measure_probe(self, facts: Facts) -> Facts:
        """The facts with the cross-validated accuracy of a linear probe, and exact numbers of images."""
        experiment, dataset = self._load(build_probe(facts, self.given))
        facts = dataclasses.replace(facts, images=len(dataset.train), validation=len(dataset.validation))
        state = TrainState(experiment, dataset, ProcessGroup(device=pick_device(experiment.train.device)))
        probe = head_probe.fit_head(state.model, experiment, dataset, state.scorer, folder=self.features)
        if probe.held_out is None:
            return facts
        is_hit_M = probe.held_out.hits
        count, name, side = len(is_hit_M), experiment.model.name, experiment.data.size
        score = format_proportion(int(is_hit_M.sum()), count)
        ids = select_strings(dataset.train.ids, find_held_out(dataset.strata, dataset.train.units_N).tolist())
        self.probe_hits[facts.backbone.name] = dict(zip(ids, is_hit_M.tolist(), strict=True))
        what = "" if dataset.label_sets_MK is None else ", all labels right"
        joined = "" if dataset.columns is None else " with the columns"
        self.say(f"  a linear probe of {name} at {side} pixels{joined}: {score}{what}, cross-validated")
        return dataclasses.replace(facts, probe_accuracy=probe.held_out.accuracy, probe_held_out=count)

    def compare_backbones(self, facts: Facts) -> Facts:
        """The facts of the best backbone of those at hand, or in reach, that a share of the minutes holds.

        Backbones are tried the fastest first, until one takes too long, or does so well that the others would hardly do
        better. The hub is asked once whether it is there.
        """
        probes, is_in_reach = [facts], None
        end = time.monotonic() + BACKBONES_SHARE * 60 * self.minutes
        for backbone in list_better_backbones(facts, self.given):
            tried = dataclasses.replace(facts, backbone=backbone, probe_accuracy=None)
            is_at_hand = hub.find_hub_weights(backbone.name) is not None
            if not is_at_hand and is_in_reach is None:
                is_in_reach = self._reach_hub(backbone.name)
            if not is_at_hand and not is_in_reach:
                continue
            experiment, dataset = self._load(build_probe(tried, self.given))
            images = head_probe.count_images(dataset) + head_probe.count_unlabelled(dataset)
            seconds = images * _measure_image_seconds(experiment, dataset)
            left = end - time.monotonic() - seconds
            if left < 0:
                break
            if not is_at_hand and hub.download_hub_weights(backbone.name, left) is None:
                self.say(f"  no better backbone: {backbone.name} was not downloaded within {left:.0f} s")
                is_in_reach = False
                continue
            try:
                probes.append(self.measure_probe(tried))
            except ModelError as error:  # a damaged file
                self.say(f"  {backbone.name} is left out: {error}")
                continue
            if not list_better_backbones(probes[-1], self.given):
                break
        return choose_backbone(probes)

    def _reach_hub(self, name: str) -> bool:
        if hub.is_offline():  # as the user wants it
            return False
        is_in_reach = hub.is_in_reach(name, HUB_SECONDS)
        if not is_in_reach:
            self.say("  no better backbone: the Hugging Face hub cannot be reached")
        return is_in_reach

    def measure_scratch(self, facts: Facts) -> Facts:
        """The facts with what a shortened training from scratch gains over the probe, on images that both held out.

        Once with mirrored images and once without: which is better tells whether they may be mirrored. A pretrained
        backbone cannot tell, as it was trained to know mirrored images again.
        """
        tried = (
            [facts]
            if facts.is_symbols or self.given.keys() & _MIRRORS
            else [facts, dataclasses.replace(facts, is_symbols=True)]
        )
        looks = [self._look(one) for one in tried]
        best = max(range(len(tried)), key=lambda n: (sum(looks[n].hits.values()), -n))
        facts, look = tried[best], looks[best]
        probe_hits, count = self.probe_hits[facts.backbone.name], len(look.hits)
        gains = [is_hit - probe_hits[id] for id, is_hit in look.hits.items()]
        score, others = sum(look.hits.values()), sum(probe_hits[id] for id in look.hits)
        how = " without mirrored images" if facts.is_symbols else ""
        self.say(
            f"  from scratch{how}, {look.epochs} epochs: {format_proportion(score, count)} that were held out, and "
            f"{others / count:.1%} by the probe"
        )
        # Over the probe on these images, and over the probe on all: the less certain gain counts, as few images
        # may be easy for one, and hard for the other.
        share = score / count
        paired = statistics.mean(gains), statistics.pstdev(gains) / math.sqrt(count)
        overall = share - (facts.probe_accuracy or 0.0), math.sqrt(share * (1 - share) / count)
        gain, error = min(paired, overall, key=lambda one: one[0] - MIN_GAIN_ERRORS * one[1])
        return dataclasses.replace(facts, scratch_gain=gain, scratch_gain_error=error)

    def _look(self, facts: Facts) -> "_Look":
        """Train from scratch, shortened, on four fifths of the probe's training images, perhaps several times."""
        share = build_probe(facts, self.given).data.validation  # so that the training images are the probe's
        scratch = build_scratch(facts, self.given).override("data.validation", share)
        experiment, dataset = self._load(scratch)
        images = len(dataset.train) * (FOLDS - 1) // FOLDS
        passes = LOOK_PASSES * min(1, self.minutes / DEFAULT_MINUTES) * (LOOK_SIDE / max(LOOK_SIDE, dataset.size)) ** 2
        epochs = max(MIN_LOOK_EPOCHS, min(experiment.train.epochs, int(passes / images)))
        folds = min(FOLDS, max(1, int(passes / images / epochs)))
        look = _Look(epochs)
        for fold in range(folds):
            held_out = _hold_out(dataset, assign_folds(dataset.strata, FOLDS, dataset.train.units_N) == fold)
            try:
                *_, last = fit(experiment.override("train.epochs", epochs), held_out)
            except DivergedError:  # no reason to give up: the probe remains
                look.hits |= dict.fromkeys(held_out.validation.ids, False)
                continue
            scorer = Scorer.from_experiment(experiment, held_out, pick_device(experiment.train.device))
            judged, label_sets_MK = held_out.validation, dataset.label_sets_MK
            probabilities_MK = scorer.predict_split(last.model, judged, label_sets_MK)[1]
            is_hit_M = find_hits(probabilities_MK.logit(), gather_targets(judged.labels_N, label_sets_MK))
            look.hits |= dict(zip(judged.ids, is_hit_M.tolist(), strict=True))
        return look

    def measure_scratch_speed(self, facts: Facts) -> Facts:
        """The facts with the speed of training from scratch."""
        experiment, dataset = self._load(build_scratch(facts, self.given))
        return dataclasses.replace(facts, images=len(dataset.train), scratch_speed=_measure_speed(experiment, dataset))

    def measure_finetune_speed(self, facts: Facts) -> Facts:
        """The facts with the speed of fine-tuning the whole backbone."""
        whole = build_probe(dataclasses.replace(facts, finetune_speed=float("inf")), self.given)
        return dataclasses.replace(facts, finetune_speed=_measure_speed(*self._load(whole)))

    def _load(self, experiment: Experiment) -> tuple[Experiment, Dataset]:
        changed = experiment.override_all(self.given)
        dataset = data.load(changed.data, self.progress)
        return resolve(changed, dataset), dataset


def _measure_speed(experiment: Experiment, dataset: Dataset) -> float:
    """Return training images per second."""
    threads = torch.get_num_threads()
    torch.set_num_threads(experiment.train.threads or threads)
    try:
        timed = experiment.override("model.probe", False)  # its first epoch takes no steps
        seconds = StepTimer(timed, dataset).measure(3, min, min_seconds=SPEED_SECONDS).step_seconds
        return timed.data.batch * timed.optimizer.accumulate / seconds
    finally:
        torch.set_num_threads(threads)


def _measure_image_seconds(experiment: Experiment, dataset: Dataset) -> float:
    """Return seconds per image of the backbone's forward pass; its weights are not needed for that."""
    scorer = Scorer.from_experiment(experiment, dataset, pick_device(experiment.train.device))
    model = models.build(
        experiment.model,
        classes=len(dataset.class_names),
        channels=dataset.channels,
        size=dataset.size,
        weights=False,
    )
    model = scorer.prepare_model(model)
    images_NCHW, seconds = dataset.train.images_NCHW[:TIMED_IMAGES], list[float]()
    for _ in range(3):  # the first also loads kernels
        started = time.perf_counter()
        extract_features(model, scorer, images_NCHW)
        seconds.append(time.perf_counter() - started)
    return min(seconds) / len(images_NCHW)


def _hold_out(dataset: Dataset, is_held_N: torch.Tensor) -> Dataset:
    """Return the data set with these training images to validate on, and not to train on."""

    def take(mask_N: torch.Tensor) -> Split:
        (index,) = torch.nonzero(mask_N, as_tuple=True)
        return dataset.train.take(index)

    return dataclasses.replace(dataset, train=take(~is_held_N), validation=take(is_held_N))
