"""Views of a frozen backbone: the head learns as it would from the images, and the backbone runs once a view."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from classifier import data, models
from classifier.config.experiment import Experiment
from classifier.data.loader import batches
from classifier.errors import ConfigError, ModelError
from classifier.runtime.distributed import ProcessGroup, init_process_group
from classifier.training import feature_cache
from classifier.training.checkpoint import CheckpointStore
from classifier.training.loop import fit
from classifier.training.resolve import resolve
from classifier.training.state import TrainState
from tests.conftest import worker_processes

SMALL = {
    "model.name": "resnet18",
    "model.freeze": "backbone",
    "model.dropout": 0.2,
    "data.limit": 200,
    "data.batch": 64,
    "data.validation": 0.2,
    "train.epochs": 6,
    "train.precision": "fp32",
    "train.threads": 1,
    "augment.views": 2,
    "optimizer.accumulate": 2,
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    model = models.build(Experiment().override("model.name", "resnet18").model, classes=10, channels=1, size=8)
    save_file(model.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def digits():
    return data.load(Experiment().override_all({"data.limit": 200, "data.validation": 0.2}).data)


@pytest.fixture
def experiment(weights, digits):
    return resolve(Experiment().override_all(SMALL | {"model.weights": weights, "data.batch": 32}), digits)


@pytest.fixture
def passes(monkeypatch):
    """Images that went through the backbone, a batch each."""
    counts, real = [], feature_cache.extract_batch_features

    def seen(model, scorer, images_NCHW):
        counts.append(len(images_NCHW))
        return real(model, scorer, images_NCHW)

    monkeypatch.setattr(feature_cache, "extract_batch_features", seen)
    return counts


def rows(epochs):
    kept = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "order")
    return [{name: epoch.row()[name] for name in kept} for epoch in epochs]


def test_the_backbone_runs_once_a_view_of_an_image(experiment, digits, passes):
    epochs = list(fit(experiment, digits))
    assert sum(passes) == 2 + 2 * len(digits.train) + len(digits.validation)
    assert epochs[-1].train_loss < epochs[0].train_loss
    # What is kept answers as the scores say: the features of validation were those of the whole model.
    whole = TrainState(experiment, digits, ProcessGroup()).scorer.compute_scores(epochs[-1].model, digits.validation)
    assert epochs[-1].validation is not None
    assert whole["loss"] == pytest.approx(epochs[-1].validation["loss"], abs=1e-5)


def test_the_head_learns_as_from_the_images(experiment, digits):
    """One step on the same augmented images, through the whole model and through its features."""
    training = TrainState(experiment.override("model.dropout", 0.0), digits, ProcessGroup())
    training.begin_epoch(0)
    assert training.feature_cache is not None
    batch = next(batches(digits.train, batch=32, seed=0, epoch=0))
    features_NF = training.feature_cache.batch_features(batch, 0)
    by_head = training.feature_cache.head_logits(training.feature_cache.head, features_NF)
    plain = TrainState(experiment.override_all({"model.dropout": 0.0, "augment.views": 0}), digits, ProcessGroup())
    plain.begin_epoch(0)
    plain.model.eval()
    # A view's draws go by the image's place in the data set, not in the epoch.
    seen = dataclasses.replace(batch, positions_N=batch.indices_N)
    by_model, _ = plain.path.forward(plain.network, seen, batch.labels_N, 0)
    assert torch.allclose(by_head, by_model, atol=1e-5)


def test_a_resumed_run_equals_an_unbroken_one(experiment, digits, tmp_path):
    unbroken = rows(fit(experiment, digits))
    store, first = CheckpointStore(tmp_path / "checkpoints"), []
    for epoch in fit(experiment, digits, store=store):
        first.append(epoch)
        epoch.commit()
        if epoch.number == 4:
            break
    again = rows(fit(experiment, digits, store=store))
    assert rows(first) + again == unbroken


def test_trainings_of_the_same_images_share_them(experiment, digits, tmp_path, passes):
    before = rows(fit(experiment, digits, features=tmp_path))
    passes.clear()
    assert rows(fit(experiment, digits, features=tmp_path)) == before
    assert passes == [2]  # whether its head is the end of the model, on two images
    assert len(list(tmp_path.iterdir())) == 3
    other = experiment.override("augment.rotate", 20.0)
    assert rows(fit(other, digits, features=tmp_path)) != before


def test_a_last_training_looks_at_the_validation_images_alone(experiment, digits, tmp_path, passes):
    list(fit(experiment, digits, features=tmp_path))
    passes.clear()
    last = experiment.override("train.keep", "last")
    list(fit(last, digits.merged(last), features=tmp_path))
    assert sum(passes) == 2 + 2 * len(digits.validation)


def test_after_a_thaw_the_backbone_learns(experiment, digits, passes):
    thawing = experiment.override_all({"model.freeze_epochs": 2, "train.epochs": 3})
    weight = "layer1.0.conv1.weight"
    found = [epoch.model.state_dict()[weight].clone() for epoch in fit(thawing, digits)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_without_a_frozen_backbone_there_are_no_views(experiment, digits):
    assert resolve(experiment.override("model.freeze", "none"), digits).augment.views == 0


def test_what_cannot_be_kept_is_refused_in_words(experiment, digits, monkeypatch):
    with pytest.raises(ConfigError, match=r"augment\.cutmix mixes images: leave one out"):
        resolve(experiment.override("augment.cutmix", 1.0), digits)
    monkeypatch.setattr(feature_cache, "MOST", 4 * 200 * 512)
    with pytest.raises(ConfigError, match=r"augment\.views 2: what the backbone sees in .* set --augment\.views 1"):
        next(fit(experiment, digits))


def test_a_model_that_goes_on_after_its_head_is_refused(experiment, digits, monkeypatch):
    real = feature_cache.extract_batch_features
    monkeypatch.setattr(
        feature_cache, "extract_batch_features", lambda *some: (real(*some)[0], real(*some)[1].relu() + 1)
    )
    with pytest.raises(ModelError, match=r"the last layer of resnet18 is not all .* set --augment\.views 0"):
        next(fit(experiment, digits))


def _rank(rank: int, world: int, folder: str, nested: dict) -> None:
    """One of several processes: trains, and writes the journal's lines."""
    with init_process_group(backend="gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world):
        experiment = Experiment.from_dict(nested)
        dataset = data.load(Experiment().override_all({"data.limit": 200, "data.validation": 0.2}).data)
        found = rows(fit(experiment, dataset, group=ProcessGroup.current(torch.device("cpu"))))
    if rank == 0:
        (Path(folder) / "rows.json").write_text(json.dumps(found))


def test_two_workers_share_what_each_has_seen(experiment, digits, tmp_path):
    """An image comes to another rank in another epoch: there its view is known, with the features of who saw it."""
    changed = experiment.override_all({"model.dropout": 0.0, "optimizer.accumulate": 1})
    context = worker_processes()
    begin = (2, str(tmp_path), changed.as_dict())
    workers = [context.Process(target=_rank, args=(rank, *begin)) for rank in range(2)]
    for worker in workers:
        worker.start()
    alone = rows(fit(changed, digits))
    for worker in workers:
        worker.join(timeout=120)
        assert worker.exitcode == 0
    for one, both in zip(alone, json.loads((tmp_path / "rows.json").read_text()), strict=True):
        assert both["order"] == one["order"]
        assert both["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
        assert both["validation_loss"] == pytest.approx(one["validation_loss"], rel=1e-3)
