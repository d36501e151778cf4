"""How many trials run at once, what is left of an interrupted search, and measuring on another machine."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from classifier import data
from classifier.config.experiment import Experiment
from classifier.config.sections import WorkersConfig
from classifier.data.dataset import Dataset
from classifier.runs.folder import RunFolder
from jobs.launch.cluster import max_concurrent_trials
from jobs.search import history, tuner
from jobs.search.leaderboard import Leaderboard, Row
from jobs.search.trial_config import TrialConfig
from tests.jobs.search.conftest import search_plan

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
        (WorkersConfig(count=2), {"CPU": 8.0}, 4),  # the process that waits for them takes no core
    ],
)
def test_max_concurrent_trials(workers, resources, count):
    assert max_concurrent_trials(workers, resources) == count


def test_concurrency_limit_follows_the_cluster(monkeypatch):
    resources = {"CPU": 2.0}
    monkeypatch.setattr(tuner, "connect", lambda: resources)
    limit = tuner.ConcurrencyLimit(search_plan(Experiment(), max_concurrent=2))
    resources["CPU"] = 6.0
    assert limit() == 2  # checked just now
    limit.check_time = time.monotonic() - 60
    assert limit() == 6
    resources["CPU"] = 0.0
    limit.check_time = time.monotonic() - 60
    assert limit() == 1  # it waits for a node rather than ending the search


def test_minutes_without_a_longer_training_are_used_for_more_trials(tmp_path):
    """Trials that ended are known and not started again; those that were cut off come first, then new ones."""
    configs = [
        TrialConfig({}, "recipe"),
        TrialConfig({"optimizer.lr": 0.01}, "drawn"),
        TrialConfig({"optimizer.lr": 0.02}, "drawn"),
    ]
    for number, config in enumerate(configs):
        dataclasses.replace(config, number=number).write(tmp_path / "trials")
    (tmp_path / "trials" / configs[0].name / "ended.json").write_text("{}")
    (tmp_path / "trials" / configs[2].name / "error.txt").write_text("it failed")
    best = {"accuracy": 0.9, "loss": 0.3}
    experiment = Experiment()
    plan = search_plan(experiment)
    board = Leaderboard(RunFolder(tmp_path), plan)
    board.rows = {config.name: Row(config.name, config.changes) for config in configs}
    board.best_epochs.reports = {config.name: best for config in configs[:2]}
    rest = history.unfinished_history(tmp_path, plan, data.load(experiment.data), board)
    assert [config.name for config in rest.pending] == [configs[1].name]
    assert [(one.settings, one.scores) for one in rest.observations] == [({}, best)]
    assert rest.done_count == 2


def describe_process(experiment: Experiment, dataset: Dataset, *, label: str) -> tuple[int, int, int, str, str]:
    return os.getpid(), torch.get_num_threads(), len(dataset.train), experiment.train.device, label


MEASURE_ELSEWHERE = """
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
from tests.jobs.search.test_tuner import describe_process

experiment = Experiment()
dataset, resources = data.load(experiment.data), connect(dashboard=False)
node = MeasurementNode(experiment, dataset, resources)
assert node.is_local
assert node.call(describe_process, experiment, label="a")[::4] == (os.getpid(), "a")
nodes = ray.nodes()
ray.nodes = lambda: [node | {"Resources": node["Resources"] | {"CPU": 0}} for node in nodes]
remote_call.largest_node_cores = lambda: 2.0
node = MeasurementNode(experiment, dataset, resources)
assert not node.is_local
pid, threads, count, device, label = node.call(describe_process, experiment, label="b")
assert pid != os.getpid()
assert (threads, count, device, label) == (2, len(dataset.train), "cpu", "b"), (threads, count, device, label)
try:
    node.call(describe_process, experiment.override("data.batch", 10**6), label="c")
except ConfigError as error:
    assert "data.batch" in str(error)
    print("refused")
"""


def test_measurements_run_elsewhere_if_the_driver_machine_has_no_room(cluster):
    """As on a head node without a GPU or free cores. In a process of its own, as Ray leaves some state behind."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    clean["RAY_ADDRESS"] = cluster
    done = subprocess.run(
        [sys.executable, "-c", MEASURE_ELSEWHERE],
        cwd=ROOT,
        env=clean,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["refused"]), done.stderr


def test_winner_is_not_bound_to_the_device_of_its_trial(tmp_path):
    """Its trial ran on a GPU of another machine; the driver, which tests it, has none."""
    experiment = Experiment()
    plan = search_plan(experiment)
    board = Leaderboard(RunFolder(tmp_path), plan)
    config = TrialConfig({}, "recipe")
    board.rows[config.name] = Row(config.name, {}, is_complete=True)
    board.best_epochs.update(config.name, {"accuracy": 0.9, "loss": 0.3})
    trial = RunFolder(tmp_path / "trials" / config.name)
    trial.bundle.mkdir(parents=True)
    (trial.bundle / "bundle.json").touch()
    there = {"train.device": "cuda", "train.precision": "bf16", "train.threads": 8, "workers.cpus": 8.0}
    trial.write_experiment(experiment.override_all(there))
    _, winner = board.winner()
    assert (winner.train.device, winner.train.precision) == ("auto", "auto")
    assert (winner.train.threads, winner.workers.cpus) == (None, None)
