"""How long trainings take, and the end of a search: told before its first trial, and again by what its trials took."""

import math
from dataclasses import dataclass

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.data.loader import steps_per_epoch
from classifier.evaluation.hard_examples import SHOWN
from classifier.inference.out_of_distribution import MAX_IMAGES
from classifier.profiling.step_time import StepTime

# Checkpoints and all else beside the steps and the validation, as a factor.
EPOCH_OVERHEAD = 1.05
# Seconds to end the trials; to pack a model and write results and report, beside looking at images; and to begin with
# the last training, beside its steps, in this process or by starting one elsewhere.
STOP_TRIALS_SECONDS, SAVE_SECONDS, LOCAL_REFIT_START_SECONDS, REMOTE_REFIT_START_SECONDS = 3.0, 4.0, 3.0, 20.0
# What a frozen backbone takes at a search's end, with loading it and drawing maps, over what was measured of its views.
BACKBONE_FACTOR = 1.25
# A last training may take this share of the minutes.
MAX_REFIT_SHARE = 0.5
# What a map of a mistake takes, forward and backward, and its features, in predictions.
PREDICTIONS_PER_MAP = 4


@dataclass(frozen=True)
class ConclusionEstimate:
    """What follows a search's trials: tests and reports, and with search.final the last training.

    Its unit is a trial's epoch: `epoch` are the seconds that one took, without its validation, before the first trial;
    0 where nobody asked. Machines change their speed, and winners differ: what trials take is told to `seconds`.
    """

    epoch_seconds: float
    prediction_epochs: float
    """Predictions for the test, the calibration and the report, in epochs."""
    refit_epoch_factor: float
    """An epoch of the last training, on the validation images too, in epochs of a trial; 0 without one."""
    refit_epochs: int
    max_refit_seconds: float
    """Seconds that the last training may take."""
    refit_start_seconds: float = LOCAL_REFIT_START_SECONDS
    """Seconds until the last training makes its first step."""
    backbone_seconds: float = 0.0
    """Predictions that go by no epoch, as a frozen backbone's, in seconds."""
    share_before_refit: float = 0.0
    """The share of all predictions that comes before the last training."""
    trial_slowdown: float = 1.0
    """How many times as long an epoch takes in a trial, which shares the machine with others."""

    def total_seconds(self, epoch_seconds: float | None = None, epochs: int | None = None) -> float:
        """All of it, for a winner of whom an epoch takes so long, alone on the machine, and who is to have so many."""
        epoch_seconds = self.epoch_seconds if epoch_seconds is None else epoch_seconds
        last = (
            self.refit_start_seconds + min(self.max_refit_seconds, self.refit_epoch_factor * epoch_seconds * (epochs or self.refit_epochs)) if self.refit_epoch_factor else 0.0
        )
        return self.seconds_without_refit(epoch_seconds) + last

    def seconds_without_refit(self, epoch_seconds: float, *, from_refit: bool = False) -> float:
        """All but the last training; is_late: what is left of that when the last training begins."""
        share = 1 - self.share_before_refit if from_refit else 1.0
        return (0.0 if from_refit else STOP_TRIALS_SECONDS) + SAVE_SECONDS + share * (self.prediction_epochs * epoch_seconds + self.backbone_seconds)


def estimate_conclusion(resolved: Experiment, dataset: Dataset, pace: StepTime, *, trial_slowdown: float = 1.0, is_local: bool = True) -> ConclusionEstimate:
    """From what the search's own experiment takes; nothing where the search has all the time it wants."""
    search, train, held = resolved.search, len(dataset.train), len(dataset.validation)
    seen, final = min(MAX_IMAGES, train), bool(search.final)
    # The test and the calibration; what tells new pictures; of both splits, maps of mistakes and images like them.
    unlike, alike = min(MAX_IMAGES, held) + seen, seen + 2 * SHOWN * PREDICTIONS_PER_MAP
    early = prediction_cost(resolved, held) + prediction_cost(resolved, unlike + alike, with_test_flip=False)
    late = prediction_cost(resolved, len(dataset.test)) + prediction_cost(resolved, final * unlike + alike, with_test_flip=False)
    looked_at = early + late
    # What a frozen backbone is to see goes by no epoch; trials here leave the last training the validation images.
    unseen = BACKBONE_FACTOR * resolved.views * (held if is_local else train + held) * pace.image if final else 0.0
    return ConclusionEstimate(
        epoch_seconds=pace.step * optimizer_steps_per_epoch(resolved, train),
        prediction_epochs=0.0 if _trains_head_only(resolved) else looked_at / train,
        refit_epoch_factor=EPOCH_OVERHEAD * (train + held) / train if final else 0.0,
        refit_epochs=search.final_epochs or resolved.train.epochs,
        max_refit_seconds=MAX_REFIT_SHARE * 60 * search.minutes if search.minutes else math.inf,
        refit_start_seconds=(LOCAL_REFIT_START_SECONDS if is_local else REMOTE_REFIT_START_SECONDS) + unseen,
        backbone_seconds=BACKBONE_FACTOR * looked_at * pace.image,
        share_before_refit=early / looked_at,
        trial_slowdown=trial_slowdown,
    )


def optimizer_steps_per_epoch(experiment: Experiment, images: int) -> int:
    """Steps of an epoch of so many images."""
    return steps_per_epoch(images, experiment.data.batch * experiment.optimizer.accumulate)


def trial_seconds(experiment: Experiment, dataset: Dataset, pace: StepTime) -> float:
    """Seconds that one trial takes with the machine to itself; the first, where views are kept for the others."""
    epochs = experiment.train.epochs
    seen = min(experiment.views, epochs) * len(dataset.train)
    if _trains_head_only(experiment):
        seen += prediction_cost(experiment, len(dataset.validation))
    steps = epochs * optimizer_steps_per_epoch(experiment, len(dataset.train))
    return steps * pace.step * epoch_overhead(experiment, dataset) + seen * pace.image


def epoch_overhead(experiment: Experiment, dataset: Dataset) -> float:
    """What an epoch takes with its validation and checkpoint, as a multiple of its steps alone."""
    if _trains_head_only(experiment):  # what its backbone sees in validation images is kept, too
        return EPOCH_OVERHEAD
    return EPOCH_OVERHEAD * (1 + prediction_cost(experiment, len(dataset.validation)) / len(dataset.train))


def prediction_cost(experiment: Experiment, count: int, *, with_test_flip: bool = True) -> float:
    """Images that take as long to train on as `count` ones to predict: half, as nothing goes backward; or all of them,
    where little goes backward in training. Mirrored views take as long again.
    """
    share = 0.5 if experiment.model.freeze == "none" else 1.0
    return count * share * (2 if with_test_flip and experiment.augment.test_flip else 1)


def _trains_head_only(experiment: Experiment) -> bool:
    """Epochs cost what its head takes, beside what the backbone is to see once (see cost.Pace)."""
    return bool(experiment.views) and experiment.model.freeze_epochs is None
