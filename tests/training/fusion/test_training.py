"""Trainings with columns: in steps, resumed, on cached features and as a probe."""

import contextlib
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch

from classifier import models
from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import Bundle, LoadedBundle
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.evaluation.calibrate import calibrate_saved_bundle
from classifier.evaluation.column_importance import measure_split_importance
from classifier.inference.scorer import Scorer
from classifier.models.fusion.fusion_net import FusionNet
from classifier.runs.folder import RunFolder
from classifier.runs.recorder import record_training, result_fields, save_inputs
from classifier.runtime.distributed import ProcessGroup
from classifier.training import head_probe
from classifier.training.checkpoint import CheckpointStore
from classifier.training.loop import fit
from classifier.training.progress import describe_fusion
from classifier.training.resolve import resolve
from classifier.training.state import TrainState

SMALL = {
    "model.name": "cnn",
    "data.batch": 128,
    "augment.policy": "none",
    "train.epochs": 2,
    "train.precision": "fp32",
    "train.threads": 1,
}


def small(dataset, **changes: Any) -> Experiment:
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return resolve(Experiment().override_all(SMALL | changes), dataset)


def test_label_that_needs_both_is_learned(xor_digits):
    experiment = small(xor_digits, train__epochs=25, data__batch=64, model__fusion="mlp")
    *_, last = fit(experiment, xor_digits)
    scorer = Scorer.from_experiment(experiment, xor_digits, torch.device("cpu"))
    assert scorer.compute_scores(last.model, xor_digits.test)["accuracy"] >= 0.97
    trained = LoadedBundle(Bundle.from_training(experiment, xor_digits, scores={}, epoch=25), last.model)
    importance = measure_split_importance(trained, xor_digits.test)
    assert importance is not None
    drops = {row["name"]: row["drop"] for row in importance["inputs"]}
    assert min(drops[name] for name in ("image", "all columns", "flip")) > 0.35  # to chance, or half of it
    assert abs(drops["noise"]) < 0.05
    assert last.fusion is not None
    assert max(last.fusion[name]["accuracy"] for name in ("image", "columns")) < 0.65  # of 162 images, at chance


@pytest.mark.parametrize("wanted", ["auto", "trees"])
@pytest.mark.parametrize("step", [3, 18])
def test_resumed_run_equals_an_uninterrupted_one(xor_digits, tmp_path, wanted, step):
    experiment = small(xor_digits, model__fusion=wanted, optimizer__ema=0.9)
    uninterrupted = list(fit(experiment, xor_digits))
    store, polls = CheckpointStore(tmp_path), itertools.count(1)
    *_, partial = fit(experiment, xor_digits, store=store, should_stop=lambda: next(polls) >= step)
    assert partial.stopped == "asked"
    assert partial.fusion is None
    *_, resumed = fit(experiment, xor_digits, store=store)
    expected = uninterrupted[-1].model.state_dict()
    assert expected.keys() == resumed.model.state_dict().keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in resumed.model.state_dict().items())
    assert (resumed.validation, resumed.fusion) == (uninterrupted[-1].validation, uninterrupted[-1].fusion)


def test_longer_training_goes_on_with_the_head(xor_digits, tmp_path):
    experiment = small(xor_digits, train__epochs=1, model__fusion="trees")
    (first,) = fit(experiment, xor_digits, store=CheckpointStore(tmp_path))
    assert isinstance(first.model, FusionNet)
    assert first.model.fusion.candidate is not None
    assert first.is_best
    longer = experiment.override_all({"train.epochs": 2, "model.fusion": "mlp"})
    (second,) = fit(longer, xor_digits, store=CheckpointStore(tmp_path))
    assert isinstance(second.model, FusionNet)
    assert second.model.fusion.candidate is None


