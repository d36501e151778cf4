"""Settings that were good on many data sets, in the order to try them after the recipe.

tests/benchmarks/portfolio.py chose them: of 13 candidates, those that together come nearest to the best on each of five
sets (digits, tiles of photographs, faces, clothes, stamps), and then the same without those that were chosen before.
The accuracies, on a third of the training images that was held out, stand in LOG.md.
"""

from typing import Any

from classifier.config.experiment import Experiment

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
    """What each entry changes of this experiment, where it changes anything: all of them train from scratch."""
    if experiment.model.weights:
        return []
    entries = ({name: value for name, value in entry.items() if value != experiment.get(name)} for entry in PORTFOLIO)
    return [entry for entry in entries if entry]
