"""Calibrate a trained model on its validation images, and save the calibration in its bundle."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import Bundle, LoadedBundle
from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset, Split
from classifier.data.images.arrays import Images, select
from classifier.errors import DataError, RunError
from classifier.evaluation.column_importance import measure_split_importance
from classifier.evaluation.reference import fit_detector_and_reference, fit_detector_and_reference_by_folds
from classifier.evaluation.split_predictions import SplitPredictions
from classifier.evaluation.split_scores import score_predictions
from classifier.inference import logistic_regression
from classifier.inference.logistic_regression import (
    FOLDS,
    FoldHead,
    HeldOut,
    assign_folds,
    find_held_out,
)
from classifier.inference.scorer import gather_targets
from classifier.metrics.calibration import MIN_IMAGES, calibrate, judge_calibration
from classifier.metrics.decisions import Calibration
from classifier.metrics.label_calibration import calibrate_labels
from classifier.models.fusion.fusion_net import FusionNet
from classifier.runtime.distributed import pick_device
from classifier.training import head_probe
from classifier.training.fusion.conclude import fit_by_folds, measure_importance_by_folds

# Unreachable classes that the summary names.
CLASSES_NAMED = 5


def calibrate_bundle(
    loaded: LoadedBundle,
    dataset: Dataset,
    *,
    coverage: float | None = None,
    precision: float | None = None,
    recall: float | None = None,
    features_NF: Tensor | None = None,
    folder: Path | None = None,
) -> tuple[LoadedBundle, Tensor]:
    """Calibrate a loaded bundle on the validation images; the bundle and its calibrated probabilities_NK for them.

    Without validation images, a linear probe is calibrated by cross-validation on its training images. features_NF: of
    these, if they are known (head_probe.compute_features); folder: where the training has kept what it fitted to them.

    The bundle's validation scores become those of the calibrated probabilities. Its test scores are dropped if the
    temperature changes, or the thresholds from which on several labels are said. Nothing is saved. Errors of
    metrics.calibration.calibrate; DivergedError if predictions are not finite.
    """
    bundle, model = loaded
    importance = None
    uncalibrated_scorer = dataclasses.replace(loaded.scorer(), temperature=1.0)
    if is_validated_by_folds(bundle):
        validation = select_held_out(dataset)
        if features_NF is None:
            features_NF = _compute_features(loaded, dataset)
        adjustment = loaded.bundle.experiment["loss"]["adjustment"]
        if bundle.columns:
            probabilities_NK, importance = _predict_columns_by_folds(loaded, features_NF, dataset, folder)
        else:
            unlabelled_MF = _compute_unlabelled(loaded, dataset, folder)
            probabilities_NK = predict_by_folds(features_NF, dataset, adjustment, unlabelled_MF)
    else:
        validation = dataset.validation
        counts, probabilities_NK = uncalibrated_scorer.predict_split(model, validation, dataset.label_sets_MK)
        counts.scores()  # raises DivergedError
    targets = gather_targets(validation.labels_N, dataset.label_sets_MK)
    limits = {"coverage": coverage, "precision": precision, "recall": recall}
    is_multilabel = bundle.task == "multilabel"
    if is_multilabel:
        calibration = calibrate_labels(probabilities_NK, targets, **limits)
    else:
        calibration = calibrate(probabilities_NK, targets, **limits, hierarchy=bundle.hierarchy)
    scorer = dataclasses.replace(uncalibrated_scorer, temperature=calibration.temperature)
    probabilities_NK = scorer.apply_temperature(probabilities_NK.log()).exp()
    validated = score_predictions(bundle.task, probabilities_NK, targets, bundle.class_names, calibration.thresholds)
    scores = bundle.scores | {"validation": validated}
    if bundle.calibration:
        before = Calibration.from_dict(bundle.calibration)
        is_said_alike = not is_multilabel or before.thresholds == calibration.thresholds
        if before.temperature != calibration.temperature or not is_said_alike:
            scores["test"] = None
    bundle = dataclasses.replace(bundle, scores=scores, calibration=calibration.as_dict())
    if not is_validated_by_folds(bundle):
        importance = measure_split_importance(LoadedBundle(bundle, model), validation, dataset.label_sets_MK)
    bundle = bundle.with_importance("validation", importance)
    if scores["test"] is None:
        bundle = bundle.with_importance("test", None)
    return LoadedBundle(bundle, model), probabilities_NK


def is_validated_by_folds(bundle: Bundle) -> bool:
    """Whether the model is a linear probe on frozen features, and there were no validation images."""
    return _is_probe(bundle) and not bundle.dataset["counts"]["validation"]


def describe_folds(bundle: Bundle) -> str:
    """Say by which folds the model was validated; "" if it was not validated by folds."""
    if not is_validated_by_folds(bundle) or not bundle.scores["validation"]:
        return ""
    return logistic_regression.describe_folds(bundle.dataset["counts"]["train"], len(bundle.class_names))


def predict_by_folds(
    features_NF: Tensor, dataset: Dataset, adjustment: float = 0.0, unlabelled_MF: Tensor | None = None
) -> Tensor:
    """Return probabilities_MK of the training images of `select_held_out`, by cross-validation of a probe.

    adjustment: that of the loss. unlabelled_MF: features of the images without labels that it learned from, too.
    DataError if no class has two images.
    """
    return _to_probabilities(head_probe.fit_probe(features_NF, dataset, adjustment, unlabelled_MF).held_out, dataset)


def _predict_columns_by_folds(
    loaded: LoadedBundle, features_NF: Tensor, dataset: Dataset, folder: Path | None
) -> tuple[Tensor, dict[str, Any] | None]:
    """The same of a model of images and columns, as it was chosen by folds; and the importance of its inputs."""
    experiment, model = Experiment.from_dict(loaded.bundle.experiment), copy.deepcopy(loaded.model)
    assert isinstance(model, FusionNet)
    train = head_probe.select_images(dataset)
    compared = fit_by_folds(model, experiment, dataset, features_NF, train, folder)
    importance = measure_importance_by_folds(model, experiment, dataset, features_NF, train, compared)
    return _to_probabilities(compared.held_out, dataset), importance


def _to_probabilities(held_out: HeldOut | None, dataset: Dataset) -> Tensor:
    if held_out is None:
        raise DataError(f"{dataset.name} has no class with two images: there is nothing to calibrate on")
    return held_out.logits_MK.sigmoid() if dataset.task == "multilabel" else held_out.logits_MK.softmax(1)


def fit_folds(loaded: LoadedBundle, dataset: Dataset) -> tuple[FoldHead, ...]:
    """Fit the heads again by which a bundle was validated. DataError if no class has two images."""
    adjustment, features_NF = loaded.bundle.experiment["loss"]["adjustment"], _compute_features(loaded, dataset)
    folds = head_probe.fit_probe(features_NF, dataset, adjustment, _compute_unlabelled(loaded, dataset)).folds
    if not folds:
        raise DataError(f"{dataset.name} has no class with two images: there is nothing to judge a model on")
    return folds


def select_held_out(dataset: Dataset) -> Split:
    """Return those of the training images that a cross-validation holds out."""
    train = head_probe.select_images(dataset)
    return train.take(find_held_out(dataclasses.replace(dataset, train=train).strata, train.units_N))


def _is_probe(bundle: Bundle) -> bool:
    settings = bundle.experiment
    return settings["model"].get("probe", False) and settings["train"]["epochs"] == 1


def _compute_features(loaded: LoadedBundle, dataset: Dataset, folder: Path | None = None) -> Tensor:
    """Return the features that a probe was fitted to. folder: where they may be kept."""
    experiment = Experiment.from_dict(loaded.bundle.experiment)
    return head_probe.compute_features(loaded.model, experiment, dataset, loaded.scorer(), folder=folder)


def _compute_unlabelled(loaded: LoadedBundle, dataset: Dataset, folder: Path | None = None) -> Tensor | None:
    """The same of images without labels; None if the probe had none. RunError if they were not read again."""
    experiment = Experiment.from_dict(loaded.bundle.experiment)
    if dataset.unlabelled is None and experiment.data.unlabelled is not None:
        raise RunError(
            "this probe has also learned from data.unlabelled, which a bundle without its run does not choose: name "
            "the run instead"
        )
    return head_probe.compute_unlabelled(loaded.model, experiment, dataset, loaded.scorer(), folder)


def save_with_ood_detector(
    loaded: LoadedBundle, dataset: Dataset, folder: Path, probabilities_NK: Tensor | None = None
) -> None:
    """Save the bundle in `folder` with an OOD detector fitted to its training images. RunError as bundle.save.

    probabilities_NK: as calibrate_bundle returns them, to be kept as what drift is measured against; None for a model
    that has trained on the validation images.
    """
    fit = fit_detector_and_reference_by_folds if is_validated_by_folds(loaded.bundle) else fit_detector_and_reference
    bundles.save(loaded.bundle, loaded.model, folder, *fit(loaded, dataset, probabilities_NK))


def select_typical(bundle: Bundle, dataset: Dataset) -> tuple[Images, Images]:
    """Return images that an OOD detector is fitted to, and others that set its limit."""
    images_NCHW = dataset.train.images_NCHW
    if not is_validated_by_folds(bundle):
        return images_NCHW, dataset.validation.images_NCHW
    # What looks typical does not depend on labels.
    is_held_N = assign_folds(dataset.strata, FOLDS, dataset.train.units_N) == 0
    return select(images_NCHW, torch.nonzero(~is_held_N)[:, 0]), select(images_NCHW, torch.nonzero(is_held_N)[:, 0])


def calibrate_saved_bundle(
    path: str | Path,
    dataset: Dataset,
    output_folder: Path,
    *,
    device: str = "auto",
    coverage: float | None = None,
    precision: float | None = None,
    recall: float | None = None,
    features: Path | None = None,
) -> LoadedBundle:
    """Calibrate the bundle at `path` (a run, search or bundle folder) and save it there.

    Its validation predictions and hard examples are saved in `output_folder`. features: folder in which the training
    has kept those of a frozen backbone, if anywhere. Errors of bundle.load and calibrate_bundle.
    """
    loaded, features_NF = bundles.load(path, pick_device(device)), None
    by_folds = is_validated_by_folds(loaded.bundle)
    if by_folds or (features is not None and _is_probe(loaded.bundle)):
        features_NF = _compute_features(loaded, dataset, features)
    targets = {"coverage": coverage, "precision": precision, "recall": recall}
    loaded, probabilities_NK = calibrate_bundle(loaded, dataset, **targets, features_NF=features_NF, folder=features)
    save_with_ood_detector(loaded, dataset, bundles.bundle_folder(path), probabilities_NK)
    if features_NF is not None:
        dataset = dataclasses.replace(dataset, train=head_probe.select_images(dataset))
    if by_folds:
        dataset = dataclasses.replace(dataset, validation=select_held_out(dataset))
    SplitPredictions(loaded, dataset, "validation", probabilities_NK, features_NF).save([output_folder])
    return loaded


def describe_calibration(bundle: Bundle) -> str:
    """Summarise the calibration of a calibrated bundle in one sentence."""
    calibration, scores = bundle.calibration, bundle.scores["validation"]
    assert calibration is not None
    images, temperature = calibration["images"], f"temperature {calibration['temperature']:.2f}"
    if images < MIN_IMAGES:
        text = f"not calibrated: {images} images are too few to fit a temperature (it takes {MIN_IMAGES})"
    elif bundle.task != "multilabel" and judge_calibration(scores) is None:
        text = f"calibrated: {temperature}; {images:,} images are too few to judge calibration"
    else:
        text = f"calibrated: {temperature}, expected calibration error {scores['ece']:.1%} on {images:,} images"
    if calibration["wish"]:
        thresholds = zip(bundle.class_names, calibration["thresholds"], strict=True)
        unreachable = [name for name, threshold in thresholds if threshold is None]
        text += f"; thresholds for {calibration['wish']}"
        if unreachable:
            more = "..." if len(unreachable) > CLASSES_NAMED else ""
            text += f" (not reachable for {', '.join(unreachable[:CLASSES_NAMED])}{more})"
    return text
