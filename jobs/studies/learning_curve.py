"""The training set sizes of a learning curve, the power law through its errors, and what they mean."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, DataError
from classifier.metrics.intervals import Interval, difference_interval
from classifier.metrics.power_law import PowerLaw, fit_power_law, resample_power_law
from classifier.report.sections.study_sections import describe_point
from classifier.runs.folder import read_history, read_result

from .parallel_runs import StudyRun

# A model is called overfitted if its gap between training and validation accuracy is larger, and surely above 0.
MIN_OVERFITTING = 0.05
# It is said not to overfit if its gap is surely smaller, and to have room for a larger model if its error is larger.
MAX_FIT_GAP, MIN_ERROR = 0.05, 0.02
# More images are said to gain almost nothing if twice as many surely remove less than this share of the error.
MIN_GAIN = 0.05


def plan_runs(dataset: Dataset, experiment: Experiment, *, sizes: int, largest: float, repeats: int) -> list[StudyRun]:
    """One training per size, each twice the previous one, all with the same number of steps; a linear probe has none.

    ConfigError if the smallest has fewer images than a batch, or than two per class; DataError without validation.
    """
    is_probe = experiment.model.probe and experiment.train.epochs == 1
    if len(dataset.validation) == 0:
        how = dataset.how_to_fill("validation")
        raise DataError(f"{dataset.name} has no validation images to measure accuracy: {how}")
    train_images = len(dataset.train)
    if largest > 1:
        raise ConfigError(f"--largest {largest:g}: must be a fraction of the training images, at most 1")
    counts = sorted({round(train_images * largest / 2**n) for n in range(sizes)})
    batch = 1 if is_probe else experiment.data.batch * experiment.optimizer.accumulate
    min_images = max(2 * len(dataset.class_names), batch)
    if counts[0] < min_images:
        raise ConfigError(
            f"--sizes {sizes}: the smallest size has {counts[0]} of {train_images:,} images, but needs {min_images} (a "
            "batch, and two images per class): choose fewer sizes, or a smaller --data.batch"
        )
    runs = []
    for count in counts:
        # The same number of steps for each size: with the same number of epochs, small sizes would be undertrained.
        epochs = 1 if is_probe else round(experiment.train.epochs * counts[-1] / count)
        changes = {"data.limit": count, "train.epochs": epochs, "checkpoint.epochs": max(1, epochs // 10)}
        for n in range(repeats):
            name = f"{count}-{n}" if repeats > 1 else str(count)
            runs.append(StudyRun(name, changes | {"seed": experiment.seed + n}, is_tested=False))
    return runs


def summarize(folder: Path, runs: list[StudyRun], train_images: int, validation_images: int) -> dict[str, Any]:
    """One point per size (images, train and validation accuracy), the power law, its predictions, and what they mean.

    train_images: images in the whole training split; validation_images: in the validation split."""
    by_size: dict[int, list[tuple[float, float]]] = {}
    for run in runs:
        run_folder = folder / "sizes" / run.name
        train = read_history(run_folder)[-1]["train_accuracy"]
        validation = read_result(run_folder)["validation"]["accuracy"]
        by_size.setdefault(run.changes["data.limit"], []).append((train, validation))
    points = [
        {
            "images": size,
            "train": statistics.mean(train for train, _ in pairs),
            "validation": statistics.mean(validation for _, validation in pairs),
        }
        for size, pairs in sorted(by_size.items())
    ]
    curve: dict[str, Any] = {
        "points": points,
        "validation_images": validation_images,
        "law": None,
        "predicted": {},
        "predicted_intervals": {},
        "says": [],
    }
    if len(points) >= 3:
        sizes, errors = [p["images"] for p in points], [1 - p["validation"] for p in points]
        law = fit_power_law(sizes, errors, validation_images=validation_images)
        samples = resample_power_law(law, sizes, errors, validation_images=validation_images)
        larger = [n for n in (train_images, 2 * train_images, 10 * train_images) if n not in by_size]
        curve["law"] = law.as_dict()
        curve["predicted"] = {str(n): _accuracy(law, n) for n in larger}
        curve["predicted_intervals"] = {str(n): _interval([_accuracy(one, n) for one in samples]) for n in larger}
        curve["says"] = interpret(points, law, samples, train_images, validation_images)
    return curve


def _accuracy(law: PowerLaw, images: int) -> float:
    return max(0.0, 1 - law(images))


def _interval(values: Sequence[float]) -> Interval:
    """The central 95 %."""
    low, high = np.quantile(values, [0.025, 0.975]).tolist()
    return low, high


def interpret(
    points: list[dict[str, Any]], law: PowerLaw, samples: Sequence[PowerLaw], train_images: int, validation_images: int
) -> list[str]:
    """What the curve means: the gain from twice the images, and whether the model overfits, if that can be told.

    samples: laws that other validation images and trainings would give.
    """
    last, twice = points[-1], 2 * train_images
    low, high = _interval([one(train_images) - one(twice) for one in samples])
    share_low, share_high = _interval([1 - one(twice) / one(train_images) for one in samples])
    if low > 0:
        from_, to = _interval([_accuracy(one, twice) for one in samples])
        lines = [
            f"Twice as many images ({twice:,}) would give an accuracy of about {_accuracy(law, twice):.1%} "
            f"({from_:.1%} to {to:.1%}; now {last['validation']:.1%} with {last['images']:,}); doubling them removes "
            f"{share_low:.0%} to {share_high:.0%} of the error."
        ]
    else:
        lines = [
            f"Twice as many images ({twice:,}): cannot tell whether they would help. The accuracy would change by "
            f"{100 * low:+.1f} to {100 * high:+.1f} points, by {len(points)} sizes measured on {validation_images:,} "
            "validation images; more --sizes, --repeats or validation images may tell."
        ]
    if share_high < MIN_GAIN:
        lines.append("More images of the same kind gain almost nothing: try another model, or better images.")
    gap = last["train"] - last["validation"]
    gap_low, gap_high = difference_interval(last["train"], last["images"], last["validation"], validation_images)
    if gap > MIN_OVERFITTING and gap_low > 0:
        lines.append(
            f"It overfits: accuracy is {100 * gap:.0f} points ({100 * gap_low:.0f} to {100 * gap_high:.0f}) higher on "
            "training images. More images or more augmentation will probably help."
        )
    elif gap > MIN_OVERFITTING:
        lines.append(
            f"Cannot tell whether it overfits: accuracy is {100 * gap_low:+.0f} to {100 * gap_high:+.0f} points higher "
            f"on training images, by {validation_images:,} validation images."
        )
    elif gap_high < MAX_FIT_GAP and 1 - last["validation"] > MIN_ERROR:
        lines.append("It does not overfit: a larger model or a longer training may make better use of these images.")
    return lines


def make_table(curve: dict[str, Any]) -> Table:
    """One row per size, and one per prediction of the power law."""
    table = Table(box=None, pad_edge=False)
    for name in ("images", "train", "validation"):
        table.add_column(name, justify="right")
    for point in curve["points"]:
        table.add_row(f"{point['images']:,}", *describe_point(point, curve["validation_images"]))
    for images, accuracy in curve["predicted"].items():
        low, high = curve["predicted_intervals"][images]
        table.add_row(f"{int(images):,}", "", f"about {accuracy:.2%} ({low:.1%} to {high:.1%})", style="dim")
    return table
