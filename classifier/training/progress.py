"""The progress of a training in words: lines for a terminal, a log or a notebook."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # needs no torch
    from classifier.config.experiment import Experiment
    from classifier.data.dataset import Dataset
    from classifier.training.loop import StepProgress


def describe_run(experiment: "Experiment", dataset: "Dataset") -> Iterator[str]:
    """What is about to be trained, on which data, and what was noticed about the data."""
    yield from describe_data(dataset)
    train, optimizer = experiment.train, experiment.optimizer
    yield (
        f"{experiment.model.name}, {train.epochs} epochs of batch {experiment.data.batch}, {optimizer.name} "
        f"lr {optimizer.lr:g}, augment {experiment.augment.policy}, {train.precision} on {train.device}"
    )


def describe_data(dataset: "Dataset") -> Iterator[str]:
    """Images per split, number of classes, image size, and what was noticed about the data."""
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset.counts.items())
    shape = f"{dataset.size}x{dataset.size}x{dataset.channels}"
    yield f"{dataset.name}: {counts} images of {len(dataset.class_names)} classes, {shape}"
    yield from (f"note: {finding}" for finding in dataset.findings)


def describe_epoch(row: dict[str, Any], epochs: int) -> str:
    """One line on a finished epoch, from its row in history.jsonl; * marks a new best."""
    line = f"epoch {row['epoch']:>3}/{epochs}  train {row['train_accuracy']:6.2%} loss {row['train_loss']:.3f}"
    if row["validation_accuracy"] is not None:
        line += f"  validation {row['validation_accuracy']:6.2%} loss {row['validation_loss']:.3f}"
    line += f" {'*' if row['best'] else ' '} {row['seconds']:.1f} s"
    if row["images_per_second"]:
        line += f"  {row['images_per_second']:,.0f} images/s"
    return line


def describe_step(step: "StepProgress") -> str:
    """One line on the current step, with a bar and the time left."""
    done = step.step / step.steps
    bar = "━" * round(20 * done) + "─" * (20 - round(20 * done))
    text = f"epoch {step.epoch}/{step.epochs} {bar} step {step.step}/{step.steps}"
    text += f"  loss {step.loss:.3f}  {step.accuracy:.1%}"
    if step.images_per_second:
        text += f"  {step.images_per_second:,.0f} images/s"
    if step.seconds_left is not None:
        text += f"  {step.seconds_left // 60:.0f}:{step.seconds_left % 60:02.0f} left"
    return text
