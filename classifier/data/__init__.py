"""Data sets: `load` finds, decodes and splits one. DATASETS holds those that are known by name."""

import importlib
import os
import re
from pathlib import Path

from classifier.config import DataConfig
from classifier.data.assembly import assemble
from classifier.data.dataset import Dataset
from classifier.data.source import Source
from classifier.data.subset import limited
from classifier.errors import DataError
from classifier.setting import closest

# Name -> a function of DataConfig that gives a Source.
DATASETS = {
    "digits": "classifier.data.digits:read",
    "mnist": "classifier.data.known:mnist",
    "fashion_mnist": "classifier.data.known:fashion_mnist",
    "kmnist": "classifier.data.known:kmnist",
    "cifar10": "classifier.data.cifar:cifar10",
    "cifar100": "classifier.data.cifar:cifar100",
    "svhn": "classifier.data.svhn:read",
    "flowers102": "classifier.data.flowers:read",
    "oxford_iiit_pet": "classifier.data.pets:read",
    "food101": "classifier.data.food:read",
    "imagenet": "classifier.data.imagenet:read",
}


def load(config: DataConfig) -> Dataset:
    """The data set at config.path: an existing path, else the name of a known one (cifar10 and CIFAR-10 alike).

    DataError in one sentence if it is missing, or cannot be trained and tested on.
    """
    dataset = assemble(find(config), config)
    return limited(dataset, config.limit, config.split_seed) if config.limit else dataset


def find(config: DataConfig) -> Source:
    """What lies at config.path, before anything is decoded. DataError if there is nothing to learn from."""
    path = Path(os.path.expanduser(config.path))
    if not os.path.exists(path):  # unlike Path.exists, no error on what no file can be called
        return _known(config)
    if path.is_dir():
        from classifier.data import folder, idx

        return idx.read(path) if idx.is_here(path) else folder.read(path)
    from classifier.data import table

    return table.read(path)


def _known(config: DataConfig) -> Source:
    names = {_key(name): home for name, home in DATASETS.items()}
    home = names.get(_key(config.path))
    if home is None:
        parent = Path(config.path).parent
        beside = [str(parent / name) for name in os.listdir(parent)] if os.access(parent, os.R_OK) else []
        mend = closest(config.path, [*DATASETS, *beside]) or f": give a folder, a manifest or {', '.join(DATASETS)}"
        raise DataError(f"{config.path} does not exist, and no known data set has that name{mend}")
    module, _, attribute = home.partition(":")
    return getattr(importlib.import_module(module), attribute)(config)


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())
