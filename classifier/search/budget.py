"""How long trainings take, and the end of a search: told before its first trial, and again by what its trials took."""

import math
from dataclasses import dataclass

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.data.loader import steps_per_epoch
from classifier.evaluation.hard_examples import SHOWN
from classifier.inference.out_of_distribution import MOST
from classifier.profiling.step_time import Pace

# Checkpoints and all else beside the steps and the validation, as a factor.
KEEPING = 1.05
# Seconds to end the trials; to pack a model and write results and report, beside looking at images; and to begin with
# the last training, beside its steps, in this process or by starting one elsewhere.
ENDING, PACKING, BEGINNING, STARTING = 3.0, 4.0, 3.0, 20.0
# What a frozen backbone takes at a search's end, with loading it and drawing maps, over what was measured of its views.
SLOWER = 1.25
# A last training may take this share of the minutes.
SHARE_OF_LAST = 0.5
# What a map of a mistake takes, forward and backward, and its features, in predictions.
PASSES = 4


@dataclass(frozen=True)
class End:
    """What follows a search's trials: tests and reports, and with search.final the last training.

    Its unit is a trial's epoch: `epoch` are the seconds that one took, without its validation, before the first trial;
    0 where nobody asked. Machines change their speed, and winners differ: what trials take is told to `seconds`.
    """

    epoch: float
    looking: float
    """Predictions for the test, the calibration and the report, in epochs."""
    learning: float
    """An epoch of the last training, on the validation images too, in epochs of a trial; 0 without one."""
    epochs: int
    limit: float
    """Seconds that the last training may take."""
    beginning: float = BEGINNING
    """Seconds until the last training makes its first step."""
    seeing: float = 0.0
    """Predictions that go by no epoch, as a frozen backbone's, in seconds."""
    early: float = 0.0
    """The share of all predictions that comes before the last training."""
    crowd: float = 1.0
    """How many times as long an epoch takes in a trial, which shares the machine with others."""

    def seconds(self, alone: float | None = None, epochs: int | None = None) -> float:
        """All of it, for a winner of whom an epoch takes so long, alone on the machine, and who is to have so many."""
        alone = self.epoch if alone is None else alone
        last = (
            self.beginning + min(self.limit, self.learning * alone * (epochs or self.epochs)) if self.learning else 0.0
        )
        return self.rest(alone) + last

    def rest(self, alone: float, *, is_late: bool = False) -> float:
        """All but the last training; is_late: what is left of that when the last training begins."""
        share = 1 - self.early if is_late else 1.0
        return (0.0 if is_late else ENDING) + PACKING + share * (self.looking * alone + self.seeing)


def end_of(resolved: Experiment, dataset: Dataset, pace: Pace, *, crowd: float = 1.0, is_here: bool = True) -> End:
    """From what the search's own experiment takes; nothing where the search has all the time it wants."""
    search, train, held = resolved.search, len(dataset.train), len(dataset.validation)
    seen, final = min(MOST, train), bool(search.final)
    # The test and the calibration; what tells new pictures; of both splits, maps of mistakes and images like them.
    unlike, alike = min(MOST, held) + seen, seen + 2 * SHOWN * PASSES
    early = predicting(resolved, held) + predicting(resolved, unlike + alike, mirrored=False)
    late = predicting(resolved, len(dataset.test)) + predicting(resolved, final * unlike + alike, mirrored=False)
    looked_at = early + late
    # What a frozen backbone is to see goes by no epoch; trials here leave the last training the validation images.
    unseen = SLOWER * resolved.views * (held if is_here else train + held) * pace.image if final else 0.0
    return End(
        epoch=pace.step * steps_of(resolved, train),
        looking=0.0 if _is_frozen(resolved) else looked_at / train,
        learning=KEEPING * (train + held) / train if final else 0.0,
        epochs=search.final_epochs or resolved.train.epochs,
        limit=SHARE_OF_LAST * 60 * search.minutes if search.minutes else math.inf,
        beginning=(BEGINNING if is_here else STARTING) + unseen,
        seeing=SLOWER * looked_at * pace.image,
        early=early / looked_at,
        crowd=crowd,
    )


def steps_of(experiment: Experiment, images: int) -> int:
    """Steps of an epoch of so many images."""
    return steps_per_epoch(images, experiment.data.batch * experiment.optimizer.accumulate)


def alone(experiment: Experiment, dataset: Dataset, pace: Pace) -> float:
    """Seconds that one trial takes with the machine to itself; the first, where views are kept for the others."""
    epochs = experiment.train.epochs
    seen = min(experiment.views, epochs) * len(dataset.train)
    if _is_frozen(experiment):
        seen += predicting(experiment, len(dataset.validation))
    steps = epochs * steps_of(experiment, len(dataset.train))
    return steps * pace.step * beside(experiment, dataset) + seen * pace.image


def beside(experiment: Experiment, dataset: Dataset) -> float:
    """What an epoch takes with its validation and checkpoint, as a multiple of its steps alone."""
    if _is_frozen(experiment):  # what its backbone sees in validation images is kept, too
        return KEEPING
    return KEEPING * (1 + predicting(experiment, len(dataset.validation)) / len(dataset.train))


def predicting(experiment: Experiment, count: int, *, mirrored: bool = True) -> float:
    """Images that take as long to train on as `count` ones to predict: half, as nothing goes backward; or all of them,
    where little goes backward in training. Mirrored views take as long again.
    """
    share = 0.5 if experiment.model.freeze == "none" else 1.0
    return count * share * (2 if mirrored and experiment.augment.test_flip else 1)


def _is_frozen(experiment: Experiment) -> bool:
    """Epochs cost what its head takes, beside what the backbone is to see once (see cost.Pace)."""
    return bool(experiment.views) and experiment.model.freeze_epochs is None
