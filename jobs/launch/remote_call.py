"""Call a function on a machine like those that run trials.

A cluster's driver often runs on a head node without a GPU or free cores; what a plan measures must be measured where
trials run.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import ray
import torch

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.training.resolve import resolve

from .cluster import DriverContext, largest_node_cores, worker_resources
from .shared_dataset import SharedDataset

T = TypeVar("T")


class MeasurementNode:
    """A node with the resources that one trial reserves: this machine if it has them, else one chosen by Ray."""

    def __init__(self, requested: Experiment, dataset: Dataset, resources: dict[str, float]) -> None:
        self.dataset, self.config = dataset, requested.data
        self.resources = worker_resources(requested.workers, resources)
        here = ray.get_runtime_context().get_node_id()
        node = next(one["Resources"] for one in ray.nodes() if one["NodeID"] == here)
        has_resources = all(node.get(name, 0.0) >= amount for name, amount in self.resources.items())
        self.is_local = has_resources and ("GPU" not in self.resources or torch.cuda.is_available())

    @functools.cached_property
    def shared(self) -> Any:
        """The data set in Ray's object store, once something is called remotely."""
        return ray.put(SharedDataset.from_dataset(self.dataset, self.config))

    def call(self, function: Callable[..., T], experiment: Experiment, *args: Any, **kwargs: Any) -> T:
        """Return function(experiment as resolved on that node, data set, *args, **kwargs). Raises what it raises."""
        if self.is_local:
            return function(resolve(experiment, self.dataset), self.dataset, *args, **kwargs)
        process = _call_remotely.options(num_cpus=self.resources["CPU"], num_gpus=self.resources.get("GPU", 0.0))
        context = (DriverContext.current(), int(largest_node_cores()), experiment.as_dict())
        return ray.get(process.remote(function, context, self.shared, args, kwargs))


@ray.remote
def _call_remotely(
    function: Callable[..., T], context: tuple, shared: SharedDataset, args: tuple, kwargs: dict[str, Any]
) -> T:
    driver, cores, experiment = context
    driver.enter()
    torch.set_num_threads(cores)  # all cores, whatever Ray has reserved: nothing else runs yet
    dataset = shared.open()
    return function(resolve(Experiment.from_dict(experiment), dataset), dataset, *args, **kwargs)
