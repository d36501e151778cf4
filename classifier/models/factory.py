"""Build a model from its settings, and check that it accepts the images before training starts."""

import importlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classifier.config.fields import suggest
from classifier.config.sections import ModelConfig, Task
from classifier.config.trust import check_trusted, is_import_path
from classifier.errors import ClassifierError, ModelError, in_short
from classifier.models import external, transfer, zoo
from classifier.models.catalogue import MODELS, ZOO, names
from classifier.models.fusion import fusion_net
from classifier.models.ordinal_head import OrdinalHead, set_ordinal_head
from classifier.models.stochastic_depth import set_stochastic_depth
from classifier.models.widths import apply_widths

# Image sizes that an error message may suggest, in pixels.
_SUGGESTED_SIZES = (16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 299, 320, 384, 448, 512)


def build(
    config: ModelConfig,
    *,
    classes: int,
    channels: int,
    size: int,
    weights: bool = True,
    class_names: Sequence[str] | None = None,
    task: Task = "multiclass",
    column_widths: Sequence[int] = (),
) -> nn.Module:
    """Build the model for images (N, channels, size, size) and outputs (N, classes), in training mode on the CPU.

    In training a model with auxiliary heads returns a tuple, logits first. weights: whether to load model.weights;
    class_names: of the outputs, so that a head for other classes is not taken over. task: ordinal has a head of its own
    (ordinal_head.py). column_widths: numbers of each column that joins the image: then the model is a FusionNet
    (fusion/fusion_net.py), of the image model with its weights. ModelError if the name is unknown, the model does not
    accept the images, or the weights do not fit.
    """
    constructor = get_constructor(config)
    try:
        model = constructor(config, classes=classes, channels=channels, size=size)
        if config.drop_path is not None:
            set_stochastic_depth(model, config.drop_path, config.name)
        apply_widths(model, config)
        if task == "ordinal":
            set_ordinal_head(model, config.name, classes)
        is_own = config.name in MODELS and not config.widths
        logits_NK = None if is_own else _try_forward(model, config, channels, size)
    except ClassifierError:
        raise
    except Exception as error:  # timm's models and the user's own code may raise anything
        raise ModelError(_explain_failure(config, classes, channels, size, error)) from error
    if logits_NK is not None and tuple(logits_NK.shape) != (2, classes):
        raise ModelError(
            f"model.name {config.name}: two images give outputs of shape {tuple(logits_NK.shape)}, not (2, {classes}): "
            "return one logit per class"
        )
    if task == "ordinal" and not is_own:
        _check_ordinal_head(model, config, channels, size)
    if weights and config.weights is not None and not config.widths:  # pruned ones come from a checkpoint
        transfer.load_weights(model, config, class_names)
    if not column_widths:
        return model
    fused = fusion_net.wrap(model, config, column_widths, classes=classes, is_multilabel=task == "multilabel")
    if not is_own:
        try:
            _try_forward(fused, config, channels, size)
        except Exception as error:  # as where a model reshapes what its head says
            raise ModelError(
                f"model.name {config.name}: its last linear layer does not give its outputs, as columns that join the "
                "image need: choose another model, or leave data.columns out"
            ) from error
    return fused


def _check_ordinal_head(model: nn.Module, config: ModelConfig, channels: int, size: int) -> None:
    """ModelError if the model changes what its head says, as by a ReLU after it."""
    said: list[torch.Tensor] = []

    def listen(_head: nn.Module, _inputs: Any, output: Any) -> None:
        said.append(output)

    hooks = [head.register_forward_hook(listen) for head in model.modules() if isinstance(head, OrdinalHead)]
    outputs = _try_forward(model, config, channels, size)
    for hook in hooks:
        hook.remove()
    if not any(outputs is output for output in said):
        raise ModelError(
            f"model.name {config.name}: its last linear layer does not give its outputs, as ordered grades need: "
            "choose another model"
        )


def count_parameters(model: nn.Module) -> int:
    """Count the parameters of a model, without buffers."""
    return sum(parameter.numel() for parameter in model.parameters())


