"""Learn from validation images when a finished model may be believed, and keep it in its bundle."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classifier.bundle import bundle
from classifier.bundle.bundle import Bundle
from classifier.bundle.predictions import predictions_table, save_predictions
from classifier.data.dataset import Dataset
from classifier.evaluation.hard_examples import looked_at
from classifier.inference.out_of_distribution import Novelty
from classifier.metrics.calibration import Calibration, calibrate, tempered
from classifier.metrics.scores import figures
from classifier.runs.folder import MISTAKES, PREDICTIONS
from classifier.runtime.distributed import pick_device


def calibrated(
    path: str | Path,
    dataset: Dataset,
    device: torch.device,
    *,
    coverage: float | None = None,
    precision: float | None = None,
    recall: float | None = None,
) -> tuple[Bundle, Tensor]:
    """Calibrate the bundle at `path` (a run, search or bundle folder); the bundle and its validation probabilities_NK.

    The scores on the validation images become those of the calibrated probabilities, and scores on the test split that
    another temperature made are forgotten. Errors of bundle.load and calibrate; DivergedError from spoiled weights.
    """
    made, model = bundle.load(path, device)
    plain, part = dataclasses.replace(made.scorer(device), temperature=1.0), dataset.validation
    tally, probabilities_NK = plain.evaluate(model, part)
    tally.scores()  # raises where they are not finite
    found = calibrate(probabilities_NK, part.labels_N, coverage=coverage, precision=precision, recall=recall)
    probabilities_NK = tempered(probabilities_NK.log(), found.temperature).exp()
    scores = made.scores | {"validation": figures(probabilities_NK, part.labels_N, made.class_names)}
    if made.calibration and made.calibration["temperature"] != found.temperature:
        scores["test"] = None
    made = keep(dataclasses.replace(made, scores=scores), found, model, dataset, bundle.home(path), device)
    return made, probabilities_NK


def keep(
    made: Bundle, calibration: Calibration, model: nn.Module, dataset: Dataset, folder: Path, device: torch.device
) -> Bundle:
    """Write the bundle with this calibration, and with what tells pictures unlike its training images."""
    made = dataclasses.replace(made, calibration=calibration.as_dict())
    images = dataset.train.images_NCHW, dataset.validation.images_NCHW
    novelty = Novelty.fitted(model, made.scorer(device), *images)
    bundle.save(made, model, folder, novelty.tensors)
    return made


def learned(
    path: str | Path, into: Path, dataset: Dataset, *, device: str = "auto", **wishes: Any
) -> tuple[Bundle, str]:
    """Calibrate the bundle at `path`, and save what it says of its validation images in `into`; a line about it."""
    made, probabilities_NK = calibrated(path, dataset, pick_device(device), **wishes)
    keep_answers(path, into, dataset, "validation", probabilities_NK, device)
    return made, line(made)


def keep_answers(
    path: str | Path, into: Path, dataset: Dataset, split: str, probabilities_NK: Tensor, device: str = "auto"
) -> None:
    """Save the predictions of a split in the folder `into`, and the images that a person should look at."""
    made, model = bundle.load(path, pick_device(device))
    part = getattr(dataset, split)
    table = predictions_table(part.ids, part.labels_N, probabilities_NK, made.class_names)
    save_predictions(table, into / PREDICTIONS[split])
    shown = looked_at(model, made.scorer(pick_device(device)), dataset, part, probabilities_NK)
    save_predictions(shown, into / MISTAKES[split])


def line(made: Bundle) -> str:
    """What was learned, in a sentence."""
    known, scores = made.calibration, made.scores["validation"]
    assert known is not None
    said = (
        f"calibrated on {known['images']:,} validation images: temperature {known['temperature']:.2f}, confidence and "
    )
    said += f"accuracy {scores['ece']:.1%} apart"
    if known["wish"]:
        never = [n for n, least in zip(made.class_names, known["thresholds"], strict=True) if least is None]
        said += f"; thresholds for {known['wish']}"
        said += f" (it cannot be had for {', '.join(never[:5])}{'...' if len(never) > 5 else ''})" if never else ""
    return said
