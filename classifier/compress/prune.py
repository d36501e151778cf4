"""Structured pruning: whole channels of convolutions are removed, so that a model is smaller and faster as it is.

By torch-pruning (G. Fang et al., "DepGraph: towards any structural pruning", 2023), which finds the layers that must
shrink together. Channels of the smallest weights go first.
"""

import copy
import dataclasses
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch_pruning
from torch import Tensor, nn

from classifier import models
from classifier.config.sections import ModelConfig, Task
from classifier.errors import ModelError, in_short
from classifier.models.widths import describe_widths

# Channels left are a multiple of it, as vector units compute them.
MULTIPLE = 8
MAX_RATIO, MAX_LAYER_RATIO = 0.9, 0.9
# Halvings of the range of ratios.
STEPS = 4


class Pruned(NamedTuple):
    """A pruned model, and the settings that build its architecture."""

    model: nn.Module
    config: ModelConfig

    @property
    def weights(self) -> dict[str, Tensor]:
        return self.model.state_dict()


def prune(
    model: nn.Module,
    config: ModelConfig,
    *,
    classes: int,
    channels: int,
    size: int,
    task: Task = "multiclass",
    ratio: float,
) -> Pruned:
    """Return a copy of the model without this share of its channels, in eval mode. task: of its head.

    ModelError if its architecture cannot be pruned.
    """
    if config.widths:
        raise ModelError("the model is pruned already: compress the model that it was made from")
    pruned = copy.deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]
    for parameter in pruned.parameters():
        parameter.requires_grad_(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch_pruning.pruner.BasePruner(
                pruned,
                torch.zeros(1, channels, size, size),
                importance=torch_pruning.importance.MagnitudeImportance(p=2),
                global_pruning=True,
                isomorphic=True,
                pruning_ratio=ratio,
                max_pruning_ratio=MAX_LAYER_RATIO,
                ignored_layers=list(models.head_modules(pruned).values()),
                round_to=MULTIPLE,
            ).step()
        config = dataclasses.replace(config, widths=describe_widths(model, pruned))
        shape: dict[str, Any] = {"classes": classes, "channels": channels, "size": size, "task": task}
        rebuilt = models.build(config, **shape, weights=False)
        rebuilt.load_state_dict(pruned.state_dict())
    except Exception as error:  # of many kinds: whatever an architecture has that is not known there
        raise ModelError(f"{config.name} cannot be pruned ({in_short(error, 160)})") from error
    return Pruned(rebuilt.eval(), config)


def prune_to_speed(prune_by: Callable[[float], Pruned], measure: Callable[[nn.Module], float], speed: float) -> Pruned:
    """Return the model that loses the fewest channels and is so many times as fast as before.

    measure: how many times as fast a model is, by its milliseconds. ModelError if even the smallest is slower.
    """
    low, high, found = 0.0, MAX_RATIO, prune_by(MAX_RATIO)
    if (best := measure(found.model)) < speed:
        raise ModelError(
            f"without {MAX_RATIO:.0%} of its channels it is but {best:.2f} times as fast on this machine, not {speed:g}"
        )
    for _ in range(STEPS):
        middle = (low + high) / 2
        pruned = prune_by(middle)
        if measure(pruned.model) >= speed:
            high, found = middle, pruned
        else:
            low = middle
    return found
