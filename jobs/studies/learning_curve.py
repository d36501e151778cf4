"""The training set sizes of a learning curve, the power law through its errors, and what they mean."""

import statistics
from pathlib import Path
from typing import Any

from rich.table import Table

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, DataError
from classifier.metrics.power_law import PowerLaw, fit_power_law
from classifier.runs.folder import read_history, read_result

from .parallel_runs import StudyRun

# Gap between training and validation accuracy from which a model is called overfitted.
MIN_OVERFITTING = 0.05


def plan_runs(dataset: Dataset, experiment: Experiment, *, sizes: int, largest: float, repeats: int) -> list[StudyRun]:
    """One training per size, each twice the previous one, all with the same number of steps.

    ConfigError if the smallest has fewer images than a batch, or than two per class; DataError without validation.
    """
    if len(dataset.validation) == 0:
        raise DataError(f"{dataset.name} has no validation images to measure accuracy: set --data.validation above 0")
    train_images = len(dataset.train)
    if largest > 1:
        raise ConfigError(f"--largest {largest:g}: must be a fraction of the training images, at most 1")
    counts = sorted({round(train_images * largest / 2**n) for n in range(sizes)})
    min_images = max(2 * len(dataset.class_names), experiment.data.batch * experiment.optimizer.accumulate)
    if counts[0] < min_images:
        raise ConfigError(
            f"--sizes {sizes}: the smallest size has {counts[0]} of {train_images:,} images, but needs {min_images} (a "
            "batch, and two images per class): choose fewer sizes, or a smaller --data.batch"
        )
    runs = []
    for count in counts:
        # The same number of steps for each size: with the same number of epochs, small sizes would be undertrained.
        epochs = round(experiment.train.epochs * counts[-1] / count)
        changes = {"data.limit": count, "train.epochs": epochs, "checkpoint.epochs": max(1, epochs // 10)}
        for n in range(repeats):
            name = f"{count}-{n}" if repeats > 1 else str(count)
            runs.append(StudyRun(name, changes | {"seed": experiment.seed + n}, is_tested=False))
    return runs


def summarize(folder: Path, runs: list[StudyRun], train_images: int) -> dict[str, Any]:
    """One point per size (images, train and validation accuracy), the power law, its predictions, and what they mean.

    train_images: images in the whole training split."""
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
    curve: dict[str, Any] = {"points": points, "law": None, "predicted": {}, "says": []}
    if len(points) >= 3:
        law = fit_power_law([p["images"] for p in points], [1 - p["validation"] for p in points])
        larger = (train_images, 2 * train_images, 10 * train_images)
        curve["law"] = law.as_dict()
        curve["predicted"] = {str(n): 1 - law(n) for n in larger if n not in by_size}
        curve["says"] = interpret(points, law, train_images)
    return curve


def interpret(points: list[dict[str, Any]], law: PowerLaw, train_images: int) -> list[str]:
    """What the curve means: the gain from twice the images, and whether the model overfits."""
    last, doubled = points[-1], law(2 * train_images)
    lines = [
        f"Twice as many images ({2 * train_images:,}) would give an accuracy of about {1 - doubled:.1%} (now "
        f"{last['validation']:.1%} with {last['images']:,}); doubling them removes "
        f"{1 - doubled / law(train_images):.0%} of the error."
    ]
    gap = last["train"] - last["validation"]
    if law.slope < 0.05:
        lines.append("More images of the same kind gain almost nothing: try another model, or better images.")
    if gap > MIN_OVERFITTING:
        lines.append(
            f"It overfits: accuracy is {gap:.0%} higher on training images. More images or more augmentation will help."
        )
    elif last["train"] < last["validation"] + 0.01 and 1 - last["validation"] > 0.02:
        lines.append("It does not overfit: a larger model or a longer training may make better use of these images.")
    return lines


def make_table(curve: dict[str, Any]) -> Table:
    """One row per size, and one per prediction of the power law."""
    table = Table(box=None, pad_edge=False)
    for name in ("images", "train", "validation"):
        table.add_column(name, justify="right")
    for point in curve["points"]:
        table.add_row(f"{point['images']:,}", f"{point['train']:.2%}", f"{point['validation']:.2%}")
    for images, accuracy in curve["predicted"].items():
        table.add_row(f"{int(images):,}", "", f"about {accuracy:.2%}", style="dim")
    return table
