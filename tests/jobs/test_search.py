"""How many trials run at once follows the cluster as it is now; what is planned for the end follows the images."""

import time
from types import SimpleNamespace
from typing import Any

import pytest

from classifier import data
from classifier.config import Experiment, WorkersConfig
from jobs import _ray, _search
from jobs._plan import _with_final


@pytest.mark.parametrize(
    ("workers", "cluster", "count"),
    [
        (WorkersConfig(), {"CPU": 8.0}, 8),
        (WorkersConfig(cpus=2.0), {"CPU": 7.0}, 3),
        (WorkersConfig(), {"CPU": 16.0, "GPU": 2.0}, 2),
        (WorkersConfig(gpus=0.25), {"CPU": 16.0, "GPU": 2.0}, 8),
        (WorkersConfig(gpus=0.0), {"CPU": 4.0, "GPU": 2.0}, 4),
        (WorkersConfig(count=2), {"CPU": 2.0}, 1),
        (WorkersConfig(count=2), {"CPU": 8.0}, 4),  # what waits for them takes no core
    ],
)
def test_what_can_be_placed_at_once(workers, cluster, count):
    assert _ray.at_once(workers, cluster) == count


def test_the_count_follows_the_cluster(monkeypatch):
    cluster = {"CPU": 2.0}
    monkeypatch.setattr(_ray, "connect", lambda: cluster)
    plan: Any = SimpleNamespace(experiment=SimpleNamespace(workers=WorkersConfig()), at_once=2)
    places = _search.Places(plan)
    cluster["CPU"] = 6.0
    assert places() == 2  # looked at just now
    places.looked = time.monotonic() - 60
    assert places() == 6
    cluster["CPU"] = 0.0
    places.looked = time.monotonic() - 60
    assert places() == 1  # it waits for a node rather than ending


@pytest.mark.parametrize(
    ("validation", "scheduler", "final"), [(0.1, "asha", False), (0.33, "asha", True), (0.33, "pbt", False)]
)
def test_a_winner_learns_from_many_validation_images(validation, scheduler, final):
    experiment = Experiment().override_all({"data.validation": validation, "search.scheduler": scheduler})
    decided, words = _with_final(experiment, data.load(experiment.data))
    assert decided.search.final is final
    assert len(words) == final
