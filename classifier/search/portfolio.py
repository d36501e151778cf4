"""Settings that did well on several datasets, in the order to try them after the recipe.

Chosen by tests/benchmarks/portfolio.py: those that together come closest to the best candidate on each of its sets,
then the same without those chosen before. From scratch out of 13 candidates on five sets (digits, tiles of photographs,
faces, clothes, stamps), with pretrained weights out of 13 on ten. Their accuracies, on a held-out third of the training
images, are in LOG.md.
"""

from collections.abc import Sequence
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
FROM_SCRATCH: tuple[dict[str, Any], ...] = (
    {"model.name": "resnet9_32"} | _ADAMW,
    {"model.name": "resnet9_16"} | _MUON,
    {"model.name": "resnet9_16"} | _SGD,
    {"model.name": "resnet9_16"} | _ADAMW,
)
# A linear probe: what a training without flags is, so that a search is never behind it on the validation images.
PROBE: dict[str, Any] = {
    "model.probe": True,
    "model.freeze": "backbone",
    "augment.views": 0,
    "augment.test_flip": False,
    "train.epochs": 1,
}
# The whole network from there (Kumar et al., "Fine-Tuning can Distort Pretrained Features", 2022), in so many epochs
# that it is trained, and that a search has time for other trials.
WHOLE: dict[str, Any] = {
    "model.probe": True,
    "model.freeze": "statistics",
    "train.epochs": 9,
    "optimizer.lr": 2e-3,
    "optimizer.layer_decay": 0.8,
    "loss.smoothing": 0.1,
}
# The same of the last third of its layers, in about half of the time.
LAST_LAYERS: dict[str, Any] = WHOLE | {"model.freeze": "early"}
# The cheap ones first: heads of a frozen backbone, which share its features where they see the same views.
PRETRAINED: tuple[dict[str, Any], ...] = (
    PROBE,
    {"loss.smoothing": 0.1},
    {"augment.crop": 0.4},
    {"augment.views": 1, "augment.strength": 0.0},
    LAST_LAYERS,
    WHOLE,
)


def portfolio_for(experiment: Experiment) -> list[dict[str, Any]]:
    """Return what each entry changes in the experiment, if anything; empty where the experiment needs its own model."""
    return _list_differences(_choose_entries(experiment), experiment)


def trains_backbone(experiment: Experiment) -> bool:
    """Whether gradients go through all layers, which takes about a hundred times as long as a head on kept features."""
    return experiment.model.freeze != "backbone" or experiment.model.freeze_epochs is not None


def _choose_entries(experiment: Experiment) -> Sequence[dict[str, Any]]:
    """With pretrained weights, the whole network is trained only if the recipe does, or minutes bound the search.

    Features are kept (augment.views) only where the recipe keeps them: not all of its settings allow it.
    """
    if can_vary_model(experiment):
        return FROM_SCRATCH
    if not experiment.model.weights or experiment.data.stream:  # a probe keeps the features of its images in memory
        return ()
    is_bounded = experiment.search.minutes is not None or trains_backbone(experiment)
    tried = [(entry, experiment.override_all(entry)) for entry in PRETRAINED]
    return [
        entry
        for entry, one in tried
        if (is_bounded or not trains_backbone(one)) and (experiment.views or not one.views)
    ]


def _list_differences(entries: Sequence[dict[str, Any]], experiment: Experiment) -> list[dict[str, Any]]:
    changes = ({name: value for name, value in entry.items() if value != experiment.get(name)} for entry in entries)
    return [entry for entry in changes if entry]
