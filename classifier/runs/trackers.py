"""What MLflow and Weights & Biases are told of a training, where train.track names them.

Both find their server and key as their own tools do. They repeat what the journal says: one that fails costs its own
entries alone, never the training.
"""

import importlib
import json
import logging
import time
from pathlib import Path
from typing import Any, Protocol

from classifier.config.experiment import Experiment, flatten
from classifier.errors import ConfigError, in_short
from classifier.storage.atomic import write_atomically

logger = logging.getLogger(__name__)
PROJECT = "classifier"
# MLflow takes so many parameters at a time.
_AT_ONCE = 100
PACKAGES = {"mlflow": "mlflow-skinny", "wandb": "wandb"}


class Tracker(Protocol):
    """Where the rows of history.jsonl go too."""

    def write(self, row: dict[str, Any]) -> None: ...

    def end(self) -> None: ...


class Trackers:
    """All that an experiment names, for a run folder. ConfigError where a package is not installed."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.all: list[Tracker] = []
        for name in experiment.train.track:
            try:
                package = importlib.import_module(name)
            except ImportError:
                raise ConfigError(
                    f"train.track {name}: its package is not installed; pip install {PACKAGES[name]}, or leave it out"
                ) from None
            self._try(
                name, lambda make=TRACKERS[name], package=package: self.all.append(make(package, experiment, folder))
            )

    def write(self, row: dict[str, Any]) -> None:
        """Tell all of an epoch."""
        for tracker in list(self.all):
            self._try(type(tracker).__name__, lambda tracker=tracker: tracker.write(row), tracker)

    def end(self) -> None:
        """The training has ended, or this process's part in it."""
        for tracker in self.all:
            self._try(type(tracker).__name__, tracker.end)

    def _try(self, name: str, act: Any, tracker: Tracker | None = None) -> None:
        try:
            act()
        except Exception as error:  # they raise what they like, and whatever it is, the training goes on
            logger.warning("%s is told no more of this training (%s)", name, in_short(error, 200))
            if tracker in self.all:
                self.all.remove(tracker)


class Mlflow:
    """A run of MLflow's, of the experiment `classifier`, at its own tracking URI; gone on with by a resumed run."""

    def __init__(self, package: Any, experiment: Experiment, folder: Path) -> None:
        self.client = package.MlflowClient()
        self.entity = importlib.import_module("mlflow.entities")
        known = folder / "mlflow.json"
        if known.is_file():
            self.run_id = json.loads(known.read_text())["run_id"]
            self.client.set_terminated(self.run_id, "RUNNING")
            return
        self.run_id = self.client.create_run(self._experiment(), run_name=folder.name).info.run_id
        params = [self.entity.Param(name, str(value)) for name, value in flatten(experiment.as_dict()).items()]
        for start in range(0, len(params), _AT_ONCE):
            self.client.log_batch(self.run_id, params=params[start : start + _AT_ONCE])
        write_atomically(known, json.dumps({"run_id": self.run_id}) + "\n")

    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(PROJECT)
        if found is not None:
            return found.experiment_id
        try:
            return self.client.create_experiment(PROJECT)
        except Exception:  # another training has just made it
            return self.client.get_experiment_by_name(PROJECT).experiment_id

    def write(self, row: dict[str, Any]) -> None:
        now = int(1000 * time.time())
        metrics = [
            self.entity.Metric(name, float(value), now, row["step"])
            for name, value in row.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        self.client.log_batch(self.run_id, metrics=metrics)

    def end(self) -> None:
        self.client.set_terminated(self.run_id)


class Wandb:
    """A run of Weights & Biases, of the project `classifier`; gone on with by a resumed run."""

    def __init__(self, package: Any, experiment: Experiment, folder: Path) -> None:
        known = folder / "wandb.json"
        id_ = json.loads(known.read_text())["id"] if known.is_file() else package.util.generate_id()
        settings = {"project": PROJECT, "name": folder.name, "id": id_, "resume": "allow", "dir": str(folder)}
        self.run = package.init(config=flatten(experiment.as_dict()), reinit="create_new", **settings)
        write_atomically(known, json.dumps({"id": id_}) + "\n")

    def write(self, row: dict[str, Any]) -> None:
        self.run.log({name: value for name, value in row.items() if isinstance(value, int | float)}, step=row["step"])

    def end(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Any] = {"mlflow": Mlflow, "wandb": Wandb}
