"""Transfer learning: fit pretrained weights to the model and its classes, freeze the backbone."""

import functools
import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classifier.config.sections import ModelConfig
from classifier.errors import ClassifierError, ModelError, in_short
from classifier.models import external, hub, zoo
from classifier.models.catalogue import ZOO
from classifier.models.head import head_modules, head_parameter_names
from classifier.models.installed_weights import find_installed_weights
from classifier.models.rename import convert_state_dict
from classifier.models.weights_file import WeightsFile, read_weights
from classifier.text import show

_log = logging.getLogger(__name__)

# Of the layers, which `freeze_early_layers` freezes.
EARLY_SHARE = 2 / 3
# Parameters in a row that count as a layer, as in timm, in models that do not tell their layers.
LAYER_PARAMETERS = 12

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's preprocessing, for all its weights
_MAX_TOKENS = 1 << 16
_POSITIONS = ("encoder.pos_embedding", "pos_embed", "positions")


def load_weights(model: nn.Module, config: ModelConfig, class_names: Sequence[str] | None = None) -> None:
    """Load model.weights into the model: imagenet, or a local .safetensors or .pth file.

    A head for other classes starts at zero; class_names: those of the model's outputs, if they are known. RGB kernels
    are summed for greyscale. A vision transformer's position embeddings are resized. ModelError if there are no such
    weights or less than half of the backbone fits.
    """
    assert config.weights is not None
    where = f"model.weights {config.weights}"
    file = _read_imagenet(config) if config.weights == "imagenet" else read_weights(config.weights)
    own = model.state_dict()
    state = convert_state_dict(file.tensors, own)
    adapted = {name: _adapt_shape(name, old, own[name]) for name, old in state.items() if name in own}
    fitting = {name: tensor for name, tensor in adapted.items() if tensor is not None}
    heads = head_parameter_names(model)
    backbone = [name for name in own if name not in heads and own[name].is_floating_point()]
    missing = [name for name in backbone if name not in fitting]
    unknown = [name for name in state if name not in own]
    if len(missing) * 2 > len(backbone):
        mismatched = next((name for name in missing if name in state), None)
        example = (
            f"{mismatched} is {tuple(state[mismatched].shape)} there and {tuple(own[mismatched].shape)} here"
            if mismatched
            else f"it lacks {missing[0]}" + (f" and has {unknown[0]}" if unknown else "")
        )
        raise ModelError(
            f"{where} fits {len(backbone) - len(missing)} of {len(backbone)} tensors of {config.name} (for example, "
            f"{example}): set model.name to the model that these weights belong to"
        )
    for name, tensor in fitting.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise ModelError(f"{where}: {name} has values that are NaN or infinite: give other weights")
    for name, layer in head_modules(model).items():
        parts = {f"{name}.{part}" for part, _ in layer.named_parameters()}
        if not parts <= fitting.keys():  # biases without their weights mean nothing
            fitting = {name: tensor for name, tensor in fitting.items() if name not in parts}
    head, message = match_head({name: fitting.pop(name) for name in heads & fitting.keys()}, file, class_names)
    fitting |= head
    if message:
        _warn_once(f"{where}: {message}")
    model.load_state_dict(fitting, strict=False)
    for name, parameter in model.named_parameters():
        # A new head starts at zero, all classes equally likely: a random one is overconfident, and long stays so.
        if name in heads and name not in fitting:
            torch.nn.init.zeros_(parameter)
    _log.info("%s: loaded %d of %d backbone tensors", where, len(backbone) - len(missing), len(backbone))
    for text, names in (
        ("not in the file, newly initialised", [*missing, *sorted(heads - fitting.keys())]),
        ("not in the model, ignored", unknown),
    ):
        if names:
            _log.info("%s: %s: %s%s", where, text, ", ".join(names[:5]), ", ..." if len(names) > 5 else "")


def match_head(
    tensors: dict[str, Tensor], file: WeightsFile, class_names: Sequence[str] | None
) -> tuple[dict[str, Tensor], str | None]:
    """Return the head's tensors with a row for each of these classes, or none if the file's classes are others; and
    what to tell the user, if that is not what one would expect.

    tensors: those of the file that have the head's shapes. A head without class names is kept: most are of the same
    classes, from another program.
    """
    there, here = file.class_names, None if class_names is None else tuple(class_names)
    if not tensors or here is None or there == here:
        return tensors, None
    if there is None:
        text = f"the file names no classes: its head of {len(here)} is kept, as if they were these in this order"
        return tensors, f"{text} (a head for other classes would start anew)"
    if len(set(there)) < len(there) or {*there} != {*here}:
        return {}, "its head is for other classes: this one starts anew"
    if any(len(rows) != len(here) for rows in tensors.values()):  # of ordered grades
        return {}, "its head is for grades in another order: this one starts anew"
    order_K = torch.tensor([there.index(name) for name in here])
    return {name: rows[order_K] for name, rows in tensors.items()}, "the head's classes are put in the order of these"


