"""How many trials run at once follows the cluster as it is now; what is planned for the end follows the images."""

import dataclasses
import time
from types import SimpleNamespace
from typing import Any

import pytest

from classifier import data
from classifier.config import Experiment, WorkersConfig
from jobs import _memory, _ray, _search
from jobs._guide import Sample
from jobs._leaderboard import Row
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


def test_minutes_in_which_no_longer_training_fits_are_not_thrown_away(tmp_path):
    """What came to its end is known and not handed out again; what was cut off comes first, then new trials."""
    samples = [Sample({}, "recipe"), Sample({"optimizer.lr": 0.01}, "drawn"), Sample({"optimizer.lr": 0.02}, "drawn")]
    for number, sample in enumerate(samples):
        dataclasses.replace(sample, number=number).write(tmp_path / "trials")
    (tmp_path / "trials" / samples[0].name / "ended.json").write_text("{}")
    (tmp_path / "trials" / samples[2].name / "error.txt").write_text("it failed")
    best = {"accuracy": 0.9, "loss": 0.3}
    rows = {
        sample.name: Row(sample.name, sample.changes, best=best if n < 2 else {}) for n, sample in enumerate(samples)
    }
    board: Any = SimpleNamespace(rows=rows)
    experiment = Experiment()
    plan: Any = SimpleNamespace(experiment=experiment, space={}, portfolio=[])
    rest = _memory.rest(tmp_path, plan, data.load(experiment.data), board)
    assert [sample.name for sample in rest.first] == [samples[1].name]
    assert [(seen.settings, seen.scores) for seen in rest.seen] == [({}, best)]
    assert rest.tried == 2
