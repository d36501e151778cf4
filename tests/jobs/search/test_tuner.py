"""How many trials run at once follows the cluster as it is now; what is planned for the end follows the images."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.sections import WorkersConfig
from classifier.data.dataset import Dataset
from classifier.runs.folder import Run
from jobs.launch.cluster import max_concurrent_trials
from jobs.search import history, tuner
from jobs.search.leaderboard import Leaderboard, Row
from jobs.search.trial_config import TrialConfig

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("workers", "resources", "count"),
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
def test_what_can_be_placed_at_once(workers, resources, count):
    assert max_concurrent_trials(workers, resources) == count


def test_the_count_follows_the_cluster(monkeypatch):
    resources = {"CPU": 2.0}
    monkeypatch.setattr(tuner, "connect", lambda: resources)
    plan: Any = SimpleNamespace(experiment=SimpleNamespace(workers=WorkersConfig()), at_once=2)
    places = tuner.Places(plan)
    resources["CPU"] = 6.0
    assert places() == 2  # looked at just now
    places.looked = time.monotonic() - 60
    assert places() == 6
    resources["CPU"] = 0.0
    places.looked = time.monotonic() - 60
    assert places() == 1  # it waits for a node rather than ending


def test_minutes_in_which_no_longer_training_fits_are_not_thrown_away(tmp_path):
    """What came to its end is known and not handed out again; what was cut off comes first, then new trials."""
    samples = [
        TrialConfig({}, "recipe"),
        TrialConfig({"optimizer.lr": 0.01}, "drawn"),
        TrialConfig({"optimizer.lr": 0.02}, "drawn"),
    ]
    for number, sample in enumerate(samples):
        dataclasses.replace(sample, number=number).write(tmp_path / "trials")
    (tmp_path / "trials" / samples[0].name / "ended.json").write_text("{}")
    (tmp_path / "trials" / samples[2].name / "error.txt").write_text("it failed")
    best = {"accuracy": 0.9, "loss": 0.3}
    experiment = Experiment()
    plan: Any = SimpleNamespace(experiment=experiment, space={}, portfolio=[])
    board = Leaderboard(Run(tmp_path), plan)
    board.rows = {sample.name: Row(sample.name, sample.changes) for sample in samples}
    board.best_epochs.reports = {sample.name: best for sample in samples[:2]}
    rest = history.rest(tmp_path, plan, data.load(experiment.data), board)
    assert [sample.name for sample in rest.first] == [samples[1].name]
    assert [(seen.settings, seen.scores) for seen in rest.seen] == [({}, best)]
    assert rest.tried == 2


def whereabouts(experiment: Experiment, dataset: Dataset, *, word: str) -> tuple[int, int, int, str, str]:
    return os.getpid(), torch.get_num_threads(), len(dataset.train), experiment.train.device, word


ELSEWHERE = """
import os
from jobs.cli.environment import setup
setup()  # gives Ray the cluster's token
import ray
from classifier import data
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from jobs.launch import remote_call
from jobs.launch.cluster import connect
from jobs.launch.remote_call import MeasurementNode
from tests.jobs.search.test_tuner import whereabouts

experiment = Experiment()
dataset, resources = data.load(experiment.data), connect(dashboard=False)
node = MeasurementNode(experiment, dataset, resources)
assert node.is_local
assert node.call(whereabouts, experiment, word="a")[::4] == (os.getpid(), "a")
nodes = ray.nodes()
ray.nodes = lambda: [node | {"Resources": node["Resources"] | {"CPU": 0}} for node in nodes]
remote_call.largest_node_cores = lambda: 2.0
node = MeasurementNode(experiment, dataset, resources)
assert not node.is_local
pid, threads, count, device, word = node.call(whereabouts, experiment, word="b")
assert pid != os.getpid()
assert (threads, count, device, word) == (2, len(dataset.train), "cpu", "b"), (threads, count, device, word)
try:
    node.call(whereabouts, experiment.override("data.batch", 10**6), word="c")
except ConfigError as error:
    assert "data.batch" in str(error)
    print("refused")
"""


def test_what_the_driver_machine_cannot_hold_is_measured_where_it_can_be(cluster):
    """As on a head that has no GPU, or that gives no core away. In a process of its own, as Ray leaves some behind."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    clean["RAY_ADDRESS"] = cluster
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE], cwd=ROOT, env=clean, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["refused"]), done.stderr


def test_a_winner_is_not_bound_to_the_device_of_its_trial(tmp_path):
    """Its trial ran on a GPU of another machine; the driver, who tests it, has none."""
    experiment = Experiment()
    plan: Any = SimpleNamespace(experiment=experiment, space={})
    board = Leaderboard(Run(tmp_path), plan)
    sample = TrialConfig({}, "recipe")
    board.rows[sample.name] = Row(sample.name, {}, whole=True)
    board.best_epochs.update(sample.name, {"accuracy": 0.9, "loss": 0.3})
    trial = Run(tmp_path / "trials" / sample.name)
    trial.folder.mkdir(parents=True)
    there = {"train.device": "cuda", "train.precision": "bf16", "train.threads": 8, "workers.cpus": 8.0}
    trial.write_experiment(experiment.override_all(there))
    _, winner = board.winner()
    assert (winner.train.device, winner.train.precision) == ("auto", "auto")
    assert (winner.train.threads, winner.workers.cpus) == (None, None)
