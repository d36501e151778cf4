"""The training loop: a generator that yields one Epoch after another, in a plain process, under torchrun or Ray."""

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
from classifier.data.dataset import Dataset, Split
from classifier.data.images.arrays import decodes_on_access
from classifier.data.labels.label_sets import find_rarest
from classifier.errors import DivergedError
from classifier.runtime import cpu
from classifier.runtime.distributed import ProcessGroup
from classifier.runtime.threads import use_threads
from classifier.runtime.timing import Throughput, Timer
from classifier.training.checkpoint import AsyncCheckpointWriter, CheckpointStore, PendingCheckpoint
from classifier.training.distillation import Teacher
from classifier.training.fusion.final_epoch import choose_final_model
from classifier.training.state import TrainState

# Steps after which ranks agree whether to stop, and check that the loss is finite: both wait for the device.
AGREE_EVERY = 16
# Validation scores that only images with several labels, or with grades, have.
TASK_SCORES = ("map", "micro_f1", "quadratic_kappa", "mean_absolute_error")
_STOP_REASONS = {0: None, 1: "train.minutes", 2: "asked"}


@dataclass(frozen=True)
class StepProgress:
    """Progress within an epoch, reported a few times a second. Loss and accuracy are over the epoch so far.

    The accuracy of several labels is the share of images of which all are right."""

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
    """One pass over the training images, or the part of it before a stop. `model` is the one to save, in eval mode.

    `commit` writes the epoch's checkpoint, if one is due; requesting the next epoch calls it at the latest.
    """

    number: int
    step: int
    seconds: float
    lr: float
    train_loss: float
    train_accuracy: float
    order: str
    """Hash of the order of the images, 16 hex digits; the same on any number of workers."""
    validation: dict[str, Any] | None
    images_per_second: float | None
    input_wait: float | None
    """Share of the step time spent waiting for images."""
    improves: bool
    """Its validation scores are the best so far."""
    is_best: bool
    """`model` is to be saved: it improves, or train.keep is last, or there are no validation images."""
    stopped: str | None
    model: nn.Module
    commit: Callable[[], None]
    fusion: dict[str, Any] | None = None
    """Of the last epoch of a training with columns: the scores of all ways to join them, and the one that was chosen
    (fusion/compare.py)."""

    def row(self) -> dict[str, Any]:
        """Return the epoch's line of history.jsonl."""
        scores = dict(self.validation or {})
        scores.setdefault("accuracy", scores.get("subset_accuracy"))  # of several labels an image
        return {
            "epoch": self.number,
            "step": self.step,
            "seconds": round(self.seconds, 3),
            "lr": self.lr,
            "train_loss": self.train_loss,
            "train_accuracy": self.train_accuracy,
            **{f"validation_{name}": scores.get(name) for name in ("loss", "accuracy", "macro_f1")},
            **{f"validation_{name}": scores[name] for name in TASK_SCORES if name in scores},
            "images_per_second": self.images_per_second,
            "input_wait": self.input_wait,
            "order": self.order,
            "improves": self.improves,
            "best": self.is_best,
        }


def fit(
    experiment: Experiment,
    dataset: Dataset,
    *,
    group: ProcessGroup | None = None,
    store: CheckpointStore | None = None,
    features: Path | None = None,
    teacher: Teacher | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    should_save: Callable[[], bool] = lambda: False,
    on_step: Callable[[StepProgress], None] | None = None,
) -> Iterator[Epoch]:
    """Train a resolved experiment, from the store's newest complete checkpoint if it has one.

    features: cache directory for the features of a frozen backbone (augment.views), shared by trainings on the same
    images. teacher: for loss.distill. should_stop is polled after each step; once it returns true on any rank, all
    ranks commit a checkpoint and stop. should_save is polled on rank 0; when it returns true, a checkpoint is written
    in the background. An epoch's checkpoint is committed after the Epoch was yielded: save its model before calling
    Epoch.commit. DivergedError when the loss is not finite; the last checkpoint is from before that.
    """
    group = group or ProcessGroup()
    cpu.setup(group.device.type)
    with use_threads(experiment.train.threads):
        state = TrainState(experiment, dataset, group, features, teacher)
        if store is not None and (checkpoint := group.broadcast(store.load_latest() if group.is_first else None)):
            state.restore(checkpoint)
        yield from _train_epochs(state, store, should_stop, should_save, on_step)


