"""The loop: a generator that trains and yields one Epoch after the other, in a plain process, torchrun or Ray."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from classifier.checkpoint import Store
from classifier.clock import Speed, Timer
from classifier.config import Experiment
from classifier.data import loader
from classifier.data.dataset import Dataset
from classifier.distributed import Group
from classifier.errors import DivergedError
from classifier.training import Training

# Ranks agree to stop, and look for a loss that is not finite, every so many steps: each look waits for the device.
AGREE_EVERY = 16
_REASONS = {0: None, 1: "train.minutes", 2: "asked"}


@dataclass(frozen=True)
class Step:
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
    validation: dict[str, Any] | None
    images_per_second: float | None
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
            "best": self.is_best,
        }


def fit(
    experiment: Experiment,
    dataset: Dataset,
    *,
    group: Group | None = None,
    store: Store | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable[[Step], None] | None = None,
) -> Iterator[Epoch]:
    """Train a resolved experiment; begin at the store's newest whole checkpoint, if it has one.

    should_stop is polled at each step; when it answers true on any rank, all ranks commit a checkpoint and end.
    An epoch's checkpoint is committed after the caller took the Epoch: keep its model before you commit it.
    DivergedError when the loss stops being finite; the last checkpoint is from before that.
    """
    group = group or Group()
    threads = torch.get_num_threads()
    torch.set_num_threads(experiment.train.threads or threads)
    try:
        training = Training(experiment, dataset, group)
        if store is not None and (checkpoint := group.share(store.latest() if group.is_first else None)):
            training.restore(checkpoint)
        yield from _epochs(training, store, should_stop, on_step)
    finally:
        torch.set_num_threads(threads)


def _epochs(
    training: Training, store: Store | None, should_stop: Callable[[], bool], on_step: Callable[[Step], None] | None
) -> Iterator[Epoch]:
    experiment, group = training.experiment, training.group
    is_time_to_save = Timer(experiment.checkpoint.minutes)
    speed = Speed(group.device)
    while not training.is_over:
        epoch, start = divmod(training.step, training.steps_per_epoch)
        training.begin_epoch(epoch)
        if start == 0:
            training.forget_sums()
        began, stopped = time.perf_counter(), None
        speed.resume()
        for batch in loader.batches(
            training.dataset.train,
            batch=training.batch,
            seed=experiment.seed,
            epoch=epoch,
            start=start,
            rank=group.rank,
            world=group.world,
        ):
            training.update(batch, epoch)
            speed.count(batch.global_count)
            if on_step is not None and speed.time_to_tell():
                on_step(_told(training, epoch, speed))
            stopped = _agreed_stop(training, should_stop, began)
            if stopped:
                break
            # A checkpoint after the last step would count the epoch as done before it was validated.
            is_inside = training.step % training.steps_per_epoch != 0
            if store is not None and is_inside and is_time_to_save() and group.is_first:
                store.commit(training.checkpoint())
        speed.pause()
        seconds = time.perf_counter() - began
        training.seconds += seconds
        commit = _Commit(training, store, is_due=(epoch + 1) % experiment.checkpoint.epochs == 0 or bool(stopped))
        yield _closed(training, epoch + 1, seconds, stopped, speed, commit)
        commit()
        if stopped:
            return


class _Commit:
    """Writes an epoch's checkpoint, once, where one is due.

    It lets go of the training then: who keeps an Epoch must not keep the process group's threads alive with it.
    """

    def __init__(self, training: Training, store: Store | None, *, is_due: bool) -> None:
        self.training: Training | None = training
        self.store, self.is_due = store, is_due

    def __call__(self) -> None:
        training, self.training = self.training, None
        if training is None or self.store is None or not training.group.is_first:
            return
        if self.is_due or training.is_over:  # the validation of this epoch may have used up the patience
            self.store.commit(training.checkpoint())


def _agreed_stop(training: Training, should_stop: Callable[[], bool], began: float) -> str | None:
    """Why all ranks stop now, or None. Raises, on all of them, if a loss was not finite on any."""
    group, experiment = training.group, training.experiment
    at_end = training.step % training.steps_per_epoch == 0
    agreeing = at_end or training.step % AGREE_EVERY == 0
    if agreeing or (group.world == 1 and group.device.type == "cpu"):
        bad_step = group.max(int(training.sums[3]))
        if bad_step >= 0:
            raise DivergedError(
                f"the loss is not finite since step {bad_step} of {training.steps} (learning rate {training.lr:.3g}, "
                f"{experiment.train.precision}): try --optimizer.lr {experiment.optimizer.lr / 10:.2g}, "
                "--optimizer.clip 1 or --train.precision fp32"
            )
    if group.world > 1 and not agreeing:
        return None
    minutes = experiment.train.minutes
    seconds = training.seconds + time.perf_counter() - began
    reason = 2 if should_stop() else int(minutes is not None and seconds > 60 * minutes)
    return _REASONS[group.max(reason)]


def _told(training: Training, epoch: int, speed: Speed) -> Step:
    loss, hits, count, _ = training.sums.tolist()
    count, step_seconds = max(count, 1), speed.step_seconds()
    return Step(
        epoch=epoch + 1,
        epochs=training.experiment.train.epochs,
        step=training.step,
        steps=training.steps,
        loss=loss / count,
        accuracy=hits / count,
        images_per_second=speed.images_per_second(),
        seconds_left=(training.steps - training.step) * step_seconds if step_seconds else None,
    )


def _closed(
    training: Training, number: int, seconds: float, stopped: str | None, speed: Speed, commit: Callable[[], None]
) -> Epoch:
    """Validate what the epoch made. A part of an epoch is validated only where there is no better model yet."""
    whole = training.step % training.steps_per_epoch == 0
    training.group.average_buffers(training.kept)
    loss, hits, count, _ = training.group.sum(training.sums.clone()).tolist()
    scores = None
    if whole or training.best is None:
        scores = training.scorer.score(training.kept, training.dataset.validation, training.group)
    return Epoch(
        number=number,
        step=training.step,
        seconds=seconds,
        lr=training.lr,
        train_loss=loss / count,
        train_accuracy=hits / count,
        validation=scores,
        images_per_second=speed.images_per_second(),
        is_best=scores is not None and training.judge(scores, number),
        stopped=stopped,
        model=training.kept,
        commit=commit,
    )
