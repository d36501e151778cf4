"""Settings that were good on many data sets, in the order to try them after the recipe.

Empty until tests/benchmarks/portfolio.py has been run to its end: what it prints belongs here, with its provenance.
"""

from typing import Any

from classifier.config import Experiment

PORTFOLIO: tuple[dict[str, Any], ...] = ()


def portfolio_for(experiment: Experiment) -> list[dict[str, Any]]:
    """The entries that can change this experiment: all of them train from scratch."""
    return [dict(changes) for changes in PORTFOLIO if not experiment.model.weights]
