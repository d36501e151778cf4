"""Calibrate a trained model on its validation images, and save the calibration in its bundle."""

import dataclasses
from pathlib import Path

from torch import Tensor

from classifier.bundle import bundle as bundles
from classifier.bundle.bundle import Bundle, LoadedBundle
from classifier.data.dataset import Dataset
from classifier.evaluation.split_predictions import SplitPredictions
from classifier.inference.out_of_distribution import OODDetector
from classifier.metrics.calibration import MIN_IMAGES, apply_temperature, calibrate, judge_calibration
from classifier.metrics.scores import compute_scores
from classifier.runtime.distributed import pick_device

# Unreachable classes that the summary names.
CLASSES_NAMED = 5


def calibrate_bundle(
    loaded: LoadedBundle,
    dataset: Dataset,
    *,
    coverage: float | None = None,
    precision: float | None = None,
    recall: float | None = None,
) -> tuple[LoadedBundle, Tensor]:
    """Calibrate a loaded bundle on the validation images; the bundle and its calibrated probabilities_NK for them.

    The bundle's validation scores become those of the calibrated probabilities. Its test scores are dropped if the
    temperature changes. Nothing is saved. Errors of metrics.calibration.calibrate; DivergedError if predictions are
    not finite.
    """
    bundle, model = loaded
    validation = dataset.validation
    uncalibrated_scorer = dataclasses.replace(loaded.scorer(), temperature=1.0)
    confusion, probabilities_NK = uncalibrated_scorer.predict_split(model, validation)
    confusion.scores()  # raises DivergedError
    calibration = calibrate(
        probabilities_NK, validation.labels_N, coverage=coverage, precision=precision, recall=recall
    )
    probabilities_NK = apply_temperature(probabilities_NK.log(), calibration.temperature).exp()
    scores = bundle.scores | {"validation": compute_scores(probabilities_NK, validation.labels_N, bundle.class_names)}
    if bundle.calibration and bundle.calibration["temperature"] != calibration.temperature:
        scores["test"] = None
    bundle = dataclasses.replace(bundle, scores=scores, calibration=calibration.as_dict())
    return LoadedBundle(bundle, model), probabilities_NK


def save_with_ood_detector(loaded: LoadedBundle, dataset: Dataset, folder: Path) -> None:
    """Save the bundle in `folder` with an OOD detector fitted to its training images. RunError as bundle.save."""
    images = dataset.train.images_NCHW, dataset.validation.images_NCHW
    detector = OODDetector.fit(loaded.model, loaded.scorer(), *images)
    bundles.save(loaded.bundle, loaded.model, folder, detector.tensors)


def calibrate_saved_bundle(
    path: str | Path,
    dataset: Dataset,
    output_folder: Path,
    *,
    device: str = "auto",
    coverage: float | None = None,
    precision: float | None = None,
    recall: float | None = None,
) -> LoadedBundle:
    """Calibrate the bundle at `path` (a run, search or bundle folder) and save it there.

    Its validation predictions and hard examples are saved in `output_folder`. Errors of bundle.load and
    calibrate_bundle.
    """
    loaded = bundles.load(path, pick_device(device))
    loaded, probabilities_NK = calibrate_bundle(loaded, dataset, coverage=coverage, precision=precision, recall=recall)
    save_with_ood_detector(loaded, dataset, bundles.bundle_folder(path))
    SplitPredictions(loaded, dataset, "validation", probabilities_NK).save([output_folder])
    return loaded


def describe_calibration(bundle: Bundle) -> str:
    """Summarise the calibration of a calibrated bundle in one sentence."""
    calibration, scores = bundle.calibration, bundle.scores["validation"]
    assert calibration is not None
    images, temperature = calibration["images"], f"temperature {calibration['temperature']:.2f}"
    if images < MIN_IMAGES:
        text = f"not calibrated: {images} validation images are too few to fit a temperature (it takes {MIN_IMAGES})"
    elif judge_calibration(scores) is None:
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