@functools.cache
def _warn_once(text: str) -> None:
    """A model is built more than once in a process."""
    _log.warning("%s", show(text))


def pretrained_statistics(config: ModelConfig, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the per-channel (mean, std) of images in [0, 1] that the weights of a published model expect.

    None to use the dataset's own: from scratch, and for models that are not torchvision's or timm's. With the dataset's
    own, frozen ImageNet features of cut-out photographs lost 3 to 8 points of accuracy.
    """
    if config.weights is None:
        return None
    if config.name in ZOO:
        mean, std = _IMAGENET
    elif config.name.startswith("timm/"):
        mean, std = external.timm_statistics(config.name) or _IMAGENET
    else:
        return None
    if channels == 3:
        return tuple(mean), tuple(std)
    return (sum(mean) / 3,), (sum(std) / 3,)


def set_frozen(model: nn.Module, frozen: bool) -> None:
    """Freeze or unfreeze the backbone. Puts frozen batch norms in eval mode: call it after train()."""
    heads = head_parameter_names(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in heads or not frozen)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train(model.training and not frozen)


def freeze_early_layers(model: nn.Module) -> None:
    """Freeze all but the head and the last third of the layers: the statistics of batch norms are not touched."""
    layers = number_layers(model)
    first = EARLY_SHARE * max(layers.values())
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(layers[name] >= first)


def number_layers(model: nn.Module) -> dict[str, int]:
    """Return the number of each parameter's layer, from the image to the head, which is the last.

    The layers are those that timm's models name, which count a block as one; of others, so many parameters in a row.
    """
    if hasattr(model, "group_matcher"):
        from timm.models import group_parameters

        matcher: Any = model.group_matcher(coarse=False)  # pyright: ignore[reportCallIssue]
        grouped: Any = group_parameters(model, matcher, reverse=True)
        return grouped
    heads = head_parameter_names(model)
    names = [name for name, _ in model.named_parameters() if name not in heads]
    layers = {name: i // LAYER_PARAMETERS for i, name in enumerate(names)}
    return layers | dict.fromkeys(heads, max(layers.values(), default=-1) + 1)


def freeze_statistics(model: nn.Module) -> None:
    """Put the batch norms in eval mode, so that they keep their running statistics: call it after train()."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _read_imagenet(config: ModelConfig) -> WeightsFile:
    """Read the weights of an installed package, or those in a cache, where they are downloaded to, once."""
    installed = find_installed_weights(config.name)
    return _download_imagenet(config) if installed is None else read_weights(str(installed))


def _download_imagenet(config: ModelConfig) -> WeightsFile:
    if config.name not in ZOO and not config.name.startswith("timm/"):
        raise ModelError(
            f"model.weights imagenet: {config.name} has no ImageNet weights; choose a torchvision or timm model, or "
            "give a file"
        )
    try:
        if config.name in ZOO:
            return WeightsFile(zoo.download_imagenet_weights(config.name))
        return WeightsFile(hub.load_hub_weights(config.name))
    except ClassifierError:
        raise
    except Exception as error:  # network, disk, no published weights; timm's hub client has errors of its own
        reason = f"{type(error).__name__}: {in_short(error, 160)}"
        raise ModelError(
            f"model.weights imagenet: the weights of {config.name} could not be downloaded ({reason}): give this "
            "machine the network or a copy of the cache that has them, or set model.weights to a .safetensors or .pth "
            "file of them"
        ) from error


def _adapt_shape(name: str, old: Tensor, new: Tensor) -> Tensor | None:
    """Return a file's tensor in the shape of the model's, or None if it does not fit."""
    if old.shape == new.shape:
        return old
    if old.dim() == new.dim() == 4 and {old.shape[1], new.shape[1]} == {1, 3} and old[:, 0].shape == new[:, 0].shape:
        # A greyscale image is an RGB image with three equal channels.
        return old.sum(1, keepdim=True) if new.shape[1] == 1 else old.expand(new.shape) / 3
    if name in _POSITIONS and old.dim() == new.dim() == 3 and old.shape[::2] == new.shape[::2] == (1, new.shape[2]):
        return resize_positions(old, new.shape[1])
    return None


def resize_positions(positions_1TD: Tensor, tokens: int) -> Tensor | None:
    """Interpolate position embeddings to another square grid; tokens before the grid (class tokens) keep theirs."""
    if positions_1TD.shape[1] > _MAX_TOKENS:  # a tensor may claim more than is stored of it
        return None
    old_grid, new_grid = math.isqrt(positions_1TD.shape[1]), math.isqrt(tokens)
    prefix = positions_1TD.shape[1] - old_grid**2
    if prefix != tokens - new_grid**2:
        return None
    grid_1DHW = positions_1TD[:, prefix:].transpose(1, 2).unflatten(2, (old_grid, old_grid))
    grid_1DHW = F.interpolate(grid_1DHW, (new_grid, new_grid), mode="bicubic", align_corners=False)
    return torch.cat([positions_1TD[:, :prefix], grid_1DHW.flatten(2).transpose(1, 2)], 1)
