"""Optimizers with parameter groups: with and without weight decay, and slower learning rates for a backbone."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from classifier.config.sections import OptimizerConfig
from classifier.models.transfer import number_layers
from classifier.runtime import eager_optimizer
from classifier.training.muon import Muon

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
# Parts of names of parameters that transformers add to features, like biases, though they are no vectors.
_ADDITIVE_NAMES = ("bias", "pos_embed", "position", "_token")


def build(
    config: OptimizerConfig,
    model: nn.Module,
    *,
    head_names: frozenset[str],
    is_pretrained: bool = False,
    dtype: torch.dtype = torch.float32,
) -> torch.optim.Optimizer:
    """Build the optimizer over all parameters, including frozen ones, which may be unfrozen: SGD (Nesterov), Adam,
    AdamW, LAMB (Y. You et al., "Large batch optimization for deep learning", 2020) or Muon.

    head_names: parameters of the head; if is_pretrained, the others' learning rate is multiplied by
    config.backbone_scale; with config.layer_decay, each layer has its own. dtype: of Muon's matrix products. Each group
    has `scale` and `base_momentum` for set_lr. Biases, norms and other vectors get no weight decay.
    """
    no_decay = _names_without_decay(model)
    scales = _scale_layers(model, config.layer_decay) if config.layer_decay is not None else {}
    groups: dict[tuple[bool, float, bool, bool], list[nn.Parameter]] = {}
    for i, (name, parameter) in enumerate(model.named_parameters()):
        is_slow = is_pretrained and name not in head_names
        # Muon is for hidden layers: not for the first layer, whose inputs are pixels, nor for the head.
        is_hidden = config.name == "muon" and i > 0 and name not in no_decay and name not in head_names
        scale = scales.get(name, config.backbone_scale if is_slow else 1.0)
        groups.setdefault((is_slow, scale, name not in no_decay, is_hidden), []).append(parameter)
    settings = [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decays else 0.0,
            "scale": scale,
            "base_momentum": config.momentum,
        }
        | ({"orthogonal": is_hidden} if config.name == "muon" else {})
        for (_, scale, decays, is_hidden), parameters in groups.items()
    ]
    # Not fused: torch's fused CPU kernels assume that a gradient or restored momentum has the memory layout of its
    # weight, and are silently wrong otherwise. By default torch uses foreach on a GPU, and a loop on a CPU.
    if config.name == "sgd":
        nesterov = config.momentum > 0
        optimizer = eager_optimizer.SGD(settings, lr=config.lr, momentum=config.momentum, nesterov=nesterov)
    elif config.name == "muon":
        optimizer = Muon([group | {"momentum": config.momentum} for group in settings], lr=config.lr, dtype=dtype)
    elif config.name == "lamb":
        from timm.optim.lamb import Lamb

        # Gradients are clipped by optimizer.clip alone.
        optimizer = Lamb(settings, lr=config.lr, betas=(config.momentum, 0.999), max_grad_norm=None)
    else:
        kind = eager_optimizer.Adam if config.name == "adam" else eager_optimizer.AdamW
        optimizer = kind(settings, lr=config.lr, betas=(config.momentum, 0.999))
    set_lr(optimizer, config.lr)
    return optimizer


def set_lr(optimizer: torch.optim.Optimizer, lr: float, momentum_shift: float | None = None) -> None:
    """Set each group's learning rate to lr times its scale, and its momentum (or first beta) to the base plus a shift.

    momentum_shift: see schedule.scale_at; None leaves the momentum unchanged. A momentum of 0 stays 0.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
        if momentum_shift is None or group["base_momentum"] == 0:
            continue
        momentum = min(max(group["base_momentum"] + momentum_shift, 0.0), 0.999)
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum


def load_state(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load what optimizer.state_dict() returned, in the memory layout of the parameters.

    A checkpoint has none, and in another layout sums such as LAMB's norms differ in the last bit. Errors of torch.
    """
    optimizer.load_state_dict(state)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _scale_layers(model: nn.Module, decay: float) -> dict[str, float]:
    """Return each parameter's scale: decay to the power of its layer's distance from the last, which has the head.

    H. Bao et al., "BEiT", 2022.
    """
    layers = number_layers(model)
    last = max(layers.values())
    return {name: decay ** (last - layer) for name, layer in layers.items()}


def _names_without_decay(model: nn.Module) -> set[str]:
    """Names of parameters without weight decay: vectors (shapes like C x 1 x 1 too), norms, additive terms."""
    norms = {id(p) for module in model.modules() if isinstance(module, _NORMS) for p in module.parameters()}
    return {
        name
        for name, parameter in model.named_parameters()
        if id(parameter) in norms
        or parameter.numel() == max(parameter.shape, default=1)
        or any(word in name.rpartition(".")[2] for word in _ADDITIVE_NAMES)
    }
