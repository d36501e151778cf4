"""A training that starts with a linear probe: its first epoch is one, and later ones go on from there."""

import dataclasses

import pytest
import torch

from classifier import data, models
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError, ModelError
from classifier.training import head_probe
from classifier.training.checkpoint import CheckpointStore
from classifier.training.loop import fit
from classifier.training.resolve import resolve

SETTINGS = {
    "model.name": "resnet18",
    "model.probe": True,
    "model.freeze": "statistics",
    "data.limit": 200,
    "data.batch": 32,
    "data.validation": 0.2,
    "train.epochs": 3,
    "train.precision": "fp32",
    "train.threads": 1,
    "optimizer.lr": 1e-4,
    "optimizer.ema": 0.9,
}


@pytest.fixture(scope="module")
def digits():
    return data.load(Experiment().override_all({"data.limit": 200, "data.validation": 0.2}).data)


@pytest.fixture
def experiment(tmp_path, digits):
    torch.manual_seed(0)
    model = models.build(Experiment().override("model.name", "resnet18").model, classes=4, channels=1, size=8)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    return resolve(Experiment().override_all(SETTINGS | {"model.weights": str(tmp_path / "w.pth")}), digits)


def test_first_epoch_is_the_probe_and_later_ones_train_the_backbone(experiment, digits):
    epochs, states = [], []
    for epoch in fit(experiment, digits):
        epochs.append(epoch)
        states.append({name: value.clone() for name, value in epoch.model.state_dict().items()})
    assert [epoch.number for epoch in epochs] == [1, 2, 3]
    assert epochs[0].train_accuracy > 0.6
    assert epochs[0].validation["accuracy"] > 0.5
    untrained = torch.load(experiment.model.weights, weights_only=True)
    assert torch.equal(states[0]["layer1.0.conv1.weight"], untrained["layer1.0.conv1.weight"])
    assert not torch.equal(states[2]["layer1.0.conv1.weight"], untrained["layer1.0.conv1.weight"])
    assert torch.equal(states[2]["bn1.running_mean"], untrained["bn1.running_mean"])


def test_early_layers_stay_as_they_are(experiment, digits):
    early = experiment.override_all({"model.freeze": "early", "optimizer.ema": None})
    states = [{n: value.clone() for n, value in epoch.model.state_dict().items()} for epoch in fit(early, digits)]
    trained = {name for name, value in states[2].items() if not torch.equal(value, states[0][name])}
    # A layer is 12 parameters in a row, so that of the 60 before the head the last 12 are trained, too.
    assert {name.partition(".")[0] for name in trained} == {"layer4", "fc"}
    assert not {name for name in trained if "running" in name}


def test_without_validation_images_the_probe_is_validated_by_folds(experiment, digits):
    merged = digits.merge_validation(experiment)
    probe, next_, _ = fit(experiment.override("train.keep", "last"), merged)
    assert probe.validation is not None
    assert probe.validation["count"] == len(merged.train)
    assert 0.5 < probe.validation["accuracy"] < probe.train_accuracy
    assert next_.validation is None


def test_training_resumed_after_the_probe_equals_an_uninterrupted_one(experiment, digits, tmp_path):
    timeless = dict.fromkeys(("seconds", "images_per_second", "input_wait"))
    whole = [epoch.row() | timeless for epoch in fit(experiment, digits)]
    store = CheckpointStore(tmp_path / "checkpoints")
    first = next(iter(epochs := fit(experiment, digits, store=store)))
    first.commit()
    epochs.close()  # pyright: ignore[reportAttributeAccessIssue]
    rows = [first.row(), *(epoch.row() for epoch in fit(experiment, digits, store=store))]
    assert [row | timeless for row in rows] == whole


def test_features_are_computed_once_for_all_trainings_on_the_same_images(experiment, digits, tmp_path, monkeypatch):
    alone = experiment.override("train.epochs", 1)
    (first,) = fit(alone, digits, features=tmp_path / "features")
    monkeypatch.setattr(head_probe, "extract_shared", None)
    (again,) = fit(alone, digits, features=tmp_path / "features")
    assert again.validation == first.validation


def test_what_has_no_features_of_pretrained_weights_is_refused(experiment, digits):
    with pytest.raises(ConfigError, match=r"model\.probe fits a head to the features of pretrained weights"):
        resolve(experiment.override("model.weights", None), digits)
    conv_head = models.build(
        dataclasses.replace(experiment.model, name="squeezenet1_1", weights=None), classes=10, channels=1, size=8
    )
    with pytest.raises(ModelError, match="is not one linear layer"):
        head_probe.fit_head(conv_head, experiment, digits, None)  # pyright: ignore[reportArgumentType]