def check_sizes(model: nn.Module, config: ModelConfig, *, channels: int, sizes: Iterable[int]) -> None:
    """ModelError if the model, built for images of data.size, does not accept those of the training's other sizes."""
    for size in sizes:
        try:
            _try_forward(model, config, channels, size)
        except Exception as error:  # timm's models and the user's own code may raise anything
            reason = f"{type(error).__name__}: {in_short(error, 200)}".rstrip(" .:")
            raise ModelError(
                f"model.name {config.name} does not accept images of {size} pixels beside those of data.size "
                f"({reason}): set schedule.size_from and schedule.size_to to 1, or choose another model"
            ) from error


def check_name(config: ModelConfig, data: Path) -> None:
    """ModelError if there is no such model, or one of the user's own may not be imported. data: the images' folder."""
    get_constructor(config)
    if is_import_path(config.name):
        check_trusted(config.name)
        external.refuse_location(config.name.partition(":")[0], f"model.name {config.name}", data.resolve())


def get_constructor(config: ModelConfig) -> Callable[..., nn.Module]:
    """Return the function that builds model.name. ModelError if there is no such model."""
    name = config.name
    if name in MODELS:
        return _build_own
    if name in ZOO:
        return zoo.build
    if name.startswith("timm/"):
        return external.build_timm
    if is_import_path(name):
        return external.build_from_path
    known = f": choose {', '.join(MODELS)}, a torchvision classifier, timm/NAME or module:Class"
    raise ModelError(f"model.name {name}: no such model{suggest(name, names()) or known}")


def _build_own(config: ModelConfig, *, classes: int, channels: int, size: int) -> nn.Module:
    module, _, attribute = MODELS[config.name].partition(":")
    make = getattr(importlib.import_module(module), attribute)
    return make(classes=classes, channels=channels, size=size, norm=config.norm, dropout=config.dropout)


def _try_forward(model: nn.Module, config: ModelConfig, channels: int, size: int) -> torch.Tensor:
    """Return the logits of two images, for their shape; raises whatever the model raises.

    Computes shapes only, on PyTorch's meta device: a fraction of a second for a model of any size. Where that fails, as
    it does for a user's model that creates tensors in forward(), runs the model on two black images instead.
    """
    if config.name in ZOO:
        return forward_on_meta(model, channels, size)
    try:
        return forward_on_meta(model, channels, size)
    except Exception:  # the user's code may raise anything on meta tensors; a broken model fails again below
        was_training = model.training
        try:
            with torch.no_grad():
                return _first_output(model.eval()(torch.zeros(2, channels, size, size)))
        finally:
            model.train(was_training)


def forward_on_meta(model: nn.Module, channels: int, size: int) -> torch.Tensor:
    """Return the logits of two images in training mode as a meta tensor; raises whatever the model raises."""
    state = {name: tensor.to("meta") for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    with torch.no_grad():
        images_NCHW = torch.empty(2, channels, size, size, device="meta")
        return _first_output(torch.func.functional_call(model, state, (images_NCHW,)))


def _first_output(outputs: Any) -> torch.Tensor:
    return outputs[0] if isinstance(outputs, tuple) else outputs


def _explain_failure(config: ModelConfig, classes: int, channels: int, size: int, error: Exception) -> str:
    """Explain in one sentence why the model does not accept the images; suggest a larger size that works, if any."""
    reason = f"{type(error).__name__}: {in_short(error, 200)}".rstrip(" .:")
    problem = f"model.name {config.name} does not accept {channels} x {size} x {size} images ({reason})"
    for larger in (s for s in _SUGGESTED_SIZES if s > size and config.name in ZOO):
        try:
            with torch.device("meta"):
                model = zoo.build(config, classes=classes, channels=channels, size=larger)
                forward_on_meta(model, channels, larger)
        except (ModelError, RuntimeError, ValueError):  # what torch and torchvision raise for too small images
            continue
        return f"{problem}: set data.size to {larger}, or choose another model"
    return f"{problem}: choose another model, data.size or data.channels"
