"""Make a model from its settings, and make sure that it takes the images before anybody trains it."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from classifier.config.fields import suggest
from classifier.config.sections import ModelConfig
from classifier.errors import ClassifierError, ModelError, in_short
from classifier.models import external, transfer, zoo
from classifier.models.catalogue import MODELS, ZOO, names

# Sizes that an error may propose, in pixels.
_SIZES = (16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 299, 320, 384, 448, 512)


def build(config: ModelConfig, *, classes: int, channels: int, size: int, weights: bool = True) -> nn.Module:
    """The model for images (N, channels, size, size), with outputs (N, classes), in training mode on the CPU.

    In training a model with auxiliary heads gives a tuple, the logits first. weights: whether to load model.weights.
    ModelError if the name is unknown, the model refuses the images, or the weights do not fit.
    """
    make = maker(config)
    try:
        model = make(config, classes=classes, channels=channels, size=size)
        logits_NK = None if config.name in MODELS else _trial(model, config, channels, size)
    except ClassifierError:
        raise
    except Exception as error:  # timm's models and the user's own code may raise anything
        raise ModelError(_refusal(config, classes, channels, size, error)) from error
    if logits_NK is not None and tuple(logits_NK.shape) != (2, classes):
        raise ModelError(
            f"model.name {config.name}: two images give outputs of shape {tuple(logits_NK.shape)}, not (2, {classes}): "
            "it must return one logit a class"
        )
    if weights and config.weights is not None:
        transfer.load(model, config)
    return model


def parameter_count(model: nn.Module) -> int:
    """How many numbers training can change; buffers are not counted."""
    return sum(parameter.numel() for parameter in model.parameters())


def maker(config: ModelConfig) -> Callable[..., nn.Module]:
    """What makes the model that model.name names. ModelError if there is no such model."""
    name = config.name
    if name in MODELS:
        return _own
    if name in ZOO:
        return zoo.build
    if name.startswith("timm/"):
        return external.from_timm
    if ":" in name:
        return external.from_path
    near = suggest(name, names()) or ": choose one of " + ", ".join(MODELS) + ", a torchvision classifier, timm/NAME"
    raise ModelError(f"model.name {name}: there is no such model{near}")


def _own(config: ModelConfig, *, classes: int, channels: int, size: int) -> nn.Module:
    module, _, attribute = MODELS[config.name].partition(":")
    make = getattr(importlib.import_module(module), attribute)
    return make(classes=classes, channels=channels, size=size, norm=config.norm, dropout=config.dropout)


def _trial(model: nn.Module, config: ModelConfig, channels: int, size: int) -> torch.Tensor:
    """The logits of two images in training, for their shape; raises whatever the model raises.

    Shapes alone are computed (on PyTorch's meta device), in a fraction of a second however large the model is. A
    class of the user's may mix in tensors of its own making, which cannot do that: then it computes black images.
    """
    if config.name in ZOO:
        return _meta_trial(model, channels, size)
    try:
        return _meta_trial(model, channels, size)
    except Exception:  # any code may fail without values; a model that is really broken fails again below
        was_training = model.training
        try:
            with torch.no_grad():
                return _logits(model.eval()(torch.zeros(2, channels, size, size)))
        finally:
            model.train(was_training)


def _meta_trial(model: nn.Module, channels: int, size: int) -> torch.Tensor:
    state = {name: tensor.to("meta") for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    with torch.no_grad():
        images_NCHW = torch.empty(2, channels, size, size, device="meta")
        return _logits(torch.func.functional_call(model, state, (images_NCHW,)))


def _logits(outputs: Any) -> torch.Tensor:
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _refusal(config: ModelConfig, classes: int, channels: int, size: int, error: Exception) -> str:
    """One sentence on a model that cannot take the images, with a size that it can take, where there is one."""
    reason = f"{type(error).__name__}: {in_short(error, 200)}".rstrip(" .:")
    words = f"model.name {config.name} cannot take {channels} x {size} x {size} images ({reason})"
    for larger in (s for s in _SIZES if s > size and config.name in ZOO):
        try:
            with torch.device("meta"):
                model = zoo.build(config, classes=classes, channels=channels, size=larger)
                _trial(model, config, channels, larger)
        except (ModelError, RuntimeError, ValueError):  # torch's and torchvision's errors on maps that are too small
            continue
        return f"{words}: set data.size to {larger}, or choose another model"
    return f"{words}: choose another model, data.size or data.channels"
