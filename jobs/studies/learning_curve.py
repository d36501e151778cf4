"""The sizes of a learning curve, and what the scores at them mean."""

import statistics
from pathlib import Path
from typing import Any

from rich.table import Table

from classifier.config.experiment import Experiment
from classifier.data.dataset import Dataset
from classifier.errors import ConfigError, DataError
from classifier.metrics.power_law import PowerLaw, fit_power_law
from classifier.runs.folder import read_history, read_result
from jobs.studies.parallel_runs import StudyRun

# Points of accuracy between training and validation from which on a model has learned by heart.
MIN_OVERFITTING = 0.05


def plan_runs(dataset: Dataset, experiment: Experiment, *, sizes: int, largest: float, repeats: int) -> list[StudyRun]:
    """A training for each size, twice the one before it, all of as many steps. ConfigError where the smallest
    would hold no image a class."""
    if len(dataset.validation) == 0:
        raise DataError(f"{dataset.name} has no validation images to score by: set --data.validation above 0")
    most = len(dataset.train)
    if largest > 1:
        raise ConfigError(f"--largest {largest:g}: give a share of the training images, at most 1")
    counts = sorted({round(most * largest / 2**n) for n in range(sizes)})
    least = max(2 * len(dataset.class_names), experiment.data.batch * experiment.optimizer.accumulate)
    if counts[0] < least:
        raise ConfigError(
            f"--sizes {sizes}: the smallest would have {counts[0]} images of {most:,}, and {least} are needed (a "
            "batch, and two images a class): take fewer sizes, or a smaller --data.batch"
        )
    found = []
    for count in counts:
        # As many steps for each: with as many epochs, small sizes would show how little they were trained.
        epochs = round(experiment.train.epochs * counts[-1] / count)
        changes = {"data.limit": count, "train.epochs": epochs, "checkpoint.epochs": max(1, epochs // 10)}
        for n in range(repeats):
            name = f"{count}-{n}" if repeats > 1 else str(count)
            found.append(StudyRun(name, changes | {"seed": experiment.seed + n}, is_tested=False))
    return found


def summarize(folder: Path, runs: list[StudyRun], train_images: int) -> dict[str, Any]:
    """A point a size (images, train and validation accuracy), the law, what it predicts, and sentences."""
    by_size: dict[int, list[tuple[float, float]]] = {}
    for member in runs:
        home = folder / "sizes" / member.name
        trained = read_history(home)[-1]["train_accuracy"]
        validated = read_result(home)["validation"]["accuracy"]
        by_size.setdefault(member.changes["data.limit"], []).append((trained, validated))
    points = [
        {
            "images": size,
            "train": statistics.mean(t for t, _ in pairs),
            "validation": statistics.mean(v for _, v in pairs),
        }
        for size, pairs in sorted(by_size.items())
    ]
    found: dict[str, Any] = {"points": points, "law": None, "predicted": {}, "says": []}
    if len(points) >= 3:
        law = fit_power_law([p["images"] for p in points], [1 - p["validation"] for p in points])
        found["law"] = law.as_dict()
        found["predicted"] = {str(n): 1 - law(n) for n in (train_images, 2 * train_images, 10 * train_images) if n not in by_size}
        found["says"] = interpret(points, law, train_images)
    return found


def interpret(points: list[dict[str, Any]], law: PowerLaw, train_images: int) -> list[str]:
    """What the curve means, for people."""
    last = points[-1]
    lines = [
        f"Twice as many images as there are ({2 * train_images:,}) would be right on about {1 - law(2 * train_images):.1%} (now "
        f"{last['validation']:.1%} with {last['images']:,}); doubling takes {1 - law(2 * train_images) / law(train_images):.0%} of the "
        "error away."
    ]
    gap = last["train"] - last["validation"]
    if law.slope < 0.05:
        lines.append("More images of the same kind bring next to nothing: another model, or better images, may.")
    if gap > MIN_OVERFITTING:
        lines.append(
            f"It overfits: {gap:.0%} better on what it has learned. More images, or more augmentation, will help."
        )
    elif last["train"] < last["validation"] + 0.01 and 1 - last["validation"] > 0.02:
        lines.append("It does not overfit: a larger model, or a longer training, may use these images better.")
    return lines


def make_table(found: dict[str, Any]) -> Table:
    shown = Table(box=None, pad_edge=False)
    for name in ("images", "train", "validation"):
        shown.add_column(name, justify="right")
    for point in found["points"]:
        shown.add_row(f"{point['images']:,}", f"{point['train']:.2%}", f"{point['validation']:.2%}")
    for images, accuracy in found["predicted"].items():
        shown.add_row(f"{int(images):,}", "", f"about {accuracy:.2%}", style="dim")
    return shown
