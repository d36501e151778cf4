"""Image classifiers: data, augmentation, models, training, evaluation.

>>> run = classifier.train(photos, progress=False, **{"train.epochs": 3, "data.batch": 16})
>>> run.test().accuracy > 0.5
True
>>> model = classifier.load(run)
>>> model.predict([image])[0].class_name
'red'
"""

import importlib
from typing import TYPE_CHECKING, Any

from classifier.extras import explain_missing
from classifier.version import __version__ as __version__

# Public name -> its module. Importing torch takes two seconds, so each module is imported on first use.
_MODULES = {
    "Bundle": "classifier.bundle.bundle",
    "ClassifierError": "classifier.errors",
    "ConfigError": "classifier.errors",
    "DataError": "classifier.errors",
    "Dataset": "classifier.data.dataset",
    "DivergedError": "classifier.errors",
    "Epoch": "classifier.training.loop",
    "Experiment": "classifier.config.experiment",
    "ModelError": "classifier.errors",
    "Prediction": "classifier.bundle.predictor",
    "Predictor": "classifier.bundle.predictor",
    "Run": "classifier.api.run",
    "RunError": "classifier.errors",
    "fit": "classifier.training.loop",
    "load": "classifier.api.run",
    "load_data": "classifier.data",
    "recipe": "classifier.config.recipes",
    "resolve": "classifier.training.resolve",
    "resume": "classifier.api.training",
    "train": "classifier.api.training",
    "trust": "classifier.config.trust",
}

if TYPE_CHECKING:
    from classifier.api.run import Run, load
    from classifier.api.training import resume, train
    from classifier.bundle.bundle import Bundle
    from classifier.bundle.predictor import Prediction, Predictor
    from classifier.config.experiment import Experiment
    from classifier.config.recipes import recipe
    from classifier.config.trust import trust
    from classifier.data import load as load_data
    from classifier.data.dataset import Dataset
    from classifier.errors import ClassifierError, ConfigError, DataError, DivergedError, ModelError, RunError
    from classifier.training.loop import Epoch, fit
    from classifier.training.resolve import resolve

__all__ = [
    "Bundle",
    "ClassifierError",
    "ConfigError",
    "DataError",
    "Dataset",
    "DivergedError",
    "Epoch",
    "Experiment",
    "ModelError",
    "Prediction",
    "Predictor",
    "Run",
    "RunError",
    "fit",
    "load",
    "load_data",
    "recipe",
    "resolve",
    "resume",
    "train",
    "trust",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'classifier' has no attribute {name!r}")
    try:
        module = importlib.import_module(_MODULES[name])
    except ImportError as error:
        if sentence := explain_missing(error):
            raise ImportError(sentence, name=error.name) from None
        raise
    return getattr(module, "load" if name == "load_data" else name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
