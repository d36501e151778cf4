"""Ordered grades: learned, resumed, scored, saved and exported with a head of their own, which a probe can be, too."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from classifier import data, models
from classifier.bundle import bundle as bundles
from classifier.bundle.predictor import Predictor
from classifier.config.experiment import Experiment
from classifier.errors import ConfigError
from classifier.evaluation.calibrate import calibrate_saved_bundle
from classifier.export.folder import GateImages, export_bundle
from classifier.models.ordinal_head import OrdinalHead
from classifier.runs.folder import RunFolder
from classifier.runs.recorder import record_training, result_fields, save_inputs
from classifier.training.checkpoint import CheckpointStore
from classifier.training.loop import fit
from classifier.training.progress import describe_data, describe_epoch
from classifier.training.resolve import resolve

GRADES = ("none", "mild", "moderate", "severe")
SETTINGS = {
    "data.task": "ordinal",
    "data.order": ",".join(GRADES),
    "data.batch": 16,
    "data.validation": 0.3,
    "data.cache": None,
    "model.name": "cnn",
    "augment.policy": "none",
    "train.epochs": 8,
    "train.precision": "fp32",
    "train.threads": 1,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Images whose brightness grows with their grade, with noise."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("grades")
    for k, name in enumerate(GRADES):
        (root / name).mkdir()
        for n in range(40):
            pixels_HWC = rng.normal(60 + 40 * k + rng.normal(0, 12), 20, (16, 16, 3))
            Image.fromarray(pixels_HWC.clip(0, 255).astype(np.uint8)).save(root / name / f"{n}.png")
    return root


@pytest.fixture(scope="module")
def dataset(folder):
    return data.load(Experiment().override_all(SETTINGS | {"data.path": str(folder)}).data)


def small(folder: Path, dataset, **changes) -> Experiment:
    changes = {name.replace("__", "."): value for name, value in changes.items()}
    return resolve(Experiment().override_all(SETTINGS | {"data.path": str(folder)} | changes), dataset)


def record(experiment: Experiment, dataset, root: Path) -> Path:
    """Train in a run folder and calibrate; return it."""
    run = RunFolder.create(root, "run")
    save_inputs(run, experiment, dataset)
    for _ in record_training(run, experiment, dataset):
        pass
    run.close()
    calibrate_saved_bundle(run.folder, dataset, run.folder, device="cpu")
    return run.folder


@pytest.fixture(scope="module")
def trained(folder, dataset, tmp_path_factory) -> Path:
    return record(small(folder, dataset), dataset, tmp_path_factory.mktemp("runs"))


def test_the_bundle_has_the_head_and_the_scores_of_grades(trained, dataset):
    loaded = bundles.load(trained)
    assert isinstance(models.head_modules(loaded.model)["head"], OrdinalHead)
    assert (loaded.bundle.task, loaded.bundle.class_names) == ("ordinal", GRADES)
    validation = loaded.bundle.scores["validation"]
    assert validation["quadratic_kappa"] > 0.6
    low, high = validation["intervals"]["mean_absolute_error"]
    assert 0 <= low < validation["mean_absolute_error"] < high < 1
    summary = result_fields(trained)["validation"]
    assert summary["quadratic_kappa"] == validation["quadratic_kappa"]
    probabilities_NK = loaded.scorer().predict_probabilities(loaded.model, dataset.test.images_NCHW[:])
    torch.testing.assert_close(probabilities_NK.sum(1), torch.ones(len(dataset.test)))


def test_an_export_answers_as_the_bundle(trained, dataset):
    export_bundle(trained, "onnx", GateImages.select(dataset))  # raises where the answers differ
    images = [*dataset.test.images_NCHW[:6].numpy().transpose(0, 2, 3, 1)]
    here, torch_ = (Predictor(trained, device="cpu", engine=engine) for engine in ("onnx", "torch"))
    assert np.abs(here(images) - torch_(images)).max() < 1e-5


@pytest.mark.parametrize(("metric", "sign"), [("quadratic_kappa", 1), ("mean_absolute_error", -1)])
def test_scores_of_grades_select_the_best_epoch_of_a_resumed_training_too(folder, dataset, tmp_path, metric, sign):
    experiment = small(folder, dataset, train__epochs=3, train__metric="auto" if sign > 0 else metric)
    assert experiment.train.metric == metric
    timeless = dict.fromkeys(("seconds", "images_per_second", "input_wait"))
    whole: list[dict[str, Any]] = [epoch.row() | timeless for epoch in fit(experiment, dataset)]
    ranks = [(sign * row[f"validation_{metric}"], -row["validation_loss"]) for row in whole]
    assert [row["improves"] for row in whole] == [rank == max(ranks[: n + 1]) for n, rank in enumerate(ranks)]
    store = CheckpointStore(tmp_path / "checkpoints")
    first = next(iter(epochs := fit(experiment, dataset, store=store)))
    first.commit()
    epochs.close()  # pyright: ignore[reportAttributeAccessIssue]
    rows = [first.row(), *(epoch.row() for epoch in fit(experiment, dataset, store=store))]
    assert [row | timeless for row in rows] == whole
    assert "validation kappa 0." in describe_epoch(first.row(), 3)
    assert "4 grades, none to severe" in next(describe_data(dataset))


def test_a_probe_of_grades_is_a_proportional_odds_model_validated_by_folds(folder, dataset, tmp_path):
    plain = dataclasses.replace(small(folder, dataset).model, name="resnet18")
    torch.manual_seed(0)
    weights = models.build(plain, classes=7, channels=3, size=dataset.size).state_dict()
    torch.save(weights, tmp_path / "w.pth")
    merged = dataset.merge_validation(small(folder, dataset))
    changes = {"model__name": "resnet18", "model__weights": str(tmp_path / "w.pth"), "model__probe": True}
    experiment = small(folder, merged, **changes, train__epochs=1, train__keep="last", model__freeze="statistics")
    run = record(experiment, merged, tmp_path)
    validation = bundles.read(run).scores["validation"]
    assert validation["count"] == len(merged.train)
    assert validation["quadratic_kappa"] > 0.6
    with pytest.raises(ConfigError, match=r"loss\.adjustment"):
        small(folder, dataset, **changes, loss__adjustment=0.5)


def test_what_is_not_for_grades_is_refused(folder, dataset):
    with pytest.raises(ConfigError, match=r"loss\.name bce"):
        small(folder, dataset, loss__name="bce")
    with pytest.raises(ConfigError, match=r"train\.metric map is no score of data\.task ordinal"):
        small(folder, dataset, train__metric="map")
