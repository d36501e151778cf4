"""Schedulers, which stop weak trials early: Ray Tune's, and one for several objectives."""

from collections.abc import Mapping
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
from classifier.search.pareto import MODES, pareto_fronts, to_losses
from classifier.search.space import Choice, Interval, Space

# The key of a report that Tune takes as time: rungs and limits are in epochs.
EPOCH = "epoch"
# The key of a report that repeats an epoch from before the search was resumed.
REPLAYED = "replayed"
# The validation scores that every trial reports.
SCORES = ("accuracy", "macro_f1", "loss")
# Of images with several labels, or with grades, alone.
TASK_SCORES = ("map", "quadratic_kappa")
# One in this many trials continues after each rung (Li et al., "A System for Massively Parallel Hyperparameter
# Tuning").
REDUCTION_FACTOR = 3
BRACKETS = 3
# After fewer steps than this, most trainings score no better than chance (LOG.md), and a rung would decide by luck.
MIN_RUNG_STEPS = 100


def read_scores(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validation scores in a row of history.jsonl, by name."""
    names = (*SCORES, *(name for name in TASK_SCORES if row.get(f"validation_{name}") is not None))
    return {name: row[f"validation_{name}"] for name in names}


def make_scheduler(experiment: Experiment, space: Space) -> TrialScheduler:
    """Create the scheduler that search.scheduler names. ConfigError if it does not support this search."""
    search, epochs, grace = experiment.search, experiment.train.epochs, choose_grace(experiment)
    metric = search.objective[0]
    common: dict[str, Any] = {"time_attr": EPOCH, "metric": metric, "mode": MODES[metric]}
    if search.scheduler == "pbt":
        return _make_population_scheduler(experiment, space, common)
    if search.scheduler == "none" or epochs <= grace:
        return FIFOScheduler()
    if len(search.objective) > 1:
        if search.scheduler != "asha":
            raise ConfigError(
                f"search.scheduler {search.scheduler} supports one objective: use asha or none for several"
            )
        return ParetoScheduler(search.objective, rungs=rung_epochs(grace, epochs))
    if search.scheduler == "median":
        return MedianScheduler(grace_period=grace, **common)
    return AshaScheduler(
        max_t=epochs,
        grace_period=grace,
        reduction_factor=REDUCTION_FACTOR,
        brackets=BRACKETS if search.scheduler == "hyperband" else 1,
        **common,
    )


def choose_grace(experiment: Experiment, steps_per_epoch: int | None = None) -> int:
    """search.grace, or else a ninth of the epochs: then one more rung lies between it and the end.

    A third, and no other rung, if a ninth has too few steps to compare trials.
    """
    epochs = experiment.train.epochs
    ninth, third = -(-epochs // REDUCTION_FACTOR**2), -(-epochs // REDUCTION_FACTOR)
    is_too_early = steps_per_epoch is not None and ninth * steps_per_epoch < MIN_RUNG_STEPS
    return experiment.search.grace or (third if is_too_early else ninth)


def rung_epochs(grace: int, epochs: int) -> tuple[int, ...]:
    """The epochs at which trials are compared: grace, 3 x grace, 9 x grace, and so on, below the last epoch."""
    epochs_of_rungs, epoch = [], grace
    while epoch < epochs:
        epochs_of_rungs.append(epoch)
        epoch *= REDUCTION_FACTOR
    return tuple(epochs_of_rungs)


def _make_population_scheduler(experiment: Experiment, space: Space, common: dict[str, Any]) -> TrialScheduler:
    """Population-based training (Jaderberg et al., 2017): the loop is in the trial's process, so it has one worker."""
    search = experiment.search
    if experiment.workers.count > 1:
        raise ConfigError("search.scheduler pbt trains each trial in one process: set workers.count to 1")
    if search.trials < 4 or len(search.objective) > 1 or search.algorithm == "grid":
        raise ConfigError("search.scheduler pbt needs search.trials of 4 or more, one objective, and no grid")
    return PopulationBasedTraining(
        perturbation_interval=choose_grace(experiment),
        hyperparam_mutations={
            name: list(values.values) if isinstance(values, Choice) else to_tune_domain(values)
            for name, values in space.items()
        },
        **common,
    )


def to_tune_domain(values: Choice | Interval) -> Any:
    """Convert a range to Tune's type."""
    if isinstance(values, Choice):
        return tune.choice(list(values.values))
    if values.is_integer:  # Tune excludes the upper end of integers
        draw = tune.lograndint if values.log else tune.randint
        return draw(int(values.low), int(values.high) + 1)
    return tune.loguniform(values.low, values.high) if values.log else tune.uniform(values.low, values.high)


def has_own_epochs(trial: Any) -> bool:
    """Whether a trial has epochs of its own, such as a linear probe: others are not compared with it at a rung."""
    return "train.epochs" in trial.config


class _FairMixin:
    """Compares trials at a rung only where that is fair: none that has epochs of its own, none that reports again.

    Trials of a resumed search report in another order what they had reported, so a rung may decide otherwise: a trial
    would be stopped before an epoch that it has finished.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if has_own_epochs(trial):
            return TrialScheduler.CONTINUE
        decision = super().on_trial_result(tune_controller, trial, result)  # pyright: ignore[reportAttributeAccessIssue]
        return TrialScheduler.CONTINUE if result.get(REPLAYED) else decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        if not has_own_epochs(trial):  # else its score would count at a rung
            super().on_trial_complete(tune_controller, trial, result)  # pyright: ignore[reportAttributeAccessIssue]


class AshaScheduler(_FairMixin, AsyncHyperBandScheduler):
    """Tune's asha, and hyperband as asha with several brackets."""


class MedianScheduler(_FairMixin, MedianStoppingRule):
    """Tune's median stopping rule."""


class ParetoScheduler(FIFOScheduler):
    """asha for several objectives: at each rung a trial continues if its Pareto front is among the best third so far.

    Fronts take the place of scores (Schmucker et al., "Multi-objective Asynchronous Successive Halving", 2021).
    """

    def __init__(self, objectives: tuple[str, ...], rungs: tuple[int, ...]) -> None:
        super().__init__()
        self.objectives = objectives
        self.losses_at_rung: dict[int, dict[str, tuple[float, ...]]] = {rung: {} for rung in rungs}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        losses = self.losses_at_rung.get(result[EPOCH])
        if losses is None or trial.trial_id in losses or has_own_epochs(trial):
            return TrialScheduler.CONTINUE
        losses[trial.trial_id] = to_losses(result, self.objectives)
        ranks = pareto_fronts(list(losses.values()))
        ahead = sum(rank < ranks[-1] for rank in ranks)
        # As in asha, the first trials to reach a rung continue: nothing is known to beat them.
        may_continue = result.get(REPLAYED) or ahead <= (len(losses) - 1) // REDUCTION_FACTOR
        return TrialScheduler.CONTINUE if may_continue else TrialScheduler.STOP
