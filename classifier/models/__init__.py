"""Models by name: the project's own, torchvision's, timm's, or a class of the user's. Torch loads when it is needed."""

import importlib
from typing import TYPE_CHECKING, Any

from classifier.models.catalogue import MODELS, ZOO, names

if TYPE_CHECKING:
    from classifier.models.factory import build, parameter_count
    from classifier.models.head import head_modules, head_names
    from classifier.models.transfer import freeze, statistics

__all__ = ["MODELS", "ZOO", "build", "freeze", "head_modules", "head_names", "names", "parameter_count", "statistics"]

_HOMES = {
    "build": "factory",
    "freeze": "transfer",
    "head_modules": "head",
    "head_names": "head",
    "parameter_count": "factory",
    "statistics": "transfer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'classifier.models' has no attribute {name!r}")
    return getattr(importlib.import_module(f"classifier.models.{_HOMES[name]}"), name)
