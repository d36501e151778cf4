"""Images with several labels: they are learned, resumed and scored as those of one class are."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from classifier import models
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.inference.scorer import Scorer
from classifier.training.checkpoint import CheckpointStore
from classifier.training.loop import fit
from classifier.training.progress import describe_epoch
from classifier.training.resolve import resolve
from tests.shapes import make_dataset

SMALL = {
    "model.name": "cnn",
    "train.epochs": 2,
    "train.precision": "fp32",
    "train.threads": 1,
    "data.batch": 32,
    "schedule.warmup": 0.5,
    "augment.policy": "none",
}


@pytest.fixture(scope="module")
def shapes():
    return make_dataset()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    model = models.build(Experiment().override("model.name", "resnet18").model, classes=7, channels=1, size=16)
    save_file(model.state_dict(), path)
    return str(path)


def small(dataset, **changes) -> Experiment:
    return resolve(Experiment().override_all(SMALL | {k.replace("__", "."): v for k, v in changes.items()}), dataset)


def test_labels_are_learned_and_scored(shapes):
    *_, last = fit(small(shapes, train__epochs=12, optimizer__name="muon", optimizer__lr=0.01), shapes)
    scores, row = last.validation, last.row()
    assert scores is not None
    assert scores["map"] > 0.8
    assert (row["validation_map"], row["validation_micro_f1"]) == (scores["map"], scores["micro_f1"])
    assert row["validation_accuracy"] == scores["subset_accuracy"]
    assert row["train_accuracy"] > 0.3
    assert "validation mAP " in describe_epoch(row, 12)
    assert len(describe_epoch(row, 12)) <= 80


@pytest.mark.parametrize("loss", ["cross_entropy", "asymmetric"])
def test_a_resumed_training_equals_an_unbroken_one(shapes, tmp_path, loss):
    changes = {"augment__mixup": 0.4, "augment__cutmix": 1.0, "optimizer__accumulate": 2, "data__batch": 24}
    experiment = small(shapes, loss__name=loss, loss__class_weights="balanced", loss__smoothing=0.1, **changes)
    *_, unbroken = fit(experiment, shapes)
    polls = iter(range(100))
    list(fit(experiment, shapes, store=CheckpointStore(tmp_path), should_stop=lambda: next(polls) == 2))
    *_, resumed = fit(experiment, shapes, store=CheckpointStore(tmp_path))
    states = [epoch.model.state_dict() for epoch in (unbroken, resumed)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert resumed.validation == unbroken.validation


def test_cached_features_give_the_scores_of_the_full_model(shapes, weights):
    changes = {"model__name": "resnet18", "model__weights": weights, "model__freeze": "backbone", "augment__views": 2}
    experiment = small(shapes, augment__test_flip=True, **changes)
    *_, last = fit(experiment, shapes)
    scorer = Scorer.from_experiment(experiment, shapes, torch.device("cpu"))
    scores = scorer.compute_scores(last.model, shapes.validation, label_sets_MK=shapes.label_sets_MK)
    assert last.validation is not None
    assert scores["loss"] == pytest.approx(last.validation["loss"], rel=1e-5)
    assert scores["map"] == pytest.approx(last.validation["map"], abs=0.02)


def test_a_linear_probe_is_validated_by_folds(shapes, weights):
    changes = {"model__name": "resnet18", "model__weights": weights, "model__probe": True, "train__epochs": 1}
    merged = shapes.merge_validation(Experiment())
    (probe,) = fit(small(merged, train__keep="last", **changes), merged)
    assert probe.validation is not None
    assert probe.validation["count"] == len(merged.train)
    assert probe.validation["map"] > 0.45, "the mean share of a label is 0.34"
    assert probe.train_loss < probe.validation["loss"] < 0.69


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.metric": "accuracy"}, "train.metric accuracy is no score of data.task multilabel: choose one of map"),
        ({"loss.distill": 0.5}, "loss.distill teaches one class an image"),
    ],
)
def test_what_is_of_one_class_is_refused(shapes, settings, message):
    with pytest.raises(ConfigError, match=message):
        resolve(Experiment().override_all(SMALL | settings), shapes)


def test_scores_of_several_labels_are_none_of_one_class(shapes):
    assert small(shapes).train.metric == "map"
    one_class = dataclasses.replace(shapes, task="multiclass", label_sets_MK=None)
    assert small(one_class).train.metric == "accuracy"
    with pytest.raises(ConfigError, match=r"train\.metric map is no score of data\.task multiclass"):
        small(one_class, train__metric="map")
