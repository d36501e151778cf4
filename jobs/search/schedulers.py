"""What ends weak trials early: Ray Tune's schedulers, and one that looks at several objectives."""

from typing import Any

from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.search.pareto import MODES, fronts, losses
from classifier.search.space import Choice, Interval, Space

# Tune stops a trial on this name, and draws its rungs on it.
EPOCH = "epoch"
# The validation scores that every trial reports.
SCORES = ("accuracy", "macro_f1", "loss")
# Of each rung's trials, one in so many goes on (Li et al., "A System for Massively Parallel Hyperparameter Tuning").
REDUCTION = 3
BRACKETS = 3
# After fewer steps than this most trainings are as good as chance (LOG.md): which go on would be luck.
TELLING = 100


def scheduler(experiment: Experiment, space: Space) -> TrialScheduler:
    """The scheduler that search.scheduler names. ConfigError if it cannot serve this search."""
    search, epochs, grace = experiment.search, experiment.train.epochs, grace_of(experiment)
    metric = search.objective[0]
    common: dict[str, Any] = {"time_attr": EPOCH, "metric": metric, "mode": MODES[metric]}
    if search.scheduler == "pbt":
        return _population(experiment, space, common)
    if search.scheduler == "none" or epochs <= grace:
        return FIFOScheduler()
    if len(search.objective) > 1:
        if search.scheduler != "asha":
            raise ConfigError(
                f"search.scheduler {search.scheduler} looks at one objective: use asha or none with several"
            )
        return FrontScheduler(search.objective, rungs=rungs(grace, epochs))
    if search.scheduler == "median":
        return MedianStoppingRule(grace_period=grace, **common)
    return AsyncHyperBandScheduler(
        max_t=epochs,
        grace_period=grace,
        reduction_factor=REDUCTION,
        brackets=BRACKETS if search.scheduler == "hyperband" else 1,
        **common,
    )


def grace_of(experiment: Experiment, steps_per_epoch: int | None = None) -> int:
    """search.grace, or the ninth of the epochs: one rung lies between it and the end.

    The third where a ninth are too few steps to tell anything by: then there is no other rung.
    """
    epochs = experiment.train.epochs
    ninth, third = -(-epochs // REDUCTION**2), -(-epochs // REDUCTION)
    is_dumb = steps_per_epoch is not None and ninth * steps_per_epoch < TELLING
    return experiment.search.grace or (third if is_dumb else ninth)


def rungs(grace: int, epochs: int) -> tuple[int, ...]:
    """The epochs at which trials are compared: grace, three times that, nine times, below the last."""
    found, epoch = [], grace
    while epoch < epochs:
        found.append(epoch)
        epoch *= REDUCTION
    return tuple(found)


def _population(experiment: Experiment, space: Space, common: dict[str, Any]) -> TrialScheduler:
    """Population-based training (Jaderberg et al., 2017): the loop is inside the trial, so a trial is one worker."""
    search = experiment.search
    if experiment.workers.count > 1:
        raise ConfigError("search.scheduler pbt trains each trial in one process: set workers.count to 1")
    if search.trials < 4 or len(search.objective) > 1 or search.algorithm == "grid":
        raise ConfigError("search.scheduler pbt needs search.trials of 4 or more, one objective, and no grid")
    return PopulationBasedTraining(
        perturbation_interval=grace_of(experiment),
        hyperparam_mutations={
            name: list(values.values) if isinstance(values, Choice) else domain(values)
            for name, values in space.items()
        },
        **common,
    )


def domain(values: Choice | Interval) -> Any:
    """A range of ours as one of Tune's."""
    if isinstance(values, Choice):
        return tune.choice(list(values.values))
    if values.whole:  # Tune leaves the upper end of whole numbers out
        draw = tune.lograndint if values.log else tune.randint
        return draw(int(values.low), int(values.high) + 1)
    return tune.loguniform(values.low, values.high) if values.log else tune.uniform(values.low, values.high)


class FrontScheduler(FIFOScheduler):
    """asha by several objectives: at each rung a trial goes on if its front is among the best third of what was seen.

    Fronts rank instead of one score (Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021).
    """

    def __init__(self, objectives: tuple[str, ...], rungs: tuple[int, ...]) -> None:
        super().__init__()
        self.objectives = objectives
        self.seen: dict[int, dict[str, tuple[float, ...]]] = {rung: {} for rung in rungs}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        seen = self.seen.get(result[EPOCH])
        if seen is None or trial.trial_id in seen:
            return TrialScheduler.CONTINUE
        seen[trial.trial_id] = losses(result, self.objectives)
        ranks = fronts(list(seen.values()))
        ahead = sum(rank < ranks[-1] for rank in ranks)
        # As asha: the first to come to a rung go on, since nothing is known to beat them.
        return TrialScheduler.CONTINUE if ahead <= (len(seen) - 1) // REDUCTION else TrialScheduler.STOP
