"""A cost model of a search: how long its trials take, and how long what follows them.

Estimated from the step time before the first trial, and again from the epoch times of the trials.
"""

import math
from dataclasses import dataclass

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.data.loader import steps_per_epoch
from classifier.evaluation.hard_examples import IMAGES_SHOWN
from classifier.inference.out_of_distribution import MAX_IMAGES
from classifier.profiling.step_time import StepTime
from classifier.training.semi.consistency import count_repeats

# Factor on an epoch's training and validation time for checkpoints and everything else.
CHECKPOINT_FACTOR = 1.05
# Seconds to stop the running trials, and to save the model, the results and the report, without their predictions.
STOP_TRIALS_SECONDS, SAVE_SECONDS = 3.0, 4.0
# Seconds until the refit makes its first step: in this process, or in workers that must be started.
LOCAL_REFIT_START_SECONDS, REMOTE_REFIT_START_SECONDS = 3.0, 20.0
# Factor on the measured time per image of a frozen backbone, for loading it and drawing maps at the end of a search.
BACKBONE_FACTOR = 1.25
# A refit with less than this share of the winner's steps would lose more than the validation images add.
MIN_STEP_SHARE = 0.75
# The refit may take this share of search.minutes.
MAX_REFIT_SHARE = 0.5
# Cost of a hard example's map (forward and backward) and features, in predictions.
PREDICTIONS_PER_MAP = 4


@dataclass(frozen=True)
class ConclusionEstimate:
    """What follows a search's trials: the calibration, the test, the reports and, with search.final, the refit.

    Costs that scale with the model are in trial epochs (of training steps, without validation), because the winner and
    the speed of the machine are known only later: total_seconds takes the measured seconds per epoch.
    """

    epoch_seconds: float
    """Seconds per trial epoch on an otherwise idle machine, measured before the first trial; 0 if not measured."""
    prediction_epochs: float
    """Cost of the predictions for calibration, test and report, in trial epochs."""
    refit_epoch_factor: float
    """Cost of a refit epoch, which includes the validation images, in trial epochs; 0 without a refit."""
    refit_epochs: int
    max_refit_seconds: float
    refit_start_seconds: float = LOCAL_REFIT_START_SECONDS
    """Seconds until the refit makes its first step."""
    backbone_seconds: float = 0.0
    """Seconds of predictions by a frozen backbone, which do not scale with the trial epoch."""
    share_before_refit: float = 0.0
    """Share of all predictions that are made before the refit."""
    trial_slowdown: float = 1.0
    """How many times longer an epoch takes in a trial, which shares the machine with other trials."""

    def total_seconds(self, epoch_seconds: float | None = None, epochs: int | None = None) -> float:
        """Estimate everything that follows the trials.

        epoch_seconds: the winner's, on an otherwise idle machine; epochs: those of its refit. Default: the fields.
        """
        epoch_seconds = self.epoch_seconds if epoch_seconds is None else epoch_seconds
        refit_seconds = 0.0
        if self.refit_epoch_factor:
            training_seconds = self.refit_epoch_factor * epoch_seconds * (epochs or self.refit_epochs)
            refit_seconds = self.refit_start_seconds + min(self.max_refit_seconds, training_seconds)
        return self.seconds_without_refit(epoch_seconds) + refit_seconds

    def is_refit_worthwhile(self, epoch_seconds: float, trial_epochs: int) -> bool:
        """Whether the refit's seconds hold enough epochs of `epoch_seconds` beside those that the winner had."""
        if not self.refit_epoch_factor:
            return False
        epochs = min(self.refit_epochs, self.max_refit_seconds / (self.refit_epoch_factor * epoch_seconds))
        return epochs * self.refit_epoch_factor >= MIN_STEP_SHARE * CHECKPOINT_FACTOR * trial_epochs

    def seconds_without_refit(self, epoch_seconds: float, *, from_refit: bool = False) -> float:
        """Estimate everything except the refit; from_refit: only what is left to do when the refit starts."""
        stop_seconds = 0.0 if from_refit else STOP_TRIALS_SECONDS
        share = 1 - self.share_before_refit if from_refit else 1.0
        prediction_seconds = self.prediction_epochs * epoch_seconds + self.backbone_seconds
        return stop_seconds + SAVE_SECONDS + share * prediction_seconds


