"""The cores that other processes leave free, shared by the trainings that Ray runs on this machine at the same time."""

import ray
import torch

from classifier.config.experiment import Experiment
from classifier.runtime.cpu import available_cores


def share_free_cores(experiment: Experiment) -> Experiment:
    """Set train.threads to the training's part of the free cores, if it reserves more cores than that.

    Otherwise it stays open, and Ray sets it to the cores that the training reserves; so it does on other machines,
    whose load is not known here. This process's threads tell how many cores are free (classifier/runtime/threads.py),
    so that trainings and a resumed search have the same number.
    """
    cpus, nodes = int(experiment.workers.cpus or 1), [node for node in ray.nodes() if node["Alive"]]
    threads = max(1, round(cpus * torch.get_num_threads() / available_cores()))
    if experiment.train.threads or len(nodes) > 1 or threads >= cpus:
        return experiment
    return experiment.override("train.threads", threads)
