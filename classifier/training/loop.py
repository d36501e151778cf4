"""The loop: a generator that trains and yields one Epoch after the other, in a plain process, torchrun or Ray."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classifier.config.experiment import Experiment
from classifier.data import loader
from classifier.data.dataset import Dataset
from classifier.data.images.arrays import are_decoded_each_time
from classifier.errors import DivergedError
from classifier.runtime import cpu
from classifier.runtime.distributed import ProcessGroup
from classifier.runtime.timing import Throughput, Timer
from classifier.training.checkpoint import AsyncCheckpointWriter, Checkpoint, CheckpointStore
from classifier.training.state import TrainState

# Ranks agree to stop, and look for a loss that is not finite, every so many steps: each look waits for the device.
AGREE_EVERY = 16
_REASONS = {0: None, 1: "train.minutes", 2: "asked"}


@dataclass(frozen=True)
class StepProgress:
    """Where training is, for a progress line; told a few times a second. Loss and accuracy are this epoch's so far."""

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float | None
    seconds_left: float | None


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images, or the part of it before a stop. `model` is the one to keep, in eval mode.

    `commit` writes the epoch's checkpoint, if one is due; at the latest it is called as the next epoch is asked for.
    """

    number: int
    step: int
    seconds: float
    lr: float
    train_loss: float
    train_accuracy: float
    order: str
    """16 hex digits for which image came where; equal for equal orders, on any number of workers."""
    validation: dict[str, Any] | None
    images_per_second: float | None
    input_wait: float | None
    """The share of a step that is spent waiting for images."""
    is_best: bool
    stopped: str | None
    model: nn.Module
    commit: Callable[[], None]

    def row(self) -> dict[str, Any]:
        """Its line in history.jsonl."""
        scores = self.validation or {}
        return {
            "epoch": self.number,
            "step": self.step,
            "seconds": round(self.seconds, 3),
            "lr": self.lr,
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            **{f"validation_{name}": scores.get(name) for name in ("loss", "accuracy", "macro_f1")},
            "images_per_second": self.images_per_second,
            "input_wait": self.input_wait,
            "order": self.order,
            "best": self.is_best,
        }


def fit(
    experiment: Experiment,
    dataset: Dataset,
    *,
    group: ProcessGroup | None = None,
    store: CheckpointStore | None = None,
    features: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[], bool] = lambda: False,
    on_step: Callable[[StepProgress], None] | None = None,
) -> Iterator[Epoch]:
    """Train a resolved experiment; begin at the store's newest whole checkpoint, if it has one.

    features: a folder for what a frozen backbone sees (augment.views), which other trainings of these images may use.
    should_stop is polled at each step; when it answers true on any rank, all ranks commit a checkpoint and end.
    should_save is polled on rank 0; when it answers true, a checkpoint is written beside the training.
    An epoch's checkpoint is committed after the caller took the Epoch: keep its model before you commit it.
    DivergedError when the loss stops being finite; the last checkpoint is from before that.
    """
    group = group or ProcessGroup()
    cpu.setup(group.device.type)
    threads = torch.get_num_threads()
    torch.set_num_threads(experiment.train.threads or threads)
    try:
        training = TrainState(experiment, dataset, group, features)
        if store is not None and (checkpoint := group.broadcast(store.load_latest() if group.is_first else None)):
            training.restore(checkpoint)
        yield from _epochs(training, store, should_stop, should_save, on_step)
    finally:
        torch.set_num_threads(threads)


def _epochs(
    training: TrainState,
    store: CheckpointStore | None,
    should_stop: Callable[[], bool],
    should_save: Callable[[], bool],
    on_step: Callable[[StepProgress], None] | None,
) -> Iterator[Epoch]:
    experiment, group = training.experiment, training.group
    writer = AsyncCheckpointWriter(store) if store is not None and group.is_first else None
    look = _Look(training, should_stop, should_save, writer)
    speed = Throughput(group.device)
    pin = group.device.type == "cuda"
    try:
        while not training.is_over:
            epoch, start = divmod(training.step, training.steps_per_epoch)
            part = training.begin_epoch(epoch)
            if start == 0:
                training.reset_sums()
            began, stopped = time.perf_counter(), None
            speed.resume()
            batches = loader.batches(
                part,
                batch=training.batch,
                seed=experiment.seed,
                epoch=epoch,
                start=start,
                rank=group.rank,
                world=group.world_size,
                balance=experiment.data.balance,
            )
            for batch in speed.time_input(
                loader.prefetch(batches, pin=pin, decodes=are_decoded_each_time(part.images_NCHW))
            ):
                training.train_step(batch, epoch)
                speed.count(batch.global_count)
                if on_step is not None and speed.should_report():
                    on_step(_told(training, epoch, speed))
                stopped, is_due = look(training.seconds + time.perf_counter() - began)
                if stopped:
                    break
                if is_due and (checkpoint := training.checkpoint()) and writer:
                    writer.submit(checkpoint)
            speed.pause()
            seconds = time.perf_counter() - began
            training.seconds += seconds
            # Before the part of an epoch is looked at, which changes the running statistics of batch norm.
            checkpoint = training.checkpoint() if stopped and store is not None else None
            closed = _closed(training, epoch + 1, seconds, stopped, speed)
            # Only now: the validation of this epoch may have used up the patience.
            is_due = (epoch + 1) % experiment.checkpoint.epochs == 0 or training.is_over
            if store is not None and is_due and not stopped:
                checkpoint = training.checkpoint()
            commit = _Commit(writer, checkpoint)
            yield dataclasses.replace(closed, commit=commit)
            commit()
            if stopped:
                return
    finally:
        if writer is not None:
            writer.close()


class _Commit:
    """Writes an epoch's checkpoint, once, where one is due, and waits until it is on disk."""

    def __init__(self, writer: AsyncCheckpointWriter | None, checkpoint: Checkpoint | None) -> None:
        self.writer, self.checkpoint = writer, checkpoint

    def __call__(self) -> None:
        checkpoint, self.checkpoint = self.checkpoint, None
        if self.writer is not None and checkpoint is not None:
            self.writer.submit(checkpoint)
            self.writer.wait()


