"""Settings that were good on many data sets, in the order to try them after the recipe."""

from typing import Any

from classifier.config import Experiment

PORTFOLIO: tuple[dict[str, Any], ...] = ()


def portfolio_for(experiment: Experiment, size: int) -> list[dict[str, Any]]:
    """The entries that can change this experiment on images of so many pixels a side."""
    return [dict(changes) for changes in PORTFOLIO if not experiment.model.weights and size]
