"""The progress of a training in words: lines for a terminal, a log or a notebook."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from classifier.training import image_size

if TYPE_CHECKING:  # needs no torch
    from classifier.config.experiment import Experiment
    from classifier.data.dataset import Dataset
    from classifier.training.loop import StepProgress

# Columns of the progress bar.
BAR_WIDTH = 20


def describe_run(experiment: "Experiment", dataset: "Dataset") -> Iterator[str]:
    """What is about to be trained, on which data, and what was noticed about the data."""
    yield from describe_data(dataset)
    train, optimizer = experiment.train, experiment.optimizer
    epochs, stages = train.epochs - experiment.model.probe, []
    if experiment.model.probe:
        from classifier.inference.logistic_regression import describe_folds, find_held_out

        is_by_folds = not len(dataset.validation) and len(find_held_out(dataset.strata, dataset.train.units_N))
        folds = describe_folds(len(dataset.train), len(dataset.class_names)) if is_by_folds else ""
        stages.append(f"a linear probe validated {folds}" if folds else "a linear probe")
    if epochs:
        batch = f"{experiment.data.batch}" + (f" x {optimizer.accumulate}" if optimizer.accumulate > 1 else "")
        sizes = [*image_size.list_sizes(experiment.schedule, size=dataset.size, epochs=train.epochs)]
        if sizes != [dataset.size]:
            batch += f" at {f'{sizes[0]} to ' if len(sizes) > 1 else ''}{sizes[-1]} pixels"
        stages.append(
            f"{epochs} epoch{'' if epochs == 1 else 's'} of batch {batch}, {optimizer.name} lr "
            f"{optimizer.lr:g}, augment {experiment.augment.policy}"
        )
    yield f"{experiment.model.name}, {', then '.join(stages)}, {train.precision} on {train.device}"


def describe_fusion(fusion: dict[str, Any]) -> str:
    """One line on how columns join the image, and what that brings: from the `fusion` of a bundle."""
    ways = {
        "mlp": "a hidden layer over both",
        "trees": "trees over both",
        "average": "a hidden layer over both, averaged with trees over the columns",
    }
    line = f"columns join the image by {ways[fusion['chosen']]}"
    if not fusion["images"]:
        return line
    alone = [f"{name} alone {fusion[name]['accuracy']:.1%}" for name in ("image", "columns") if name in fusion]
    both = f"{fusion[fusion['chosen']]['accuracy']:.1%} of {fusion['images']:,} held-out images"
    return f"{line}: {both} ({', '.join(alone)})"


def describe_data(dataset: "Dataset") -> Iterator[str]:
    """Images per split, number of classes, image size, and what was noticed about the data."""
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset.counts.items())
    shape = f"{dataset.size}x{dataset.size}x{dataset.channels}"
    classes = f"{len(dataset.class_names)} classes"
    if dataset.task == "ordinal":
        classes = f"{len(dataset.class_names)} grades, {dataset.class_names[0]} to {dataset.class_names[-1]}"
    yield f"{dataset.name}: {counts} images of {classes}, {shape}"
    yield from (f"note: {finding}" for finding in dataset.findings)


def describe_epoch(row: dict[str, Any], epochs: int) -> str:
    """One line of at most 80 columns on a finished epoch, from its row in history.jsonl; * marks a new best."""
    line = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  "
    if "validation_map" in row:  # that all labels of an image are right says less
        line += f"train loss {row['train_loss']:.3f}"
        line += f"  validation mAP {row['validation_map']:7.2%} loss {row['validation_loss']:.3f}"
        return f"{line} {'*' if row['improves'] else ' '} {format_duration(row['seconds'])}"
    line += f"train {row['train_accuracy']:7.2%} loss {row['train_loss']:.3f}"
    if row.get("validation_quadratic_kappa") is not None:
        line += f"  validation kappa {row['validation_quadratic_kappa']:.3f} loss {row['validation_loss']:.3f}"
    elif row["validation_accuracy"] is not None:
        line += f"  validation {row['validation_accuracy']:7.2%} loss {row['validation_loss']:.3f}"
    return f"{line} {'*' if row['improves'] else ' '} {format_duration(row['seconds'])}"


def describe_step(step: "StepProgress", width: int = 80, age_seconds: float = 0.0) -> str:
    """One line on the current step: what does not fit into `width` columns is left out, the time left last.

    age_seconds: how long ago the step was reported.
    """
    done = round(BAR_WIDTH * step.step / step.steps)
    left = "-:--" if step.seconds_left is None else format_clock(max(0.0, step.seconds_left - age_seconds))
    parts = [f"epoch {step.epoch}/{step.epochs}", f"{left} left", "━" * done + "─" * (BAR_WIDTH - done)]
    if is_validating(step):
        parts.append("validating")
    parts += [f"loss {step.loss:.3f}", f"{step.accuracy:.1%}", f"step {step.step:,}/{step.steps:,}"]
    if step.images_per_second:
        parts.append(f"{step.images_per_second:,.0f} images/s")
    return join_that_fit(parts, width)


def is_validating(step: "StepProgress") -> bool:
    """Whether the step was the last one of its epoch, so that validation follows."""
    return step.step * step.epochs == step.epoch * step.steps


def join_that_fit(parts: Sequence[str], width: int) -> str:
    """The first parts, as many as fit into `width` columns, but at least one."""
    count = max(n for n in range(1, len(parts) + 1) if n == 1 or len("  ".join(parts[:n])) <= width)
    return "  ".join(parts[:count])


def format_duration(seconds: float) -> str:
    """`0.4 s` below ten seconds, `42 s` below a minute, else as a clock."""
    return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s" if seconds < 59.5 else format_clock(seconds)


def format_clock(seconds: float) -> str:
    """`0:42`, `3:07` or, with hours, `2:03:07`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
