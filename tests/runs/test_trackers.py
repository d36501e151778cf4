"""MLflow is told of every epoch once, in a store of SQLite; a tracker that fails costs nothing but itself."""

import logging
import sys
import types
from pathlib import Path

import pytest

from classifier import data
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.runs.folder import Run, read_history
from classifier.runs.recorder import record_training
from classifier.runs.trackers import Trackers
from classifier.training.resolve import resolve


def trained(folder: Path, *, track: tuple[str, ...], epochs: int = 2) -> Run:
    """A short training of the digits, or more of one."""
    changes = {"model.name": "cnn", "data.batch": 256, "train.epochs": epochs, "train.track": track}
    experiment = Experiment().override_all(changes)
    dataset = data.load(experiment.data)
    experiment = resolve(experiment, dataset)
    run = Run.resume(folder) if folder.exists() else Run.create(folder.parent, folder.name)
    run.write_experiment(experiment)
    for _ in record_training(run, experiment, dataset):
        pass
    run.close()
    return run


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_every_epoch_once_and_goes_on_with_a_resumed_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    trained(tmp_path / "one", track=("mlflow",))
    run = trained(tmp_path / "one", track=("mlflow",), epochs=3)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("classifier")
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_name == "one"
    assert found.info.status == "FINISHED"
    assert found.data.params["optimizer.lr"] == str(Experiment().optimizer.lr)
    history = read_history(run.folder)
    told = client.get_metric_history(found.info.run_id, "validation_accuracy")
    assert [(metric.step, metric.value) for metric in told] == [
        (row["step"], pytest.approx(row["validation_accuracy"])) for row in history
    ]
    assert len(history) == 3


def test_weights_and_biases_are_told_by_their_own_calls(tmp_path, monkeypatch):
    """Against a stand-in of the package: what is called, and with what."""
    said: list[tuple] = []

    class Told:
        def log(self, row, step):
            said.append((step, row["validation_accuracy"]))

        def finish(self):
            said.append(("finish",))

    def init(**settings):
        said.append((settings["project"], settings["name"], settings["id"], settings["config"]["model.name"]))
        return Told()

    package = types.SimpleNamespace(init=init, util=types.SimpleNamespace(generate_id=lambda: "id1"))
    monkeypatch.setitem(sys.modules, "wandb", package)
    run = trained(tmp_path / "two", track=("wandb",))
    rows = read_history(run.folder)
    assert said == [
        ("classifier", "two", "id1", "cnn"),
        *((row["step"], row["validation_accuracy"]) for row in rows),
        ("finish",),
    ]


def test_a_package_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ConfigError, match="pip install wandb"):
        Trackers(Experiment().override("train.track", ("wandb",)), tmp_path)


def test_a_tracker_that_fails_does_not_stop_the_training(tmp_path, monkeypatch, caplog):
    class Failing:
        def log(self, row, step):
            raise OSError("no network")

        def finish(self):
            raise AssertionError("it was told of the failure already")

    package = types.SimpleNamespace(init=lambda **_: Failing(), util=types.SimpleNamespace(generate_id=lambda: "id1"))
    monkeypatch.setitem(sys.modules, "wandb", package)
    with caplog.at_level(logging.WARNING):
        run = trained(tmp_path / "three", track=("wandb",))
    assert len(read_history(run.folder)) == 2
    assert [record.getMessage() for record in caplog.records if "told no more" in record.getMessage()] == [
        "Wandb is told no more of this training (no network)"
    ]
