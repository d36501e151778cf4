"""The statistics of a model's layers, measured inside a graph at little cost: they tell strange images."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from classifier.inference.out_of_distribution import channel_step

# Smaller factors of a batch norm are not undone: the error of its output would grow.
MIN_FACTOR = 1e-2


class LayerStatistics(nn.Module):
    """Hooks on the layers of a model, and the stats_NF that follow from its forward pass.

    They are those of out_of_distribution.channel_statistics. A runtime computes a convolution together with the batch
    norm behind it, unless the output of the convolution itself is wanted: so they are measured behind the norm, which
    is an affine map per channel, and mapped back. The standard deviation is computed from the mean of squares, in one
    pass over the activations, and what is done per channel is done for all layers at once.

    is_exact: measure at the layers themselves, in two passes. Where the values of a channel are nearly the same, the
    cheaper way has lost the digits that matter.
    """

    scale_F: Tensor
    shift_F: Tensor
    selected_F: Tensor

    def __init__(
        self, model: nn.Module, layers: Sequence[str], shape_CHW: tuple[int, ...], *, is_exact: bool = False
    ) -> None:
        super().__init__()
        self._layers, self._is_exact = tuple(layers), is_exact
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        norms = {} if is_exact else _find_following_norms(model, layers, shape_CHW)
        for layer in layers:
            (norms.get(layer) or model.get_submodule(layer)).register_forward_hook(self._make_hook(layer))
        _try_out(model, shape_CHW)
        counts = [self._moments[layer][0].shape[1] for layer in layers]
        self._moments.clear()
        factors, offsets, selected, start = [torch.ones(0)], [torch.zeros(0)], [], 0
        for layer, count in zip(layers, counts, strict=True):
            norm = norms.get(layer)
            factor_C, offset_C = _factors(norm) if norm else (torch.ones(count), torch.zeros(count))
            factors.append(factor_C)
            offsets.append(offset_C)
            picked = torch.arange(start, start + count, channel_step(count))
            selected += [picked, picked + sum(counts)]  # means, then standard deviations
            start += count
        self._widths = [2 * len(picked) for picked in selected[::2]]
        factor_C, offset_C = torch.cat(factors).double(), torch.cat(offsets).double()
        self.register_buffer("scale_F", torch.cat([1 / factor_C, 1 / factor_C.abs()]).float())
        self.register_buffer("shift_F", torch.cat([-offset_C / factor_C, torch.zeros_like(offset_C)]).float())
        self.register_buffer("selected_F", torch.cat([*selected, torch.arange(0)]))

    def _make_hook(self, layer: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            self._moments.setdefault(layer, _measure_moments(output, is_central=self._is_exact))  # of the first view

        return hook

    def forward(self) -> tuple[Tensor, ...]:
        """Return the stats_NF of each layer, of the first forward pass since the last call."""
        moments = [self._moments[layer] for layer in self._layers]
        self._moments.clear()
        if not moments:
            return ()
        mean_NC, square_NC = (torch.cat(parts, 1).flatten(1) for parts in zip(*moments, strict=True))
        variance_NC = square_NC if self._is_exact else (square_NC - mean_NC * mean_NC).clamp(min=0)
        std_NC = variance_NC.sqrt()
        stats_NF = torch.cat([mean_NC, std_NC], 1) * self.scale_F + self.shift_F
        return stats_NF.index_select(1, self.selected_F).split(self._widths, 1)


def _measure_moments(output: Tensor, *, is_central: bool) -> tuple[Tensor, Tensor]:
    """Return each channel's mean and mean square (of differences to the mean if central), N x C x 1 x 1."""
    if output.ndim == 4:
        values_NCHW = output
    elif output.ndim == 3:  # a transformer's tokens
        values_NCHW = output.transpose(1, 2)[..., None]
    else:
        values_NCHW = output.flatten(1)[..., None, None]
    mean_NC11 = values_NCHW.mean((2, 3), keepdim=True)
    if is_central:
        values_NCHW = values_NCHW - mean_NC11
    return mean_NC11, (values_NCHW * values_NCHW).mean((2, 3), keepdim=True)


def _find_following_norms(model: nn.Module, layers: Sequence[str], shape_CHW: tuple[int, ...]) -> dict[str, nn.Module]:
    """Return the batch norm that directly follows each layer which has one, and whose factors can be undone."""
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

    with contextlib.ExitStack() as hooks:
        for layer in layers:
            handle = model.get_submodule(layer).register_forward_hook(after_layer(layer))
            hooks.callback(handle.remove)
        for module in model.modules():
            # timm's norms of a class of their own have an activation inside, which cannot be undone.
            is_plain = isinstance(module, _BatchNorm) and type(module).forward is _BatchNorm.forward
            if is_plain and module.running_var is not None:
                hooks.callback(module.register_forward_pre_hook(before_norm).remove)
        _try_out(model, shape_CHW)
    return {layer: norm for layer, norm in found.items() if float(_factors(norm)[0].abs().min()) >= MIN_FACTOR}


def _try_out(model: nn.Module, shape_CHW: tuple[int, ...]) -> None:
    with torch.inference_mode():
        model(torch.zeros(2, *shape_CHW))


def _factors(norm: Any) -> tuple[Tensor, Tensor]:
    """Return the factor and the offset of each channel that a batch norm applies."""
    with torch.no_grad():
        factor_C = 1 / (norm.running_var.double() + norm.eps).sqrt()
        offset_C = -norm.running_mean.double() * factor_C
        if norm.affine:
            factor_C, offset_C = factor_C * norm.weight.double(), offset_C * norm.weight.double() + norm.bias.double()
    return factor_C, offset_C
