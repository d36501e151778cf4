"""MLflow gets every epoch once, in an SQLite store; a tracker that fails does not stop the training."""

import logging
import sys
import types
from pathlib import Path

import pytest

from classifier import data
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.runs.folder import RunFolder, read_history
from classifier.runs.recorder import record_training
from classifier.runs.trackers import Trackers
from classifier.training.resolve import resolve


def train(folder: Path, *, track: tuple[str, ...], epochs: int = 2) -> RunFolder:
    """Train briefly on the digits, or resume such a run."""
    changes = {"model.name": "cnn", "data.batch": 256, "train.epochs": epochs, "train.track": track}
    experiment = Experiment().override_all(changes)
    dataset = data.load(experiment.data)
    experiment = resolve(experiment, dataset)
    run = RunFolder.resume(folder) if folder.exists() else RunFolder.create(folder.parent, folder.name)
    run.write_experiment(experiment)
    for _ in record_training(run, experiment, dataset):
        pass
    run.close()
    return run


@pytest.mark.filterwarnings("ignore")
def test_mlflow_gets_every_epoch_once_across_a_resume(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    train(tmp_path / "one", track=("mlflow",))
    run = train(tmp_path / "one", track=("mlflow",), epochs=3)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("classifier")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "one"
    assert found.info.status == "FINISHED"
    assert found.data.params["optimizer.lr"] == str(Experiment().optimizer.lr)
    history = read_history(run.folder)
    metrics = client.get_metric_history(found.info.run_id, "validation_accuracy")
    assert [(metric.step, metric.value) for metric in metrics] == [
        (row["step"], pytest.approx(row["validation_accuracy"])) for row in history
    ]
    assert len(history) == 3


def test_weights_and_biases_gets_every_epoch(tmp_path, monkeypatch):
    """Checks the calls to a fake of the package."""
    calls: list[tuple] = []

    class FakeRun:
        def log(self, row, step):
            calls.append((step, row["validation_accuracy"]))

        def finish(self):
            calls.append(("finish",))

    def init(**settings):
        calls.append((settings["project"], settings["name"], settings["id"], settings["config"]["model.name"]))
        return FakeRun()

    package = types.SimpleNamespace(init=init, util=types.SimpleNamespace(generate_id=lambda: "id1"))
    monkeypatch.setitem(sys.modules, "wandb", package)
    run = train(tmp_path / "two", track=("wandb",))
    rows = read_history(run.folder)
    assert calls == [
        ("classifier", "two", "id1", "cnn"),
        *((row["step"], row["validation_accuracy"]) for row in rows),
        ("finish",),
    ]


def test_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        Trackers(Experiment().override("train.track", ("wandb",)), tmp_path)


def test_failing_tracker_does_not_stop_the_training(tmp_path, monkeypatch, caplog):
    class Failing:
        def log(self, row, step):
            raise OSError("no network")

        def finish(self):
            raise AssertionError("a failed tracker is not called again")

    package = types.SimpleNamespace(init=lambda **_: Failing(), util=types.SimpleNamespace(generate_id=lambda: "id1"))
    monkeypatch.setitem(sys.modules, "wandb", package)
    with caplog.at_level(logging.WARNING):
        run = train(tmp_path / "three", track=("wandb",))
    assert len(read_history(run.folder)) == 2
    assert [record.getMessage() for record in caplog.records if "gets no more" in record.getMessage()] == [
        "Wandb failed and gets no more of this training (no network)"
    ]
