"""Pruned models as plain data: which layers have fewer channels than their architecture, as in `model.widths`.

A layer's entry is NAME=OUTxIN of a convolution or linear layer, NAME=CHANNELS of a batch norm. Applied to the model as
built, they give the shapes that the pruned weights have, so that a bundle needs no pickled model.
"""

import re
from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from classifier.config.sections import ModelConfig
from classifier.errors import ModelError

_ENTRY = re.compile(r"([^=]+)=(\d{1,6})(?:x(\d{1,6}))?")


def read_widths(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the (outputs, inputs) of each convolution and linear layer, and the (channels,) of each batch norm."""
    found: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            found[name] = (module.out_channels, module.in_channels)
        elif isinstance(module, nn.Linear):
            found[name] = (module.out_features, module.in_features)
        elif isinstance(module, _BatchNorm):
            found[name] = (module.num_features,)
    return found


def describe_widths(original: nn.Module, pruned: nn.Module) -> tuple[str, ...]:
    """Return `model.widths` of a pruned model: the layers that are narrower than in the original."""
    before = read_widths(original)
    after = read_widths(pruned).items()
    return tuple(f"{name}={'x'.join(map(str, shape))}" for name, shape in after if shape != before[name])


def apply_widths(model: nn.Module, config: ModelConfig) -> None:
    """Make the layers of a model that was just built as narrow as `model.widths` says. ModelError if that cannot be."""
    layers = dict(model.named_modules())
    before = read_widths(model)
    for entry in config.widths:
        match = _ENTRY.fullmatch(entry)
        if not match or match[1] not in before:
            raise ModelError(f"model.widths {entry[:100]}: {config.name} has no such layer, or it cannot be narrower")
        name, shape = match[1], tuple(int(count) for count in match.groups()[1:] if count)
        fits = len(shape) == len(before[name]) and all(
            0 < new <= old for new, old in zip(shape, before[name], strict=True)
        )
        if not fits or not _narrow(layers[name], shape):
            was = "x".join(map(str, before[name]))
            raise ModelError(
                f"model.widths {entry[:100]}: the layer of {config.name} has {was} channels, and fewer fit"
            )


def _narrow(layer: nn.Module, shape: Sequence[int]) -> bool:
    """Cut the layer's parameters to this shape; return whether it fits the groups of a convolution."""
    out, *inputs = shape
    if isinstance(layer, nn.Conv2d):
        is_depthwise = layer.groups == layer.in_channels
        groups = inputs[0] if is_depthwise else layer.groups
        if out % groups or inputs[0] % groups:
            return False
        layer.out_channels, layer.in_channels, layer.groups = out, inputs[0], groups
        columns = inputs[0] // groups
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = out, inputs[0]
        columns = inputs[0]
    elif isinstance(layer, _BatchNorm):
        layer.num_features, columns = out, None
        for name in ("running_mean", "running_var"):
            if (buffer := getattr(layer, name)) is not None:
                setattr(layer, name, buffer[:out].clone())
    else:
        return False
    for name, parameter in list(layer.named_parameters(recurse=False)):
        values = parameter.detach()[:out]
        values = values[:, :columns] if values.ndim > 1 else values
        setattr(layer, name, nn.Parameter(values.clone()))
    return True
