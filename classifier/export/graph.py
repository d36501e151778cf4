"""The graph that is exported: a model with all that surrounds it, from uint8 images to calibrated probabilities."""

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classifier.inference.out_of_distribution import channel_statistics, channel_step
from classifier.inference.scorer import Scorer
from classifier.metrics.calibration import apply_temperature

# Smaller factors of a batch norm are not undone: the error of its output would grow.
MIN_FACTOR = 1e-2


class Graph(nn.Module):
    """Normalisation, the model, mirrored views, temperature and softmax: what Scorer.predict_probabilities does.

    Takes uint8 images_NCHW; returns probabilities_NK, float32, and of each of `layers` the stats_NF of the first view
    (see out_of_distribution.channel_statistics).
    """

    scale_C11: Tensor
    shift_C11: Tensor

    def __init__(self, model: nn.Module, scorer: Scorer, layers: Sequence[str]) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format).eval()  # pyright: ignore[reportCallIssue]
        self.test_flip, self.temperature = scorer.test_flip, scorer.temperature
        std = torch.tensor([value or 1.0 for value in scorer.std], dtype=torch.float64)
        mean = torch.tensor(scorer.mean, dtype=torch.float64)
        self.register_buffer("scale_C11", (1 / (255 * std)).float()[:, None, None])
        self.register_buffer("shift_C11", (-mean / std).float()[:, None, None])
        norms = _find_following_norms(self.model, layers, (len(scorer.mean), scorer.size, scorer.size))
        self.layers, self._captured = tuple(layers), dict[str, Tensor]()
        for number, layer in enumerate(layers):
            if norm := norms.get(layer):
                self.register_buffer(f"undo_{number}", torch.stack(_undo_norm(norm)))
            module = norm or self.model.get_submodule(layer)
            module.register_forward_hook(self._make_hook(layer, f"undo_{number}" if norm else None))

    def _make_hook(self, layer: str, undo: str | None) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            stats_NF = channel_statistics(output)
            if undo:
                scale_F, shift_F = getattr(self, undo)
                stats_NF = stats_NF * scale_F + shift_F
            self._captured.setdefault(layer, stats_NF)  # of the first view

        return hook

    def forward(self, images_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Return probabilities_NK and the layers' statistics."""
        images_NCHW = images_NCHW.float() * self.scale_C11 + self.shift_C11
        self._captured.clear()
        log_probabilities_NK = self.model(images_NCHW).log_softmax(1)
        statistics = [self._captured[layer] for layer in self.layers]
        if self.test_flip:
            flipped_NK = self.model(images_NCHW.flip(-1)).log_softmax(1)
            log_probabilities_NK = torch.stack([log_probabilities_NK, flipped_NK]).logsumexp(0) - math.log(2)
        self._captured.clear()
        return apply_temperature(log_probabilities_NK, self.temperature).exp(), *statistics


def _find_following_norms(model: nn.Module, layers: Sequence[str], shape_CHW: tuple[int, ...]) -> dict[str, nn.Module]:
    """Return the batch norm that directly follows each layer which has one.

    A convolution is computed together with the batch norm behind it, unless its own output is wanted. As the norm is an
    affine map per channel, the statistics before it follow from those after it.
    """
    outputs: dict[int, str] = {}
    found: dict[str, nn.Module] = {}
    kept: list[Tensor] = []  # as long as they live, no other tensor has their identity

    def after_layer(layer: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            kept.append(output)
            outputs[id(output)] = layer

        return hook

    def before_norm(norm: nn.Module, inputs: tuple[Any, ...]) -> None:
        if id(inputs[0]) in outputs:
            found[outputs[id(inputs[0])]] = norm

    with _hooks() as stack:
        for layer in layers:
            stack.append(model.get_submodule(layer).register_forward_hook(after_layer(layer)))
        for module in model.modules():
            if isinstance(module, _BatchNorm) and not module.training and module.running_var is not None:
                stack.append(module.register_forward_pre_hook(before_norm))
        with torch.inference_mode():
            model(torch.zeros(2, *shape_CHW))
    return {layer: norm for layer, norm in found.items() if float(_factors(norm)[0].abs().min()) >= MIN_FACTOR}


@contextlib.contextmanager
def _hooks() -> Iterator[list[Any]]:
    handles: list[Any] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def _factors(norm: Any) -> tuple[Tensor, Tensor]:
    """Return the factor and the offset of each channel that a batch norm applies."""
    with torch.no_grad():
        factor_C = 1 / (norm.running_var.double() + norm.eps).sqrt()
        offset_C = -norm.running_mean.double() * factor_C
        if norm.affine:
            factor_C, offset_C = factor_C * norm.weight.double(), offset_C * norm.weight.double() + norm.bias.double()
    return factor_C, offset_C


def _undo_norm(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return the scale_F and shift_F by which the stats_NF of its inputs follow from those of its outputs."""
    factor_C, offset_C = (values_C[:: channel_step(len(values_C))] for values_C in _factors(norm))
    scale_F = torch.cat([1 / factor_C, 1 / factor_C.abs()])
    shift_F = torch.cat([-offset_C / factor_C, torch.zeros_like(offset_C)])
    return scale_F.float(), shift_F.float()