def _train_epochs(
    state: TrainState,
    store: CheckpointStore | None,
    should_stop: Callable[[], bool],
    should_save: Callable[[], bool],
    on_step: Callable[[StepProgress], None] | None,
) -> Iterator[Epoch]:
    writer = AsyncCheckpointWriter(store) if store is not None and state.group.is_first else None
    decide = _StepDecision(state, should_stop, should_save, writer)
    throughput = Throughput(state.group.device)
    try:
        while not state.is_over:
            epoch, first_step = divmod(state.step, state.steps_per_epoch)
            split = state.begin_epoch(epoch)
            if first_step == 0:
                state.reset_sums()
            started, stopped = time.perf_counter(), None
            throughput.resume()
            is_probe = state.experiment.model.probe and state.step == 0
            if is_probe:
                state.fit_head()
                stopped, _ = decide(state.seconds + time.perf_counter() - started)
            for batch in () if is_probe else throughput.time_input(_batches(state, split, epoch, first_step)):
                state.train_step(batch, epoch)
                throughput.count(batch.global_count)
                if on_step is not None and throughput.should_report():
                    on_step(_step_progress(state, epoch, throughput))
                stopped, should_checkpoint = decide(state.seconds + time.perf_counter() - started)
                if stopped:
                    break
                if should_checkpoint and (checkpoint := state.checkpoint()) and writer:
                    writer.submit(checkpoint)
            throughput.pause()
            seconds = time.perf_counter() - started
            state.seconds += seconds
            # Inside an epoch, before validation, which averages batch norm's running statistics over the ranks.
            checkpoint = state.checkpoint() if stopped and store is not None else None
            finished = _finish_epoch(state, epoch + 1, seconds, stopped, throughput)
            # After validation, which may have used up train.patience.
            is_due = (epoch + 1) % state.experiment.checkpoint.epochs == 0 or state.is_over
            if store is not None and is_due and not stopped:
                checkpoint = state.checkpoint()
            commit = PendingCheckpoint(writer, checkpoint)
            yield dataclasses.replace(finished, commit=commit)
            commit()
            if stopped:
                return
    finally:
        if writer is not None:
            writer.close()


def _batches(state: TrainState, split: Split, epoch: int, first_step: int) -> Iterator[loader.Batch]:
    """This rank's batches of the epoch, from `first_step` on."""
    strata_N, label_sets_MK = None, state.dataset.label_sets_MK
    if state.experiment.data.balance and label_sets_MK is not None:  # by the rarest label of each image
        classes = len(state.dataset.class_names)
        strata_N = torch.from_numpy(find_rarest(split.labels_N.numpy(), classes, label_sets_MK.numpy()))
    batches = loader.batches(
        split,
        batch=state.batch,
        seed=state.experiment.seed,
        epoch=epoch,
        start=first_step,
        rank=state.group.rank,
        world=state.group.world_size,
        balance=state.experiment.data.balance,
        strata_N=strata_N,
        repeats=state.repeats,
    )
    is_cuda = state.group.device.type == "cuda"
    return loader.prefetch(batches, pin=is_cuda, decodes=decodes_on_access(split.training_images))


