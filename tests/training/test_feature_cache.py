"""Cached features of a frozen backbone: the head learns as from images, and the backbone runs once per view."""

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
from classifier.inference.features import load_features, save_features
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
    """Numbers of images that went through the backbone, per batch."""
    counts, real = [], feature_cache.extract_batch_features

    def count(model, scorer, images_NCHW):
        counts.append(len(images_NCHW))
        return real(model, scorer, images_NCHW)

    monkeypatch.setattr(feature_cache, "extract_batch_features", count)
    return counts


def rows(epochs):
    names = ("train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "order")
    return [{name: epoch.row()[name] for name in names} for epoch in epochs]


def test_backbone_runs_once_per_view_and_image(experiment, digits, passes):
    epochs = list(fit(experiment, digits))
    assert sum(passes) == 2 + 2 * len(digits.train) + len(digits.validation)
    assert epochs[-1].train_loss < epochs[0].train_loss
    # Scores from cached features equal those of the full model.
    whole = TrainState(experiment, digits, ProcessGroup()).scorer.compute_scores(epochs[-1].model, digits.validation)
    assert epochs[-1].validation is not None
    assert whole["loss"] == pytest.approx(epochs[-1].validation["loss"], abs=1e-5)


def test_head_logits_equal_those_of_the_full_model(experiment, digits):
    """The same augmented images, through the full model and through cached features."""
    training = TrainState(experiment.override("model.dropout", 0.0), digits, ProcessGroup())
    training.begin_epoch(0)
    assert training.feature_cache is not None
    batch = next(batches(digits.train, batch=32, seed=0, epoch=0))
    features_NF = training.feature_cache.batch_features(batch, 0)
    by_head = training.feature_cache.head_logits(training.feature_cache.head, features_NF)
    plain = TrainState(experiment.override_all({"model.dropout": 0.0, "augment.views": 0}), digits, ProcessGroup())
    plain.begin_epoch(0)
    plain.model.eval()
    # A view's augmentation depends on the image's index in the dataset, not its position in the epoch.
    by_index = dataclasses.replace(batch, positions_N=batch.indices_N)
    by_model, _ = plain.path.forward(plain.network, by_index, batch.labels_N, 0)
    assert torch.allclose(by_head, by_model, atol=1e-5)


def test_resumed_run_equals_an_uninterrupted_one(experiment, digits, tmp_path):
    uninterrupted = rows(fit(experiment, digits))
    store, first = CheckpointStore(tmp_path / "checkpoints"), []
    for epoch in fit(experiment, digits, store=store):
        first.append(epoch)
        epoch.commit()
        if epoch.number == 4:
            break
    again = rows(fit(experiment, digits, store=store))
    assert rows(first) + again == uninterrupted


def test_trainings_on_the_same_images_share_the_cache(experiment, digits, tmp_path, passes):
    before = rows(fit(experiment, digits, features=tmp_path))
    passes.clear()
    assert rows(fit(experiment, digits, features=tmp_path)) == before
    assert passes == [2]  # the check of the head, on two images
    assert len(list(tmp_path.iterdir())) == 3
    other = experiment.override("augment.rotate", 20.0)
    assert rows(fit(other, digits, features=tmp_path)) != before


@pytest.mark.parametrize("damage", ["flipped", "cut", "header", "earlier version"])
def test_damaged_features_are_computed_again_and_told(tmp_path, caplog, damage):
    features, path = {"features": torch.randn(40, 16), "labels": torch.arange(40)}, tmp_path / "f.safetensors"
    assert load_features(path) is None
    save_features(features, path)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-100] ^= 1
    elif damage == "cut":
        del content[-100:]
    elif damage == "header":
        content[10] ^= 1
    else:
        save_file(features, path)
        content = path.read_bytes()
    path.write_bytes(content)
    loaded = load_features(path)
    if damage == "earlier version":
        assert loaded is not None
        assert all(torch.equal(loaded[name], features[name]) for name in features)
    else:
        assert loaded is None
        assert "f.safetensors is damaged: its features are computed again" in caplog.text


def test_refit_computes_features_of_the_validation_images_only(experiment, digits, tmp_path, passes):
    list(fit(experiment, digits, features=tmp_path))
    passes.clear()
    refit = experiment.override("train.keep", "last")
    list(fit(refit, digits.merge_validation(refit), features=tmp_path))
    assert sum(passes) == 2 + 2 * len(digits.validation)


def test_backbone_learns_once_unfrozen(experiment, digits, passes):
    unfreezing = experiment.override_all({"model.freeze_epochs": 2, "train.epochs": 3})
    weight = "layer1.0.conv1.weight"
    found = [epoch.model.state_dict()[weight].clone() for epoch in fit(unfreezing, digits)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_views_are_0_without_a_frozen_backbone(experiment, digits):
    assert resolve(experiment.override("model.freeze", "none"), digits).augment.views == 0


def test_mixed_images_and_too_little_memory_are_refused(experiment, digits, monkeypatch):
    with pytest.raises(ConfigError, match=r"augment\.cutmix mixes images: leave one out"):
        resolve(experiment.override("augment.cutmix", 1.0), digits)
    monkeypatch.setattr(feature_cache, "MAX_BYTES", 4 * 200 * 512)
    with pytest.raises(ConfigError, match=r"augment\.views 2: the features of .* set --augment\.views 1"):
        next(fit(experiment, digits))


def test_model_with_layers_after_its_head_is_refused(experiment, digits, monkeypatch):
    real = feature_cache.extract_batch_features
    monkeypatch.setattr(
        feature_cache, "extract_batch_features", lambda *args: (real(*args)[0], real(*args)[1].relu() + 1)
    )
    with pytest.raises(ModelError, match=r"the last layer of resnet18 is not the only layer .* set --augment\.views 0"):
        next(fit(experiment, digits))


def _rank(rank: int, world: int, folder: str, nested: dict) -> None:
    """Train as one of several processes, and write the history rows."""
    with init_process_group(backend="gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world):
        experiment = Experiment.from_dict(nested)
        dataset = data.load(Experiment().override_all({"data.limit": 200, "data.validation": 0.2}).data)
        found = rows(fit(experiment, dataset, group=ProcessGroup.current(torch.device("cpu"))))
    if rank == 0:
        (Path(folder) / "rows.json").write_text(json.dumps(found))


@pytest.mark.long
def test_workers_exchange_cached_features(experiment, digits, tmp_path):
    """In another epoch an image may come to another rank, which then has the features that the first rank computed."""
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