class _Look:
    """After each step: whether to stop, and whether to save. All ranks get one answer."""

    def __init__(
        self,
        training: TrainState,
        should_stop: Callable[[], bool],
        should_save: Callable[[], bool],
        writer: AsyncCheckpointWriter | None,
    ) -> None:
        self.training, self.should_stop, self.should_save, self.writer = training, should_stop, should_save, writer
        self.timer = Timer(training.experiment.checkpoint.minutes)

    def __call__(self, seconds: float) -> tuple[str | None, bool]:
        """Why all ranks stop now, or None; and whether a checkpoint is due. `seconds` is what training took so far.

        DivergedError, on all of them, if a loss was not finite on any.
        """
        training, group, experiment = self.training, self.training.group, self.training.experiment
        at_end = training.step % training.steps_per_epoch == 0
        steps = experiment.checkpoint.steps
        at_save = not at_end and steps is not None and training.step % steps == 0
        agreeing = at_end or at_save or training.step % AGREE_EVERY == 0
        if agreeing or (group.world_size == 1 and group.device.type == "cpu"):
            bad_step = group.all_reduce_max(int(training.sums[3]))
            if bad_step >= 0:
                raise DivergedError(
                    f"the loss is not finite since step {bad_step} of {training.steps} (learning rate "
                    f"{training.lr:.3g}, {experiment.train.precision}): try --optimizer.lr "
                    f"{experiment.optimizer.lr / 10:.2g}, --optimizer.clip 1 or --train.precision fp32"
                )
        if group.world_size > 1 and not agreeing:
            return None, False
        minutes = experiment.train.minutes
        reason = 2 if self.should_stop() else int(minutes is not None and seconds > 60 * minutes)
        # A checkpoint after the last step would count the epoch as done before it was validated.
        can_save = self.writer is not None and not self.writer.is_busy and not at_end
        is_due = can_save and (at_save or self.timer() or self.should_save())
        agreed = group.all_reduce_max(2 * reason + is_due)
        return _REASONS[agreed // 2], agreed % 2 == 1


def _told(training: TrainState, epoch: int, speed: Throughput) -> StepProgress:
    loss, hits, count, _ = training.sums.tolist()
    count, step_seconds = max(count, 1), speed.step_seconds()
    return StepProgress(
        epoch=epoch + 1,
        epochs=training.experiment.train.epochs,
        step=training.step,
        steps=training.steps,
        loss=loss / count,
        accuracy=hits / count,
        images_per_second=speed.images_per_second(),
        seconds_left=(training.steps - training.step) * step_seconds if step_seconds else None,
    )


def _closed(training: TrainState, number: int, seconds: float, stopped: str | None, speed: Throughput) -> Epoch:
    """Validate what the epoch made. A part of an epoch is validated only where there is no better model yet.

    Where there is nothing to validate with, the last model is the one to keep.
    """
    whole = training.step % training.steps_per_epoch == 0
    if whole:
        training.end_epoch(number - 1)
    training.group.average_buffers(training.eval_model)
    loss, hits, count, _ = training.group.all_reduce_sum(training.sums.clone()).tolist()
    trace = int(training.group.all_reduce_sum(training.trace.clone()))
    scores, validated = None, len(training.dataset.validation) > 0
    if validated and (whole or training.best is None):
        scores = training.validate()
    return Epoch(
        number=number,
        step=training.step,
        seconds=seconds,
        lr=training.lr,
        train_loss=loss / count,
        train_accuracy=hits / count,
        order=f"{trace % 2**64:016x}",
        validation=scores,
        images_per_second=speed.images_per_second(),
        input_wait=speed.input_wait(),
        is_best=training.update_best(scores, number) if scores is not None else not validated,
        stopped=stopped,
        model=training.eval_model,
        commit=lambda: None,
    )
