"""Where trials run: a cluster's driver often sits on a head that has no GPU, or no core to give.

What the plan measures, and the last training, must be made there.
"""

import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import ray
import torch

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.training.resolve import resolve
from jobs.launch.cluster import enter_driver_folder, largest_node_cores, worker_resources
from jobs.launch.shared_dataset import SharedDataset

T = TypeVar("T")


class MeasurementNode:
    """A place with what one trial reserves: this machine if it is such a one, else wherever Ray finds it."""

    def __init__(self, asked: Experiment, dataset: Dataset, resources: dict[str, float]) -> None:
        self.dataset, self.config, self.resources = dataset, asked.data, worker_resources(asked.workers, resources)
        here = ray.get_runtime_context().get_node_id()
        node = next(one["Resources"] for one in ray.nodes() if one["NodeID"] == here)
        holds = all(node.get(name, 0.0) >= amount for name, amount in self.resources.items())
        self.is_local = holds and ("GPU" not in self.resources or torch.cuda.is_available())

    @functools.cached_property
    def shared(self) -> Any:
        """The data set in Ray's memory, once something is done there."""
        return ray.put(SharedDataset.from_dataset(self.dataset, self.config))

    def call(self, function: Callable[..., T], experiment: Experiment, *words: Any, **named: Any) -> T:
        """function(the experiment as that machine resolves it, data set, ...). The function's errors."""
        if self.is_local:
            return function(resolve(experiment, self.dataset), self.dataset, *words, **named)
        process = _call_remotely.options(num_cpus=self.resources["CPU"], num_gpus=self.resources.get("GPU", 0.0))
        begin = (os.getcwd(), int(largest_node_cores()), experiment.as_dict())
        return ray.get(process.remote(function, begin, self.shared, words, named))


@ray.remote
def _call_remotely(function: Callable[..., T], begin: tuple, shared: SharedDataset, words: tuple, named: dict[str, Any]) -> T:
    cwd, cores, experiment = begin
    enter_driver_folder(cwd)
    torch.set_num_threads(cores)  # all of them, whatever Ray thinks that it reserves: nothing else runs yet
    dataset = shared.open()
    return function(resolve(Experiment.from_dict(experiment), dataset), dataset, *words, **named)
