"""The end of a training: the model is calibrated on its validation images, and what it said of them is kept."""

from pathlib import Path
from typing import Any

from torch import Tensor

from classifier.bundle import bundle
from classifier.bundle.bundle import Bundle
from classifier.bundle.predictions import predictions_table, save_predictions
from classifier.calibrated import calibrated
from classifier.data.dataset import Dataset
from classifier.mistakes import looked_at
from classifier.runs.folder import MISTAKES, PREDICTIONS
from classifier.runtime.distributed import pick_device


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
