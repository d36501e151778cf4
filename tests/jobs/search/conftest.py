"""A plan for tests that start no search."""

from typing import Any

from classifier.config.experiment import Experiment
from classifier.search.budget import ConclusionEstimate
from classifier.search.space import Space
from jobs.search.plan import SearchPlan

NO_CONCLUSION = ConclusionEstimate(
    epoch_seconds=0.0, prediction_epochs=0.0, refit_epoch_factor=0.0, refit_epochs=1, max_refit_seconds=0.0
)


def search_plan(experiment: Experiment, space: Space | None = None, **fields: Any) -> SearchPlan:
    """A plan as if no measurement had been made: one trial at once, and a conclusion that takes no time."""
    defaults = {
        "has_user_space": False,
        "max_concurrent": 1,
        "trial_resources": {},
        "portfolio": [],
        "costs": {},
        "conclusion": NO_CONCLUSION,
    }
    return SearchPlan(experiment=experiment, space=space or {}, **{**defaults, **fields})
