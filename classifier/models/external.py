"""Models from elsewhere: timm's by name, and a class or function of the user's by import path."""

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from classifier.config.fields import suggest
from classifier.config.sections import ModelConfig
from classifier.errors import ClassifierError, ModelError, in_short
from classifier.models.head import drop_before_head

# What a user's class may call the number of classes, the channels and the side of an image.
_WORDS = {
    "classes": ("classes", "num_classes", "n_classes"),
    "channels": ("channels", "in_channels", "in_chans", "num_channels"),
    "size": ("size", "image_size", "img_size"),
}


def from_timm(config: ModelConfig, *, classes: int, channels: int, size: int) -> nn.Module:
    """timm/NAME with random weights. ModelError if timm is not installed, or knows no such model."""
    name = config.name.removeprefix("timm/")
    timm = _timm(config.name)
    base = name.partition(".")[0]
    if not timm.is_model(base):
        near = suggest(base, timm.list_models())
        raise ModelError(f"model.name {config.name}: timm has no such model{near.replace('mean ', 'mean timm/')}")
    options: dict[str, Any] = {"num_classes": classes, "in_chans": channels, "drop_rate": config.dropout}
    try:
        return timm.create_model(name, img_size=size, **options)  # transformers need the size
    except TypeError:
        return timm.create_model(name, **options)


def timm_weights(name: str) -> dict[str, Tensor]:
    """timm's pretrained weights of timm/NAME, downloaded once. Raises what timm raises when that fails."""
    return dict(_timm(name).create_model(name.removeprefix("timm/"), pretrained=True).state_dict())


def timm_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std) a channel that the weights of timm/NAME were trained with, where timm knows them."""
    known = _timm(name).get_pretrained_cfg(name.removeprefix("timm/"), allow_unregistered=True)
    return None if known is None else (known.mean, known.std)


def from_path(config: ModelConfig, *, classes: int, channels: int, size: int) -> nn.Module:
    """import.path:Class, looked for in the current folder too; it is called with what its signature has a word for.

    ModelError if it cannot be imported, takes no number of classes, or makes no torch.nn.Module.
    """
    path, _, attribute = config.name.partition(":")
    where = f"model.name {config.name}"
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last, so that a file here never hides a library
    try:
        make = importlib.import_module(path)
    except ClassifierError:
        raise
    except Exception as error:  # importing runs the user's code, which may raise anything
        reason = f"{type(error).__name__}: {in_short(error, 200)}"
        raise ModelError(f"{where}: {path} cannot be imported from {here} ({reason})") from error
    for part in attribute.split("."):
        if not hasattr(make, part):
            near = suggest(part, [name for name in vars(make) if not name.startswith("_")])
            raise ModelError(f"{where}: there is no {part} in {path}{near}")
        make = getattr(make, part)
    if not callable(make):
        raise ModelError(f"{where}: it is no class or function, but {type(make).__name__}")
    model = make(**_arguments(where, make, classes=classes, channels=channels, size=size))
    if not isinstance(model, nn.Module):
        raise ModelError(f"{where}: it makes {type(model).__name__}, not a torch.nn.Module")
    if config.dropout:
        drop_before_head(model, config.dropout)
    return model


def _arguments(where: str, make: Callable[..., Any], **known: int) -> dict[str, int]:
    parameters = inspect.signature(make).parameters
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    found = {}
    for noun, words in _WORDS.items():
        word = next((w for w in words if w in parameters), noun if takes_any else None)
        if word is not None:
            found[word] = known[noun]
    if not any(word in found for word in _WORDS["classes"]):
        raise ModelError(f"{where}: it takes no number of classes; give it a parameter named classes or num_classes")
    return found


def _timm(name: str) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ModelError(f"model.name {name}: timm is not installed; pip install -e '.[timm]' brings it") from error
    return timm
