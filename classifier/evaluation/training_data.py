"""The data set that a model was trained on, found again. A bundle or run chooses neither what is read nor its limits.

A bundle on its own may come from anyone: the user says where its data are. The folder of a run names local paths, which
are followed. Nobody's document is followed to another machine, chooses a cache, downloads, or lifts a limit.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from classifier import data
from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import Bundle
from classifier.config.experiment import Experiment
from classifier.config.sections import DataConfig
from classifier.data.dataset import Dataset
from classifier.errors import DataError, RunError, list_few
from classifier.runs.data_location import find_data
from classifier.storage.uri import is_remote, refuse_credentials
from classifier.text import quote, show

LIMITS = ("max_pixels", "max_bytes", "max_seconds")
# Settings of `data` that only the user may set, besides the path.
USER_SETTINGS = ("root", "only", "split_from", "outside", "download", "cache", "cache_gb", *LIMITS)


def load_training_data(
    path: str | Path, bundle: Bundle, data_path: str | None = None, settings: Mapping[str, Any] | None = None
) -> Dataset:
    """Load the data set of the bundle at `path`, from `data_path` if the user has named one.

    settings: further ones of the user, such as {"data.max_pixels": 10**9}, of USER_SETTINGS. RunError if the data have
    changed, or if only the user can say where they are.
    """
    config = find_config(path, bundle, data_path, settings)
    hint = _describe_differences(Experiment.from_dict(bundle.experiment).data, config)
    try:
        dataset = data.load(config)
    except DataError as error:
        raise type(error)(f"{error}{hint}") from None
    _check_columns(bundle, dataset)
    if dataset.fingerprint != bundle.dataset["fingerprint"]:
        raise RunError(
            f"{dataset.name} has other images, labels or splits than the model was trained on: restore the data, or "
            f"train a new model on them{hint}"
        )
    return dataset


def find_config(
    path: str | Path, bundle: Bundle, data_path: str | None = None, settings: Mapping[str, Any] | None = None
) -> DataConfig:
    """Return the settings by which `load_training_data` reads the data set. RunError as there."""
    recorded = Experiment.from_dict(bundle.experiment).data
    changes = {name.removeprefix("data."): value for name, value in (settings or {}).items()}
    is_run, trained = _is_in_run(path), bundle.experiment
    config = without_choices(recorded, is_run=is_run)
    is_probe = trained["model"].get("probe", False) and trained["train"]["epochs"] == 1
    if is_probe and is_run and recorded.unlabelled is not None and not is_remote(recorded.unlabelled):
        config = dataclasses.replace(config, unlabelled=recorded.unlabelled)  # its folds are fitted again
    config = dataclasses.replace(config, **changes)
    if data_path is not None:
        return dataclasses.replace(config, path=data_path)
    _check_path(path, recorded)
    return find_data(config, bundles.find(path).parent)


def _check_columns(bundle: Bundle, dataset: Dataset) -> None:
    """RunError if the data set has other columns than those that join the images of the bundle's model."""
    own, found = (set(schema.names) if schema else set() for schema in (bundle.columns, dataset.columns))
    for names, what in ((own - found, "lacks"), (found - own, "has also")):
        if names:
            raise RunError(
                f"{dataset.name} {what} the column{'s' * (len(names) > 1)} {show(list_few(sorted(names)))}, unlike "
                "the data that the model was trained on: restore them, or train a new model on these"
            )


def without_choices(recorded: DataConfig, *, is_run: bool = False) -> DataConfig:
    """Return settings of data from a document with the user's defaults for USER_SETTINGS; limits stay if lower.

    is_run: the document is in the folder of a run, where local paths are followed.
    """
    own = DataConfig()
    changes: dict[str, Any] = {name: min(getattr(recorded, name), getattr(own, name)) for name in LIMITS}
    changes |= {"cache_gb": own.cache_gb, "download": own.download, "outside": own.outside}
    changes["cache"] = recorded.cache and own.cache
    changes["unlabelled"] = None  # no score depends on these images
    for name in ("root", "only", "split_from"):
        value = getattr(recorded, name)
        changes[name] = value if is_run and value and not is_remote(value) else getattr(own, name)
    return dataclasses.replace(recorded, **changes)


def _check_path(path: str | Path, recorded: DataConfig) -> None:
    """RunError if the data are at a place that a document may not choose, ConfigError if it contains credentials."""
    if not _is_in_run(path):
        raise RunError(
            f"{path} is a bundle without its run, which does not choose what is read: name the data set that it was "
            "trained on by --data"
        )
    if is_remote(recorded.path):
        refuse_credentials(recorded.path, f"the place of the data that {path} was trained on")
        raise RunError(
            f"{path} was trained on {recorded.path}, and no file chooses what is read from another machine: if you "
            f"trust that place, name it by --data {quote(recorded.path)}"
        )


def _is_in_run(path: str | Path) -> bool:
    folder = bundles.find(path).parent
    return (folder / "experiment.yaml").is_file() or (folder / "result.json").is_file()


def _describe_differences(recorded: DataConfig, config: DataConfig) -> str:
    """Return which settings of the training are not in effect, as far as they decide which images are read."""
    deciding = ("root", "only", "split_from", "outside", *LIMITS)
    changed = [name for name in deciding if getattr(recorded, name) != getattr(config, name)]
    if config.split_from is not None:  # that of the run itself
        changed = [name for name in changed if name != "split_from"]
    options = [f"--data.{name} {quote(str(getattr(recorded, name)).lower())}" for name in changed]
    return f" (it was trained with {' '.join(options)}, which only you can allow)" if options else ""
