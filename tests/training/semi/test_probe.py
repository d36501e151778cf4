"""A linear probe with unlabelled images: trained, calibrated and calibrated again by the same folds."""

import dataclasses

import pytest
import torch

import classifier
from classifier import models
from classifier.bundle import bundle as bundles
from classifier.config.experiment import Experiment
from classifier.errors import RunError
from classifier.evaluation.calibrate import calibrate_bundle
from classifier.evaluation.training_data import load_training_data
from tests.conftest import draw_photos

CLASSES = {"cat": 8, "dog": 8, "owl": 8}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("semi-probe")
    torch.manual_seed(0)
    model = models.build(Experiment().override("model.name", "resnet18").model, classes=4, channels=3, size=32)
    torch.save(model.state_dict(), folder / "w.pth")
    draw_photos(folder / "labelled", CLASSES)
    draw_photos(folder / "others", dict.fromkeys(CLASSES, 30), seed=1)
    settings = {
        "data.unlabelled": str(folder / "others"),
        "data.validation": 0.0,
        "data.size": 32,
        "data.cache": None,
        "model.name": "resnet18",
        "model.weights": str(folder / "w.pth"),
        "model.probe": True,
        "model.freeze": "backbone",
        "train.epochs": 1,
        "train.keep": "last",
        "train.threads": 1,
        "data.batch": 8,
    }
    given = Experiment().override_all(settings)
    return classifier.train(folder / "labelled", experiment=given, out=folder / "runs", progress=False)


def test_it_is_calibrated_by_the_folds_of_the_training(run):
    loaded = bundles.load(run.folder)
    dataset = load_training_data(run.folder, loaded.bundle)
    assert dataset.unlabelled is not None
    assert len(dataset.unlabelled) == 90
    again, _ = calibrate_bundle(loaded, dataset)
    assert again.bundle.calibration == loaded.bundle.calibration
    assert again.bundle.scores["validation"]["count"] == len(dataset.train)


def test_without_these_images_it_is_not_calibrated(run):
    loaded = bundles.load(run.folder)
    dataset = dataclasses.replace(load_training_data(run.folder, loaded.bundle), unlabelled=None)
    with pytest.raises(RunError, match="which a bundle without its run does not choose"):
        calibrate_bundle(loaded, dataset)