def test_cached_features_train_as_the_full_model_does(xor_digits):
    frozen = {"model__freeze": "backbone", "optimizer__name": "sgd", "optimizer__lr": 0.01, "model__fusion": "mlp"}
    losses = []
    for views in (0, 1):
        experiment = small(xor_digits, augment__views=views, model__modality_dropout=0.0, **frozen)
        losses.append([(epoch.train_loss, (epoch.validation or {})["loss"]) for epoch in fit(experiment, xor_digits)])
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), atol=1e-4, rtol=1e-4)


def test_probe_of_columns_is_fitted_and_compared_by_folds(xor_digits, tmp_path):
    """The backbone is random, but its features tell digits apart."""
    train = xor_digits.train.take(torch.arange(400))
    dataset = dataclasses.replace(xor_digits, train=train)
    experiment = small(dataset, train__epochs=1)
    state = TrainState(experiment, dataset, ProcessGroup())
    probe, again = (
        head_probe.fit_head(state.model, experiment, dataset, state.scorer, folder=tmp_path) for _ in range(2)
    )
    assert probe.compared is not None
    assert again.compared is not None
    assert probe.held_out is not None
    assert probe.compared.scores == again.compared.scores
    assert (probe.loss, probe.hits, probe.images) == (again.loss, again.hits, 400)
    assert len(list(tmp_path.glob("*-fusion.safetensors"))) == 1
    assert probe.held_out.accuracy > probe.compared.scores["image"]["accuracy"]
    assert probe.held_out.accuracy > probe.compared.scores["columns"]["accuracy"]


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixed_images_are_refused(xor_digits, name):
    with pytest.raises(ConfigError, match=f"augment.{name} mixes images, but not the columns"):
        small(xor_digits, **{f"augment__{name}": 0.2})


def record(experiment: Experiment, dataset, folder: Path) -> RunFolder:
    run = RunFolder.create(folder, "run")
    with contextlib.closing(run):
        save_inputs(run, experiment, dataset)
        assert list(record_training(run, experiment, dataset))
    return run


@pytest.mark.parametrize("wanted", ["mlp", "trees", "average"])
def test_probe_is_saved_calibrated_by_folds_and_loaded(xor_digits, tmp_path, wanted):
    torch.manual_seed(0)
    plain = Experiment().override("model.name", "resnet18").model
    torch.save(models.build(plain, classes=4, channels=1, size=8).state_dict(), tmp_path / "w.pth")
    none = torch.empty(0, dtype=torch.int64)
    dataset = dataclasses.replace(
        xor_digits, train=xor_digits.train.take(torch.arange(150)), validation=xor_digits.validation.take(none)
    )
    probe = {"model__name": "resnet18", "model__weights": str(tmp_path / "w.pth"), "model__probe": True}
    experiment = small(dataset, **probe, model__fusion=wanted, train__epochs=1, train__keep="last")
    run = record(experiment, dataset, tmp_path)
    by_folds = bundles.read(run.folder).scores["validation"]
    calibrated = calibrate_saved_bundle(run.folder, dataset, run.folder, features=run.feature_folder)
    about, model = bundles.load(run.folder)
    assert about.fusion is not None
    assert about.fusion["chosen"] == wanted
    assert about.fusion[wanted]["accuracy"] == pytest.approx(by_folds["accuracy"])
    assert calibrated.bundle.scores["validation"]["count"] == about.fusion["images"] == 150
    importance = about.fusion["importance"]["validation"]
    assert importance["images"] == 150
    assert importance["value"] == pytest.approx(about.fusion[wanted]["accuracy"])
    assert [row["name"] for row in importance["inputs"]] == ["image", "all columns", "flip", "noise"]
    assert result_fields(run.folder)["fusion"] == about.fusion
    assert describe_fusion(about.fusion).startswith("columns join the image by ")
    assert isinstance(model, FusionNet)
    assert (model.fusion.candidate is None) == (wanted == "mlp")
    scorer = about.scorer(torch.device("cpu"))
    answers = [scorer.predict_split(one.model, dataset.test)[1] for one in (calibrated, bundles.load(run.folder))]
    assert torch.equal(*answers)