class _StepDecision:
    """After each step: whether to stop, and whether to write a checkpoint. All ranks get the same answer."""

    def __init__(
        self,
        state: TrainState,
        should_stop: Callable[[], bool],
        should_save: Callable[[], bool],
        writer: AsyncCheckpointWriter | None,
    ) -> None:
        self.state, self.should_stop, self.should_save, self.writer = state, should_stop, should_save, writer
        self.timer = Timer(state.experiment.checkpoint.minutes)

    def __call__(self, seconds: float) -> tuple[str | None, bool]:
        """Why all ranks stop now, or None; and whether a checkpoint is due. seconds: training time so far.

        DivergedError, on all ranks, if the loss was not finite on any.
        """
        state, group = self.state, self.state.group
        ends_epoch = state.step % state.steps_per_epoch == 0
        steps = state.experiment.checkpoint.steps
        is_checkpoint_step = not ends_epoch and steps is not None and state.step % steps == 0
        ranks_agree = ends_epoch or is_checkpoint_step or state.step % AGREE_EVERY == 0
        if ranks_agree or (group.world_size == 1 and group.device.type == "cpu"):
            self._check_loss()
        if group.world_size > 1 and not ranks_agree:
            return None, False
        minutes = state.experiment.train.minutes
        reason = 2 if self.should_stop() else int(minutes is not None and seconds > 60 * minutes)
        # A checkpoint after an epoch's last step would count the epoch as done before it was validated.
        can_write = self.writer is not None and not self.writer.is_busy and not ends_epoch
        should_checkpoint = can_write and (is_checkpoint_step or self.timer.is_due() or self.should_save())
        agreed = group.all_reduce_max(2 * reason + should_checkpoint)
        return _STOP_REASONS[agreed // 2], agreed % 2 == 1

    def _check_loss(self) -> None:
        state, experiment = self.state, self.state.experiment
        bad_step = state.group.all_reduce_max(int(state.sums[3]))
        if bad_step >= 0:
            raise DivergedError(
                f"the loss is not finite since step {bad_step} of {state.steps} (learning rate {state.lr:.3g}, "
                f"{experiment.train.precision}): try --optimizer.lr {experiment.optimizer.lr / 10:.2g}, "
                "--optimizer.clip 1 or --train.precision fp32"
            )


def _step_progress(state: TrainState, epoch: int, throughput: Throughput) -> StepProgress:
    loss, hits, count, _ = state.sums.tolist()
    count, step_seconds = max(count, 1), throughput.step_seconds()
    return StepProgress(
        epoch=epoch + 1,
        epochs=state.experiment.train.epochs,
        step=state.step,
        steps=state.steps,
        loss=loss / count,
        accuracy=hits / count,
        images_per_second=throughput.images_per_second(),
        seconds_left=(state.steps - state.step) * step_seconds if step_seconds else None,
    )


def _finish_epoch(state: TrainState, number: int, seconds: float, stopped: str | None, throughput: Throughput) -> Epoch:
    """Validate and summarize an epoch. A partial epoch is validated only if no epoch has been yet.

    Without validation images, the last model is the best.
    """
    is_complete = state.step % state.steps_per_epoch == 0
    if is_complete:
        state.end_epoch(number - 1)
    state.group.average_buffers(state.eval_model)
    loss, hits, count, _ = state.group.all_reduce_sum(state.sums.clone()).tolist()
    trace = int(state.group.all_reduce_sum(state.trace.clone()))
    scores, has_validation = state.fold_scores, len(state.dataset.validation) > 0
    if has_validation and (is_complete or state.best is None):
        scores = state.validate()
    improves = scores is not None and state.update_best(scores, number)
    keeps_last = state.experiment.train.keep == "last" and scores is not None
    if (is_complete and state.is_over) or stopped == "train.minutes":
        scores, improves, is_wanted = choose_final_model(state, scores, number, improves)
        keeps_last = keeps_last or is_wanted
    return Epoch(
        number=number,
        step=state.step,
        seconds=seconds,
        lr=state.lr,
        train_loss=loss / count,
        train_accuracy=hits / count,
        order=f"{trace % 2**64:016x}",
        validation=scores,
        images_per_second=throughput.images_per_second(),
        input_wait=throughput.wait_fraction(),
        improves=improves,
        is_best=improves or keeps_last or not has_validation,
        stopped=stopped,
        model=state.eval_model,
        commit=lambda: None,
        fusion=None if state.fused is None else state.fused.compared.scores,
    )