def estimate_conclusion(
    resolved: Experiment,
    dataset: Dataset,
    step_time: StepTime,
    *,
    trial_slowdown: float = 1.0,
    is_local: bool = True,
) -> ConclusionEstimate:
    """Estimate what follows the trials from the step time of the search's own experiment.

    is_local: trials run in this machine's processes, and so does the refit.
    """
    search, has_refit = resolved.search, bool(resolved.search.final)
    train, validation = len(dataset.train), len(dataset.validation)
    before, after = _predictions_before_and_after_refit(resolved, dataset)
    predictions = before + after
    refit_start_seconds = LOCAL_REFIT_START_SECONDS if is_local else REMOTE_REFIT_START_SECONDS
    if has_refit:
        # The refit first computes the features that it lacks; trials on this machine leave it those of the training
        # images.
        images = validation if is_local else train + validation
        refit_start_seconds += BACKBONE_FACTOR * resolved.views * images * step_time.image_seconds
    return ConclusionEstimate(
        epoch_seconds=step_time.step_seconds * optimizer_steps_per_epoch(resolved, dataset),
        prediction_epochs=0.0 if _uses_cached_features(resolved) else predictions / train,
        refit_epoch_factor=CHECKPOINT_FACTOR * (train + validation) / train if has_refit else 0.0,
        refit_epochs=search.final_epochs or resolved.train.epochs,
        max_refit_seconds=MAX_REFIT_SHARE * 60 * search.minutes if search.minutes else math.inf,
        refit_start_seconds=refit_start_seconds,
        backbone_seconds=BACKBONE_FACTOR * predictions * step_time.image_seconds,
        share_before_refit=before / predictions,
        trial_slowdown=trial_slowdown,
    )


def _predictions_before_and_after_refit(resolved: Experiment, dataset: Dataset) -> tuple[float, float]:
    """Cost of the predictions before and after the refit, in training images.

    Before it: the calibration, the OOD detector, and the hard examples of the validation images. After it: the test,
    the refit model's OOD detector, and the hard examples of the test images.
    """
    train, validation = len(dataset.train), len(dataset.validation)
    neighbours = min(MAX_IMAGES, train)
    detector = min(MAX_IMAGES, validation) + neighbours
    hard_examples = neighbours + 2 * IMAGES_SHOWN * PREDICTIONS_PER_MAP
    before = prediction_cost(resolved, validation)
    before += prediction_cost(resolved, detector + hard_examples, with_test_flip=False)
    refit_detector = detector if resolved.search.final else 0
    after = prediction_cost(resolved, len(dataset.test))
    after += prediction_cost(resolved, refit_detector + hard_examples, with_test_flip=False)
    return before, after


def optimizer_steps_per_epoch(experiment: Experiment, dataset: Dataset, images: int | None = None) -> int:
    """Return the number of optimizer steps in an epoch of `images` labelled images, by default the training images.

    With unlabelled ones an epoch passes the labelled ones several times.
    """
    images = len(dataset.train) if images is None else images
    repeats = count_repeats(experiment, dataset, images)
    return steps_per_epoch(images * repeats, experiment.data.batch * experiment.optimizer.accumulate)


def trial_seconds(experiment: Experiment, dataset: Dataset, step_time: StepTime) -> float:
    """Estimate one trial on an otherwise idle machine: the first trial, which computes the cached features."""
    epochs, train = experiment.train.epochs, len(dataset.train)
    backbone_images = min(experiment.views, epochs) * train
    if _uses_cached_features(experiment):
        backbone_images += prediction_cost(experiment, len(dataset.validation))
    steps = epochs * optimizer_steps_per_epoch(experiment, dataset)
    return (
        steps * step_time.step_seconds * epoch_overhead(experiment, dataset) + backbone_images * step_time.image_seconds
    )


def epoch_overhead(experiment: Experiment, dataset: Dataset) -> float:
    """Return the cost of an epoch with validation and checkpoint, relative to its training steps."""
    if _uses_cached_features(experiment):  # the validation features are cached as well
        return CHECKPOINT_FACTOR
    images = len(dataset.train) * count_repeats(experiment, dataset)
    return CHECKPOINT_FACTOR * (1 + prediction_cost(experiment, len(dataset.validation)) / images)


def prediction_cost(experiment: Experiment, images: int, *, with_test_flip: bool = True) -> float:
    """Return the number of training images that cost as much as predicting `images` images.

    Half as many, because there is no backward pass; as many with a frozen backbone, which hardly has one in training.
    Twice that with augment.test_flip.
    """
    share = 0.5 if experiment.model.freeze == "none" else 1.0
    return images * share * (2 if with_test_flip and experiment.augment.test_flip else 1)


def _uses_cached_features(experiment: Experiment) -> bool:
    """Whether every epoch trains only the head, on cached features of a frozen backbone (see StepTime)."""
    return bool(experiment.views) and experiment.model.freeze_epochs is None
