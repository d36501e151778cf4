"""Trainings that Ray runs on this machine share the cores that other processes leave free."""

import pytest
import ray

from classifier.config.experiment import Experiment
from classifier.runtime.threads import use_threads
from jobs.launch import free_cores


@pytest.mark.parametrize(
    ("free", "cpus", "nodes", "own", "threads"),
    [
        (8, 8.0, 1, None, None),  # all are free: Ray sets the number
        (4, 8.0, 1, None, 4),
        (4, 2.0, 1, None, 1),
        (1, 8.0, 1, None, 1),
        (4, 1.0, 1, None, None),  # has no more than one anyway
        (4, None, 1, None, None),
        (4, 8.0, 2, None, None),  # other machines, whose load is not known
        (4, 8.0, 1, 6, 6),  # the user's
    ],
)
def test_each_training_has_its_part_of_the_free_cores(monkeypatch, free, cpus, nodes, own, threads):
    monkeypatch.setattr(free_cores, "available_cores", lambda: 8)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True}] * nodes + [{"Alive": False}])
    experiment = Experiment().override_all({"workers.cpus": cpus, "train.threads": own})
    with use_threads(free):
        assert free_cores.share_free_cores(experiment).train.threads == threads
