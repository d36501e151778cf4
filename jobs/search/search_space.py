"""The space of a search: read, checked before its first trial, and described."""

from collections.abc import Collection, Iterator

from classifier import models
from classifier.config.experiment import Experiment
from classifier.config.files import read_yaml
from classifier.data.dataset import Dataset
from classifier.errors import ClassifierError, ConfigError
from classifier.search.space import Choice, Interval, Space, describe_values, expand_grid, parse_space
from classifier.training.resolve import resolve

from .schedulers import make_scheduler

# Settings whose possible values depend on the machine that runs a trial.
MACHINE_SETTINGS = ("train.device", "train.precision")


def build_space(experiment: Experiment, dataset: Dataset) -> Space:
    """Build the search space. ConfigError if it, the scheduler or a model refuses any of its values."""
    search = experiment.search
    file = read_yaml(search.space) if search.space else {}
    space = parse_space(search.vary, file, experiment, len(dataset.train))
    make_scheduler(experiment, space)
    if search.algorithm == "grid":
        expand_grid(space)
    _refuse_impossible_values(experiment, space, dataset)
    return space


def describe_space(experiment: Experiment, dataset: Dataset) -> Iterator[str]:
    """Lines on the space of a search that is not started. ConfigError if the search would refuse it."""
    yield "search space:"
    yield from describe_values(build_space(experiment, dataset))


def without_architectures(space: Space, names: Collection[str]) -> Space:
    """The space without these values of model.name."""
    values = space.get("model.name")
    if not isinstance(values, Choice):
        return space
    return space | {"model.name": Choice(tuple(name for name in values.values if name not in names))}


def _refuse_impossible_values(experiment: Experiment, space: Space, dataset: Dataset) -> None:
    """ConfigError for a value that a model or this data set does not allow."""
    # Trials check what depends on the machine: this one may run none.
    any_machine = experiment.override_all(dict.fromkeys(MACHINE_SETTINGS, "auto"))
    for name, values in space.items():
        if name in MACHINE_SETTINGS:
            continue
        ends = (values.low, values.high) if isinstance(values, Interval) else ()
        for value in values.values if isinstance(values, Choice) else ends:
            try:
                tried = any_machine.override(
                    name, int(value) if isinstance(values, Interval) and values.is_integer else value
                )
                if not values.when:  # else it may be possible only under its conditions
                    resolve(tried, dataset)
                if name.startswith("model."):
                    shape = {"channels": dataset.channels, "size": dataset.size, "task": dataset.task}
                    models.build(tried.model, classes=len(dataset.class_names), **shape, weights=False)
            except ClassifierError as error:
                raise ConfigError(f"the search space of {name} contains {value!r}: {error}") from None
