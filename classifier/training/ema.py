"""The exponential moving average of a model's weights (Polyak and Juditsky, 1992; the ramp-up is TensorFlow's)."""

import copy

import torch
from torch import nn


class ModelEMA:
    """A second model that follows the first; `model` is the one to validate and keep.

    Running statistics of batch norm are averaged as the weights are; whole-number buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move towards `model`. Early on the average is short, so that it does not remember the random start."""
        decay = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = self.model.state_dict(), model.state_dict()
        floating = [name for name, value in mine.items() if value.is_floating_point()]
        weights = [mine[name] for name in floating]
        torch._foreach_lerp_(weights, [theirs[name] for name in floating], 1 - decay)  # pyright: ignore
        for name in mine.keys() - set(floating):
            mine[name].copy_(theirs[name])
