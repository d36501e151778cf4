"""A small trained model with its data, to compress."""

from pathlib import Path
from typing import NamedTuple

import pytest

from classifier import data
from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import LoadedBundle
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.evaluation.calibrate import calibrate_saved_bundle
from classifier.runs.folder import RunFolder
from classifier.runs.recorder import record_training, save_inputs
from classifier.training.resolve import resolve
from tests.conftest import draw_photos


class Trained(NamedTuple):
    """A run with a calibrated bundle, and its data set."""

    folder: Path
    dataset: Dataset
    experiment: Experiment

    @property
    def loaded(self) -> LoadedBundle:
        return bundles.load(self.folder)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    """resnet9_16 after three epochs on three classes of 24 x 24 pixels, a third of which validate."""
    root = tmp_path_factory.mktemp("compress")
    photos = draw_photos(root / "photos", dict.fromkeys(("red", "green", "blue"), 60))
    settings = {"data.path": str(photos), "data.validation": 0.35, "data.test": 0.0, "data.batch": 16}
    settings |= {"train.epochs": 3, "augment.test_flip": True, "data.cache": None}
    experiment = Experiment().override_all(settings)
    dataset = data.load(experiment.data)
    experiment = resolve(experiment, dataset)
    run = RunFolder.create(root, "run")
    save_inputs(run, experiment, dataset)
    for _ in record_training(run, experiment, dataset):
        pass
    run.close()
    calibrate_saved_bundle(run.folder, dataset, run.folder)
    return Trained(run.folder, dataset, experiment)
