"""Models by name: the project's own, torchvision's, timm's, or the user's class. Imports torch only when needed."""

import importlib
from typing import TYPE_CHECKING, Any

from classifier.models.catalogue import MODELS, ZOO, names

if TYPE_CHECKING:
    from classifier.models.factory import build, count_parameters
    from classifier.models.head import head_modules, head_parameter_names
    from classifier.models.transfer import freeze_early_layers, freeze_statistics, pretrained_statistics, set_frozen

__all__ = [
    "MODELS",
    "ZOO",
    "build",
    "count_parameters",
    "freeze_early_layers",
    "freeze_statistics",
    "head_modules",
    "head_parameter_names",
    "names",
    "pretrained_statistics",
    "set_frozen",
]

_DEFINED_IN = {
    "build": "factory",
    "freeze_early_layers": "transfer",
    "freeze_statistics": "transfer",
    "head_modules": "head",
    "head_parameter_names": "head",
    "count_parameters": "factory",
    "pretrained_statistics": "transfer",
    "set_frozen": "transfer",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'classifier.models' has no attribute {name!r}")
    return getattr(importlib.import_module(f"classifier.models.{_DEFINED_IN[name]}"), name)
