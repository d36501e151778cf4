"""The exponential moving average of a model's weights (Polyak and Juditsky, 1992; the ramp-up is TensorFlow's)."""

import copy

import torch
from torch import nn


class ModelEMA:
    """A moving average of a model; `model` is the averaged one, to validate and save.

    Batch norm's running statistics are averaged like the weights; integer buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Move the average towards `model`. The decay ramps up, to forget the random initial weights."""
        decay = min(self.decay, (1 + step) / (10 + step))
        average, current = self.model.state_dict(), model.state_dict()
        floating = [name for name, value in average.items() if value.is_floating_point()]
        weights = [average[name] for name in floating]
        torch._foreach_lerp_(weights, [current[name] for name in floating], 1 - decay)  # pyright: ignore
        for name in average.keys() - set(floating):
            average[name].copy_(current[name])
