"""Image classifiers: data, augmentation, models, training, evaluation. Names are imported on first use."""

import importlib
from typing import TYPE_CHECKING, Any

from classifier.version import __version__ as __version__

# Public name -> its module. Importing torch takes two seconds, so each module is imported on first use.
_MODULES = {
    "Bundle": "classifier.bundle.bundle",
    "ClassifierError": "classifier.errors",
    "Dataset": "classifier.data.dataset",
    "Epoch": "classifier.training.loop",
    "Experiment": "classifier.config.experiment",
    "Predictor": "classifier.bundle.predictor",
    "fit": "classifier.training.loop",
    "load_data": "classifier.data",
    "recipe": "classifier.config.recipes",
    "resolve": "classifier.training.resolve",
}

if TYPE_CHECKING:
    from classifier.bundle.bundle import Bundle
    from classifier.bundle.predictor import Predictor
    from classifier.config.experiment import Experiment
    from classifier.config.recipes import recipe
    from classifier.data import load as load_data
    from classifier.data.dataset import Dataset
    from classifier.errors import ClassifierError
    from classifier.training.loop import Epoch, fit
    from classifier.training.resolve import resolve

__all__ = [
    "Bundle",
    "ClassifierError",
    "Dataset",
    "Epoch",
    "Experiment",
    "Predictor",
    "fit",
    "load_data",
    "recipe",
    "resolve",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'classifier' has no attribute {name!r}")
    module = importlib.import_module(_MODULES[name])
    return getattr(module, "load" if name == "load_data" else name)
