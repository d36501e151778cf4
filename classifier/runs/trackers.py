"""Log trainings to MLflow and Weights & Biases (train.track).

Both find their server and key as their own tools do. They repeat history.jsonl: if one fails, only its own entries are
lost, never the training.
"""

import importlib
import json
import logging
import time
from pathlib import Path
from typing import Any, Protocol

from classifier.config.documents import read_json
from classifier.config.experiment import Experiment, flatten
from classifier.errors import ConfigError, in_short
from classifier.runs.schema import MlflowRun, WandbRun
from classifier.storage.atomic import write_atomically

logger = logging.getLogger(__name__)
PROJECT = "classifier"
# MLflow's limit.
_MAX_PARAMS_PER_CALL = 100
PACKAGES = {"mlflow": "mlflow-skinny", "wandb": "wandb"}


class Tracker(Protocol):
    """Receives the rows of history.jsonl."""

    def write(self, row: dict[str, Any]) -> None: ...

    def end(self) -> None: ...


class Trackers:
    """The trackers that train.track names, for a run folder. ConfigError if a package is not installed."""

    def __init__(self, experiment: Experiment, folder: Path) -> None:
        self.all: list[Tracker] = []
        for name in experiment.train.track:
            try:
                package = importlib.import_module(name)
            except ImportError:
                raise ConfigError(
                    f"train.track {name}: its package is not installed; pip install {PACKAGES[name]}, or remove it "
                    "from train.track"
                ) from None
            self._try(
                name, lambda make=TRACKERS[name], package=package: self.all.append(make(package, experiment, folder))
            )

    def write(self, row: dict[str, Any]) -> None:
        """Log an epoch to all trackers."""
        for tracker in list(self.all):
            self._try(type(tracker).__name__, lambda tracker=tracker: tracker.write(row), tracker)

    def end(self) -> None:
        """Close all trackers: the training, or this process's part in it, has ended."""
        for tracker in self.all:
            self._try(type(tracker).__name__, tracker.end)

    def _try(self, name: str, act: Any, tracker: Tracker | None = None) -> None:
        try:
            act()
        except Exception as error:  # trackers may raise anything, and must never stop the training
            logger.warning("%s failed and gets no more of this training (%s)", name, in_short(error, 200))
            if tracker in self.all:
                self.all.remove(tracker)


class Mlflow:
    """An MLflow run in the experiment `classifier`, at MLflow's tracking URI; a resumed training continues it."""

    def __init__(self, package: Any, experiment: Experiment, folder: Path) -> None:
        self.client = package.MlflowClient()
        self.entity = importlib.import_module("mlflow.entities")
        id_file = folder / "mlflow.json"
        if id_file.is_file():
            self.run_id = read_json(id_file, MlflowRun)["run_id"]
            self.client.set_terminated(self.run_id, "RUNNING")
            return
        self.run_id = self.client.create_run(self._get_or_create_experiment(), run_name=folder.name).info.run_id
        params = [self.entity.Param(name, str(value)) for name, value in flatten(experiment.as_dict()).items()]
        for start in range(0, len(params), _MAX_PARAMS_PER_CALL):
            self.client.log_batch(self.run_id, params=params[start : start + _MAX_PARAMS_PER_CALL])
        write_atomically(id_file, json.dumps({"run_id": self.run_id}) + "\n")

    def _get_or_create_experiment(self) -> str:
        found = self.client.get_experiment_by_name(PROJECT)
        if found is not None:
            return found.experiment_id
        try:
            return self.client.create_experiment(PROJECT)
        except Exception:  # another training has just created it
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
    """A Weights & Biases run in the project `classifier`; a resumed training continues it."""

    def __init__(self, package: Any, experiment: Experiment, folder: Path) -> None:
        id_file = folder / "wandb.json"
        id_ = read_json(id_file, WandbRun)["id"] if id_file.is_file() else package.util.generate_id()
        settings = {"project": PROJECT, "name": folder.name, "id": id_, "resume": "allow", "dir": str(folder)}
        self.run = package.init(config=flatten(experiment.as_dict()), reinit="create_new", **settings)
        write_atomically(id_file, json.dumps({"id": id_}) + "\n")

    def write(self, row: dict[str, Any]) -> None:
        self.run.log({name: value for name, value in row.items() if isinstance(value, int | float)}, step=row["step"])

    def end(self) -> None:
        self.run.finish()


TRACKERS: dict[str, Any] = {"mlflow": Mlflow, "wandb": Wandb}
