"""The best epoch of each trial: what the searcher learns from and the leaderboard ranks by."""

import math
from typing import Any

from classifier.config.experiment import Experiment
from classifier.search.pareto import MODES, to_losses


class BestEpochs:
    """Keeps the report of each trial's best epoch, by the trial's name.

    Written by Tune's thread while trials run; the driver's thread reads it.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self.reports: dict[str, dict[str, Any]] = {}

    def update(self, trial: str, report: dict[str, Any]) -> None:
        """Account for an epoch's report. One of a trial that failed has no scores of its own, and is ignored."""
        if "error" not in report and is_better(self.experiment, report, self.reports.get(trial)):
            self.reports[trial] = report

    def get(self, trial: str) -> dict[str, Any] | None:
        """The report of the trial's best epoch; None before its first."""
        return self.reports.get(trial)


def rank(experiment: Experiment, scores: dict[str, Any]) -> tuple[float, ...]:
    """A sort key by the first objective, lower is better; of equal scores the lower loss wins."""
    return (*to_losses(scores, experiment.search.objective[:1]), scores["loss"])


def is_better(experiment: Experiment, scores: dict[str, Any], best: dict[str, Any] | None) -> bool:
    """Whether a later epoch's model replaces the one that the trial has kept so far."""
    return not best or experiment.train.keep == "last" or rank(experiment, scores) < rank(experiment, best)


def worst_score(objective: str) -> float:
    """The score of a failed trial: no trial that ran ranks below it."""
    if objective == "quadratic_kappa":
        return -1.0
    return math.inf if MODES[objective] == "min" else 0.0
