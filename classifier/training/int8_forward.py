"""Quantisation-aware training: the forward pass rounds as int8 does, and gradients pass through unchanged.

B. Jacob et al., "Quantization and training of neural networks for efficient integer-arithmetic-only inference", 2018.
Ranges are those of each batch, so that there is no state beside the weights.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

_STEPS = 255
_MIN_SCALE = 1e-8


def forward_in_int8(network: nn.Module, *inputs: Tensor) -> Any:
    """Run the network with weights of convolutions and linear layers in s8 per channel, and their inputs in u8.

    inputs: images_NCHW, and columns_NF where these join the images.
    """
    layers = {name: module for name, module in network.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))}
    weights = {f"{name}.weight": round_weights(layer.weight) for name, layer in layers.items()}
    hooks = [layer.register_forward_pre_hook(_round_inputs) for layer in layers.values()]
    try:
        return functional_call(network, weights, inputs)
    finally:
        for hook in hooks:
            hook.remove()


def round_weights(weight: Tensor) -> Tensor:
    """Round to 255 steps, symmetric around 0, for each output channel, the first dimension."""
    limits_C = weight.detach().float().flatten(1).abs().amax(1)
    scales_C = (2 * limits_C / (_STEPS - 1)).clamp_min(_MIN_SCALE)
    zeros_C = torch.zeros_like(scales_C, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales_C, zeros_C, 0, -127, 127)


def round_inputs(inputs: Tensor) -> Tensor:
    """Round to 256 steps between the least and the largest value, of which 0 is one."""
    values = inputs.detach().float()
    low, high = values.amin().clamp_max(0), values.amax().clamp_min(0)
    scale = ((high - low) / _STEPS).clamp_min(_MIN_SCALE)
    zero = (-low / scale).round().clamp(0, _STEPS).int()
    return torch.fake_quantize_per_tensor_affine(inputs.float(), scale, zero, 0, _STEPS)


def _round_inputs(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return round_inputs(inputs[0]), *inputs[1:]
