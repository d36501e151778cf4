"""Settings that did well on several datasets, in the order to try them after the recipe.

Chosen from 13 candidates by tests/benchmarks/portfolio.py: those that together come closest to the best candidate on
each of five datasets (digits, tiles of photographs, faces, clothes, stamps), then the same without those chosen before.
Their accuracies, on a held-out third of the training images, are in LOG.md.
"""

from typing import Any

from classifier.config.experiment import Experiment
from classifier.search.space import can_vary_model

_ADAMW: dict[str, Any] = {
    "optimizer.name": "adamw",
    "optimizer.lr": 3e-3,
    "optimizer.momentum": 0.9,
    "optimizer.weight_decay": 0.05,
    "schedule.name": "onecycle",
}
_MUON: dict[str, Any] = {
    "optimizer.name": "muon",
    "optimizer.lr": 0.02,
    "optimizer.momentum": 0.95,
    "optimizer.weight_decay": 0.0,
    "schedule.name": "linear",
}
_SGD: dict[str, Any] = {
    "optimizer.name": "sgd",
    "optimizer.lr": 0.1,
    "optimizer.weight_decay": 5e-4,
    "schedule.name": "onecycle",
}
PORTFOLIO: tuple[dict[str, Any], ...] = (
    {"model.name": "resnet9_32"} | _ADAMW,
    {"model.name": "resnet9_16"} | _MUON,
    {"model.name": "resnet9_16"} | _SGD,
    {"model.name": "resnet9_16"} | _ADAMW,
)


def portfolio_for(experiment: Experiment) -> list[dict[str, Any]]:
    """Return what each entry changes in the experiment, if anything; empty where the experiment needs its own model."""
    if not can_vary_model(experiment):
        return []
    entries = ({name: value for name, value in entry.items() if value != experiment.get(name)} for entry in PORTFOLIO)
    return [entry for entry in entries if entry]
